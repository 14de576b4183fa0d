"""What a score of uncertainty is good for: finding strange examples, and not answering hard ones.

A score is higher the less sure the networks are: an entropy, a variance, minus a confidence. Only
its order counts: an increasing function of it changes nothing, and infinite scores are in order.
"""

from __future__ import annotations

import dataclasses

import numpy as np

TRUE_POSITIVE_RATE = 0.95


@dataclasses.dataclass(frozen=True)
class OODMetrics:
    """How well scores tell out-of-distribution ("out") from in-distribution ("in") examples.

    All are fractions. `_out` has the out-of-distribution examples as positives, found by a high
    score; `_in` the in-distribution ones, found by a low score, as Hendrycks and Gimpel 2017 and
    Liang et al. 2018 have it. The area under the ROC curve is the same both ways.

    Attributes:
        auroc: area under the receiver operating characteristic: the probability that an "out"
            example has a higher score than an "in" example, ties counting half. Chance is 0.5.
        aupr_out: area under precision against recall, as average precision. Chance is the share of
            "out" examples.
        aupr_in: likewise. Chance is the share of "in" examples.
        fpr95_out: share of "in" examples that raise an alarm, where at least 95 % of the "out"
            examples do.
        fpr95_in: share of "out" examples that are let through, where at least 95 % of the "in"
            examples are.
    """

    auroc: float
    aupr_out: float
    aupr_in: float
    fpr95_out: float
    fpr95_in: float


def ood_metrics(inside: np.ndarray, outside: np.ndarray) -> OODMetrics:
    """How well scores find out-of-distribution examples.

    A threshold never parts equal scores: a constant score has AUROC 0.5, AUPR the share of the
    positives and false positive rate 1.

    Args:
        inside: [M] scores of in-distribution examples, higher for more uncertainty.
        outside: [K] scores of out-of-distribution examples.

    Raises:
        ValueError: no scores, or one is not a number.

    Source: `sklearn.metrics.roc_auc_score`, `average_precision_score`, `roc_curve`.
    """
    from sklearn import metrics  # takes a second: only for those who use it

    scores, is_outside = _ranks(inside, outside)
    return OODMetrics(
        auroc=float(metrics.roc_auc_score(is_outside, scores)),
        aupr_out=float(metrics.average_precision_score(is_outside, scores)),
        aupr_in=float(metrics.average_precision_score(~is_outside, -scores)),
        fpr95_out=_false_positive_rate(is_outside, scores),
        fpr95_in=_false_positive_rate(~is_outside, -scores),
    )


def roc_curve(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates for every threshold, from none to all; positives are "out".

    Args:
        inside: [M] scores of in-distribution examples, higher for more uncertainty.
        outside: [K] scores of out-of-distribution examples.

    Raises:
        ValueError: no scores, or one is not a number.

    Source: `sklearn.metrics.roc_curve`.
    """
    from sklearn import metrics  # takes a second: only for those who use it

    scores, is_outside = _ranks(inside, outside)
    false, true, _ = metrics.roc_curve(is_outside, scores)
    return false, true


def risk_coverage(scores: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage k/M and risk, the mean loss of the k surest examples, for k = 1, ..., M; each [M].

    Equal scores have no order: the risk is its mean over all their orders, so that a constant
    score's curve is the mean loss everywhere.

    Args:
        scores: [M], higher for more uncertainty.
        losses: [M], 1 for an error and 0 for none, or any other loss of each example.

    Raises:
        ValueError: no scores, one is not a number, or not as many losses as scores.

    Source: El-Yaniv and Wiener 2010, "On the Foundations of Noise-free Selective Classification".
    """
    scores, losses = np.asarray(scores), np.asarray(losses)
    _check(scores)
    if len(losses) != len(scores):
        raise ValueError(f"{len(losses)} losses for {len(scores)} scores")
    _, group = np.unique(scores, return_inverse=True)
    sizes = np.bincount(group)
    group_losses = np.bincount(group, losses) / sizes
    counts = np.arange(1, len(scores) + 1)
    return counts / len(scores), np.repeat(group_losses, sizes).cumsum() / counts


def area_under_risk_coverage(scores: np.ndarray, losses: np.ndarray) -> float:
    """The mean of the risk over all coverages, 1/M sum_k risk_k (AURC); lower is better.

    Args:
        scores: [M], higher for more uncertainty.
        losses: [M], 1 for an error and 0 for none, or any other loss of each example.

    Raises:
        ValueError: no scores, one is not a number, or not as many losses as scores.

    Source: Geifman, Uziel and El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers", equation 1.
    """
    return float(risk_coverage(scores, losses)[1].mean())


def _false_positive_rate(positive: np.ndarray, scores: np.ndarray) -> float:
    from sklearn import metrics

    false, true, _ = metrics.roc_curve(positive, scores, drop_intermediate=False)
    return float(false[np.argmax(true >= TRUE_POSITIVE_RATE)])


def _ranks(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each score's place among all, which is finite where scores are not; whether it is outside."""
    inside, outside = np.asarray(inside), np.asarray(outside)
    _check(inside)
    _check(outside)
    _, places = np.unique(np.concatenate([inside, outside]), return_inverse=True)
    return places, np.arange(len(places)) >= len(inside)


def _check(scores: np.ndarray) -> None:
    if not scores.size:
        raise ValueError("no scores: at least 1 is needed")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
