"""Uses of a score of uncertainty: detecting unfamiliar examples, abstaining from hard ones.

A score is higher the less certain the networks are: an entropy, a variance, minus a confidence.
Only the order of scores counts: an increasing function of them changes nothing, and infinite scores
are allowed.
"""

from __future__ import annotations

import dataclasses

import numpy as np

TRUE_POSITIVE_RATE = 0.95


@dataclasses.dataclass(frozen=True)
class OODMetrics:
    """How well scores separate out-of-distribution (OOD) from in-distribution (ID) examples.

    All are fractions. In fields that end in `_out` the OOD examples are the positives, detected by
    a high score; in those that end in `_in` the ID examples are, detected by a low score (Hendrycks
    and Gimpel 2017, Liang et al. 2018). The area under the ROC curve is the same both ways.

    Attributes:
        auroc: Area under the receiver operating characteristic: the probability that an OOD example
            has a higher score than an ID example, where ties count half. Chance is 0.5.
        aupr_out: Area under the precision-recall curve, as average precision; OOD examples are the
            positives. Chance is the share of OOD examples.
        aupr_in: The same with the ID examples as positives. Chance is the share of ID examples.
        fpr95_out: False positive rate at 95 % true positive rate: the share of ID examples above
            the highest threshold that at least 95 % of the OOD examples reach.
        fpr95_in: The same with the ID examples as positives: the share of OOD examples below the
            lowest threshold that at least 95 % of the ID examples do not exceed.
    """

    auroc: float
    aupr_out: float
    aupr_in: float
    fpr95_out: float
    fpr95_in: float


def ood_metrics(id_scores: np.ndarray, ood_scores: np.ndarray) -> OODMetrics:
    """How well scores detect out-of-distribution examples.

    Equal scores are on the same side of every threshold: a constant score has AUROC 0.5, AUPR the
    share of the positives and false positive rate 1.

    Args:
        id_scores: Scores [M] of in-distribution examples, higher for more uncertainty.
        ood_scores: Scores [K] of out-of-distribution examples.

    Raises:
        ValueError: There are no scores, or one of them is NaN.

    Example:
        >>> ood_metrics(np.array([0.1, 0.2, 0.3]), np.array([0.25, 0.9])).auroc  # 5 of 6 pairs
        0.8333333333333334

    Source: `sklearn.metrics.roc_auc_score`, `average_precision_score`, `roc_curve`.
    """
    from sklearn import metrics  # takes a second: only for those who use it

    ranks, is_ood = _ranks(id_scores, ood_scores)
    return OODMetrics(
        auroc=float(metrics.roc_auc_score(is_ood, ranks)),
        aupr_out=float(metrics.average_precision_score(is_ood, ranks)),
        aupr_in=float(metrics.average_precision_score(~is_ood, -ranks)),
        fpr95_out=_false_positive_rate(is_ood, ranks),
        fpr95_in=_false_positive_rate(~is_ood, -ranks),
    )


def roc_curve(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates for all thresholds; out-of-distribution examples are positives.

    Args:
        id_scores: Scores [M] of in-distribution examples, higher for more uncertainty.
        ood_scores: Scores [K] of out-of-distribution examples.

    Returns:
        False positive rates and true positive rates, each from 0 to 1.

    Raises:
        ValueError: There are no scores, or one of them is NaN.

    Source: `sklearn.metrics.roc_curve`.
    """
    from sklearn import metrics  # takes a second: only for those who use it

    ranks, is_ood = _ranks(id_scores, ood_scores)
    false_positive_rates, true_positive_rates, _ = metrics.roc_curve(is_ood, ranks)
    return false_positive_rates, true_positive_rates


def risk_coverage(scores: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coverage k/M and risk, the mean loss of the k most certain examples, for k = 1, ..., M.

    Equal scores have no order: the risk is the mean over all their orders, so that the curve of a
    constant score is the mean loss everywhere.

    Args:
        scores: Scores [M], higher for more uncertainty.
        losses: Losses [M]: 1 for an error and 0 for none, or any other loss of each example.

    Returns:
        Coverage [M] and risk [M].

    Raises:
        ValueError: There are no scores, one of them is NaN, or there are not as many losses.

    Source: El-Yaniv and Wiener 2010, "On the Foundations of Noise-free Selective Classification".
    """
    scores, losses = np.asarray(scores), np.asarray(losses)
    _check(scores)
    if len(losses) != len(scores):
        raise ValueError(f"{len(losses)} losses for {len(scores)} scores: give one for each score.")
    _, group = np.unique(scores, return_inverse=True)
    sizes = np.bincount(group)
    group_losses = np.bincount(group, losses) / sizes
    counts = np.arange(1, len(scores) + 1)
    return counts / len(scores), np.repeat(group_losses, sizes).cumsum() / counts


def area_under_risk_coverage(scores: np.ndarray, losses: np.ndarray) -> float:
    """Mean of the risk over all coverages, 1/M sum_k risk_k (AURC); lower is better.

    Args:
        scores: Scores [M], higher for more uncertainty.
        losses: Losses [M]: 1 for an error and 0 for none, or any other loss of each example.

    Raises:
        ValueError: There are no scores, one of them is NaN, or there are not as many losses.

    Source: Geifman, Uziel and El-Yaniv 2019, "Bias-Reduced Uncertainty Estimation for Deep Neural
    Classifiers", equation 1.
    """
    return float(risk_coverage(scores, losses)[1].mean())


def _false_positive_rate(is_positive: np.ndarray, scores: np.ndarray) -> float:
    from sklearn import metrics

    false_positive_rates, true_positive_rates, _ = metrics.roc_curve(
        is_positive, scores, drop_intermediate=False
    )
    return float(false_positive_rates[np.argmax(true_positive_rates >= TRUE_POSITIVE_RATE)])


def _ranks(id_scores: np.ndarray, ood_scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rank of each score among all, finite where scores are not; and whether it is an OOD score."""
    id_scores, ood_scores = np.asarray(id_scores), np.asarray(ood_scores)
    _check(id_scores)
    _check(ood_scores)
    _, ranks = np.unique(np.concatenate([id_scores, ood_scores]), return_inverse=True)
    return ranks, np.arange(len(ranks)) >= len(id_scores)


def _check(scores: np.ndarray) -> None:
    if not scores.size:
        raise ValueError("There are no scores: give at least 1.")
    if scores.ndim != 1:
        raise ValueError(
            f"Scores have the shape {list(scores.shape)}: give one for each example, such as their "
            "mean, or those of all choices as ravel()."
        )
    if np.isnan(scores).any():
        raise ValueError("A score is NaN: scores must be numbers or infinite.")
