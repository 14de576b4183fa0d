"""The hypermodel: trials, metrics, objectives."""

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf.samplers.weight_measures import weight_measures
from hypernet_tf.training.tuning import SamplerHyperModel, ensemble_metrics, objective


def classifier(*layers):
    hidden = keras.layers.Dense(4, activation="relu")
    return hn.Target(keras.Sequential([keras.Input((2,)), hidden, *layers, keras.layers.Dense(3)]))


def compiled(target, lam, loss):
    hyper = hn.Hypernetwork(target, latent_dim=4, code_dim=3, lam=lam)
    hyper.compile(keras.optimizers.Adam(1e-2), loss)
    return hyper


LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.slow
def test_a_tuner_finds_the_best_of_its_trials(blobs, tmp_path):
    x, y = blobs
    target = classifier()

    def make(hp):
        return compiled(target, hp.Float("lam", 10, 1e5, sampling="log"), LOSS)

    model = SamplerHyperModel(make, validation=(x, y), num_networks=8)
    tuner = keras_tuner.RandomSearch(
        model, objective("negative_log_likelihood"), max_trials=2, seed=3, directory=tmp_path
    )
    tuner.search(x, y, epochs=2, batch_size=32, verbose=0)
    trials = tuner.oracle.get_best_trials(2)
    scores = [trial.score for trial in trials]
    assert scores == sorted(scores)
    assert len({trial.hyperparameters["lam"] for trial in trials}) == 2
    for trial in trials:
        for key in ("member_accuracy", "majority_vote_accuracy", "brier_score", "entropy"):
            assert np.isfinite(trial.metrics.get_best_value(key)), key
        assert trial.score == trial.metrics.get_best_value("negative_log_likelihood")
    assert tuner.get_best_hyperparameters()[0]["lam"] == trials[0].hyperparameters["lam"]


@pytest.mark.slow
def test_hyperband_continues_from_the_weights_of_an_earlier_round(blobs, tmp_path):
    x, y = blobs
    target = classifier()

    def make(hp):
        return compiled(target, hp.Float("lam", 10, 1e5, sampling="log"), LOSS)

    model = SamplerHyperModel(make, validation=(x, y), num_networks=8)
    name = "negative_log_likelihood"
    tuner = keras_tuner.Hyperband(
        model, objective(name), max_epochs=2, factor=2, seed=3, directory=tmp_path
    )
    tuner.search(x, y, batch_size=96, verbose=0)
    trials = tuner.oracle.trials.values()
    assert {trial.status for trial in trials} == {"COMPLETED"}
    later = [trial for trial in trials if trial.hyperparameters.values["tuner/initial_epoch"]]
    assert later
    best = tuner.get_best_models()[0]
    assert int(best.step) == 2  # one step per epoch, in both rounds
    likelihood = best.sample(8, seed=0).evaluate(x, y).negative_log_likelihood
    assert likelihood == pytest.approx(tuner.oracle.get_best_trials()[0].score)


@pytest.mark.usefixtures("eager_fits")
def test_the_best_sampler_is_the_one_that_was_scored(blobs, tmp_path):
    """Keras Tuner saves weights after an epoch; averages come at the end of a training."""
    x, y = blobs

    def make(hp):
        hyper = compiled(classifier(), hp.Float("lam", 10, 1e3), LOSS)
        hyper.compile(keras.optimizers.Adam(0.05, use_ema=True, ema_momentum=0.5), LOSS)
        return hyper

    model = SamplerHyperModel(make, validation=(x, y), num_networks=8)
    tuner = keras_tuner.RandomSearch(
        model, objective("negative_log_likelihood"), max_trials=1, seed=3, directory=tmp_path
    )
    tuner.search(x, y, epochs=2, batch_size=48, verbose=0)
    best = tuner.get_best_models()[0].sample(8, seed=0).evaluate(x, y)
    score = tuner.oracle.get_best_trials()[0].score
    assert best.negative_log_likelihood == pytest.approx(score)


@pytest.mark.usefixtures("eager_fits")
def test_the_metrics_are_those_of_the_ensemble(blobs):
    x, y = blobs
    hyper = compiled(classifier(), 10.0, LOSS)
    model = SamplerHyperModel(lambda hp: hyper, validation=(x, y), num_networks=6, seed=5)
    metrics = model.fit(None, hyper, x, y, epochs=1, batch_size=48, verbose=0)
    result = hyper.sample(6, seed=5).evaluate(x, y)
    of_weights = weight_measures(hyper.sample(6, seed=5), hyper)
    assert metrics == ensemble_metrics(result, of_weights)
    assert metrics["majority_vote_accuracy"] == result.majority_vote_accuracy
    assert metrics["member_accuracy"] == pytest.approx(result.member_accuracy.mean())
    assert metrics["negative_log_likelihood"] == pytest.approx(result.negative_log_likelihood)
    assert np.isfinite(metrics["entropy"])
    assert "entropy" not in ensemble_metrics(result, {"entropy": None})


@pytest.mark.usefixtures("eager_fits")
def test_a_finite_sampler_is_scored_with_all_that_it_holds(blobs):
    sampler = hn.DeepEnsemble(classifier(), num_networks=3)
    sampler.compile("adam", LOSS)
    model = SamplerHyperModel(lambda hp: sampler, validation=blobs)  # 100 networks by default
    metrics = model.fit(None, sampler, *blobs, epochs=1, batch_size=48, verbose=0)
    result = sampler.sample(3).evaluate(*blobs)
    assert metrics["member_accuracy"] == pytest.approx(result.member_accuracy.mean())


@pytest.mark.usefixtures("eager_fits")
def test_values_have_objectives_too(blobs):
    x, _ = blobs
    hidden = keras.layers.Dense(4, activation="relu")
    target = hn.Target(keras.Sequential([keras.Input((2,)), hidden, keras.layers.Dense(1)]))
    hyper = compiled(target, 10.0, "mse")
    y = x[:, :1]
    model = SamplerHyperModel(lambda hp: hyper, validation=(x, y), num_networks=6)
    metrics = model.fit(None, hyper, x, y, epochs=1, batch_size=48, verbose=0)
    result = hyper.sample(6, seed=0).evaluate(x, y)
    assert metrics["mean_squared_error"] == pytest.approx(result.mean_squared_error)
    assert {"member_mean_squared_error", "mean_squared_error", "entropy"} <= metrics.keys()


@pytest.mark.usefixtures("eager_fits")
def test_batch_normalisation_needs_inputs_for_its_statistics(blobs):
    x, y = blobs
    hyper = compiled(classifier(keras.layers.BatchNormalization()), 10.0, LOSS)
    model = SamplerHyperModel(lambda hp: hyper, validation=(x, y), num_networks=4)
    batches = ((x[:48], y[:48]) for _ in range(2))
    with pytest.raises(keras_tuner.errors.FatalValueError, match="batch_norm_data=x_train"):
        model.fit(None, hyper, batches, steps_per_epoch=2, shuffle=False, verbose=0)
    model.batch_norm_data = x
    metrics = model.fit(None, hyper, x, y, epochs=1, batch_size=48, verbose=0)
    updated = hyper.sample(4, seed=0).update_batch_norm(x).evaluate(x, y)
    assert metrics["negative_log_likelihood"] == pytest.approx(updated.negative_log_likelihood)


def test_an_objective_has_the_direction_of_its_measure():
    assert objective("majority_vote_accuracy").direction == "max"
    assert objective("brier_score").direction == "min"
    with pytest.raises(ValueError, match="Unknown objective 'speed': choose one of member_"):
        objective("speed")


@pytest.mark.usefixtures("eager_fits")
def test_validation_may_be_a_data_set_or_have_weights(blobs):
    x, y = blobs
    sampler = hn.DeepEnsemble(classifier(), num_networks=2)
    sampler.compile("sgd", LOSS, run_eagerly=True)
    weights = np.linspace(0.1, 1.0, len(x))
    whole = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(40)
    results = []
    for validation in ((x, y, weights), whole):
        model = SamplerHyperModel(lambda hp: sampler, validation=validation)
        results.append(model.fit(None, sampler, x, y, epochs=1, verbose=0))
    assert results[0].keys() == results[1].keys()
    with pytest.raises(ValueError, match=r"^validation is \(x, y\), \(x, y, sample_weight\), or"):
        SamplerHyperModel(lambda hp: sampler, validation=x)
