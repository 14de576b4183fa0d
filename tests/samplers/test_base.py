"""What `WeightSampler` promises as a Keras model: evaluation, prediction, saving, subclassing."""

import doctest
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from data_sets import DATA_SETS
from small_samplers import (
    LOGITS,
    SAMPLERS,
    apd,
    bhn,
    chains,
    classifier,
    deep_ensemble,
    fitted,
    hypergan,
    hypernetwork,
    mc_dropout,
    mixture,
    noise_control,
)
from small_terms import EnsembleLoss
from target_models import Scale, one_line_error

import hypernet_tf as hn
from hypernet_tf.samplers import base
from hypernet_tf.samplers.latent import LatentSampler

layers = keras.layers


def with_norm():
    return classifier(layers.BatchNormalization())


def same_rows(kept, x):
    """What `fit` keeps is in a random order."""
    np.testing.assert_array_equal(sorted(kept.tolist()), sorted(x.tolist()))


class TestEvaluate:
    @pytest.mark.parametrize(
        ("make", "options"), [(hypernetwork, {"initialization": "model"}), (deep_ensemble, {})]
    )
    @pytest.mark.usefixtures("eager_fits")
    def test_members_and_ensemble_are_those_of_predict(self, make, options, blobs):
        x, y = blobs
        sampler, _ = fitted(make, x, y, epochs=1, **options)
        count = sampler.num_available or base.PREDICTION_NETWORKS
        ensemble = sampler.sample(count, seed=0)
        result = ensemble.evaluate(x, y)
        logs = sampler.evaluate(x, y, batch_size=40, verbose=0, return_dict=True)  # 40, 40, 16
        assert logs["member_accuracy"] == pytest.approx(result.member_accuracy.mean())
        assert logs["member_loss"] == pytest.approx(
            result.member_negative_log_likelihood.mean(), rel=1e-5
        )
        assert logs["ensemble_accuracy"] == pytest.approx(result.mean_probability_accuracy)
        assert logs["ensemble_loss"] == pytest.approx(result.negative_log_likelihood, rel=1e-5)
        assert logs["ensemble_loss"] < logs["member_loss"]
        prediction = ensemble.predict(x)
        np.testing.assert_array_equal(sampler.predict(x), prediction)
        np.testing.assert_allclose(sampler(x), prediction, atol=1e-6)
        np.testing.assert_allclose(sampler.predict_on_batch(x), prediction, atol=1e-6)
        np.testing.assert_allclose(tf.function(lambda x: sampler(x))(x), prediction, atol=1e-6)
        np.testing.assert_array_equal(sampler.prediction_networks().theta(), ensemble.theta())

    @pytest.mark.usefixtures("eager_fits")
    def test_the_list_has_the_order_of_the_class(self, blobs):
        sampler = deep_ensemble()
        sampler.compile(loss=LOGITS, metrics=["accuracy"])
        logs = sampler.evaluate(*blobs, verbose=0, return_dict=True)
        names = ["loss", "member_loss", "member_accuracy", "ensemble_loss", "ensemble_accuracy"]
        assert set(logs) == set(names)
        assert sampler.evaluate(*blobs, verbose=0) == [logs[name] for name in names]
        assert sampler.test_on_batch(*blobs) == pytest.approx([logs[name] for name in names])

    @pytest.mark.usefixtures("eager_fits")
    def test_loss_is_the_objective(self, blobs):
        terms = [hn.diversity.NegativeEntropy(), EnsembleLoss(weight=3.0)]
        sampler = hypernetwork(diversity=terms, lam=7.0)
        sampler.compile(loss=LOGITS)
        logs = sampler.evaluate(*blobs, batch_size=96, verbose=0, return_dict=True)
        theta = tf.constant(sampler.sample(base.PREDICTION_NETWORKS).theta())
        entropy = terms[0].entropy(
            hn.diversity.StepRecord(theta, sampler.sample_latent(base.PREDICTION_NETWORKS))
        )
        expected = 7 * logs["member_loss"] - float(entropy) + 3 * logs["ensemble_loss"]
        assert logs["loss"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.usefixtures("eager_fits")
    def test_sample_weights(self, blobs):
        x, y = blobs
        weights = np.linspace(0.0, 2.0, 96).astype("float32")
        sampler = deep_ensemble()
        sampler.compile(loss=LOGITS, weighted_metrics=["accuracy"])
        logs = sampler.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
        outputs = sampler.sample(12).outputs(x)
        hits = outputs.argmax(-1) == y
        assert logs["member_accuracy"] == pytest.approx(
            np.average(hits.mean(0), weights=weights), rel=1e-5
        )
        losses = [float(LOGITS(y, one, sample_weight=weights)) for one in outputs]
        assert logs["member_loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        mean = np.log(sampler.predict(x))
        expected = float(LOGITS(y, mean, sample_weight=weights))
        assert logs["ensemble_loss"] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.usefixtures("eager_fits")
    def test_one_column_of_logits(self):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(30, 2)).astype("float32")
        y = (x.sum(1) > 0).astype("float32")[:, None]
        model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
        sampler = deep_ensemble(model)
        loss = keras.losses.BinaryCrossentropy(from_logits=True)
        sampler.compile(loss=loss, metrics={sampler.target.plan.operations[-1].name: ["accuracy"]})
        logs = sampler.evaluate(x, y, verbose=0, return_dict=True)
        result = sampler.sample(12).evaluate(x, y)
        assert logs["ensemble_loss"] == pytest.approx(result.negative_log_likelihood, rel=1e-4)
        assert logs["ensemble_accuracy"] == pytest.approx(result.mean_probability_accuracy)
        assert logs["member_accuracy"] == pytest.approx(result.member_accuracy.mean())
        probabilities = np.abs(sampler.predict(x) - 0.5)
        assert probabilities.min() < 0.12  # some are between the limits of logits and of them

    @pytest.mark.usefixtures("eager_fits")
    @pytest.mark.parametrize("activation", [None, "sigmoid"])
    def test_the_accuracy_of_several_labels(self, activation):
        rng = np.random.default_rng(0)
        x = rng.normal(size=(30, 2)).astype("float32")
        y = (x[:, [0, 1, 0]] > [0, 0, 0.5]).astype("float32")
        model = keras.Sequential([keras.Input((2,)), layers.Dense(3, activation=activation)])
        sampler = deep_ensemble(model)
        loss = keras.losses.BinaryCrossentropy(from_logits=activation is None)
        sampler.compile(loss=loss, weighted_metrics=("accuracy",))
        logs = sampler.evaluate(x, y, verbose=0, return_dict=True)
        result = sampler.sample(12).evaluate(x, y)
        assert logs["member_accuracy"] == pytest.approx(result.member_accuracy.mean())
        assert logs["ensemble_accuracy"] == pytest.approx(result.mean_probability_accuracy)

    @pytest.mark.usefixtures("eager_fits")
    def test_regression_and_several_outputs(self):
        inputs = keras.Input((2,), name="x")
        outputs = {"a": layers.Dense(1, name="a")(inputs), "b": layers.Dense(2, name="b")(inputs)}
        sampler = deep_ensemble(keras.Model(inputs, outputs))
        sampler.compile(loss={"a": "mse", "b": "mae"}, metrics={"a": ["mae"]})
        rng = np.random.default_rng(0)
        x = rng.normal(size=(30, 2)).astype("float32")
        y = {"a": np.ones((30, 1), "float32"), "b": np.zeros((30, 2), "float32")}
        sampler.fit(x, y, batch_size=24, verbose=0, validation_data=(x, y))
        logs = sampler.evaluate(x, y, verbose=0, return_dict=True)
        answers = sampler.sample(12).outputs(x)
        losses = ((answers["a"] - 1) ** 2).mean() + np.abs(answers["b"]).mean()
        assert logs["member_loss"] == pytest.approx(losses, rel=1e-5)
        mean = sampler.predict(x)
        losses = ((mean["a"] - 1) ** 2).mean() + np.abs(mean["b"]).mean()
        assert logs["ensemble_loss"] == pytest.approx(losses, rel=1e-5)
        assert logs["ensemble_a_mae"] == pytest.approx(np.abs(mean["a"] - 1).mean(), rel=1e-5)

    @pytest.mark.usefixtures("eager_fits")
    def test_dicts_by_the_names_of_outputs_are_those_of_keras(self):
        """A list of outputs; losses, metrics, labels and weights by name."""
        inputs = keras.Input((2,))
        hidden = layers.Dense(5)(inputs)
        kinds = layers.Dense(3, activation="softmax", name="kind")(hidden)
        model = keras.Model(inputs, [kinds, layers.Dense(1, name="size")(hidden)])
        rng = np.random.default_rng(0)
        x = rng.normal(size=(30, 2)).astype("float32")
        y = {"kind": rng.integers(0, 3, 30), "size": x[:, :1] ** 2}
        weights = {"kind": rng.uniform(size=30), "size": np.ones(30)}
        compiled = {
            "loss": {"kind": "sparse_categorical_crossentropy", "size": "mse"},
            "metrics": {"kind": ["accuracy"]},
            "weighted_metrics": {"kind": ["accuracy"]},
        }
        sampler = deep_ensemble(model, num_networks=1, gauge=False)
        sampler.compile(optimizer=keras.optimizers.SGD(0.1), **compiled)
        network = sampler.sample(1).to_keras()
        network.compile(optimizer=keras.optimizers.SGD(0.1), **compiled)
        options = {"batch_size": 10, "shuffle": False, "verbose": 0}
        history = sampler.fit(x, y, sample_weight=weights, **options).history
        # Keras takes these in the order of the outputs only.
        in_order = {"y": [*y.values()], "sample_weight": [*weights.values()]}
        expected = network.fit(x, **in_order, **options).history
        for name in ("loss", "kind_accuracy", "kind_weighted_accuracy"):
            assert history[name] == pytest.approx(expected[name], rel=1e-5), name
        logs = sampler.evaluate(x, y, sample_weight=weights, verbose=0, return_dict=True)
        expected = network.evaluate(x, **in_order, verbose=0, return_dict=True)
        for name in ("loss", "kind_accuracy", "kind_weighted_accuracy"):
            assert logs[f"member_{name}"] == pytest.approx(expected[name], rel=1e-5), name
        with pytest.raises(
            ValueError, match=r"^There is no output 'knd': the target has kind, size"
        ):
            sampler.evaluate(x, {"knd": y["kind"]}, verbose=0)

    @pytest.mark.usefixtures("eager_fits")
    def test_metric_objects_keep_apart_states(self, blobs):
        metric = keras.metrics.SparseCategoricalAccuracy(name="hits")
        sampler = deep_ensemble()
        sampler.compile(loss=LOGITS, metrics=[metric])
        history = sampler.fit(*blobs, validation_data=blobs, verbose=0).history
        logs = sampler.evaluate(*blobs, verbose=0, return_dict=True)
        assert history["val_ensemble_hits"] == [logs["ensemble_hits"]]
        assert history["val_member_hits"] == [logs["member_hits"]]
        assert {"hits", "accuracy_loss", "loss", "diversity_loss"} <= set(history)
        assert not any(name.startswith(("member", "ensemble")) for name in history)

    def test_networks_that_become_more_are_all_evaluated(self, blobs):
        sampler = chains(num_chains=2, num_snapshots=3, snapshot_every=2)
        sampler.compile(optimizer=keras.optimizers.SGD(0.1), loss=LOGITS, metrics=["accuracy"])
        seen = []
        for _ in range(2):
            sampler.fit(*blobs, batch_size=48, verbose=0)
            logs = sampler.evaluate(*blobs, verbose=0, return_dict=True)
            result = sampler.sample(sampler.num_available).evaluate(*blobs)
            assert logs["ensemble_loss"] == pytest.approx(result.negative_log_likelihood, rel=1e-5)
            assert logs["member_loss"] == pytest.approx(
                result.member_negative_log_likelihood.mean(), rel=1e-5
            )
            seen.append(sampler.num_available)
        assert seen == [2, 4]

    @pytest.mark.usefixtures("eager_fits")
    def test_evaluation_changes_no_step(self, blobs):
        def losses(**options):
            keras.utils.set_random_seed(0)
            sampler = hypernetwork()
            sampler.compile(loss=LOGITS)
            return sampler.fit(*blobs, epochs=2, shuffle=False, verbose=0, **options).history[
                "loss"
            ]

        assert losses() == losses(validation_data=blobs)


class TestBatchNorm:
    @pytest.mark.usefixtures("optimized")
    def test_everything_works_after_fit(self, blobs):
        sampler, _ = fitted(lambda: hypernetwork(with_norm()), *blobs, epochs=20)
        assert len(sampler.batch_norm_data) == 96
        logs = sampler.evaluate(*blobs, verbose=0, return_dict=True)
        assert logs["ensemble_accuracy"] > 0.6
        probabilities = sampler.predict(blobs[0])
        np.testing.assert_allclose(sampler(blobs[0]), probabilities, atol=1e-5)
        np.testing.assert_allclose(sampler.predict_on_batch(blobs[0]), probabilities, atol=1e-5)
        graph = tf.function(lambda x: sampler(x))
        np.testing.assert_allclose(graph(blobs[0]), probabilities, atol=1e-5)
        hits = (probabilities.argmax(-1) == blobs[1]).mean()
        assert logs["ensemble_accuracy"] == pytest.approx(hits)

    @pytest.mark.usefixtures("eager_fits")
    def test_data_sets_are_kept_too_and_data_of_ones_own_stay(self, blobs):
        sampler = hypernetwork(with_norm())
        sampler.compile(loss=LOGITS)
        data = tf.data.Dataset.from_tensor_slices(blobs).batch(40)
        sampler.fit(data, shuffle=False, verbose=0, validation_data=data)
        np.testing.assert_array_equal(sampler.batch_norm_data, blobs[0])
        sampler.batch_norm_data = blobs[0][:50]
        sampler.fit(*blobs, batch_size=96, verbose=0)
        assert len(sampler.batch_norm_data) == 50

    @pytest.mark.usefixtures("eager_fits")
    def test_data_of_ones_own_stay_in_a_file_and_beside_a_generator(self, blobs, tmp_path):
        sampler, _ = fitted(lambda: deep_ensemble(with_norm(), num_networks=2), *blobs, epochs=1)
        kept = sampler.batch_norm_data
        batches = (tuple(part[:48] for part in blobs) for _ in itertools.count())
        sampler.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)
        np.testing.assert_array_equal(sampler.batch_norm_data, kept)
        for own in (False, True):
            if own:
                sampler.batch_norm_data = blobs[0][:50]
            sampler.save(tmp_path / "sampler.keras")
            loaded = keras.saving.load_model(tmp_path / "sampler.keras")
            loaded.fit(blobs[0][:40], blobs[1][:40], verbose=0)
            assert len(loaded.batch_norm_data) == (50 if own else 40)

    @pytest.mark.usefixtures("eager_fits")
    def test_a_file_without_data_leaves_those_of_ones_own(self, blobs, tmp_path):
        sampler = deep_ensemble(with_norm(), num_networks=2)
        sampler.compile("sgd", LOGITS)
        sampler.save_weights(tmp_path / "sampler.weights.h5")
        sampler.batch_norm_data = blobs[0][:50]
        sampler.load_weights(tmp_path / "sampler.weights.h5")
        sampler.fit(*blobs, batch_size=96, verbose=0)
        assert len(sampler.batch_norm_data) == 50

    @pytest.mark.usefixtures("eager_fits")
    def test_no_inputs_of_a_validation_split_are_kept_however_it_is_given(self, blobs):
        sampler = deep_ensemble(with_norm(), num_networks=2)
        sampler.compile("sgd", LOGITS)
        sampler.fit(*blobs, 96, 1, 0, None, 0.25)
        same_rows(sampler.batch_norm_data, blobs[0][:72])

    @pytest.mark.usefixtures("eager_fits")
    def test_without_data_one_line_says_what_to_set(self, blobs):
        sampler = hypernetwork(with_norm())
        sampler.compile(loss=LOGITS)
        batches = (tuple(part[:48] for part in blobs) for _ in range(2))
        sampler.fit(batches, steps_per_epoch=2, shuffle=False, verbose=0)
        for use in (
            lambda: sampler.predict(blobs[0]),
            lambda: sampler(blobs[0]),
            lambda: sampler.evaluate(*blobs, verbose=0),
        ):
            with pytest.raises(ValueError, match=r"set sampler\.batch_norm_data = x_train"):
                use()

    @pytest.mark.usefixtures("eager_fits")
    @pytest.mark.parametrize(
        "file", ["sampler.keras", pytest.param("sampler.weights.h5", marks=pytest.mark.slow)]
    )
    def test_the_data_are_saved_with_the_sampler(self, file, blobs, tmp_path):
        sampler = hypernetwork(with_norm())
        sampler.compile(loss=LOGITS)
        sampler.batch_norm_data = blobs[0]
        if file.endswith("h5"):
            sampler.save_weights(tmp_path / file)
            loaded = hypernetwork(with_norm())
            loaded.compile(loss=LOGITS)
            loaded.load_weights(tmp_path / file)
        else:
            sampler.save(tmp_path / file)
            loaded = keras.saving.load_model(tmp_path / file)
        np.testing.assert_array_equal(loaded.batch_norm_data, sampler.batch_norm_data)
        np.testing.assert_array_equal(loaded.predict(blobs[0]), sampler.predict(blobs[0]))

    def test_of_a_data_set_the_first_inputs_are_saved(self, tmp_path):
        x = np.random.default_rng(0).normal(size=(1_200, 2)).astype("float32")
        sampler = deep_ensemble(with_norm(), num_networks=2)
        sampler.batch_norm_data = tf.data.Dataset.from_tensor_slices(x).batch(100)
        np.testing.assert_array_equal(sampler.batch_norm_data, x[:1_000])
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        np.testing.assert_array_equal(loaded.batch_norm_data, x[:1_000])

    def test_the_structure_of_several_inputs_is_saved(self, tmp_path):
        a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
        joined = layers.Concatenate()([a, b])
        x = layers.BatchNormalization()(layers.Dense(4)(joined))
        sampler = deep_ensemble(keras.Model({"a": a, "b": b}, layers.Dense(1)(x)))
        sampler.batch_norm_data = {"a": np.ones((6, 2)), "b": np.zeros((6, 3))}
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        np.testing.assert_array_equal(loaded.batch_norm_data["a"], np.ones((6, 2)))
        np.testing.assert_array_equal(loaded.batch_norm_data["b"], np.zeros((6, 3)))

    @pytest.mark.usefixtures("eager_fits")
    def test_inputs_by_name_are_saved_in_the_order_of_the_model(self, tmp_path):
        inputs = [keras.Input((3,), name="zeta"), keras.Input((3,), name="alpha")]
        joined = layers.Concatenate()([layers.Dense(4)(inputs[0]), inputs[1]])
        model = keras.Model(inputs, layers.Dense(2)(layers.BatchNormalization()(joined)))
        rng = np.random.default_rng(0)
        x = {"zeta": 5 * rng.normal(size=(64, 3)), "alpha": 9 + rng.normal(size=(64, 3))}
        sampler = deep_ensemble(model, num_networks=2)
        sampler.compile(loss=LOGITS)
        sampler.fit(x, rng.integers(0, 2, 64), batch_size=64, verbose=0)
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        np.testing.assert_array_equal(loaded.predict(x), sampler.predict(x))

    def test_a_target_without_statistics_saves_none(self, tmp_path):
        sampler = hypernetwork()
        sampler.batch_norm_data = np.ones((6, 2))
        sampler.save(tmp_path / "sampler.keras")
        assert keras.saving.load_model(tmp_path / "sampler.keras").batch_norm_data is None


@pytest.mark.usefixtures("eager_fits")
def test_predict_takes_data_sets(blobs):
    x, y = blobs
    sampler = deep_ensemble()
    weights = np.ones(len(x))
    expected = sampler.predict(x, num_networks=2)
    for kind, make in DATA_SETS.items():
        for arrays in ((x,), (x, y), (x, y, weights)):
            predicted = sampler.predict(make(*arrays), num_networks=2)
            np.testing.assert_allclose(predicted, expected, rtol=1e-5, err_msg=kind)


def test_the_users_target_never_changes():
    target = hn.Target(classifier())
    with_logits, with_values = (hn.DeepEnsemble(target, num_networks=2) for _ in range(2))
    with_logits.compile(loss=LOGITS)
    with_values.compile(loss="mse")
    assert target.outputs == "values"
    assert with_logits.target.outputs == "logits"
    assert with_values.target.outputs == "values"


class Seen(hn.diversity.DiversityTerm):
    """Keeps what terms on outputs are given."""

    uses_outputs = True

    def value(self, batch):
        self.outputs = batch.outputs
        return tf.zeros([])


@pytest.mark.usefixtures("eager_fits")
@pytest.mark.parametrize(
    ("classes", "kind", "centred"),
    [(3, "logits", True), (1, "logits", False), (3, "values", False)],
)
def test_terms_on_outputs_see_logits_in_their_gauge(classes, kind, centred):
    """The softmax removes a constant, which must not count as diversity."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(classes)])
    term = Seen()
    sampler = hypernetwork(model, num_networks=4, diversity=[term], initialization="model")
    losses = {
        3: LOGITS if kind == "logits" else "mse",
        1: keras.losses.BinaryCrossentropy(from_logits=True),
    }
    sampler.compile(keras.optimizers.SGD(0.0), losses[classes], run_eagerly=True)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 2)).astype("float32"), np.zeros((12, 1), "float32")
    sampler.train_on_batch(x, y)
    training = np.asarray(term.outputs)
    assert training.shape == (4, 3, classes)  # all networks on the images of the first one
    sampler.test_on_batch(x, y)
    evaluation = np.asarray(term.outputs)
    assert evaluation.shape == (base.PREDICTION_NETWORKS, 12, classes)
    mean = np.mean(sampler.target.activate(term.outputs), 0)
    np.testing.assert_allclose(mean, sampler(x), atol=1e-6)
    for seen in (training, evaluation):
        assert (np.abs(seen.sum(-1)).max() < 1e-5) == centred
        assert seen.std() > 0.1


@pytest.mark.usefixtures("eager_fits")
def test_options_of_the_gauge_are_saved_with_the_sampler(tmp_path):
    options = {"softmax_kernel": True, "permutation": True}
    sampler = hypernetwork(gauge=options)
    sampler.save(tmp_path / "sampler.keras")
    loaded = keras.saving.load_model(tmp_path / "sampler.keras")
    *_, kernel, _ = loaded.sample(3).weights.trainable
    np.testing.assert_allclose(tf.reduce_sum(kernel, -1), 0, atol=1e-5)
    np.testing.assert_array_equal(loaded.sample(3).theta(), sampler.sample(3).theta())
    with pytest.raises(ValueError, match="gauge has symmetry: its options are softmax, "):
        hypernetwork(gauge={"symmetry": True})


def test_a_new_sampler_needs_one_method():
    """The example of the class: it trains, evaluates, samples, saves and loads."""
    (example,) = doctest.DocTestFinder(recurse=False).find(hn.WeightSampler, "WeightSampler")
    assert len(example.examples) == 10
    example.globs.clear()
    runner = doctest.DocTestRunner()
    runner.run(example, clear_globs=False)
    assert runner.failures == 0
    sampler = example.globs["sampler"]
    assert sampler.get_config()["num_networks"] == 8


def test_the_number_of_networks_may_be_numpys():
    sampler = hypernetwork()
    same = sampler.sample(np.int64(3)).theta(), sampler.sample(3).theta()
    np.testing.assert_array_equal(*same)


@pytest.mark.usefixtures("eager_fits")
@pytest.mark.parametrize(("make", "count"), [(hypernetwork, 20), (deep_ensemble, 12)])
def test_norm_spread_is_standard_deviation_over_mean(make, count):
    """Of a hypernetwork's samples, which are trained in the gauge; of all of twelve networks."""
    sampler = make()
    _, weights = sampler._draw_weights(
        sampler.sampling_seed(3), count, in_gauge=sampler.trains_in_gauge
    )
    norms = np.linalg.norm(sampler.target.flatten(weights), axis=1)
    assert sampler.norm_spread(20, seed=3) == pytest.approx(norms.std() / norms.mean(), rel=1e-4)
    if sampler.trains_in_gauge:
        norms = np.linalg.norm(sampler.sample(20, seed=3).theta(), axis=1)
        spread = sampler.norm_spread(20, seed=3)
        assert spread == pytest.approx(norms.std() / norms.mean(), rel=1e-3)
    assert deep_ensemble(num_networks=1).norm_spread() is None


def test_an_ensemble_has_a_whole_number_of_networks():
    sampler = hypernetwork()
    for count in (0, -1, 2.5, "3"):
        with pytest.raises(ValueError, match=rf"^Cannot sample {count} networks: give a whole"):
            sampler.sample(count)


FAST_PARTS = (hypernetwork, mc_dropout)
PARTED = (LatentSampler, hn.MCDropout)


@pytest.mark.usefixtures("eager_fits")
@pytest.mark.parametrize(
    "make",
    [
        make if make in FAST_PARTS else pytest.param(make, marks=pytest.mark.slow)
        for make in SAMPLERS.values()
    ],
)
def test_many_networks_are_made_in_parts(make, monkeypatch):
    sampler = make(with_norm())
    whole = sampler.sample(7, seed=3)
    monkeypatch.setattr(base, "WEIGHTS_AT_ONCE", 3 * sampler.target.weight_count)
    drawn, real = [], sampler._traced_part

    def traced_part(*arguments, **options):
        drawn.append(real(*arguments, **options))
        return drawn[-1]

    sampler._traced_part = traced_part
    parts = sampler.sample(7, seed=3)
    sizes = [len(part.trainable[0]) for part in drawn]
    # A finite sampler holds its networks anyway, and a mixture makes all to give away some.
    assert sizes == ([3, 3, 1] if isinstance(sampler, PARTED) else [])
    for expected, actual in zip(whole.weights, parts.weights, strict=True):
        assert len(expected) == len(actual) > 0
        for one, other in zip(expected, actual, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"diversity": "entropy"}, "diversity is 'entropy': give a DiversityTerm"),
        ({"num_networks": 2.5}, "num_networks is 2.5: give a whole number"),
        ({"lam": "1e3"}, "lam is '1e3': give a finite number"),
        ({"seed": "a"}, "seed is 'a': give a whole number"),
        ({"seed": -1}, "seed is -1: give a whole number, at least 0"),
        ({"lam_growth": np.nan}, "lam_growth is nan: give a finite number above 0"),
        ({"gauge": {"permute": True}}, "gauge has permute: its options are softmax, "),
        ({"gauge": None}, "gauge is None: give True, False, or a dict of options"),
        (
            {"num_networks": 1},
            "num_networks is 1: Hypernetwork normalises over the networks of a step",
        ),
        ({"whole_layers": -1}, "whole_layers is -1: give indices"),
        ({"code_dim": 15.0}, "code_dim is 15.0: give whole numbers, or a list"),
        ({"generator_hidden": 100.0}, "generator_hidden is 100.0: give"),
        ({"latent_dim": 2.5}, "latent_dim is 2.5: give a whole number, at least 1"),
        ({"extractor_hidden": 100}, "extractor_hidden is 100: give a list of sizes"),
        ({"code_dim": [3, 2.5]}, r"code_dim is \[3, 2.5\]: give a list of sizes"),
        ({"generator_hidden": [[9], [9, "a"]]}, r"generator_hidden is \[9, 'a'\]: give a list"),
    ],
)
def test_a_wrong_argument_is_one_line(wrong, message):
    with pytest.raises(ValueError, match=rf"^{message}") as error:
        hypernetwork(**wrong)
    assert "\n" not in str(error.value)


def test_numbers_may_be_those_of_numpy_and_one_size_a_list():
    sampler = hypernetwork(code_dim=np.int64(3), latent_dim=np.int64(4), generator_hidden=[5])
    json.dumps(sampler.get_config())
    chain = hn.SGDChains(classifier(), num_chains=1, snapshot_every=np.int64(5))
    json.dumps(chain.get_config())


@pytest.mark.parametrize(
    "kind", [hn.DeepEnsemble, pytest.param(hn.HyperGAN, marks=pytest.mark.slow)]
)
def test_a_model_with_an_open_size_trains(kind):
    model = keras.Sequential(
        [keras.Input((None, 3)), layers.Conv1D(4, 3, padding="same"), layers.Dense(2)]
    )
    sampler = kind(model, num_networks=2)
    sampler.compile("sgd", LOGITS, metrics=["accuracy"], run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(8, 6, 3)).astype("float32")
    history = sampler.fit(x, np.zeros([8, 6], int), verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_images_of_any_size_train():
    model = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            layers.Conv2D(2, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3),
        ]
    )
    sampler = deep_ensemble(model, num_networks=2)
    sampler.compile(loss=LOGITS)
    rng = np.random.default_rng(0)
    sizes = [(4, 5, 6), (4, 7, 5), (3, 6, 6)]

    def batches():
        for size in sizes:
            yield rng.normal(size=(*size, 1)).astype("float32"), rng.integers(0, 3, size[0])

    shapes = (
        tf.TensorSpec([None, None, None, 1], tf.float32),
        tf.TensorSpec([None], tf.int64),
    )
    data = tf.data.Dataset.from_generator(batches, output_signature=shapes)
    data = data.apply(tf.data.experimental.assert_cardinality(len(sizes)))
    history = sampler.fit(data, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    sampler.run_eagerly = True  # no time for a graph of each size
    sampler.make_train_function(force=True)
    for x, y in batches():  # batches whose size is known
        assert np.isfinite(sampler.train_on_batch(x, y)).all()


@pytest.mark.usefixtures("eager_fits")
def test_a_short_last_batch_counts_by_its_examples_as_in_keras():
    x, y = np.zeros((10, 2), "float32"), np.zeros((10, 1), "float32")
    y[9] = 10
    sampler = deep_ensemble(keras.Sequential([keras.Input((2,)), layers.Dense(1)]), num_networks=1)
    sampler.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
    history = sampler.fit(x, y, batch_size=9, shuffle=False, verbose=0).history
    assert history["loss"] == history["accuracy_loss"] == pytest.approx([10.0])


class Near(keras.metrics.Mean):
    """A metric whose argument Keras does not know."""

    def __init__(self, threshold=0.5, name="near", **kwargs):
        super().__init__(name=name, **kwargs)
        self.threshold = threshold


class NearAgain(Near):
    """The same, with its configuration."""

    def get_config(self):
        return super().get_config() | {"threshold": self.threshold}


class Plain(keras.metrics.Metric):
    """A metric whose class takes no dtype, and has no configuration of its own."""

    def __init__(self, name="plain"):
        super().__init__(name=name)
        self.total = self.add_weight(name="total", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.total.assign_add(1.0)

    def result(self):
        return self.total


def first_column(y, y_pred):
    return y_pred[..., 0]


def test_metrics_are_copied_with_their_arguments_or_not_at_all():
    with pytest.raises(ValueError, match=r"^The metric 'near' cannot be copied .* 'threshold' fr"):
        deep_ensemble().compile(loss=LOGITS, metrics=[Near(0.9)])
    deep_ensemble().compile(loss=LOGITS, metrics=[NearAgain(0.9)])
    deep_ensemble().compile(loss=LOGITS, metrics=[Plain()])
    wrapped = keras.metrics.MeanMetricWrapper(first_column, name="first")
    with pytest.raises(ValueError, match=r"^The metric 'first' cannot be copied .* function its"):
        deep_ensemble().compile(loss=LOGITS, metrics=[wrapped])


@pytest.mark.usefixtures("eager_fits")
def test_a_metric_that_does_not_save_its_axis_is_copied_with_it():
    model = keras.Sequential([keras.Input((4, 2)), layers.Dense(3)])
    sampler = hn.DeepEnsemble(model, num_networks=1)
    metric = keras.metrics.CosineSimilarity(axis=1)
    sampler.compile("sgd", "mse", metrics=[metric])
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(6, 4, n)).astype("float32") for n in (2, 3))
    logs = sampler.evaluate(x, y, verbose=0, return_dict=True)
    metric.update_state(y, sampler.predict(x))
    assert logs["member_cosine_similarity"] == pytest.approx(float(metric.result()), rel=1e-4)


@pytest.mark.usefixtures("eager_fits")
def test_averaged_weights_that_a_callback_swaps_in_are_evaluated(blobs):
    """After its training Keras leaves the averaged weights in the model."""

    def validated(*callbacks):
        keras.utils.set_random_seed(0)
        sampler = deep_ensemble(num_networks=2)
        sampler.compile(keras.optimizers.SGD(0.5, use_ema=True), LOGITS)
        options = {"validation_data": blobs, "callbacks": [*callbacks], "verbose": 0}
        history = sampler.fit(*blobs, batch_size=48, epochs=2, **options).history
        averaged = sampler.evaluate(*blobs, verbose=0, return_dict=True)["member_loss"]
        return history["val_member_loss"][-1], averaged

    raw, expected = validated()
    averaged, again = validated(keras.callbacks.SwapEMAWeights())
    assert averaged == pytest.approx(expected, rel=1e-5) == again
    assert raw != pytest.approx(averaged, rel=1e-3)


@pytest.mark.parametrize("make", [deep_ensemble, hypernetwork, bhn, noise_control])
def test_a_call_in_mixed_precision_changes_no_sample(make, blobs):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        keras.utils.set_random_seed(0)
        sampler, other = make(), make()
        other.set_weights(sampler.get_weights())
    finally:
        keras.config.set_dtype_policy("float32")
    count = sampler.num_available or base.PREDICTION_NETWORKS
    sampler(blobs[0][:1])
    theta = sampler.sample(count).theta()
    assert theta.dtype == np.float32
    np.testing.assert_array_equal(theta, other.sample(count).theta())


def test_a_call_in_mixed_precision_leaves_frozen_layers_as_they_are(blobs):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        frozen = layers.Dense(8, trainable=False, dtype="mixed_bfloat16")
        sampler = deep_ensemble(keras.Sequential([keras.Input((2,)), frozen, layers.Dense(3)]))
    finally:
        keras.config.set_dtype_policy("float32")
    sampler.compile("sgd", LOGITS)
    sampler(blobs[0][:1])
    assert {state.dtype for state in sampler.sample(12).weights.state} == {tf.float32}
    assert np.isfinite(sampler.evaluate(*blobs, verbose=0)).all()


def test_values_of_frozen_layers_are_copied_with_the_weights(blobs):
    """As `keras.models.clone_model` and `set_weights` copy a model."""
    frozen = layers.Dense(8, trainable=False)
    target = hn.Target(keras.Sequential([keras.Input((2,)), frozen, layers.Dense(3)]))
    for sampler in (
        hn.DeepEnsemble(target, num_networks=2),
        hn.Mixture([hn.Hypernetwork(target), hn.Hypernetwork(target)]),
    ):
        copy = type(sampler).from_config(sampler.get_config())
        assert np.abs(sampler.predict(blobs[0]) - copy.predict(blobs[0])).max() > 1e-3
        copy.set_weights(sampler.get_weights())
        np.testing.assert_array_equal(sampler.predict(blobs[0]), copy.predict(blobs[0]))
        with pytest.raises(ValueError, match="weight"):
            copy.set_weights(sampler.get_weights()[:-1])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_a_sampler_in_half_precision_is_an_error(dtype):
    with pytest.raises(ValueError, match=rf"^Samplers train in float32, not {dtype}: use"):
        hypernetwork(dtype=dtype)


@pytest.mark.parametrize("make", [bhn, mc_dropout, apd])
def test_methods_with_a_prior_of_their_own_take_no_other(make):
    with pytest.raises(TypeError, match="prior_scale"):
        make(prior_scale=2.0)


@pytest.mark.usefixtures("eager_fits")
def test_class_weights_are_sample_weights(blobs):
    x, y = blobs
    weights = {0: 1.0, 1: 2.0, 2: 0.5}

    def loss(**options):
        sampler = deep_ensemble(num_networks=2)
        sampler.compile("sgd", LOGITS)
        history = sampler.fit(x, y, batch_size=96, shuffle=False, verbose=0, **options).history
        return history["accuracy_loss"]

    same = loss(sample_weight=np.array([weights[label] for label in y]))
    assert loss(class_weight=weights) == pytest.approx(same, rel=1e-5)
    assert loss() != pytest.approx(same, rel=1e-2)


@pytest.mark.usefixtures("eager_fits")
def test_losses_of_several_outputs_are_weighted(blobs):
    inputs = keras.Input((2,))
    heads = [layers.Dense(1, name="a")(inputs), layers.Dense(1, name="b")(inputs)]
    sampler = deep_ensemble(keras.Model(inputs, heads), num_networks=2)
    x, y = blobs
    labels = {"a": y[:, None], "b": -y[:, None]}

    def loss(a, b):
        weights = {"a": a, "b": b}
        sampler.compile("sgd", {"a": "mse", "b": "mse"}, loss_weights=weights)
        return sampler.evaluate(x, labels, verbose=0, return_dict=True)["member_loss"]

    assert loss(2.0, 0.5) == pytest.approx(2 * loss(1.0, 0.0) + 0.5 * loss(0.0, 1.0), rel=1e-5)


@pytest.mark.usefixtures("eager_fits")
def test_an_output_without_labels_beside_a_term_on_outputs(blobs):
    inputs = keras.Input((2,))
    heads = [layers.Dense(3, name="a")(inputs), layers.Dense(2, name="b")(inputs)]
    sampler = hypernetwork(
        keras.Model(inputs, heads), diversity=hn.diversity.NegativeOutputEntropy()
    )
    sampler.compile("sgd", {"a": LOGITS, "b": None})
    history = sampler.fit(blobs[0], {"a": blobs[1]}, batch_size=96, verbose=0).history
    assert np.isfinite(history["diversity_loss"]).all()


@pytest.mark.usefixtures("eager_fits")
def test_a_term_on_outputs_in_float64(blobs):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, dtype="float64")])
    sampler = hypernetwork(model, diversity=hn.diversity.NegativeOutputEntropy())
    sampler.compile("sgd", LOGITS)
    history = sampler.fit(*blobs, batch_size=96, verbose=0).history
    assert np.isfinite(history["diversity_loss"]).all()


@pytest.mark.usefixtures("eager_fits")
def test_a_layer_that_changes_its_state_as_it_trains_is_an_error(blobs):
    """Each network that is drawn starts from the first state, for ever."""
    model = keras.Sequential([keras.Input((2,)), Scale(), layers.Dense(3)])
    sampler = deep_ensemble(model, num_networks=2)
    sampler.compile("sgd", LOGITS)
    with one_line_error("changes its variable", "calls' as it trains"):
        sampler.fit(*blobs, verbose=0)
    recurrent = keras.Sequential([keras.Input((5, 2), batch_size=4), layers.LSTM(3, stateful=True)])
    both_ways = keras.Sequential(
        [keras.Input((5, 2), batch_size=4), layers.Bidirectional(layers.LSTM(3, stateful=True))]
    )
    for model in (recurrent, both_ways):
        with one_line_error("keeps its state between batches"):
            hn.Target(model)


def test_no_networks_predict_nothing(blobs):
    with pytest.raises(ValueError, match=r"^Cannot sample 0 networks: give a whole number"):
        deep_ensemble().predict(blobs[0], num_networks=0)


def test_each_fit_keeps_its_inputs_for_batch_norm_unless_some_were_set(blobs):
    sampler = hypernetwork(classifier(keras.layers.BatchNormalization()))
    sampler.compile(loss=LOGITS, run_eagerly=True)
    x, y = blobs
    for scale in (1.0, 5.0):
        sampler.fit(scale * x, y, batch_size=96, epochs=1, verbose=0)
        same_rows(sampler.batch_norm_data, scale * x)
    sampler.batch_norm_data = x[:10]
    sampler.fit(x, y, batch_size=96, epochs=1, verbose=0)
    np.testing.assert_array_equal(sampler.batch_norm_data, x[:10])


def test_numbers_of_numpy_are_numbers():
    sampler = hypernetwork(num_networks=np.int64(6), lam=np.float32(2.0), seed=np.int32(3))
    json.dumps(sampler.get_config())
    assert sampler.num_networks == 6


@pytest.mark.parametrize("form", ["arrays", pytest.param("data set", marks=pytest.mark.slow)])
def test_the_first_step_is_traced_once(blobs, monkeypatch, form):
    traced = []
    step = hn.Hypernetwork.train_step
    monkeypatch.setattr(
        hn.Hypernetwork, "train_step", lambda self, data: traced.append(1) or step(self, data)
    )
    sampler, (x, y) = hypernetwork(), blobs
    sampler.compile("adam", LOGITS, metrics=["accuracy"])
    if form == "arrays":
        sampler.fit(x, y, batch_size=64, verbose=0)
    else:
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(64)
        sampler.fit(data, shuffle=False, verbose=0)
    assert len(traced) == 1


def test_inputs_of_a_wrong_shape_are_one_line(blobs):
    y = blobs[1]
    sampler = deep_ensemble(num_networks=2)
    sampler.compile(loss=LOGITS)
    images = np.zeros((96, 5, 5, 3), "float32")
    single = tf.data.Dataset.from_tensor_slices(blobs)
    for call, shape in (
        (lambda: sampler.fit(images, y, verbose=0), "(96, 5, 5, 3)"),
        (lambda: sampler.evaluate(images, y, verbose=0), "(96, 5, 5, 3)"),
        (lambda: sampler.fit(single, verbose=0), "(2,)"),
        (lambda: sampler.evaluate(single, verbose=0), "(2,)"),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value) == (
            f"Inputs have shape {shape}, but the target takes [M, 2]: reshape them. "
            "Batch a data set of single examples, data_set.batch(32)."
        )
    assert int(sampler.step.numpy()) == 0


def test_the_summary_knows_every_shape():
    lines = []
    hypernetwork().summary(print_fn=lines.append)
    assert "(None, " in lines[0]
    assert "?" not in lines[0]


def test_float64_is_refused_in_one_line():
    keras.config.set_floatx("float64")
    try:
        with one_line_error("keras.config.set_floatx('float32')"):
            hn.Hypernetwork(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    finally:
        keras.config.set_floatx("float32")


def test_batch_norm_without_inputs_is_refused_before_training():
    norm = keras.layers.BatchNormalization()
    sampler = hn.DeepEnsemble(
        keras.Sequential([keras.Input((2,)), norm, keras.layers.Dense(1)]), num_networks=2
    )
    sampler.compile("sgd", "mse")
    x, y = np.ones((8, 2), "float32"), np.ones((8, 1), "float32")
    with one_line_error("set sampler.batch_norm_data"):
        sampler.fit((batch for batch in [(x, y)]), validation_data=(x, y), verbose=0)
    assert sampler.step.numpy() == 0


@pytest.mark.parametrize("form", ["dict", pytest.param("lists", marks=pytest.mark.slow)])
@pytest.mark.usefixtures("eager_fits")
def test_one_input_and_output_in_a_list_or_a_dict(form, blobs):
    """`keras.Model([x], [y])`, and an output with a name, take arrays as in Keras."""
    x, y = blobs
    image = keras.Input((2,), name="image")
    logits = layers.Dense(3)(image)
    ends = {"lists": ([image], [logits]), "dict": ({"image": image}, {"digit": logits})}
    sampler = hn.DeepEnsemble(keras.Model(*ends[form]), num_networks=2, seed=1)
    plain = hn.DeepEnsemble(keras.Model(image, logits), num_networks=2, seed=1)
    results = []
    for one in (sampler, plain):
        one.compile(keras.optimizers.SGD(0.1), LOGITS, metrics=["accuracy"])
        one.fit(x, y, batch_size=32, epochs=2, shuffle=False, verbose=0)
        ensemble = one.sample(2)
        options = {"steps": 2, "random_start": False, "clip": None}
        moved = hn.analysis.projected_gradient(ensemble, x, y, 0.1, **options)
        success = hn.analysis.adversarial_success(
            lambda count, seed, e=ensemble: e[:count],
            *(x, y),
            epsilons=[0, 0.2],
            batch_size=2,
            num_networks=0,
        )
        results.append((ensemble.evaluate(x, y).summary(), moved, success.network))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for index in (1, 2):
        np.testing.assert_allclose(results[0][index], results[1][index], atol=1e-6)
    logs = sampler.evaluate(x, y, verbose=0, return_dict=True)
    assert logs["member_accuracy"] == pytest.approx(results[0][0]["member_accuracy"])
    predicted = sampler.predict(x)
    predicted = predicted["digit"] if form == "dict" else predicted
    np.testing.assert_allclose(predicted, plain.predict(x), rtol=1e-5)
    if form == "dict":
        named = sampler.sample(2).evaluate(x, {"digit": y}).summary()
        assert named == sampler.sample(2).evaluate(x, y).summary()


@pytest.mark.parametrize("make", [deep_ensemble, hypernetwork])
@pytest.mark.usefixtures("eager_fits")
def test_a_prior_acts_on_the_weights_that_are_trained(make, blobs):
    """`evaluate` has the objective of training: of weights out of the gauge where they train so."""
    options = {"diversity": []} if make is hypernetwork else {}
    sampler = make(prior_scale=2.0, lam=3.0, **options)
    sampler.compile(keras.optimizers.SGD(0.0), LOGITS)
    logs = sampler.evaluate(*blobs, verbose=0, return_dict=True)
    ensemble = sampler.sample(sampler.num_available or base.PREDICTION_NETWORKS)
    theta = ensemble.theta()
    if not sampler.trains_in_gauge:
        drawn = sampler.draw(tf.constant([0, 0]), sampler.num_available, training=False)
        theta = sampler.target.flatten(hn.WeightSet(drawn.trainable, [])).numpy()
        assert not np.allclose(theta, ensemble.theta())
    prior = 0.5 * (theta / 2.0) ** 2 + np.log(2.0 * np.sqrt(2 * np.pi))
    expected = 3 * logs["member_loss"] + prior.sum(1).mean()
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.usefixtures("eager_fits")
def test_the_entropy_of_an_evaluation_has_the_dimension_of_training(blobs):
    """Nine weights, of 64 random numbers, lie in nine dimensions."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    sampler = hn.Hypernetwork(model, latent_dim=64, lam=3.0)
    sampler.compile(keras.optimizers.SGD(0.0), LOGITS)
    logs = sampler.evaluate(*blobs, verbose=0, return_dict=True)
    theta = sampler.sample(base.PREDICTION_NETWORKS).theta()
    step = hn.diversity.StepRecord(tf.constant(theta), manifold_dim=9)
    entropy = hn.diversity.NegativeEntropy().entropy(step)
    assert logs["loss"] == pytest.approx(3 * logs["member_loss"] - float(entropy), rel=1e-4)


@pytest.mark.usefixtures("eager_fits")
def test_a_far_neighbour_is_found_in_evaluations(blobs):
    sampler = hypernetwork(num_networks=13, diversity=hn.diversity.NegativeEntropy(k=11))
    sampler.compile("adam", LOGITS)
    history = sampler.fit(*blobs, batch_size=96, validation_data=blobs, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    assert len(sampler.prediction_networks()) == 12


@pytest.mark.usefixtures("eager_fits")
def test_inputs_that_keras_splits_off_are_not_kept(blobs):
    model = classifier(keras.layers.BatchNormalization())
    sampler = hypernetwork(model)
    sampler.compile("adam", LOGITS)
    sampler.fit(*blobs, batch_size=72, validation_split=0.25, verbose=0)
    same_rows(sampler.batch_norm_data, blobs[0][:72])


@pytest.mark.usefixtures("eager_fits")
def test_words_that_are_kept_for_batch_norm_stay_out_of_the_file(tmp_path):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((1,), dtype="string"),
            layers.StringLookup(vocabulary=["a", "b"]),
            layers.Embedding(3, 4),
            layers.Flatten(),
            layers.BatchNormalization(),
            layers.Dense(2),
        ]
    )
    sampler = hypernetwork(model)
    sampler.compile("adam", LOGITS)
    sampler.fit(tf.constant([["a"], ["b"]] * 12), np.array([0, 1] * 12), verbose=0)
    assert sampler.batch_norm_data is not None
    sampler.save(tmp_path / "words.keras")
    assert keras.saving.load_model(tmp_path / "words.keras").batch_norm_data is None


@pytest.mark.usefixtures("eager_fits")
def test_half_precision_does_not_round_the_weights_themselves():
    policy = keras.DTypePolicy("mixed_bfloat16")
    sampler = hypernetwork(initialization="scaled", gauge=False, dtype=policy)
    theta = sampler.sample(4).theta()
    rounded = tf.cast(tf.cast(theta, tf.bfloat16), tf.float32).numpy()
    assert np.mean(theta == rounded) < 0.5  # biases around an anchor of 0 are rounded


def test_xla_compiles_steps_only_if_it_is_asked_to():
    sampler = hypernetwork()
    sampler.compile("adam", LOGITS)
    assert sampler.jit_compile is False
    sampler.compile("adam", LOGITS, jit_compile=True)
    assert sampler.jit_compile is True


class TestRegularizers:
    def samplers(self, make, **options):
        orthogonal = keras.regularizers.OrthogonalRegularizer()
        for one, other in ((None, None), (orthogonal, keras.regularizers.L1L2(0.1, 2.0))):
            keras.utils.set_random_seed(0)
            hidden = layers.Dense(8, "relu", kernel_regularizer=one, bias_regularizer=other)
            last = layers.Dense(3, kernel_regularizer=other, name="last")
            yield make(keras.Sequential([keras.Input((2,)), hidden, last]), **options)

    @pytest.mark.parametrize(
        ("make", "gauge"),
        [(hypernetwork, False), (hypernetwork, True), (mixture, True), (deep_ensemble, True)],
    )
    def test_lam_times_the_penalties_of_weights_before_the_gauge(self, blobs, make, gauge):
        x, y = blobs
        plain, regular = losses = [], []
        for sampler, results in zip(self.samplers(make, gauge=gauge), losses, strict=True):
            sampler.compile(keras.optimizers.SGD(0.0), LOGITS, run_eagerly=True)
            results.append(sampler.train_on_batch(x, y, return_dict=True)["loss"])
            results.append(sampler.evaluate(x, y, verbose=0, return_dict=True)["loss"])
        seed = sampler.sampling_seed(0)
        count = len(sampler.prediction_networks())
        drawn = sampler.draw(seed, count, training=False)
        networks = hn.Ensemble(sampler.target, hn.WeightSet(drawn.trainable, []))
        penalties = [float(sum(network.to_keras().losses)) for network in networks]
        assert np.std(penalties) > 0
        expected = float(sampler.lam) * np.mean(penalties)
        np.testing.assert_allclose(regular[1] - plain[1], expected, rtol=2e-3)
        assert regular[0] - plain[0] > 0.5 * expected

    @pytest.mark.parametrize(
        ("make", "options"), [(mc_dropout, {"rates": {"last": 0.5}}), (noise_control, {})]
    )
    def test_they_see_trained_weights_without_masks_and_noise(self, blobs, make, options):
        losses = []
        for sampler in self.samplers(make, **options):
            sampler.compile("sgd", LOGITS, run_eagerly=True)
            losses.append(sampler.evaluate(*blobs, verbose=0, return_dict=True)["loss"])
        weights = [variable.value for variable in sampler.theta]
        expected = float(sampler.lam * sampler.target.regularization(weights))
        np.testing.assert_allclose(losses[1] - losses[0], expected, rtol=1e-4)

    def test_networks_that_are_learned_have_no_penalty(self, blobs):
        losses = []
        for sampler in self.samplers(apd):
            sampler.compile("sgd", LOGITS, run_eagerly=True)
            losses.append(sampler.evaluate(*blobs, verbose=0, return_dict=True)["loss"])
        assert losses[0] == losses[1]

    def test_they_are_saved_with_the_sampler(self, blobs, tmp_path):
        *_, sampler = self.samplers(deep_ensemble)
        sampler.compile("sgd", LOGITS, run_eagerly=True)
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        loaded.run_eagerly = True
        assert loaded.evaluate(*blobs, verbose=0) == sampler.evaluate(*blobs, verbose=0)

    def test_they_keep_generated_weights_small(self, blobs):
        norms = []
        for factor in (0.0, 1.0):
            dense = layers.Dense(3, kernel_regularizer=keras.regularizers.L2(factor))
            sampler = hypernetwork(keras.Sequential([keras.Input((2,)), dense]), diversity=[])
            sampler.compile(keras.optimizers.Adam(0.01), LOGITS)
            sampler.fit(*blobs, epochs=30, verbose=0)
            norms.append(np.linalg.norm(sampler.sample(20).theta()))
        assert norms[1] < 0.5 * norms[0]


class Initialized(hn.DeepEnsemble):
    """Keeps the inputs on which it is initialised."""

    seen: list

    def initialize(self, x=None, *, verbose=0):
        self.seen.append((None if x is None else len(x), verbose))


@pytest.mark.parametrize("looks", [False, True])
def test_the_first_fit_initialises(blobs, looks):
    x, y = blobs
    sampler = Initialized(classifier(), num_networks=2)
    sampler.seen, sampler.initializes_on_inputs = [], looks
    sampler.compile("sgd", LOGITS, run_eagerly=True)
    sampler.fit(x, y, 96, 1, 0)
    assert sampler.seen == [(96 if looks else None, 0)]
    sampler.fit(x, y, batch_size=96, verbose=0)
    assert len(sampler.seen) == 1
    other = Initialized(classifier(), num_networks=2)
    other.seen, other.initializes_on_inputs = [], looks
    other.compile("sgd", LOGITS, run_eagerly=True)
    batches = (batch for batch in [(x, y)])
    other.fit(batches, steps_per_epoch=1, shuffle=False, verbose=0)
    assert other.seen == [(None, 0)]


class Watched(hn.diversity.DiversityTerm):
    """Keeps the records of the steps that it sees."""

    def __init__(self, *, outputs=False):
        super().__init__()
        self.uses_outputs = outputs
        self.seen = []

    def value(self, step):
        self.seen.append(step)
        return tf.zeros([])


class Ordered(hn.diversity.TrainedTerm):
    """Keeps the order in which its two functions are called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls = []

    def build(self, step):
        self.scale = self.add_weight(shape=(), initializer="ones")

    def own_loss(self, step):
        self.calls.append("own loss")
        return tf.square(self.scale.value)

    def value(self, step):
        self.calls.append("value")
        self.theta = step.theta
        return self.scale.value * tf.reduce_mean(step.theta)


class TestStep:
    """What a training step hands to losses, terms and optimizer."""

    @pytest.mark.usefixtures("eager_fits")
    def test_each_step_and_each_sample_has_masks_of_its_own(self, blobs):
        sampler = deep_ensemble(classifier(layers.Dropout(0.5)), num_networks=2)
        sampler.compile(keras.optimizers.SGD(0.0), LOGITS, run_eagerly=True)
        losses = []
        for _ in range(2):
            logs = sampler.train_on_batch(*blobs, return_dict=True)
            losses.append(logs["accuracy_loss"])
            sampler.reset_metrics()
        assert losses[0] != losses[1]
        first, second = (sampler.sample(2, seed=seed).weights.state[0] for seed in (0, 1))
        assert np.any(first.numpy() != second.numpy())

    @pytest.mark.usefixtures("eager_fits")
    def test_a_scaled_loss_makes_the_same_step(self, blobs):
        thetas = []
        for scale in (None, 1024.0):
            one = keras.optimizers.SGD(0.1)
            if scale:
                one = keras.optimizers.LossScaleOptimizer(one, initial_scale=scale)
            sampler = deep_ensemble(num_networks=2, gauge=False)
            before = sampler.sample(2).theta()
            sampler.compile(one, LOGITS, run_eagerly=True)
            sampler.train_on_batch(*blobs)
            thetas.append(sampler.sample(2).theta())
        assert np.abs(thetas[0] - before).max() > 1e-3
        np.testing.assert_allclose(*thetas, rtol=1e-4, atol=1e-6)

    def test_terms_draw_other_numbers_in_each_step(self, blobs):
        term = Watched()
        sampler = hypernetwork(diversity=term)
        sampler.compile("sgd", LOGITS, run_eagerly=True)
        for _ in range(2):
            sampler.train_on_batch(*blobs)
        seeds = [step.seed.numpy().tolist() for step in term.seen]
        assert seeds == [
            base.stream_seed(sampler.seed, base.TERMS, step).numpy().tolist() for step in (0, 1)
        ]
        assert seeds[0] != seeds[1]
        latent = base.stream_seed(sampler.seed, base.TRAIN, 0).numpy().tolist()
        assert seeds[0] != latent

    def test_a_term_learns_before_its_value_is_taken(self, blobs):
        term = Ordered(optimizer=keras.optimizers.SGD(0.25))
        sampler = hypernetwork(diversity=term)
        sampler.compile("sgd", LOGITS, run_eagerly=True)
        logs = sampler.train_on_batch(*blobs, return_dict=True)
        assert term.calls == ["own loss", "value"]
        assert float(term.scale) == 0.5
        assert logs["diversity_loss"] == pytest.approx(0.5 * term.theta.numpy().mean(), rel=1e-4)

    def test_terms_know_the_dimension_of_the_codes(self, blobs):
        term = Watched()
        sampler = hypergan(diversity=term)
        sampler.compile("sgd", LOGITS, run_eagerly=True)
        sampler.train_on_batch(*blobs)
        sampler.test_on_batch(*blobs)
        assert [step.manifold_dim for step in term.seen] == [2 * 3, 2 * 3]  # two layers
        assert sampler.latent_dim == 14

    def test_terms_on_outputs_see_the_labels_of_the_first_network(self, blobs):
        x, y = blobs
        term = Watched(outputs=True)
        sampler = hypernetwork(diversity=term)
        sampler.compile("sgd", LOGITS, run_eagerly=True)
        sampler.train_on_batch(x, y)
        (step,) = term.seen
        assert len(step.y) == 16
        assert not np.array_equal(y[:16], y[16:32])
        np.testing.assert_array_equal(step.y, y[:16])

    def test_terms_on_outputs_see_networks_with_dropout(self):
        term = Watched(outputs=True)
        sampler = hypernetwork(classifier(layers.Dropout(0.5)), diversity=term)
        sampler.compile(keras.optimizers.SGD(0.0), LOGITS, run_eagerly=True)
        sampler.train_on_batch(np.ones((96, 2), "float32"), np.zeros(96))
        (step,) = term.seen
        assert np.ptp(step.outputs, axis=1).max() > 1e-3  # on equal images

    def test_terms_on_outputs_see_the_mean_of_logits_if_the_loss_does(self, blobs):
        x, y = blobs
        one_hot = keras.utils.to_categorical(y, 3)
        for kind, seen in (("BinaryCrossentropy", True), ("CategoricalCrossentropy", False)):
            term = Watched(outputs=True)
            target = hn.Target(classifier(), outputs="logits")
            sampler = hn.Hypernetwork(target, num_networks=2, diversity=term)
            sampler.compile("sgd", getattr(keras.losses, kind)(from_logits=True), run_eagerly=True)
            sampler.train_on_batch(x, one_hot)
            (step,) = term.seen
            assert (np.abs(step.outputs.numpy().sum(-1)).max() > 1e-3) == seen

    def test_what_replicas_cannot_compute_is_checked_in_each_trace(self, blobs, monkeypatch):
        calls = []
        monkeypatch.setattr(base.Share, "check", lambda self, *checked: calls.append(checked))
        sampler = deep_ensemble(num_networks=2)
        sampler.compile("sgd", LOGITS, run_eagerly=True)
        sampler.train_on_batch(*blobs)
        assert calls == [(sampler.optimizer, sampler.target, sampler.loss)]


@pytest.mark.usefixtures("eager_fits")
def test_the_objective_of_an_evaluation_counts_a_short_batch_by_its_examples(blobs):
    sampler = hypernetwork(diversity=[EnsembleLoss()], lam=7.0)
    sampler.compile(loss=LOGITS)
    logs = sampler.evaluate(*blobs, batch_size=40, verbose=0, return_dict=True)  # 40, 40, 16
    expected = 7 * logs["member_loss"] + logs["ensemble_loss"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("first", ["categorical_crossentropy", "binary_crossentropy"])
def test_a_copy_forgets_what_the_loss_said_as_its_original_does(first, tmp_path):
    """A sampler from a configuration, or from a file, can be compiled with any loss."""
    loss = getattr(keras.losses, first.title().replace("_", ""))(from_logits=True)
    plain = hypernetwork()
    sampler = hypernetwork()
    sampler.compile("sgd", loss)
    sampler.save(tmp_path / "sampler.keras")
    assert "before_compile" in sampler.get_config()
    assert "before_compile" not in plain.get_config()
    copies = [
        hn.Hypernetwork.from_config(sampler.get_config()),
        keras.saving.load_model(tmp_path / "sampler.keras", compile=False),
        keras.saving.load_model(tmp_path / "sampler.keras"),
    ]
    for one in copies:
        assert one.target.outputs == sampler.target.outputs
        assert one.get_config() == sampler.get_config()
        one.compile("sgd", "mse")
        assert one.target.outputs == "values"
        assert one.get_config()["gauge"] == plain.get_config()["gauge"]


def test_a_sampler_without_an_optimizer_is_evaluated(blobs):
    sampler = hypernetwork()
    sampler.compile(None, LOGITS, run_eagerly=True)
    assert np.isfinite(sampler.evaluate(*blobs, verbose=0)).all()


@pytest.mark.usefixtures("eager_fits")
@pytest.mark.parametrize("make", [hypergan, bhn])
def test_a_mistake_in_what_fit_gets_changes_nothing(make, blobs):
    x, y = blobs
    sampler = make()
    before = sampler.sample(2).theta()
    with pytest.raises(ValueError, match="compile"):
        sampler.fit(x, y, verbose=0)
    sampler.compile("sgd", LOGITS)
    with pytest.raises(ValueError, match="Labels"):
        sampler.fit(x, y + 5, verbose=0)
    np.testing.assert_array_equal(sampler.sample(2).theta(), before)


# ---- what Keras users expect of attributes and of compile ------------------------------------


@pytest.mark.usefixtures("eager_fits")
def test_a_new_lam_is_that_of_the_next_step(blobs):
    sampler = hypernetwork(lam=1.0)
    sampler.compile("sgd", LOGITS, run_eagerly=False)
    sampler.train_on_batch(*blobs)
    sampler.lam = 50.0
    assert isinstance(sampler.lam, keras.Variable)
    logs = sampler.train_on_batch(*blobs, return_dict=True)
    tracked = {m.name: float(m.result()) for m in sampler.metrics}
    assert float(sampler.lam.numpy()) == 50.0
    assert logs["loss"] != pytest.approx(tracked["accuracy_loss"] + tracked["diversity_loss"])
    with pytest.raises(AttributeError, match=r"diversity of a sampler is fixed.*Hypernetwork\("):
        sampler.diversity = []
    assert len(sampler.diversity) == 1


@pytest.mark.usefixtures("eager_fits")
def test_compiled_again_without_a_loss_the_one_before_stays(blobs):
    sampler = deep_ensemble(num_networks=2)
    sampler.compile("sgd", LOGITS, metrics=["accuracy"])
    sampler.fit(*blobs, verbose=0)
    probabilities = sampler.predict(blobs[0])
    sampler.compile(keras.optimizers.Adam(1e-4))
    assert sampler.target.outputs == "logits"
    np.testing.assert_array_equal(sampler.predict(blobs[0]), probabilities)
    history = sampler.fit(*blobs, validation_data=blobs, verbose=0).history
    assert {"accuracy", "val_member_accuracy", "val_ensemble_loss"} <= history.keys()


@pytest.mark.usefixtures("eager_fits")
def test_metrics_of_an_earlier_compilation_are_forgotten(blobs):
    sampler = deep_ensemble(num_networks=2)
    sampler.compile(
        "sgd", LOGITS, metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")]
    )
    sampler.fit(*blobs, verbose=0)
    sampler.compile("sgd", LOGITS, metrics=["accuracy"])
    accuracy = sampler.fit(*blobs, verbose=0).history["accuracy"][0]
    assert accuracy > 0
    assert [metric.name for metric in sampler.metrics].count("accuracy") <= 1
    with pytest.raises(ValueError, match="takes probabilities"):
        sampler.compile("sgd", "sparse_categorical_crossentropy")
    sampler.compile("adam")  # with the loss that was not refused
    assert sampler.fit(*blobs, verbose=0).history["accuracy"][0] > 0


@pytest.mark.usefixtures("eager_fits")
def test_first_weights_depend_on_the_seed_and_not_on_the_target():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, activation="softmax")])
    target, theta = hn.Target(model), []
    for _ in range(2):
        keras.utils.set_random_seed(3)
        theta.append(hn.Hypernetwork(target).sample(2).theta())
    np.testing.assert_array_equal(*theta)


def test_a_call_without_state_uses_the_values_that_it_is_given(blobs):
    sampler = deep_ensemble(num_networks=2)
    sampler.compile("sgd", LOGITS)
    trained = [variable.value for variable in sampler.trainable_variables]
    others = [variable.value for variable in sampler.non_trainable_variables]
    expected = sampler.predict(blobs[0])
    outputs, _ = sampler.stateless_call(trained, others, blobs[0])
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)
    zeros = [tf.zeros_like(value) for value in trained]
    outputs, _ = sampler.stateless_call(zeros, others, blobs[0])
    np.testing.assert_allclose(outputs, 1 / 3, rtol=1e-5)
    for variable in sampler.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    np.testing.assert_allclose(sampler.predict(blobs[0]), 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(sampler(blobs[0]), 1 / 3, rtol=1e-5)


def test_files_of_other_formats_are_those_of_one_network(tmp_path):
    sampler = deep_ensemble(num_networks=2)
    with pytest.raises(ValueError, match=r"as 'litert': write one network, sample\(1\)"):
        sampler.export(tmp_path / "model", format="litert")
    assert not list(tmp_path.iterdir())
