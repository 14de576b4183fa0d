"""Devices of a training run: one, several of one machine, or those of several machines."""

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
    """Devices are not available, or cannot run a step; the message is one line with advice."""


class WorkerLostError(RuntimeError):
    """Another machine of the run has ended; the message is one line with advice."""


@dataclasses.dataclass(frozen=True)
class Execution:
    """How training steps are run.

    It has no effect on what they compute, except rounding; XLA draws other random numbers.

    Attributes:
        strategy: Strategy of several devices; None for one device.
        steps_per_execution: Number of steps in one call of a graph.
        jit_compile: Whether XLA compiles the step.

    Raises:
        DeviceError: XLA is asked for on several devices, or no step per execution.
    """

    strategy: tf.distribute.Strategy | None = None
    steps_per_execution: int = 1
    jit_compile: bool = False

    def __post_init__(self):
        if self.steps_per_execution < 1:
            raise DeviceError(
                f"steps_per_execution is {self.steps_per_execution}: a call runs at least 1 step."
            )
        if self.jit_compile and self.replicas > 1:
            raise DeviceError(
                "XLA compiles steps on one device: drop jit_compile, or use 1 device."
            )

    @property
    def replicas(self) -> int:
        """R, the number of replicas on all machines."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    @property
    def workers(self) -> int:
        """Number of machines (processes) that train together."""
        resolver = self.strategy and self.strategy.cluster_resolver
        spec = resolver.cluster_spec().as_dict() if resolver else {}
        return max(1, sum(map(len, spec.values())))

    @property
    def chief(self) -> bool:
        """Whether this process is the one that writes files."""
        resolver = self.strategy and self.strategy.cluster_resolver
        if not resolver or self.workers == 1:
            return True
        first = "chief" if "chief" in resolver.cluster_spec().as_dict() else "worker"
        return (resolver.task_type, resolver.task_id) == (first, 0)

    def scope(self) -> Any:
        """The context in which a sampler is made or loaded."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()


@contextlib.contextmanager
def detect_lost_workers(execution: Execution) -> Iterator[None]:
    """Turn the errors of an exchange between machines, of which one has ended, into one line.

    Raises:
        WorkerLostError: Another machine has ended.
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
            "Another worker has ended: see its last message, and start all workers again to "
            "continue from the last checkpoint."
        ) from error


def check_batch(
    num_networks: int,
    images: int,
    replicas: int,
    *,
    shared_inputs: bool = False,
    min_networks: int = 0,
) -> None:
    """Check that a step's N networks and their images can be shared among R devices.

    Args:
        num_networks: N.
        images: B, number of images of each network.
        replicas: R.
        shared_inputs: Whether all networks see the same images, of which each device reads a part.
        min_networks: The smallest number on a device; 0 if several devices may share a network.

    Raises:
        DeviceError: They cannot be shared equally.
    """
    try:
        Share(num_networks, replicas)
    except ValueError as error:
        raise DeviceError(str(error)) from error
    if num_networks // replicas < min_networks:
        raise DeviceError(
            f"Cannot share {num_networks} networks among {replicas} devices, each of which needs "
            f"{min_networks}: use fewer devices."
        )
    if shared_inputs and (num_networks < replicas or images % replicas):
        raise DeviceError(
            f"Cannot share {num_networks} networks with the same {images} images among {replicas} "
            "devices: use at least as many networks as devices, and a number of images that is "
            "divisible by the number of devices."
        )
    if num_networks * images % replicas:
        raise DeviceError(
            f"Cannot share {images} images of a network among {replicas // num_networks} devices: "
            "choose a number of images that is divisible by the number of devices."
        )


def split_cpu(count: int) -> None:
    """Split the CPU into several logical devices, to try several devices on a machine with one.

    Args:
        count: Number of logical devices. They share the same cores: nothing gets faster.

    Raises:
        DeviceError: TensorFlow has already used its devices.
    """
    (cpu,) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise DeviceError(
            "Cannot split the CPU, which has been used: split it before anything else is computed."
        ) from error


def available() -> list[str]:
    """The names of the devices on which steps can run: GPUs, or CPUs if there is no GPU."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return [device.name for device in devices]


def strategy(devices: int | None = 1) -> tf.distribute.Strategy | None:
    """The strategy that mirrors a sampler on the devices of this machine.

    If the environment variable TF_CONFIG names more than one worker, the strategy is that of this
    cluster and uses all GPUs of each worker.

    Args:
        devices: Number of devices; None for all.

    Returns:
        A strategy, or None for one device. The same devices give the same strategy again, because
        the groups in which replicas exchange tensors are numbered once in a process.

    Raises:
        DeviceError: There are fewer devices, or TensorFlow cannot read TF_CONFIG.
    """
    workers = cluster()
    if workers:
        if devices is not None and devices != 1:
            raise DeviceError(
                "With TF_CONFIG each worker uses all its GPUs: leave the number of devices out."
            )
        return _multi_worker()
    names = available()
    count = len(names) if devices is None else devices
    if not 1 <= count <= len(names):
        kind = names[0].split(":")[-2]
        raise DeviceError(f"Cannot use {count} devices: this machine has {len(names)} {kind}.")
    return _mirrored(tuple(names[:count])) if count > 1 else None


@functools.cache
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    return tf.distribute.MirroredStrategy(devices)


@functools.cache
def _multi_worker() -> tf.distribute.Strategy:
    return tf.distribute.MultiWorkerMirroredStrategy()


def cluster() -> dict[str, list[str]] | None:
    """The workers that TF_CONFIG names; None if it names no other than this process.

    Raises:
        DeviceError: TensorFlow cannot read TF_CONFIG, or this worker's port is in use.
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
        addresses = [address for group in workers.values() for address in group]
        kind, index = task.get("type", "worker"), task.get("index", 0)
        lists = all(isinstance(group, list) for group in workers.values())
        valid = lists and all(
            isinstance(a, str) and _is_port(a.rpartition(":")[2]) for a in addresses
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise DeviceError(f"Cannot read TF_CONFIG: write it like {example}.") from error
    if not valid or not isinstance(index, int) or not isinstance(kind, str):
        raise DeviceError(f"Cannot read TF_CONFIG: write it like {example}.")
    if len(addresses) < 2:
        return None
    if set(workers) - {"chief", "worker"}:
        unknown = sorted(set(workers) - {"chief", "worker"})[0]
        raise DeviceError(f"TF_CONFIG names '{unknown}' tasks: name only a chief and workers.")
    if len(set(addresses)) < len(addresses):
        raise DeviceError("TF_CONFIG names the same address twice: give each worker its own.")
    if not {"type", "index"} <= task.keys():
        raise DeviceError(f"TF_CONFIG does not say which worker this is: write it like {example}.")
    if kind not in workers or not 0 <= index < len(workers[kind]):
        raise DeviceError(
            f"TF_CONFIG says that this is {kind} {index}, which is not in its cluster: correct "
            "'task' or 'cluster'."
        )
    if _multi_worker.cache_info().currsize == 0:  # afterwards the port is our own
        _check_free(workers[kind][index])
    return workers


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _check_free(address: str) -> None:
    """Check that this worker can listen at its address.

    Raises:
        DeviceError: Another process uses the port.
    """
    port = int(address.rpartition(":")[2])
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", port))
        except (OSError, OverflowError) as error:
            raise DeviceError(
                f"Port {port} of {address}, this worker's address in TF_CONFIG, is in use or not "
                "allowed: choose another."
            ) from error
