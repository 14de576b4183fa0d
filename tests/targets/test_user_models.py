"""Models that users bring: what is read off them, and what is refused in one line."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS

import hypernet_tf as hn

layers = keras.layers


def functional(shape, make, **kwargs):
    inputs = keras.Input(shape, **kwargs)
    return keras.Model(inputs, make(inputs))


def some_weights(target, count=2):
    theta = tf.random.stateless_normal([count, target.weight_count], [1, 2])
    return target.unflatten(theta)


class Block(layers.Layer):
    """A convolution and its batch normalisation, in a layer of the user's own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.BatchNormalization()

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, training=False):
        return self.norm(x, training=training)


class TestRefusals:
    @pytest.mark.parametrize(
        ("model", "outputs", "why"),
        [
            (lambda: (4, 4, 2, Block()), None, "'block' has batch normalisation inside it"),
            (
                lambda: (3, 4, 2, layers.TimeDistributed(layers.BatchNormalization())),
                None,
                "has batch normalisation inside it",
            ),
            (
                lambda: (4, layers.Dense(3, kernel_constraint="non_neg")),
                None,
                "has a constraint, which generated weights do not meet: remove it",
            ),
            (
                lambda: (4, layers.Dense(3, activation="softmax")),
                "logits",
                "ends in a softmax or sigmoid: its outputs are 'probabilities', not 'logits'",
            ),
            (
                lambda: (4, layers.Dense(1, activation="sigmoid")),
                "logits",
                "its outputs are 'probabilities', not 'logits'",
            ),
            (
                lambda: (4, layers.Dense(1), layers.Reshape(())),
                "logits",
                "needs an axis of classes, the last one of",
            ),
        ],
    )
    def test_what_would_be_wrong_is_one_line(self, model, outputs, why):
        *shape, first, last = (*model(), None)
        steps = [step for step in (*shape, first, last) if isinstance(step, layers.Layer)]
        shape = [size for size in shape if isinstance(size, int)]
        own = keras.Sequential([keras.Input(shape), *steps])
        with pytest.raises(ValueError, match=why) as error:
            hn.Target(own, outputs=outputs)
        assert "\n" not in str(error.value)

    def test_bytes_into_a_nested_model_of_numbers(self):
        nested = functional((8, 8, 3), lambda x: layers.Conv2D(2, 3)(x))
        model = functional((8, 8, 3), nested, dtype="uint8")
        with pytest.raises(ValueError, match="takes float32 and is given uint8: put a layer befo"):
            hn.Target(model)
        rescaled = functional((8, 8, 3), lambda x: nested(layers.Rescaling(0.1)(x)), dtype="uint8")
        target = hn.Target(rescaled)
        x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
        ensemble = hn.Ensemble.from_keras(target, rescaled)
        np.testing.assert_allclose(ensemble.outputs(x)[0], rescaled(x), rtol=1e-5, atol=1e-5)


class TestNormalization:
    """Keras computes with constants where a layer was adapted: they are no weights."""

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


class TestInitializers:
    """A variable's own, by whatever name its layer keeps it."""

    def test_independent_networks_start_apart_in_every_kernel(self):
        model = functional(
            (8, 8, 2),
            lambda x: layers.LSTM(3)(
                layers.Reshape((9, 4))(
                    layers.SeparableConv2D(4, 2, strides=2)(layers.DepthwiseConv2D(3)(x))
                )
            ),
        )
        target = hn.Target(model, outputs="values")
        names = [(slot.name, slot) for layer in target.layers for slot in layer.slots]
        kinds = {name: type(slot.initializer).__name__ for name, slot in names if name != "bias"}
        assert kinds == {
            "kernel": "GlorotUniform",
            "depthwise_kernel": "GlorotUniform",
            "pointwise_kernel": "GlorotUniform",
            "recurrent_kernel": "Orthogonal",
        }
        ensemble = hn.DeepEnsemble(target, num_networks=3, gauge=False).sample(3)
        for name, slot in names:
            apart = np.std(ensemble.weights.trainable[slot.index], 0).max()
            assert (apart > 0.05) == (name != "bias")
        forget = ensemble.weights.trainable[-1][0].numpy()
        np.testing.assert_array_equal(forget, np.repeat([0.0, 1.0, 0.0, 0.0], 3))

    def test_where_a_layer_does_not_tell_it_is_the_users_own_value(self):
        class Scale(layers.Layer):
            def build(self, shape):
                self.factor = self.add_weight(shape=(shape[-1],), initializer="normal", name="f")

            def call(self, x):
                return x * self.factor

        model = keras.Sequential([keras.Input((4,)), Scale()])
        ((slot,),) = (layer.slots for layer in hn.Target(model).layers)
        np.testing.assert_array_equal(slot.initializer((4,)), model.layers[0].factor)


class TestEpsilonOfNorms:
    """Channels of next to no variance, which Keras's epsilon of 1e-3 makes almost silent."""

    def target(self):
        def graph(x):
            for filters in (4, 5):
                x = layers.Conv2D(filters, 3)(x)
                x = layers.ReLU()(layers.BatchNormalization()(x))
            return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))

        return hn.Target(functional((8, 8, 2), graph), outputs="logits")

    def test_the_gauge_changes_no_answer(self):
        target = self.target()
        theta = tf.random.stateless_normal([3, target.weight_count], [1, 2], stddev=0.02)
        x = np.random.default_rng(0).normal(size=(40, 8, 8, 2)).astype("float32")
        ensemble = hn.Ensemble(target, target.unflatten(theta)).update_batch_norm(x)
        variances = [ensemble.weights.state[place] for place, _ in target.statistics[1::2]]
        assert min(float(tf.reduce_min(v)) for v in variances) < 1e-3
        before = ensemble.outputs(x)
        fixed = hn.Gauge(target, epsilon=0.0)(ensemble.weights)
        after = hn.Ensemble(target, fixed, batch_norm_updated=True).outputs(x)
        np.testing.assert_allclose(
            after - after.mean(-1, keepdims=True),
            before - before.mean(-1, keepdims=True),
            atol=1e-5 * np.abs(before).max(),
        )
        anew = hn.Ensemble(target, fixed).update_batch_norm(x).outputs(x)
        assert np.abs(anew - after).max() > 0.01 * np.abs(before).max()  # so it did matter

    def test_networks_trained_out_of_the_gauge_answer_as_they_were_trained(self):
        x = np.random.default_rng(0).normal(size=(40, 8, 8, 2)).astype("float32")
        samples = []
        for gauge in (False, True):
            keras.utils.set_random_seed(0)
            sampler = hn.DeepEnsemble(self.target(), num_networks=2, gauge=gauge)
            sampler.compile(loss=LOGITS)
            for variable in sampler.trainable_variables:
                variable.assign(0.1 * variable)
            sampler.batch_norm_data = x
            samples.append(sampler.sample(2))
        raw, fixed = (ensemble.outputs(x) for ensemble in samples)
        centred = [outputs - outputs.mean(-1, keepdims=True) for outputs in (raw, fixed)]
        np.testing.assert_allclose(*centred, atol=1e-5 * np.abs(raw).max())
        assert np.abs(samples[0].theta() - samples[1].theta()).max() > 0.1
