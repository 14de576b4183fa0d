"""Evaluations against the metrics of all outputs at once, scikit-learn, and repeated examples."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf
from small_ensembles import (
    CLASSES,
    EXAMPLES,
    convolutional,
    ensemble_of,
    one_line,
)

import hypernet_tf as hn
from hypernet_tf.ensembles import inference
from hypernet_tf.metrics import (
    adaptive_calibration_error,
    energy,
    expected_calibration_error,
    majority_vote,
    mutual_information,
    negative_log_likelihood,
    pairwise_disagreement,
    predictive_entropy,
    probability_variance,
)

layers = keras.layers


def test_evaluation_equals_the_metrics_of_all_outputs_at_once(classifier, x):
    p, y = classifier.p, classifier.y
    result = classifier.ensemble.evaluate(x, y)
    assert isinstance(result, hn.Evaluation)
    choice, classes, mean = p.argmax(-1), p.shape[-1], p.mean(0)
    accuracy, log_loss = sklearn.metrics.accuracy_score, sklearn.metrics.log_loss
    exact = {
        "member_accuracy": [accuracy(y, c) for c in choice],
        "member_negative_log_likelihood": [
            log_loss(y, q / q.sum(-1, keepdims=True), labels=range(classes)) for q in p
        ],
        "majority_vote_accuracy": accuracy(y, majority_vote(choice, classes)),
        "mean_probability_accuracy": accuracy(y, mean.argmax(-1)),
        "most_confident_accuracy": accuracy(y, p.max(0).argmax(-1)),
        "negative_log_likelihood": -np.log(mean[np.arange(EXAMPLES), y]).mean(),
        "expected_calibration_error": expected_calibration_error(np.log(mean), y),
        "adaptive_calibration_error": adaptive_calibration_error(np.log(mean), y),
        "brier_score": ((mean - np.eye(classes)[y]) ** 2).sum(-1).mean(),
        "disagreement": pairwise_disagreement(np.log(p)).mean(),
        "confusion": sklearn.metrics.confusion_matrix(y, mean.argmax(-1), labels=range(classes)),
    }
    deviation = np.std(exact["member_accuracy"], ddof=1)
    exact |= {
        "member_accuracy_std": deviation,
        "member_accuracy_min": np.min(exact["member_accuracy"]),
        "member_accuracy_max": np.max(exact["member_accuracy"]),
    }
    assert {*result.members, *result.ensemble, "confusion"} == set(exact)
    for name, value in exact.items():
        np.testing.assert_allclose(getattr(result, name), value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert 0 < result.mean_probability_accuracy < 1
    json.dumps(result.ensemble)  # plain numbers


def test_evaluation_of_values(cases, x):
    c = cases["values"]
    y = np.random.default_rng(2).normal(size=(EXAMPLES, 2))
    result = c.ensemble.evaluate(x, y, batch_size=7)
    error = sklearn.metrics.mean_squared_error
    np.testing.assert_allclose(
        result.member_mean_squared_error, [error(y, o) for o in c.loop], rtol=1e-5
    )
    assert result.mean_squared_error == pytest.approx(error(y, c.loop.mean(0)), rel=1e-5)
    assert result.standard_deviation == pytest.approx(c.loop.std(0).mean(), rel=1e-5)
    json.dumps(result.ensemble)
    assert result.confusion is None


def test_one_value_may_be_given_without_its_axis(x):
    ensemble = ensemble_of(convolutional(layers.Dense(1)), "values")
    y = np.random.default_rng(2).normal(size=EXAMPLES)
    flat, column = (ensemble.evaluate(x, values) for values in (y, y[:, None]))
    exact = ((ensemble.outputs(x)[..., 0] - y) ** 2).mean(1)
    for result in (flat, column):
        np.testing.assert_allclose(result.member_mean_squared_error, exact, rtol=1e-5)


def test_one_network_has_no_disagreement(cases, x):
    c = cases["logits"]
    result = c.ensemble[0].evaluate(x, c.y)
    assert np.isnan(result.disagreement)
    assert result.majority_vote_accuracy == result.member_accuracy[0]


def test_evaluations_do_not_depend_on_chunks(cases, x, monkeypatch):
    for kind, c in cases.items():
        y = x[:, :2, 0, 0] if kind == "values" else c.y
        whole = c.ensemble.evaluate(x, y)
        with monkeypatch.context() as patch:
            patch.setattr(inference, "_NETWORKS_AT_ONCE", 2)
            parts = c.ensemble.evaluate(x, y, batch_size=4)
            predicted = c.ensemble.predict(x, batch_size=4)
            if kind != "values":
                votes = c.ensemble.majority_vote(x, batch_size=4)
                np.testing.assert_array_equal(votes, c.ensemble.majority_vote(x))
        assert parts.summary().keys() == whole.summary().keys()
        for name in whole.summary():
            values = getattr(parts, name), getattr(whole, name)
            np.testing.assert_allclose(*values, rtol=1e-6, err_msg=f"{kind} {name}")
        np.testing.assert_equal(parts.confusion, whole.confusion)
        np.testing.assert_allclose(predicted, c.ensemble.predict(x), rtol=1e-5, atol=1e-6)


def test_labels_of_every_form(cases, x):
    c = cases["logits"]
    evaluate, y = c.ensemble.evaluate, c.y
    exact = evaluate(x, y)
    one_hot = np.eye(CLASSES)[y]
    for same in (list(y), y[:, None], y.astype("uint8"), y.astype("float32"), one_hot,
                 one_hot.astype(bool), tf.constant(y)):  # fmt: skip
        np.testing.assert_equal(vars(evaluate(x, same)), vars(exact))
    fraction, missing = y + 0.0, y + 0.0
    fraction[3], missing[3] = 0.5, np.nan
    for wrong in (
        np.where(y == 0, CLASSES, y),
        y - 1,
        fraction,
        missing,
        0.9 * one_hot + 0.1 / CLASSES,
        one_hot[:, :3],
        np.stack([y, y], 1),
        np.array(["a"] * EXAMPLES),
    ):
        with pytest.raises(ValueError) as error:
            evaluate(x, wrong)
        assert one_line(error).startswith(
            "Labels must be integers from 0 to 3, one for each example"
        )
    with pytest.raises(ValueError) as error:
        evaluate(x, y[:-1])
    assert one_line(error) == "There are 22 labels for 23 examples: give one for each."
    binary = cases["one logit"]
    with pytest.raises(ValueError, match=r"^Labels must be integers from 0 to 1,"):
        binary.ensemble.evaluate(x, np.full(EXAMPLES, 2))
    with pytest.raises(ValueError) as error:
        cases["values"].ensemble.evaluate(x, np.zeros([EXAMPLES, 3]))
    assert one_line(error) == (
        "Values of shape [3] do not match predictions of shape [2]: reshape them; or if they are "
        "classes, make the target with Target(model, outputs='logits')."
    )


def test_uncertainty_does_not_depend_on_chunks(cases, x):
    ensemble = cases["logits"].ensemble
    whole, parts = (ensemble.uncertainty(x, batch_size=size) for size in (None, 5))
    log_p = ensemble.log_probabilities(x)
    np.testing.assert_allclose(whole.entropy, predictive_entropy(log_p))
    np.testing.assert_allclose(whole.mutual_information, mutual_information(log_p))
    np.testing.assert_allclose(whole.variance, probability_variance(log_p))
    highest = ensemble.predict(x).max(-1)
    np.testing.assert_allclose(whole.least_confidence, 1 - highest, atol=1e-6)
    np.testing.assert_allclose(whole.energy, energy(ensemble.outputs(x)))
    predicted = ensemble.predictions(x, batch_size=5)
    np.testing.assert_allclose(predicted.log_probabilities, log_p, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(predicted.logits, ensemble.outputs(x), rtol=1e-5, atol=1e-6)
    for name, values in whole.scores.items():
        np.testing.assert_allclose(getattr(parts, name), values, rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match="uncertainty needs classes"):
        ensemble_of(convolutional(layers.Dense(2)), "values").uncertainty(x)


def test_the_energy_of_half_precision_is_that_of_its_logits():
    policy = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential([keras.Input((1,)), layers.Dense(2, dtype=policy)])
    target = hn.Target(model, outputs="logits")
    theta = tf.constant([[700.0, 0.0, 0.0, 0.0]])
    ensemble = hn.Ensemble(target, target.unflatten(theta), temperature=0.01)
    np.testing.assert_allclose(ensemble.uncertainty(np.ones((1, 1))).energy, -70_000)


@pytest.mark.parametrize("kind", ["softmax", "one logit", "one sigmoid"])
def test_networks_without_a_logit_for_each_class_have_no_energy(kind, cases, x):
    ensemble = cases[kind].ensemble
    assert ensemble.predictions(x).logits is None
    with pytest.raises(AttributeError, match=r"^There is no energy of these networks"):
        _ = ensemble.uncertainty(x).energy


def test_an_evaluation_is_printed_as_a_line_for_each_measure(classifier, x):
    result = classifier.ensemble.evaluate(x, classifier.y)
    first, *lines = str(result).splitlines()
    assert first == f"{len(result)} networks"
    assert len(lines) == len(result.summary())
    vote = f"accuracy of the majority vote (%): {100 * result.majority_vote_accuracy:.2f}"
    assert vote in lines


def test_an_evaluation_is_copied_and_pickled(cases, x):
    c = cases["logits"]
    result = c.ensemble.evaluate(x, c.y)
    for same in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert same.summary() == result.summary()
        np.testing.assert_array_equal(same.member_accuracy, result.member_accuracy)


# ---- sample weights -------------------------------------------------------------------------


def labels_of(case, kind, x):
    return x[:, :2, 0, 0] if kind == "values" else case.y


def test_equal_weights_have_no_effect(cases, x):
    """Exactly, for a weight that has no exact inverse, and for chunks."""
    for kind, c in cases.items():
        y = labels_of(c, kind, x)
        for batch_size in (None, 5):
            plain = c.ensemble.evaluate(x, y, batch_size=batch_size)
            weights = np.full(EXAMPLES, 0.3)
            equal = c.ensemble.evaluate(x, y, sample_weight=weights, batch_size=batch_size)
            for name in plain.summary():
                np.testing.assert_array_equal(getattr(equal, name), getattr(plain, name), name)
            if kind != "values":
                np.testing.assert_allclose(equal.confusion, 0.3 * plain.confusion)


def test_integer_weights_are_repeated_examples(cases, x):
    weights = np.random.default_rng(4).integers(0, 4, EXAMPLES)
    weights[:5] = 0  # a whole chunk has no weight
    for kind, c in cases.items():
        y = labels_of(c, kind, x)
        repeated = c.ensemble.evaluate(np.repeat(x, weights, 0), np.repeat(y, weights, 0))
        for scale in (1, 2.5):
            result = c.ensemble.evaluate(x, y, sample_weight=scale * weights, batch_size=5)
            for name, value in result.summary().items():
                if name == "adaptive_calibration_error":
                    assert value is None and np.isnan(result.adaptive_calibration_error)
                    continue
                values = getattr(result, name), getattr(repeated, name)
                np.testing.assert_allclose(*values, rtol=1e-5, atol=1e-6, err_msg=name)
            if kind != "values":
                np.testing.assert_allclose(result.confusion, scale * repeated.confusion)


def test_weights_that_are_no_weights_raise(cases, x):
    c = cases["logits"]
    wrong = np.ones(EXAMPLES)
    wrong[3] = -1
    data = tf.data.Dataset.from_tensor_slices((x, c.y, wrong)).batch(5)
    for evaluate in (
        lambda: c.ensemble.evaluate(x, c.y, sample_weight=wrong),
        lambda: c.ensemble.evaluate(x, c.y, sample_weight=np.zeros(EXAMPLES)),
        lambda: c.ensemble.evaluate(x, c.y, sample_weight=wrong[:-1]),
        lambda: c.ensemble.evaluate(data),
    ):
        with pytest.raises(ValueError) as error:
            evaluate()
        assert one_line(error).startswith("Sample weights must be numbers [23]")


@pytest.mark.parametrize("per_step", [False, True], ids=["one_choice", "choices"])
def test_pairs_of_many_classes_are_not_counted(per_step):
    """A vocabulary of 30,000 words has 9e8 pairs: 7 GB."""
    words = 30_000
    tokens = keras.Input((2,), dtype="int32")
    x = keras.layers.Embedding(9, 2)(tokens)
    x = x if per_step else keras.layers.Flatten()(x)
    target = hn.Target(keras.Model(tokens, keras.layers.Dense(words)(x)), outputs="logits")
    theta = np.random.default_rng(0).normal(size=(2, target.weight_count)).astype("float32")
    ensemble = hn.Ensemble(target, target.unflatten(theta))
    x, y = np.array([[1, 2], [3, 4]]), np.array([[5, words - 1], [7, 8]])
    result = ensemble.evaluate(x, y if per_step else y[:, 1])
    assert result.confusion is None
    p = np.exp(ensemble.log_probabilities(x)).mean(0)
    chosen = np.take_along_axis(p, y[..., None] if per_step else y[:, 1:], -1)
    assert result.negative_log_likelihood == pytest.approx(-np.log(chosen).mean(), rel=1e-4)


def test_values_of_another_shape_are_an_error():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(6), layers.Reshape((2, 3))])
    ensemble = ensemble_of(model)
    x = np.ones((7, 2), "float32")
    y = ensemble.predict(x)
    assert ensemble.evaluate(x, y).mean_squared_error == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match=r"Values of shape \[3, 2\] do not match"):
        ensemble.evaluate(x, y.transpose(0, 2, 1))


def test_an_infinite_loss_of_weight_0_does_not_count():
    log_p = np.array([[0.0, -np.inf], np.log([0.7, 0.3])])
    labels, weights = np.array([1, 0]), np.array([0.0, 2.0])
    assert negative_log_likelihood(log_p, labels, weights) == pytest.approx(-np.log(0.7))
