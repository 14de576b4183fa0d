"""What metrics.json holds of a run before any analysis."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf.diversity.entropy import nearest_neighbour_distances
from hypernet_tf.training.callbacks import ensemble_entropy
from reproduce.analyses.subject import Subject


def summarise(
    config: Any, dataset: hn.data.Dataset, subject: Subject, history: list[dict[str, Any]]
) -> dict:
    """What metrics.json holds of training and of one ensemble, but for the seconds.

    Args:
        config: the run's.
        dataset: what it was trained on.
        subject: its sampler, and the ensemble that is evaluated on the test images.
        history: the record of its training, which ends with a validation.
    """
    validation = history[-1]["validation"]
    sampler, ensemble, result = subject.sampler, subject.ensemble(), subject.evaluation()
    accuracy, several = result.member_accuracy, len(ensemble) > 1
    return {
        "experiment": config.experiment,
        "method": config.method,
        "dataset": dataset.summary(),
        "config": dataclasses.asdict(config),
        "steps": int(sampler.step.numpy()),
        "image_passes": int(sampler.step.numpy()) * config.passes_per_step,
        "seconds": {},
        "target_weights": sampler.target.weight_count,
        "parameters": sum(int(np.prod(v.shape)) for v in sampler.trainable_variables),
        "networks": {
            "count": len(ensemble),
            "accuracy_mean": float(accuracy.mean()),
            "accuracy_std": float(accuracy.std(ddof=1)) if several else None,
            "accuracy_min": float(accuracy.min()),
            "accuracy_max": float(accuracy.max()),
            "negative_log_likelihood_mean": float(result.member_negative_log_likelihood.mean()),
        },
        "ensemble": {
            "majority_vote_accuracy": result.majority_vote_accuracy,
            "mean_probability_accuracy": result.mean_probability_accuracy,
            "most_confident_accuracy": result.most_confident_accuracy,
            "negative_log_likelihood": result.negative_log_likelihood,
            "expected_calibration_error": result.expected_calibration_error,
            "adaptive_calibration_error": result.adaptive_calibration_error,
            "brier_score": result.brier_score,
        },
        "validation": {k: v for k, v in validation.items() if k != "member_accuracies"},
        **best_on_test(history),
        "diversity": {
            "entropy": ensemble_entropy(ensemble, sampler),
            "disagreement": result.disagreement if several else None,
            "nearest_neighbour_distance": _distance(ensemble),
        },
    }


def best_on_test(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The best test accuracies of the validations, which the paper prints; {} if not watched."""
    watched = [entry["test"] for entry in history if "test" in entry]
    if not watched:
        return {}
    return {
        "best_on_test": {
            "validations": len(watched),
            "accuracy_mean": max(float(np.mean(one["member_accuracies"])) for one in watched),
            "majority_vote_accuracy": max(one["majority_vote_accuracy"] for one in watched),
        }
    }


def seconds_to_sample(sampler: hn.WeightSampler, count: int) -> float:
    """How long it takes to sample so many networks, once the graph is there."""
    sampler.sample(count, seed=1)
    start = time.monotonic()
    sampler.sample(count, seed=2)
    return round(time.monotonic() - start, 4)


def _distance(ensemble: hn.Ensemble) -> float | None:
    """Mean L2 distance to the nearest of ten networks: of ten, so that samplers compare."""
    if len(ensemble) < 10:
        return None
    return float(np.mean(nearest_neighbour_distances(tf.constant(ensemble[:10].theta()))))
