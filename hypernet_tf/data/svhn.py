"""`svhn_cropped` from two of its files: TFDS would also need the third, of 1.3 GB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hypernet_tf.data import originals
from hypernet_tf.data.errors import guard
from hypernet_tf.data.splits import VALIDATION_IMAGES, Dataset, Split


def read_svhn(builder: Any, folder: Path) -> Dataset:
    """The Street View House Numbers, read from their files.

    Nothing is prepared, and the images are in the order of the files, whereas TFDS shuffles. The
    last 5,000, which become the validation images, are therefore not those of TFDS.

    Args:
        builder: Builder of `svhn_cropped` in TFDS, which knows the files' checksums.
        folder: Folder of train_32x32.mat and test_32x32.mat.

    Returns:
        The data set, without "extra".

    Raises:
        DataError: A file is missing or is not the original one.
    """
    train, test = (_read(folder / f"{part}_32x32.mat", builder) for part in ("train", "test"))
    cut = len(train) - VALIDATION_IMAGES
    rest, validation = train[:cut], train[cut:]
    classes = tuple(builder.info.features["label"].names)
    source = "train_32x32.mat and test_32x32.mat, in their own order"
    return Dataset("svhn_cropped", source, classes, rest, validation, test)


def _read(path: Path, builder: Any) -> Split:
    from scipy.io import loadmat

    originals.check(path, builder)
    with guard(f"{path} cannot be read"):
        content = loadmat(path)
        images = np.ascontiguousarray(np.moveaxis(content["X"], -1, 0))
        labels = content["y"].ravel().astype(np.int64)
        return Split(images, labels % 10)  # 10 is the label of the digit 0
