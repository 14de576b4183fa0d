"""Every figure: arrays in, matplotlib figure out; computes only what a drawing needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

# Lines are told apart by dash pattern and marker as well as by colour, for printed pages.
_STYLES = (
    ("#0072b2", "-", "o"),
    ("#d55e00", "--", "s"),
    ("#009e73", "-.", "^"),
    ("#cc79a7", ":", "D"),
)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    figure.set_facecolor("white")
    return figure


def accuracy_histogram(
    accuracies: np.ndarray, marks: Mapping[str, float], *, bin_width: float = 0.05
) -> Figure:
    """Histogram of the networks' accuracies, with the ensembles' marked.

    Args:
        accuracies: [N] in percent.
        marks: name -> accuracy in percent, drawn as vertical lines.
        bin_width: in percentage points.
    """
    figure = _figure(7, 4)
    axes = figure.subplots()
    everything = np.concatenate([accuracies, list(marks.values())])
    # Bins are centred on multiples of their width: accuracies often are such multiples themselves.
    first, last = (np.round(limit / bin_width) for limit in (everything.min(), everything.max()))
    bins = bin_width * (np.arange(first, last + 2) - 0.5)
    axes.hist(accuracies, bins=list(bins), color="#8fb7d6", edgecolor="#3f6f95", linewidth=0.5)
    for (name, value), (color, line, _) in zip(marks.items(), _STYLES, strict=False):
        axes.axvline(value, color=color, linestyle=line, label=f"{name}: {value:.2f} %")
    axes.set_xlabel("test accuracy (%)")
    axes.set_ylabel(f"networks per {bin_width:g} points")
    axes.set_title(f"Accuracies of {len(accuracies)} generated networks")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    axes.margins(y=0.25)
    return figure


def training_curves(panels: Sequence[Mapping]) -> Figure:
    """Curves against training steps, one panel each.

    Args:
        panels: each {"title", "unit", "curves": name -> (steps, values)}; "low_high" may hold
            (steps, low, high), drawn as a band.
    """
    rows = -(-len(panels) // 2)
    figure = _figure(9, 3 * rows)
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(rows, 2, place + 1)
        if "low_high" in panel:
            axes.fill_between(
                *panel["low_high"], color="#0072b2", alpha=0.18, label="members, lowest to highest"
            )
        for (name, (steps, values)), (color, line, marker) in zip(
            panel["curves"].items(), _STYLES, strict=False
        ):
            axes.plot(
                steps,
                values,
                color=color,
                linestyle=line,
                marker=marker if len(steps) < 30 else None,
                markersize=3,
                label=name,
            )
        axes.set_title(panel["title"], fontsize=10)
        axes.set_xlabel("training step")
        axes.set_ylabel(panel["unit"])
        axes.grid(alpha=0.3)
        if len(panel["curves"]) > 1 or "low_high" in panel:
            axes.legend(frameon=False, fontsize=7)
    return figure


def filter_grids(grids: Mapping[str, np.ndarray]) -> Figure:
    """One grid of small pictures per layer: the same filter of many networks.

    Args:
        grids: title -> [n, height, width] weights, n a square number. Each grid has one symmetric
            grey scale around zero, written beside it.
    """
    figure = _figure(4.2 * len(grids), 4.6)
    for panel, (title, pictures) in zip(
        figure.subfigures(1, len(grids), squeeze=False)[0], grids.items(), strict=True
    ):
        side = round(len(pictures) ** 0.5)
        limit = float(np.abs(pictures).max())
        panel.suptitle(title, fontsize=10)
        all_axes = panel.subplots(side, side)
        image = None
        for axes, picture in zip(np.ravel(all_axes), pictures, strict=True):
            image = axes.imshow(picture, cmap=matplotlib.colormaps["gray"], vmin=-limit, vmax=limit)
            axes.set_xticks([])
            axes.set_yticks([])
        bar = panel.colorbar(image, ax=all_axes, location="bottom", shrink=0.8, aspect=30)
        bar.set_label("weight", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    return figure
