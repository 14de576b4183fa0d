"""Filters: their pictures, their diversity, and the weights that read them, by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from random_networks import random_networks

import hypernet_tf as hn
from hypernet_tf.analysis import direct_path, filter_diversity, filter_pictures, layer_pictures

layers = keras.layers


def test_pictures_by_hand():
    """A convolution, a dense layer on its pooled 2 x 2 pixels of 4 channels, and another one."""
    ensemble = random_networks(3)
    conv, _, dense, _, last, _ = (w.numpy() for w in ensemble.weights.trainable)
    first, second, third = layer_pictures(ensemble, 2)
    assert [(p.layer, p.kind) for p in (first, second, third)] == [
        (1, "filter"),
        (2, "neuron"),
        (3, "the whole kernel"),
    ]
    for number in range(2):
        np.testing.assert_array_equal(first.pictures[:, number], conv[..., 0, number])
        pixels = dense[:, ::4, number].reshape(3, 2, 2)
        np.testing.assert_array_equal(second.pictures[:, number], pixels)
    np.testing.assert_array_equal(third.pictures[:, 0], last)
    pictures = filter_pictures(ensemble)
    assert list(pictures) == [
        "layer 1: filter 1, channel 1",
        "layer 2: neuron 1, channel 1",
        "layer 3: the whole kernel",
    ]
    np.testing.assert_array_equal(pictures["layer 2: neuron 1, channel 1"], second.pictures[:, 0])


def test_layers_without_a_picture():
    model = keras.Sequential([keras.Input((5, 2)), layers.Conv1D(3, 2), layers.Dense(2)])
    target = hn.Target(model)
    ensemble = hn.Ensemble(target, target.unflatten(tf.ones([2, target.weight_count])))
    assert [p.layer for p in layer_pictures(ensemble, 4)] == [2]


def test_diversity_by_hand():
    ensemble = random_networks(6)
    kernel, bias, dense, *_ = (w.numpy() for w in ensemble.weights.trainable)
    first, second = filter_diversity(ensemble)
    assert first.diversity.shape == (4,)
    assert second.diversity.shape == (5,)
    for filter_ in range(4):
        rows = np.c_[kernel[..., filter_].reshape(6, -1), bias[:, filter_]]
        np.testing.assert_allclose(
            first.diversity[filter_], np.sqrt(rows.var(0, ddof=1).mean()), rtol=1e-5
        )
        # Pooled to 2 x 2 pixels of 4 channels: the dense layer reads channel c at c, c + 4, ...
        read = dense[:, filter_::4]
        np.testing.assert_allclose(
            first.next_weights[filter_], np.sqrt((read**2).mean()), rtol=1e-5
        )


def test_equal_networks_have_no_diversity():
    ensemble = random_networks(2)
    equal = direct_path(ensemble[:1], ensemble[:1], points=3)
    for layer in filter_diversity(equal):
        np.testing.assert_allclose(layer.diversity, 0, atol=1e-6)
        assert (layer.next_weights > 0).all()


def test_one_network_raises():
    with pytest.raises(ValueError, match="at least 2 networks"):
        filter_diversity(random_networks(1))
