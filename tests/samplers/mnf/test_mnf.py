"""MNFG: its flows, its divergence and its weights against formulas written out in numpy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import hypernet_tf as hn
from hypernet_tf.samplers.mnf.flows import Coupling, flow
from hypernet_tf.samplers.mnf.posteriors import (
    ConvolutionPosterior,
    DensePosterior,
    GaussianPosterior,
)

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def classifier():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((2,)), layers.Dense(8, activation="relu", name="first"), layers.Dense(3)]
    )


def mnf(model=None, **kwargs):
    return hn.MNF(model or classifier(), **{"num_data": 96, "num_networks": 6} | kwargs)


def randomised(layer, seed=0, scale=0.5):
    """Every trainable variable somewhere else than at its start."""
    rng = np.random.default_rng(seed)
    for variable in layer.trainable_variables:
        variable.assign(scale * rng.normal(size=variable.shape))
    return layer


def built(kind, shapes, **kwargs):
    posterior = kind(shapes, **kwargs)
    posterior.build()
    return posterior


def normals(count, size, seed=0):
    return np.random.default_rng(seed).normal(size=(count, size)).astype("float32")


def numpy_flow(steps, z):
    """z' and log |dz'/dz| of one vector, as the paper writes them (eq. 9 and 10)."""
    log_det = 0.0
    for step in steps:
        m = step.mask.numpy()
        dense = {
            name: [v.numpy().astype("float64") for v in getattr(step, name).weights]
            for name in ("hidden", "mu", "gate")
        }
        h = np.tanh((m * z) @ dense["hidden"][0] + dense["hidden"][1])
        mu = h @ dense["mu"][0] + dense["mu"][1]
        gate = 1 / (1 + np.exp(-(h @ dense["gate"][0] + dense["gate"][1])))
        z = m * z + (1 - m) * (z * gate + (1 - gate) * mu)
        log_det += ((1 - m) * np.log(gate)).sum()
    return z, log_det


def log_normal(x, mean, variance):
    return (-0.5 * (np.log(2 * np.pi * variance) + (x - mean) ** 2 / variance)).sum()


class TestFlow:
    def steps(self, size=5):
        steps = [Coupling(7, seed=(3, place), dtype="float64") for place in range(2)]
        for place, step in enumerate(steps):
            step.build((None, size))
            randomised(step, place, scale=1.0)
        return steps

    def test_it_is_the_published_formula(self):
        steps, z = self.steps(), normals(4, 5).astype("float64")
        bijector = flow(steps)
        moved, log_det = bijector.forward(z), bijector.forward_log_det_jacobian(z)
        assert np.abs(moved - z).max() > 0.1
        for row in range(4):
            expected, expected_log_det = numpy_flow(steps, z[row])
            np.testing.assert_allclose(moved[row], expected, rtol=1e-6)
            np.testing.assert_allclose(log_det[row], expected_log_det, rtol=1e-6)

    def test_its_log_determinant_is_that_of_the_numerical_jacobian(self):
        steps, z, h = self.steps(), normals(1, 5).astype("float64"), 1e-5
        moved = [flow(steps).forward(z + s * h * np.eye(5)).numpy() for s in (1, -1)]
        jacobian = (moved[0] - moved[1]) / (2 * h)
        expected = np.linalg.slogdet(jacobian)[1]
        assert abs(expected) > 0.1
        log_det = flow(steps).forward_log_det_jacobian(z)
        np.testing.assert_allclose(log_det, [expected], rtol=1e-6)

    def test_its_inverse(self):
        steps, z = self.steps(), normals(3, 5).astype("float64")
        moved = tf.constant(flow(steps).forward(z).numpy())
        np.testing.assert_allclose(flow(steps).inverse(moved), z, atol=1e-9)

    def test_masks_are_coin_flips_of_the_seed_and_gates_start_at_two(self):
        def mask(*seed):
            step = Coupling(3, seed=seed)
            step.build((None, 4000))
            np.testing.assert_array_equal(step.gate.bias, 2)
            return step.mask.numpy()

        first = mask(0, 1)
        assert set(first) == {0, 1}
        np.testing.assert_allclose(first.mean(), 0.5, atol=0.04)  # 5 standard errors
        np.testing.assert_array_equal(first, mask(0, 1))
        np.testing.assert_allclose(np.mean(first == mask(0, 2)), 0.5, atol=0.04)


class TestPosteriors:
    def test_independent_normals(self):
        posterior = randomised(built(GaussianPosterior, [(3, 2), (2,)], initial=["ones"] * 2))
        kl = posterior.kl(normals(4, 8), posterior(normals(4, 8)))
        mean, log_sigma = (
            np.concatenate([v.numpy().ravel() for v in part])
            for part in (posterior.means, posterior.log_sigmas)
        )
        tfd = tfp.distributions
        q = tfd.MultivariateNormalDiag(mean, np.exp(log_sigma))
        prior = tfd.MultivariateNormalDiag(np.zeros(8, "float32"), np.ones(8, "float32"))
        np.testing.assert_allclose(kl, [tfd.kl_divergence(q, prior)] * 4, rtol=1e-5)

    @pytest.mark.parametrize(
        ("kind", "shapes"),
        [(DensePosterior, [(4, 3), (3,)]), (ConvolutionPosterior, [(2, 2, 1, 5), (5,)])],
    )
    def test_the_whole_divergence(self, kind, shapes):
        """log q(W|z) + log q(z) - log p(W) - log r(z|W), W's share averaged by its formula."""
        posterior = randomised(built(kind, shapes, prior=0.7), scale=0.3)
        x = normals(3, posterior.normals)
        kl = posterior.kl(x, posterior(x))
        weights = [w.numpy().astype("float64") for w in posterior(x)]
        c, b1, b2, m, log_v = (
            getattr(posterior, name).numpy().astype("float64")
            for name in ("c", "b1", "b2", "z_mean", "z_log_variance")
        )
        for n in range(3):
            z0 = m + np.exp(log_v / 2) * x[n, : len(m)]
            z, log_det = numpy_flow(posterior.flow_q, z0)
            log_q = log_normal(z0, m, np.exp(log_v)) - log_det
            kernel = weights[0][n]
            if kind is DensePosterior:
                a = [np.tanh(sum(c[i] * kernel[i, j] for i in range(4))) for j in range(3)]
                factors = [z[:, None], 1.0]
            else:
                a = [kernel[i, j, 0] @ c for i in range(2) for j in range(2)]
                factors = [z, z]
            end, log_det_r = numpy_flow(posterior.flow_r, z)
            mean_r = np.mean([value * b1 for value in a], axis=0)
            log_variance_r = np.mean([value * b2 for value in a], axis=0)
            log_r = log_normal(end, mean_r, np.exp(log_variance_r)) + log_det_r
            of_weights = 0.0
            parts = zip(posterior.means, posterior.log_sigmas, factors, strict=True)
            for mean, log_sigma, factor in parts:
                mu, sigma = mean.numpy() * factor, np.exp(log_sigma.numpy())
                each = np.log(0.7 / sigma) + (sigma**2 + mu**2) / (2 * 0.7**2) - 0.5
                of_weights += each.sum()
            np.testing.assert_allclose(kl[n], of_weights + log_q - log_r, rtol=1e-5)

    @pytest.mark.parametrize(
        ("kind", "shapes"),
        [(DensePosterior, [(4, 3), (3,)]), (ConvolutionPosterior, [(2, 2, 1, 5), (5,)])],
    )
    def test_mean_and_variance_of_the_weights(self, kind, shapes):
        posterior = randomised(built(kind, shapes))
        for step in posterior.flow_q:
            step.gate.bias.assign(30.0 * tf.ones_like(step.gate.bias))  # open: z is z0
        n, count = posterior.auxiliary, 20_000
        x = normals(count, posterior.normals)
        x[:, :n] = x[0, :n]  # one z
        z = posterior.z_mean + np.exp(0.5 * posterior.z_log_variance.numpy()) * x[0, :n]
        kernel, bias = posterior(x)
        if kind is DensePosterior:
            means = [posterior.means[0] * z[:, None], posterior.means[1]]
        else:
            means = [mean * z for mean in posterior.means]
        for sample, mean, log_sigma in zip(
            (kernel, bias), means, posterior.log_sigmas, strict=True
        ):
            sigma = np.exp(log_sigma.numpy())
            standardised = (np.mean(sample, 0) - mean) / (sigma / np.sqrt(count))
            assert np.abs(standardised).max() < 4.5
            np.testing.assert_allclose(np.std(sample, 0), sigma, rtol=0.03)  # 6 standard errors

    @pytest.mark.parametrize(
        ("kind", "shapes", "changed", "bias_changes"),
        [
            (DensePosterior, [(4, 3), (3,)], np.s_[1], False),
            (ConvolutionPosterior, [(2, 2, 2, 4), (4,)], np.s_[..., 1], True),
            (ConvolutionPosterior, [(3, 2, 4)], np.s_[..., 1], False),
        ],
    )
    def test_which_weights_an_entry_of_z_multiplies(self, kind, shapes, changed, bias_changes):
        posterior = randomised(built(kind, shapes))
        for variable in posterior.log_sigmas:
            variable.assign(tf.fill(variable.shape, -30.0))
        z = np.array([[1.0, 1.0, 1.0, 1.0], [1.0, 3.0, 1.0, 1.0]], "float32")
        means = posterior._means_given(tf.constant(z))
        expected = np.ones(shapes[0])
        expected[changed] = 3.0
        np.testing.assert_allclose(means[0][1] / means[0][0], expected, rtol=1e-6)
        for bias in means[1:]:
            ratio = [1, 3, 1, 1] if bias_changes else np.ones(shapes[1])
            np.testing.assert_allclose(bias[1] / bias[0], ratio, rtol=1e-6)

    def test_where_it_starts(self):
        posterior = built(ConvolutionPosterior, [(5, 5, 32, 64), (64,)])
        deviation = np.sqrt(4 / (25 * 32 + 25 * 64))
        kernel, bias = posterior.means
        np.testing.assert_allclose(np.std(kernel.numpy()), deviation, rtol=0.02)
        np.testing.assert_array_equal(bias.numpy(), 0)
        vectors = [v.numpy() for v in (posterior.z_mean, posterior.c, posterior.b1, posterior.b2)]
        for place, vector in enumerate(vectors):
            np.testing.assert_allclose(np.std(vector), deviation, rtol=0.4)
            assert all(np.abs(vector - other).max() > 1e-3 for other in vectors[:place])
        np.testing.assert_allclose(posterior.z_log_variance.numpy(), np.log(0.1), rtol=1e-6)
        for log_sigma in posterior.log_sigmas:
            np.testing.assert_array_equal(log_sigma.numpy(), -9)


class TestMNF:
    def test_the_mnist_target_takes_20858_normals(self):
        sampler = mnf(hn.Target(hn.zoo.mnist(), outputs="logits"))
        multipliers = [32, 16, 784, 8]
        weights = [832, 12_816, 6_280, 90]
        assert [p.auxiliary for p in sampler.posteriors] == multipliers
        assert [p.normals for p in sampler.posteriors] == np.add(multipliers, weights).tolist()
        assert sampler.latent_dim == 20_858
        assert sampler.sample_latent(2).shape == (2, 20_858)

        def step(n, hidden):
            return (n + 1) * hidden + 2 * (hidden + 1) * n

        # means and log sigmas; z0's mean and log variance, c, b1, b2; two flows of two steps
        for posterior, n, size in zip(sampler.posteriors, multipliers, weights, strict=True):
            expected = 2 * size + 5 * n + 2 * step(n, 50) + 2 * step(n, 100)
            assert posterior.count_params() - 4 * n == expected  # four masks
        assert sum(int(np.prod(v.shape)) for v in sampler.trainable_variables) == 808_156

    def test_gradients_reach_every_variable(self):
        layers = keras.layers
        model = keras.Sequential(
            [
                keras.Input((4, 2)),
                layers.Conv1D(12, 2),  # so many that no mask is all one or all zero
                layers.BatchNormalization(),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
        sampler = mnf(model)
        kinds = [ConvolutionPosterior, GaussianPosterior, DensePosterior]
        assert [type(p) for p in sampler.posteriors] == kinds
        randomised(sampler)
        own = tf.constant([0, 1], tf.int64)
        with tf.GradientTape() as tape:
            drawn = sampler.draw(own, 6, training=True)
            weights = hn.WeightSet(drawn.trainable, sampler.target.initial_state(6))
            outputs, _ = sampler.target.run(weights, normals(20, 8).reshape(20, 4, 2))
            objective = tf.reduce_sum(outputs**2) + sampler.extra_loss(drawn)
        variables = sampler.trainable_variables
        gradients = tape.gradient(objective, variables)
        assert [v.path for v, g in zip(variables, gradients, strict=True) if g is None] == []
        zero = [
            v.path
            for v, g in zip(variables, gradients, strict=True)
            if not np.any(tf.convert_to_tensor(g))
        ]
        assert zero == []
        assert all(np.isfinite(tf.convert_to_tensor(g)).all() for g in gradients)

    @pytest.mark.slow
    def test_training_lowers_loss_and_shows_each_layers_divergence(self, blobs):
        sampler = mnf()
        sampler.compile(optimizer=keras.optimizers.Adam(0.02), loss=LOGITS)
        history = sampler.fit(*blobs, batch_size=48, epochs=30, verbose=0).history
        names = ["kl_first", *(name for name in history if name.startswith("kl_dense"))]
        assert len(names) == 2
        assert history["loss"][-1] < 0.8 * history["loss"][0]
        for name in names:
            assert history[name][-1] < history[name][0]
        for epoch in (0, -1):
            kl = sum(history[name][epoch] for name in names)
            expected = history["accuracy_loss"][epoch] + kl / 96
            assert history["loss"][epoch] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.slow
    def test_sigma_stays_at_most_a_half_and_can_leave_it(self):
        sampler = mnf()
        for posterior in sampler.posteriors:
            for log_sigma in posterior.log_sigmas:
                log_sigma.assign(tf.fill(log_sigma.shape, np.float32(np.log(0.499))))
        sampler.compile(optimizer=keras.optimizers.Adam(0.1), loss=LOGITS)
        x, y = normals(60, 2), np.arange(60) % 3
        sampler.train_on_batch(x, y)
        sigma = np.concatenate(
            [np.exp(v.numpy()).ravel() for p in sampler.posteriors for v in p.log_sigmas]
        )
        assert sigma.max() == pytest.approx(0.5, rel=1e-6)
        drawn = sampler.draw(tf.constant([0, 1], tf.int64), 3, training=True)
        with tf.GradientTape() as tape:
            kl = tf.add_n([tf.reduce_sum(k) for k in sampler.kl(drawn)])
        gradient = tape.gradient(kl, sampler.posteriors[0].log_sigmas[0].value)
        assert np.abs(gradient).min() > 0

    def test_theta_is_a_function_of_z_also_when_loaded(self, tmp_path):
        sampler = randomised(mnf(seed=5))
        sampler.save(tmp_path / "mnf.keras")
        sampler.save_weights(tmp_path / "mnf.weights.h5")
        z = sampler.sample_latent(3, seed=2)
        theta = sampler.target.flatten(sampler.weights_of(z))
        np.testing.assert_array_equal(sampler.target.flatten(sampler.weights_of(z)), theta)
        loaded = keras.saving.load_model(tmp_path / "mnf.keras")
        other = mnf(seed=6)
        other.load_weights(tmp_path / "mnf.weights.h5")  # masks too, which its seed made otherwise
        for again in (loaded, other):
            for before, after in zip(sampler.weights, again.weights, strict=True):
                np.testing.assert_array_equal(before.numpy(), after.numpy())
            np.testing.assert_array_equal(again.target.flatten(again.weights_of(z)), theta)
        np.testing.assert_array_equal(loaded.sample_latent(3, seed=2), z)
        masks = [s.mask.numpy() for p in mnf(seed=6).posteriors for s in p.flow_q + p.flow_r]
        ours = [s.mask.numpy() for p in sampler.posteriors for s in p.flow_q + p.flow_r]
        assert any((a != b).any() for a, b in zip(masks, ours, strict=True))

    def test_layers_of_one_name_have_a_metric_each(self):
        def part(size):
            dense = keras.layers.Dense(size, name="dense")
            return keras.Sequential([keras.Input((2,)), dense])

        sampler = mnf(keras.Sequential([keras.Input((2,)), part(2), part(3)]))
        assert [tracker.name for tracker in sampler.kl_trackers] == ["kl_dense", "kl_dense_2"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [({"num_data": 0}, "num_data"), ({"prior_scale": 0.0}, "scale"), ({"lam": -1.0}, "lam")],
    )
    def test_bad_arguments_are_one_line(self, arguments, message):
        with pytest.raises(ValueError, match=message) as error:
            mnf(**arguments)
        assert "\n" not in str(error.value)
