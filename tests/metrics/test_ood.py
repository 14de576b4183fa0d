"""Detection and refusal by scores, against counts of pairs, loops over thresholds, permutations."""

import inspect
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from hypernet_tf.metrics import ood as detection

moderately = settings(deadline=None, derandomize=True, max_examples=50)
FIELDS = ("auroc", "aupr_out", "aupr_in", "fpr95_out", "fpr95_in")


@st.composite
def scores(draw):
    """Scores of in- and out-of-distribution examples, with or without ties."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inside, outside = (rng.normal(size=draw(st.integers(1, 30))) for _ in range(2))
    if draw(st.booleans()):
        inside, outside = np.round(inside), np.round(outside)
    return inside, outside + 1


@st.composite
def answers(draw):
    """Scores with or without ties, and losses, of at most six examples."""
    examples = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return rng.integers(0, draw(st.sampled_from((2, 50))), examples), rng.integers(0, 2, examples)


def test_every_function_is_tested():
    ours = [
        name
        for name, value in vars(detection).items()
        if inspect.isfunction(value)
        and value.__module__ == detection.__name__
        and not name.startswith("_")
    ]
    here = inspect.getsource(inspect.getmodule(scores))
    assert len(ours) == 4
    assert all(f"detection.{name}(" in here for name in ours)


def by_loops(inside, outside):
    """(average precision, false positive rate at 95 %) with `outside` as positives."""
    precision_sum, last, rates = 0.0, 0.0, []
    for threshold in sorted({*inside, *outside}, reverse=True):
        found, alarms = (outside >= threshold).sum(), (inside >= threshold).sum()
        precision_sum += (found / len(outside) - last) * found / (found + alarms)
        last = found / len(outside)
        if 100 * found >= 95 * len(outside):
            rates.append(alarms / len(inside))
    return precision_sum, min(rates)


@moderately
@given(scores())
def test_detection_equals_counts_of_pairs_and_loops_over_thresholds(drawn):
    inside, outside = drawn
    ours = detection.ood_metrics(inside, outside)
    pairs = [(b > a) + (b == a) / 2 for a, b in itertools.product(inside, outside)]
    assert ours.auroc == pytest.approx(np.mean(pairs), abs=1e-12)
    mann_whitney = scipy.stats.mannwhitneyu(outside, inside, method="asymptotic").statistic
    assert ours.auroc == pytest.approx(mann_whitney / len(pairs), abs=1e-12)
    exact = by_loops(inside, outside)
    assert (ours.aupr_out, ours.fpr95_out) == pytest.approx(exact, abs=1e-12)
    exact = by_loops(-outside, -inside)
    assert (ours.aupr_in, ours.fpr95_in) == pytest.approx(exact, abs=1e-12)


@moderately
@given(scores(), st.sampled_from((np.exp, np.arctan, lambda x: x**3, lambda x: 2 * x - 7)))
def test_only_the_order_of_scores_counts(drawn, increasing):
    inside, outside = drawn
    ours = detection.ood_metrics(inside, outside)
    assert detection.ood_metrics(increasing(inside), increasing(outside)) == ours
    assert all(0 <= getattr(ours, field) <= 1 for field in FIELDS)
    swapped = detection.ood_metrics(outside, inside)
    assert swapped.auroc == pytest.approx(1 - ours.auroc, abs=1e-12)


@moderately
@given(scores())
def test_roc_curve_has_the_area_that_is_stated(drawn):
    inside, outside = drawn
    false, true = detection.roc_curve(inside, outside)
    assert (false[0], true[0], false[-1], true[-1]) == (0, 0, 1, 1)
    assert (np.diff(false) >= 0).all() and (np.diff(true) >= 0).all()
    area = sklearn.metrics.auc(false, true)
    assert area == pytest.approx(detection.ood_metrics(inside, outside).auroc, abs=1e-12)


def test_detection_by_hand():
    apart = detection.ood_metrics(np.arange(20.0), np.arange(20.0, 40.0))
    assert apart == detection.OODMetrics(1.0, 1.0, 1.0, 0.0, 0.0)
    wrong = detection.ood_metrics(np.arange(20.0, 40.0), np.arange(20.0))
    assert (wrong.auroc, wrong.fpr95_out, wrong.fpr95_in) == (0.0, 1.0, 1.0)
    # One of 20 "out" examples is missed below all: 95 % are found without an alarm.
    missed = detection.ood_metrics(np.arange(20.0), np.r_[-1.0, np.arange(20.0, 39.0)])
    assert (missed.auroc, missed.fpr95_out, missed.fpr95_in) == (0.95, 0.0, 0.05)


def test_detection_by_a_constant_score_is_chance():
    ours = detection.ood_metrics(np.ones(30), np.ones(10))
    assert ours == detection.OODMetrics(0.5, 0.25, 0.75, 1.0, 1.0)


def test_detection_of_two_normal_distributions_has_its_closed_form():
    """Scores N(0, 1) and N(1, 1) at their quantiles: AUROC is Φ(1/√2)."""
    quantiles = scipy.stats.norm.ppf((np.arange(2_000) + 0.5) / 2_000)
    ours = detection.ood_metrics(quantiles, quantiles + 1)
    assert ours.auroc == pytest.approx(scipy.stats.norm.cdf(math.sqrt(0.5)), abs=1e-4)
    at_95 = scipy.stats.norm.sf(1 - scipy.stats.norm.ppf(0.95))
    assert ours.fpr95_out == pytest.approx(at_95, abs=2e-3)
    assert ours.fpr95_in == pytest.approx(at_95, abs=2e-3)


def test_infinite_scores_are_in_order_and_precisions_mix():
    ours = detection.ood_metrics(np.array([0.0, 1.0], np.float32), np.array([2.0, np.inf]))
    assert ours.auroc == 1.0
    tied = detection.ood_metrics(np.array([-np.inf, np.inf]), np.array([np.inf, np.inf]))
    assert tied.auroc == 0.75


# ---- answering only the surest --------------------------------------------------------------


@moderately
@given(answers())
def test_risk_coverage_is_the_mean_over_orders_of_equal_scores(drawn):
    scores, losses = drawn
    coverage, risk = detection.risk_coverage(scores, losses)
    curves = [
        [np.mean(losses[list(order[:k])]) for k in range(1, len(scores) + 1)]
        for order in itertools.permutations(range(len(scores)))
        if (np.diff(scores[list(order)]) >= 0).all()
    ]
    np.testing.assert_allclose(risk, np.mean(curves, 0), atol=1e-12)
    np.testing.assert_allclose(coverage, np.arange(1, len(scores) + 1) / len(scores))
    area = detection.area_under_risk_coverage(scores, losses)
    assert area == pytest.approx(np.mean(curves), abs=1e-12)
    assert risk[-1] == pytest.approx(losses.mean())


def test_risk_coverage_by_hand():
    losses = np.array([1, 0, 0, 1])
    coverage, risk = detection.risk_coverage(np.array([0.9, 0.1, 0.2, 0.8]), losses)
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(risk, [0, 0, 1 / 3, 1 / 2])
    best = detection.area_under_risk_coverage(losses, losses)
    assert best == pytest.approx((1 / 3 + 1 / 2) / 4)
    worst = detection.area_under_risk_coverage(-losses, losses)
    assert worst == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    constant = detection.risk_coverage(np.zeros(4), losses)[1]
    np.testing.assert_allclose(constant, 0.5)
    infinite = detection.risk_coverage(np.array([np.inf, -np.inf, 0, np.inf]), losses)[1]
    np.testing.assert_allclose(infinite, [0, 0, 1 / 3, 1 / 2])


def test_the_best_order_has_the_area_of_its_closed_form():
    """Many examples with error rate r, errors last: r + (1 - r) log(1 - r)."""
    errors = np.arange(100_000) >= 80_000
    area = detection.area_under_risk_coverage(np.arange(100_000), errors)
    assert area == pytest.approx(0.2 + 0.8 * math.log(0.8), abs=1e-4)


def test_what_is_no_score_is_refused():
    some, none, wrong = np.zeros(2), np.zeros(0), np.array([0.0, np.nan])
    for inside, outside in ((some, none), (none, some)):
        with pytest.raises(ValueError, match=r"^no scores: at least 1 is needed$"):
            detection.ood_metrics(inside, outside)
    with pytest.raises(ValueError, match=r"^a score is not a number$"):
        detection.roc_curve(some, wrong)
    with pytest.raises(ValueError, match=r"^a score is not a number$"):
        detection.risk_coverage(wrong, some)
    with pytest.raises(ValueError, match=r"^3 losses for 2 scores$"):
        detection.area_under_risk_coverage(some, np.zeros(3))
