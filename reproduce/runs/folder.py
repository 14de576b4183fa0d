"""The run folder: whose configuration it is, who writes in it, and how files get there."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import math
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf.files import write_aside
from hypernet_tf.training.checkpoints import Checkpoints


class RunError(Exception):
    """A run that cannot be done; the message is one line that says what to do."""


class UsageError(RunError):
    """Flags that do not fit each other or the run."""


class OccupiedError(RunError):
    """A folder in which another process is running."""


class Config(Protocol):
    """A frozen dataclass whose fields are JSON values; more `steps` continue a run."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def steps(self) -> int:
        """Number of training steps."""


ConfigType = TypeVar("ConfigType", bound=Config)


# ---- whose folder it is -------------------------------------------------------------------------


# What a process that was killed left of a file; see `write_aside`.
_PART = re.compile(r"\..*\.part(\.\w+)?")


def contents(folder: pathlib.Path) -> set[str]:
    """Names of what a folder holds, without its lock and what a killed process left half-written.

    Args:
        folder: The folder.
    """
    names = (path.name for path in folder.iterdir())
    return {name for name in names if name != ".lock" and not _PART.fullmatch(name)}


def check(folder: pathlib.Path, config: Config) -> int:
    """Check that a folder is free for a run of this configuration; writes nothing.

    Args:
        folder: Run folder.
        config: Configuration of the run. A field with a default may be missing in config.json.

    Returns:
        The number of steps that a finished run in it has done; 0 where none is finished.

    Raises:
        RunError: The folder holds something else, or its metrics.json cannot be read.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise RunError(f"the run folder {folder} is a file: choose another --run_dir")
        empty = not folder.exists() or not contents(folder)
    except OSError as error:
        raise RunError(f"the run folder {folder} cannot be read: {error.strerror}") from error
    if empty:
        return 0
    if not (folder / "config.json").exists():
        raise RunError(f"{folder} is not empty and not a run folder: choose another --run_dir")
    wanted = dataclasses.asdict(config)
    saved = _saved_fields(folder, type(config))
    if contents(folder) <= {"config.json", "tensorboard"}:  # nothing has been trained
        return 0
    for name in wanted | saved:  # in the order of the fields, so that the same one is named
        if name != "steps" and wanted.get(name) != saved.get(name):
            raise RunError(
                f"the run in {folder} has {name}={saved.get(name)}, not {wanted.get(name)}: "
                "choose another --run_dir"
            )
    finished = read_metrics(folder)["steps"] if (folder / "metrics.json").exists() else 0
    # A run of more steps that was stopped at once has done nothing that fewer steps would not have.
    done = max(finished, Checkpoints(folder / "checkpoints").latest_step() or 0)
    shortens = 0 < done <= wanted["steps"] and not _follows_steps(config)
    if wanted["steps"] < saved["steps"] and not shortens:
        raise RunError(
            f"the run in {folder} goes to {saved['steps']} steps, not {wanted['steps']}: "
            "ask for more steps or choose another --run_dir"
        )
    if wanted["steps"] > saved["steps"] and _follows_steps(config):
        raise RunError(
            f"the run in {folder} spreads its learning rate or its snapshots over "
            f"{saved['steps']} steps, not {wanted['steps']}: choose another --run_dir"
        )
    return finished


def _follows_steps(config: Config) -> bool:
    """Whether a run of more or fewer steps is another one from its beginning."""
    return getattr(config, "follows_steps", False)


def saved_steps(folder: pathlib.Path) -> int | None:
    """The number of steps in config.json of a run folder; None if it cannot be read.

    Args:
        folder: Run folder.
    """
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return json.loads((folder / "config.json").read_text())["steps"]
    return None


def _saved_fields(folder: pathlib.Path, kind: type) -> dict[str, Any]:
    """The contents of config.json, completed by the defaults of the configuration's fields."""
    path = folder / "config.json"
    try:
        saved = json.loads(path.read_text())
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path} is damaged: choose another --run_dir") from error
    fields = {field.name: field for field in dataclasses.fields(kind)}
    if not isinstance(saved, dict) or not all(
        _has_type(value, fields[name].type) for name, value in saved.items() if name in fields
    ):
        raise RunError(f"{path} is damaged: choose another --run_dir")
    defaults = {
        name: field.default
        for name, field in fields.items()
        if field.default is not dataclasses.MISSING
    }
    if missing := fields.keys() - defaults.keys() - saved.keys():
        raise RunError(
            f"{path} was written by another version or experiment, it has no "
            f"'{sorted(missing)[0]}': choose another --run_dir"
        )
    return defaults | saved


def _has_type(value: Any, annotation: Any) -> bool:
    """Whether a JSON value has the type of a field, by the name of the type."""
    if annotation == "float" and type(value) is int:
        return True
    return type(value).__name__ == annotation


def read_metrics(folder: pathlib.Path) -> dict[str, Any]:
    """The contents of metrics.json of a run.

    Raises:
        RunError: There is none, or it is damaged.
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
    if isinstance(metrics, dict) and "study" in metrics:
        raise RunError(f"{folder} holds a {metrics['study']}: name one of the runs in it")
    if (
        not isinstance(metrics, dict)
        or type(metrics.get("steps")) is not int
        or not isinstance(metrics.get("analyses", {}), dict)
    ):
        raise damaged(path)
    return metrics


def finished(folder: pathlib.Path, kind: type[ConfigType]) -> tuple[ConfigType, dict[str, Any]]:
    """The configuration and the metrics of a finished run.

    Args:
        folder: Run folder.
        kind: Dataclass of the configuration.

    Raises:
        RunError: There is none, or one that was continued and has not come to its end.
    """
    metrics = read_metrics(folder)
    saved = _saved_fields(folder, kind)
    if saved.keys() != {field.name for field in dataclasses.fields(kind)}:
        raise RunError(f"the run in {folder} is of another version or experiment: train it again")
    config = kind(**saved)
    if config.steps != metrics["steps"]:
        raise RunError(
            f"the run in {folder} has done {metrics['steps']} of its {config.steps} steps: finish "
            "it first"
        )
    return config, metrics


def damaged(path: pathlib.Path) -> RunError:
    """The error for a file that does not hold what was written there."""
    return RunError(f"{path} is damaged: delete it and run the same command again")


def folder_name(experiment: str, settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> str:
    """The name of a folder: the experiment, then what differs from the defaults.

    Not every system allows a colon in names, and TensorBoard divides lists of folders at colons and
    commas: part of a data set, `mnist:0,3,7`, is written `mnist@0+3+7`.

    Args:
        experiment: Name of the experiment or study.
        settings: Settings by name.
        defaults: Their defaults, under the same names.
    """

    def short(value: Any) -> str:
        text = f"{value:g}" if isinstance(value, float) else str(value)
        return text.replace(":", "@").replace(",", "+")

    different = {name: value for name, value in settings.items() if value != defaults[name]}
    return "-".join([experiment, *(f"{name}={short(v)}" for name, v in different.items())])


def default_folder(experiment: str, config: Any) -> pathlib.Path:
    """The folder of a run, named after what differs from the defaults, except the steps.

    Args:
        experiment: Name of the experiment.
        config: Configuration, a dataclass with a default for each field.
    """
    settings, defaults = (dataclasses.asdict(one) for one in (config, type(config)()))
    del settings["steps"], defaults["steps"]
    return pathlib.Path("runs", folder_name(experiment, settings, defaults))


# ---- who writes in it ---------------------------------------------------------------------------


@contextlib.contextmanager
def occupy(folder: pathlib.Path, config: Config) -> Iterator[None]:
    """Make the folder this run's, as long as the context is open.

    Raises:
        RunError: It cannot be written, another process is in it, or it holds something else.
    """
    with locked(folder):
        check(folder, config)
        write_json(folder / "config.json", dataclasses.asdict(config))
        yield


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if missing.

    Raises:
        RunError: It cannot be written, or another process is in it.
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
        except OSError as error:
            raise RunError(
                f"the run folder {folder} cannot be locked ({error.strerror}): choose another disk"
            ) from error
        yield


# ---- how files get there ------------------------------------------------------------------------


def write(path: pathlib.Path, save: Callable[[pathlib.Path], Any]) -> None:
    """Write a file aside with `save(path)`, then move it into place.

    Raises:
        RunError: It cannot be written; nothing is left behind.
    """
    try:
        write_aside(path, save)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error


def write_text(path: pathlib.Path, text: str) -> None:
    """Write a text file, aside and then into place."""
    write(path, lambda aside: aside.write_text(text, encoding="utf-8"))


def write_json(path: pathlib.Path, contents: Any) -> None:
    """Write JSON, aside and then into place; a number that is not finite becomes null."""
    write_text(path, json.dumps(_finite(contents), indent=2, allow_nan=False) + "\n")


def _finite(contents: Any) -> Any:
    if isinstance(contents, np.generic):
        contents = contents.item()
    if isinstance(contents, dict):
        return {name: _finite(value) for name, value in contents.items()}
    if isinstance(contents, list | tuple):
        return [_finite(value) for value in contents]
    return None if isinstance(contents, float) and not math.isfinite(contents) else contents


def write_figure(
    folder: pathlib.Path, name: str, figure: Figure, arrays: Mapping[str, np.ndarray]
) -> None:
    """Write figures/<name>: a png for the screen, a pdf for print, an npz with the numbers."""
    figures = folder / "figures"
    # NumPy's types take every name for its flag `allow_pickle`.
    numbers: dict[str, Any] = dict(arrays)
    write(figures / f"{name}.npz", lambda aside: np.savez_compressed(aside, **numbers))
    for suffix in ("pdf", "png"):
        write(figures / f"{name}.{suffix}", figure.savefig)
