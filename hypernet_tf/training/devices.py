"""Where training runs: on one device, on several of one machine, or on several machines."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from hypernet_tf.samplers.batching import Share


class DeviceError(ValueError):
    """Devices that cannot be had; the message is one line that says what to do."""


class WorkerLostError(RuntimeError):
    """Another machine of the run has gone; the message is one line that says what to do."""


@dataclasses.dataclass(frozen=True)
class Execution:
    """How training steps are run. It has no part in what they compute, but for rounding.

    Attributes:
        strategy: over which devices; None for one.
        steps_per_execution: how many steps are one call of a graph.
        jit_compile: whether XLA compiles the step.

    Raises:
        DeviceError: what XLA cannot do.
    """

    strategy: tf.distribute.Strategy | None = None
    steps_per_execution: int = 1
    jit_compile: bool = False

    def __post_init__(self):
        if self.steps_per_execution < 1:
            raise DeviceError(f"a call runs at least 1 step, not {self.steps_per_execution}")
        if self.jit_compile and self.replicas > 1:
            raise DeviceError("XLA compiles steps on one device: drop jit_compile or take 1 device")

    @property
    def replicas(self) -> int:
        """R, over all machines."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    @property
    def workers(self) -> int:
        """How many machines (processes) train together."""
        resolver = self.strategy and self.strategy.cluster_resolver
        spec = resolver.cluster_spec().as_dict() if resolver else {}
        return max(1, sum(map(len, spec.values())))

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes."""
        resolver = self.strategy and self.strategy.cluster_resolver
        if not resolver or self.workers == 1:
            return True
        first = "chief" if "chief" in resolver.cluster_spec().as_dict() else "worker"
        return (resolver.task_type, resolver.task_id) == (first, 0)

    def scope(self) -> Any:
        """The context in which a sampler is made or loaded."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()


@contextlib.contextmanager
def together(execution: Execution) -> Iterator[None]:
    """What machines do together: when one ends, the others learn it by their next exchange.

    Raises:
        WorkerLostError: another machine has gone.
    """
    errors = tf.errors
    try:
        yield
    except (
        errors.UnavailableError,
        errors.AbortedError,
        errors.CancelledError,
        errors.InternalError,
        errors.DeadlineExceededError,
    ) as error:
        if execution.workers == 1:
            raise
        raise WorkerLostError(
            "another worker has ended, see what it said: start all of them again to go on from the "
            "last checkpoint"
        ) from error


def check_batch(networks: int, images: int, replicas: int) -> None:
    """Whether a step's N networks and their images can be shared out to R devices.

    Args:
        num_networks: N.
        images: B, images of each.
        replicas: R.

    Raises:
        DeviceError: they cannot.
    """
    try:
        Share(networks, replicas)
    except ValueError as error:
        raise DeviceError(str(error)) from error
    if networks * images % replicas:
        raise DeviceError(
            f"{images} images of a network cannot be shared out to {replicas // networks} devices: "
            "take a number of images that divides by that of devices"
        )


def split_cpu(count: int) -> None:
    """Make several logical devices of the CPU, to try many devices without having them.

    Args:
        count: how many. They share the same cores: nothing gets faster.

    Raises:
        DeviceError: TensorFlow has looked at its devices already.
    """
    (cpu,) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise DeviceError("the CPU is split before anything else is computed") from error


def available() -> list[str]:
    """The devices that steps can run on: GPUs, or where there are none, CPUs."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in devices]


def strategy(devices: int | None = 1) -> tf.distribute.Strategy | None:
    """The strategy that mirrors a sampler on the devices of this machine.

    Where the environment has TF_CONFIG with more than one worker, it is that of this cluster, and
    takes all GPUs of each worker.

    Args:
        devices: how many; None for all.

    Returns:
        None for one device. The same devices give the same strategy again: the groups in which
        replicas exchange tensors are numbered once in a process.

    Raises:
        DeviceError: there are not so many, or TF_CONFIG is not what TensorFlow takes.
    """
    workers = cluster()
    if workers:
        if devices is not None and devices != 1:
            raise DeviceError("with TF_CONFIG each worker uses all its GPUs: do not number devices")
        return _multi_worker()
    there = available()
    count = len(there) if devices is None else devices
    if not 1 <= count <= len(there):
        kind = there[0].split(":")[-2]
        raise DeviceError(
            f"{count} devices are not to be had: this machine has {len(there)} {kind}"
        )
    return _mirrored(tuple(there[:count])) if count > 1 else None


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    return tf.distribute.MultiWorkerMirroredStrategy()


def cluster() -> dict[str, list[str]] | None:
    """The workers that TF_CONFIG names; None where it names no other than this process.

    Raises:
        DeviceError: it is not what TensorFlow takes, or this worker's port is in use.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return None
    example = (
        '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
        '"task": {"type": "worker", "index": 0}}'
    )
    try:
        config = json.loads(text)
        workers, task = config.get("cluster", {}), config.get("task", {})
        addresses = [address for several in workers.values() for address in several]
        kind, index = task.get("type", "worker"), task.get("index", 0)
        whole = all(isinstance(a, str) and a.rpartition(":")[2].isdigit() for a in addresses)
    except (AttributeError, TypeError, ValueError) as error:
        raise DeviceError(f"TF_CONFIG is not of the form {example}") from error
    if not whole or not isinstance(index, int) or not isinstance(workers, dict):
        raise DeviceError(f"TF_CONFIG is not of the form {example}")
    if len(addresses) < 2:
        return None
    if set(workers) - {"chief", "worker"}:
        odd = sorted(set(workers) - {"chief", "worker"})[0]
        raise DeviceError(f"TF_CONFIG names '{odd}' tasks: there are a chief and workers only")
    if len(set(addresses)) < len(addresses):
        raise DeviceError("TF_CONFIG names the same address twice")
    if kind not in workers or not 0 <= index < len(workers[kind]):
        raise DeviceError(f"TF_CONFIG says that this is {kind} {index}, which its cluster has not")
    if _multi_worker.cache_info().currsize == 0:  # afterwards the port is our own
        _check_free(workers[kind][index])
    return workers


def _check_free(address: str) -> None:
    """Whether this worker can listen at its address.

    Raises:
        DeviceError: another process does.
    """
    port = int(address.rpartition(":")[2])
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except (OSError, OverflowError) as error:
            raise DeviceError(
                f"port {port} of {address}, this worker's in TF_CONFIG, is in use: choose another"
            ) from error
