"""What tests of data sets share: the content of folders, and errors of one line."""

import contextlib
from pathlib import Path

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
