"""Accuracy along paths between networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf import plots
from hypernet_tf.analysis.paths import direct_path, interpolated_path
from hypernet_tf.samplers.latent import LatentSampler
from reproduce.analyses.base import Analysis, Findings, Limits, Row, Setting, count, percent
from reproduce.analyses.subject import Subject

SEED = 10_003


def _pairs(value: int, limits: Limits) -> int:
    available = limits.num_available
    return value if available is None else max(1, min(value, available // 2))


PAIRS = Setting(
    "path_pairs",
    10,
    "Number of pairs of networks between which paths are drawn.",
    lower_bound=1,
    resolve=_pairs,
)
POINTS = Setting(
    "path_points", 40, "Number of networks on a path, its two ends included.", lower_bound=2
)
IMAGES = Setting(
    "path_images",
    2_000,
    "Number of test images, the first ones, on which the accuracy along paths is measured.",
    lower_bound=1,
    resolve=lambda value, limits: min(value, limits.num_images),
)


class Paths(Analysis):
    """Accuracy along straight lines in the weights, and in the latent space where there is one.

    Reference: Deutsch et al. (2019), section 4.1.
    """

    name = "paths"
    title = "accuracy along paths between pairs of networks"
    figure_caption = "Accuracy along paths between pairs of networks"
    reading = (
        "A line between weights that dips leaves the good networks; a line between latent "
        "vectors that stays high shows that all networks on the manifold are good."
    )
    order = 50
    min_networks = 2
    settings = (PAIRS, POINTS, IMAGES)

    def compute(self, subject: Subject) -> Findings:
        """Evaluate the networks on all paths."""
        sampler, test, settings = subject.sampler, subject.test, subject.settings
        pairs, points, images = (settings[setting.name] for setting in self.settings)
        # Both ends of a path are networks of one sampler, where several take turns.
        other = -(-pairs // sampler.num_samplers) * sampler.num_samplers
        ensemble = sampler.sample(other + pairs, seed=SEED)
        lines = {"direct": direct_path(ensemble[:pairs], ensemble[other:], points)}
        if isinstance(sampler, LatentSampler):
            z = sampler.sample_latent(other + pairs, seed=SEED)
            lines["interpolated"] = interpolated_path(
                sampler.target, sampler.weights_of, z[:pairs], z[other:], points
            )
        numbers: dict[str, Any] = {
            "num_paths": pairs,
            "num_networks": points,
            "num_images": images,
            "kinds": {},
        }
        arrays = {"t": np.linspace(0, 1, points)}
        for kind, line in lines.items():
            if sampler.batch_norm_data is not None:
                line = line.update_batch_norm(sampler.batch_norm_data)
            result = line.evaluate(test[:images].x, test[:images].y, verbose=1)
            arrays[kind] = accuracy = result.member_accuracy.reshape(pairs, points)
            ends = accuracy[:, [0, -1]]
            numbers["kinds"][kind] = {
                "end_accuracy": float(ends.mean()),
                "lowest_accuracy": float(accuracy.min(1).mean()),
                "mean_accuracy": float(accuracy.mean()),
                "dip": float((ends.mean(1) - accuracy.min(1)).mean()),
            }
        return Findings(numbers, {"paths": arrays})

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw a panel for each kind of path."""
        kinds = {kind: 100 * values for kind, values in arrays.items() if kind != "t"}
        return plots.paths(arrays["t"], kinds)

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """The accuracies of each kind of path."""
        rows = [
            Row(count("paths_num_paths", "paths"), numbers["num_paths"]),
            Row(count("paths_num_networks", "networks on a path"), numbers["num_networks"]),
            Row(
                count("paths_num_images", "test images that measure the accuracy along paths"),
                numbers["num_images"],
            ),
        ]
        for kind, values in numbers["kinds"].items():
            rows += [
                Row(percent(f"paths_{kind}_{key}", f"{kind} paths, {title}"), values[key])
                for key, title in (
                    ("end_accuracy", "accuracy at the ends"),
                    ("mean_accuracy", "mean accuracy"),
                    ("lowest_accuracy", "lowest accuracy, mean over paths"),
                )
            ]
        return rows
