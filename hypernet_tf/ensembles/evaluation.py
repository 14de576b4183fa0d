"""How N networks and their ensemble do on labelled examples, gathered over chunks of examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from hypernet_tf.metrics import accuracy as metrics
from hypernet_tf.metrics import calibration


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How N classifiers and their ensemble do on M examples. Accuracies are fractions.

    Attributes:
        member_accuracy: [N].
        member_negative_log_likelihood: [N], nats.
        majority_vote_accuracy: of the class with most votes.
        mean_probability_accuracy: of the class with the highest mean probability.
        most_confident_accuracy: of the most confident network's choice.
        negative_log_likelihood: of the mean probability, nats.
        expected_calibration_error: of the mean probability, 15 bins of equal width.
        adaptive_calibration_error: of the mean probability, 15 bins of equally many examples.
        brier_score: of the mean probability, between 0 and 2.
        disagreement: mean over pairs of networks of the share of examples on which they differ;
            NaN for one network.
        confusion: [C, C] how many examples of each class (rows) get which class with the highest
            mean probability (columns).
    """

    member_accuracy: np.ndarray
    member_negative_log_likelihood: np.ndarray
    majority_vote_accuracy: float
    mean_probability_accuracy: float
    most_confident_accuracy: float
    negative_log_likelihood: float
    expected_calibration_error: float
    adaptive_calibration_error: float
    brier_score: float
    disagreement: float
    confusion: np.ndarray


@dataclasses.dataclass(frozen=True)
class RegressionEvaluation:
    """How N regressors and their mean do on M examples.

    Attributes:
        member_mean_squared_error: [N].
        mean_squared_error: of the mean prediction.
        standard_deviation: of the predictions over networks, averaged over examples.
    """

    member_mean_squared_error: np.ndarray
    mean_squared_error: float
    standard_deviation: float


def integer_labels(y: np.ndarray, classes: int) -> np.ndarray:
    """Labels as integers [M].

    Args:
        y: integers [M] or [M, 1], or one-hot [M, C].
        classes: C.

    Raises:
        ValueError: the labels are of another kind, or out of range.
    """
    if y.ndim == 2 and y.shape[1] == classes:
        one_hot = np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all()
        labels = y.argmax(-1) if one_hot else None
    else:
        whole = y.dtype.kind in "iub" or (y.dtype.kind == "f" and np.isin(y, range(classes)).all())
        labels = y.reshape(-1).astype(np.int64) if whole and y.size == len(y) else None
    if labels is None or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels are integers from 0 to {classes - 1}, one per example, or one-hot rows"
        )
    return labels


def evaluate_classes(
    parts: Iterable[tuple[int, np.ndarray]], labels: np.ndarray, classes: int
) -> Evaluation:
    """Evaluate classifiers.

    Args:
        parts: chunks of examples in order: the first one's index, and log-probabilities [N, b, C].
        labels: [M] integers.
        classes: C.
    """
    correct: Any = 0.0
    likelihood: Any = 0.0
    differing = 0.0
    means, confident, voted = [], [], []
    for first, log_p in parts:
        part = labels[first : first + log_p.shape[1]]
        predictions = log_p.argmax(-1)
        correct = correct + (predictions == part).sum(1)
        likelihood = likelihood + metrics.negative_log_likelihood(log_p, part) * len(part)
        means.append(metrics.mean_log_probabilities(log_p))
        confident.append(metrics.most_confident(log_p))
        voted.append(metrics.majority_vote(predictions, classes))
        if len(log_p) > 1:
            differing += metrics.disagreement(predictions, classes) * len(part)
        else:
            differing = float("nan")
    mean = np.concatenate(means)
    chosen = mean.argmax(-1)
    return Evaluation(
        member_accuracy=correct / len(labels),
        member_negative_log_likelihood=likelihood / len(labels),
        majority_vote_accuracy=float(np.mean(np.concatenate(voted) == labels)),
        mean_probability_accuracy=float(np.mean(chosen == labels)),
        most_confident_accuracy=float(np.mean(np.concatenate(confident) == labels)),
        negative_log_likelihood=float(metrics.negative_log_likelihood(mean, labels)),
        expected_calibration_error=calibration.expected_calibration_error(mean, labels),
        adaptive_calibration_error=calibration.adaptive_calibration_error(mean, labels),
        brier_score=metrics.brier_score(mean, labels),
        disagreement=differing / len(labels),
        confusion=metrics.confusion(chosen, labels, classes),
    )


def evaluate_values(parts: Iterable[tuple[int, np.ndarray]], y: np.ndarray) -> RegressionEvaluation:
    """Evaluate regressors.

    Args:
        parts: chunks of examples in order: the first one's index, and predictions [N, b, ...].
        y: [M, ...].

    Raises:
        ValueError: there are not as many values as predictions.
    """
    errors: Any = 0.0
    mean_error, spread = 0.0, 0.0
    for first, outputs in parts:
        outputs = outputs.astype(np.float64)
        part = y[first : first + outputs.shape[1]]
        if part.size != outputs[0].size:
            raise ValueError(
                f"values of shape {list(y.shape[1:])} for predictions of {list(outputs.shape[2:])}"
            )
        part = part.reshape(outputs.shape[1:])
        errors = errors + ((outputs - part) ** 2).reshape(len(outputs), -1).mean(1) * len(part)
        mean_error += ((outputs.mean(0) - part) ** 2).mean() * len(part)
        spread += outputs.std(0).mean() * len(part)
    return RegressionEvaluation(errors / len(y), float(mean_error / len(y)), float(spread / len(y)))
