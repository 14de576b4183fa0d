"""Detection of images that are out of distribution, by ensembles of several sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.metrics import SCORES, ood_metrics
from reproduce.analyses.base import Analysis, Findings, percent
from reproduce.analyses.ensemble_sizes import SIZES
from reproduce.analyses.out_of_distribution import IMAGES, OOD, ood_datasets
from reproduce.analyses.subject import Subject
from reproduce.reports.tables import Row

SEED = 10_007
_SCORES = ("entropy", "mutual_information")


class DetectionSizes(Analysis):
    """Area under the ROC curve of entropy and of mutual information, for each size.

    The largest ensemble that the sampler has is divided into ensembles of each smaller size, and
    the numbers are means over them. One network has no mutual information: its area is 50 %.

    Reference: Ratzlaff and Fuxin (2019), anomaly detection.
    """

    name = "detection_sizes"
    title = "detection of unknown images by ensembles of 1, 5, 10 and 100 networks"
    reading = "Whether a larger ensemble detects more: curves that rise to the right."
    order = 92
    least_networks = 2
    settings = (SIZES, OOD, IMAGES)

    def compute(self, subject: Subject) -> Findings:
        """Score the images of all data sets with the ensembles of each size."""
        sizes, available = subject.settings[SIZES.name], subject.sampler.num_available
        fitting = [size for size in sizes if available is None or size <= available]
        datasets, left_out = ood_datasets(subject)
        numbers: dict[str, Any] = {"sizes": fitting, "left_out": left_out, "sets": {}}
        if not fitting or not datasets:
            print("no detection by ensembles of these sizes")
            return Findings(numbers, {})
        count = subject.settings[IMAGES.name]
        ensemble = subject.sampler.sample(fitting[-1], seed=SEED)
        known = ensemble.log_probabilities(subject.test.x[:count], verbose=1)  # [N, M, C]
        arrays: dict[str, np.ndarray] = {"sizes": np.array(fitting)}
        for name, dataset in datasets.items():
            unknown = ensemble.log_probabilities(dataset.test.x[:count], verbose=1)
            areas = [_areas(known, unknown, size) for size in fitting]
            numbers["sets"][name] = {
                score: [float(area[score].mean()) for area in areas] for score in _SCORES
            }
            for score in _SCORES:
                arrays[f"{name}, {score}"] = np.array(numbers["sets"][name][score])
        return Findings(numbers, {"detection_sizes": arrays})

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw a curve for each data set, a panel for each score."""
        panels = {
            f"by {score.replace('_', ' ')}": {
                hn.data.title(dataset): 100 * arrays[f"{dataset}, {score}"]
                for dataset in numbers["sets"]
            }
            for score in _SCORES
        }
        return plots.curves_by_size(arrays["sizes"], panels, "area under ROC (%)")

    def caption(self, figure_name: str) -> str:
        """Return the caption."""
        return "Detection of unknown images by the number of networks in an ensemble"

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """Return the detection by the smallest and by the largest ensemble."""
        rows = []
        for name, areas in numbers["sets"].items():
            for place in sorted({0, len(numbers["sizes"]) - 1}):
                size = numbers["sizes"][place]
                rows += [
                    Row(
                        percent(
                            f"{self.name}_{name}_{score}_{size}",
                            f"{hn.data.title(name)} by {score.replace('_', ' ')} of {size} "
                            f"network{'s' if size > 1 else ''}: area under ROC",
                        ),
                        areas[score][place],
                    )
                    for score in _SCORES
                ]
        return rows


def _areas(known: np.ndarray, unknown: np.ndarray, size: int) -> dict[str, np.ndarray]:
    """Areas under ROC of the ensembles of a size, by score.

    Args:
        known: Log probabilities [N, M, C] of images that are in distribution.
        unknown: Log probabilities [N, K, C] of images that are not.
        size: Number of networks of each ensemble.
    """
    areas: dict[str, list[float]] = {score: [] for score in _SCORES}
    for start in range(0, len(known) - size + 1, size):
        group = slice(start, start + size)
        for score in _SCORES:
            ours, others = (SCORES[score].compute(log_p[group]) for log_p in (known, unknown))
            areas[score].append(ood_metrics(ours, others).auroc)
    return {score: np.array(values) for score, values in areas.items()}
