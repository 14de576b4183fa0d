"""What metrics.json holds of a run before its analyses."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

import hypernet_tf as hn
from hypernet_tf.metrics import MEASURES
from hypernet_tf.metrics.measures import evaluation_measures, of_weights
from hypernet_tf.samplers.weight_measures import weight_measures
from reproduce.analyses.subject import Subject
from reproduce.configs import RunConfig


def summarise(
    config: RunConfig, dataset: hn.data.Dataset, subject: Subject, history: list[dict[str, Any]]
) -> dict[str, Any]:
    """The contents of metrics.json, except the seconds and the peak memory.

    Numbers stand by the keys of `hypernet_tf.metrics.MEASURES` in the groups of their measures.

    Args:
        config: Configuration of the run.
        dataset: Data set of the training.
        subject: Sampler and data set; its ensemble is evaluated on the test images.
        history: Record of the training, which ends with a validation.
    """
    sampler, ensemble = subject.sampler, subject.ensemble()
    steps = int(sampler.step.numpy())
    groups: dict[str, dict[str, Any]] = {
        "run": {
            "steps": steps,
            "image_passes": steps * config.passes_per_step,
            "target_weights": sampler.target.weight_count,
            "parameters": sum(int(np.prod(v.shape)) for v in sampler.trainable_variables),
        },
        "networks": {"num_networks": len(ensemble)},
        "ensemble": {},
        "diversity": {},
        "seconds": {},
    }
    for key, value in _measured(subject).items():
        groups[MEASURES[key].group][key] = value
    validation = history[-1]["validation"]
    return {
        "experiment": config.experiment,
        "method": config.method,
        "dataset": dataset.summary(),
        "config": dataclasses.asdict(config),
        "steps": steps,
        **groups,
        "validation": {k: v for k, v in validation.items() if k != "member_accuracies"},
        **best_on_test(history),
        "late_gain": late_gain(history),
        "analyses": {},
    }


def _measured(subject: Subject) -> dict[str, float | None]:
    """Every measure of predictions and of weights of the evaluated networks."""
    of_weights = weight_measures(subject.ensemble(), subject.sampler)
    return of_weights | subject.evaluation().summary()


def missing_measures(metrics: Mapping[str, Any]) -> list[str]:
    """The keys of the measures of an evaluation that were not known when a run finished.

    Args:
        metrics: Contents of metrics.json.
    """
    return [
        measure.key
        for measure in (*evaluation_measures("classification"), *of_weights())
        if measure.key not in metrics[measure.group]
    ]


def add_missing_measures(metrics: dict[str, Any], subject: Subject) -> None:
    """Compute `missing_measures` of a finished run, of the networks that it was evaluated with.

    Args:
        metrics: Contents of metrics.json; gets the numbers.
        subject: Sampler and data set of the run, with as many networks.
    """
    values = _measured(subject)
    for key in missing_measures(metrics):
        metrics[MEASURES[key].group][key] = values[key]


def best_on_test(history: list[dict[str, Any]]) -> dict[str, Any]:
    """The best test accuracies of the validations, which the paper prints.

    Args:
        history: Record of the training.

    Returns:
        {"best_on_test": numbers}, or {} if the test images were not watched.
    """
    watched = [entry["test"] for entry in history if "test" in entry]
    if not watched:
        return {}
    best = {
        key: max(entry[key] for entry in watched)
        for key in ("member_accuracy", "majority_vote_accuracy")
    }
    return {"best_on_test": {"validations": len(watched), **best}}


def late_gain(history: list[dict[str, Any]]) -> float | None:
    """What the networks' mean accuracy gained in the last quarter of the training.

    Args:
        history: Record of the training, which ends with a validation.

    Returns:
        Accuracy on validation images at the end, less that after three quarters of the steps,
        interpolated between the validations before and after; None if there was none before.
    """
    validated = [entry for entry in history if "validation" in entry]
    steps = [entry["step"] for entry in validated]
    accuracies = [entry["validation"]["member_accuracy"] for entry in validated]
    three_quarters = 0.75 * steps[-1]
    if steps[0] > three_quarters:
        return None
    return accuracies[-1] - float(np.interp(three_quarters, steps, accuracies))


def seconds_to_sample(sampler: hn.WeightSampler, count: int) -> float:
    """The seconds that sampling takes after the graph is built.

    Args:
        sampler: The sampler.
        count: Number of networks.
    """
    sampler.sample(count, seed=1)
    start = time.monotonic()
    sampler.sample(count, seed=2)
    return round(time.monotonic() - start, 4)
