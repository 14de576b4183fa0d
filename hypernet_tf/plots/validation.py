"""Figures of a validation during training: confused classes, and filters of several networks.

They are drawn while a run trains. Margins are set by hand, because a layout that measures all text
takes half of the time of a drawing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath

from hypernet_tf.plots.style import new_figure

_MOST_NAMED_CLASSES = 20


def confusion(counts: np.ndarray, classes: Sequence[str], title: str) -> Figure:
    """Confusion matrix: rows are true classes, columns predicted ones.

    Shades are shares of the true class, black for all of it. Up to 20 classes are named, with the
    counts.

    Args:
        counts: Counts [C, C] of examples, or sums of their weights.
        classes: Names of the C classes.
        title: Title of the figure.
    """
    classes = [name.replace("$", r"\$") for name in classes]  # it would begin a formula
    totals = counts.sum(1, keepdims=True)
    share = counts / np.where(totals > 0, totals, 1)
    named = len(classes) <= _MOST_NAMED_CLASSES
    widths = [
        TextPath((0, 0), name, size=8).get_extents().width for name in classes if name and named
    ]
    longest = max(widths, default=0) / 72  # inches
    upright = longest > 0.3
    figure, axes = _axes(0.5 + longest, 0.5 + (longest if upright else 0.1), shape=1)
    axes.imshow(share, cmap=matplotlib.colormaps["Greys"], vmin=0, vmax=1)
    if named:
        for (row, column), count in np.ndenumerate(counts):
            if count:
                color = "white" if share[row, column] > 0.5 else "black"
                style: dict[str, Any] = {
                    "color": color,
                    "ha": "center",
                    "va": "center",
                    "fontsize": 8,
                }
                axes.text(column, row, f"{count:g}" if count % 1 else f"{count:.0f}", **style)
        ticks = range(len(classes))
        axes.set_yticks(ticks, classes, fontsize=8)
        axes.set_xticks(ticks, classes, fontsize=8, rotation=90 if upright else 0)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(title, fontsize=10)
    return figure


def filter_table(pictures: np.ndarray, title: str, row_name: str = "filter") -> Figure:
    """The same filters of several networks: a column for each network, a row for each filter.

    Args:
        pictures: Weights [N, filters, height, width], drawn with one symmetric grey scale around
            zero; the title states its ends.
        title: Title of the figure.
        row_name: Name of a row, if there are several.
    """
    networks, filters, height, width = pictures.shape
    table = np.full([filters * (height + 1) - 1, networks * (width + 1) - 1], np.nan)
    for network, row in np.ndindex(networks, filters):
        top, left = row * (height + 1), network * (width + 1)
        table[top : top + height, left : left + width] = pictures[network, row]
    limit = float(np.abs(pictures).max()) or 1.0
    figure, axes = _axes(left=0.5, bottom=0.5, shape=table.shape[0] / table.shape[1])
    gray = matplotlib.colormaps["gray"].with_extremes(bad="#7fb2e5")  # the gaps between pictures
    axes.imshow(table, cmap=gray, vmin=-limit, vmax=limit, interpolation="nearest")
    for axis, count, size in ((axes.xaxis, networks, width), (axes.yaxis, filters, height)):
        names = [str(number) for number in range(1, count + 1)]
        axis.set_ticks((size + 1) * np.arange(count) + (size - 1) / 2, names, fontsize=8)
    axes.set_xlabel("network")
    if filters > 1:
        axes.set_ylabel(row_name)
    else:
        axes.set_yticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(f"{title}\nblack {-limit:.2g}, white {limit:.2g}", fontsize=10)
    return figure


def _axes(left: float, bottom: float, shape: float) -> tuple[Figure, Axes]:
    """A figure with axes as wide as possible; margins in inches, shape is height/width."""
    right, top = 0.15, 0.5
    width = 7 - left - right
    height = min(width * shape, 7)
    figure = new_figure(bottom + height + top)
    figure.set_layout_engine("none")
    whole = figure.get_figheight()
    return figure, figure.add_axes((left / 7, bottom / whole, width / 7, height / whole))
