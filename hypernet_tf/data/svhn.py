"""`svhn_cropped` from its own two files: TFDS would need the third one too, 1.3 GB of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hypernet_tf.data import originals
from hypernet_tf.data.errors import guard
from hypernet_tf.data.splits import VALIDATION_IMAGES, Dataset, Split


def read_svhn(builder: Any, folder: Path) -> Dataset:
    """The Street View House Numbers as their files hold them.

    Nothing is prepared, and the images are in the order of the files, where TFDS shuffles: the
    last 5,000, which are split off for validation, are other ones than TFDS's.

    Args:
        builder: TFDS's builder of `svhn_cropped`, which knows the files' checksums.
        folder: where train_32x32.mat and test_32x32.mat are.

    Returns:
        The data set; "extra" has no part in it.

    Raises:
        DataError: a file is missing or not the original one.
    """
    train, test = (_read(folder / f"{part}_32x32.mat", builder) for part in ("train", "test"))
    cut = len(train) - VALIDATION_IMAGES
    rest, validation = (Split(train.images[k], train.labels[k]) for k in (np.s_[:cut], np.s_[cut:]))
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
        return Split(images, labels % 10)  # 10 stands for the digit 0
