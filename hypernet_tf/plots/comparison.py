"""Figures that set several methods side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf.plots.style import STYLES, new_figure


def comparison(methods: Sequence[str], panels: Sequence[Mapping]) -> Figure:
    """One row for each method, in one panel for each measure, a mark for each kind of number.

    Args:
        methods: names, from top to bottom.
        panels: each {"title", "unit", "log", "series": name -> (mean [m], deviation [m])}; NaN
            where a method has no such number, or no deviation. At most 4 series; a logarithmic
            axis shows numbers above 0.
    """
    rows = -(-len(panels) // 2)
    figure = new_figure(rows * (1.3 + 0.24 * len(methods)))
    grid = figure.subplots(rows, 2, squeeze=False)
    places = np.arange(len(methods))
    for axes, panel in zip(np.ravel(grid), panels, strict=False):
        for place, (name, (mean, deviation)) in enumerate(panel["series"].items()):
            color, _, marker = STYLES[place]
            beside = places + 0.13 * (place - (len(panel["series"]) - 1) / 2)
            axes.errorbar(
                mean,
                beside,
                xerr=None if np.isnan(deviation).all() else np.nan_to_num(deviation),
                color=color,
                linestyle="",
                marker=marker,
                markersize=4.5,
                capsize=2,
                label=name,
            )
        if panel["log"]:
            axes.set_xscale("log")
        axes.set_yticks(places, methods, fontsize=8)
        axes.set_ylim(len(methods) - 0.5, -0.5)
        axes.set_title(panel["title"], fontsize=10)
        axes.set_xlabel(panel["unit"], fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(alpha=0.3)
        if len(panel["series"]) > 1:
            axes.legend(frameon=False, fontsize=8)
    for axes in np.ravel(grid)[len(panels) :]:
        axes.set_axis_off()
    for row in grid[:, 1:]:
        for axes in row:
            axes.tick_params(labelleft=False)
    return figure
