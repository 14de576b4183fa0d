"""Detection of images that are out of distribution by the uncertainty of the ensemble."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.metrics import SCORES, ood_metrics, roc_curve
from reproduce.analyses.base import Analysis, Findings, Limits, Row, Setting, count, percent
from reproduce.analyses.subject import NUM_NETWORKS, Subject
from reproduce.analyses.uncertainty import curve_arrays, curves_of
from reproduce.runs.folder import UsageError

_NOISE_IMAGES = 1_000
_MOST_SETS = 5  # which one figure can tell apart
_REPORTED: dict[str, tuple[str, Literal["higher", "lower"]]] = {
    "auroc": ("area under ROC", "higher"),
    "aupr_out": ("average precision", "higher"),
    "fpr95_out": ("false alarms where 95 % are found", "lower"),
}


def ood_names(
    names: Sequence[str], dataset: str, image_shape: tuple[int, ...] = (32, 32, 3)
) -> list[str]:
    """The data sets that are out of distribution.

    Args:
        names: Names of the data sets; none for the default ones.
        dataset: Data set on which the networks are trained.
        image_shape: Shape of the networks' images [height, width, channels].

    Raises:
        UsageError: A name is unknown, has classes of the training or a number of training images,
            or has images that the networks cannot take; or there are too many names.
    """
    known = (*hn.data.DATASETS, "noise")
    trained = hn.data.Selection.parse(dataset)
    if not names:
        others = trained.others()
        return [*([str(others)] if others else ()), *trained.option.ood]
    selected = []
    for name in hn.data.Selection.join(names):
        if name.partition(":")[0] not in known:
            raise UsageError(f"there is no data set '{name}': --ood takes {', '.join(known)}")
        if name == "noise":
            selected.append(name)
            continue
        try:
            selection = hn.data.Selection.parse(name)
        except hn.data.DataError as error:
            raise UsageError(str(error)) from error
        if selection.num_train:
            raise UsageError(
                f"--ood={name} names a number of training images, and detection uses test images: "
                f"give {selection.name}, and --ood_images"
            )
        if _share_classes(selection, trained):
            raise UsageError(
                f"--ood={name} is in distribution for networks trained on {dataset}: choose another"
            )
        shape = selection.option.image_shape
        if not hn.data.fits(shape, image_shape):
            sizes = [" x ".join(map(str, sizes)) for sizes in (shape, image_shape)]
            raise UsageError(
                f"--ood={name} has images of {sizes[0]}, and the networks take {sizes[1]}: choose "
                "another"
            )
        selected.append(str(selection))
    if len(selected) > _MOST_SETS or len(set(selected)) < len(selected):
        raise UsageError(f"--ood takes up to {_MOST_SETS} different data sets")
    return selected


def _share_classes(one: hn.data.Selection, other: hn.data.Selection) -> bool:
    """Whether two data sets show images of the same classes."""
    whole = not (one.classes and other.classes)
    same = one.option.original == other.option.original
    return same and (whole or bool({*one.classes} & {*other.classes}))


def _checked(value: Sequence[str], limits: Limits) -> list[str]:
    return ood_names(value, limits.dataset, limits.image_shape) if value else []


def _load(names: Sequence[str], data_dir: str | None) -> None:
    for name in hn.data.Selection.join(names):
        if name != "noise":
            hn.data.load(name, data_dir)


OOD = Setting(
    "ood",
    (),
    f"Up to {_MOST_SETS} data sets that are out of distribution. Default for networks trained on "
    + "; ".join(f"{o.name}: {', '.join(o.ood)}" for o in hn.data.DATASETS.values() if o.trains)
    + ". For networks trained on some classes, the other classes come first. NAME:5-9 are some "
    "classes of a data set.",
    kind="list",
    resolve=_checked,
    load=_load,
)


IMAGES = Setting(
    "ood_images",
    10_000,
    "Number of test images, and of images of each data set that is out of distribution, the first "
    "ones, whose scores are compared.",
    lower_bound=1,
)


class OutOfDistribution(Analysis):
    """How well scores of uncertainty separate the test images from other images."""

    name = "out_of_distribution"
    title = "detection of images that are out of distribution"
    reading = (
        "Scores of unknown images should lie to the right of those of known images; an area "
        "under ROC of 100 % separates them wholly, and 50 % is chance. The chance of the average "
        "precision is the share of unknown images among all."
    )
    order = 90
    settings = (NUM_NETWORKS, OOD, IMAGES)

    def compute(self, subject: Subject) -> Findings:
        """Score the test images and the images of each other data set with one ensemble."""
        ensemble, most = subject.ensemble(), subject.settings[IMAGES.name]
        known = subject.test[:most].x

        def scores_of(x: np.ndarray) -> dict[str, np.ndarray]:
            scores = ensemble.uncertainty(x, verbose=1).scores
            return {k: v for k, v in scores.items() if len(ensemble) >= SCORES[k].min_networks}

        id_scores = scores_of(known)
        datasets, left_out = ood_datasets(subject)
        ood_scores: dict[str, dict[str, np.ndarray]] = {}
        sets: dict[str, dict[str, Any]] = {}
        for name, dataset in datasets.items():
            unknown = dataset.test[:most].x
            ood_scores[name] = scores_of(unknown)
            sets[name] = {"num_images": len(unknown), "source": dataset.source}
        arrays: dict[str, dict[str, np.ndarray]] = {}
        for score, id_values in id_scores.items() if datasets else ():
            ood_values = {name: scores[score] for name, scores in ood_scores.items()}
            for name, values in ood_values.items():
                sets[name][score] = dataclasses.asdict(ood_metrics(id_values, values))
            if not SCORES[score].is_drawn:
                continue
            arrays[f"ood_{score}"] = {"in distribution": id_values} | ood_values
            arrays[f"ood_roc_{score}"] = curve_arrays(
                {name: roc_curve(id_values, values) for name, values in ood_values.items()}
            )
        numbers = {
            "num_networks": len(ensemble),
            "num_images": len(known),
            "left_out": left_out,
            "sets": sets,
        }
        return Findings(numbers, arrays)

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw the distributions of a score, or its ROC curves."""
        if name.startswith("ood_roc_"):
            score = name.removeprefix("ood_roc_")
            curves = {
                hn.data.title(dataset): (*curve, numbers["sets"][dataset][score]["auroc"])
                for dataset, curve in curves_of(arrays).items()
            }
            return plots.roc_curves(curves)
        ood_values = {
            hn.data.title(name): values
            for name, values in arrays.items()
            if name != "in distribution"
        }
        label = SCORES[name.removeprefix("ood_")].heading
        return plots.score_distributions(arrays["in distribution"], ood_values, label)

    def caption(self, figure_name: str) -> str:
        """The caption, which names the score."""
        for prefix, text in (
            ("ood_roc_", "Detection of images that are out of distribution by the"),
            ("ood_", "Test images, and images that are out of distribution, by the"),
        ):
            if figure_name.startswith(prefix):
                return f"{text} {SCORES[figure_name.removeprefix(prefix)].name}"
        raise KeyError(figure_name)

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """The detection of each data set by each score."""
        rows = []
        for name, values in numbers["sets"].items():
            title = hn.data.title(name)
            images = count(f"ood_{name}_num_images", f"images of {title}")
            rows.append(Row(images, values["num_images"]))
            for score in SCORES.values():
                if score.key not in values:
                    continue
                for key, (measure, better) in _REPORTED.items():
                    detection = percent(
                        f"ood_{name}_{score.key}_{key}",
                        f"{title} by {score.name}: {measure}",
                        better,
                    )
                    rows.append(Row(detection, values[score.key][key]))
            chance = percent(
                f"ood_{name}_chance", f"{title}: average precision by chance", "neither"
            )
            share = values["num_images"] / (values["num_images"] + numbers["num_images"])
            rows.append(Row(chance, share))
        networks = count("ood_num_networks", "networks that detect other data sets")
        rows.append(Row(networks, numbers["num_networks"]))
        return rows


def ood_datasets(subject: Subject) -> tuple[dict[str, hn.data.Dataset], list[str]]:
    """Load the data sets that are out of distribution, in the shape of the test images.

    Args:
        subject: Subject with the setting "ood".

    Returns:
        Name -> data set, and the names of default data sets that are not available.

    Raises:
        DataError: A data set that --ood names is not available.
    """
    named = subject.settings[OOD.name]
    shape = subject.test.images.shape[1:]
    datasets, left_out = {}, []
    for name in ood_names(named, subject.dataset.name, shape):
        try:
            datasets[name] = (
                hn.data.uniform_noise(_NOISE_IMAGES, shape)
                if name == "noise"
                else hn.data.pad_to(hn.data.load(name, subject.data_dir), shape)
            )
        except hn.data.DataError as error:
            if named:
                raise
            print(f"left out: {error}")
            left_out.append(name)
    return datasets, left_out
