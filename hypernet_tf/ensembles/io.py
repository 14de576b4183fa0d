"""Files that are written aside and moved into place, and ensembles in one .npz file (no pickle)."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

_RECORD = "config"


def write_aside(path: str | os.PathLike, save: Callable[[pathlib.Path], Any]) -> None:
    """Write a file beside its place and move it there, so that a kill leaves no half-written one.

    Args:
        path: Path of the file, whose name is kept as it is; its folder is made if missing.
        save: Function that writes the file to the path it is given, which has the same suffix.

    Raises:
        OSError: The file cannot be written. Nothing is left behind.

    Example:
        >>> write_aside("table.md", lambda aside: aside.write_text(text))
    """
    path = pathlib.Path(path)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write(path: str | os.PathLike, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """Write arrays and a record to one file.

    Args:
        path: Path of the file.
        arrays: Arrays by name.
        record: What else to save, as JSON.
    """
    text = np.frombuffer(json.dumps(record).encode(), np.uint8)
    contents: dict[str, Any] = arrays | {_RECORD: text}

    def save(aside: pathlib.Path) -> None:
        with aside.open("wb") as file:  # by a name alone, NumPy would add ".npz" to it
            np.savez(file, **contents)

    write_aside(path, save)


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays and the record of a file that `write` wrote.

    Raises:
        ValueError: it is another file, or is damaged.
    """
    with open(path, "rb") as file:  # a file that cannot be opened is an OSError, which says it
        try:
            with np.load(file, allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
            record = json.loads(arrays.pop(_RECORD).tobytes())
            if not isinstance(record, dict):
                raise TypeError("its record is not one")
        except Exception as error:  # damage meets the reader of zip files anywhere
            reason = " ".join(str(error).split())
            raise ValueError(f"{path} is not a saved ensemble, or is damaged: {reason}") from error
    return arrays, record
