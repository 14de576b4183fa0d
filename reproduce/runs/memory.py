"""The peak memory of this process."""

import contextlib
import pathlib
import resource
import sys


def reset_peak_memory() -> None:
    """Let `peak_memory` count from here on, where the system can (Linux)."""
    with contextlib.suppress(OSError):
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> float:
    """The most memory in MiB that this process has had at once, since its start or the last reset.

    Not that of `getrusage` where the system says more: on Linux, a process inherits its number from
    the process that started it.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**10
    units = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / units
