"""Diversity of each filter against the size of the weights by which the next layer reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf import plots
from hypernet_tf.analysis.filters import filter_diversity
from hypernet_tf.metrics import Measure
from reproduce.analyses.base import Analysis, Findings, Row
from reproduce.analyses.subject import Subject

SEED = 10_004
_MOST_NETWORKS = 200


class FilterDiversity(Analysis):
    """Whether a sampler varies the filters that the next layer ignores.

    Reference: Deutsch et al. (2019), section 4.1, the failure to watch.
    """

    name = "filter_diversity"
    title = "diversity of each filter against the next layer's weights on it"
    figure_caption = "Diversity of each filter against the next layer's weights on it"
    reading = (
        "A negative correlation means that diversity gathers in filters that the next layer "
        "hardly reads."
    )
    order = 70
    min_networks = 2

    def compute(self, subject: Subject) -> Findings:
        """Compute the diversity of filters; there is no figure if the gauge scales no filter."""
        ensemble = subject.sampler.sample(subject.sampler.at_most(_MOST_NETWORKS), seed=SEED)
        arrays: dict[str, np.ndarray] = {}
        layers = {}
        for layer, diversity, next_weights in filter_diversity(ensemble):
            layers[f"layer {layer}"] = {
                "diversity_mean": float(diversity.mean()),
                "rank_correlation": _rank_correlation(diversity, next_weights),
            }
            arrays[f"diversity_{layer}"] = diversity
            arrays[f"next_weights_{layer}"] = next_weights
        if not layers:
            print("no diversity of filters: the gauge scales no filter of this target")
        numbers = {"num_networks": len(ensemble), "layers": layers}
        return Findings(numbers, {"filter_diversity": arrays} if layers else {})

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw a panel for each layer."""
        panels = {}
        for layer, values in numbers["layers"].items():
            number = layer.removeprefix("layer ")
            correlation = values["rank_correlation"]
            text = "not defined" if correlation is None else f"{correlation:.2f}"
            title = f"{layer}\nrank correlation {text}"
            panels[title] = (arrays[f"diversity_{number}"], arrays[f"next_weights_{number}"])
        return plots.filter_diversity(panels)

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """The rank correlation in each layer."""
        return [
            Row(
                Measure(
                    f"filter_diversity_{layer.replace(' ', '_')}_rank_correlation",
                    f"{layer}: rank correlation of diversity and next weights",
                    "analysis",
                ),
                values["rank_correlation"],
            )
            for layer, values in numbers["layers"].items()
        ]


def _rank_correlation(diversity: np.ndarray, next_weights: np.ndarray) -> float | None:
    """Spearman's; None if all filters are alike, as where no dropout mask acts."""
    from scipy.stats import spearmanr  # slow to import

    if not (np.ptp(diversity) and np.ptp(next_weights)):
        return None
    return float(spearmanr(diversity, next_weights).statistic)
