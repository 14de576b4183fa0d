"""Noise around one trained network."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, deep_ensemble, noise_control

import hypernet_tf as hn

pytestmark = pytest.mark.usefixtures("eager_fits")


def around_a_network(**options):
    """A noise control of logits whose weights are random numbers: as good as trained ones here."""
    sampler = noise_control(**options)
    sampler.compile(loss=LOGITS)
    rng = np.random.default_rng(0)
    for variable in sampler.theta:
        variable.assign(rng.normal(size=variable.shape))
    return sampler


def test_samples_are_noise_around_the_trained_network():
    sampler = around_a_network(gauge=False, scale=0.3)
    theta = sampler.sample(4000).theta()
    trained = np.concatenate([v.numpy().ravel() for v in sampler.theta])
    np.testing.assert_allclose(theta.mean(0), trained, atol=0.03)
    np.testing.assert_allclose(theta.std(0), 0.3, rtol=0.06)
    gauged = around_a_network()
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


def test_matched_networks_are_as_far_apart():
    other = deep_ensemble(num_networks=12).sample(12)
    sampler = around_a_network()
    scale = sampler.match(other)
    assert scale == float(sampler.scale.numpy()) != pytest.approx(0.05, rel=0.1)

    def distance(ensemble):
        near = hn.diversity.nearest_neighbour_distances(tf.constant(ensemble.theta()))
        return float(np.log(near).mean())

    np.testing.assert_allclose(distance(sampler.sample(12)), distance(other), atol=1e-4)


def layers_of(ensemble):
    """The weights of each layer, [N, weights of the layer]."""
    rows = ensemble.target.rows(ensemble.weights.trainable)
    return [np.reshape(layer, [len(ensemble), -1]) for layer in rows]


def test_scales_of_the_layers_of_a_model_that_branches():
    """Keras runs branches in another order than that of their variables."""
    layers = keras.layers
    inputs = keras.Input((4,))
    branches = [layers.Dense(size, activation="linear")(inputs) for size in (3, 50)]
    joined = layers.Concatenate()([layers.ReLU()(branch) for branch in branches])
    target = hn.Target(keras.Model(inputs, layers.Dense(2)(joined)))
    assert target.layers[0].slots[0].index != 0
    scales = (1e-3, 10.0, 0.1)
    sampler = hn.NoiseControl(target, scale=scales, gauge=False)
    ensemble = sampler.sample(400)
    for layer, scale in zip(layers_of(ensemble), scales, strict=True):
        np.testing.assert_allclose(layer.std(0), scale, rtol=0.2)
    other = hn.NoiseControl(target, scale=(1.0, 1.0, 1.0), gauge=False)
    np.testing.assert_allclose(other.match(ensemble), scales, rtol=0.1)


def test_each_layer_has_its_own_scale():
    scales = (0.2, 3.0)
    sampler = around_a_network(gauge=False, scale=scales)
    trained = np.concatenate([v.numpy().ravel() for v in sampler.theta])
    theta = sampler.sample(4000).theta()
    np.testing.assert_allclose(theta.mean(0), trained, atol=0.2)
    for layer, scale in zip(layers_of(sampler.sample(4000)), scales, strict=True):
        np.testing.assert_allclose(layer.std(0), scale, rtol=0.06)
    equal = noise_control(scale=(0.05, 0.05))
    np.testing.assert_allclose(equal.sample(3).theta(), noise_control().sample(3).theta())


def test_matched_by_layer_networks_are_as_far_apart_in_each_layer():
    other = deep_ensemble(num_networks=12)
    for weights, factor in zip(other.theta, (1.0, 1.0, 0.01, 0.01), strict=True):
        weights.assign(weights * factor)  # the second layer has small weights
    other = other.sample(12)
    by_layer = around_a_network(scale=(0.05, 0.05))
    isotropic = around_a_network()
    scales = by_layer.match(other)
    assert scales == by_layer.scale.numpy().tolist()
    isotropic.match(other)

    def distances(ensemble):
        return np.exp(
            [
                np.log(hn.diversity.nearest_neighbour_distances(tf.constant(layer))).mean()
                for layer in layers_of(ensemble)
            ]
        )

    np.testing.assert_allclose(distances(by_layer.sample(12)), distances(other), rtol=1e-3)
    fresh = distances(by_layer.sample(12, seed=5))  # noise that was not drawn for the match
    np.testing.assert_allclose(fresh, distances(other), rtol=0.2)
    assert distances(isotropic.sample(12))[1] > 10 * distances(other)[1]
    loaded = hn.NoiseControl.from_config(by_layer.get_config())
    assert loaded.scale.numpy().tolist() == pytest.approx([0.05, 0.05])


def test_what_cannot_be_matched_is_an_error_and_changes_nothing():
    sampler = noise_control(scale=0.05)
    same = deep_ensemble(num_networks=2)
    for weights in same.theta:
        weights.assign(tf.repeat(weights[:1], 2, 0))
    large, of_as_many_weights = (
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(units)]) for units in (9, 17)
    )
    assert hn.Target(of_as_many_weights).weight_count == sampler.target.weight_count
    for ensemble, words in (
        (same.sample(2), "Cannot match equal networks"),
        (same.sample(1), "Cannot match one network"),
        (deep_ensemble(large).sample(2), "of another target"),
        (deep_ensemble(of_as_many_weights).sample(2), "of another target"),
    ):
        with pytest.raises(ValueError, match=words):
            sampler.match(ensemble)
    assert float(sampler.scale.numpy()) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="Cannot match equal networks"):
        noise_control(scale=(0.05, 0.05)).match(same.sample(2))
    for scale, words in (
        (0, "scale is 0: give positive"),
        ((0.1, -1.0), r"scale is \(0.1, -1.0\): give positive"),
        ((0.1, 0.1, 0.1), "scale has 3 numbers, and the target 2 layers"),
    ):
        with pytest.raises(ValueError, match=words):
            noise_control(scale=scale)


def test_networks_that_are_not_in_the_gauge_are_matched_in_it():
    """Hidden filters of trained networks are small, and of gauged ones not."""
    inside = deep_ensemble(num_networks=12)
    outside = deep_ensemble(num_networks=12, gauge=False)
    outside.set_weights(inside.get_weights())
    for one in (inside, outside):
        one.compile(loss=LOGITS)
    raw, gauged = (around_a_network().match(one.sample(12)) for one in (outside, inside))
    assert raw == pytest.approx(gauged, rel=1e-4)
