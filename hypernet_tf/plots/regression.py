"""Predictions of networks with one input and one output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf.plots.style import new_figure

_POINTS = 8  # size of the letters


def predictions(
    *,
    names: Sequence[str] | np.ndarray,
    grid: np.ndarray,
    truth: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    networks: np.ndarray,
    columns: int,
    limit: float,
) -> Figure:
    """A panel for each ensemble: its mean, one and two standard deviations, some of its networks.

    Args:
        names: Titles of the P panels.
        grid: Inputs [G] at which curves are drawn.
        truth: The true curve [G].
        x: Inputs of the training points [M].
        y: Values of the training points [M].
        mean: Means over networks [P, G].
        std: Standard deviations over networks [P, G].
        networks: Predictions of K networks of each ensemble [P, K, G].
        columns: Number of panels in a row.
        limit: The values shown are between -limit and limit.
    """
    rows = -(-len(names) // columns)
    figure = new_figure(0.8 + 1.9 * rows)
    grid_of_axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    panels = list(grid_of_axes.flat)
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    for axes, name, centre, deviation, lines in zip(
        panels, names, mean, std, networks, strict=False
    ):
        # Shades differ by lightness, from the widest band to the narrowest.
        two = axes.fill_between(
            grid, centre - 2 * deviation, centre + 2 * deviation, color="#b5d5eb", linewidth=0
        )
        one = axes.fill_between(
            grid, centre - deviation, centre + deviation, color="#6aaad6", linewidth=0
        )
        single = axes.plot(grid, lines.T, color="0.35", linewidth=0.5)[0]
        (middle,) = axes.plot(grid, centre, color="#003f6f", linewidth=1.4)
        (true,) = axes.plot(grid, truth, color="#d55e00", linestyle="--", linewidth=1.2)
        (points,) = axes.plot(x, y, "ko", markersize=2.5)
        axes.set_title(name, fontsize=_POINTS + 1)
        axes.tick_params(labelsize=_POINTS)
        axes.grid(alpha=0.3)
        axes.set_xlim(grid[0], grid[-1])
        axes.locator_params(nbins=7)
        axes.set_ylim(-limit, limit)
    for index, axes in enumerate(panels[: len(names)]):
        if index % columns == 0:
            axes.set_ylabel("y", fontsize=_POINTS)
        if index + columns >= len(names):
            axes.set_xlabel("x", fontsize=_POINTS)
            axes.tick_params(labelbottom=True)
    figure.legend(
        [points, true, middle, one, two, single],
        [
            "training points",
            "true curve",
            "mean of the networks",
            "one standard deviation",
            "two standard deviations",
            "single networks",
        ],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=_POINTS,
    )
    return figure
