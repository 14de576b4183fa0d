"""Measures of predictions: pure functions of arrays, and the one table of all measures."""

from hypernet_tf.metrics.accuracy import (
    brier_score,
    classification_accuracy,
    confusion,
    disagreement,
    majority_vote,
    mean_log_probabilities,
    most_confident,
    negative_log_likelihood,
    votes,
)
from hypernet_tf.metrics.calibration import (
    Reliability,
    adaptive_calibration_error,
    expected_calibration_error,
    reliability,
)
from hypernet_tf.metrics.measures import MEASURES, Measure
from hypernet_tf.metrics.ood import (
    OODMetrics,
    area_under_risk_coverage,
    ood_metrics,
    risk_coverage,
    roc_curve,
)
from hypernet_tf.metrics.similarity import (
    linear_cka,
    pairwise_js_divergence,
    pairwise_kl_divergence,
)
from hypernet_tf.metrics.uncertainty import (
    Uncertainty,
    expected_entropy,
    mutual_information,
    predictive_entropy,
    probability_variance,
)

__all__ = [
    "MEASURES",
    "Measure",
    "OODMetrics",
    "Reliability",
    "Uncertainty",
    "adaptive_calibration_error",
    "area_under_risk_coverage",
    "brier_score",
    "classification_accuracy",
    "confusion",
    "disagreement",
    "expected_calibration_error",
    "expected_entropy",
    "linear_cka",
    "majority_vote",
    "mean_log_probabilities",
    "most_confident",
    "mutual_information",
    "negative_log_likelihood",
    "ood_metrics",
    "pairwise_js_divergence",
    "pairwise_kl_divergence",
    "predictive_entropy",
    "probability_variance",
    "reliability",
    "risk_coverage",
    "roc_curve",
    "votes",
]
