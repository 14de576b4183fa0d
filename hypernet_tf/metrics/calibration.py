"""Whether a prediction is as often right as it is sure: log-probabilities [M, C], labels [M].

Confidence is the highest probability, accuracy whether its class is right, both fractions. Members
are looked at one by one, an ensemble by `metrics.mean_log_probabilities`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from hypernet_tf.metrics.accuracy import check_labels

CALIBRATION_BINS = 15


@dataclasses.dataclass(frozen=True)
class Reliability:
    """The bins of a reliability diagram; fractions.

    Attributes:
        edges: [b + 1], the bins' limits, each bin without its upper one (the last one with it).
        confidence: [b], mean confidence; NaN in an empty bin.
        accuracy: [b], NaN in an empty bin.
        share: [b], of the examples.
    """

    edges: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    share: np.ndarray


def reliability(
    log_probabilities: np.ndarray, labels: np.ndarray, bins: int = CALIBRATION_BINS
) -> Reliability:
    """Confidence, accuracy and share of examples in equal-width bins of confidence.

    sum_b share_b |accuracy_b - confidence_b| is the `expected_calibration_error`.

    Args:
        log_probabilities: [M, C] of one prediction.
        labels: [M].
        bins: how many bins on [0, 1].

    Source: `scipy.stats.binned_statistic` (Guo et al. 2017, "On Calibration of Modern Neural
    Networks", equations 2 and 3).
    """
    from scipy.stats import binned_statistic  # takes a second: only for those who use it

    log_confidence, correct = _confidence(log_probabilities, labels)
    confidence = np.minimum(np.exp(log_confidence), 1.0)  # float32's rounding may exceed 1
    (mean_confidence, accuracy), edges, places = binned_statistic(
        confidence, (confidence, correct), "mean", bins, (0.0, 1.0)
    )
    share = np.bincount(places, minlength=bins + 1)[1:] / len(labels)
    return Reliability(edges, mean_confidence, accuracy, share)


def expected_calibration_error(
    log_probabilities: np.ndarray, labels: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
    """Mean over equal-width bins of confidence of |accuracy - confidence|, weighted by their share.

    Args:
        log_probabilities: [M, C] of one prediction.
        labels: [M].
        bins: how many bins on [0, 1].

    Source: `tfp.stats.expected_calibration_error` (Naeini et al. 2015, Guo et al. 2017).
    """
    import tensorflow_probability as tfp  # takes seconds: only for those who use it

    check_labels(labels, *log_probabilities.shape)
    return float(
        tfp.stats.expected_calibration_error(
            num_bins=bins,
            logits=log_probabilities.astype(np.float32),
            labels_true=labels.astype(np.int32),
        )
    )


def adaptive_calibration_error(
    log_probabilities: np.ndarray, labels: np.ndarray, bins: int = CALIBRATION_BINS
) -> float:
    """The expected calibration error over bins of equally many examples, from low to high.

    The bins' limits are quantiles of the confidence, which lets sure networks' bins be narrow.
    Equal confidences are never parted: bins then hold more or nothing, and with one confidence for
    all examples it is |accuracy - confidence|.

    Args:
        log_probabilities: [M, C] of one prediction.
        labels: [M].
        bins: how many; more than examples leave some empty.

    Source: `tfp.stats.expected_calibration_error_quantiles` (Nguyen and O'Connor 2015, "Posterior
    calibration and exploratory analysis for natural language processing models").
    """
    log_confidence, correct = _confidence(log_probabilities, labels)
    return float(_calibration_of_quantiles()(log_confidence, correct, bins))


@functools.cache
def _calibration_of_quantiles() -> Callable:
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
    def error(log_confidence: tf.Tensor, correct: tf.Tensor, bins: tf.Tensor) -> tf.Tensor:
        # Quantiles of logarithms: through exp and back, TFP's rounding drops the least sure one.
        return tfp.stats.expected_calibration_error_quantiles(
            correct, log_confidence, num_buckets=bins, log_space_buckets=True
        )[0]

    return error


def _confidence(log_probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log of the highest probability in float64 [M], and whether its class is right [M]."""
    check_labels(labels, *log_probabilities.shape)
    best = log_probabilities.argmax(-1)
    return log_probabilities.max(-1).astype(np.float64), best == labels
