"""The run folder: whose configuration it is, who writes in it, and how files get there."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure


class RunError(Exception):
    """A run folder that cannot be used; the message is one line that says what to do."""


def default_folder(experiment: str, config: Any, defaults: Any) -> pathlib.Path:
    """runs/<experiment>-<what differs from the defaults>.

    Args:
        experiment: its name.
        config: a configuration.
        defaults: the configuration to compare with. `steps` is left out: more steps continue a run.
    """
    ours, theirs = dataclasses.asdict(config), dataclasses.asdict(defaults)
    parts = [f"{k}={_short(v)}" for k, v in ours.items() if k != "steps" and v != theirs[k]]
    return pathlib.Path("runs", "-".join([experiment, *parts]))


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def check(folder: pathlib.Path, config: Any) -> int:
    """Whether a folder is free for a run of this configuration; writes nothing.

    Args:
        folder: the run folder.
        config: a dataclass. A field that an older run did not know yet has its default there.

    Returns:
        The steps that a finished run in it has done; 0 where none is finished.

    Raises:
        RunError: something else is in it.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise RunError(f"the run folder {folder} is a file: choose another --run_dir")
        there = any(path.name != ".lock" for path in folder.iterdir()) if folder.exists() else False
        if not there:
            return 0
        ours = dataclasses.asdict(config)
        saved = _defaults(config) | json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise RunError(
            f"{folder} is not empty and not a run folder: choose another --run_dir"
        ) from None
    except (ValueError, TypeError) as error:
        raise RunError(f"{folder / 'config.json'} is damaged: choose another --run_dir") from error
    except OSError as error:
        raise RunError(f"the run folder {folder} cannot be read: {error.strerror}") from error
    for name in ours.keys() | saved.keys():
        if name != "steps" and ours.get(name) != saved.get(name):
            raise RunError(
                f"the run in {folder} has {name}={saved.get(name)}, not {ours.get(name)}: "
                "choose another --run_dir"
            )
    if ours["steps"] < saved["steps"]:
        raise RunError(
            f"the run in {folder} goes to {saved['steps']} steps, not {ours['steps']}: "
            "raise --steps or choose another --run_dir"
        )
    with contextlib.suppress(OSError, ValueError, KeyError):
        return json.loads((folder / "metrics.json").read_text())["steps"]
    return 0


def _defaults(config: Any) -> dict[str, Any]:
    fields = dataclasses.fields(config)
    return {f.name: f.default for f in fields if f.default is not dataclasses.MISSING}


def read_config(folder: pathlib.Path, kind: type) -> Any:
    """The configuration of the run in a folder.

    Args:
        folder: the run folder.
        kind: the dataclass of its experiment.

    Raises:
        RunError: there is none, or one of another experiment.
    """
    try:
        return kind(**json.loads((folder / "config.json").read_text()))
    except FileNotFoundError:
        raise RunError(f"there is no run in {folder}: train one there first") from None
    except OSError as error:
        raise RunError(f"the run folder {folder} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise RunError(f"{folder / 'config.json'} is damaged, or of another experiment") from error


@contextlib.contextmanager
def occupy(folder: pathlib.Path, config: Any) -> Iterator[None]:
    """Make the folder this run's, for as long as the context is open.

    Raises:
        RunError: it cannot be written, another process is in it, or it holds something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise RunError(f"the run folder {folder} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process is running in {folder}") from None
        check(folder, config)
        write_json(folder / "config.json", dataclasses.asdict(config))
        yield


def write(path: pathlib.Path, save: Callable[[pathlib.Path], Any]) -> None:
    """Write a file aside with `save(path)`, then move it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.part{path.suffix}")
    save(aside)
    os.replace(aside, path)


def write_json(path: pathlib.Path, contents: Any) -> None:
    """Write JSON, aside and then into place."""
    text = json.dumps(contents, indent=2) + "\n"
    write(path, lambda aside: aside.write_text(text))


def write_figure(
    folder: pathlib.Path, name: str, figure: Figure, arrays: Mapping[str, np.ndarray]
) -> None:
    """Write figures/<name>: a png for the screen, a pdf for print, an npz with the numbers."""
    path = folder / "figures" / name
    # numpy's types take every name for its flag `allow_pickle`.
    numbers: dict[str, Any] = dict(arrays)
    write(path.with_suffix(".npz"), lambda aside: np.savez_compressed(aside, **numbers))
    for suffix in (".pdf", ".png"):
        write(path.with_suffix(suffix), figure.savefig)
