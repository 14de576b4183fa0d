"""Detection and abstention against counts of pairs, loops over thresholds, and permutations."""

import inspect
import itertools
import math
import sys

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st
from predictions import functions_of

from hypernet_tf.metrics import ood

moderately = settings(deadline=None, derandomize=True, max_examples=50)
FIELDS = ("auroc", "aupr_out", "aupr_in", "fpr95_out", "fpr95_in")


@st.composite
def scores(draw):
    """Scores of ID and OOD examples, with or without ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    id_scores, ood_scores = (rng.normal(size=draw(st.integers(1, 30))) for _ in range(2))
    if draw(st.booleans()):
        id_scores, ood_scores = np.round(id_scores), np.round(ood_scores)
    return id_scores, ood_scores + 1


@st.composite
def answers(draw):
    """Scores with or without ties, and losses, of at most six examples."""
    examples = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(0, draw(st.sampled_from((2, 50))), examples), rng.integers(0, 2, examples)


def test_every_function_is_tested():
    names = functions_of(ood)
    source = inspect.getsource(sys.modules[__name__])
    assert len(names) == 4
    assert [name for name in names if f"ood.{name}(" not in source] == []


def by_loops(id_scores, ood_scores):
    """Average precision and false positive rate at 95 %; the OOD examples are the positives."""
    precision_sum, last, rates = 0.0, 0.0, []
    for threshold in sorted({*id_scores, *ood_scores}, reverse=True):
        detected, false_positives = (ood_scores >= threshold).sum(), (id_scores >= threshold).sum()
        precision = detected / (detected + false_positives)
        precision_sum += (detected / len(ood_scores) - last) * precision
        last = detected / len(ood_scores)
        if 100 * detected >= 95 * len(ood_scores):
            rates.append(false_positives / len(id_scores))
    return precision_sum, min(rates)


@moderately
@given(scores())
def test_detection_equals_counts_of_pairs_and_loops_over_thresholds(drawn):
    id_scores, ood_scores = drawn
    result = ood.ood_metrics(id_scores, ood_scores)
    pairs = [(b > a) + (b == a) / 2 for a, b in itertools.product(id_scores, ood_scores)]
    assert result.auroc == pytest.approx(np.mean(pairs), abs=1e-12)
    mann_whitney = scipy.stats.mannwhitneyu(ood_scores, id_scores, method="asymptotic").statistic
    assert result.auroc == pytest.approx(mann_whitney / len(pairs), abs=1e-12)
    exact = by_loops(id_scores, ood_scores)
    assert (result.aupr_out, result.fpr95_out) == pytest.approx(exact, abs=1e-12)
    exact = by_loops(-ood_scores, -id_scores)
    assert (result.aupr_in, result.fpr95_in) == pytest.approx(exact, abs=1e-12)


@moderately
@given(scores(), st.sampled_from((np.exp, np.arctan, lambda x: x**3, lambda x: 2 * x - 7)))
def test_increasing_functions_of_the_scores_have_no_effect(drawn, increasing):
    id_scores, ood_scores = drawn
    result = ood.ood_metrics(id_scores, ood_scores)
    assert ood.ood_metrics(increasing(id_scores), increasing(ood_scores)) == result
    assert all(0 <= getattr(result, field) <= 1 for field in FIELDS)
    swapped = ood.ood_metrics(ood_scores, id_scores)
    assert swapped.auroc == pytest.approx(1 - result.auroc, abs=1e-12)


@moderately
@given(scores())
def test_area_of_the_roc_curve_is_auroc(drawn):
    id_scores, ood_scores = drawn
    false, true = ood.roc_curve(id_scores, ood_scores)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert (np.diff(false) >= 0).all() and (np.diff(true) >= 0).all()
    area = sklearn.metrics.auc(false, true)
    assert area == pytest.approx(ood.ood_metrics(id_scores, ood_scores).auroc, abs=1e-12)


def test_detection_by_hand():
    apart = ood.ood_metrics(np.arange(20.0), np.arange(20.0, 40.0))
    assert apart == ood.OODMetrics(1.0, 1.0, 1.0, 0.0, 0.0)
    wrong = ood.ood_metrics(np.arange(20.0, 40.0), np.arange(20.0))
    assert (wrong.auroc, wrong.fpr95_out, wrong.fpr95_in) == (0.0, 1.0, 1.0)
    # One of 20 OOD examples is below all others: 95 % are detected without a false positive.
    missed = ood.ood_metrics(np.arange(20.0), np.r_[-1.0, np.arange(20.0, 39.0)])
    assert (missed.auroc, missed.fpr95_out, missed.fpr95_in) == (0.95, 0.0, 0.05)


def test_detection_by_a_constant_score_is_chance():
    result = ood.ood_metrics(np.ones(30), np.ones(10))
    assert result == ood.OODMetrics(0.5, 0.25, 0.75, 1.0, 1.0)


def test_detection_of_two_normal_distributions_has_its_closed_form():
    """Scores N(0, 1) and N(1, 1) at their quantiles: AUROC is Φ(1/√2)."""
    quantiles = scipy.stats.norm.ppf((np.arange(2_000) + 0.5) / 2_000)
    result = ood.ood_metrics(quantiles, quantiles + 1)
    assert result.auroc == pytest.approx(scipy.stats.norm.cdf(math.sqrt(0.5)), abs=1e-4)
    at_95 = scipy.stats.norm.sf(1 - scipy.stats.norm.ppf(0.95))
    assert result.fpr95_out == pytest.approx(at_95, abs=2e-3)
    assert result.fpr95_in == pytest.approx(at_95, abs=2e-3)


def test_infinite_scores_and_scores_of_different_precision():
    result = ood.ood_metrics(np.array([0.0, 1.0], np.float32), np.array([2.0, np.inf]))
    assert result.auroc == 1.0
    tied = ood.ood_metrics(np.array([-np.inf, np.inf]), np.array([np.inf, np.inf]))
    assert tied.auroc == 0.75


# ---- abstention --------------------------------------------------------------


@moderately
@given(answers())
def test_risk_coverage_is_the_mean_over_orders_of_equal_scores(drawn):
    scores, losses = drawn
    coverage, risk = ood.risk_coverage(scores, losses)
    curves = [
        [np.mean(losses[list(order[:k])]) for k in range(1, len(scores) + 1)]
        for order in itertools.permutations(range(len(scores)))
        if (np.diff(scores[list(order)]) >= 0).all()
    ]
    np.testing.assert_allclose(risk, np.mean(curves, 0), atol=1e-12)
    np.testing.assert_allclose(coverage, np.arange(1, len(scores) + 1) / len(scores))
    area = ood.area_under_risk_coverage(scores, losses)
    assert area == pytest.approx(np.mean(curves), abs=1e-12)
    assert risk[-1] == pytest.approx(losses.mean())


def test_risk_coverage_by_hand():
    losses = np.array([1, 0, 0, 1])
    coverage, risk = ood.risk_coverage(np.array([0.9, 0.1, 0.2, 0.8]), losses)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 1 / 2])
    best = ood.area_under_risk_coverage(losses, losses)
    assert best == pytest.approx((1 / 3 + 1 / 2) / 4)
    worst = ood.area_under_risk_coverage(-losses, losses)
    assert worst == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    constant = ood.risk_coverage(np.zeros(4), losses)[1]
    np.testing.assert_allclose(constant, 0.5)
    infinite = ood.risk_coverage(np.array([np.inf, -np.inf, 0, np.inf]), losses)[1]
    np.testing.assert_allclose(infinite, [0, 0, 1 / 3, 1 / 2])


def test_area_of_the_best_order_has_its_closed_form():
    """Error rate r, errors last, many examples: r + (1 - r) log(1 - r)."""
    errors = np.arange(100_000) >= 80_000
    area = ood.area_under_risk_coverage(np.arange(100_000), errors)
    assert area == pytest.approx(0.2 + 0.8 * math.log(0.8), abs=1e-4)


def test_scores_that_are_no_numbers_raise():
    some, none, wrong = np.zeros(2), np.zeros(0), np.array([0.0, np.nan])
    for id_scores, ood_scores in ((some, none), (none, some)):
        with pytest.raises(ValueError, match=r"^There are no scores: give at least 1\.$"):
            ood.ood_metrics(id_scores, ood_scores)
    with pytest.raises(ValueError, match=r"^A score is NaN: scores must be numbers or infinite\.$"):
        ood.roc_curve(some, wrong)
    with pytest.raises(ValueError, match=r"^A score is NaN: scores must be numbers or infinite\.$"):
        ood.risk_coverage(wrong, some)
    with pytest.raises(ValueError, match=r"^3 losses for 2 scores: give one for each score\.$"):
        ood.area_under_risk_coverage(some, np.zeros(3))


def test_scores_of_choices_are_one_line():
    for function in (ood.ood_metrics, ood.risk_coverage):
        with pytest.raises(ValueError, match=r"^Scores have the shape \[3, 2\]: give one for each"):
            function(np.zeros((3, 2)), np.zeros(3))
