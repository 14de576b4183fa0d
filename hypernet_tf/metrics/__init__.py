"""Measures of predictions: pure functions of arrays, and the one table of all measures."""

from hypernet_tf.metrics.accuracy import (
    brier_score,
    classification_accuracy,
    confusion,
    correct,
    log_losses,
    majority_vote,
    mean_log_probabilities,
    mean_over_examples,
    most_confident,
    negative_log_likelihood,
    squared_errors,
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
    pairwise_disagreement,
    pairwise_js_divergence,
    pairwise_kl_divergence,
)
from hypernet_tf.metrics.uncertainty import (
    Uncertainty,
    expected_entropy,
    measure_uncertainty,
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
    "correct",
    "expected_calibration_error",
    "expected_entropy",
    "linear_cka",
    "log_losses",
    "majority_vote",
    "mean_log_probabilities",
    "mean_over_examples",
    "measure_uncertainty",
    "most_confident",
    "mutual_information",
    "negative_log_likelihood",
    "ood_metrics",
    "pairwise_disagreement",
    "pairwise_js_divergence",
    "pairwise_kl_divergence",
    "predictive_entropy",
    "probability_variance",
    "reliability",
    "risk_coverage",
    "roc_curve",
    "squared_errors",
    "votes",
]
