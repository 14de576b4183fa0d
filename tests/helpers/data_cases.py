"""What tests of data sets share: the content of folders, and errors of one line."""

import contextlib
import gzip
from pathlib import Path

import numpy as np
import pytest

from hypernet_tf import data

PARTS = ("train", "validation", "test")
IDX_FILES = (
    "t10k-images-idx3-ubyte.gz",  # the first that is read
    "t10k-labels-idx1-ubyte.gz",
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)


def listing(folder):
    """Every path under a folder, with the content of files."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


@contextlib.contextmanager
def data_error(*words):
    """Expects a DataError of one line that contains the words."""
    with pytest.raises(data.DataError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for word in words:
        assert str(word) in message


def rows(images, labels):
    """Each image and its label as bytes."""
    return [
        image.tobytes() + bytes([label])
        for image, label in zip(images, labels.tolist(), strict=True)
    ]


def gzipped_idx(array, *, magic=None, missing=0):
    """An idx file of unsigned bytes, zipped.

    Args:
        array: The array, uint8.
        magic: Magic number of the file, None for the right one.
        missing: Number of bytes by which the file is too short.
    """
    header = np.array([magic or 0x800 + array.ndim, *array.shape], ">u4").tobytes()
    body = array.tobytes() + bytes(max(-missing, 0))
    return gzip.compress(header + body[: len(body) - max(missing, 0)])


def register(patch, name, folder):
    """Give TFDS length and checksum of the files in a folder, in place of the original ones."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import checksums

    known = {
        url: checksums.compute_url_info(folder / info.filename)
        for url, info in tfds.builder_cls(name).url_infos.items()
        if (folder / info.filename).exists()
    }
    patch.setattr(tfds.builder_cls(name), "url_infos", known)
