"""Names of some classes and of some training images."""

import dataclasses
import doctest

import numpy as np
import pytest
from data_cases import PARTS, data_error

from hypernet_tf import data
from hypernet_tf.data import selection
from hypernet_tf.data.selection import Selection, stratified

MOST = ",".join(map(str, range(0, 10, 2)))


@pytest.mark.parametrize(
    ("text", "classes", "num_train", "shortest"),
    [
        ("mnist", (), None, "mnist"),
        ("mnist:0-4", (0, 1, 2, 3, 4), None, "mnist:0-4"),
        ("cifar10:5-9", (5, 6, 7, 8, 9), None, "cifar10:5-9"),
        ("mnist:7,0,3", (0, 3, 7), None, "mnist:0,3,7"),
        ("mnist:0,1,2,2-4,9", (0, 1, 2, 3, 4, 9), None, "mnist:0-4,9"),
        (f"glyphs:{MOST}", (0, 2, 4, 6, 8), None, f"glyphs:{MOST}"),
        ("mnist:0", (0,), None, "mnist:0"),
        ("mnist:9", (9,), None, "mnist:9"),
        ("mnist:0-9", (), None, "mnist"),
        ("mnist:10", (), 10, "mnist:10"),
        ("mnist:5000", (), 5_000, "mnist:5000"),
        ("cifar100:50", (50,), None, "cifar100:50"),
        ("cifar100:100", (), 100, "cifar100:100"),
        ("auto:5000", (), 5_000, "auto:5000"),
    ],
)
def test_a_number_is_a_class_or_a_number_of_images(text, classes, num_train, shortest):
    parsed = Selection.parse(text)
    assert parsed == Selection(text.partition(":")[0], classes, num_train)
    assert str(parsed) == shortest
    assert Selection.parse(shortest) == parsed


@pytest.mark.parametrize(
    "part", ["", "a", "0-", "-4", "0,,3", "0:4", "1.5", "5e3", "0 - 4", "٣", "1_0"]
)
def test_another_form_is_an_error_with_examples(part):
    with data_error(f"Cannot read {'mnist:' + part!r}", "mnist:0-4 or mnist:0,3,7", "mnist:5000"):
        Selection.parse(f"mnist:{part}")


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("mnist:0-10", "0-10"),
        ("mnist:3,12", "12"),
        ("mnist:4-0", "4-0"),
        ("mnist:0-999999999", "0-999999999"),
        ("glyphs:9-10", "9-10"),
    ],
)
def test_an_unknown_class_is_named(text, item):
    name = text.partition(":")[0]
    with data_error(f"Unknown classes '{item}' of {name}: its classes are 0 to 9."):
        data.load(text)


def test_test_images_cannot_be_chosen_as_training_images():
    with data_error("notmnist has none", "Its classes are 0 to 9"):
        Selection.parse("notmnist:5000")


@pytest.mark.parametrize("text", ["cats:0-4", ":0-4", "noise:3", "mnist :3"])
def test_the_name_before_the_colon_must_be_known(text):
    with data_error("Unknown data set", "cifar10_jpeg"):
        Selection.parse(text)


def test_classes_are_numbered_from_0_and_keep_their_names(mnist_5k):
    part = data.load("mnist_5k:0,3,7")
    assert (part.name, part.classes, part.source) == (
        "mnist_5k:0,3,7",
        ("0", "3", "7"),
        mnist_5k.source,
    )
    for name in PARTS:
        whole, chosen = getattr(mnist_5k, name), getattr(part, name)
        assert chosen.labels.dtype == np.int64 and chosen.images.dtype == np.uint8
        numbers = np.array([0, 3, 7])[chosen.labels]
        mask = np.isin(whole.labels, (0, 3, 7))
        np.testing.assert_array_equal(numbers, whole.labels[mask])
        np.testing.assert_array_equal(chosen.images, whole.images[mask])
        assert np.bincount(chosen.labels).tolist() == [mask.sum() // 3] * 3


def test_the_other_classes_are_the_rest(mnist_5k):
    low = Selection.parse("mnist_5k:0-4")
    high = low.others()
    assert (str(high), str(high.others())) == ("mnist_5k:5-9", "mnist_5k:0-4")
    assert len(low.apply(mnist_5k).test) + len(high.apply(mnist_5k).test) == len(mnist_5k.test)
    assert Selection.parse("mnist").others() is None
    assert Selection.parse("mnist:5000").others() is None


def test_training_images_are_chosen_in_proportion_and_the_others_stay(mnist_5k):
    first, again = (Selection.parse("mnist_5k:1000").apply(mnist_5k) for _ in range(2))
    assert first.summary() == mnist_5k.summary() | {"name": "mnist_5k:1000", "train": 1_000}
    assert np.bincount(first.train.labels).tolist() == [100] * 10
    np.testing.assert_array_equal(first.train.images, again.train.images)
    pairs = {x.tobytes(): y for x, y in zip(mnist_5k.train.images, mnist_5k.train.y, strict=True)}
    assert all(
        pairs[x.tobytes()] == y for x, y in zip(first.train.images, first.train.y, strict=True)
    )
    assert len(Selection.parse("mnist_5k:4000").apply(mnist_5k).train) == 4_000
    with data_error("Cannot select 4,001 training images: mnist_5k has 4,000"):
        Selection.parse("mnist_5k:4001").apply(mnist_5k)


def test_more_training_images_than_usual_are_taken_from_those_for_validation(mnist_5k):
    whole = dataclasses.replace(mnist_5k, train=mnist_5k.validation, validation=mnist_5k.train)
    part = Selection.parse("mnist_5k:3000").apply(whole)
    assert part.summary() | {"source": ""} == {
        "name": "mnist_5k:3000",
        "source": "",
        "train": 3_000,
        "validation": 1_500,
        "test": 500,
    }
    for key in ("images", "labels"):
        parts = [getattr(getattr(part, name), key) for name in ("train", "validation", "test")]
        wholes = [getattr(getattr(whole, name), key) for name in ("train", "validation", "test")]
        np.testing.assert_array_equal(np.concatenate(parts), np.concatenate(wholes))
    assert len(Selection.parse("mnist_5k:4000").apply(whole).validation) == 500
    with data_error("Cannot select 4,001 training images: mnist_5k has 4,000"):
        Selection.parse("mnist_5k:4001").apply(whole)


def test_a_choice_in_proportion_takes_any_number():
    labels = np.array([0] * 50 + [1] * 30 + [2] * 1)
    for count in (0, 1, 8, 80, 81):
        chosen = stratified(labels, count, seed=0)
        assert len(chosen) == len(set(chosen.tolist())) == count
        assert chosen.tolist() == sorted(chosen.tolist())
    assert np.bincount(labels[stratified(labels, 16, seed=0)])[:2].tolist() == [10, 6]
    assert stratified(labels, 8, seed=0).tolist() != stratified(labels, 8, seed=1).tolist()


def test_resolve_gives_the_shortest_name(tmp_path, offline):
    assert data.resolve("fashion_mnist:0,1,2", tmp_path) == ("fashion_mnist:0-2", None)
    name, notice = data.resolve("auto:0,1", tmp_path)
    assert name == "mnist_5k:0-1" and "using mnist_5k instead" in notice


def test_examples_of_the_docstrings():
    assert tuple(doctest.testmod(selection)) == (0, 5)  # failed, attempted
