"""Checkpoints: folders that are written aside and renamed, so that a kill leaves no half of one."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
from typing import Any

import keras
import tensorflow as tf

_MODEL, _RECORD = "model.keras", "checkpoint.json"


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message is one line that names it."""


class Checkpoints:
    """The checkpoints of one run, of which the newest are kept.

    A checkpoint is a folder `step-00001000` with `model.keras`, an ordinary Keras file with the
    optimizer's state (`keras.saving.load_model` reads it), and `checkpoint.json`: the step, the
    SHA-256 of the file, and a record of the caller.

    Args:
        folder: Folder of the checkpoints, made with the first. Half-written checkpoints that a kill
            left there are removed when the next one is written.
        keep: Number of checkpoints to keep.
    """

    def __init__(self, folder: str | os.PathLike, keep: int = 2):
        self.folder = pathlib.Path(folder)
        self.keep = keep

    def _all(self) -> list[pathlib.Path]:
        folders = self.folder.glob("step-*")
        numbered = (one for one in folders if one.name.removeprefix("step-").isdecimal())
        return sorted(numbered, key=lambda one: int(one.name.removeprefix("step-")))

    def save(self, model: keras.Model, step: int, record: dict[str, Any]) -> None:
        """Write a checkpoint.

        Args:
            model: A compiled Keras model.
            step: Number of training steps that it has done.
            record: Anything else to keep, as JSON.
        """
        name = f"step-{step:08d}"
        aside = self.folder / f".{name}.part"
        for pattern in (".step-*.part", ".step-*.old"):
            for remains in self.folder.glob(pattern):
                shutil.rmtree(remains, ignore_errors=True)
        aside.mkdir(parents=True)
        model.save(aside / _MODEL)
        contents = {"step": step, "sha256": _digest(aside / _MODEL), "record": record}
        (aside / _RECORD).write_text(json.dumps(contents))
        if (self.folder / name).exists():
            self._remove(self.folder / name)
        aside.rename(self.folder / name)
        for old in self._all()[: -self.keep]:
            self._remove(old)

    def _remove(self, folder: pathlib.Path) -> None:
        # Rename it first, so that a kill never leaves half a checkpoint under its name.
        doomed = self.folder / f".{folder.name}.old"
        folder.rename(doomed)
        # A network's file system may keep a file that another process reads: the next time, then.
        shutil.rmtree(doomed, ignore_errors=True)

    def latest_step(self) -> int | None:
        """The step of the newest checkpoint; None if there is none."""
        folders = self._all()
        return int(folders[-1].name.removeprefix("step-")) if folders else None

    def load(self) -> tuple[keras.Model, dict[str, Any]]:
        """The model of the newest checkpoint, and its record.

        Raises:
            CheckpointError: There is none, or the newest is damaged, of another version, or cannot
                be read; an older one is never used silently.
        """
        folders = self._all()
        if not folders:
            raise CheckpointError(f"There is no checkpoint in {self.folder}: train first.")
        newest = folders[-1]
        advice = f"Checkpoint {newest} is damaged: delete it to continue from the one before."
        try:
            contents = json.loads((newest / _RECORD).read_text())
            whole = contents["sha256"] == _digest(newest / _MODEL)
            record = contents["record"]
        except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(advice) from error
        except OSError as error:
            raise CheckpointError(
                f"Checkpoint {newest} cannot be read: {error.strerror}"
            ) from error
        if not whole:
            raise CheckpointError(advice)
        try:
            return keras.saving.load_model(newest / _MODEL), record
        except (MemoryError, tf.errors.ResourceExhaustedError):
            raise
        except Exception as error:  # whole, but its classes are others by now
            # Keras appends the whole configuration to its messages.
            cause = str(error).partition("Full object config")[0].strip() or type(error).__name__
            raise CheckpointError(
                f"Checkpoint {newest} cannot be loaded ({cause.splitlines()[0]}): if it is "
                "of another version of the package or of an extension, go on with that one, or "
                "train again in another folder."
            ) from error


def _digest(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
