"""The contract of every weight sampler."""

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, SAMPLERS, classifier, fitted, optimizer

import hypernet_tf as hn
from hypernet_tf.samplers.base import WeightSampler


def test_every_sampler_is_in_the_contract():
    def concrete(cls):
        return ({cls} if not inspect.isabstract(cls) else set()).union(
            *map(concrete, cls.__subclasses__())
        )

    samplers_here = {
        cls for cls in concrete(WeightSampler) if cls.__module__.startswith("hypernet_tf")
    }
    assert samplers_here == set(SAMPLERS)


def samplers(*slow):
    """All samplers; the tests of those in `slow` are marked as slow."""
    return [
        pytest.param(maker, id=cls.__name__, marks=[pytest.mark.slow] if cls in slow else [])
        for cls, maker in SAMPLERS.items()
    ]


# Graphs of MNF, BHN and APD take long to make, chains and the noise control are deep ensembles, and
# a mixture is hypernetworks.
@pytest.fixture(
    scope="class",
    params=samplers(
        *(hn.MNF, hn.BHN, hn.APD, hn.MCDropout, hn.Mixture),
        *(hn.SGDChains, hn.SGLD, hn.NoiseControl),
    ),
)
def make(request):
    return request.param


# Others have tests of their own; graphs of ordinary networks take the least time to make.
LONG = samplers(*(kind for kind in SAMPLERS if kind is not hn.DeepEnsemble))
TRAINED = samplers(*(SAMPLERS.keys() - {hn.Hypernetwork, hn.HyperGAN, hn.DeepEnsemble}))


@pytest.fixture(scope="class")
def trained(make, blobs):
    """A sampler that learned the blobs, and its history, for all tests of the class."""
    keras.utils.set_random_seed(1234)
    return fitted(make, *blobs)


def assert_learns(sampler, history, fraction):
    """The accuracy loss falls to a fraction; APD starts around networks that have learned."""
    losses = history["accuracy_loss"]
    assert losses[-1] < fraction * losses[0] or isinstance(sampler, hn.APD)


class TestContract:
    @pytest.mark.usefixtures("eager_fits")
    def test_samples_are_a_function_of_the_seed(self, make):
        sampler = make()
        first, same, other = (sampler.sample(7, seed=s).theta() for s in (0, 0, 1))
        assert first.shape == (7, sampler.target.weight_count)
        assert np.abs(first - other).max() > 1e-3
        assert np.abs(first[0] - first[1]).max() > 1e-3
        np.testing.assert_array_equal(first, same)

    @pytest.mark.parametrize("make", TRAINED, scope="class")
    def test_fit_learns_and_the_ensemble_works(self, trained, blobs):
        sampler, history = trained
        assert_learns(sampler, history, 0.5)
        result = sampler.sample(10).evaluate(*blobs)
        assert result.majority_vote_accuracy > 0.9
        assert result.member_accuracy.mean() > 0.85  # three classes by chance: 0.33

    @pytest.mark.usefixtures("eager_fits")
    @pytest.mark.parametrize("make", TRAINED, scope="class")
    def test_saved_and_loaded_it_goes_on_alike(self, trained, blobs, tmp_path):
        sampler, _ = trained
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        np.testing.assert_array_equal(loaded.sample(10).theta(), sampler.sample(10).theta())
        for model in (sampler, loaded):
            model.run_eagerly = True  # no time for graphs
            model.make_train_function(force=True)
        logs = [m.train_on_batch(*blobs, return_dict=True) for m in (sampler, loaded)]
        assert logs[0] == logs[1]
        np.testing.assert_array_equal(loaded.sample(10).theta(), sampler.sample(10).theta())

    @pytest.mark.usefixtures("eager_fits")
    @pytest.mark.parametrize("make", TRAINED, scope="class")
    def test_loaded_without_compile_it_knows_its_outputs(self, trained, tmp_path):
        sampler, _ = trained
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras", compile=False)
        assert loaded.target.outputs == sampler.target.outputs == "logits"
        x = np.random.default_rng(0).normal(size=(5, 2))
        np.testing.assert_array_equal(loaded.sample(10).predict(x), sampler.sample(10).predict(x))

    @pytest.mark.usefixtures("eager_fits")
    def test_a_step_is_a_function_of_seed_and_step(self, make, blobs):
        def after(steps, seed):
            keras.utils.set_random_seed(0)
            sampler = make(seed=seed)
            sampler.compile(optimizer="sgd", loss=LOGITS, run_eagerly=True)  # no time for graphs
            tf.random.normal([3])  # nothing outside of the model matters
            losses = [sampler.train_on_batch(*blobs) for _ in range(steps)]
            return losses, sampler.sample(2).theta()

        losses, theta = after(2, seed=0)
        again, theta_again = after(2, seed=0)
        other, _ = after(1, seed=1)
        assert losses == again
        np.testing.assert_array_equal(theta, theta_again)
        assert losses[0] != other[0]
        assert losses[0] != losses[1]

    @pytest.mark.parametrize("make", LONG)
    def test_keras_users_expectations(self, make, blobs, tmp_path):
        sampler = make()
        sampler.compile(optimizer=optimizer(sampler), loss=LOGITS, metrics=["accuracy"])
        data = tf.data.Dataset.from_tensor_slices(blobs).batch(40)  # 40, 40, 16
        history = sampler.fit(
            data,
            epochs=3,
            verbose=0,
            shuffle=False,
            validation_data=data,
            callbacks=[
                keras.callbacks.EarlyStopping("val_ensemble_loss", mode="min", patience=5),
                keras.callbacks.ReduceLROnPlateau("val_loss"),
                keras.callbacks.ModelCheckpoint(
                    tmp_path / "best.weights.h5", save_weights_only=True
                ),
                keras.callbacks.TensorBoard(tmp_path / "logs"),
                keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            ],
        ).history
        training = {"loss", "accuracy_loss", "diversity_loss", "accuracy", "learning_rate"}
        evaluation = {
            "loss",
            "member_loss",
            "member_accuracy",
            "ensemble_loss",
            "ensemble_accuracy",
        }
        expected = training | {f"val_{name}" for name in evaluation}
        of_some_samplers = ("kl_", "wasserstein", "discriminator_", "norm_")
        assert {name for name in history if not name.startswith(of_some_samplers)} == expected
        lines: list[str] = []
        sampler.summary(print_fn=lines.append)
        assert "Trainable params" in "\n".join(lines)
        logs = sampler.evaluate(*blobs, batch_size=48, return_dict=True, verbose=0)
        assert set(logs) == evaluation
        assert logs == sampler.evaluate(*blobs, batch_size=48, return_dict=True, verbose=0)
        x = blobs[0]
        prediction = sampler.predict(x, num_networks=9, seed=3)
        np.testing.assert_array_equal(prediction, sampler.sample(9, seed=3).predict(x))
        np.testing.assert_allclose(prediction.sum(-1), 1, rtol=1e-5)
        assert sampler(x).shape == (96, 3)
        sampler.save_weights(tmp_path / "last.weights.h5")
        loaded = make()
        loaded.compile(optimizer=optimizer(loaded), loss=LOGITS, metrics=["accuracy"])
        loaded.load_weights(tmp_path / "last.weights.h5")
        theta = sampler.sample(9, seed=3).theta()
        np.testing.assert_array_equal(loaded.sample(9, seed=3).theta(), theta)
        json.dumps(sampler.get_config())

    def test_the_step_counts_and_lam_grows(self, make, blobs):
        sampler = make(lam=2.0, lam_growth=1.5)
        sampler.compile(optimizer="sgd", loss=LOGITS, run_eagerly=True)
        for step in range(3):
            logs = sampler.train_on_batch(*blobs, return_dict=True)
            if type(sampler) in (hn.DeepEnsemble, hn.NoiseControl):  # with no other losses
                expected = 2.0 * 1.5**step * logs["accuracy_loss"]
                assert logs["loss"] == pytest.approx(expected, rel=1e-5)
            sampler.reset_metrics()
        assert int(sampler.step.numpy()) == 3
        np.testing.assert_allclose(sampler.lam.numpy(), 2.0 * 1.5**3, rtol=1e-6)

    @pytest.mark.parametrize("make", LONG)
    def test_regression(self, make, tmp_path):
        layers = keras.layers
        model = keras.Sequential(
            [keras.Input((1,)), layers.Dense(8, activation="tanh"), layers.Dense(1)]
        )
        x = np.linspace(-1, 1, 96, dtype="float32")[:, None]  # two batches of one shape
        y = np.sin(3 * x)
        # These two bend slowly what is nearly a straight line after 60 epochs.
        epochs = 300 if make in (SAMPLERS[hn.MCDropout], SAMPLERS[hn.BHN]) else 60
        sampler, history = fitted(lambda: make(model), x, y, loss="mse", epochs=epochs)
        assert_learns(sampler, history, 0.5)
        result = sampler.sample(10).evaluate(x, y)
        assert result.mean_squared_error < y.var()
        assert result.standard_deviation > 0
        assert sampler.predict(x).shape == (96, 1)
        assert np.isfinite(sampler.evaluate(x, y, verbose=0)).all()
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        np.testing.assert_array_equal(loaded.predict(x), sampler.predict(x))
        with pytest.raises(ValueError, match="vote needs classes"):
            sampler.sample(3).majority_vote(x)

    @pytest.mark.parametrize("make", LONG)
    def test_targets_with_batch_norm_and_dropout(self, make, blobs):
        layers = keras.layers
        model = classifier(layers.BatchNormalization(), layers.Dropout(0.2))
        sampler, history = fitted(lambda: make(model), *blobs, epochs=60)
        assert_learns(sampler, history, 0.7)
        logs = sampler.evaluate(*blobs, batch_size=96, verbose=0, return_dict=True)
        assert logs["member_accuracy"] > 0.6
        assert sampler.sample(4).evaluate(*blobs).majority_vote_accuracy > 0.6
        sampler.batch_norm_data = None
        with pytest.raises(ValueError, match="update_batch_norm"):
            sampler.sample(4).evaluate(*blobs)

    @pytest.mark.usefixtures("eager_fits")
    def test_frozen_layers_are_saved_with_the_sampler(self, make, blobs, tmp_path):
        norm = keras.layers.Normalization()
        norm.adapt(blobs[0] * 7 + 5)
        model = keras.Sequential([keras.Input((2,)), norm, *classifier().layers])
        sampler = make(model)
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        x = blobs[0] * 7 + 5
        outputs = sampler.sample(2).outputs(x)
        assert np.abs(outputs).max() < 1e3
        np.testing.assert_array_equal(loaded.sample(2).outputs(x), outputs)
