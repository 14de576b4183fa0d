"""The inputs of `fit` that a sampler keeps."""

import numpy as np
import tensorflow as tf
from data_sets import Batches, Endless

from hypernet_tf.samplers.fit_inputs import some_inputs


def test_inputs_of_a_py_dataset_are_kept_too():
    x = np.arange(14)
    np.testing.assert_array_equal(some_inputs(Batches(x, x), 9), x[:9])
    kept = some_inputs(Endless(x, x), 20)  # for a `fit` with `steps_per_epoch`
    np.testing.assert_array_equal(kept, [*x, *x[:6]])


def test_kept_inputs_are_spread_over_all():
    x = np.arange(2_500)
    kept = some_inputs((x, x + 1), 1_000)
    assert [len(part) for part in kept] == [1_000, 1_000]
    in_order = np.sort(kept[0])
    assert set(np.diff(in_order)) == {2, 3} and in_order[-1] >= 2_497
    assert np.ptp(kept[0][:100]) > 2_000  # a batch of them is not of one class
    np.testing.assert_array_equal(kept[1], kept[0] + 1)
    of_tensors = some_inputs(tf.constant(np.arange(1_999)), 1_000)
    assert max(of_tensors) >= 1_997 and len(set(of_tensors)) == 1_000
    assert some_inputs((pair for pair in ()), 10) is None


def test_inputs_of_any_array_are_kept():
    class Frame:
        """What a data frame is to NumPy."""

        shape = (4, 2)

        def __array__(self, dtype=None, copy=None):
            return np.arange(8.0).reshape(4, 2)

    np.testing.assert_array_equal(sorted(some_inputs(Frame(), 2).tolist()), [[0, 1], [4, 5]])
