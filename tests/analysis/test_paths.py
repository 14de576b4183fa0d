"""Paths against the straight lines that they are."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from random_networks import random_networks, small_target

import hypernet_tf as hn
from hypernet_tf.analysis import direct_path, interpolated_path

layers = keras.layers


def test_a_direct_path_is_the_straight_line_between_the_weights():
    starts, ends = random_networks(2, 1), random_networks(2, 2)
    line = direct_path(starts, ends, points=5).theta().reshape(2, 5, -1)
    for pair in range(2):
        for index, t in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
            expected = (1 - t) * starts.theta()[pair] + t * ends.theta()[pair]
            np.testing.assert_allclose(line[pair, index], expected, atol=1e-6)


def test_a_direct_path_has_the_temperature_of_its_starts():
    starts, ends = random_networks(2, 1), random_networks(2, 2)
    calibrated = hn.Ensemble(starts.target, starts.weights, temperature=1.7)
    assert direct_path(calibrated, ends, points=3).temperature == 1.7


def test_an_interpolated_path_is_theta_of_the_line_between_latent_vectors():
    target = small_target()
    matrix = np.random.default_rng(0).normal(size=(3, target.weight_count)).astype("float32")

    def weights_of(z):
        return target.unflatten(tf.tanh(z) @ matrix)

    z = np.array([[1.0, 2.0, -1.0], [0.0, -3.0, 1.0]], "float32")
    line = interpolated_path(target, weights_of, z[:1], z[1:], points=3)
    expected = np.tanh([z[0], (z[0] + z[1]) / 2, z[1]]) @ matrix
    np.testing.assert_allclose(line.theta(), expected, rtol=1e-5, atol=1e-6)
    direct = direct_path(line[:1], line[2:], points=3)
    np.testing.assert_allclose(direct.theta()[[0, 2]], line.theta()[[0, 2]], rtol=1e-5)
    assert np.abs(direct.theta()[1] - line.theta()[1]).max() > 0.1


def test_batch_norm_is_updated_along_a_path():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3), layers.BatchNormalization(), layers.Dense(2)]
    )
    target = hn.Target(model, outputs="logits")
    x = np.random.default_rng(0).normal(size=(20, 4)).astype("float32")
    line = direct_path(
        random_networks(2, 1, target), random_networks(2, 2, target), points=4
    ).update_batch_norm(x)
    outputs = line.outputs(x)
    assert outputs.shape == (8, 20, 2)
    ends = random_networks(2, 1, target).update_batch_norm(x).outputs(x)
    np.testing.assert_allclose(outputs[[0, 4]], ends, rtol=1e-4, atol=1e-5)


def test_mistakes_raise():
    with pytest.raises(ValueError, match="2 starts for 3 ends"):
        direct_path(random_networks(2), random_networks(3))
    with pytest.raises(ValueError, match=r"^Starts and ends have other weights"):
        direct_path(random_networks(2), hn.load_pretrained("mnist").sample(2))
    with pytest.raises(ValueError, match="at least its 2 ends, not 1 points"):
        direct_path(random_networks(2), random_networks(2), points=1)
    with pytest.raises(ValueError, match=r"^Starts of shape"):
        interpolated_path(small_target(), None, np.zeros((2, 3)), np.zeros((1, 3)))
