"""Whether confidence is deserved: functions of log-probabilities [M, C] and labels [M].

Confidence is the highest probability of an example, accuracy whether its class is the label; both
are fractions. An ensemble is evaluated by its mean prediction, see `mean_log_probabilities`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from hypernet_tf.metrics.accuracy import (
    check_labels,
    check_log_probabilities,
    check_weights,
    correct,
)

CALIBRATION_BINS = 15


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Bins of a reliability diagram; fractions.

    Attributes:
        edges: Edges [b + 1] of the bins. A bin contains its lower edge; the last one both.
        confidence: Mean confidence [b]; NaN in an empty bin.
        accuracy: Accuracy [b]; NaN in an empty bin.
        share: Share [b] of the examples, or of their weights.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray


def reliability(
    log_probabilities: np.ndarray,
    labels: np.ndarray,
    bins: int = CALIBRATION_BINS,
    sample_weight: np.ndarray | None = None,
) -> Reliability:
    """Confidence, accuracy and share of examples in equal-width bins of confidence.

    sum_b share_b |accuracy_b - confidence_b| is the `expected_calibration_error`.

    Args:
        log_probabilities: Log-probabilities [M, C] of one prediction.
        labels: Labels [M].
        bins: Number of bins on [0, 1].
        sample_weight: Weights [M] of the examples; None for equal ones.

    Raises:
        ValueError: The labels are not one class for each example.

    Source: `scipy.stats.binned_statistic` (Guo et al. 2017, "On Calibration of Modern Neural
    Networks", equations 2 and 3).
    """
    weights = check_weights(sample_weight, len(labels))
    return reliability_of(bin_sums(log_probabilities, labels, bins, weights))


def bin_sums(
    log_probabilities: np.ndarray,
    labels: np.ndarray,
    bins: int = CALIBRATION_BINS,
    sample_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Sums of weight, confidence and accuracy in each bin of `reliability`, [3, b].

    Sums of several parts of the examples add up, so that not all examples need to be in memory.

    Args:
        log_probabilities: Log-probabilities [M, C] of one prediction.
        labels: Labels [M].
        bins: Number of bins on [0, 1].
        sample_weight: Weights [M] of the examples; None for equal ones.

    Raises:
        ValueError: The labels are not one class for each example.
    """
    from scipy.stats import binned_statistic  # takes a second: only for those who use it

    log_confidence, is_correct = _confidence(log_probabilities, labels)
    if np.isnan(log_confidence).any():
        raise ValueError("Log-probabilities are NaN: leave out these examples.")
    confidence = np.minimum(np.exp(log_confidence), 1.0)  # float32's rounding may exceed 1
    weights = np.ones(len(labels)) if sample_weight is None else sample_weight
    values = (weights, weights * confidence, weights * is_correct)
    return binned_statistic(confidence, values, "sum", bins, (0.0, 1.0)).statistic


def reliability_of(sums: np.ndarray) -> Reliability:
    """The reliability diagram of the sums [3, b] of `bin_sums`."""
    weight, confidence, correct_weight = sums
    with np.errstate(invalid="ignore"):  # an empty bin: 0 / 0
        return Reliability(
            np.linspace(0.0, 1.0, len(weight) + 1),
            confidence / weight,
            correct_weight / weight,
            weight / weight.sum(),
        )


def error_of_bins(diagram: Reliability) -> float:
    """The `expected_calibration_error` of a reliability diagram; NaN without examples."""
    if np.isnan(diagram.share).all():
        return float("nan")
    return float(np.nansum(diagram.share * np.abs(diagram.accuracy - diagram.confidence)))


def expected_calibration_error(
    log_probabilities: np.ndarray,
    labels: np.ndarray,
    bins: int = CALIBRATION_BINS,
    sample_weight: np.ndarray | None = None,
) -> float:
    """Mean over equal-width bins of confidence of |accuracy - confidence|, weighted by their share.

    Args:
        log_probabilities: Log-probabilities [M, C] of one prediction.
        labels: Labels [M].
        bins: Number of bins on [0, 1].
        sample_weight: Weights [M] of the examples, with which accuracies, confidences and shares
            are computed; None for equal ones.

    Raises:
        ValueError: The labels are not one class for each example.

    Source: Naeini et al. 2015; Guo et al. 2017. `tfp.stats.expected_calibration_error` computes the
    same in float32, which loses digits of many examples, and knows no weights.
    """
    log_probabilities = check_log_probabilities(log_probabilities, 2)
    labels = check_labels(labels, *log_probabilities.shape)
    if np.isnan(log_probabilities).any():
        return float("nan")
    return error_of_bins(reliability(log_probabilities, labels, bins, sample_weight))


def adaptive_calibration_error(
    log_probabilities: np.ndarray, labels: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
    """Expected calibration error over bins of equally many examples.

    The edges of the bins are quantiles of the confidence, so that bins are narrow where many
    confidences are close together. Equal confidences share a bin, and other bins may be empty: with
    one confidence for all examples the error is |accuracy - confidence|. It is not defined for
    sample weights.

    Args:
        log_probabilities: Log-probabilities [M, C] of one prediction.
        labels: Labels [M].
        bins: Number of bins.

    Raises:
        ValueError: The labels are not one class for each example.

    Source: `tfp.stats.expected_calibration_error_quantiles` (Nguyen and O'Connor 2015, "Posterior
    calibration and exploratory analysis for natural language processing models").
    """
    log_confidence, is_correct = _confidence(log_probabilities, labels)
    if not len(log_confidence) or np.isnan(log_confidence).any():
        return float("nan")
    return float(_error_of_quantile_bins()(log_confidence, is_correct, bins))


@functools.cache
def _error_of_quantile_bins() -> Callable:
    """TFP's function as one graph: eagerly it traces an inner one at every call."""
    import tensorflow as tf
    import tensorflow_probability as tfp  # takes seconds: only for those who use it

    @tf.function(
        input_signature=(
            tf.TensorSpec([None], tf.float64),
            tf.TensorSpec([None], tf.bool),
            tf.TensorSpec([], tf.int32),
        )
    )
    def error(log_confidence: tf.Tensor, is_correct: tf.Tensor, bins: tf.Tensor) -> tf.Tensor:
        # Quantiles of logarithms: through exp and back, TFP's rounding drops the lowest confidence.
        return tfp.stats.expected_calibration_error_quantiles(
            is_correct, log_confidence, num_buckets=bins, log_space_buckets=True
        )[0]

    return error.get_concrete_function()  # also where functions run eagerly


def _confidence(log_probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log of the highest probability in float64 [M], and whether its class is the label [M]."""
    log_probabilities = check_log_probabilities(log_probabilities, 2)
    labels = check_labels(labels, *log_probabilities.shape)
    return log_probabilities.max(-1).astype(np.float64), correct(log_probabilities, labels)
