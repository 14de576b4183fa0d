"""The original files of data sets, handed to TFDS in place of a download.

TFDS knows name, length and SHA-256 of each file and reads the files itself. A data set prepared
from files therefore has the same order and the same splits as a downloaded one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from hypernet_tf.data import idx
from hypernet_tf.data.errors import guard

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")

# Debian strips times and names from the gzip headers, which changes the checksums. These times
# restore them.
_IDX_TIMES = {
    "train-labels-idx1-ubyte.gz": 0x59A7E9DE,
    "t10k-labels-idx1-ubyte.gz": 0x59A7E9F3,
    "train-images-idx3-ubyte.gz": 0x59A7E9DE,
    "t10k-images-idx3-ubyte.gz": 0x59A7E9F3,
}


def find(builder: Any) -> Path | None:
    """The first folder with any of a data set's original files; None if there is none.

    A folder named after the data set comes first, then the folder of data sets itself. The files of
    `mnist` and `fashion_mnist` have the same names, so the folder's name decides: files in a folder
    of another name are taken for `fashion_mnist`.

    Args:
        builder: Builder of the data set in TFDS.
    """
    root = Path(builder.data_dir).parents[1]
    folders = [root / builder.name, root]
    if builder.name == "mnist" and root.name != "mnist":
        folders = [root / "mnist"]
    if builder.name == "fashion_mnist":
        folders = [root / "fashion_mnist", root / "fashion-mnist"]
        folders += [] if root.name in ("mnist", "notmnist") else [root]
        folders += [DEBIAN_FASHION_MNIST]
    files = [info.filename for info in builder.url_infos.values()]
    return next((x for x in folders if any(os.path.exists(x / file) for file in files)), None)


def hand_over(builder: Any, folder: Path, manual_dir: Path) -> None:
    """Put a data set's original files into the folder in which TFDS looks before a download.

    Args:
        builder: Builder of the data set in TFDS.
        folder: Folder of the files.
        manual_dir: Folder in which TFDS looks.

    Raises:
        DataError: A file is missing or is not the original one.
    """
    for info in builder.url_infos.values():
        path = folder / info.filename
        if builder.name == "fashion_mnist":
            content = _read_idx(path, info.checksum)
            Path(manual_dir, info.filename).write_bytes(content)
        else:
            check(path, builder)
            link = Path(manual_dir, info.filename)
            try:
                link.symlink_to(path.resolve())
            except OSError:  # some systems have no links, or not for everyone
                shutil.copyfile(path, link)


def check(path: Path, builder: Any) -> None:
    """Check length and checksum of a file against those that TFDS knows.

    Args:
        path: Path of the file.
        builder: Builder of the data set in TFDS.

    Raises:
        DataError: The file cannot be read, or has another length or checksum.
    """
    with _expect_original(path, builder.name):
        (info,) = (x for x in builder.url_infos.values() if x.filename == path.name)
        size = path.stat().st_size
        if size != info.size:
            raise ValueError(f"wrong length: {size} bytes, not {int(info.size)}")
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != info.checksum:
                raise ValueError("wrong checksum")


def _expect_original(path: Path, name: str) -> Any:
    return guard(f"{path} is not the original file of {name}: replace it")


def _read_idx(path: Path, checksum: str) -> bytes:
    """The bytes of a gzip file that holds an idx file, with the header of the original checksum."""
    with _expect_original(path, "fashion_mnist"):
        raw = path.read_bytes()
        idx.decode(raw, 3 if "idx3" in path.name else 1)
        deflated = raw[raw.index(b"\0", 10) + 1 if raw[3] & 8 else 10 :]  # flag 8: a name follows
        time = _IDX_TIMES[path.name].to_bytes(4, "little")
        raw = b"\x1f\x8b\x08\x08" + time + b"\x00\x03" + path.stem.encode() + b"\0" + deflated
        if hashlib.sha256(raw).hexdigest() != checksum:
            raise ValueError("wrong checksum")
    return raw
