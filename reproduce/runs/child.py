"""A run in a process of its own, whose peak memory is then its own as well."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from reproduce.runs.folder import RunError


def end_together() -> None:
    """From now on a child ends with this process, where that is asked to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def run(module: str, given: Mapping[str, Any], what: str) -> None:
    """Run the command of an experiment.

    Args:
        module: its module.
        given: flag -> value; those of None or "" are left out.
        what: what the run is called if it fails.

    Raises:
        RunError: it failed; what it said of it stands above.
    """
    words = [f"--{name}={value}" for name, value in given.items() if value not in ("", None)]
    with subprocess.Popen([sys.executable, "-m", module, *words]) as child:
        try:
            code = child.wait()
        except BaseException:
            child.terminate()  # or it would train on without us
            raise
    if code:
        raise RunError(f"{what} did not come to its end")
