"""Accuracies of several ensembles beside those of their networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf import plots
from hypernet_tf.metrics import MEASURES, Measure
from reproduce.analyses.base import Analysis, Findings, Row, count, percent
from reproduce.analyses.subject import ENSEMBLES, NUM_NETWORKS, Subject

_KINDS = ("majority_vote", "mean_probability", "most_confident")
"""Ways in which an ensemble chooses a class."""


class Ensembles(Analysis):
    """Mean and standard deviation over ensembles of each way in which they choose a class."""

    name = "ensembles"
    title = "accuracies of several ensembles"
    figure_caption = (
        "Accuracy of each ensemble by its way to choose a class, and mean of its networks"
    )
    reading = "A vote above the networks' accuracies is what the ensemble gains over its members."
    highlights = (
        "ensembles_num_ensembles",
        "ensembles_num_networks",
        "ensembles_majority_vote_accuracy",
        "ensembles_mean_probability_accuracy",
        "ensembles_most_confident_accuracy",
    )
    order = 20
    min_networks = 2
    settings = (NUM_NETWORKS, ENSEMBLES)

    def compute(self, subject: Subject) -> Findings:
        """Collect the accuracies of all ensembles."""
        evaluations = subject.evaluations()
        members = np.stack([result.member_accuracy for result in evaluations])  # [E, N]
        accuracies = {
            kind: np.array([getattr(result, f"{kind}_accuracy") for result in evaluations])
            for kind in _KINDS
        }
        numbers = {
            "num_ensembles": len(members),
            "num_networks": members.shape[1],
            "member": _mean_and_std(members.ravel()),
            **{kind: _mean_and_std(values) for kind, values in accuracies.items()},
        }
        return Findings(numbers, {"ensembles": accuracies | {"members": members}})

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw a mark for each ensemble."""
        kinds = {kind.replace("_", " "): 100 * arrays[kind] for kind in _KINDS}
        return plots.ensembles(100 * arrays["members"].mean(1), kinds)

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """Means and standard deviations over ensembles."""
        rows = [
            Row(count("ensembles_num_ensembles", "ensembles"), numbers["num_ensembles"]),
            Row(
                count("ensembles_num_networks", "networks in each ensemble"),
                numbers["num_networks"],
            ),
        ]
        titles = {"member": ("accuracy of the networks of all ensembles", "")}
        titles |= {kind: (MEASURES[f"{kind}_accuracy"].title, " over ensembles") for kind in _KINDS}
        for kind, (title, over) in titles.items():
            mean = percent(f"ensembles_{kind}_accuracy", f"{title}, mean{over}")
            std = Measure(
                f"ensembles_{kind}_accuracy_std",
                f"{title}, standard deviation{over}",
                "analysis",
                unit="points",
            )
            rows += [Row(mean, numbers[kind]["mean"]), Row(std, numbers[kind]["std"])]
        return rows


def _mean_and_std(values: np.ndarray) -> dict[str, float | None]:
    """Mean and standard deviation; a single value has no standard deviation."""
    std = float(values.std(ddof=1)) if len(values) > 1 else None
    return {"mean": float(values.mean()), "std": std}
