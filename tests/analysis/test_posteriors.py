"""Single weights over many networks."""

import numpy as np
import pytest
import tensorflow as tf
from small_samplers import classifier

import hypernet_tf as hn
from hypernet_tf.analysis import single_weights


def test_weights_are_spread_over_each_layer():
    target = hn.Target(classifier())  # 2·8 + 8 and 8·3 + 3 weights
    theta = np.arange(2 * 51, dtype=np.float32).reshape(2, 51)
    ensemble = hn.Ensemble(target, target.unflatten(tf.constant(theta)))
    result = single_weights(ensemble, 3)
    assert [(layer, name) for layer, name, _ in result] == [
        *((1, name) for name in ("kernel[0, 4]", "kernel[1, 4]", "bias[4]")),
        *((2, name) for name in ("kernel[1, 1]", "kernel[4, 1]", "kernel[7, 1]")),
    ]
    kernel, bias = (ensemble.weights.trainable[index].numpy() for index in (0, 1))
    np.testing.assert_array_equal(result[0].values, kernel[:, 0, 4])
    np.testing.assert_array_equal(result[2].values, bias[:, 4])
    assert len(single_weights(ensemble, 1_000)) == 51
    with pytest.raises(ValueError, match="per_layer is 0: give at least 1"):
        single_weights(ensemble, 0)
