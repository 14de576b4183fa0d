"""Writing files aside and moving them into place."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any


def write_aside(path: str | os.PathLike, save: Callable[[pathlib.Path], Any]) -> None:
    """Write a file under another name and move it into place, so that no file is half written.

    Args:
        path: Path of the file. Its folder is made if it is missing.
        save: Function that writes the file to the path that it gets, which has the same suffix.

    Raises:
        OSError: The file cannot be written. Nothing is left behind, and an earlier file is kept.

    Example:
        >>> write_aside("table.md", lambda aside: aside.write_text(text))
    """
    path = pathlib.Path(os.path.realpath(path))  # a link goes on leading to the file
    aside = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        save(aside)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
