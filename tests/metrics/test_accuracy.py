"""Ensemble metrics against closed forms, loops over networks and pairs, and scikit-learn."""

import inspect
import itertools
import math

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from hypernet_tf.metrics import accuracy as metrics
from hypernet_tf.metrics import calibration

moderately = settings(deadline=None, derandomize=True, max_examples=50)


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@st.composite
def predictions(draw, least=1):
    """log-probabilities [N, M, C] in float32 or float64, and labels [M]."""
    networks, examples = draw(st.integers(least, 6)), draw(st.integers(1, 12))
    classes = draw(st.integers(2, 5))
    sharpness = draw(st.sampled_from((0.1, 1.0, 5.0)))
    dtype = draw(st.sampled_from((np.float32, np.float64)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = sharpness * rng.normal(size=(networks, examples, classes))
    return log_softmax(logits).astype(dtype), rng.integers(0, classes, examples)


@st.composite
def choices(draw, least=1):
    """Classes [N, M] that N networks choose, with many ties, and C."""
    networks, examples = draw(st.integers(least, 7)), draw(st.integers(1, 8))
    classes = draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(0, classes, (networks, examples)), classes


def test_every_metric_is_tested():
    ours = [
        name
        for name, value in vars(metrics).items()
        if inspect.isfunction(value) and value.__module__ == metrics.__name__
    ]
    here = inspect.getsource(inspect.getmodule(predictions))
    assert len(ours) == 9
    assert all(f"metrics.{name}(" in here for name in ours)


# ---- probabilities --------------------------------------------------------------------------


@moderately
@given(predictions())
def test_mean_log_probabilities_are_those_of_the_mean(drawn):
    log_p, _ = drawn
    exact = np.log(np.mean([np.exp(network.astype(np.float64)) for network in log_p], 0))
    np.testing.assert_allclose(metrics.mean_log_probabilities(log_p), exact, rtol=1e-6, atol=1e-6)


def test_mean_log_probabilities_lose_no_small_one():
    """The mean of e^-1000 and 3·e^-1000, both 0 in float64, is 2·e^-1000."""
    log_p = np.array([[[-1000.0, 0.0]], [[-1000.0 + math.log(3.0), 0.0]]])
    exact = [[-1000.0 + math.log(2.0), 0.0]]
    np.testing.assert_allclose(metrics.mean_log_probabilities(log_p), exact, rtol=1e-15)


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_a_class_that_networks_rule_out(dtype):
    log_p = np.log([[[0.5, 0.5, 1e-30]], [[0.25, 0.75, 1e-30]]]).astype(dtype)
    log_p[0, 0, 0] = log_p[:, 0, 2] = -np.inf
    mean = metrics.mean_log_probabilities(log_p)
    np.testing.assert_allclose(mean, [[math.log(0.125), math.log(0.625), -np.inf]], rtol=1e-6)
    assert metrics.negative_log_likelihood(mean, np.array([2])) == np.inf


@moderately
@given(predictions())
def test_negative_log_likelihood_equals_scikit_learn(drawn):
    log_p, labels = drawn
    classes = np.arange(log_p.shape[-1])
    ours = metrics.negative_log_likelihood(log_p, labels)
    assert ours.shape == (len(log_p),)
    for network, value in zip(log_p, ours, strict=True):
        p = np.exp(network.astype(np.float64))
        p /= p.sum(-1, keepdims=True)  # float32's rounding is undone: scikit-learn checks the sum
        assert value == pytest.approx(sklearn.metrics.log_loss(labels, p, labels=classes), abs=1e-6)
        assert metrics.negative_log_likelihood(network, labels) == value


def test_negative_log_likelihood_is_exact_for_extreme_probabilities():
    log_p = np.array([[0.0, -1000.0], [-2000.0, 0.0], [0.0, -3000.0]], np.float32)
    assert metrics.negative_log_likelihood(log_p, np.array([1, 0, 0])) == 1000.0
    assert metrics.negative_log_likelihood(log_p, np.array([0, 1, 0])) == 0.0


# ---- votes ----------------------------------------------------------------------------------


def test_majority_vote_by_hand():
    """Five networks, four examples: clear, a tie of two, a tie of all but one, all alike."""
    chosen = np.array(
        [
            [2, 2, 0, 1],
            [2, 1, 1, 1],
            [0, 1, 3, 1],
            [2, 2, 2, 1],
            [1, 0, 4, 1],
        ]
    )
    np.testing.assert_array_equal(metrics.majority_vote(chosen, 5), [2, 1, 0, 1])
    np.testing.assert_array_equal(metrics.votes(chosen, 5)[1], [1, 2, 2, 0, 0])


@moderately
@given(choices(), st.randoms(use_true_random=False))
def test_votes_equal_a_count_and_have_no_order(drawn, random):
    chosen, classes = drawn
    counts = metrics.votes(chosen, classes)
    assert counts.shape == (chosen.shape[1], classes)
    for example, column in enumerate(chosen.T):
        assert [list(column).count(c) for c in range(classes)] == list(counts[example])
    winners = metrics.majority_vote(chosen, classes)
    for example, winner in enumerate(winners):
        most = counts[example].max()
        assert winner == min(c for c in range(classes) if counts[example, c] == most)
    shuffled = random.sample(list(chosen), len(chosen))
    np.testing.assert_array_equal(metrics.majority_vote(np.array(shuffled), classes), winners)


@moderately
@given(predictions())
def test_most_confident_equals_a_loop(drawn):
    log_p, _ = drawn
    ours = metrics.most_confident(log_p)
    for example in range(log_p.shape[1]):
        best = max(log_p[:, example], key=lambda network: network.max())
        assert ours[example] == best.argmax()


@moderately
@given(choices(least=2))
def test_disagreement_equals_the_loop_over_pairs(drawn):
    chosen, classes = drawn
    pairs = [np.mean(a != b) for a, b in itertools.combinations(chosen, 2)]
    assert metrics.disagreement(chosen, classes) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_disagreement_by_hand():
    assert metrics.disagreement(np.array([[0, 1], [0, 1], [0, 1]]), 2) == 0.0
    assert metrics.disagreement(np.array([[0], [1], [2]]), 3) == 1.0
    assert metrics.disagreement(np.array([[0, 0], [0, 1]]), 2) == 0.5
    with pytest.raises(ValueError, match=r"^disagreement needs at least 2 networks$"):
        metrics.disagreement(np.array([[0, 1]]), 2)


# ---- Brier score -----------------------------------------------------------------------------


@moderately
@given(predictions())
def test_brier_score_equals_its_formula_and_scikit_learn(drawn):
    log_p, labels = drawn
    log_p = log_p[0]
    p = np.exp(log_p.astype(np.float64))
    ours = metrics.brier_score(log_p, labels)
    exact = np.mean(((p - np.eye(p.shape[1])[labels]) ** 2).sum(-1))
    assert ours == pytest.approx(exact, abs=1e-6)
    assert -1e-6 < ours < 2 + 1e-6
    if p.shape[1] == 2:  # of the second class only, which is half of it
        half = sklearn.metrics.brier_score_loss(labels, np.minimum(p[:, 1], 1.0), pos_label=1)
        assert ours == pytest.approx(2 * half, abs=1e-6)


def test_brier_score_reaches_its_bounds():
    sure = np.array([[0.0, -200.0, -200.0]] * 3)
    assert metrics.brier_score(sure, np.zeros(3, int)) == pytest.approx(0.0, abs=1e-6)
    assert metrics.brier_score(sure, np.full(3, 2)) == pytest.approx(2.0)
    uniform = np.log(np.full([3, 3], 1 / 3))
    assert metrics.brier_score(uniform, np.arange(3)) == pytest.approx(2 / 3)
    ruled_out = np.array([[0.0, -np.inf]])
    assert metrics.brier_score(ruled_out, np.array([1])) == pytest.approx(2.0)


@moderately
@given(choices())
def test_confusion_equals_scikit_learn(drawn):
    (labels, *others), classes = drawn
    for predictions in (labels, *others):
        ours = metrics.confusion(predictions, labels, classes)
        exact = sklearn.metrics.confusion_matrix(labels, predictions, labels=range(classes))
        np.testing.assert_array_equal(ours, exact)


@pytest.mark.parametrize(
    "measure",
    [
        metrics.negative_log_likelihood,
        metrics.brier_score,
        calibration.expected_calibration_error,
        calibration.adaptive_calibration_error,
        calibration.reliability,
    ],
)
def test_labels_out_of_range_are_refused(measure):
    """Such as those of letters and noise, whose classes are others or none."""
    log_p = np.log(np.full([4, 3], 1 / 3))
    measure(log_p, np.array([0, 1, 2, 0]))
    for wrong in ([0, 1, 2, 3], [0, 1, 2, -1], [[0], [1], [2], [0]], [0, 1, 2], [0.0, 1.0, 2.0, 0]):
        with pytest.raises(ValueError, match=r"^labels are integers \[4\] from 0 to 2$"):
            metrics.check_labels(np.array(wrong), 4, 3)
        with pytest.raises(ValueError, match=r"^labels are integers \[4\] from 0 to 2$"):
            measure(log_p, np.array(wrong))
