"""A run as a command line, and as a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from reproduce.configs import METHODS, RunConfig, preset
from reproduce.configs.extensions import loaded_extensions
from reproduce.configs.methods import METHOD_FLAGS
from reproduce.configs.run_config import FLAG_FIELDS
from reproduce.configs.targets import targets_of
from reproduce.runs.folder import RunError

DIVERGED = 3
"""Exit code of a run whose training diverged: the other runs of a study can still be done."""
SECONDS_TO_END = 10
"""How long a child may take to end after Ctrl-C."""


def command_line(
    config: RunConfig,
    folder: pathlib.Path,
    data_dir: str | None = None,
    *,
    analyses: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> list[str]:
    """The arguments of `python` that do a run of this configuration.

    Args:
        config: Configuration of the run, from the table of presets except for what the flags of
            its experiment set.
        folder: Run folder.
        data_dir: Folder of data sets, see `hypernet_tf.data.load`.
        analyses: Names of analyses.
        settings: Name of a setting of these analyses -> value, where it is not the default.
    """
    method = METHODS[config.method]
    row = preset(config.experiment, config.method, config.preset, target=config.target)
    row = dataclasses.replace(row, target=targets_of(config.experiment)[0])
    # lam is always given: its default depends on the diversity.
    always = {"dataset", "method", "preset", "steps", "seed", *method.flags}
    always -= {"networks_per_step", "hypernetworks", "optimizer", "momentum", "l2"}
    if config.warmup_steps:
        always.add("warmup_steps")  # its default depends on the sizes of the training
    never = set(METHOD_FLAGS) - set(method.flags)  # the command refuses them
    values = {
        name: getattr(config, name)
        for name in ("steps", *FLAG_FIELDS)
        if name not in never and (name in always or getattr(config, name) != getattr(row, name))
    }
    if config.match:
        values["match"] = os.path.relpath(folder / config.match)
    flags = {
        "extension": loaded_extensions(),
        **values,
        "data_dir": data_dir or "",
        "run_dir": folder,
        "analyses": analyses,
        **(settings or {}),
    }
    words = [f"--{name}={text}" for name, value in flags.items() if (text := _text(value)) != ""]
    return ["-m", f"reproduce.{config.experiment}", *words]


def _text(value: Any) -> str:
    """A value as its flag takes it; a float with all its digits."""
    if isinstance(value, float):
        return f"{value:.17g}"
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


class DivergedError(RunError):
    """The training of a run diverged."""


def end_together() -> None:
    """End the running child with this process when this process is terminated."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def run_child(arguments: Sequence[str], what: str) -> None:
    """Run Python in a process of its own, whose peak memory is then its own as well.

    Args:
        arguments: Arguments of `python`, see `command_line`.
        what: What the run is called if it fails.

    Raises:
        DivergedError: Its training diverged.
        RunError: It failed in another way; the process itself has said why.
    """
    with subprocess.Popen([sys.executable, *arguments]) as child:
        try:
            code = child.wait()
        except KeyboardInterrupt:  # Ctrl-C has reached the child too, which says what is kept
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(SECONDS_TO_END)
            child.terminate()
            raise
        except BaseException:
            child.terminate()  # or it would go on training alone
            raise
    if code == DIVERGED:
        raise DivergedError(f"the training of {what} diverged")
    if code < 0:
        name = signal.Signals(-code).name
        hint = ": there may be too little memory" if code == -signal.SIGKILL else ""
        raise RunError(f"{what} was ended by {name}{hint}: run the same command again to go on")
    if code:
        raise RunError(f"{what} failed")
