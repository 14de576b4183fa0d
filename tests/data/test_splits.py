"""Splits, and the examples of the docstrings."""

import doctest

import numpy as np

from hypernet_tf.data import loading, noise, splits


def test_x_is_the_fraction_of_white(mnist_5k):
    split = mnist_5k.test
    assert split.x.dtype == np.float32 and split.x.shape == split.images.shape
    assert (split.x.min(), split.x.max()) == (0, 1)
    np.testing.assert_array_equal(split.x, split.images.astype(np.float32) / np.float32(255))
    assert split.y is split.labels and len(split) == 500


def test_examples_of_the_docstrings():
    results = [doctest.testmod(module) for module in (loading, noise, splits)]
    assert [result.attempted for result in results] == [3, 2, 2]
    assert all(result.failed == 0 for result in results)
