"""Keras Tuner's chief and workers: who this process is, as its environment says."""

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
    """A process's part in a search that several share: its name, and where the chief listens."""

    name: str
    host: str
    port: int

    @property
    def is_chief(self) -> bool:
        """Whether it hands out the trials; the others run them."""
        return "chief" in self.name  # what Keras Tuner goes by

    @property
    def address(self) -> str:
        """Of the chief, as host:port."""
        return f"{self.host}:{self.port}"


def part() -> Part | None:
    """The part of this process; None where it searches alone.

    Raises:
        UsageError: Keras Tuner's variables are incomplete or malformed.
    """
    given = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if not given:
        return None
    for name in _VARIABLES:
        if not given.get(name):
            raise UsageError(f"{', '.join(_VARIABLES)} go together: {name} is not set")
    name, host, port = (given[variable] for variable in _VARIABLES)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise UsageError(
            f"KERASTUNER_TUNER_ID={name} is no name: use letters, digits, - and _, as in tuner0"
        )
    if not (port.isascii() and port.isdecimal() and 0 < int(port) < 2**16):
        raise UsageError(f"KERASTUNER_ORACLE_PORT={port} is no port: use a number up to 65535")
    return Part(name, host, int(port))


def check_address(chief: Part) -> None:
    """Whether the chief can listen; Keras Tuner would share a port that is in use.

    Raises:
        RunError: it cannot.
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


def wait_for_chief(worker: Part, *, seconds: float = 600) -> None:
    """Wait until the chief listens.

    Args:
        worker: who waits.
        seconds: how long.

    Raises:
        RunError: it does not.
    """
    until = time.monotonic() + seconds
    said = False
    while True:
        try:
            with socket.create_connection((worker.host, worker.port), timeout=5):
                return
        except OSError:
            if time.monotonic() > until:
                raise RunError(
                    f"there is no chief at {worker.address}: start it with "
                    "KERASTUNER_TUNER_ID=chief, or see whether the sweep is complete"
                ) from None
        if not said:
            print(f"waiting for the chief at {worker.address}", flush=True)
            said = True
        time.sleep(0.5)


@contextlib.contextmanager
def chief_may_go(worker: Part) -> Iterator[None]:
    """Say in one line that a worker has lost its chief.

    Raises:
        RunError: it has.
    """
    import grpc  # brought by Keras Tuner, and needed by its workers only

    try:
        yield
    except grpc.RpcError as error:
        raise RunError(
            f"the chief at {worker.address} does not answer ({error.code().name}): run the "
            "commands of the chief and its workers again"
        ) from error
