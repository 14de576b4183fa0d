"""Ensembles against a loop over their networks, each an ordinary Keras model."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax
from small_ensembles import (
    CLASSES,
    CLASSIFIERS,
    EXAMPLES,
    MODELS,
    NETWORKS,
    ensemble_of,
    normalised,
    one_line,
)

import hypernet_tf as hn
from hypernet_tf.ensembles import ensemble as ensembles
from hypernet_tf.ensembles.examples import Examples

layers = keras.layers


def test_kinds_of_target(cases):
    kinds = {k: (c.ensemble.target.outputs, c.ensemble.target.classes) for k, c in cases.items()}
    assert kinds == {
        "logits": ("logits", CLASSES),
        "softmax": ("probabilities", CLASSES),
        "one logit": ("logits", 2),
        "one sigmoid": ("probabilities", 2),
        "values": ("values", None),
    }
    for c in cases.values():  # the networks differ: no test compares a network with itself
        assert np.ptp(c.loop, 0).max() > 0.1


def test_outputs_equal_the_loop(case, x):
    np.testing.assert_allclose(case.ensemble.outputs(x), case.loop, rtol=1e-5, atol=1e-5)


def test_predict_is_the_mean_of_probabilities_or_values(cases, x):
    for kind, c in cases.items():
        if kind == "values":
            exact = c.loop.mean(0)
        else:
            exact = c.p.mean(0)[:, 1:] if kind.startswith("one ") else c.p.mean(0)
        prediction = c.ensemble.predict(x)
        assert prediction.shape == c.loop.shape[1:]
        np.testing.assert_allclose(prediction, exact, rtol=1e-5, atol=1e-6)


def test_log_probabilities_and_vote_equal_the_loop(classifier, x):
    log_p = classifier.ensemble.log_probabilities(x)
    np.testing.assert_allclose(log_p, np.log(classifier.p), rtol=1e-4, atol=1e-5)
    choice = classifier.p.argmax(-1)  # [N, M]
    most = [np.bincount(column).argmax() for column in choice.T]
    np.testing.assert_array_equal(classifier.ensemble.majority_vote(x), most)


@pytest.mark.usefixtures("eager_fits")
def test_extreme_outputs_have_finite_logarithms(x):
    """Exact, also where a softmax or a sigmoid rounds to 0 or 1."""
    for kind in CLASSIFIERS:
        model, outputs = MODELS[kind]
        ensemble = ensemble_of(model(), outputs, scale=40.0)
        log_p = ensemble.log_probabilities(x)
        without = hn.Ensemble(ensemble.target.with_logits, ensemble.weights)
        logits = without.outputs(x).astype(np.float64)
        if logits.shape[-1] == 1:
            logits = np.concatenate([0 * logits, logits], -1)
        expected = log_softmax(logits, -1)
        assert expected.min() < -80, kind
        np.testing.assert_allclose(log_p, expected, rtol=1e-5, atol=1e-5)
        assert log_p.max() <= 0
        y = np.arange(EXAMPLES) % ensemble.target.classes
        result = ensemble.evaluate(x, y)
        likelihood = -np.mean(np.take_along_axis(log_p, y[None, :, None], -1), (1, 2))
        np.testing.assert_allclose(result.member_negative_log_likelihood, likelihood, rtol=1e-5)


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_sure_sigmoid_is_as_wrong_about_either_class(policy, tmp_path):
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, "sigmoid", dtype=policy)])
    target = hn.Target(model)
    ensemble = hn.Ensemble(target, target.unflatten(tf.constant([[1.0, 0.0]])))
    x = np.array([[20.0], [-20.0]], "float32")
    losses = hn.metrics.log_losses(ensemble.log_probabilities(x), np.array([0, 1]))
    np.testing.assert_allclose(losses, [[20.0, 20.0]], rtol=1e-6)
    again = hn.metrics.log_losses(ensemble.predictions(x).log_probabilities, np.array([0, 1]))
    np.testing.assert_array_equal(again, losses)
    cool = hn.Ensemble(target, ensemble.weights, temperature=3.0)
    exact = 1 / (1 + np.exp(-x / 3))
    np.testing.assert_allclose(cool.predict(x), exact, rtol=1e-5)
    np.testing.assert_allclose(np.exp(cool.log_probabilities(x))[0, :, 1:], exact, rtol=1e-5)
    cool.export(tmp_path / "cool")
    served = tf.saved_model.load(tmp_path / "cool").signatures["serving_default"](
        inputs=tf.constant(x)
    )
    np.testing.assert_allclose(served["probabilities"], exact, rtol=1e-5)
    expected = cool.uncertainty(x)
    np.testing.assert_allclose(served["least_confidence"], expected.least_confidence, rtol=1e-4)
    assert {*served} == {"probabilities", *expected.scores}


def test_half_precision_has_finite_logarithms():
    policy = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3, activation="softmax", dtype=policy)]
    )
    ensemble = ensemble_of(model, scale=30.0)
    x = np.ones([4, 2], "float32")
    assert ensemble.outputs(x).dtype == np.float16
    assert np.isfinite(ensemble.log_probabilities(x)).all()


def test_indexing(cases):
    ensemble = cases["logits"].ensemble
    theta = ensemble.theta()
    assert len(ensemble) == NETWORKS
    assert theta.shape == (NETWORKS, ensemble.target.weight_count)
    for index in (0, 3, -1, -5, np.int64(2), np.argmax([0, 1])):
        one = ensemble[index]
        assert len(one) == 1
        np.testing.assert_array_equal(one.theta(), theta[index : index + 1 or None])
    for part in (slice(1, 3), slice(None), slice(-2, None), slice(None, None, 2), slice(4, 0, -2)):
        np.testing.assert_array_equal(ensemble[part].theta(), theta[part])
    members = list(ensemble)
    assert [len(one) for one in members] == [1] * NETWORKS
    np.testing.assert_array_equal(np.concatenate([one.theta() for one in members]), theta)


def test_networks_out_of_range_raise(cases):
    ensemble = cases["logits"].ensemble
    for index in (5, -6):
        with pytest.raises(IndexError) as error:
            ensemble[index]
        assert one_line(error) == f"There is no network {index}: this ensemble has 5."
    for part in (slice(5, 9), slice(2, 2), slice(3, 1)):
        with pytest.raises(IndexError, match=r"^There is no network in this slice\.$"):
            ensemble[part]
    with pytest.raises(TypeError):
        ensemble[[0, 1]]
    with pytest.raises(ValueError) as error:
        ensemble.to_keras()
    assert one_line(error) == (
        "A Keras model holds 1 network, this ensemble has 5: take one of them, "
        "ensemble[0].to_keras()."
    )


def test_ensembles_of_several_samplers_are_one(cases, x):
    first = cases["logits"].ensemble
    other = ensemble_of(MODELS["logits"][0](), "logits", num_networks=3, scale=1.3)
    together = hn.Ensemble.concatenate([first, other, first[:1]])
    assert len(together) == NETWORKS + 3 + 1
    parts = [first.outputs(x), other.outputs(x), first.outputs(x)[:1]]
    np.testing.assert_allclose(together.outputs(x), np.concatenate(parts), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(hn.Ensemble.concatenate([first]).theta(), first.theta())


def test_statistics_of_concatenated_ensembles_are_those_of_their_networks(x):
    raw = ensemble_of(normalised())
    first, other = raw[:2].update_batch_norm(x), raw[2:].update_batch_norm(x[::2])
    together = hn.Ensemble.concatenate([first, other])
    parts = [first.outputs(x), other.outputs(x)]
    np.testing.assert_allclose(together.outputs(x), np.concatenate(parts), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="no moving statistics"):
        hn.Ensemble.concatenate([first, raw]).outputs(x)


def test_ensembles_that_do_not_fit_are_not_concatenated(cases, x):
    logits, softmax = cases["logits"].ensemble, cases["softmax"].ensemble
    normalisations = [
        ensemble_of(
            keras.Sequential(
                [keras.Input((2,)), layers.Normalization(mean=mean, variance=1), layers.Dense(3)]
            )
        )
        for mean in (0.1, 0.5)
    ]
    y = np.arange(EXAMPLES) % CLASSES
    for others, message in (
        ([], "No ensembles to concatenate: give at least one."),
        ([logits, cases["values"].ensemble], "weights of different shapes or data types"),
        ([*normalisations], "a Normalization adapted to other data"),
        ([logits, softmax], "outputs are logits and probabilities"),
        ([logits, logits.calibrate(x, y)], "concatenate them before calibrate()"),
    ):
        with pytest.raises(ValueError) as error:
            hn.Ensemble.concatenate(others)
        assert message in one_line(error)


def test_a_vote_on_values_raises(cases, x):
    for method in ("majority_vote", "log_probabilities"):
        with pytest.raises(ValueError) as error:
            getattr(cases["values"].ensemble, method)(x)
        assert "needs classes, but the target returns values" in one_line(error)


def test_inputs_of_another_shape_raise(cases, x):
    """For example the images of another data set."""
    for wrong in (np.repeat(x, 3, -1), x[:, :5], x[..., 0]):
        with pytest.raises(ValueError) as error:
            cases["logits"].ensemble.uncertainty(wrong)
        assert "but the target takes [M, 6, 6, 1]: reshape them." in one_line(error)


def test_inputs_for_each_network_are_not_taken_for_examples(cases, x):
    """As many sequences of images as there are networks."""
    ensemble = cases["logits"].ensemble
    stacked = np.repeat(x[None, :3], len(ensemble), 0)
    for run in (ensemble.predict, ensemble.uncertainty, ensemble.outputs):
        with pytest.raises(ValueError, match=r"the target takes \[M, 6, 6, 1\]"):
            run(stacked)


def test_large_outputs_run_on_few_examples_at_once(cases, x, monkeypatch):
    ensemble = cases["values"].ensemble
    expected = ensemble.predict(x)
    size = math.prod(ensemble.outputs(x[:1]).shape)
    monkeypatch.setattr(ensembles, "_OUTPUTS_AT_ONCE", 3 * size)
    sizes = [chunk.size for _, chunk in ensemble._run(Examples(x), None, 0)]
    assert max(sizes) == 3 and sum(sizes) == len(x)
    np.testing.assert_allclose(ensemble.predict(x), expected, rtol=1e-5, atol=1e-6)


def test_no_examples_raise(cases, x):
    ensemble = cases["logits"].ensemble
    norms = ensemble_of(normalised(), "logits")
    for run in (
        ensemble.predict,
        ensemble.outputs,
        ensemble.majority_vote,
        ensemble.log_probabilities,
        lambda x: ensemble.evaluate(x, []),
        lambda x: cases["values"].ensemble.evaluate(x, []),
        norms.update_batch_norm,
    ):
        with pytest.raises(ValueError) as error:
            run(x[:0])
        assert one_line(error) == "There are no examples to run on."


def two_inputs():
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    hidden = layers.Dense(4, activation="relu")(layers.Concatenate()([left, right]))
    return {"left": left, "right": right}, hidden


def test_several_inputs_and_outputs():
    inputs, hidden = two_inputs()
    outputs = {"mean": layers.Dense(1)(hidden), "scale": layers.Dense(2)(hidden)}
    ensemble = ensemble_of(keras.Model(inputs, outputs), "values")
    rng = np.random.default_rng(0)
    x = {"left": rng.normal(size=(5, 3)), "right": rng.normal(size=(5, 2))}
    mean = ensemble.predict(x, batch_size=2)
    for name, values in mean.items():
        loop = [network.to_keras().predict(x, verbose=0)[name] for network in ensemble[:2]]
        np.testing.assert_allclose(ensemble.outputs(x)[name][:2], loop, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(values, ensemble.outputs(x)[name].mean(0), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError) as error:
        ensemble.evaluate(x, np.zeros(5))
    assert one_line(error) == "evaluate() needs a target with one output: use predict()."
    for uneven in (x | {"left": x["left"][:4]}, [1.0, 2.0]):
        with pytest.raises(ValueError) as error:
            ensemble.predict(uneven)
        assert "with the same number of examples in each" in one_line(error)


def test_one_output_with_a_name():
    inputs, hidden = two_inputs()
    ensemble = ensemble_of(keras.Model(inputs, {"digit": layers.Dense(3)(hidden)}), "logits")
    rng = np.random.default_rng(0)
    x = {"left": rng.normal(size=(5, 3)), "right": rng.normal(size=(5, 2))}
    logits = ensemble.outputs(x)["digit"]
    y = np.arange(5) % 3
    np.testing.assert_array_equal(ensemble.log_probabilities(x).argmax(-1), logits.argmax(-1))
    accuracy = ensemble.evaluate(x, y).member_accuracy
    np.testing.assert_allclose(accuracy, (logits.argmax(-1) == y).mean(-1))


def test_a_class_for_each_pixel_is_predicted_but_not_voted_on():
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(3, 1)])
    ensemble = ensemble_of(model, "logits")
    x = np.ones([2, 4, 4, 1], "float32")
    assert ensemble.predict(x).shape == (2, 4, 4, 3)
    with pytest.raises(ValueError) as error:
        ensemble.majority_vote(x)
    assert "needs one choice of class per example" in one_line(error)


class TestNaN:
    """Inputs and networks that give no numbers are counted in one line."""

    @pytest.mark.parametrize("method", ["predict", "uncertainty", "majority_vote", "evaluate"])
    def test_networks_are_counted(self, method, cases, x):
        target = cases["logits"].ensemble.target
        theta = cases["logits"].ensemble.theta().copy()
        theta[1:3] = np.nan
        ensemble = hn.Ensemble(target, target.unflatten(tf.constant(theta)))
        arguments = [np.zeros(EXAMPLES, int)] if method == "evaluate" else []
        rule = f"^2 of {NETWORKS} networks return NaN or infinity, the first of them number 1: "
        with pytest.raises(ValueError, match=rule):
            getattr(ensemble, method)(x, *arguments)

    def test_minus_infinity_is_a_logit_and_no_value(self, x):
        model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten()])
        model.add(keras.layers.Dense(3))
        biases = tf.constant([[0.0, -np.inf, 1.0], [0.0, 1.0, 2.0]])
        for outputs in ("logits", "values"):
            target = hn.Target(model, outputs=outputs)
            kernels = tf.zeros([2, *target.layers[0].slots[0].shape])
            ensemble = hn.Ensemble(target, hn.WeightSet([kernels, biases], []))
            if outputs == "logits":
                assert ensemble.log_probabilities(x)[0, 0, 1] < -80
                continue
            with pytest.raises(ValueError, match=r"^1 of 2 networks return NaN or infinity"):
                ensemble.predict(x)

    def test_infinite_inputs_are_counted(self, cases, x):
        x = x.copy()
        x[3] = np.inf
        rule = (
            f"^1 of {EXAMPLES} inputs that ran together have infinity, the first of them number 3: "
        )
        with pytest.raises(ValueError, match=rule):
            cases["logits"].ensemble.predict(x)

    def test_the_number_of_an_input_is_that_among_all(self, cases, x):
        x = x.copy()
        x[5] = np.nan
        rule = "^1 of 2 inputs that ran together have NaN, the first of them number 5: "
        with pytest.raises(ValueError, match=rule):
            cases["logits"].ensemble.predict(x, batch_size=2)

    def test_true_values_are_counted(self, cases, x):
        y = np.zeros([EXAMPLES, 2])
        y[4, 1] = np.nan
        rule = f"^1 of {EXAMPLES} true values are NaN or infinite, the first of them number 4: "
        with pytest.raises(ValueError, match=rule):
            cases["values"].ensemble.evaluate(x, y)

    def test_inputs_of_statistics_are_counted(self, x):
        x = x.copy()
        x[2] = np.nan
        rule = f"^1 of {EXAMPLES} inputs that ran together have NaN, the first of them number 2: "
        with pytest.raises(ValueError, match=rule):
            ensemble_of(normalised(), "logits").update_batch_norm(x)

    def test_inputs_are_counted(self, cases, x):
        x = x.copy()
        x[2] = np.nan
        rule = f"^1 of {EXAMPLES} inputs that ran together have NaN, the first of them number 2: "
        with pytest.raises(ValueError, match=rule):
            cases["logits"].ensemble.predict(x)


def test_a_mean_of_half_precision_neither_overflows_nor_rounds():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, dtype="mixed_float16")])
    target = hn.Target(model)
    count = 1000
    bias = tf.fill([count, 1], 100.0)  # their sum is more than 65,504
    ensemble = hn.Ensemble(target, target.unflatten(tf.concat([tf.zeros([count, 1]), bias], 1)))
    assert ensemble.predict(np.zeros((1, 1), "float32")) == pytest.approx(100.0)


def test_bfloat16_is_saved_and_loaded(tmp_path):
    frozen = layers.Dense(4, dtype="bfloat16", trainable=False)
    model = keras.Sequential([keras.Input((4,)), frozen, layers.Dense(3)])
    ensemble = ensemble_of(model)
    ensemble.save(tmp_path / "ensemble.npz")
    loaded = hn.Ensemble.load(tmp_path / "ensemble.npz")
    x = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_array_equal(loaded.outputs(x), ensemble.outputs(x))
    assert loaded.target.frozen[0].dtype == "bfloat16"


def test_labels_by_the_name_of_the_output(cases, x):
    ensemble, y = cases["logits"].ensemble, cases["logits"].y
    (name,) = ensemble.target.output_names
    expected = ensemble.evaluate(x, y).summary()
    assert ensemble.evaluate(x, {name: y}).summary() == expected
    data = tf.data.Dataset.from_tensor_slices((x, {name: y})).batch(8)
    assert ensemble.evaluate(data).summary() == pytest.approx(expected, nan_ok=True)
    with pytest.raises(ValueError, match=f"There is no output 'other': the target has {name}."):
        ensemble.evaluate(x, {"other": y})


def test_outputs_of_several_sizes_are_one_line():
    model = keras.Sequential([keras.Input((None, 2)), layers.Conv1D(3, 1, activation="softmax")])
    ensemble = ensemble_of(model)
    batches = [np.ones((2, size, 2), "float32") for size in (3, 5)]
    data = tf.data.Dataset.from_generator(
        lambda: batches, output_signature=tf.TensorSpec([None, None, 2])
    )
    for run in (ensemble.predict, ensemble.outputs, ensemble.uncertainty, ensemble.predictions):
        with pytest.raises(ValueError) as error:
            run(data)
        assert "run examples of one size at a time" in one_line(error)


def test_a_sampler_is_no_ensemble():
    sampler = hn.DeepEnsemble(MODELS["logits"][0](), num_networks=2)
    control = hn.NoiseControl(sampler.target)
    for use, what in (
        (lambda: hn.Ensemble.concatenate([sampler, sampler]), r"concatenate\(\)"),
        (lambda: hn.distill(sampler, np.zeros([2, 2])), "Distillation"),
        (lambda: hn.APD(sampler.target, ensemble=sampler), "APD"),
        (lambda: control.match(sampler), r"match\(\)"),
        (lambda: hn.analysis.direct_path(sampler, sampler), "A path between weights"),
    ):
        with pytest.raises(
            ValueError, match=rf"^{what} needs an ensemble, as sampler\.sample\(10\)"
        ):
            use()
