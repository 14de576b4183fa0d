"""Detection of unknown and of attacked images, by ensembles of several sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.analysis import projected_gradient
from hypernet_tf.metrics import SCORES, ood_metrics
from reproduce.analyses import attacks
from reproduce.analyses.base import Analysis, Findings, Row, count, percent
from reproduce.analyses.ensemble_sizes import SIZES
from reproduce.analyses.out_of_distribution import IMAGES, OOD, ood_datasets
from reproduce.analyses.subject import Subject

SEED = 10_007
_SCORES = ("entropy", "mutual_information")
_ATTACK = "pgd_"  # and the size


class DetectionSizes(Analysis):
    """Area under the ROC curve of entropy and of mutual information, for each size.

    The largest ensemble that the sampler has is divided into ensembles of each smaller size, and
    the numbers are means over them. One network has no mutual information: its area is 50 %.
    Attacked images are those that its first network classifies correctly, moved by the projected
    gradient on this network.

    Reference: Ratzlaff and Fuxin (2019), anomaly detection and adversarial experiments.
    """

    name = "detection_sizes"
    title = "detection of unknown and attacked images by ensembles of several sizes"
    figure_caption = (
        "Detection of unknown and attacked images by the number of networks in an ensemble"
    )
    reading = "Whether a larger ensemble detects more: curves that rise to the right."
    order = 92
    num_highlights = 13  # of four sets
    min_networks = 2
    settings = (SIZES, OOD, IMAGES, attacks.IMAGES, attacks.STEPS, attacks.SIZES)

    def compute(self, subject: Subject) -> Findings:
        """Score the images of all data sets with the ensembles of each size."""
        sizes, available = subject.settings[SIZES.name], subject.sampler.num_available
        fitting = [size for size in sizes if available is None or size <= available]
        datasets, left_out = ood_datasets(subject)
        numbers: dict[str, Any] = {"sizes": fitting, "left_out": left_out, "sets": {}}
        if not fitting:
            print("no detection by ensembles of these sizes")
            return Findings(numbers, {})
        most = subject.settings[IMAGES.name]
        ensemble = subject.sampler.sample(fitting[-1], seed=SEED)
        known = ensemble.log_probabilities(subject.test[:most].x, verbose=1)  # [N, M, C]
        pairs = {
            name: (known, ensemble.log_probabilities(dataset.test[:most].x, verbose=1))
            for name, dataset in datasets.items()
        }
        pairs |= self._attacked(ensemble, subject)
        arrays: dict[str, np.ndarray] = {"sizes": np.array(fitting)}
        for name, (known, unknown) in pairs.items():
            areas = [_areas(known, unknown, size) for size in fitting]
            numbers["sets"][name] = {
                score: [float(area[score].mean()) for area in areas] for score in _SCORES
            }
            for score in _SCORES:
                arrays[f"{name}, {score}"] = np.array(numbers["sets"][name][score])
        return Findings(numbers, {"detection_sizes": arrays} if pairs else {})

    def _attacked(
        self, ensemble: hn.Ensemble, subject: Subject
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Log-probabilities [N, K, C] of images before and after the attack, by its name."""
        images, steps, sizes = (
            subject.settings[one.name] for one in (attacks.IMAGES, attacks.STEPS, attacks.SIZES)
        )
        size = sizes[attacks.main_size(sizes)]
        attacked = subject.test[:images]
        x, y = attacked.x, np.asarray(attacked.y)
        before = ensemble.log_probabilities(x)
        right = before[0].argmax(-1) == y
        if not right.any():
            print("no attacks: the first network classifies no image correctly")
            return {}
        moved = projected_gradient(ensemble[0], x[right], y[right], size, steps=steps)
        return {f"{_ATTACK}{size:g}": (before[:, right], ensemble.log_probabilities(moved))}

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw a curve for each data set, a panel for each score."""
        panels = {
            f"by {SCORES[score].name}": {
                _title(name): 100 * arrays[f"{name}, {score}"] for name in numbers["sets"]
            }
            for score in _SCORES
        }
        return plots.curves_by_size(arrays["sizes"], panels, "area under ROC (%)")

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """The detection by the smallest and by the largest ensemble."""
        if not numbers["sizes"]:
            return []
        largest = count(f"{self.name}_largest", "networks of the largest ensemble")
        rows = [Row(largest, numbers["sizes"][-1])]
        for name, areas in numbers["sets"].items():
            for which, index in (("smallest", 0), ("largest", -1)):
                rows += [
                    Row(
                        percent(
                            f"{self.name}_{name}_{score}_{which}",
                            f"{_title(name)} by {SCORES[score].name} of the {which} "
                            "ensemble: area under ROC",
                        ),
                        areas[score][index],
                    )
                    for score in _SCORES
                    if numbers["sizes"][index] >= SCORES[score].min_networks
                ]
        return rows


def _title(name: str) -> str:
    """The name of a set of images as people read it."""
    if name.startswith(_ATTACK):
        return f"PGD on one network, eps = {name.removeprefix(_ATTACK)}"
    return hn.data.title(name)


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
            ours, others = (SCORES[score].of_array(log_p[group]) for log_p in (known, unknown))
            areas[score].append(ood_metrics(ours, others).auroc)
    return {score: np.array(values) for score, values in areas.items()}
