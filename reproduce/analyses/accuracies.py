"""Histogram of the networks' accuracies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf import plots
from reproduce.analyses.base import Analysis, Findings
from reproduce.analyses.subject import ENSEMBLES, NUM_NETWORKS, Subject

_MARKS = ("mean_of_the_networks", "majority_vote", "mean_probability", "most_confident")
"""Lines in the figure: the networks' mean, and each way in which an ensemble chooses a class."""


class Accuracies(Analysis):
    """Accuracies of the networks of all ensembles, beside those of the ensembles."""

    name = "accuracies"
    title = "histogram of the networks' accuracies"
    figure_caption = "Accuracies of the networks on the test images, and of their ensembles"
    reading = (
        "Each bar counts networks. A narrow histogram far to the right is a sampler whose "
        "networks are all good."
    )
    order = 10
    settings = (NUM_NETWORKS, ENSEMBLES)
    basic = True

    def compute(self, subject: Subject) -> Findings:
        """Collect the accuracies of all networks."""
        evaluations = subject.evaluations()
        accuracies = np.concatenate([result.member_accuracy for result in evaluations])
        marks = {"mean_of_the_networks": accuracies.mean()} | {
            kind: np.mean([getattr(result, f"{kind}_accuracy") for result in evaluations])
            for kind in _MARKS[1:]
        }
        # As published, 0.05 points; but at least one image, the smallest possible difference.
        bin_width = max(0.05, 100 / len(subject.test))
        numbers = {
            "num_networks": len(accuracies),
            "mean": float(accuracies.mean()),
            "std": float(accuracies.std(ddof=1)) if len(accuracies) > 1 else None,
            "lowest": float(accuracies.min()),
            "highest": float(accuracies.max()),
            "bin_width_points": bin_width,
        }
        arrays = {name: np.array(100 * float(value)) for name, value in marks.items()}
        arrays |= {"accuracies": accuracies, "bin_width": np.array(bin_width)}
        return Findings(numbers, {"accuracy_histogram": arrays})

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw the histogram."""
        marks = {mark.replace("_", " "): float(arrays[mark]) for mark in _MARKS}
        return plots.accuracy_histogram(
            100 * arrays["accuracies"], marks, bin_width=float(arrays["bin_width"])
        )
