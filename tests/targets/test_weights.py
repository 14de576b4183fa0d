"""Keras models as weight sets of one network."""

import keras
import numpy as np
import pytest
from target_models import CASES, one_line_error

import hypernet_tf as hn
from hypernet_tf.targets.weights import weights_of

layers = keras.layers


class TestNormalization:
    """An adapted layer computes with constants, which are not weights."""

    def model(self, scale):
        norm = layers.Normalization()
        norm.adapt(scale * np.random.default_rng(0).normal(size=(50, 4)).astype("float32"))
        return keras.Sequential([keras.Input((4,)), norm, layers.Dense(3)])

    def test_a_model_with_it_is_a_network_of_its_target(self):
        model, x = self.model(3.0), np.ones((2, 4), "float32")
        ensemble = hn.Ensemble.from_keras(hn.Target(model), model)
        np.testing.assert_allclose(ensemble.outputs(x)[0], model(x), rtol=1e-5)

    def test_one_adapted_to_other_data_is_not(self):
        with pytest.raises(ValueError, match="a Normalization in it was adapted to other data"):
            hn.Ensemble.from_keras(hn.Target(self.model(3.0)), self.model(1.0))


def test_the_weights_of_a_model_give_its_outputs():
    model = CASES["conv_then_dense"]()
    target = hn.Target(model)
    weights = weights_of(target, model)
    x = np.random.default_rng(0).normal(size=(2, 6, 6, 1)).astype("float32")
    np.testing.assert_allclose(target(weights, x)[0], model(x), rtol=1e-5, atol=1e-6)


def test_models_that_are_no_networks_of_the_target_raise():
    target = hn.Target(CASES["dense"]())
    with one_line_error("A network is a Keras model, not str"):
        weights_of(target, "model.keras")
    with one_line_error("not a network of this target", "its trainable weights"):
        weights_of(target, CASES["dense_no_bias"]())


def test_a_layer_of_another_precision_is_flattened_with_the_others():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(3, dtype="float64")]
    )
    ensemble = hn.Ensemble.from_keras(hn.Target(model), model)
    assert ensemble.theta().dtype == np.float32
    gauged = hn.Ensemble(ensemble.target, hn.Gauge(ensemble.target)(ensemble.weights))
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("float32")
    np.testing.assert_allclose(gauged.outputs(x)[0], model(x), rtol=1e-4, atol=1e-5)
