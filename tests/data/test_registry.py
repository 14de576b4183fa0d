"""The table of data sets, and data sets that are added to it."""

import dataclasses
import doctest

import numpy as np
import pytest
from data_cases import data_error

from hypernet_tf import data
from hypernet_tf.data import registry


@pytest.fixture
def known_data_sets():
    """Data sets that a test registers are forgotten."""
    known = dict(data.DATASETS)
    yield
    data.DATASETS.clear()
    data.DATASETS.update(known)


def squares(root):
    """30 images of 8 x 8 x 3 in three classes."""
    images = np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones([1, 8, 8, 3], np.uint8)
    split = data.Split(images, np.arange(30) % 3)
    return data.Dataset("read", f"made in {root.name}", ("a", "b", "c"), split, split[:6], split)


def option(**changes):
    mine = data.DatasetOption("squares", squares, image_shape=(8, 8, 3), num_classes=3)
    return dataclasses.replace(mine, **changes)


def test_names_for_the_networks_of_the_papers():
    grey = ("auto", "mnist", "mnist_5k", "fashion_mnist")
    assert data.names_for((28, 28, 1)) == grey
    colour = ("cifar10", "cifar100", "svhn_cropped", "cifar10_jpeg")
    assert data.names_for((32, 32, 3)) == grey + colour
    assert data.names_for((27, 28, 3)) == ()


def test_copies_know_their_original():
    assert {n: o.copy_of for n, o in data.DATASETS.items() if o.copy_of} == {
        "mnist_5k": "mnist",
        "cifar10_jpeg": "cifar10",
    }
    assert all(o.original in data.DATASETS for o in data.DATASETS.values())


def test_photographs_are_mirrored_and_digits_are_not():
    assert {name: o.augment for name, o in data.DATASETS.items() if o.augment} == {
        "cifar10": "shift_and_mirror",
        "cifar100": "shift_and_mirror",
        "svhn_cropped": "shift",
        "cifar10_jpeg": "shift_and_mirror",
    }


@pytest.mark.usefixtures("known_data_sets")
class TestRegistration:
    def test_one_entry_makes_a_data_set(self, tmp_path):
        entry = data.register_dataset(option(title="Squares"))
        assert data.DATASETS["squares"] is entry
        dataset = data.load("squares", tmp_path)
        assert (dataset.name, dataset.source) == ("squares", f"made in {tmp_path.name}")
        part = data.load("squares:0,2", tmp_path)
        assert part.classes == ("a", "c") and set(part.train.labels.tolist()) == {0, 1}
        assert len(data.load("squares:12", tmp_path).train) == 12
        assert data.title("squares:0-1") == "Squares, classes 0-1"
        assert data.names_for((8, 8, 3)) == ("squares",)
        assert "squares" in data.names_for((32, 32, 3))
        assert "squares" not in data.names_for((28, 28, 1))

    @pytest.mark.parametrize("changes", [{"image_shape": (9, 8, 3)}, {"num_classes": 4}])
    def test_it_has_what_it_says(self, changes, tmp_path):
        data.register_dataset(option(**changes))
        with data_error("squares has images of shape (8, 8, 3) and 3 classes", "register what"):
            data.load("squares", tmp_path)

    def test_images_for_tests_alone(self):
        data.register_dataset(option(trains=False))
        assert data.names_for((8, 8, 3)) == ()
        with data_error("squares has none"):
            data.Selection.parse("squares:12")

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            *(({"name": n}, f"data set '{n}' twice") for n in ("mnist", "auto", "noise")),
            *(({"name": n}, f"a data set named '{n}': use") for n in ("", "a b", "a:b", "7")),
            ({"num_classes": 1}, "num_classes=1: give at least 2"),
        ],
    )
    def test_an_entry_that_does_not_fit(self, changes, words):
        known = dict(data.DATASETS)
        with pytest.raises(ValueError, match=words) as error:
            data.register_dataset(option(**changes))
        assert "\n" not in str(error.value)
        assert known == data.DATASETS


def test_docstring_examples_run():
    results = doctest.testmod(registry)
    assert results.attempted and not results.failed
