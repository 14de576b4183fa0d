"""Accuracy, likelihood and votes against closed forms, loops over networks, and scikit-learn."""

import inspect
import math
import sys

import numpy as np
import pytest
import scipy.special
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from predictions import ensemble_predictions, functions_of

from hypernet_tf.metrics import accuracy, calibration

moderately = settings(deadline=None, derandomize=True, max_examples=50)


@st.composite
def choices(draw):
    """Classes [N, M] that N networks choose, with many ties, and C."""
    num_networks, num_examples = draw(st.integers(1, 7)), draw(st.integers(1, 8))
    num_classes = draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(0, num_classes, (num_networks, num_examples)), num_classes


def test_every_function_is_tested():
    names = functions_of(accuracy)
    source = inspect.getsource(sys.modules[__name__])
    assert len(names) == 18
    assert [name for name in names if f"accuracy.{name}(" not in source] == []


def test_arrays_of_examples_of_one_size_are_joined():
    parts = [np.zeros((2, 3, 4)), np.ones((2, 1, 4))]
    assert accuracy.concatenated(parts, 1).shape == (2, 4, 4)
    with pytest.raises(ValueError, match="run examples of one size at a time"):
        accuracy.concatenated(parts)


# ---- probabilities --------------------------------------------------------------------------


@moderately
@given(ensemble_predictions())
def test_mean_log_probabilities_are_those_of_the_mean(drawn):
    log_p, _ = drawn
    exact = np.log(np.mean([np.exp(network.astype(np.float64)) for network in log_p], 0))
    np.testing.assert_allclose(accuracy.mean_log_probabilities(log_p), exact, rtol=1e-6, atol=1e-6)


def test_mean_log_probabilities_keep_small_ones():
    """The mean of e^-1000 and 3·e^-1000, both 0 in float64, is 2·e^-1000."""
    log_p = np.array([[[-1000.0, 0.0]], [[-1000.0 + math.log(3.0), 0.0]]])
    exact = [[-1000.0 + math.log(2.0), 0.0]]
    np.testing.assert_allclose(accuracy.mean_log_probabilities(log_p), exact, rtol=1e-15)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_a_class_of_probability_zero(dtype):
    log_p = np.log([[[0.5, 1.0, 1e-30]], [[0.25, 0.75, 1e-30]]]).astype(dtype)
    log_p[0, 0, 0] = log_p[:, 0, 2] = -np.inf
    mean = accuracy.mean_log_probabilities(log_p)
    np.testing.assert_allclose(mean, [[math.log(0.125), math.log(0.875), -np.inf]], rtol=1e-6)
    assert accuracy.negative_log_likelihood(mean, np.array([2])) == np.inf


@moderately
@given(ensemble_predictions())
def test_negative_log_likelihood_equals_scikit_learn(drawn):
    log_p, labels = drawn
    classes = np.arange(log_p.shape[-1])
    result = accuracy.negative_log_likelihood(log_p, labels)
    assert result.shape == (len(log_p),)
    for network, value in zip(log_p, result, strict=True):
        p = np.exp(network.astype(np.float64))
        p /= p.sum(-1, keepdims=True)  # undo float32's rounding: scikit-learn checks the sum
        assert value == pytest.approx(sklearn.metrics.log_loss(labels, p, labels=classes), abs=1e-6)
        assert accuracy.negative_log_likelihood(network, labels) == value


def test_negative_log_likelihood_is_exact_for_extreme_probabilities():
    log_p = np.array([[0.0, -1000.0], [-2000.0, 0.0], [0.0, -3000.0]], np.float32)
    assert accuracy.negative_log_likelihood(log_p, np.array([1, 0, 0])) == 1000.0
    assert accuracy.negative_log_likelihood(log_p, np.array([0, 1, 0])) == 0.0
    losses = accuracy.log_losses(np.stack([log_p, 2 * log_p]), np.array([1, 1, 1]))
    np.testing.assert_array_equal(losses, [[1000, 0, 3000], [2000, 0, 6000]])


@moderately
@given(ensemble_predictions())
def test_accuracy_equals_scikit_learn(drawn):
    log_p, labels = drawn
    by_network = accuracy.classification_accuracy(log_p, labels)
    for network, value in zip(log_p, by_network, strict=True):
        exact = sklearn.metrics.accuracy_score(labels, network.argmax(-1))
        assert value == pytest.approx(exact)
        assert accuracy.classification_accuracy(network, labels) == value
        assert accuracy.correct(network, labels).mean() == value


def test_squared_errors_by_hand():
    outputs = np.array([[[1.0, 2.0], [0.0, 0.0]], [[3.0, 2.0], [0.0, 1.0]]])  # [N, M, 2]
    values = np.array([[1.0, 0.0], [0.0, 3.0]])
    expected = [[2.0, 4.5], [4.0, 2.0]]
    np.testing.assert_array_equal(accuracy.squared_errors(outputs, values), expected)
    np.testing.assert_array_equal(accuracy.squared_errors(outputs[1], values), expected[1])
    flat = accuracy.squared_errors(outputs[..., 0], values[:, 0])
    np.testing.assert_array_equal(flat, [[0.0, 0.0], [4.0, 0.0]])


# ---- votes ----------------------------------------------------------------------------------


def test_majority_vote_by_hand():
    """Five networks, four examples: a majority, a tie of two, five choices, all the same."""
    chosen = np.array(
        [
            [2, 2, 0, 1],
            [2, 1, 1, 1],
            [0, 1, 3, 1],
            [2, 2, 2, 1],
            [1, 0, 4, 1],
        ]
    )
    np.testing.assert_array_equal(accuracy.majority_vote(chosen, 5), [2, 1, 0, 1])
    np.testing.assert_array_equal(accuracy.votes(chosen, 5)[1], [1, 2, 2, 0, 0])


@moderately
@given(choices(), st.randoms(use_true_random=False))
def test_votes_equal_a_count_in_any_order_of_the_networks(drawn, random):
    chosen, classes = drawn
    counts = accuracy.votes(chosen, classes)
    assert counts.shape == (chosen.shape[1], classes)
    for example, column in enumerate(chosen.T):
        assert [list(column).count(c) for c in range(classes)] == list(counts[example])
    winners = accuracy.majority_vote(chosen, classes)
    for example, winner in enumerate(winners):
        most = counts[example].max()
        assert winner == min(c for c in range(classes) if counts[example, c] == most)
    shuffled = random.sample(list(chosen), len(chosen))
    np.testing.assert_array_equal(accuracy.majority_vote(np.array(shuffled), classes), winners)


@moderately
@given(ensemble_predictions())
def test_most_confident_equals_a_loop(drawn):
    log_p, _ = drawn
    result = accuracy.most_confident(log_p)
    for example in range(log_p.shape[1]):
        best = max(log_p[:, example], key=lambda network: network.max())
        assert result[example] == best.argmax()


def test_the_most_confident_network_is_found_where_confidence_rounds_to_1():
    logits = np.array([[[20.0, 0.0, 0.0]], [[0.0, 40.0, 0.0]], [[0.0, 0.0, 30.0]]], "float32")
    assert accuracy.most_confident(scipy.special.log_softmax(logits, -1)) == [1]


# ---- what is not a log-probability ----------------------------------------------------------


def test_probabilities_and_other_shapes_are_refused():
    p, labels = np.array([[0.9, 0.1], [0.2, 0.8]]), [0, 1]
    functions = (
        accuracy.classification_accuracy,
        accuracy.negative_log_likelihood,
        accuracy.brier_score,
        calibration.expected_calibration_error,
        calibration.adaptive_calibration_error,
        calibration.reliability,
    )
    for function in functions:
        function(np.log(p).tolist(), labels)  # lists are arrays
        with pytest.raises(
            ValueError, match=r"not log-probabilities, the largest is 0\.9: give th"
        ):
            function(p, labels)
        with pytest.raises(ValueError, match=r"have the shape \[2\]: give \[examples, classes\]"):
            function(np.log(p[0]), labels)
    for function in functions[2:]:
        with pytest.raises(ValueError, match=r"have the shape \[1, 2, 2\]: give \[examples, cl"):
            function(np.log(p)[None], labels)
    words = r"the shape \[2, 2\]: give \[networks, examples, classes\]; one network is log_prob"
    for function in (accuracy.mean_log_probabilities, accuracy.most_confident):
        with pytest.raises(ValueError, match=words):
            function(np.log(p))
        with pytest.raises(ValueError, match="not log-probabilities"):
            function(p[None])
    for logits, total in (([[-5.0, -1.0]], "0.375"), (np.full([3, 200], np.log(1e-3)), "0.2")):
        with pytest.raises(ValueError, match=rf"probabilities of an example sum to {total}: give"):
            accuracy.negative_log_likelihood(np.array(logits), np.zeros(len(logits), int))
    rounded = np.log(np.array([[1.003, 0.05]], "float32"))  # as half precision rounds
    assert accuracy.check_log_probabilities(rounded, 2) is rounded


# ---- Brier score -----------------------------------------------------------------------------


@moderately
@given(ensemble_predictions())
def test_brier_score_equals_its_formula_and_scikit_learn(drawn):
    log_p, labels = drawn
    log_p = log_p[0]
    p = np.exp(log_p.astype(np.float64))
    result = accuracy.brier_score(log_p, labels)
    exact = np.mean(((p - np.eye(p.shape[1])[labels]) ** 2).sum(-1))
    assert result == pytest.approx(exact, rel=1e-12)
    assert 0 <= result < 2 + 1e-6
    assert accuracy.brier_scores(log_p, labels).mean() == pytest.approx(result, rel=1e-12)
    if p.shape[1] == 2:  # scikit-learn counts the second class only, which is half of the score
        half = sklearn.metrics.brier_score_loss(labels, np.minimum(p[:, 1], 1.0), pos_label=1)
        assert result == pytest.approx(2 * half, abs=1e-6)


def test_predictions_that_are_no_classes_raise():
    for classes in ([[0, 2]], [[-1, 0]], [[0.0, 1.0]]):
        for function in (accuracy.votes, accuracy.majority_vote):
            with pytest.raises(ValueError, match=r"^Predictions must be integers from 0 to 1\.$"):
                function(np.array(classes), 2)
        with pytest.raises(ValueError, match=r"^Predictions must be integers from 0 to 1\.$"):
            accuracy.confusion(np.array(classes[0]), np.array([0, 1]), 2)


def test_bools_are_two_classes():
    log_p, labels = np.log([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]]), np.array([True, False, False])
    exact = accuracy.brier_scores(log_p, labels.astype(int))
    np.testing.assert_array_equal(accuracy.brier_scores(log_p, labels), exact)
    np.testing.assert_array_equal(accuracy.confusion(labels, labels, 2), [[2, 0], [0, 1]])


def test_brier_score_reaches_its_bounds():
    certain = np.array([[0.0, -200.0, -200.0]] * 3)
    assert accuracy.brier_score(certain, np.zeros(3, int)) == pytest.approx(0.0, abs=1e-170)
    assert accuracy.brier_score(certain, np.full(3, 2)) == pytest.approx(2.0)
    uniform = np.log(np.full([3, 3], 1 / 3))
    assert accuracy.brier_score(uniform, np.arange(3)) == pytest.approx(2 / 3)
    ruled_out = np.array([[0.0, -np.inf]])
    assert accuracy.brier_score(ruled_out, np.array([1])) == pytest.approx(2.0)


@moderately
@given(choices())
def test_confusion_equals_scikit_learn(drawn):
    (labels, *others), classes = drawn
    for predictions in (labels, *others):
        result = accuracy.confusion(predictions, labels, classes)
        exact = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(classes))
        np.testing.assert_array_equal(result, exact)
        parts = [slice(0, 1), slice(1, None)]
        counts = [accuracy.count_pairs(predictions[i], labels[i], classes) for i in parts]
        np.testing.assert_array_equal(sum(counts), exact)


@pytest.mark.parametrize(
    "measure",
    [
        accuracy.log_losses,
        accuracy.negative_log_likelihood,
        accuracy.brier_score,
        calibration.expected_calibration_error,
        calibration.adaptive_calibration_error,
        calibration.reliability,
    ],
)
def test_labels_that_are_no_classes_raise(measure):
    """For example labels of letters, or of noise."""
    log_p = np.log(np.full([4, 3], 1 / 3))
    measure(log_p, np.array([0, 1, 2, 0]))
    for wrong in ([0, 1, 2, 3], [0, 1, 2, -1], [[0], [1], [2], [0]], [0, 1, 2], [0.0, 1.0, 2.0, 0]):
        with pytest.raises(ValueError, match=r"^Labels must be integers \[4\] from 0 to 2\.$"):
            accuracy.check_labels(np.array(wrong), 4, 3)
        with pytest.raises(ValueError, match=r"^Labels must be integers \[4\] from 0 to 2\.$"):
            measure(log_p, np.array(wrong))


# ---- sample weights --------------------------------------------------------------------------

MEANS = (
    lambda log_p, y, **w: accuracy.classification_accuracy(log_p, y, **w),
    lambda log_p, y, **w: accuracy.negative_log_likelihood(log_p, y, **w),
    lambda log_p, y, **w: accuracy.brier_score(log_p[0], y, **w),
    lambda log_p, y, **w: accuracy.mean_over_examples(accuracy.correct(log_p, y), **w),
    lambda log_p, y, **w: calibration.expected_calibration_error(log_p[0], y, **w),
)


@moderately
@given(ensemble_predictions(), st.randoms(use_true_random=False))
def test_integer_weights_are_repeated_examples_and_equal_weights_are_none(drawn, random):
    log_p, labels = drawn
    weights = np.array([random.randint(0, 3) for _ in labels])
    weights[0] += 1
    repeated = np.repeat(log_p, weights, 1), np.repeat(labels, weights)
    for mean in MEANS:
        value = mean(log_p, labels, sample_weight=weights)
        np.testing.assert_allclose(value, mean(*repeated), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(mean(log_p, labels, sample_weight=0.3 * weights), value)
        equal = mean(log_p, labels, sample_weight=np.full(len(labels), 0.3))
        np.testing.assert_array_equal(equal, mean(log_p, labels))
    choices, num_classes = log_p[0].argmax(-1), log_p.shape[-1]
    counts = accuracy.confusion(choices, labels, num_classes, weights)
    expected = accuracy.confusion(repeated[0][0].argmax(-1), repeated[1], num_classes)
    np.testing.assert_array_equal(counts, expected)


def test_weights_that_are_no_weights_raise():
    log_p, labels = np.log(np.full([1, 3, 2], 0.5)), np.array([0, 1, 1])
    for wrong in ([1, 1], [1, -1, 1], [0, 0, 0], [1, np.nan, 1], [1, np.inf, 1], [[1], [2], [3]]):
        message = r"^Sample weights must be numbers \[3\], at least 0 and not all of them 0\.$"
        with pytest.raises(ValueError, match=message):
            accuracy.check_weights(np.array(wrong), 3)
        with pytest.raises(ValueError, match=message):
            accuracy.negative_log_likelihood(log_p, labels, np.array(wrong))


def test_labels_and_values_of_other_shapes_are_one_line():
    log_p = np.log(np.full((4, 2), 0.5))
    with pytest.raises(ValueError, match=r"^Labels must be integers \[4\] from 0 to 1"):
        accuracy.classification_accuracy(log_p, np.zeros((4, 1), int))
    with pytest.raises(ValueError, match=r"^Labels must be integers \[0\]"):
        accuracy.check_labels(np.zeros((0, 1), int), 0, 2)
    np.testing.assert_allclose(accuracy.log_losses(log_p, np.arange(4) > 1), np.log(2))
    with pytest.raises(ValueError, match=r"^Predictions \[3, 4, 1\] and true values \[4\] do not"):
        accuracy.squared_errors(np.zeros((3, 4, 1)), np.zeros(4))
