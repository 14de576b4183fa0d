"""`notmnist`: letters A to J in found fonts, in the format of MNIST's test images.

Yaroslav Bulatov, notMNIST data set, 2011.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hypernet_tf.data import idx
from hypernet_tf.data.errors import DataError, guard
from hypernet_tf.data.splits import Dataset, Split

FILES = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
LETTERS = "ABCDEFGHIJ"


def read_notmnist(root: Path) -> Dataset:
    """The letters of two idx files, as test images.

    Args:
        root: Folder of data sets, in whose folder `notmnist` the files are; or that folder itself,
            if it has this name.

    Returns:
        A data set named "notmnist": its test split has all images, white on black [M, 28, 28, 1].

    Raises:
        DataError: A file is missing, or does not hold such images or labels.
    """
    folder = root if root.name == "notmnist" and (root / FILES[0]).exists() else root / "notmnist"
    for file in FILES:
        if not (folder / file).exists():
            raise DataError(f"notmnist is not available: put {file} into {folder}")
    images, labels = (_read(folder / file, rank) for file, rank in zip(FILES, (3, 1), strict=True))
    with guard(f"{folder / FILES[1]} does not fit: replace both files of {folder}"):
        if len(labels) != len(images):
            raise ValueError(f"{len(labels)} labels for {len(images)} images")
        if labels.max(initial=0) >= len(LETTERS):
            raise ValueError(f"label {labels.max()}, but the letters are 0 to {len(LETTERS) - 1}")
    split = Split(images[..., None], labels.astype(np.int64))
    return Dataset.to_test(
        "notmnist", f"two idx files of {len(split):,} letters", (*LETTERS,), split
    )


def _read(path: Path, rank: int) -> np.ndarray:
    with guard(f"{path} is not a file of notmnist: replace it"):
        array = idx.decode(path.read_bytes(), rank)
        if rank == 3 and (array.shape[1:] != (28, 28) or not len(array)):
            raise ValueError(f"wrong shape {list(array.shape)}, not [M, 28, 28]")
    return array
