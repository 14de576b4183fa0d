"""Figures of uncertainty: calibration, out-of-distribution detection, selective prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hypernet_tf.plots.style import STYLES, many_styles, new_figure


def reliability_diagram(
    confidence: np.ndarray, accuracy: np.ndarray, share: np.ndarray, edges: np.ndarray
) -> Figure:
    """Accuracy against confidence, over a histogram of the confidences.

    Bins without examples are left out. Points below the diagonal are over-confident.

    Args:
        confidence: Mean confidence [b] of each bin, a fraction; NaN in an empty bin.
        accuracy: Accuracy [b] of each bin, a fraction; NaN in an empty bin.
        share: Share [b] of the examples in each bin, a fraction.
        edges: Limits [b + 1] of the bins.
    """
    figure = new_figure(5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = share > 0
    x, y = 100 * confidence[filled], 100 * accuracy[filled]
    above.plot((0, 100), (0, 100), color="0.5", linestyle="--", label="perfectly calibrated")
    above.vlines(x, np.minimum(x, y), np.maximum(x, y), color="0.7", linewidth=3, label="gap")
    above.plot(x, y, **STYLES[0], markersize=4, label="examples of a bin")
    above.set_ylabel("accuracy (%)")
    above.set_ylim(-2, 102)
    above.set_title("Accuracy of the examples in each bin of confidence", fontsize=10)
    above.legend(frameon=False, fontsize=8, loc="upper left")
    low, widths = 100 * edges[:-1], 100 * np.diff(edges)
    below.bar(low, 100 * share, widths, align="edge", color="#8fb7d6", edgecolor="#3f6f95")
    below.set_ylabel("examples (%)")
    below.set_ylim(0, 105 * share.max())
    below.set_xlabel("confidence (%): the highest probability")
    below.set_xlim(-2, 102)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return figure


def score_distributions(
    id_scores: np.ndarray, ood_scores: Mapping[str, np.ndarray], label: str, *, bins: int = 40
) -> Figure:
    """Histograms and empirical distribution functions of a score, in and out of distribution.

    The value of an empirical distribution function is the share of the examples of a set that have
    at most this score.

    Args:
        id_scores: Scores [M] of in-distribution examples, finite.
        ood_scores: Name of a data set -> finite scores of its out-of-distribution examples; at most
            5 data sets.
        label: Name of the score, with its unit.
        bins: Number of bins over all scores.
    """
    figure = new_figure(5.6)
    above, below = figure.subplots(2, 1, sharex=True)
    groups = {"in distribution": id_scores} | dict(ood_scores)
    values = np.concatenate(list(groups.values())).astype(np.float64)
    low, high = values.min(), values.max()
    if high - low < 1e-6 * max(abs(low), abs(high)):  # they differ by rounding alone
        low, high = low - 0.5, high + 0.5
    edges = np.histogram_bin_edges(values, bins, (low, high))
    pairs = zip(groups.items(), many_styles(), strict=False)
    for index, ((name, scores), style) in enumerate(pairs):
        color, line = style["color"], style["linestyle"]
        weights = np.full(len(scores), 100 / len(scores))
        above.hist(
            scores,
            bins=list(edges),
            weights=weights,
            histtype="stepfilled" if index == 0 else "step",
            color="#c9dcea" if index == 0 else color,
            edgecolor=color,
            linestyle=line,
            linewidth=1.5,
            label=f"{name} ({len(scores)})",
        )
        below.ecdf(scores, color=color, linestyle=line, linewidth=1.5)
    above.set_ylabel("examples of each set (%)")
    above.legend(frameon=False, fontsize=8)
    below.set_ylabel("examples with at most this score")
    below.yaxis.set_major_formatter(ticker.PercentFormatter(1.0))
    below.set_xlabel(label)
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return figure


def roc_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]]) -> Figure:
    """ROC curves of out-of-distribution detection; OOD examples are the positives.

    Args:
        curves: Name -> (false positive rates, true positive rates, area under the curve), all
            fractions; at most 6 curves.
    """
    figure = new_figure(4.6)
    axes = figure.subplots()
    axes.plot((0, 100), (0, 100), color="0.6", linewidth=0.8, label="chance: 0.5")
    for index, (name, (false, true, area)) in enumerate(curves.items()):
        _curve(axes, index, false, true, f"{name}: {area:.3f}")
    axes.set_xlabel("false positive rate: in-distribution examples flagged as OOD (%)")
    axes.set_ylabel("true positive rate: OOD examples flagged as OOD (%)")
    axes.set_xlim(-1, 101)
    axes.set_ylim(-1, 101)
    axes.set_title("Receiver operating characteristic, and the area under it", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def risk_coverage(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Error rate on the examples that are answered, the most certain first.

    Args:
        curves: Name -> (coverage, risk), fractions; at most 6 curves.
    """
    figure = new_figure(4)
    axes = figure.subplots()
    for index, (name, (coverage, risk)) in enumerate(curves.items()):
        _curve(axes, index, coverage, risk, name)
    axes.set_xlabel("coverage: examples answered, the most certain first (%)")
    axes.set_ylabel("risk: errors among them (%)")
    axes.set_xlim(0, 101)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def examples(rows: Mapping[str, tuple[np.ndarray, Sequence[str]]]) -> Figure:
    """Pictures in titled rows, each with a text below it.

    Args:
        rows: Title of a row -> its images [K, height, width, channels] and the text below each.
    """
    columns = max(1, *(len(images) for images, _ in rows.values()))
    figure = new_figure(1.75 * len(rows))
    parts = figure.subfigures(len(rows), squeeze=False)[:, 0]
    for (title, (images, texts)), part in zip(rows.items(), parts, strict=True):
        part.suptitle(title, fontsize=9)
        for number, axes in enumerate(part.subplots(1, columns, squeeze=False)[0]):
            axes.set_axis_off()
            if number < len(images):
                axes.imshow(images[number].squeeze(), cmap="gray", vmin=0, vmax=1)
                style = {"size": 8, "ha": "center", "va": "top", "transform": axes.transAxes}
                axes.text(0.5, -0.05, texts[number], **style)
    return figure


def _curve(axes: Axes, index: int, x: np.ndarray, y: np.ndarray, label: str) -> None:
    """A curve of fractions, in percent; the index sets its style and shifts its markers."""
    places = (0.025 * index, 0.1)  # fractions of the diagonal
    axes.plot(100 * x, 100 * y, **STYLES[index], markersize=4, markevery=places, label=label)
