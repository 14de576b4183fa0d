"""Analyses of how sure the networks are: on the test images, and on images of something else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.metrics import accuracy as metrics
from hypernet_tf.metrics import calibration, similarity
from hypernet_tf.metrics.ood import (
    area_under_risk_coverage,
    ood_metrics,
    risk_coverage,
    roc_curve,
)
from hypernet_tf.metrics.uncertainty import measure_uncertainty
from reproduce.analyses.subject import Drawing, Result, Subject
from reproduce.runs.folder import UsageError

# Pairs of networks are compared on so many of the first test images: it takes O(N²) time.
_PAIR_IMAGES = 1_000
_NOISE_IMAGES = 1_000
# What is strange to networks that learned a data set.
_DIGITS = ("fashion_mnist", "glyphs", "noise")
_PHOTOGRAPHS = ("svhn_cropped", "glyphs", "noise")
OUTSIDE = {
    "mnist": _DIGITS,
    "mnist_5k": _DIGITS,
    "fashion_mnist": ("mnist_5k", "glyphs", "noise"),
    "cifar10": _PHOTOGRAPHS,
    "cifar100": _PHOTOGRAPHS,
    "svhn_cropped": ("cifar10", "glyphs", "noise"),
}
# Scores of `Uncertainty` -> their name on figures.
SCORES = {
    "entropy": "entropy of the mean prediction (nats)",
    "mutual_information": "mutual information of class and network (nats)",
    "variance": "variance of the probabilities, summed over classes",
}


def uncertainty(subject: Subject) -> Result:
    """Calibration, the parts of the uncertainty, how alike the networks are, and risk-coverage."""
    x, labels = subject.test.x, np.asarray(subject.test.y)
    ensemble = subject.ensemble()
    log_p = ensemble.log_probabilities(x, verbose=1)
    mean = metrics.mean_log_probabilities(log_p)
    scores = measure_uncertainty([log_p])
    risks = {"1 - highest probability": "least_confidence"} | {
        name.replace("_", " "): name for name in SCORES
    }
    wrong = mean.argmax(-1) != labels
    found: dict[str, Any] = {
        "networks": len(ensemble),
        "images": len(labels),
        "expected_calibration_error": _member_and_ensemble(
            calibration.expected_calibration_error, log_p, mean, labels
        ),
        "adaptive_calibration_error": _member_and_ensemble(
            calibration.adaptive_calibration_error, log_p, mean, labels
        ),
        "brier_score": _member_and_ensemble(metrics.brier_score, log_p, mean, labels),
    }
    for field in dataclasses.fields(scores):
        values = getattr(scores, field.name)
        found[field.name] = {
            "mean": float(values.mean()),
            "mean_of_right": _mean(values[~wrong]),
            "mean_of_wrong": _mean(values[wrong]),
        }
    if len(ensemble) > 1:
        few = log_p[:, :_PAIR_IMAGES]
        found["pairs"] = {
            "images": few.shape[1],
            "kl_divergence": float(similarity.pairwise_kl_divergence(few).mean()),
            "js_divergence": float(similarity.pairwise_js_divergence(few).mean()),
            "cka_of_log_probabilities": _cka(few),
        }
    curves = {name: risk_coverage(getattr(scores, score), wrong) for name, score in risks.items()}
    found["area_under_risk_coverage"] = {
        name: area_under_risk_coverage(getattr(scores, score), wrong)
        for name, score in risks.items()
    }
    bins = calibration.reliability(mean, labels)
    arrays = dataclasses.asdict(bins)
    drawings = {
        "reliability": Drawing(plots.reliability_diagram(**arrays), arrays),
        "risk_coverage": Drawing(plots.risk_coverage(curves), _points(curves)),
    }
    return Result(found, drawings)


def out_of_distribution(subject: Subject) -> Result:
    """How well scores of uncertainty tell the test images from images of something else."""
    ensemble = subject.ensemble()
    inside = ensemble.uncertainty(subject.test.x, verbose=1)
    strange, left_out = _strange(subject)
    outside = {
        name: (data, ensemble.uncertainty(data.test.x, verbose=1)) for name, data in strange.items()
    }
    found: dict[str, Any] = {
        "networks": len(ensemble),
        "images": len(subject.test),
        "left_out": left_out,
        "sets": {
            name: {"images": len(data.test), "source": data.source}
            for name, (data, _) in outside.items()
        },
    }
    drawings: dict[str, Drawing] = {}
    for score, label in SCORES.items():
        here = getattr(inside, score)
        there: dict[str, np.ndarray] = {
            name: getattr(values, score) for name, (_, values) in outside.items()
        }
        curves: dict[str, tuple[np.ndarray, np.ndarray, float]] = {}
        for name, values in there.items():
            detection = ood_metrics(here, values)
            found["sets"][name][score] = dataclasses.asdict(detection)
            curves[name] = (*roc_curve(here, values), detection.auroc)
        if not there:
            continue
        drawings[f"ood_{score}"] = Drawing(
            plots.score_histograms(here, there, label), {"in distribution": here} | there
        )
        drawings[f"ood_roc_{score}"] = Drawing(plots.roc_curves(curves), _points(curves))
    return Result(found, drawings)


def outside_names(asked: str, dataset: str, channels: int = 3) -> list[str]:
    """The sets asked for, or what is strange to networks that learned a data set.

    Args:
        asked: names with commas between them; "" for the usual ones.
        dataset: what the networks learned.
        channels: of the images that they take.

    Raises:
        UsageError: one is unknown, is what the networks learned, or has images that they can't
            take.
    """
    known = (*hn.data.NAMES[1:], *hn.data.COLOUR_NAMES, *hn.data.TEST_NAMES, "noise")
    names = asked.split(",") if asked else list(OUTSIDE[dataset])
    for name in names:
        if name not in known:
            raise UsageError(f"there is no data set '{name}': --outside takes {', '.join(known)}")
        if name == dataset or {name, dataset} == {"mnist", "mnist_5k"}:
            raise UsageError(f"--outside={name} is what networks of {dataset} have learned")
        if channels == 1 and name in hn.data.COLOUR_NAMES:
            raise UsageError(f"--outside={name} has colour images, and the networks take grey ones")
    if len(names) > 3 or len(set(names)) < len(names):
        raise UsageError("--outside takes up to 3 data sets, each once")
    return names


def _strange(subject: Subject) -> tuple[dict[str, hn.data.Dataset], list[str]]:
    """The data sets, shaped as the test images; and usual ones not to be had, which is said."""
    asked, found, left_out = subject.settings.outside, {}, []
    shape = subject.test.images.shape[1:]
    for name in outside_names(asked, subject.dataset.name, shape[-1]):
        try:
            found[name] = (
                hn.data.uniform_noise(_NOISE_IMAGES, shape)
                if name == "noise"
                else hn.data.pad_to(hn.data.load(name, subject.data_dir), shape)
            )
        except hn.data.DataError as error:
            if asked:
                raise
            print(f"left out: {error}")
            left_out.append(name)
    return found, left_out


def _points(curves: Mapping[str, Sequence]) -> dict[str, np.ndarray]:
    """The numbers behind curves: "<curve>, x" beside "<curve>, y"."""
    return {f"{name}, {axis}": c[k] for name, c in curves.items() for k, axis in enumerate("xy")}


def _member_and_ensemble(
    error: Callable, log_p: np.ndarray, mean: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    members = [error(one, labels) for one in log_p]
    return {"member_mean": float(np.mean(members)), "ensemble": float(error(mean, labels))}


def _cka(outputs: np.ndarray) -> float | None:
    """None where a network answers the same on all images: alignment is not defined."""
    try:
        return similarity.linear_cka(outputs)
    except ValueError:
        return None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
