"""Scatter matrices of the principal components of the networks' weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

from hypernet_tf import plots
from hypernet_tf.analysis.pca import principal_components, weight_views
from reproduce.analyses.base import (
    Analysis,
    Findings,
    Row,
    Setting,
    at_most_available,
    count,
    percent,
)
from reproduce.analyses.subject import Subject

SEED = 10_002
_COLOUR_IMAGES = 1_000


NETWORKS = Setting(
    "scatter_networks",
    3_000,
    "Number of networks in the scatter matrices.",
    lower_bound=7,
    resolve=at_most_available,
)
COLOUR = Setting(
    "colour", False, "Colour the points of scatter matrices by accuracy.", kind="boolean"
)


class Scatter(Analysis):
    """Principal components of all weights, of each layer, and of the first filter of each layer.

    Reference: Deutsch et al. (2019), section 4.1, "Scatter".
    """

    name = "scatter"
    title = "principal components of the weights"
    reading = (
        "Structures such as curves show that the networks fill few dimensions; the same "
        "weights shuffled over networks would give a round cloud."
    )
    order = 40
    min_networks = 7
    settings = (NETWORKS, COLOUR)

    def compute(self, subject: Subject) -> Findings:
        """Compute the components of each view of the weights."""
        ensemble = subject.sampler.sample(subject.settings[NETWORKS.name], seed=SEED)
        colours = {}
        if subject.settings[COLOUR.name]:
            few = subject.test[:_COLOUR_IMAGES]
            result = ensemble.evaluate(few.x, few.y, verbose=1)
            colours = {"accuracy_percent": 100 * result.member_accuracy}
        views, arrays = {}, {}
        for view, vectors in tqdm(weight_views(ensemble).items(), "scatter", leave=False):
            components = principal_components(vectors)
            views[view] = {
                "weights": vectors.shape[1],
                "explained": _finite(components.explained),
                "explained_if_independent": _finite(components.explained_if_independent),
            }
            arrays[f"scatter_{_identifier(view)}"] = components._asdict() | colours
        numbers = {
            "num_networks": len(ensemble),
            "num_colour_images": min(_COLOUR_IMAGES, len(subject.test)),
            "views": views,
        }
        return Findings(numbers, arrays)

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw the scatter matrix of a view."""
        view = next(view for view in numbers["views"] if name == f"scatter_{_identifier(view)}")
        return plots.scatter_matrix(
            arrays["coordinates"],
            arrays["explained"],
            f"{view}: {numbers['num_networks']:,} networks, principal components",
            values=arrays.get("accuracy_percent"),
            label=f"accuracy on the first {numbers['num_colour_images']:,} test images (%)",
        )

    def caption(self, figure_name: str) -> str:
        """The caption, which names the view."""
        view = figure_name.removeprefix("scatter_").replace("_", " ")
        return f"Principal components of the weights (of a filter: the first of its layer): {view}"

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """The share of the variance that the components of each view explain."""
        rows = [
            Row(
                count("scatter_num_networks", "networks in the scatter matrices"),
                numbers["num_networks"],
            )
        ]
        for view, values in numbers["views"].items():
            key = f"scatter_{_identifier(view)}"
            title = f"{view}: variance in {len(values['explained'])} components"
            rows += [
                Row(
                    percent(f"{key}_{name}", f"{title}{condition}", "neither"),
                    None if None in values[name] else sum(values[name]),
                )
                for name, condition in (
                    ("explained", ""),
                    ("explained_if_independent", ", if the weights were independent"),
                )
            ]
        return rows


def _finite(values: np.ndarray) -> list[float | None]:
    """Numbers for JSON, None for NaN."""
    return [float(value) if np.isfinite(value) else None for value in values]


def _identifier(view: str) -> str:
    """Name of a view in file names and keys: "layer 1, filter 1" -> "layer_1_filter_1"."""
    return "_".join("".join(c if c.isalnum() else " " for c in view).split())
