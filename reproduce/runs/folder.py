"""The run folder: whose configuration it is, who writes in it, and how files get there."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf.ensembles.io import write_aside

# Experiments of several runs: the name in metrics.json -> what their folder holds.
_SEVERAL = {"compare": "comparison", "sweep": "sweep", "table1": "table"}


class RunError(Exception):
    """A run that cannot be had; the message is one line that says what to do."""


class UsageError(RunError):
    """Flags that do not fit each other or the run."""


class OccupiedError(RunError):
    """A folder that another process is running in."""


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
    except OSError as error:
        raise RunError(f"the run folder {folder} cannot be read: {error.strerror}") from error
    if not there:
        return 0
    if not (folder / "config.json").exists():
        raise RunError(f"{folder} is not empty and not a run folder: choose another --run_dir")
    ours = dataclasses.asdict(config)
    saved = _saved(folder, type(config))
    for name in ours | saved:  # in the order of the fields, so that the same one is named
        if name != "steps" and ours.get(name) != saved.get(name):
            raise RunError(
                f"the run in {folder} has {name}={saved.get(name)}, not {ours.get(name)}: "
                "choose another --run_dir"
            )
    if ours["steps"] < saved["steps"]:
        raise RunError(
            f"the run in {folder} goes to {saved['steps']} steps, not {ours['steps']}: "
            "ask for more steps or choose another --run_dir"
        )
    try:
        return read_metrics(folder)["steps"]
    except RunError:
        return 0


def check_several(folder: pathlib.Path, experiment: str, own: Callable[[str], bool]) -> None:
    """Whether a folder is free for an experiment of several runs, or holds one; writes nothing.

    Args:
        folder: of the experiment, and of its runs.
        experiment: its name in metrics.json.
        own: whether the folder of a run in it may have this name.

    Raises:
        RunError: something else is in it.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"the folder {folder} is a file: choose another --run_dir")
    if (folder / "config.json").exists():
        raise RunError(f"{folder} is the folder of a single run: choose another --run_dir")
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        if json.loads((folder / "metrics.json").read_text())["experiment"] == experiment:
            return
    # One that was stopped before its first table has runs, and perhaps a figure.
    if any(name not in ("figures", ".lock") and not own(name) for name in there):
        what = _SEVERAL[experiment]
        raise RunError(f"{folder} is not empty and no {what}: choose another --run_dir")


def _saved(folder: pathlib.Path, kind: type) -> dict[str, Any]:
    """What config.json says, with the defaults of fields that an older run did not know."""
    path = folder / "config.json"
    try:
        saved = json.loads(path.read_text())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged: choose another --run_dir") from error
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    if not isinstance(saved, dict) or not all(
        _like(value, fields[name]) for name, value in saved.items() if name in fields
    ):
        raise RunError(f"{path} is damaged: choose another --run_dir")
    return fields | saved


def _like(value: Any, default: Any) -> bool:
    number = isinstance(default, float) and type(value) is int
    return number or type(value) is type(default)


def damaged(path: pathlib.Path) -> RunError:
    """The error of a file that does not hold what was written there."""
    return RunError(f"{path} is damaged: delete it and run the same command again")


def relative_to(path: pathlib.Path) -> pathlib.Path:
    """A path as a user would write it: without detours, from where the command runs."""
    return pathlib.Path(os.path.relpath(path))


def read_metrics(folder: pathlib.Path) -> dict[str, Any]:
    """metrics.json of a run.

    Raises:
        RunError: there is none, or it is damaged.
    """
    path = folder / "metrics.json"
    try:
        metrics = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"there is no finished run in {folder}: train it first") from None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise damaged(path) from error
    experiment = metrics.get("experiment") if isinstance(metrics, dict) else None
    several = _SEVERAL.get(str(experiment))
    if several:
        raise RunError(f"{folder} holds a {several}: name one of the runs in it")
    if (
        not isinstance(metrics, dict)
        or type(metrics.get("steps")) is not int
        or not isinstance(metrics.get("analyses", {}), dict)
    ):
        raise damaged(path)
    return metrics


def finished(folder: pathlib.Path, kind: type) -> tuple[Any, dict[str, Any]]:
    """The configuration and the metrics of a finished run.

    Args:
        folder: the run folder.
        kind: the dataclass of its experiment.

    Raises:
        RunError: there is none, or one that was continued and has not come to its end.
    """
    metrics = read_metrics(folder)
    saved = _saved(folder, kind)
    if saved.keys() != {field.name for field in dataclasses.fields(kind)}:
        raise RunError(f"the run in {folder} is of another experiment")
    config = kind(**saved)
    if config.steps != metrics["steps"]:
        raise RunError(
            f"the run in {folder} has done {metrics['steps']} of its {config.steps} steps: finish "
            "it first"
        )
    return config, metrics


@contextlib.contextmanager
def occupy(folder: pathlib.Path, config: Any) -> Iterator[None]:
    """Make the folder this run's, for as long as the context is open.

    Raises:
        RunError: it cannot be written, another process is in it, or it holds something else.
    """
    with locked(folder):
        check(folder, config)
        write_json(folder / "config.json", dataclasses.asdict(config))
        yield


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if missing.

    Raises:
        RunError: it cannot be written, or another process is in it.
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
            raise OccupiedError(f"another process is running in {folder}") from None
        yield


def write(path: pathlib.Path, save: Callable[[pathlib.Path], Any]) -> None:
    """Write a file aside with `save(path)`, then move it into place.

    Raises:
        RunError: it cannot be written; nothing is left behind.
    """
    try:
        write_aside(path, save)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error


def write_json(path: pathlib.Path, contents: Any) -> None:
    """Write JSON, aside and then into place; a number that is none (NaN) becomes null."""
    text = json.dumps(_finite(contents), indent=2, allow_nan=False) + "\n"
    write(path, lambda aside: aside.write_text(text))


def _finite(contents: Any) -> Any:
    if isinstance(contents, dict):
        return {name: _finite(value) for name, value in contents.items()}
    if isinstance(contents, list | tuple):
        return [_finite(value) for value in contents]
    return None if isinstance(contents, float) and not math.isfinite(contents) else contents


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
