"""Bayesian hypernetworks: norms, flow and evidence lower bound against closed forms."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, bhn, classifier

import hypernet_tf as hn
from hypernet_tf.samplers.bhn import FlowStep
from hypernet_tf.samplers.mnf.flows import flow

layers = keras.layers


def randomised(layer, scale=0.5):
    """Every trainable variable somewhere else than at its start."""
    rng = np.random.default_rng(0)
    for variable in layer.trainable_variables:
        variable.assign(variable + scale * rng.normal(size=variable.shape))
    return layer


def image_model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, depth_multiplier=2, activation="tanh"),
            layers.Flatten(),
            layers.Dense(3, use_bias=False),
        ]
    )


class TestFlowStep:
    @pytest.mark.parametrize("kind", ["realnvp", "iaf"])
    @pytest.mark.parametrize("is_reversed", [False, True])
    def test_each_entry_depends_on_those_before_it(self, kind, is_reversed):
        step = FlowStep(32, kind=kind, is_reversed=is_reversed)
        step.build((None, 5))
        randomised(step)
        x = tf.constant(np.random.default_rng(1).normal(size=(1, 5)), tf.float32)
        with tf.GradientTape() as tape:
            tape.watch(x)
            shift, log_scale = step(x)
            outputs = tf.exp(log_scale) * x + shift
        reads = np.abs(tape.jacobian(outputs, x)[0, :, 0].numpy()) > 1e-9
        half = np.array([[1, 0, 0, 0, 0]] * 3 + [[1, 1, 1, 0, 0]] * 2, bool)
        half[:3, :3] = half[3:, 3:] = False
        expected = np.eye(5, dtype=bool)
        if kind == "realnvp":
            expected[3:, :3] = True
        else:
            expected |= np.tri(5, dtype=bool)
        if is_reversed:
            expected = np.eye(5, dtype=bool) | (
                ~np.tri(5, dtype=bool) if kind == "iaf" else np.zeros((5, 5), bool)
            )
            if kind == "realnvp":
                expected[:3, 3:] = True
        np.testing.assert_array_equal(reads, expected)

    @pytest.mark.parametrize("kind", ["realnvp", "iaf"])
    def test_the_log_determinant_is_that_of_the_jacobian(self, kind):
        steps = [FlowStep(16, kind=kind, is_reversed=n % 2 == 1, seed=n) for n in range(3)]
        x = tf.constant(np.random.default_rng(1).normal(size=(1, 6)), tf.float32)
        for step in steps:
            step.build((None, 6))
        np.testing.assert_allclose(flow(steps).forward(x), x, atol=1e-6)  # the identity at first
        for step in steps:
            randomised(step)
        with tf.GradientTape() as tape:
            tape.watch(x)
            outputs = flow(steps).forward(x)
        jacobian = tape.jacobian(outputs, x)[0, :, 0]
        log_det = flow(steps).forward_log_det_jacobian(x)
        np.testing.assert_allclose(log_det[0], np.linalg.slogdet(jacobian)[1], atol=1e-4)
        assert abs(log_det[0]) > 0.1
        np.testing.assert_allclose(flow(steps).inverse(outputs), x, atol=1e-4)


@pytest.mark.usefixtures("eager_fits")
class TestWeights:
    def test_norms_of_filters_come_from_the_flow_and_directions_are_trained(self):
        sampler = randomised(hn.BHN(image_model(), num_data=10, hidden=8, gauge=False))
        assert sampler.latent_dim == 4 + 8 + 3
        z = sampler.sample_latent(5)
        norms = sampler.norms(z)[0].numpy()
        conv, bias, gamma, beta, depthwise, depth_bias, dense = (
            w.numpy() for w in sampler.sample(5).weights.trainable
        )
        size = functools.partial(np.linalg.norm, axis=1)
        for kernel, part in (
            (conv.reshape(5, -1, 4), norms[:, :4]),
            (depthwise.reshape(5, -1, 8), norms[:, 4:12]),
            (dense, norms[:, 12:]),
        ):
            np.testing.assert_allclose(size(kernel), np.abs(part), rtol=1e-4)
            directions = kernel / part[:, None]
            np.testing.assert_allclose(directions, directions[:1].repeat(5, 0), atol=1e-5)
        for constant in (bias, gamma, beta, depth_bias):
            np.testing.assert_array_equal(constant, constant[:1].repeat(5, 0))
        assert np.ptp(norms, axis=0).min() > 0.01

    def test_the_start_is_the_model_s_own(self):
        kernels = hn.BHN(classifier(), num_data=10, gauge=False).theta
        sampler = hn.BHN(classifier(), num_data=10, gauge=False)
        networks = sampler.weights_of(tf.zeros([1, sampler.latent_dim])).trainable
        for weights, variable in zip(networks, kernels, strict=True):
            np.testing.assert_allclose(weights, variable, rtol=1e-5)

    def test_layers_depend_on_each_other(self):
        sampler = randomised(bhn())
        norms = sampler.norms(sampler.sample_latent(2000))[0].numpy()
        between = np.corrcoef(norms.T)[:8, 8:]
        assert np.abs(between).max() > 0.2


class TestInitialization:
    @pytest.mark.parametrize("gauge", [False, True])
    def test_pre_activations_have_mean_0_and_variance_1(self, gauge):
        x = np.random.default_rng(0).normal(3.0, 2.0, size=(200, 8, 8, 2)).astype("float32")
        sampler = hn.BHN(image_model(), num_data=10, gauge=gauge)
        sampler.initialize(x)
        drawn = sampler.generate(tf.zeros([1, sampler.latent_dim]))  # as in training steps
        state = sampler.target.initial_state(1)
        network = sampler.target.to_keras(hn.WeightSet(drawn.trainable, state))
        value = tf.constant(x)
        for layer in network.layers:
            if isinstance(layer, layers.BatchNormalization):
                value = layer(value, training=True)
                continue
            activation = getattr(layer, "activation", None)
            if activation is not None:
                layer.activation = keras.activations.linear
                value = layer(value)
                mean, variance = tf.nn.moments(value, range(value.shape.rank - 1))
                np.testing.assert_allclose(variance, 1, rtol=1e-3)
                if layer.use_bias:
                    np.testing.assert_allclose(mean, 0, atol=1e-3)
                value = activation(value)
            else:
                value = layer(value)

    def test_fit_initialises_once(self, blobs):
        x, y = blobs
        sampler = bhn(gauge=False)
        sampler.compile(optimizer=keras.optimizers.SGD(0.0), loss=LOGITS, run_eagerly=True)
        assert np.abs(sampler.theta[1].numpy()).max() == 0
        sampler.fit(x, y, verbose=0)
        start = [v.numpy() for v in sampler.trainable_variables]
        assert np.abs(sampler.theta[1].numpy()).max() > 1e-3
        sampler.fit(10 * x, y, verbose=0)
        for variable, value in zip(sampler.trainable_variables, start, strict=True):
            np.testing.assert_array_equal(variable, value)
        hidden = x @ sampler.weights_of(tf.zeros([1, sampler.latent_dim])).trainable[0].numpy()[0]
        np.testing.assert_allclose(hidden.std(0), 1, rtol=1e-3)

    @pytest.mark.usefixtures("eager_fits")
    def test_constant_channels_and_a_generator(self, blobs):
        sampler = bhn()
        sampler.initialize(np.ones((20, 2), "float32"))
        assert np.isfinite(sampler.sample(3).theta()).all()
        sampler.compile(optimizer="sgd", loss=LOGITS, run_eagerly=True)
        sampler.fit((blobs for _ in range(2)), steps_per_epoch=2, shuffle=False, verbose=0)


def linear_bhn(precision=2.0):
    """A linear model of one output and one filter, whose flow is affine."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(1)])
    sampler = hn.BHN(
        model, num_data=40, num_steps=0, precision=precision, num_networks=4, gauge=False
    )
    sampler.shift.assign([1.3])
    sampler.log_scale.assign([-0.7])
    return sampler


class TestEvidenceLowerBound:
    def test_of_an_affine_flow_and_a_linear_model_it_is_the_gaussian_one(self):
        """E |y - g v·x - b|² = (y - m v·x - b)² + s² (v·x)², and KL(N(m, s²) || N(0, 1/τ))."""
        sampler = linear_bhn()
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(40, 3)).astype("float32"), rng.normal(size=(40, 1))
        count = 20_000
        drawn = sampler.draw(sampler.sampling_seed(0), count, training=True)
        kernel, bias = drawn.trainable
        outputs = tf.einsum("bi,nio->nb", x, kernel) + bias
        errors = tf.reduce_mean((outputs - y[:, 0]) ** 2, -1).numpy()
        kl = sampler.kl(drawn.z).numpy()
        m, s, precision = 1.3, np.exp(-0.7), 2.0
        v = sampler.theta[0].numpy()[0, :, 0]
        projected = x @ (v / np.linalg.norm(v))
        expected_error = np.mean((y[:, 0] - m * projected) ** 2 + s**2 * projected**2)
        expected_kl = 0.5 * (precision * (s**2 + m**2) - 1 - np.log(precision * s**2))
        for samples, expected in ((errors, expected_error), (kl, expected_kl)):
            error = samples.std() / np.sqrt(count)
            assert abs(samples.mean() - expected) < 4 * error < 0.05 * expected
        loss = sampler.extra_loss(drawn)
        np.testing.assert_allclose(loss, kl.mean() / 40, rtol=1e-5)

    def test_its_minimum_without_data_is_the_prior(self):
        sampler = bhn(precision=4.0, num_steps=2, seed=1)
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.03, 300))
        variables = [sampler.shift, sampler.log_scale]
        variables += [v for step in sampler.steps for v in step.trainable_variables]

        @tf.function
        def step(number):
            z = tf.random.stateless_normal([64, sampler.latent_dim], [1, number])
            with tf.GradientTape() as tape:
                kl = tf.reduce_mean(sampler.kl(z))
            optimizer.apply(tape.gradient(kl, variables), variables)
            return kl

        first, *_, last = [float(step(tf.constant(number))) for number in range(300)]
        assert first > 5
        assert abs(last) < 0.3
        norms = sampler.norms(sampler.sample_latent(4000))[0].numpy()
        np.testing.assert_allclose(norms.mean(0), 0, atol=0.1)
        np.testing.assert_allclose(norms.std(0), 0.5, rtol=0.2)


def test_the_loss_has_the_bound_and_fit_reports_it(blobs):
    sampler = bhn()
    sampler.compile(optimizer="sgd", loss=LOGITS, run_eagerly=True)
    logs = sampler.train_on_batch(*blobs, return_dict=True)
    assert logs["kl_norms"] > 1
    np.testing.assert_allclose(
        logs["loss"] - logs["accuracy_loss"], logs["kl_norms"] / 96, rtol=1e-3
    )


@pytest.mark.parametrize("kind", ["realnvp", "iaf"])
def test_steps_of_the_flow_take_turns(kind):
    sampler = bhn(flow=kind, num_steps=3)
    assert [(s.kind, s.is_reversed) for s in sampler.steps] == [
        (kind, False),
        (kind, True),
        (kind, False),
    ]


def test_seeds_share_no_first_weights_of_the_flow():
    def first(seed):
        return {
            v.numpy().tobytes() for step in bhn(seed=seed).steps for v in step.weights if v.ndim > 1
        }

    assert not first(0) & first(1)


def test_errors():
    with pytest.raises(ValueError, match="Unknown flow='nvp': choose 'realnvp' or 'iaf'"):
        bhn(flow="nvp")
    with pytest.raises(ValueError, match="num_data is 0: give a whole number, at least 1"):
        bhn(num_data=0)
    with pytest.raises(ValueError, match="num_steps is -1"):
        bhn(num_steps=-1)
    with pytest.raises(ValueError, match="precision is 0"):
        bhn(precision=0)
    for hidden in (0, 2.5, "200", (200,)):
        with pytest.raises(ValueError, match=r"^hidden is .*: give a whole number, at least 1"):
            bhn(hidden=hidden)
    model = keras.Sequential([keras.Input((2,)), layers.LayerNormalization()])
    with pytest.raises(ValueError, match="No layer of the target has filters"):
        bhn(model)


def test_images_of_bytes_start_it():
    x = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 2), "uint8")
    biases = []
    for images in (x, x.astype("float32")):
        keras.utils.set_random_seed(0)
        sampler = hn.BHN(image_model(), num_networks=2, num_data=40, hidden=8, num_steps=1)
        sampler.initialize(images)
        biases.append(np.concatenate([one.numpy().ravel() for one in sampler.trainable_variables]))
    np.testing.assert_array_equal(*biases)
    sampler.compile("adam", LOGITS)
    with pytest.raises(ValueError, match="Inputs have shape"):
        sampler.fit(x[..., :1], np.zeros(40))


@pytest.mark.parametrize("is_reversed", [False, True])
def test_every_value_before_changes_a_value_though_hidden_units_are_few(is_reversed):
    """With fewer hidden units than values, too: the last value reads from all parts of the rest."""
    size, hidden = 40, 8
    step = FlowStep(hidden, kind="iaf", is_reversed=is_reversed, dtype="float32")
    step.build((None, size))
    for variable in step.trainable_variables:  # no unit is off, none cancels another
        variable.assign(tf.ones_like(variable))
    x = tf.ones([1, size])
    with tf.GradientTape() as tape:
        tape.watch(x)
        shift, _ = step(x)
        last = shift[0, 0 if is_reversed else -1]
    reads = np.flatnonzero(tape.gradient(last, x)[0].numpy())
    order = size - 1 - reads if is_reversed else reads
    assert order.max() >= size - 2 - size // hidden and len(order) >= size - 1 - size // hidden
