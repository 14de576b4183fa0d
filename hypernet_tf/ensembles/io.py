"""Arrays and a record in one .npz file: no pickle, and a kill leaves no half-written one."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np

_RECORD = "config"


def write(path: str | os.PathLike, arrays: dict[str, np.ndarray], record: dict[str, Any]) -> None:
    """Write aside, then move into place.

    Args:
        path: of the file, whose name is kept as it is.
        arrays: what to save.
        record: what else to save, as JSON.
    """
    path = pathlib.Path(path)
    text = np.frombuffer(json.dumps(record).encode(), np.uint8)
    contents: dict[str, Any] = arrays | {_RECORD: text}
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            np.savez(file, **contents)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


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
