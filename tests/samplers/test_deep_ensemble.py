"""Networks trained in the ordinary way, and noise around one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, deep_ensemble, fitted, noise_control

import hypernet_tf as hn


class TestDeepEnsemble:
    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_it_is_ordinary_training_of_each_network(self, blobs, optimizer):
        x, y = blobs
        sampler = deep_ensemble(num_networks=4, gauge=False)
        networks = [member.to_keras() for member in sampler.sample(4)]
        sampler.compile(optimizer=optimizer, loss=LOGITS)
        for network in networks:
            network.compile(optimizer=optimizer, loss=LOGITS)
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

    def test_a_prior_acts_as_it_would_on_one_network(self, blobs):
        x, y = blobs
        several, alone = (deep_ensemble(num_networks=n, prior_scale=0.5, lam=9.0) for n in (4, 1))
        for sampler, share in ((several, 96), (alone, 24)):
            sampler.compile(optimizer=keras.optimizers.SGD(1e-3), loss=LOGITS)
            start = sampler.sample(1).theta()[0]
            for _ in range(4):
                sampler.train_on_batch(x[:share], y[:share])
        assert np.abs(alone.sample(1).theta()[0] - start).max() > 1e-3
        np.testing.assert_allclose(
            several.sample(4).theta()[0], alone.sample(1).theta()[0], rtol=1e-4, atol=1e-6
        )

    def test_samples_are_its_networks_in_the_gauge(self):
        sampler = deep_ensemble()
        every, plain = sampler.sample(12).theta(), deep_ensemble(gauge=False).sample(12).theta()
        assert np.abs(every - plain).max() > 0.1
        some = sampler.sample(3, seed=4).theta()
        places = [np.flatnonzero(np.abs(every - row).max(1) < 1e-6).tolist() for row in some]
        assert all(len(place) == 1 for place in places)
        assert places == sorted(places)
        assert len({place[0] for place in places}) == 3
        x = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
        np.testing.assert_allclose(
            sampler.sample(12).outputs(x),
            deep_ensemble(gauge=False).sample(12).outputs(x),
            rtol=1e-4,
            atol=1e-5,
        )

    def test_it_is_finite(self, blobs):
        with pytest.raises(ValueError, match="has 12 networks: 13 are not to be had"):
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
        with pytest.raises(ValueError, match="no variable named kernels; its variables are"):
            deep_ensemble(initializers={"kernels": "zeros"})

    def test_a_network_does_not_depend_on_how_many_there_are(self):
        few, many = deep_ensemble(num_networks=2), deep_ensemble(num_networks=5)
        np.testing.assert_array_equal(few.sample(2).theta(), many.sample(5).theta()[:2])


class TestNoiseControl:
    def test_samples_are_noise_around_the_trained_network(self, blobs):
        sampler, _ = fitted(lambda: noise_control(gauge=False, scale=0.3), *blobs)
        theta = sampler.sample(4000).theta()
        trained = np.concatenate([v.numpy().ravel() for v in sampler.theta])
        np.testing.assert_allclose(theta.mean(0), trained, atol=0.03)
        np.testing.assert_allclose(theta.std(0), 0.3, rtol=0.06)
        gauged, _ = fitted(noise_control, *blobs)
        centre = hn.DeepEnsemble(gauged.target, num_networks=1)
        for own, value in zip(centre.theta, gauged.theta, strict=True):
            own.assign(value)
        # In the gauge too, and at any scale, what is added is isotropic.
        for scale in (1e-6, 3.0):
            gauged.scale.assign(scale)
            expected = centre.sample(1).theta() + scale * gauged.sample_latent(5).numpy()
            np.testing.assert_allclose(gauged.sample(5).theta(), expected, rtol=1e-5, atol=1e-5)
            of_z = gauged.target.flatten(gauged.weights_of(gauged.sample_latent(5)))
            np.testing.assert_allclose(of_z, expected, rtol=1e-5, atol=1e-5)

    def test_matched_networks_are_as_far_apart(self, blobs):
        other = deep_ensemble(num_networks=12).sample(12)
        sampler, _ = fitted(noise_control, *blobs)
        scale = sampler.match(other)
        assert scale == float(sampler.scale.numpy()) != pytest.approx(0.05, rel=0.1)

        def distance(ensemble):
            near = hn.diversity.nearest_neighbour_distances(tf.constant(ensemble.theta()))
            return float(np.log(near).mean())

        np.testing.assert_allclose(distance(sampler.sample(12)), distance(other), atol=1e-4)

    def test_what_cannot_be_matched_is_refused_and_changes_nothing(self):
        sampler = noise_control(scale=0.05)
        same = deep_ensemble(num_networks=2)
        for weights in same.theta:
            weights.assign(tf.repeat(weights[:1], 2, 0))
        large = keras.Sequential([keras.Input((2,)), keras.layers.Dense(9)])
        for ensemble, words in (
            (same.sample(2), "no noise makes networks as far apart"),
            (same.sample(1), "one network has no distance"),
            (deep_ensemble(large).sample(2), "of another target"),
        ):
            with pytest.raises(ValueError, match=words):
                sampler.match(ensemble)
        assert float(sampler.scale.numpy()) == pytest.approx(0.05)
        with pytest.raises(ValueError, match="positive number, not 0"):
            noise_control(scale=0)
