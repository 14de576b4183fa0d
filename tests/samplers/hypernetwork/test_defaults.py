"""`Hypernetwork(model)` with nothing else learns as well as the model itself."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hypernet_tf as hn

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
EPOCHS = 10
layers = keras.layers


def table(name):
    """A data set of scikit-learn, standardised: training and test examples, and a small MLP."""
    from sklearn import datasets, model_selection

    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x, x_test, y, y_test = model_selection.train_test_split(
        x, y, test_size=0.3, stratify=y, random_state=0
    )
    mean, deviation = x.mean(0), x.std(0)
    x, x_test = (((part - mean) / deviation).astype("float32") for part in (x, x_test))
    hidden = layers.Dense(16, activation="relu")
    model = keras.Sequential([keras.Input(x.shape[1:]), hidden, layers.Dense(int(y.max()) + 1)])
    return (x, y), (x_test, y_test), model


def digits(load):
    data = load("mnist_5k", None)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(8, 5, strides=2, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    return (data.train.x, data.train.y), (data.test.x, data.test.y), model


def check(train, test, model):
    """Members are at most 3 points below the model, the vote is not, and the networks differ."""
    hyper = hn.Hypernetwork(model)
    for trained in (hyper, model):
        trained.compile(optimizer="adam", loss=LOGITS, metrics=["accuracy"])
        trained.fit(*train, epochs=EPOCHS, verbose=0)
    _, accuracy = model.evaluate(*test, verbose=0)
    ensemble = hyper.sample(100)
    result, outputs = ensemble.evaluate(*test), ensemble.outputs(test[0])
    assert result.member_accuracy.mean() >= accuracy - 0.03
    assert result.majority_vote_accuracy >= accuracy
    assert outputs.std(0).mean() > 0.01 * outputs.std()


@pytest.mark.slow
def test_on_wine():
    check(*table("wine"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["breast_cancer", "wine"])
def test_on_tables(name, seed):
    keras.utils.set_random_seed(seed)
    check(*table(name))


@pytest.mark.slow
def test_on_digits(load_once):
    check(*digits(load_once))


@pytest.mark.usefixtures("eager_fits")
class TestScaled:
    def hypernetwork(self, **kwargs):
        model = keras.Sequential(
            [keras.Input((5,)), layers.Dense(20, activation="relu"), layers.Dense(3)]
        )
        return hn.Hypernetwork(model, **kwargs)

    def test_first_weights_are_distributed_as_the_models_own(self):
        hyper = self.hypernetwork()
        drawn = hyper.generate(hyper.sample_latent(64), training=True)
        kernel = drawn.trainable[0].numpy()
        slot = hyper.target.layers[0].slots[0]
        assert kernel.std() == pytest.approx(slot.moments()[1], rel=0.3)
        np.testing.assert_array_equal(drawn.trainable[1], 0)

    @pytest.mark.parametrize(
        "sizes",
        [
            {"generator_hidden": ()},
            {"extractor_hidden": ()},
            {"extractor_hidden": (), "latent_distribution": "normal"},
            {"code_dim": 30, "generator_hidden": (30, 30), "residual": True},
        ],
    )
    def test_first_weights_do_not_depend_on_the_hidden_layers(self, sizes):
        keras.utils.set_random_seed(1)
        hyper = self.hypernetwork(latent_dim=200, **sizes)
        z = hyper.sample_latent(256)
        codes = hyper.extractor(z, training=True)[0]  # around one anchor each
        assert tf.math.reduce_std(codes, 0).numpy().mean() == pytest.approx(0.05, rel=0.15)
        kernel = hyper.generate(z, training=True).trainable[0].numpy()
        expected = hyper.target.layers[0].slots[0].moments()[1]
        assert kernel.std() == pytest.approx(expected, rel=0.3)

    def test_a_step_of_adam_moves_weights_little(self):
        """At the same learning rate a tenth as far as with `initialization="model"`."""

        def moved(initialization):
            keras.utils.set_random_seed(0)
            hyper = self.hypernetwork(initialization=initialization)
            hyper.compile(keras.optimizers.Adam(1e-3), LOGITS, run_eagerly=True)
            z = hyper.sample_latent(8)
            before = hyper.generate(z, training=True).trainable
            rng = np.random.default_rng(0)
            hyper.train_on_batch(rng.normal(size=(32, 5)).astype("float32"), np.arange(32) % 3)
            after = hyper.generate(z, training=True).trainable
            return max(np.abs(a - b).max() for a, b in zip(after, before, strict=True))

        assert 0 < moved("scaled") < 0.3 * moved("model")

    def test_it_is_saved_with_the_sampler(self, tmp_path):
        hyper = self.hypernetwork()
        hyper.save(tmp_path / "hyper.keras")
        loaded = keras.saving.load_model(tmp_path / "hyper.keras")
        np.testing.assert_array_equal(loaded.sample(3).theta(), hyper.sample(3).theta())
        assert loaded.get_config() == hyper.get_config()
        for part in (loaded.extractor.mlp, *loaded.generators):
            dense, _, norm = part.blocks[0]
            assert (part.scale_output, norm.momentum) == (True, 0.9)
            assert dense.kernel_initializer.scale == 2.0
