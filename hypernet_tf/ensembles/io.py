"""Ensembles in one .npz file (no pickle)."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, BinaryIO

import numpy as np

from hypernet_tf.files import write_aside

_CONFIG = "config"


def write(path: str | os.PathLike, arrays: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    """Write arrays and a configuration to one file.

    Args:
        path: Path of the file.
        arrays: Arrays by name.
        config: Configuration, saved as JSON.
    """

    def save(aside: pathlib.Path) -> None:
        with aside.open("wb") as file:  # given a path, NumPy would add ".npz" to it
            pack(file, arrays, config)

    write_aside(path, save)


def pack(file: BinaryIO, arrays: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    """Write to an open file what `write` writes to a path."""
    text = np.frombuffer(json.dumps(config).encode(), np.uint8)
    contents: dict[str, Any] = arrays | {_CONFIG: text}
    np.savez(file, **contents)


def read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and configuration of a file that `write` wrote.

    Args:
        path: Path of the file.

    Raises:
        OSError: The file cannot be opened.
        ValueError: It is another file, or is damaged.
    """
    with open(path, "rb") as file:
        return unpack(file, str(path))


def unpack(file: BinaryIO, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read from an open file what `pack` wrote.

    Args:
        file: The file.
        name: Its name, for an error.

    Raises:
        ValueError: It is another file, or is damaged.
    """
    try:
        with np.load(file, allow_pickle=False) as saved:
            arrays = {key: saved[key] for key in saved.files}
        config = json.loads(arrays.pop(_CONFIG).tobytes())
        if not isinstance(config, dict):
            raise TypeError("its configuration is not a dict")
    except MemoryError:
        raise
    except Exception as error:  # a damaged file raises errors of many kinds
        reason = " ".join(str(error).split())
        raise ValueError(f"{name} is not a saved ensemble, or is damaged: {reason}") from error
    return arrays, config
