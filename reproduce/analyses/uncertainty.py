"""Calibration and uncertainty of the ensemble on the test images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.special import log_softmax

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.metrics import (
    MEASURES,
    SCORES,
    Measure,
    Score,
    area_under_risk_coverage,
    mean_log_probabilities,
    measure_uncertainty,
    reliability,
    risk_coverage,
    similarity,
)
from reproduce.analyses.base import Analysis, Findings, Row, count, percent
from reproduce.analyses.subject import NUM_NETWORKS, Subject

# Networks are compared in pairs on the first test images only: the time grows with N².
_PAIR_IMAGES = 1_000
# One temperature needs few images: the first validation images.
_TEMPERATURE_IMAGES = 1_000
_EXAMPLES = ("Most uncertain images by entropy", "Wrong answers with the highest probability")
_NUM_EXAMPLES = 8  # in each row of the figure
_CALIBRATION = ("expected_calibration_error", "adaptive_calibration_error", "brier_score")
_SCALED = ("negative_log_likelihood", *_CALIBRATION)
_PAIRS = {
    "kl_divergence": ("Kullback-Leibler divergence of two networks", "nats"),
    "js_divergence": ("Jensen-Shannon divergence of two networks", "nats"),
    "cka_of_log_probabilities": ("alignment (CKA) of two networks' log-probabilities", ""),
}


class Uncertainty(Analysis):
    """Calibration, uncertainty, similarity of the networks, and risk-coverage curves.

    Calibration is reported without and with temperature scaling.
    """

    name = "uncertainty"
    title = "calibration, uncertainty, similarity of the networks, risk-coverage curves"
    reading = (
        "Points on the diagonal are well calibrated. Errors should fall as the ensemble may "
        "abstain from more images."
    )
    highlights = (
        "uncertainty_member_expected_calibration_error",
        "uncertainty_before_scaling_expected_calibration_error",
        "uncertainty_after_scaling_expected_calibration_error",
        "uncertainty_mutual_information_correct",
        "uncertainty_mutual_information_wrong",
        "uncertainty_cka_of_log_probabilities",
        "uncertainty_risk_coverage_entropy",
        "uncertainty_risk_coverage_mutual_information",
    )
    order = 80
    settings = (NUM_NETWORKS,)

    def compute(self, subject: Subject) -> Findings:
        """Compute everything from the predictions of one ensemble."""
        labels = np.asarray(subject.test.y)
        ensemble = subject.ensemble()
        predicted = ensemble.predictions(subject.test.x, verbose=1)
        log_p = predicted.log_probabilities  # [N, M, C]
        mean = mean_log_probabilities(log_p)
        scores = measure_uncertainty([predicted]).scores
        wrong = mean.argmax(-1) != labels
        numbers: dict[str, Any] = {"num_networks": len(ensemble), "num_images": len(labels)}
        for key in _CALIBRATION:
            error = _measure(key)
            numbers[key] = {
                "member_mean": float(np.mean([error(member, labels) for member in log_p])),
                "ensemble": float(error(mean, labels)),
            }
        if len(subject.dataset.validation):
            numbers["temperature_scaling"] = _scaling(subject, ensemble, log_p, labels)
        for score, values in scores.items():
            numbers[score] = {
                "mean": float(values.mean()),
                "mean_of_correct": _mean(values[~wrong]),
                "mean_of_wrong": _mean(values[wrong]),
            }
        first = log_p[:, :_PAIR_IMAGES]
        numbers["pairs"] = {"num_images": first.shape[1], **_similarity(first)}
        numbers["area_under_risk_coverage"] = {
            score: area_under_risk_coverage(values, wrong) for score, values in scores.items()
        }
        curves = {
            SCORES[score].name: risk_coverage(values, wrong)
            for score, values in scores.items()
            if SCORES[score].is_drawn and len(log_p) >= SCORES[score].min_networks
        }
        arrays = {
            "reliability": dataclasses.asdict(reliability(mean, labels)),
            "risk_coverage": curve_arrays(curves),
            "examples": _examples(subject, log_p, mean, scores["entropy"], wrong),
        }
        return Findings(numbers, arrays)

    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw the reliability diagram, the risk-coverage curves or the examples."""
        if name == "reliability":
            return plots.reliability_diagram(**arrays)
        if name == "examples":
            return plots.examples(
                {
                    title: (arrays[f"{title}, images"], arrays[f"{title}, texts"].tolist())
                    for title in _EXAMPLES
                }
            )
        return plots.risk_coverage(curves_of(arrays))

    def caption(self, figure_name: str) -> str:
        """The caption."""
        return {
            "reliability": "Accuracy of the ensemble against its confidence",
            "risk_coverage": "Errors of the ensemble on the images of which it is most certain",
            "examples": "Test images, their labels, and the share of the networks that vote for a "
            "class",
        }[figure_name]

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """The networks' calibration, the uncertainty, and the similarity of networks."""
        rows = [
            Row(
                dataclasses.replace(
                    MEASURES[key],
                    key=f"uncertainty_member_{key}",
                    title=MEASURES[key].title.replace("of the ensemble", "of the networks, mean"),
                    group="analysis",
                ),
                numbers[key]["member_mean"],
            )
            for key in _CALIBRATION
        ]
        rows += _scaling_rows(numbers.get("temperature_scaling"))
        # A run from before a score was added, or without logits, does not have all of them.
        scores = [score for score in SCORES.values() if score.key in numbers]

        def has(score: Score) -> bool:
            return numbers["num_networks"] >= score.min_networks

        for score in scores:
            for kind, images in (
                ("correct", "correctly classified images"),
                ("wrong", "wrongly classified images"),
            ):
                part = Measure(
                    f"uncertainty_{score.key}_{kind}",
                    f"{score.title}, {images}",
                    "analysis",
                    unit=score.unit,
                )
                mean = numbers[score.key][f"mean_of_{kind}"]
                rows.append(Row(part, mean if has(score) else None))
        for key, (title, unit) in _PAIRS.items():
            pair = Measure(f"uncertainty_{key}", title, "analysis", unit=unit)
            rows.append(Row(pair, numbers["pairs"][key]))
        areas = numbers["area_under_risk_coverage"]
        for score in SCORES.values():
            if score.key in areas:
                area = percent(
                    f"uncertainty_risk_coverage_{score.key}",
                    f"errors, mean over coverages, by {score.name}",
                    "lower",
                )
                rows.append(Row(area, areas[score.key] if has(score) else None))
        networks = count("uncertainty_num_networks", "networks of the uncertainty and calibration")
        rows.append(Row(networks, numbers["num_networks"]))
        return rows


def _scaling(
    subject: Subject, ensemble: hn.Ensemble, log_p: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Likelihood and calibration at temperature 1 and at that of the validation images."""
    validation = subject.dataset.validation
    few = validation[:_TEMPERATURE_IMAGES]
    x, y = few.x, np.asarray(few.y)
    temperature = ensemble.calibrate(x, y, verbose=1).temperature
    means = {
        "before": mean_log_probabilities(log_p),
        "after": mean_log_probabilities(log_softmax(log_p / temperature, -1)),
    }
    return {"temperature": temperature, "num_images": len(y)} | {
        when: {key: float(_measure(key)(mean, labels)) for key in _SCALED}
        for when, mean in means.items()
    }


def _measure(key: str) -> Callable[..., Any]:
    compute = MEASURES[key].compute
    assert compute is not None
    return compute


def _scaling_rows(numbers: Mapping[str, Any] | None) -> list[Row]:
    """The temperature, and both values of each measure; none where no image was held out."""
    if numbers is None:
        return []
    temperature = Measure(
        "uncertainty_temperature", "temperature of the validation images", "analysis"
    )
    return [Row(temperature, numbers["temperature"])] + [
        Row(
            dataclasses.replace(
                MEASURES[key],
                key=f"uncertainty_{when}_scaling_{key}",
                title=f"{MEASURES[key].title}, {when} temperature scaling",
                group="analysis",
            ),
            numbers[when][key],
        )
        for key in _SCALED
        for when in ("before", "after")
    ]


def _examples(
    subject: Subject, log_p: np.ndarray, mean: np.ndarray, entropy: np.ndarray, wrong: np.ndarray
) -> dict[str, np.ndarray]:
    """The most uncertain images, and the wrong answers of which the ensemble is most certain."""
    classes, votes = subject.dataset.classes, log_p.argmax(-1)  # [N, M]
    surest = np.flatnonzero(wrong)[np.argsort(-mean[wrong].max(-1))]
    arrays = {}
    for title, chosen in zip(_EXAMPLES, (np.argsort(-entropy), surest), strict=True):
        chosen = chosen[:_NUM_EXAMPLES]
        texts = []
        for index in chosen:
            shares = np.bincount(votes[:, index], minlength=len(classes)) / len(votes)
            most = [number for number in np.argsort(-shares)[:2] if shares[number]]
            lines = [f"{classes[number]}: {shares[number]:.0%}" for number in most]
            texts.append("\n".join([f"is {classes[int(subject.test.y[index])]}", *lines]))
        arrays[f"{title}, images"] = subject.test[chosen].x
        arrays[f"{title}, texts"] = np.array(texts, dtype=str)
    return arrays


def curve_arrays(curves: Mapping[str, Sequence[np.ndarray]]) -> dict[str, np.ndarray]:
    """The points of curves as arrays by name: "<curve>, x" beside "<curve>, y".

    Args:
        curves: Name -> (x, y, ...).
    """
    return {
        f"{name}, {axis}": points
        for name, curve in curves.items()
        for axis, points in zip("xy", curve, strict=False)
    }


def curves_of(arrays: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The curves whose points `curve_arrays` has named.

    Args:
        arrays: "<curve>, x" and "<curve>, y" -> points.
    """
    names = [name.removesuffix(", x") for name in arrays if name.endswith(", x")]
    return {name: (arrays[f"{name}, x"], arrays[f"{name}, y"]) for name in names}


def _similarity(log_p: np.ndarray) -> dict[str, float | None]:
    """How similar the networks are in pairs; None for a single network, which has no pair."""
    if len(log_p) < 2:
        return dict.fromkeys(_PAIRS)
    return {
        "kl_divergence": float(similarity.pairwise_kl_divergence(log_p).mean()),
        "js_divergence": float(similarity.pairwise_js_divergence(log_p).mean()),
        "cka_of_log_probabilities": _cka(log_p),
    }


def _cka(outputs: np.ndarray) -> float | None:
    """Alignment of the networks; None if a network predicts the same on all images."""
    try:
        return similarity.linear_cka(outputs)
    except ValueError:
        return None


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None
