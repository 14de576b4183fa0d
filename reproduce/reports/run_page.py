"""The page of an MNIST run, or of several side by side, with the published numbers."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

from reproduce.analyses.uncertainty import SCORES
from reproduce.configs import published
from reproduce.reports import page as _report

# Figure -> caption, in the order of the page; scatter matrices have their view's name at the end.
CAPTIONS = {
    "accuracy_histogram": "Accuracies of the networks on the test images, and of their ensembles",
    "ensembles": "Each ensemble, by how it answers, beside the mean of its networks",
    "training_curves": "Training",
    "filters": "The same filter in 25 networks, or as many as there are",
    "scatter": "Principal components of the weights (of filters: the first of each layer)",
    "paths": "Accuracy along paths between pairs of networks",
    "adversarial": "Attacks by the fast gradient method: success against their size",
    "filter_diversity": "Diversity of each filter against the next layer's weights on it",
    "reliability": "Whether the ensemble is as often right as it is sure",
    "risk_coverage": "Errors of the ensemble where it answers only what it is sure of",
    "ood_roc": "Finding images of something else by the",
    "ood": "Images of something else, and the test images, by the",
}
_CALIBRATION = {
    "expected_calibration_error": "expected calibration error, 15 equal widths",
    "adaptive_calibration_error": "expected calibration error, 15 equal counts",
    "brier_score": "Brier score",
}
_PUBLISHED = (
    "Published numbers are those of the hypernetwork on MNIST; they are comparable only where the "
    "data set is mnist and the preset is paper."
)


class Run(NamedTuple):
    """A finished run: what it is called on the page, its folder, its metrics.json."""

    label: str
    folder: pathlib.Path
    metrics: dict[str, Any]


def page(title: str, runs: list[Run]) -> str:
    """The HTML of the page."""
    measured = [rows(run.metrics) for run in runs]
    digits = all(run.metrics["experiment"] == "mnist" for run in runs)
    theirs = published.MNIST if digits else {}
    names = list(dict.fromkeys(name for column in measured for name in column))
    table = [
        [
            name,
            *(_number(column.get(name), name in column) for column in measured),
            _number(theirs.get(name), name in theirs),
        ]
        for name in names
    ]
    figures: dict[str, dict[str, pathlib.Path]] = {}
    for run in runs:
        for name in figure_names(run.metrics):
            path = run.folder / "figures" / f"{name}.png"
            if path.exists():
                figures.setdefault(name, {})[run.label] = path
    order = list(CAPTIONS)
    kinds = sorted(figures, key=lambda name: order.index(_kind(name)))
    configs = {run.label: run.metrics["config"] for run in runs}
    return _report.page(
        title,
        [
            *(_sentences(run, len(runs) > 1) for run in runs),
            *([_PUBLISHED] if digits else []),
            "Where fewer ensembles or images "
            "than published were looked at, two cores would have taken too long; --ensembles, "
            "--path_images and --adversarial_images raise them.",
        ],
        [_report.table(["", *(_heading(run, len(runs)) for run in runs), "published"], table)],
        {
            _caption(name): figures[name] if len(runs) > 1 else {"": figures[name][runs[0].label]}
            for name in kinds
        },
        json.dumps(configs if len(runs) > 1 else runs[0].metrics["config"], indent=2),
    )


def figure_names(metrics: Mapping[str, Any]) -> list[str]:
    """The figures of a run."""
    analyses = metrics.get("analyses", {}).values()
    return ["training_curves", *(name for found in analyses for name in found["figures"])]


def rows(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """Everything measured in a run: what it is, with its unit -> the number."""
    networks, ensemble = metrics["networks"], metrics["ensemble"]
    seconds, analyses = metrics["seconds"], metrics.get("analyses", {})
    found = {
        "training steps": metrics["steps"],
        "image passes in training": metrics.get("image_passes"),
        "weights of the target": metrics["target_weights"],
        "trainable parameters": metrics["parameters"],
        "networks": networks["count"],
        "mean accuracy of the networks (%)": _percent(networks["accuracy_mean"]),
        "standard deviation of their accuracies (points)": _percent(networks["accuracy_std"]),
        "lowest accuracy (%)": _percent(networks["accuracy_min"]),
        "highest accuracy (%)": _percent(networks["accuracy_max"]),
        "accuracy of the majority vote (%)": _percent(ensemble["majority_vote_accuracy"]),
        "accuracy of the mean probability (%)": _percent(ensemble["mean_probability_accuracy"]),
        "accuracy of the most confident network (%)": _percent(ensemble["most_confident_accuracy"]),
        "mean negative log-likelihood of the networks (nats)": networks[
            "negative_log_likelihood_mean"
        ],
        "negative log-likelihood of the ensemble (nats)": ensemble["negative_log_likelihood"],
        **{f"{title}, ensemble": ensemble.get(name) for name, title in _CALIBRATION.items()},
        "entropy of the networks' weights (nats)": metrics["diversity"]["entropy"],
        "disagreement of two networks (share of images)": metrics["diversity"]["disagreement"],
        "mean distance to the nearest of 10 networks' weights": metrics["diversity"].get(
            "nearest_neighbour_distance"
        ),
        "training (s)": seconds["train"],
        "evaluation (s)": seconds["evaluate"],
        "sampling the networks (s)": seconds.get("sample"),
        "peak memory of training (MiB)": metrics.get("peak_memory_mib"),
    }
    for name, read in _ANALYSES.items():
        if name in analyses:
            found |= read(analyses[name])
            found[f"analysis {name} (s)"] = analyses[name]["seconds"]
    return found


def _ensembles(found: Mapping[str, Any]) -> dict:
    answers = {
        f"{kind.replace('_', ' ')}, {what} over ensembles ({unit})": _percent(found[kind][key])
        for kind in ("majority_vote", "mean_probability", "most_confident")
        for what, key, unit in (("mean", "mean", "%"), ("standard deviation", "std", "points"))
    }
    return {
        "ensembles": found["ensembles"],
        "networks in each ensemble": found["networks_each"],
        "mean accuracy of all their networks (%)": _percent(found["member"]["mean"]),
        "standard deviation of these (points)": _percent(found["member"]["std"]),
    } | answers


def _scatter(found: Mapping[str, Any]) -> dict:
    rows: dict[str, Any] = {"networks in the scatter matrices": found["networks"]}
    for name, view in found["views"].items():
        count = len(view["explained"])
        rows[f"{name}: variance in {count} components (%)"] = 100 * sum(view["explained"])
        rows[f"{name}: the same if weights were independent (%)"] = 100 * sum(
            view["explained_if_independent"]
        )
    return rows


def _paths(found: Mapping[str, Any]) -> dict:
    rows: dict[str, Any] = {
        "paths": found["pairs"],
        "networks on a path": found["points"],
        "test images seen by them": found["images"],
    }
    for kind in ("direct", "interpolated"):
        if kind in found:
            rows[f"{kind} paths, accuracy at the ends (%)"] = 100 * found[kind]["ends"]
            rows[f"{kind} paths, mean accuracy (%)"] = 100 * found[kind]["mean_along"]
            rows[f"{kind} paths, lowest accuracy, mean of paths (%)"] = (
                100 * found[kind]["lowest_of_each_path"]
            )
    return rows


def _adversarial(found: Mapping[str, Any]) -> dict:
    rows: dict[str, Any] = {
        "test images looked at by attacks": found["images"],
        "of these attacked: classified rightly": found["attacked"],
        "networks in the ensemble under attack": found["networks"],
    }
    if not found["attacked"]:
        return rows
    for size in (8, 16, 32):
        if size in found["epsilons"]:
            place = found["epsilons"].index(size)
            for who in ("network", "ensemble"):
                if who in found:
                    rows[f"misled by eps = {size}/255: {who} (% of attacked)"] = (
                        100 * found[who][place]
                    )
    return rows


def _filter_diversity(found: Mapping[str, Any]) -> dict:
    return {
        f"{layer}: rank correlation of diversity and next weights": value["rank_correlation"]
        for layer, value in found["layers"].items()
    }


def _uncertainty(found: Mapping[str, Any]) -> dict:
    rows: dict[str, Any] = {}
    for name, title in _CALIBRATION.items():
        rows[f"{title}, mean of the networks"] = found[name]["member_mean"]
    for name, title in (
        ("entropy", "entropy of the mean prediction (nats)"),
        ("expected_entropy", "mean entropy of the networks' predictions (nats)"),
        ("mutual_information", "mutual information of class and network (nats)"),
        ("variance", "variance of the probabilities"),
    ):
        for key, images in (("right", "rightly"), ("wrong", "wrongly")):
            rows[f"{title}, images classified {images}"] = found[name][f"mean_of_{key}"]
    for name, title in (
        ("kl_divergence", "Kullback-Leibler divergence of two networks (nats)"),
        ("js_divergence", "Jensen-Shannon divergence of two networks (nats)"),
        ("cka_of_log_probabilities", "alignment (CKA) of two networks' log-probabilities"),
    ):
        if "pairs" in found:
            rows[title] = found["pairs"][name]
    for name, area in found["area_under_risk_coverage"].items():
        rows[f"errors, mean over coverages, by {name} (%)"] = 100 * area
    return rows


def _out_of_distribution(found: Mapping[str, Any]) -> dict:
    rows: dict[str, Any] = {}
    for name, data in found["sets"].items():
        rows[f"images of {name}"] = data["images"]
        for score in SCORES:
            for measure, title in (
                ("auroc", "area under ROC"),
                ("aupr_out", "average precision"),
                ("fpr95_out", "false alarms where 95 % are found"),
            ):
                words = score.replace("_", " ")
                rows[f"{name} by {words}: {title} (%)"] = 100 * data[score][measure]
    return rows


_ANALYSES = {
    "ensembles": _ensembles,
    "scatter": _scatter,
    "paths": _paths,
    "adversarial": _adversarial,
    "filter_diversity": _filter_diversity,
    "uncertainty": _uncertainty,
    "out_of_distribution": _out_of_distribution,
}


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _number(value: float | None, expected: bool = True) -> str:
    if value is None:
        return "not available" if expected else ""
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def _kind(name: str) -> str:
    """What kind of figure one of several alike is: `scatter_layer_1`, `ood_entropy`, ..."""
    several = (kind for kind in ("scatter", "ood_roc", "ood") if name.startswith(f"{kind}_"))
    return next(several, name)


def _caption(name: str) -> str:
    kind = _kind(name)
    which = name.removeprefix(kind).replace("_", " ").strip()
    between = ": " if kind == "scatter" else " "
    return f"{CAPTIONS[kind]}{between if which else ''}{which}"


def _heading(run: Run, count: int) -> str:
    return "measured" if count == 1 else run.label


def _sentences(run: Run, named: bool) -> str:
    metrics, data = run.metrics, run.metrics["dataset"]
    who = f"{run.label}: " if named else ""
    return (
        f"{who}{metrics['networks']['count']} network(s) of {metrics['method']} after "
        f"{metrics['steps']:,} training steps, evaluated on {data['test']:,} test images of "
        f"{data['name']} ({data['source']}; trained on {data['train']:,}, validated on "
        f"{data['validation']:,})."
    )
