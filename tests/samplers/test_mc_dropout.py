"""Monte Carlo dropout: its networks against Keras's own dropout under the same masks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, classifier, mc_dropout

import hypernet_tf as hn
from hypernet_tf.samplers.mc_dropout import NetworkDropout, read_dropout

pytestmark = pytest.mark.usefixtures("eager_fits")

layers = keras.layers


def sequential(shape, *operations):
    return keras.Sequential([keras.Input(shape), *operations])


def image_model():
    """Masks on channels, on flattened pixels and on a vector; and two that no kernel can have."""
    return sequential(
        (8, 8, 3),
        layers.Conv2D(4, 3, activation="relu"),
        layers.SpatialDropout2D(0.4),
        layers.Conv2D(5, 2, activation="relu"),
        layers.Dropout(0.3),  # before pooling
        layers.MaxPooling2D(),
        layers.SpatialDropout2D(0.25),
        layers.Flatten(),
        layers.Dense(20, activation="relu"),
        layers.Dropout(0.5),
        layers.Dense(3),
        layers.Dropout(0.2),  # of the outputs
    )


def rng_images(count=7):
    return np.random.default_rng(0).normal(size=(count, 8, 8, 3)).astype("float32")


def kept_inputs(kernel, trained):
    """Which factor each input of a kernel [..., inputs, filters] has, as the kernel shows it."""
    ratio = np.where(trained == 0, np.nan, kernel / trained)
    return np.nanmean(ratio, axis=(*range(ratio.ndim - 2), -1))


@pytest.fixture(scope="module")
def sampler():
    keras.utils.set_random_seed(3)
    return hn.MCDropout(image_model(), num_data=10, num_networks=4, gauge=False)


class TestNetworks:
    def test_they_equal_the_keras_model_with_the_same_masks(self, sampler):
        x = rng_images()
        networks = sampler.sample(4)
        trained = [variable.numpy()[0] for variable in sampler.theta]
        for number, outputs in enumerate(networks.outputs(x)):
            kernels = [w[number].numpy() for w in networks.weights.trainable]
            seeds = [state[number].numpy() for state in networks.weights.state]
            spatial = kept_inputs(kernels[2], trained[2])
            pixels = kept_inputs(kernels[4], trained[4]).reshape(2, 2, 5)
            vector = kept_inputs(kernels[6], trained[6])
            for factors, rate in ((spatial, 0.4), (pixels, 0.25), (vector, 0.5)):
                assert set(np.unique(factors.round(5))) <= {0, np.float32(1 / (1 - rate)).round(5)}
            np.testing.assert_allclose(
                pixels, np.broadcast_to(pixels[0, 0], pixels.shape), rtol=1e-5
            )
            others = []
            for seed, rate, shape in zip(seeds, (0.3, 0.2), ((5, 5, 5), (3,)), strict=True):
                keras_layer = layers.Dropout(rate, noise_shape=(1, *shape))
                keras_layer.seed_generator.state.assign(seed)
                others.append(keras_layer(np.ones((1, *shape)), training=True)[0].numpy())
            factors = (spatial, others[0], pixels, vector, others[1])
            model = image_model()
            for variable, value in zip(model.trainable_variables, trained, strict=True):
                variable.assign(value)
            expected = x
            queue = iter(factors)
            for layer in model.layers:
                is_dropout = isinstance(layer, layers.Dropout)
                expected = expected * next(queue) if is_dropout else layer(expected)
            np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)

    def test_a_network_as_a_keras_model_keeps_its_masks(self, sampler, tmp_path):
        x = rng_images()
        network = sampler.sample(2)[1].to_keras()
        outputs = sampler.sample(2).outputs(x)[1]
        assert np.abs(outputs).max() > 0.1
        for training in (False, True, False):
            np.testing.assert_allclose(network(x, training=training), outputs, rtol=1e-5, atol=1e-6)
        network.save(tmp_path / "network.keras")
        loaded = keras.saving.load_model(tmp_path / "network.keras")
        np.testing.assert_allclose(loaded(x), outputs, rtol=1e-5, atol=1e-6)

    def test_members_differ_and_the_rates_are_right(self):
        model = sequential((400,), layers.Dropout(0.3), layers.Dense(2))
        sampler = hn.MCDropout(model, num_data=10, gauge=False)
        kernels = sampler.sample(50).weights.trainable[0].numpy()
        dropped = (kernels == 0).all(-1)  # [50, 400]
        np.testing.assert_allclose(dropped.mean(), 0.3, atol=4 * np.sqrt(0.21 / 20_000))
        assert len(np.unique(dropped, axis=0)) == 50
        share = np.corrcoef(dropped) - np.eye(50)
        assert np.abs(share).max() < 0.25
        np.testing.assert_array_equal(sampler.sample(50).theta(), sampler.sample(50).theta())
        assert (sampler.sample(50, seed=1).weights.trainable[0].numpy() != kernels).any()

    def test_training_steps_run_the_networks_that_are_sampled(self, sampler):
        """In training mode no layer drops anything beside the masks."""
        x = rng_images()
        weights = sampler.sample(3).weights
        outside, inside = (sampler.target(weights, x, training=mode) for mode in (False, True))
        assert np.abs(outside).max() > 0.1
        np.testing.assert_array_equal(outside, inside)

    def test_the_gauge_changes_no_function(self):
        x = rng_images()
        keras.utils.set_random_seed(3)
        gauged = hn.MCDropout(image_model(), num_data=10)
        keras.utils.set_random_seed(3)
        outputs = hn.MCDropout(image_model(), num_data=10, gauge=False).sample(3).outputs(x)
        np.testing.assert_allclose(gauged.sample(3).outputs(x), outputs, rtol=1e-3, atol=1e-5)


class TestWhereMasksAct:
    def test_rates_of_layers(self):
        model = sequential(
            (5, 5, 3), layers.Conv2D(4, 2, name="a"), layers.Flatten(), layers.Dense(2, name="b")
        )
        sampler = hn.MCDropout(model, num_data=10, rates={"a": 0.5, "b": 0.1}, gauge=False)
        first, _, last, _ = (w.numpy() for w in sampler.sample(100).weights.trainable)
        channels = (first == 0).all(axis=(1, 2, 4))  # [N, C]
        assert 0.35 < channels.mean() < 0.65
        assert 0.05 < (last == 0).all(-1).mean() < 0.15
        kept = first[~channels.any(1)][0]
        np.testing.assert_allclose(kept, 2 * sampler.theta[0].numpy()[0], rtol=1e-6)

    def test_a_rate_is_a_mask_beside_that_of_the_model(self):
        model = sequential((300,), layers.Dropout(0.5), layers.Dense(2, name="last"))
        sampler = hn.MCDropout(model, num_data=10, rates={"last": 0.5}, gauge=False)
        kernels = sampler.sample(20).weights.trainable[0].numpy()
        np.testing.assert_allclose((kernels != 0).any(-1).mean(), 0.25, atol=0.03)
        assert np.abs(kernels).max() > 3.9 * np.abs(sampler.theta[0].numpy()).max()

    @pytest.mark.parametrize(
        ("make", "on_kernels"),
        [
            (lambda x: layers.Dense(2)(layers.Dropout(0.5)(x)), False),  # [B, T, features]
            (lambda x: layers.Dense(2)(layers.SpatialDropout1D(0.5)(x)), True),
            (lambda x: layers.Dense(2)(layers.Dropout(0.5, noise_shape=(None, 1, 4))(x)), True),
            (lambda x: layers.Dense(2)(layers.Flatten()(layers.Dropout(0.5)(x))), True),
            (lambda x: layers.Add()([x, layers.Dropout(0.5)(x)]), False),
            (lambda x: layers.Conv1D(2, 2)(layers.SpatialDropout1D(0.5)(x)), True),
            (lambda x: layers.Conv1D(2, 2, groups=2)(layers.SpatialDropout1D(0.5)(x)), False),
        ],
    )
    def test_on_a_kernel_or_as_a_layer(self, make, on_kernels):
        inputs = keras.Input((6, 4))
        outputs = make(layers.Dense(4)(inputs))
        target = hn.Target(keras.Model(inputs, outputs))
        masks, replacements = read_dropout(target, {})
        [(_, new)] = replacements
        assert [isinstance(new, NetworkDropout), len(masks)] == [not on_kernels, on_kernels]

    def test_masks_that_are_no_weights_are_lost_by_what_reads_weights_alone(self):
        grouped = layers.Conv1D(4, 2, groups=2)
        model = sequential((6, 4), layers.Dropout(0.5), grouped, layers.Flatten())
        ensemble = hn.MCDropout(hn.Target(model, outputs="values"), num_data=10).sample(4)
        control = hn.NoiseControl(ensemble.target)
        x = np.zeros([5, 6, 4], "float32")
        for what, use in (
            ("average", ensemble.polyak_average),
            ("make a student like", lambda: hn.distill(ensemble, x, epochs=1)),
            ("draw lines between", lambda: hn.analysis.direct_path(ensemble, ensemble, 3)),
            ("match", lambda: control.match(ensemble)),
        ):
            words = f"^Cannot {what} networks that differ in dropout masks which are not part"
            with pytest.raises(ValueError, match=words):
                use()

    def test_a_layer_that_is_called_at_two_widths(self):
        inputs, dropout = keras.Input((6,)), layers.Dropout(0.5)
        hidden = dropout(layers.Dense(20, activation="relu")(inputs))
        outputs = dropout(layers.Dense(10, activation="relu")(hidden))
        model = keras.Model(inputs, layers.Dense(3)(outputs))
        sampler = hn.MCDropout(model, num_data=10)
        x = np.random.default_rng(0).normal(size=(4, 6)).astype("float32")
        ensemble = sampler.sample(3)
        assert np.ptp(ensemble.outputs(x), 0).max() > 1e-3
        np.testing.assert_allclose(
            ensemble[1].to_keras()(x), ensemble.outputs(x)[1], rtol=1e-4, atol=1e-5
        )

    def test_two_readers_have_the_same_mask_and_nested_models_work(self):
        inputs = keras.Input((50,))
        x = layers.Dropout(0.5)(inputs)
        branches = [layers.Dense(3)(x), layers.Dense(3)(x)]
        nested = keras.Model(inputs, layers.Add()(branches))
        outer = keras.Input((50,))
        sampler = hn.MCDropout(keras.Model(outer, nested(outer)), num_data=10, gauge=False)
        first, _, second, _ = (w.numpy() for w in sampler.sample(5).weights.trainable)
        assert (first == 0).any()
        np.testing.assert_array_equal(first == 0, second == 0)
        assert not sampler.target.initial_state(5)  # no seeds are left


def test_steps_and_evaluations_have_the_prior():
    """Without the accuracy loss, a step shortens the weights by a factor."""
    model = sequential((4,), layers.Dropout(0.25), layers.Dense(3))
    options = {"num_data": 10, "length_scale": 3.0, "precision": 2.0, "gauge": False}
    sampler = hn.MCDropout(model, num_networks=2, **options)
    sampler.compile(keras.optimizers.SGD(0.1), LOGITS, run_eagerly=True)
    sampler.lam.assign(0.0)
    kernel, bias = sampler.theta
    bias.assign(tf.ones_like(bias))
    before = [variable.numpy() for variable in sampler.theta]
    x, y = np.ones([4, 4], "float32"), np.array([0, 1, 2, 0])
    factor = 3.0**2 / (2 * 2.0 * 10)
    expected = factor * (0.75 * (before[0] ** 2).sum() + (before[1] ** 2).sum())
    assert sampler.evaluate(x, y, verbose=0, return_dict=True)["loss"] == pytest.approx(expected)
    sampler.train_on_batch(x, y)
    np.testing.assert_allclose(kernel, before[0] * (1 - 0.1 * 2 * 0.75 * factor), rtol=1e-5)
    np.testing.assert_allclose(bias, before[1] * (1 - 0.1 * 2 * factor), rtol=1e-5)


def test_the_loss_has_the_prior_of_the_paper(blobs):
    """eq. 7: p · l² / (2 · precision · |data|) for kernels, with p = 1 for what has no mask."""
    sampler = mc_dropout(length_scale=3.0, precision=2.0, num_data=50)
    kernel, bias, last, last_bias = (np.sum(v.numpy() ** 2) for v in sampler.theta)
    expected = 9 / (2 * 2 * 50) * (kernel + bias + 0.95 * last + last_bias)
    sampler.compile(optimizer="sgd", loss=LOGITS, run_eagerly=True)
    logs = sampler.train_on_batch(*blobs, return_dict=True)
    np.testing.assert_allclose(logs["loss"] - logs["accuracy_loss"], expected, rtol=1e-4)
    assert expected > 0.1


@pytest.mark.usefixtures("eager_fits")
def test_a_step_is_that_of_ordinary_training_under_the_masks(blobs):
    x, y = blobs
    sampler = mc_dropout(num_networks=3, length_scale=0.0, gauge=False)
    sampler.compile(optimizer=keras.optimizers.SGD(0.5), loss=LOGITS)
    seed = hn.samplers.draws.stream_seed(0, hn.samplers.draws.TRAIN, 0)
    networks = sampler.draw(seed, 3, training=True).trainable
    trained = [tf.Variable(v.value[0]) for v in sampler.theta]
    with tf.GradientTape() as tape:
        losses = []
        for number in range(3):
            factors = networks[2][number] / trained[2]
            hidden = tf.nn.relu(x[32 * number : 32 * number + 32] @ trained[0] + trained[1])
            logits = hidden @ (tf.stop_gradient(factors) * trained[2]) + trained[3]
            losses.append(LOGITS(y[32 * number : 32 * number + 32], logits))
        loss = tf.add_n(losses) / 3
    expected = [v - 0.5 * g for v, g in zip(trained, tape.gradient(loss, trained), strict=True)]
    sampler.train_on_batch(x, y)
    assert np.abs(sampler.theta[2].numpy()[0] - trained[2].numpy()).max() > 0.01
    for variable, value in zip(sampler.theta, expected, strict=True):
        np.testing.assert_allclose(variable.numpy()[0], value, rtol=1e-4, atol=1e-6)


def test_saved_with_its_dropout_layers(tmp_path):
    sampler = hn.MCDropout(image_model(), num_data=10, num_networks=2)
    sampler.compile(optimizer="sgd", loss=LOGITS)
    sampler.save(tmp_path / "sampler.keras")
    loaded = keras.saving.load_model(tmp_path / "sampler.keras")
    x = rng_images()
    np.testing.assert_array_equal(loaded.sample(3).outputs(x), sampler.sample(3).outputs(x))
    ensemble = sampler.sample(3)
    ensemble.save(tmp_path / "ensemble.npz")
    again = hn.Ensemble.load(tmp_path / "ensemble.npz")
    np.testing.assert_array_equal(again.outputs(x), ensemble.outputs(x))


def test_errors():
    with pytest.raises(ValueError, match=r"The target has no dropout: add .* or give the rates"):
        hn.MCDropout(classifier(), num_data=10)
    with pytest.raises(ValueError, match="no dropout"):
        hn.MCDropout(classifier(layers.Dropout(0.0)), num_data=10)
    with pytest.raises(ValueError, match=r"rates has 'dens', which is not a layer .* choose among"):
        mc_dropout(rates={"dens": 0.5})
    with pytest.raises(ValueError, match=r"rate of '\w+' is 1: give a number from 0 to below 1"):
        model = classifier()
        hn.MCDropout(model, num_data=10, rates={model.layers[-1].name: 1})
    with pytest.raises(ValueError, match="num_data is 0: give a whole number, at least 1"):
        mc_dropout(num_data=0)
    assert mc_dropout(num_data=np.int64(50)).num_data == 50
    with pytest.raises(ValueError, match="length_scale is -1"):
        mc_dropout(length_scale=-1)
    with pytest.raises(ValueError, match="length_scale is '1'"):
        mc_dropout(length_scale="1")
    with pytest.raises(ValueError, match="precision is 0"):
        mc_dropout(precision=0)
    with pytest.raises(ValueError, match=r"^rates is 0\.5: give a dict of layers' names"):
        mc_dropout(rates=0.5)
    with pytest.raises(ValueError, match=r"rate of '\w+' is None: give a number"):
        model = classifier()
        hn.MCDropout(model, num_data=10, rates={model.layers[-1].name: None})


@keras.saving.register_keras_serializable(package="test_mc_dropout")
class Block(layers.Layer):
    """A layer of one's own with dropout inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = layers.Dropout(0.5)

    def call(self, inputs):
        return self.dropout(inputs)


@keras.saving.register_keras_serializable(package="test_mc_dropout")
class Mine(layers.Dropout):
    """Dropout of one's own."""


@pytest.mark.parametrize(
    "layer",
    [
        Block(),
        Mine(0.5),
        layers.GaussianDropout(0.5),
        layers.AlphaDropout(0.5),
        layers.MultiHeadAttention(2, 3, dropout=0.5),
        layers.LSTM(3, dropout=0.5, return_sequences=True),
        layers.Bidirectional(layers.GRU(3, recurrent_dropout=0.5, return_sequences=True)),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_other_kinds_of_dropout_are_an_error(layer):
    inputs = keras.Input((4, 3))
    attends = isinstance(layer, layers.MultiHeadAttention)
    values = layer(inputs, inputs) if attends else layer(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Dropout(0.5)(values)))
    rule = r"^The layer '\w+' \(\w+\) drops numbers in a way"
    with pytest.raises(ValueError, match=rule) as error:
        hn.MCDropout(model, num_data=10)
    assert "\n" not in str(error.value)
