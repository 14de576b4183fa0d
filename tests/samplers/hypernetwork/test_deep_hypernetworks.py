"""Hypernetworks of deep targets: sizes, shared generators, the start, batch normalisation."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf.samplers.hypernetwork.layers import MLP
from reproduce.configs.targets import TARGETS

pytestmark = pytest.mark.usefixtures("eager_fits")

layers = keras.layers


def normalised(x, filters, size=3, strides=1):
    x = layers.Conv2D(
        filters, size, strides=strides, padding="same", kernel_initializer="he_normal"
    )(x)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)


def residual_target():
    """A residual network of two blocks as in ResNet-32, with 4 and 8 filters."""
    images = keras.Input((6, 6, 2))
    x = layers.ReLU()(normalised(images, 4))
    y = normalised(layers.ReLU()(normalised(x, 4)), 4)
    x = layers.ReLU()(layers.Add()([x, y]))
    y = normalised(layers.ReLU()(normalised(x, 8, strides=2)), 8)
    x = layers.ZeroPadding2D(((0, 0), (2, 2)), data_format="channels_first")(
        layers.MaxPooling2D(1, strides=2)(x)
    )
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([x, y])))
    return hn.Target(keras.Model(images, layers.Dense(3)(x)), outputs="logits")


def hypernetwork(**kwargs):
    settings = {
        "latent_dim": 6,
        "latent_distribution": "normal",
        "code_dim": 5,
        "extractor_hidden": (16, 16),
        "generator_hidden": (24, 24),
        "share_generators": True,
        "residual": True,
        "initialization": "model",
        "num_networks": 4,
    }
    return hn.Hypernetwork(residual_target(), **settings | kwargs)


@pytest.fixture(scope="module")
def hyper():
    keras.utils.set_random_seed(0)
    return hypernetwork()


@pytest.fixture(scope="module")
def images():
    x = np.random.default_rng(0).normal(size=(30, 6, 6, 2)).astype("float32")
    x.flags.writeable = False
    return x


def numbers(variables):
    return sum(int(np.prod(v.shape)) for v in variables)


@pytest.mark.parametrize(
    ("name", "extractor", "generators", "rows"),
    [
        (
            "lenet",
            107_200,
            [193_600, 223_600, 323_600, 4_228_800, 503_200],
            [76, 151, 401, 10_164, 850],
        ),
        (
            "resnet32",
            2_935_200,
            [670_400, 764_000, 879_200, 1_109_600, 1_166_400],
            [30, 147, 291, 579, 650],
        ),
    ],
)
def test_the_stated_numbers_of_parameters(name, extractor, generators, rows):
    kind = TARGETS[name]
    hyper = hn.Hypernetwork(hn.Target(kind.make(kind.image_shape, 10)), **kind.hypernetwork)

    def dense(part):
        return numbers(v for v in part.trainable_variables if v.name == "kernel")

    assert dense(hyper.extractor) == extractor
    assert [dense(part) for part in hyper.generators] == generators
    assert [part.outputs for part in hyper.generators] == rows
    assert not hyper.extractor.anchors.trainable


class TestMLP:
    @pytest.mark.parametrize("residual", [False, True])
    @pytest.mark.parametrize("training", [False, True])
    def test_it_is_what_it_says(self, residual, training):
        """By hand: skip connections between hidden layers of one size, and from an input of it."""
        mlp = MLP((5, 5, 4, 4), 3, residual=residual)
        mlp.build((None, None, 5))
        rng = np.random.default_rng(0)
        for variable in mlp.variables:
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        x = expected = rng.normal(size=(6, 7, 5)).astype("float32")
        for dense, _, norm in mlp.blocks:
            h = expected @ dense.kernel.numpy()
            h = np.where(h > 0, h, 0.05 * h)
            mean, variance = norm.moving_mean.numpy(), norm.moving_variance.numpy()
            if training:
                mean, variance = h.mean((0, 1)), h.var((0, 1))
            h = (h - mean) / np.sqrt(variance + 1e-7) * norm.gamma.numpy() + norm.beta.numpy()
            skips = residual and expected.shape[-1] == h.shape[-1]
            expected = expected + h if skips else h
        expected = expected @ mlp.last.kernel.numpy()
        np.testing.assert_allclose(mlp(x, training=training), expected, rtol=1e-4, atol=1e-4)


class TestSharedGenerators:
    def test_units_of_equal_rows_share_one(self, hyper):
        assert [generator.outputs for generator in hyper.generators] == [21, 39, 75, 27]
        # 4 filters of 3 x 3 x 4 weights thrice (once as 8 filters), 8 of 3 x 3 x 8, the dense layer
        assert hyper._unit_groups == [[0], [1, 2, 3], [4], [5]]
        apart = hypernetwork(share_generators=False)
        assert [g.outputs for g in apart.generators] == [21, 39, 39, 39, 75, 27]

    def test_equal_codes_give_equal_filters_in_all_units_that_share(self):
        hyper = hypernetwork()
        hyper.extractor.mlp.last.kernel.assign(tf.zeros_like(hyper.extractor.mlp.last.kernel))
        hyper.extractor.anchors.assign(np.tile(np.arange(5.0), 29))  # 4 + 4 + 4 + 8 + 8 + 1 codes
        rows = hyper.target.rows(hyper.generate(tf.ones([2, 6])).trainable)
        for size, count in ((37, 3), (73, 1)):  # a kernel's part of a filter, and its bias
            units = [np.reshape(r, (-1, size)) for r in rows if r.shape[-1] == size]
            together = np.concatenate(units)
            assert len(units) == count
            # Rows of a matrix product may be rounded in different ways.
            same = np.tile(together[0], (len(together), 1))
            np.testing.assert_allclose(together, same, rtol=2e-6, atol=1e-8)
            assert np.ptp(together[0, :-1]) > 0

    @pytest.mark.parametrize(("unit", "first", "index"), [(1, 4, 2), (3, 12, 7), (4, 20, 0)])
    def test_a_code_makes_its_own_filter_and_no_other(self, unit, first, index):
        hyper = hypernetwork()
        z = hyper.sample_latent(2)
        before = hyper.target.rows(hyper.generate(z).trainable)
        places = hyper.extractor.anchors.numpy().reshape(-1, 5)
        assert len(places) == 29
        places[first + index] += 1.0
        hyper.extractor.anchors.assign(places.reshape(-1))
        after = hyper.target.rows(hyper.generate(z).trainable)
        own = {layer.name for layer in hyper.target.units[unit]}
        for layer, a, b in zip(hyper.target.layers, before, after, strict=True):
            changed = np.abs(np.asarray(a - b)).max((0, 2)) > 0
            kernel = layer.name in own and layer.slots[0].name == "kernel"
            # Of a normalisation, scale and shift start as constants.
            assert np.flatnonzero(changed).tolist() == ([index] if kernel else [])


class TestStart:
    def test_first_weights_are_scattered_as_the_models_own(self, hyper):
        """In training mode, when the hidden layers are normalised.

        A kernel's deviation is that of 24 random weights to each of at least 18 numbers, so that it
        lies within a tenth of the stated one; the skip connection's own correlation adds to it.
        """
        drawn = hyper.generate(hyper.sample_latent(64), training=True)
        expected = {"bias": 0.0, "beta": 0.0, "gamma": 1.0}
        kernels = 0
        for layer in hyper.target.layers:
            for slot in layer.slots:
                values = drawn.trainable[slot.index].numpy()
                if slot.name != "kernel":
                    np.testing.assert_array_equal(values, expected[slot.name])
                    continue
                kernels += 1
                assert values.std() == pytest.approx(slot.moments()[1], rel=0.25)
                assert abs(values.mean()) < 0.25 * values.std()
        assert kernels == 6

    def test_codes_lie_around_the_places_of_their_filters(self, hyper):
        codes = hyper.extractor(hyper.sample_latent(400), training=True)
        places = hyper.extractor.anchors.numpy().reshape(-1, 5)
        np.testing.assert_allclose(places.std(), 1.0, atol=0.25)  # of 145 numbers: 4 errors
        around = np.concatenate(codes, 1) - places
        assert around.std() == pytest.approx(0.05, rel=0.25)  # drawn from few numbers
        assert np.abs(around.mean(0)).max() < 0.1

    def test_networks_are_alike_and_filters_are_not(self, hyper):
        drawn = hyper.generate(hyper.sample_latent(64), training=True)
        kernel = hyper.target.rows(drawn.trainable)[2].numpy()[..., :-1]  # [N, F, 36]
        assert hyper.target.layers[2].slots[0].shape == (3, 3, 4, 4)
        assert kernel.std(0).mean() < 0.5 * kernel.mean(0).std(0).mean()
        published = hypernetwork(initialization="published")
        assert published.extractor.anchors is None
        assert published.generators[0].means is None
        drawn = published.generate(published.sample_latent(64), training=True)
        kernel = published.target.rows(drawn.trainable)[2].numpy()[..., :-1]
        assert kernel.std(0).mean() > 2 * kernel.mean(0).std(0).mean()

    def test_a_layer_of_one_code_lies_around_a_fixed_draw(self, hyper):
        """The dense layer, 8 x 3 weights, has one code for all of them."""
        drawn = hyper.generate(hyper.sample_latent(400), training=True)
        kernel, slot = drawn.trainable[-2].numpy(), hyper.target.layers[-1].slots[0]
        place = hyper.generators[-1].means.numpy()
        np.testing.assert_array_equal(place[24:], 0.0)  # biases
        assert place[:24].std() == pytest.approx(slot.moments()[1], rel=0.5)
        around = kernel.reshape(-1, 24) - place[:24]
        assert around.std() == pytest.approx(0.05 * slot.moments()[1], rel=0.25)
        assert [g.anchored for g in hyper.generators] == [False] * 3 + [True]
        assert not any(g.anchored for g in hypernetwork(initialization="published").generators)

    def test_saved_and_loaded_it_is_the_same(self, tmp_path):
        hyper = hypernetwork()
        rng = np.random.default_rng(0)
        for variable in hyper.trainable_variables:
            variable.assign(variable + rng.uniform(-0.1, 0.1, variable.shape))
        hyper.save(tmp_path / "hyper.keras")
        keras.utils.set_random_seed(5)  # a new start would be another
        loaded = keras.saving.load_model(tmp_path / "hyper.keras")
        np.testing.assert_array_equal(loaded.extractor.anchors, hyper.extractor.anchors)
        for ours, theirs in zip(hyper.generators, loaded.generators, strict=True):
            np.testing.assert_array_equal(theirs.means, ours.means)
        z = hyper.sample_latent(3)
        for ours, theirs in zip(*(h.generate(z).trainable for h in (hyper, loaded)), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_its_configuration_makes_it_again(self, hyper):
        config = hyper.get_config()
        again = hn.Hypernetwork.from_config(config)
        theirs = again.get_config()
        for name in (
            "initialization",
            "residual",
            "share_generators",
            "latent_distribution",
            "whole_layers",
            "code_dim",
        ):
            assert theirs[name] == config[name] == hyper._arguments[name]
        assert again._unit_groups == hyper._unit_groups
        assert [v.shape for v in again.variables] == [v.shape for v in hyper.variables]

    def test_an_unknown_one_is_one_line(self):
        with pytest.raises(
            ValueError,
            match=r"^Unknown initialization='he': choose 'scaled' or 'model' or 'published'\.$",
        ):
            hypernetwork(initialization="he")


def own_statistics(model, x):
    """What each batch normalisation of a Keras model sees of a batch, in training mode."""
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.momentum = 0.0  # the moving statistics are the batch's
    model(x, training=True)
    return [v.numpy() for v in model.non_trainable_variables]


class TestBatchNormalisation:
    def test_without_calibration_the_error_says_what_to_do(self, hyper, images):
        with pytest.raises(ValueError, match=r"= ensemble\.update_batch_norm") as error:
            hyper.sample(2).evaluate(images, np.zeros(30, int))
        assert "\n" not in str(error.value)

    def test_images_for_calibration_do_it_in_every_sample(self, images):
        hyper = hypernetwork()
        y = np.arange(30) % 3
        by_hand = hyper.sample(3, seed=2).update_batch_norm(images)
        hyper.batch_norm_data = images
        ensemble = hyper.sample(3, seed=2)
        for ours, theirs in zip(ensemble.weights.state, by_hand.weights.state, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert ensemble.evaluate(images, y).majority_vote_accuracy == (
            by_hand.evaluate(images, y).majority_vote_accuracy
        )
        np.testing.assert_array_equal(
            hyper.predict(images, num_networks=3, seed=2), by_hand.predict(images)
        )

    def test_both_modes_equal_a_loop_over_keras_models(self, images):
        """Training: each network's own batch statistics. Inference: the means of all batches'."""
        hyper = hypernetwork()
        drawn = hyper.draw(tf.constant([3, 4], tf.int64), 3, training=True)
        state = hyper.target.initial_state(3)
        weights = hyper.gauge(hn.WeightSet(drawn.trainable, state))
        ensemble = hn.Ensemble(hyper.target, weights).update_batch_norm(images, batch_size=10)
        dealt = images.reshape(3, 10, 6, 6, 2)  # other images for each network
        trained = hyper.target.run(weights, dealt, training=True, batch_statistics=True)[0]
        outputs = ensemble.outputs(images)
        assert np.abs(outputs).max() > 0.1
        parts = np.split(images[np.random.default_rng(0).permutation(30)], 3)  # of statistics
        for n in range(3):
            model = ensemble[n].to_keras()
            np.testing.assert_allclose(outputs[n], model(images), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(
                trained[n], model(dealt[n], training=True), rtol=1e-4, atol=1e-5
            )
            seen = [own_statistics(ensemble[n].to_keras(), x) for x in parts]
            for place, moving in enumerate(ensemble[n].weights.state):
                expected = np.mean([statistics[place] for statistics in seen], 0)
                np.testing.assert_allclose(moving[0], expected, rtol=1e-4, atol=1e-5)
