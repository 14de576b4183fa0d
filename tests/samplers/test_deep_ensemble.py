"""Networks trained in the ordinary way."""

import keras
import numpy as np
import pytest
from small_samplers import LOGITS, deep_ensemble

pytestmark = pytest.mark.usefixtures("eager_fits")


class TestDeepEnsemble:
    @pytest.mark.parametrize(("optimizer", "l1"), [("sgd", 0.0), ("adam", 0.05)])
    def test_it_is_ordinary_training_of_each_network(self, blobs, optimizer, l1):
        x, y = blobs
        penalty = keras.regularizers.L1L2(l1, 0.1)
        last = keras.layers.Dense(3, kernel_regularizer=penalty, bias_regularizer="l2")
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(8, "relu"), last])
        sampler = deep_ensemble(model, num_networks=4, gauge=False)
        networks = [member.to_keras() for member in sampler.sample(4)]
        sampler.compile(optimizer=optimizer, loss=LOGITS)
        for network in networks:
            network.compile(optimizer=optimizer, loss=LOGITS, run_eagerly=True)
        start = sampler.sample(4).theta()
        for _ in range(5):
            sampler.train_on_batch(x, y)
            for n, network in enumerate(networks):
                network.train_on_batch(x[24 * n : 24 * n + 24], y[24 * n : 24 * n + 24])
        theta = sampler.sample(4).theta()
        assert np.abs(theta - start).max(1).min() > 1e-3
        for row, network in zip(theta, networks, strict=True):
            expected = np.concatenate([v.numpy().ravel() for v in network.trainable_variables])
            np.testing.assert_allclose(row, expected, atol=2e-6)

    @pytest.mark.parametrize("name", ["clipnorm", "global_clipnorm"])
    def test_clipping_by_the_norm_of_all_networks_is_an_error(self, name):
        optimizer = keras.optimizers.SGD(**{name: 1.0})
        with pytest.raises(ValueError, match=f"^{name} is a norm of all networks' gradients"):
            deep_ensemble(num_networks=2).compile(optimizer, loss=LOGITS)
        deep_ensemble(num_networks=1).compile(keras.optimizers.SGD(**{name: 1.0}), loss=LOGITS)

    @pytest.mark.parametrize("name", ["Adafactor", "Lamb", "Muon"])
    def test_optimizers_that_mix_the_weights_of_a_variable_are_an_error(self, name):
        optimizer = getattr(keras.optimizers, name)
        with pytest.raises(ValueError, match=f"^{name} computes norms or means of a variable"):
            deep_ensemble(num_networks=2).compile(optimizer(), loss=LOGITS)
        deep_ensemble(num_networks=1).compile(optimizer(), loss=LOGITS)
        inside = keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(optimizer()))
        with pytest.raises(ValueError, match=f"^{name} computes norms or means of a variable"):
            deep_ensemble(num_networks=2).compile(inside, loss=LOGITS)

    @pytest.mark.usefixtures("eager_fits")
    def test_a_prior_acts_as_it_would_on_one_network(self, blobs):
        x, y = blobs
        four, one = (deep_ensemble(num_networks=n, prior_scale=0.5, lam=9.0) for n in (4, 1))
        for sampler, share in ((four, 96), (one, 24)):
            sampler.compile(optimizer=keras.optimizers.SGD(1e-3), loss=LOGITS)
            start = sampler.sample(1).theta()[0]
            for _ in range(4):
                sampler.train_on_batch(x[:share], y[:share])
        assert np.abs(one.sample(1).theta()[0] - start).max() > 1e-3
        np.testing.assert_allclose(
            four.sample(4).theta()[0], one.sample(1).theta()[0], rtol=1e-4, atol=1e-6
        )

    def test_samples_are_its_networks_in_the_gauge(self):
        sampler = deep_ensemble()
        all_networks = sampler.sample(12).theta()
        plain = deep_ensemble(gauge=False).sample(12).theta()
        assert np.abs(all_networks - plain).max() > 0.1
        three = sampler.sample(3, seed=4).theta()
        indices = [np.flatnonzero(np.abs(all_networks - row).max(1) < 1e-6) for row in three]
        assert all(len(index) == 1 for index in indices)
        indices = np.concatenate(indices)
        assert (np.diff(indices) > 0).all()
        x = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
        np.testing.assert_allclose(
            sampler.sample(12).outputs(x),
            deep_ensemble(gauge=False).sample(12).outputs(x),
            rtol=1e-4,
            atol=1e-5,
        )

    def test_it_is_finite(self, blobs):
        with pytest.raises(ValueError, match="Cannot sample 13 networks: this sampler holds 12"):
            deep_ensemble().sample(13)
        sampler = deep_ensemble(num_networks=1)
        assert sampler.predict(blobs[0]).shape == (96, 3)

    def test_initial_weights_are_those_of_the_model_or_as_given(self):
        init = keras.initializers
        model = keras.Sequential(
            [
                keras.Input((2,)),
                keras.layers.Dense(300, kernel_initializer=init.RandomNormal(stddev=3.0)),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(3),
            ]
        )
        kernel, bias, gamma, *_ = deep_ensemble(model, gauge=False).sample(12).weights.trainable
        np.testing.assert_allclose(np.std(kernel), 3.0, rtol=0.05)
        assert np.abs(kernel[0] - kernel[1]).max() > 1
        np.testing.assert_array_equal(bias, 0)
        np.testing.assert_array_equal(gamma, 1)
        given = {"kernel": init.TruncatedNormal(stddev=0.1), "bias": init.Constant(0.1)}
        sampler = deep_ensemble(model, gauge=False, initializers=given)
        kernel, bias, gamma, *_ = sampler.sample(12).weights.trainable
        np.testing.assert_allclose(np.std(kernel), 0.088, rtol=0.05)  # 0.1, cut at 2 of these
        np.testing.assert_array_equal(bias, np.float32(0.1))
        np.testing.assert_array_equal(gamma, 1)
        with pytest.raises(ValueError, match="no variable named kernels: choose among bias"):
            deep_ensemble(initializers={"kernels": "zeros"})

    def test_a_loss_that_divides_by_all_weights_is_an_error(self):
        loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
        with pytest.raises(ValueError, match="would not train as each alone: use 'sum_over_batch"):
            deep_ensemble().compile("sgd", loss)
        deep_ensemble(num_networks=1).compile("sgd", loss)

    def test_a_network_does_not_depend_on_how_many_there_are(self):
        few, many = deep_ensemble(num_networks=2), deep_ensemble(num_networks=5)
        np.testing.assert_array_equal(few.sample(2).theta(), many.sample(5).theta()[:2])


def test_layers_of_one_shape_start_from_weights_of_their_own():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), keras.layers.Dense(4)])
    sampler = deep_ensemble(model, num_networks=2, gauge=False)
    first, _, second, _ = (one.numpy() for one in sampler.sample(2).weights.trainable)
    assert np.abs(first - second).max() > 0.1
