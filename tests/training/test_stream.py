"""The order of the data."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training_runs import digits

from hypernet_tf.training.stream import batch_indices, batches


@settings(deadline=None, derandomize=True, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31 - 1))
def test_every_epoch_uses_each_example_once(size, batch_size, seed):
    batch_size = min(size, batch_size)
    steps = -(-3 * size // batch_size)
    order = np.concatenate(
        [
            batch_indices(tf.constant(s), size=size, batch_size=batch_size, seed=seed)
            for s in range(steps)
        ]
    )
    for epoch in range(3):
        part = order[epoch * size : (epoch + 1) * size]
        assert sorted(part) == list(range(size))


def test_epochs_and_seeds_differ():
    def order(seed, step):
        index = batch_indices(tf.constant(step), size=50, batch_size=50, seed=seed)
        return index.numpy().tolist()

    assert order(0, 0) != order(0, 1) != order(1, 1)
    assert order(0, 0) != list(range(50))
    # TensorFlow's permutation alone repeats after 256 seeds or epochs.
    several = [order(s, e) for s in (0, 256, 65_536, 2**24) for e in (0, 1, 256, 257, 512)]
    assert len({tuple(one) for one in several}) == len(several)


def test_orders_of_small_seeds_and_epochs_are_those_of_one_permutation():
    plain = tf.random.experimental.index_shuffle(tf.range(50, dtype=tf.int64), [3, 7], 49)
    index = batch_indices(tf.constant(7), size=50, batch_size=50, seed=np.int64(3))
    np.testing.assert_array_equal(index, plain)


def test_a_later_start_continues_the_order():
    split = digits(20)
    whole = batches(split, batch_size=6, seed=3).take(9)
    rest = batches(split, batch_size=6, seed=3, first_step=5).take(4)
    for (x, y), (x_late, y_late) in zip(list(whole)[5:], rest, strict=True):
        np.testing.assert_array_equal(x, x_late)
        np.testing.assert_array_equal(y, y_late)


def test_images_and_labels_stay_together():
    split = digits(20)
    x, y = next(iter(batches(split, batch_size=20, seed=0)))
    assert x.dtype == tf.float32
    assert x.shape == (20, 6, 6, 1)
    rows = x.numpy().mean((2, 3))[:, ::2].argmax(1)  # the bright row
    np.testing.assert_array_equal(rows, y)
    assert x.numpy().max() <= 1


def test_a_batch_larger_than_the_data_is_an_error():
    with pytest.raises(ValueError, match="Cannot make a batch of 21 examples of 20"):
        batches(digits(20), batch_size=21, seed=0)
