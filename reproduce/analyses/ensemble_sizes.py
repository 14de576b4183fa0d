"""Accuracy of ensembles of 1, 5, 10 and 100 networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf import plots
from hypernet_tf.metrics import (
    Measure,
    classification_accuracy,
    mean_log_probabilities,
    negative_log_likelihood,
)
from reproduce.analyses.base import Analysis, Findings, Limits, Row, Setting, percent
from reproduce.analyses.subject import Subject
from reproduce.runs.folder import UsageError

SEED = 10_006


def _sizes(value: Sequence[str], limits: Limits) -> list[int]:
    if not value or not all(size.isdecimal() and int(size) > 0 for size in value):
        raise UsageError("--ensemble_sizes takes whole numbers, at least 1, as 1,5,10,100")
    return sorted(set(map(int, value)))


SIZES = Setting(
    "ensemble_sizes",
    ("1", "5", "10", "100"),
    "Numbers of networks of the ensembles whose accuracy is compared.",
    kind="list",
    resolve=_sizes,
)


class EnsembleSizes(Analysis):
    """Accuracy and likelihood of the mean probability of ensembles of each size.

    The largest ensemble that the sampler has is divided into ensembles of each smaller size, and
    the numbers are means over them. A size that the sampler does not have gets no numbers.

    Reference: Ratzlaff and Fuxin (2019), classification.
    """

    name = "ensemble_sizes"
    title = "accuracy of ensembles of several sizes"
    figure_caption = "Accuracy of ensembles by their number of networks"
    reading = "What a larger ensemble gains; each mark is one ensemble."
    order = 25
    settings = (SIZES,)

    def compute(self, subject: Subject) -> Findings:
        """Evaluate the ensembles of each size on the test images."""
        sizes, available = subject.settings[SIZES.name], subject.sampler.num_available
        fitting = [size for size in sizes if available is None or size <= available]
        numbers: dict[str, Any] = {str(size): None for size in sizes}
        if not fitting:
            print(f"no ensembles of these sizes: this sampler holds {available} networks")
            return Findings({"sizes": numbers}, {})
        labels = np.asarray(subject.test.y)
        ensemble = subject.sampler.sample(fitting[-1], seed=SEED)
        log_p = ensemble.log_probabilities(subject.test.x, verbose=1)  # [N, M, C]
        arrays = {}
        for size in fitting:
            groups = log_p[: len(log_p) // size * size].reshape(-1, size, *log_p.shape[1:])
            means = [mean_log_probabilities(group) for group in groups]
            accuracies = np.array([classification_accuracy(mean, labels) for mean in means])
            losses = [float(negative_log_likelihood(mean, labels)) for mean in means]
            numbers[str(size)] = {
                "num_ensembles": len(groups),
                "accuracy": float(accuracies.mean()),
                "negative_log_likelihood": float(np.mean(losses)),
            }
            arrays[str(size)] = accuracies
        return Findings({"sizes": numbers}, {"ensemble_sizes": arrays})

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw a mark for each ensemble."""
        return plots.ensemble_sizes({int(size): 100 * arrays[size] for size in arrays})

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """Accuracy and likelihood of each size."""
        rows = []
        for size, values in numbers["sizes"].items():
            networks = "1 network" if size == "1" else f"{size} networks"
            accuracy = percent(f"{self.name}_{size}_accuracy", f"accuracy of {networks}")
            likelihood = Measure(
                f"{self.name}_{size}_negative_log_likelihood",
                f"negative log-likelihood of {networks}",
                "analysis",
                unit="nats",
                better="lower",
            )
            rows += [
                Row(accuracy, values and values["accuracy"]),
                Row(likelihood, values and values["negative_log_likelihood"]),
            ]
        return rows
