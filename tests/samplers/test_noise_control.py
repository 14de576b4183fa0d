"""Noise around one trained network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import deep_ensemble, fitted, noise_control

import hypernet_tf as hn


def test_samples_are_noise_around_the_trained_network(blobs):
    sampler, _ = fitted(lambda: noise_control(gauge=False, scale=0.3), *blobs)
    theta = sampler.sample(4000).theta()
    trained = np.concatenate([v.numpy().ravel() for v in sampler.theta])
    np.testing.assert_allclose(theta.mean(0), trained, atol=0.03)
    np.testing.assert_allclose(theta.std(0), 0.3, rtol=0.06)
    gauged, _ = fitted(noise_control, *blobs)
    centre = hn.DeepEnsemble(gauged.target, num_networks=1)
    for variable, value in zip(centre.theta, gauged.theta, strict=True):
        variable.assign(value)
    # In the gauge too, and at any scale, what is added is isotropic.
    for scale in (1e-6, 3.0):
        gauged.scale.assign(scale)
        expected = centre.sample(1).theta() + scale * gauged.sample_latent(5).numpy()
        np.testing.assert_allclose(gauged.sample(5).theta(), expected, rtol=1e-5, atol=1e-5)
        of_z = gauged.target.flatten(gauged.weights_of(gauged.sample_latent(5)))
        np.testing.assert_allclose(of_z, expected, rtol=1e-5, atol=1e-5)


def test_matched_networks_are_as_far_apart(blobs):
    other = deep_ensemble(num_networks=12).sample(12)
    sampler, _ = fitted(noise_control, *blobs)
    scale = sampler.match(other)
    assert scale == float(sampler.scale.numpy()) != pytest.approx(0.05, rel=0.1)

    def distance(ensemble):
        near = hn.diversity.nearest_neighbour_distances(tf.constant(ensemble.theta()))
        return float(np.log(near).mean())

    np.testing.assert_allclose(distance(sampler.sample(12)), distance(other), atol=1e-4)


def test_what_cannot_be_matched_is_an_error_and_changes_nothing():
    sampler = noise_control(scale=0.05)
    same = deep_ensemble(num_networks=2)
    for weights in same.theta:
        weights.assign(tf.repeat(weights[:1], 2, 0))
    large = keras.Sequential([keras.Input((2,)), keras.layers.Dense(9)])
    for ensemble, words in (
        (same.sample(2), "Cannot match equal networks"),
        (same.sample(1), "Cannot match one network"),
        (deep_ensemble(large).sample(2), "of another target"),
    ):
        with pytest.raises(ValueError, match=words):
            sampler.match(ensemble)
    assert float(sampler.scale.numpy()) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="scale is 0: give a positive"):
        noise_control(scale=0)
