"""Histograms of single weights over many networks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf import plots
from hypernet_tf.analysis.posteriors import single_weights
from hypernet_tf.metrics import MEASURES
from hypernet_tf.samplers.base import NORM_NETWORKS
from reproduce.analyses.base import Analysis, Findings, Row, Setting, at_most_available, count
from reproduce.analyses.subject import Subject

SEED = 10_005
_WEIGHTS_PER_LAYER = 3
_MOST_LAYERS = 8  # which one figure can show


NETWORKS = Setting(
    "posterior_networks",
    1_000,
    "Number of networks in the histograms of single weights.",
    lower_bound=2,
    resolve=at_most_available,
)


class Posteriors(Analysis):
    """The distribution of a few weights of each layer, and the spread of the networks' norms.

    Samples are in the gauge, so that a weight means the same in all networks up to the order of
    filters. A spread near 0, or weights that hardly vary, show networks that have become one.

    Reference: Ratzlaff and Fuxin (2019), posteriors of weights, and diversity by L2 norms.
    """

    name = "posteriors"
    title = "histograms of single weights over many networks"
    figure_caption = "Single weights over many networks; below, their mean ± standard deviation"
    reading = (
        "Each histogram is one weight in many networks: a narrow peak means that all networks have "
        "nearly this value, and the spread of the norms says the same of all weights together."
    )
    order = 45
    min_networks = 2
    settings = (NETWORKS,)

    def compute(self, subject: Subject) -> Findings:
        """Collect the values of the weights; at most eight layers, spread over all."""
        ensemble = subject.sampler.sample(subject.settings[NETWORKS.name], seed=SEED)
        total = len(ensemble.target.layers)
        shown = np.unique(np.linspace(1, total, min(total, _MOST_LAYERS)).astype(int))
        layers: dict[str, dict[str, Any]] = {}
        arrays = {}
        for layer, weight, values in single_weights(ensemble, _WEIGHTS_PER_LAYER):
            if layer not in shown:
                continue
            moments = {"mean": float(values.mean()), "std": float(values.std(ddof=1))}
            layers.setdefault(f"layer {layer}", {})[weight] = moments
            arrays[f"layer {layer}: {weight}"] = values
        # In the gauge norms of filters are given, and their spread says nothing.
        has_norms = not subject.sampler.trains_in_gauge
        numbers = {
            "num_networks": len(ensemble),
            "num_norms": subject.sampler.at_most(NORM_NETWORKS) if has_norms else None,
            "norm_spread": subject.sampler.norm_spread(seed=SEED) if has_norms else None,
            "layers": layers,
        }
        return Findings(numbers, {"posteriors": arrays})

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw a histogram for each weight."""
        return plots.weight_histograms(
            {
                layer: {
                    f"{weight}: {moments['mean']:.2g} ± {moments['std']:.2g}": arrays[
                        f"{layer}: {weight}"
                    ]
                    for weight, moments in weights.items()
                }
                for layer, weights in numbers["layers"].items()
            }
        )

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """The spread of the networks' norms."""
        return [
            Row(
                count("posteriors_num_networks", "networks in the histograms of weights"),
                numbers["num_networks"],
            ),
            Row(
                count("posteriors_num_norms", "networks whose L2 norms are compared"),
                numbers["num_norms"],
            ),
            Row(
                dataclasses.replace(
                    MEASURES["norm_spread"], key="posteriors_norm_spread", group="analysis"
                ),
                numbers["norm_spread"],
            ),
        ]
