"""What a comparison shows: one table over methods and seeds, and the figure of its main numbers."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf import plots
from reproduce.reports import page as _report
from reproduce.reports import run_page as _run_page

# Rows of `_run_page.rows`, in the order of the table; those of strange images are added.
_ROWS = (
    "image passes in training",
    "training steps",
    "trainable parameters",
    "networks",
    "mean accuracy of the networks (%)",
    "standard deviation of their accuracies (points)",
    "accuracy of the majority vote (%)",
    "accuracy of the mean probability (%)",
    "mean negative log-likelihood of the networks (nats)",
    "negative log-likelihood of the ensemble (nats)",
    "expected calibration error, 15 equal widths, mean of the networks",
    "expected calibration error, 15 equal widths, ensemble",
    "Brier score, mean of the networks",
    "Brier score, ensemble",
    "disagreement of two networks (share of images)",
    "mutual information of class and network (nats), images classified rightly",
    "mutual information of class and network (nats), images classified wrongly",
    "alignment (CKA) of two networks' log-probabilities",
    "entropy of the networks' weights (nats)",
    "mean distance to the nearest of 10 networks' weights",
    "training (s)",
    "sampling the networks (s)",
    "peak memory of training (MiB)",
)
_STRANGE = ("by entropy: area under ROC", "by mutual information: area under ROC")


class _Panel(NamedTuple):
    """A panel of the figure: what is shown, and the rows of the table that it shows."""

    title: str
    unit: str
    rows: dict[str, str]
    log: bool = False
    errors: bool = False  # 100 minus the rows, which are accuracies


_PANELS = (
    _Panel(
        "Errors on the test images",
        "%",
        {
            "mean of the networks": "mean accuracy of the networks (%)",
            "majority vote": "accuracy of the majority vote (%)",
        },
        log=True,
        errors=True,
    ),
    _Panel(
        "Negative log-likelihood",
        "nats",
        {
            "mean of the networks": "mean negative log-likelihood of the networks (nats)",
            "ensemble": "negative log-likelihood of the ensemble (nats)",
        },
        log=True,
    ),
    _Panel(
        "Expected calibration error",
        "15 bins of equal width",
        {
            "mean of the networks": (
                "expected calibration error, 15 equal widths, mean of the networks"
            ),
            "ensemble": "expected calibration error, 15 equal widths, ensemble",
        },
        log=True,
    ),
    _Panel(
        "Disagreement of two networks",
        "share of the test images",
        {"two networks": "disagreement of two networks (share of images)"},
        log=True,
    ),
)


def table(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, dict]]:
    """Row -> method -> {"mean", "std", "values"}; None where a number cannot be had.

    Args:
        runs: method -> metrics.json of its runs, one for each seed.
    """
    rows = {m: [_run_page.rows(metrics) for metrics in found] for m, found in runs.items()}
    every = dict.fromkeys(name for several in rows.values() for one in several for name in one)
    names = [name for name in _ROWS if name in every]
    names += [name for name in every if any(part in name for part in _STRANGE)]
    return {
        name: {m: _over_seeds([one.get(name) for one in found]) for m, found in rows.items()}
        for name in names
    }


def _over_seeds(values: list[float | None]) -> dict[str, Any]:
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return {"mean": None, "std": None, "values": values}
    deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return {"mean": float(np.mean(numbers)), "std": deviation, "values": values}


def html_table(rows: Mapping[str, Mapping[str, Mapping]]) -> str:
    """The table as HTML: mean ± standard deviation over seeds."""
    methods = list(next(iter(rows.values())))
    lines = [[name, *(_cell(row[method]) for method in methods)] for name, row in rows.items()]
    return _report.table(["", *methods], lines)


def text_table(rows: Mapping[str, Mapping[str, Mapping]]) -> str:
    """The table in Markdown, which a terminal shows as well."""
    methods = list(next(iter(rows.values())))
    lines = [
        f"| {' | '.join(['', *methods])} |",
        f"|---|{'---:|' * len(methods)}",
        *(f"| {' | '.join([n, *(_cell(row[m]) for m in methods)])} |" for n, row in rows.items()),
    ]
    return "\n".join(lines)


def _cell(found: Mapping[str, Any]) -> str:
    mean, deviation = found["mean"], found["std"]
    if mean is None:
        return ""
    if mean == round(mean) and not deviation:
        return f"{mean:,.0f}"
    return f"{mean:.4g}" + (f" ± {deviation:.2g}" if deviation is not None else "")


def figure(rows: Mapping[str, Mapping[str, Mapping]]) -> tuple[Figure, dict[str, np.ndarray]]:
    """The figure of the main numbers, and what is in it."""
    methods = list(next(iter(rows.values())))
    panels = [*_PANELS]
    for part in _STRANGE:
        named = {name.split(" by ")[0]: name for name in rows if part in name}
        panels.append(_Panel(f"Strange images, {part.split(':')[0]}", "area under ROC (%)", named))
    drawn, arrays = [], {"methods": np.array(methods)}
    for panel in panels:
        series = {}
        for label, row in panel.rows.items():
            if row not in rows:
                continue
            mean, deviation = (
                np.array([rows[row][m][key] for m in methods], float) for key in ("mean", "std")
            )
            if np.isnan(mean).all():
                continue
            series[label] = (100 - mean if panel.errors else mean, deviation)
            for key, values in zip(("mean", "std"), series[label], strict=True):
                arrays[f"{panel.title}, {label}, {key}"] = values
        if series:
            drawn.append(panel._asdict() | {"series": series})
    return plots.comparison(methods, drawn), arrays


def page(comparison: Mapping[str, Any], picture: pathlib.Path, config: str) -> str:
    """The HTML of the page."""
    return _report.page(
        f"Methods side by side on {comparison['dataset']}",
        [
            f"Each method trained the same target on the same images, for "
            f"{comparison['passes']:,} image passes (an image forth and back through one target "
            f"network) or the next whole step; seeds {', '.join(map(str, comparison['seeds']))}. "
            "Mean ± standard deviation over seeds. An ensemble of N networks that share a budget "
            "gives each of them an N-th of it.",
            "Entropy is minus the diversity term of samplers with a latent space, whose dimension "
            "it multiplies: it compares seeds, not methods. The distance to the nearest of ten "
            "networks compares methods.",
        ],
        [html_table(comparison["rows"])],
        {"Means and standard deviations over seeds": {"": picture}},
        config,
    )
