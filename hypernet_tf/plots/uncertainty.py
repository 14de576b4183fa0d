"""Figures of how sure networks are, and whether they are right to be."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hypernet_tf.plots.style import STYLES, new_figure


def reliability_diagram(
    confidence: np.ndarray, accuracy: np.ndarray, share: np.ndarray, edges: np.ndarray
) -> Figure:
    """Accuracy against confidence, over a histogram of the confidences.

    Bins without examples are left out. Points below the diagonal are over-confident.

    Args:
        confidence: [b], the mean confidence in each bin, fractions; NaN in an empty bin.
        accuracy: [b], the accuracy in each bin, fractions; NaN in an empty bin.
        share: [b], the share of the examples in each bin, fractions.
        edges: [b + 1], the bins' limits.
    """
    figure = new_figure(5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = share > 0
    x, y = 100 * confidence[filled], 100 * accuracy[filled]
    color, line, marker = STYLES[0]
    above.plot((0, 100), (0, 100), color="0.5", linestyle="--", label="perfectly calibrated")
    above.vlines(x, np.minimum(x, y), np.maximum(x, y), color="0.7", linewidth=3, label="gap")
    above.plot(
        x,
        y,
        color=color,
        linestyle=line,
        marker=marker,
        markersize=4,
        label="examples of one bin",
    )
    above.set_ylabel("accuracy (%)")
    above.set_ylim(-2, 102)
    above.set_title("Accuracy of the examples of each confidence", fontsize=10)
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


def score_histograms(
    inside: np.ndarray, outside: Mapping[str, np.ndarray], label: str, *, bins: int = 40
) -> Figure:
    """Histograms of a score on the data trained for, and on other data.

    Args:
        inside: [M] scores of in-distribution examples, finite.
        outside: name -> scores of out-of-distribution examples, finite; at most 3.
        label: what the score is, with its unit.
        bins: how many bins over all scores.
    """
    figure = new_figure(3.6)
    axes = figure.subplots()
    groups = {"in distribution": inside} | dict(outside)
    edges = np.histogram_bin_edges(np.concatenate(list(groups.values())), bins)
    for place, ((name, scores), (color, line, _)) in enumerate(
        zip(groups.items(), STYLES, strict=False)
    ):
        weights = np.full(len(scores), 100 / len(scores))
        axes.hist(
            scores,
            bins=list(edges),
            weights=weights,
            histtype="stepfilled" if place == 0 else "step",
            color="#c9dcea" if place == 0 else color,
            edgecolor=color,
            linestyle=line,
            linewidth=1.5,
            label=f"{name} ({len(scores)})",
        )
    axes.set_xlabel(label)
    axes.set_ylabel("examples of each set (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def roc_curves(curves: Mapping[str, tuple[np.ndarray, np.ndarray, float]]) -> Figure:
    """Share of out-of-distribution examples found, against false alarms.

    Args:
        curves: name -> (false positive rates, true positive rates, area under the curve), all
            fractions; at most 4. The positives are the out-of-distribution examples.
    """
    figure = new_figure(4.6)
    axes = figure.subplots()
    axes.plot((0, 100), (0, 100), color="0.6", linewidth=0.8, label="chance: 0.5")
    for place, (name, (false, true, area)) in enumerate(curves.items()):
        _curve(axes, place, false, true, f"{name}: {area:.3f}")
    axes.set_xlabel("in-distribution examples that raise an alarm (%)")
    axes.set_ylabel("out-of-distribution examples found (%)")
    axes.set_xlim(-1, 101)
    axes.set_ylim(-1, 101)
    axes.set_title("Receiver operating characteristic, and the area under it", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return figure


def risk_coverage(curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Error rate on the examples that are answered, the surest first.

    Args:
        curves: name -> (coverage, risk), fractions; at most 4.
    """
    figure = new_figure(4)
    axes = figure.subplots()
    for place, (name, (coverage, risk)) in enumerate(curves.items()):
        _curve(axes, place, coverage, risk, name)
    axes.set_xlabel("coverage: examples answered, the surest first (%)")
    axes.set_ylabel("risk: errors among them (%)")
    axes.set_xlim(0, 101)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _curve(axes: Axes, place: int, x: np.ndarray, y: np.ndarray, label: str) -> None:
    """A curve of fractions in percent, its markers beside those of the other curves."""
    color, line, marker = STYLES[place]
    axes.plot(
        100 * x,
        100 * y,
        color=color,
        linestyle=line,
        marker=marker,
        markersize=4,
        markevery=(0.025 * place, 0.1),  # of the drawing's diagonal
        label=label,
    )
