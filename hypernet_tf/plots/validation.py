"""Figures of what a validation during training shows: confused classes, filters side by side."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from hypernet_tf.plots.style import new_figure

_CELLS_WITH_NUMBERS = 20


def confusion(counts: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Which class is taken for which: rows the true class, columns the chosen one.

    Shades are shares of the true class; the numbers, up to 20 classes, count examples.

    Args:
        counts: [C, C].
        classes: C names.
        title: of the figure.
    """
    share = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    figure = new_figure(6)
    axes = figure.subplots()
    image = axes.imshow(share, cmap=matplotlib.colormaps["Greys"], vmin=0, vmax=100)
    if len(classes) <= _CELLS_WITH_NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if share[row, column] > 50 else "black"
            if count:
                axes.text(
                    column, row, f"{count}", color=color, ha="center", va="center", fontsize=8
                )
        places = range(len(classes))
        axes.set_yticks(places, classes, fontsize=8)
        long = max(map(len, classes)) > 3
        axes.set_xticks(places, classes, fontsize=8, rotation=90 if long else 0)
    axes.set_xlabel("chosen class")
    axes.set_ylabel("true class")
    axes.set_title(title, fontsize=10)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, aspect=30)
    bar.set_label("share of the true class (%)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure


def filter_table(pictures: np.ndarray, title: str, row_name: str = "filter") -> Figure:
    """The same filters of several networks: a column for each network, a row for each filter.

    Args:
        pictures: [N, filters, height, width] weights, drawn with one symmetric grey scale around
            zero.
        title: of the figure.
        row_name: what a row is, where there are several.
    """
    networks, filters, height, width = pictures.shape
    table = np.full([filters * (height + 1) - 1, networks * (width + 1) - 1], np.nan)
    for network in range(networks):
        for row in range(filters):
            top, left = row * (height + 1), network * (width + 1)
            table[top : top + height, left : left + width] = pictures[network, row]
    limit = float(np.abs(pictures).max()) or 1.0
    shape = table.shape[0] / table.shape[1]
    figure = new_figure(min(max(1.3 + 5.2 * shape, 1.9), 8))
    axes = figure.subplots()
    image = axes.imshow(
        table,
        cmap=matplotlib.colormaps["gray"].with_extremes(bad="#7fb2e5"),  # between pictures
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
    )
    axes.set_xticks(
        (width + 1) * np.arange(networks) + (width - 1) / 2,
        [str(n + 1) for n in range(networks)],
        fontsize=8,
    )
    axes.set_yticks(
        (height + 1) * np.arange(filters) + (height - 1) / 2,
        [str(f + 1) for f in range(filters)] if filters > 1 else [""],
        fontsize=8,
    )
    axes.set_xlabel("network")
    axes.set_ylabel(row_name if filters > 1 else "")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_title(title, fontsize=10)
    bar = figure.colorbar(image, ax=axes, shrink=0.9, aspect=25)
    bar.set_label("weight", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    return figure
