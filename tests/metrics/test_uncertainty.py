"""Uncertainty against closed forms, loops, and SciPy."""

import copy
import inspect
import math
import pickle
import sys

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from predictions import ensemble_predictions, functions_of

from hypernet_tf.metrics import SCORES, uncertainty

moderately = settings(deadline=None, derandomize=True, max_examples=50)
PER_EXAMPLE = (
    uncertainty.predictive_entropy,
    uncertainty.expected_entropy,
    uncertainty.mutual_information,
    uncertainty.probability_variance,
    uncertainty.least_confidence,
    uncertainty.variation_ratio,
)


def test_every_function_is_tested():
    names = functions_of(uncertainty)
    source = inspect.getsource(sys.modules[__name__])
    assert len(names) == 9
    assert [name for name in names if f"uncertainty.{name}(" not in source] == []


@moderately
@given(ensemble_predictions())
def test_entropies_equal_scipy(drawn):
    log_p, _ = drawn
    p = np.exp(log_p.astype(np.float64))
    close = {
        "rtol": 1e-6,
        "atol": 1e-6,
    }  # SciPy divides by the sum, which undoes float32's rounding
    total = scipy.stats.entropy(p.mean(0), axis=-1)
    single = scipy.stats.entropy(p, axis=-1).mean(0)
    np.testing.assert_allclose(uncertainty.predictive_entropy(log_p), total, **close)
    np.testing.assert_allclose(uncertainty.expected_entropy(log_p), single, **close)


@moderately
@given(ensemble_predictions())
def test_mutual_information_is_the_mean_divergence_from_the_mean(drawn):
    log_p, _ = drawn
    p = np.exp(log_p.astype(np.float64))
    divergences = scipy.special.rel_entr(p, p.mean(0)).sum(-1)
    result = uncertainty.mutual_information(log_p)
    np.testing.assert_allclose(result, divergences.mean(0), rtol=1e-6, atol=1e-12)


def test_mutual_information_keeps_what_float32_would_lose():
    p = np.array([[[0.5, 0.5]], [[0.5001, 0.4999]]])
    exact = scipy.special.rel_entr(p, p.mean(0)).sum(-1).mean(0)
    result = uncertainty.mutual_information(np.log(p))
    np.testing.assert_allclose(result, exact, rtol=1e-6)  # 5e-9 nats


@moderately
@given(ensemble_predictions())
def test_probability_variance_equals_a_loop(drawn):
    log_p, _ = drawn
    p = np.exp(log_p.astype(np.float64))
    exact = [sum(np.mean((c - c.mean()) ** 2) for c in example.T) for example in p.swapaxes(0, 1)]
    np.testing.assert_allclose(uncertainty.probability_variance(log_p), exact, rtol=1e-9)


@moderately
@given(ensemble_predictions(least_examples=2))
def test_all_scores_over_chunks_equal_the_functions(drawn):
    log_p, _ = drawn
    logits = 3.0 * log_p
    for some, known in ((logits, SCORES), (None, [key for key in SCORES if key != "energy"])):
        chunks = [
            uncertainty.Predictions(log_p[:, part], None if some is None else some[:, part])
            for part in (slice(0, 1), slice(1, None))
        ]
        scores = uncertainty.measure_uncertainty(chunks)
        assert list(scores.scores) == list(known)
        for key in known:
            values = logits if SCORES[key].of_logits else log_p
            expected = SCORES[key].of_array(values)
            np.testing.assert_allclose(getattr(scores, key), expected, 1e-12, 1e-15, err_msg=key)
    whole = uncertainty.measure_uncertainty(uncertainty.Predictions(log_p, None)).scores
    for key, values in scores.scores.items():
        np.testing.assert_allclose(whole[key], values, 1e-12, 1e-15, err_msg=key)
    assert scores.least_confidence == pytest.approx(1 - np.exp(log_p).mean(0).max(-1), abs=1e-6)


@moderately
@given(ensemble_predictions())
def test_scores_in_a_graph_equal_those_of_arrays(drawn):
    log_p, _ = drawn
    logits = 3.0 * log_p + 1.0
    in_graph = uncertainty.uncertainty_in_graph(tf.constant(log_p), tf.constant(logits))
    expected = uncertainty.measure_uncertainty([uncertainty.Predictions(log_p, logits)]).scores
    assert list(in_graph) == list(expected)
    for key, values in expected.items():
        np.testing.assert_allclose(in_graph[key], values, rtol=1e-5, atol=1e-6, err_msg=key)
    without = uncertainty.uncertainty_in_graph(tf.constant(log_p), None)
    assert set(in_graph) - set(without) == {"energy"}


@moderately
@given(ensemble_predictions())
def test_variation_ratio_equals_a_loop(drawn):
    log_p, _ = drawn
    exact = []
    for example in log_p.swapaxes(0, 1):
        classes = [int(network.argmax()) for network in example]
        exact.append(1 - max(map(classes.count, classes)) / len(classes))
    np.testing.assert_allclose(uncertainty.variation_ratio(log_p), exact, atol=1e-12)


@moderately
@given(ensemble_predictions(), st.floats(-5, 5))
def test_the_energy_of_an_ensemble(drawn, constant):
    """SciPy's, shifted by a constant of the logits, and at least the mean of the networks'."""
    logits = drawn[0].astype(np.float64)
    exact = -scipy.special.logsumexp(logits.mean(0), axis=-1)
    energy = uncertainty.energy(logits)
    np.testing.assert_allclose(energy, exact, rtol=1e-9, atol=1e-15)  # near 0 its terms cancel
    np.testing.assert_allclose(uncertainty.energy(logits + constant), exact - constant, atol=1e-9)
    single = np.mean([uncertainty.energy(network[None]) for network in logits], 0)
    assert (energy >= single - 1e-9).all()


def test_scores_that_are_missing_are_one_line():
    log_p = np.log([[[0.3, 0.7]]])
    scores = uncertainty.measure_uncertainty([uncertainty.Predictions(log_p)])
    words = r"^There is no energy of these networks, .*: use a model without its last softmax"
    with pytest.raises(AttributeError, match=words):
        _ = scores.energy
    with pytest.raises(AttributeError, match=r"^There is no score 'doubt': choose one of entropy,"):
        _ = scores.doubt
    for same in (copy.deepcopy(scores), pickle.loads(pickle.dumps(scores))):
        np.testing.assert_array_equal(same.entropy, scores.entropy)


def test_a_score_is_added_in_one_place(monkeypatch):
    toy = uncertainty.Score("toy", "a toy", lambda log_p: log_p[0, :, 0])
    monkeypatch.setitem(SCORES, "toy", toy)
    log_p = np.log([[[0.25, 0.75]]])
    scores = uncertainty.measure_uncertainty([uncertainty.Predictions(log_p)])
    np.testing.assert_array_equal(scores.toy, log_p[0, :, 0])
    assert "toy" in uncertainty.uncertainty_in_graph(tf.constant(log_p), None)


@moderately
@given(ensemble_predictions())
def test_uncertainties_are_within_their_bounds(drawn):
    log_p, _ = drawn
    networks, _, classes = log_p.shape
    total = uncertainty.predictive_entropy(log_p)
    single = uncertainty.expected_entropy(log_p)
    information = uncertainty.mutual_information(log_p)
    rounding = 1e-6
    assert (single >= 0).all() and (total <= math.log(classes) + rounding).all()
    assert (information >= 0).all() and (information <= math.log(networks) + rounding).all()
    np.testing.assert_allclose(total, single + information, atol=rounding)
    for score in (uncertainty.probability_variance, uncertainty.variation_ratio):
        assert (score(log_p) >= 0).all() and (score(log_p) <= 1 - 1 / networks + rounding).all()
    confidence = uncertainty.least_confidence(log_p)
    assert (confidence >= 0).all() and (confidence <= 1 - 1 / classes + rounding).all()


def test_uncertainties_by_hand():
    """Three examples: both networks certain of one class, of different classes, of none."""
    with np.errstate(divide="ignore"):
        log_p = np.log([[[1, 0], [1, 0], [0.5, 0.5]], [[1, 0], [0, 1], [0.5, 0.5]]])
    one = math.log(2)
    np.testing.assert_allclose(uncertainty.predictive_entropy(log_p), [0, one, one])
    np.testing.assert_allclose(uncertainty.expected_entropy(log_p), [0, 0, one])
    np.testing.assert_allclose(uncertainty.mutual_information(log_p), [0, one, 0], atol=1e-15)
    np.testing.assert_allclose(uncertainty.probability_variance(log_p), [0, 0.5, 0])
    np.testing.assert_allclose(uncertainty.least_confidence(log_p), [0, 0.5, 0.5])
    np.testing.assert_allclose(uncertainty.variation_ratio(log_p), [0, 0.5, 0])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_networks_have_no_disagreement(dtype):
    logits = np.random.default_rng(0).normal(scale=3, size=(1_000, 7))
    log_p = np.repeat(scipy.special.log_softmax(logits, -1)[None], 10, 0).astype(dtype)
    np.testing.assert_array_equal(uncertainty.mutual_information(log_p), 0)
    np.testing.assert_array_equal(uncertainty.probability_variance(log_p), 0)


def test_one_network_has_no_disagreement():
    log_p = np.log([[[0.3, 0.7], [0.9, 0.1]]])
    np.testing.assert_array_equal(uncertainty.mutual_information(log_p), [0, 0])
    np.testing.assert_array_equal(uncertainty.probability_variance(log_p), [0, 0])
    np.testing.assert_allclose(
        uncertainty.predictive_entropy(log_p), uncertainty.expected_entropy(log_p)
    )


@moderately
@given(ensemble_predictions(min_networks=2), st.randoms(use_true_random=False))
def test_the_order_of_networks_and_classes_has_no_effect(drawn, random):
    log_p, _ = drawn
    networks = random.sample(range(len(log_p)), len(log_p))
    classes = random.sample(range(log_p.shape[-1]), log_p.shape[-1])
    for function in PER_EXAMPLE:
        values = function(log_p)
        assert values.shape == (log_p.shape[1],) and values.dtype == np.float64
        shuffled = function(log_p[networks][..., classes])
        np.testing.assert_allclose(shuffled, values, rtol=1e-9, atol=1e-12)


def test_confidence_that_rounds_to_1_keeps_its_order():
    logits = np.array([[[20.0, 0.0, 0.0], [25.0, 0.0, 0.0]]], "float32")
    log_p = scipy.special.log_softmax(logits, -1)
    assert (log_p.max(-1) == 0).all()
    expected = 2 / (np.exp([20.0, 25.0]) + 2)
    np.testing.assert_allclose(uncertainty.least_confidence(log_p), expected, rtol=1e-5)


def test_confidence_near_1_is_that_of_the_mean():
    p = np.array([1e-12, 2e-8])  # of the unlikely class by each network
    log_p = np.log(np.stack([1 - p, p], -1))[:, None].astype(np.float32)
    log_p[..., 0] = -p[:, None]
    assert uncertainty.least_confidence(log_p)[0] == pytest.approx(p.mean(), rel=1e-3)


def test_scores_of_several_choices_have_one_value_for_each():
    rng = np.random.default_rng(0)
    for shape in ((4, 5), (4, 2, 2, 5)):
        log_p = scipy.special.log_softmax(rng.normal(size=(3, *shape, 2)), -1)
        for function in PER_EXAMPLE:
            expected = function(log_p.reshape(3, -1, 2)).reshape(shape)
            np.testing.assert_allclose(function(log_p), expected, rtol=1e-12)
            assert function(log_p[:1]).shape == shape
