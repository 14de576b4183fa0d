"""Grey images made colour, and padded."""

import doctest

import numpy as np
import pytest
from data_cases import PARTS, data_error

from hypernet_tf import data
from hypernet_tf.data import padding


def small(shape, name="clothes"):
    rng = np.random.default_rng(0)
    parts = (
        data.Split(rng.integers(0, 256, (count, *shape), np.uint8), np.arange(count))
        for count in (4, 0, 3)
    )
    return data.Dataset(name, "drawn", ("a",), *parts)


def test_grey_images_become_colour_images_with_black_around():
    grey = small((28, 28, 1))
    colour = data.pad_to(grey, (32, 32, 3))
    assert colour.summary() == grey.summary() | {"source": "drawn, padded to 32 x 32 x 3"}
    assert colour.classes == grey.classes
    for part in PARTS:
        before, after = getattr(grey, part), getattr(colour, part)
        assert after.images.dtype == np.uint8 and after.images.shape == (len(before), 32, 32, 3)
        assert after.labels is before.labels
        for channel in range(3):
            inner = after.images[:, 2:-2, 2:-2, channel]
            np.testing.assert_array_equal(inner, before.images[..., 0])
        assert after.images.sum() == 3 * before.images.sum()  # so that the rest is black


def test_shapes_that_fit_are_kept_or_padded():
    colour = small((32, 32, 3))
    assert data.pad_to(colour, (32, 32, 3)) is colour
    images = small((4, 3, 3)).test.images
    padded = data.pad_to(small((4, 3, 3)), (5, 6, 3)).test.images
    np.testing.assert_array_equal(padded[:, :4, 1:4], images)  # the odd row below, column right
    assert padded.sum() == images.sum()


@pytest.mark.parametrize("shape", [(28, 32, 3), (32, 28, 3), (32, 32, 1), (32, 32, 4)])
def test_images_that_do_not_fit_are_errors(shape):
    with data_error(
        "Images of cifar10 are 32 x 32 x 3", " x ".join(map(str, shape)), "use another"
    ):
        data.pad_to(small((32, 32, 3), "cifar10"), shape)


def test_example_of_the_docstring():
    assert tuple(doctest.testmod(padding)) == (0, 3)  # failed, attempted
