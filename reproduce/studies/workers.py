"""Keras Tuner's chief and workers: the part of this process in a search, from its environment."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import time
from collections.abc import Iterator

from reproduce.runs.folder import RunError, UsageError

_VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


@dataclasses.dataclass(frozen=True)
class Part:
    """The part of a process in a search that several processes share.

    Attributes:
        name: Name of the process.
        host: Host at which the chief listens.
        port: Port at which the chief listens.
    """

    name: str
    host: str
    port: int

    @property
    def is_chief(self) -> bool:
        """Whether the process hands out the trials, which the workers run."""
        return "chief" in self.name  # Keras Tuner's own test

    @property
    def address(self) -> str:
        """Address of the chief, host:port."""
        return f"{self.host}:{self.port}"


def refuse() -> None:
    """Check that a search in one process is not started as a part of another.

    Raises:
        UsageError: One of Keras Tuner's variables is set.
    """
    given = [name for name in _VARIABLES if name in os.environ]
    if given:
        raise UsageError(f"a comparison tunes in one process: unset {', '.join(given)}")


def part() -> Part | None:
    """The part of this process, or None if it searches alone.

    Raises:
        UsageError: Keras Tuner's variables are incomplete or malformed.
    """
    given = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if not given:
        return None
    for name in _VARIABLES:
        if not given.get(name):
            raise UsageError(f"{', '.join(_VARIABLES)} go together: set {name} as well")
    name, host, port = (given[variable] for variable in _VARIABLES)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(
            f"KERASTUNER_TUNER_ID={name} is not a name: use letters, digits, - and _, as in tuner0"
        )
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        raise UsageError(f"KERASTUNER_ORACLE_PORT={port} is not a port: use 1 to 65535")
    return Part(name, host, int(port))


def check_address(chief: Part) -> None:
    """Check that the chief can listen; Keras Tuner would share a port that is in use.

    Args:
        chief: Part of the chief.

    Raises:
        RunError: The chief cannot listen at its address.
    """
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((chief.host, chief.port))
    except OSError as error:
        raise RunError(
            f"the chief cannot listen at {chief.address} ({error.strerror}): choose another "
            "KERASTUNER_ORACLE_IP or KERASTUNER_ORACLE_PORT"
        ) from error


def wait_for_chief(worker: Part, *, seconds: float = 3_600) -> None:
    """Wait until the chief listens.

    Args:
        worker: Part of the worker that waits.
        seconds: Number of seconds after which it stops waiting.

    Raises:
        RunError: The chief does not listen in time.
    """
    deadline = time.monotonic() + seconds
    has_announced = False
    while True:
        try:
            with socket.create_connection((worker.host, worker.port), timeout=5):
                return
        except OSError:
            if time.monotonic() > deadline:
                raise RunError(
                    f"there is no chief at {worker.address}: start it with "
                    "KERASTUNER_TUNER_ID=chief, or check whether the sweep is complete"
                ) from None
        if not has_announced:
            print(f"waiting for the chief at {worker.address}", flush=True)
            has_announced = True
        time.sleep(0.5)


@contextlib.contextmanager
def chief_may_go(worker: Part) -> Iterator[None]:
    """Turn the loss of the chief into an error of one line.

    Args:
        worker: Part of the worker.

    Raises:
        RunError: The chief does not answer.
    """
    import grpc  # a dependency of Keras Tuner; only workers need it

    try:
        yield
    except grpc.RpcError as error:
        raise RunError(
            f"the chief at {worker.address} does not answer ({error.code().name}): run the "
            "commands of the chief and its workers again"
        ) from error
