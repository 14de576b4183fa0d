"""Calibration against closed forms, loops over bins, and a second implementation of each."""

import inspect
import sys

import numpy as np
import pytest
import sklearn.calibration
from hypothesis import given, settings
from hypothesis import strategies as st
from predictions import functions_of
from scipy.special import log_softmax

from hypernet_tf.metrics import calibration

moderately = settings(deadline=None, derandomize=True, max_examples=30)


@st.composite
def predictions(draw):
    """Log-probabilities [M, C], some of them equal, and labels [M]."""
    examples, classes = draw(st.integers(1, 120)), draw(st.integers(2, 10))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    log_p = log_softmax(3 * rng.normal(size=(examples, classes)), -1)
    if draw(st.booleans()):
        log_p = log_p[rng.integers(0, examples, examples)]
    return log_p, rng.integers(0, classes, examples)


def test_every_function_is_tested():
    names = functions_of(calibration)
    source = inspect.getsource(sys.modules[__name__])
    assert len(names) == 6
    assert [name for name in names if f"calibration.{name}(" not in source] == []


@moderately
@given(predictions(), st.booleans())
def test_the_bins_of_parts_add_up(drawn, weighted):
    log_p, labels = drawn
    weights = np.random.default_rng(0).uniform(0.1, 1.0, len(labels)) if weighted else None
    parts = sum(
        calibration.bin_sums(
            log_p[i::3], labels[i::3], sample_weight=None if weights is None else weights[i::3]
        )
        for i in range(min(3, len(labels)))
    )
    diagram = calibration.reliability_of(parts)
    whole = calibration.reliability(log_p, labels, sample_weight=weights)
    for name, values in vars(diagram).items():
        np.testing.assert_allclose(values, getattr(whole, name), err_msg=name)
    error = calibration.expected_calibration_error(log_p, labels, sample_weight=weights)
    np.testing.assert_allclose(calibration.error_of_bins(diagram), error, rtol=1e-4, atol=1e-6)


# ---- bins of equal width --------------------------------------------------------------------


def calibration_error(log_p, labels, bins):
    """The expected calibration error, bin by bin."""
    p = np.exp(log_p)
    confidence, correct = p.max(-1), p.argmax(-1) == labels
    error = 0.0
    for low in range(bins):
        inside = (confidence >= low / bins) & (confidence < (low + 1) / bins)
        if low == bins - 1:
            inside |= confidence == 1.0
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return error


@moderately
@given(
    seed=st.integers(0, 2**32 - 1),
    examples=st.integers(1, 200),
    classes=st.integers(2, 10),
    bins=st.sampled_from((None, 1, 10)),
)
def test_calibration_error_equals_a_loop_over_bins(seed, examples, classes, bins):
    rng = np.random.default_rng(seed)
    log_p = log_softmax(3 * rng.normal(size=(examples, classes)), -1)
    labels = rng.integers(0, classes, examples)
    given_bins = {} if bins is None else {"bins": bins}
    error = calibration.expected_calibration_error(log_p, labels, **given_bins)
    assert error == pytest.approx(calibration_error(log_p, labels, bins or 15), abs=1e-5)


def test_calibration_error_by_hand():
    """15 bins: 0.61 and 0.65 are in [9/15, 10/15), 0.9 is in [13/15, 14/15), 1 is in the last."""
    p = np.array([[0.61, 0.39], [0.35, 0.65], [0.9, 0.1], [1e-300, 1.0], [1e-300, 1.0]])
    labels = np.array([0, 0, 0, 1, 0])
    exact = 2 / 5 * abs(1 / 2 - 0.63) + 1 / 5 * abs(1 - 0.9) + 2 / 5 * abs(1 / 2 - 1.0)
    error = calibration.expected_calibration_error(np.log(p), labels)
    assert error == pytest.approx(exact, abs=1e-6)
    assert calibration.expected_calibration_error(np.log(p), labels, 1) == pytest.approx(
        abs(3 / 5 - np.mean([0.61, 0.65, 0.9, 1, 1])), abs=1e-6
    )


def test_calibration_error_of_certain_predictions():
    certain = np.array([[0.0, -200.0]] * 4)
    assert calibration.expected_calibration_error(certain, np.zeros(4, int)) == pytest.approx(0.0)
    assert calibration.expected_calibration_error(certain, np.ones(4, int)) == pytest.approx(1.0)
    coin = np.log(np.full([4, 2], 0.5))  # half of the labels are the lower class
    assert calibration.expected_calibration_error(coin, np.array([0, 1, 0, 1])) == pytest.approx(
        0.0
    )


@moderately
@given(predictions(), st.sampled_from((1, 10, 15)))
def test_reliability_equals_scikit_learn_and_gives_the_error(drawn, bins):
    log_p, labels = drawn
    bins_ = calibration.reliability(log_p, labels, bins)
    filled = bins_.share > 0
    assert bins_.share.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(bins_.edges, np.linspace(0, 1, bins + 1), atol=1e-15)
    assert np.isnan(bins_.confidence[~filled]).all() and np.isnan(bins_.accuracy[~filled]).all()
    assert (bins_.edges[:-1][filled] <= bins_.confidence[filled] + 1e-12).all()
    assert (bins_.confidence[filled] <= bins_.edges[1:][filled] + 1e-12).all()
    correct = log_p.argmax(-1) == labels
    accuracy, confidence = sklearn.calibration.calibration_curve(
        correct, np.exp(log_p.max(-1)), n_bins=bins
    )
    np.testing.assert_allclose(bins_.accuracy[filled], accuracy, rtol=1e-12)
    np.testing.assert_allclose(bins_.confidence[filled], confidence, rtol=1e-12)
    gaps = np.abs(bins_.accuracy - bins_.confidence)
    error = calibration.expected_calibration_error(log_p, labels, bins)
    assert np.nansum(bins_.share * gaps) == pytest.approx(error, abs=1e-5)


def test_reliability_by_hand():
    """Four bins: 0.5 is in [0.5, 0.75), 0.75 and 1 in [0.75, 1]; the default is 15."""
    p = np.array([[0.5, 0.5], [0.25, 0.75], [1.0, 1e-300], [1.0, 1e-300]])
    bins_ = calibration.reliability(np.log(p), np.array([0, 1, 1, 0]), 4)
    np.testing.assert_array_equal(bins_.share, [0, 0, 0.25, 0.75])
    np.testing.assert_allclose(bins_.confidence, [np.nan, np.nan, 0.5, 2.75 / 3])
    np.testing.assert_allclose(bins_.accuracy, [np.nan, np.nan, 1, 2 / 3])
    assert len(calibration.reliability(np.log(p), np.array([0, 1, 1, 0])).share) == 15


def test_confidence_above_1_by_rounding_is_in_the_last_bin():
    log_p = np.array([[1e-7, -20.0]], np.float32)
    bins_ = calibration.reliability(log_p, np.array([0]))
    assert bins_.share[-1] == 1.0 and bins_.confidence[-1] == 1.0


@moderately
@given(predictions(), st.randoms(use_true_random=False))
def test_weighted_bins_are_those_of_repeated_examples(drawn, random):
    log_p, labels = drawn
    weights = np.array([random.randint(0, 3) for _ in labels])
    weights[0] += 1
    weighted = calibration.reliability(log_p, labels, 10, weights)
    repeated = calibration.reliability(np.repeat(log_p, weights, 0), np.repeat(labels, weights), 10)
    for name, values in vars(repeated).items():
        np.testing.assert_allclose(getattr(weighted, name), values, rtol=1e-9, err_msg=name)
    error = calibration.expected_calibration_error(log_p, labels, 10, weights)
    gaps = np.abs(repeated.accuracy - repeated.confidence)
    assert error == pytest.approx(np.nansum(repeated.share * gaps), abs=1e-5)


# ---- bins of equally many examples ----------------------------------------------------------


@moderately
@given(
    seed=st.integers(0, 2**32 - 1),
    each=st.integers(1, 20),
    classes=st.integers(2, 10),
    bins=st.sampled_from((None, 1, 4)),
)
def test_adaptive_error_equals_a_loop_over_sorted_examples(seed, each, classes, bins):
    """Equally many in each bin and one more in the last: then quantiles are examples."""
    rng = np.random.default_rng(seed)
    given_bins = {} if bins is None else {"bins": bins}
    bins = bins or 15
    examples = bins * each + 1
    log_p = log_softmax(3 * rng.normal(size=(examples, classes)), -1)
    labels = rng.integers(0, classes, examples)
    confidence, correct = np.exp(log_p.max(-1)), log_p.argmax(-1) == labels
    parts = np.split(confidence.argsort(), each * np.arange(1, bins))
    exact = sum(abs((correct[part] - confidence[part]).sum()) for part in parts) / examples
    error = calibration.adaptive_calibration_error(log_p, labels, **given_bins)
    assert error == pytest.approx(exact, abs=1e-12)


def test_adaptive_error_by_hand():
    """Two bins of two: {0.6, 0.7} with one right, {0.8, 0.9} with both right."""
    p = np.array([[0.8, 0.2], [0.4, 0.6], [0.1, 0.9], [0.7, 0.3]])
    labels = np.array([0, 1, 1, 1])
    exact = (abs(1 / 2 - 0.65) + abs(1 - 0.85)) / 2
    error = calibration.adaptive_calibration_error(np.log(p), labels, 2)
    assert error == pytest.approx(exact, abs=1e-12)
    # In one bin of equal width the errors of both would cancel partly.
    assert calibration.expected_calibration_error(np.log(p), labels, 1) == pytest.approx(
        0, abs=1e-6
    )


@settings(moderately, max_examples=10)  # each shape is traced anew
@given(predictions(), st.randoms(use_true_random=False))
def test_adaptive_error_is_a_fraction_in_any_order_of_the_examples(drawn, random):
    log_p, labels = drawn
    error = calibration.adaptive_calibration_error(log_p, labels)
    assert 0 <= error <= 1
    order = random.sample(range(len(labels)), len(labels))
    again = calibration.adaptive_calibration_error(log_p[order], labels[order])
    assert again == pytest.approx(error, abs=1e-12)


def test_adaptive_error_of_one_confidence_for_all():
    log_p = np.log(np.tile([0.7, 0.3], (10, 1)))
    labels = np.repeat([0, 1], (5, 5))
    assert calibration.adaptive_calibration_error(log_p, labels) == pytest.approx(0.2, abs=1e-12)
    single = calibration.adaptive_calibration_error(log_p[:1], labels[:1])
    assert single == pytest.approx(0.3, abs=1e-12)


def test_errors_of_predictions_that_are_no_numbers_are_nan():
    log_p = np.array([[np.nan, np.nan], [-0.1, -2.3]])
    for error in (calibration.expected_calibration_error, calibration.adaptive_calibration_error):
        assert np.isnan(error(log_p, np.array([0, 1])))


def test_the_error_of_no_examples_is_none():
    assert np.isnan(calibration.expected_calibration_error(np.empty((0, 3)), np.empty(0, int)))


def test_many_sure_examples_are_added_in_double_precision():
    p = np.full(60_000, 0.999, np.float32)
    log_p = np.log(np.stack([p, 1 - p], 1))
    error = calibration.expected_calibration_error(log_p, np.zeros(60_000, int))
    assert error == pytest.approx(1 - float(np.exp(log_p[0, 0], dtype=np.float64)), rel=1e-6)
