"""Figures that compare methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf.plots.style import STYLES, new_figure, set_log_x


def comparison(methods: Sequence[str], panels: Sequence[Mapping]) -> Figure:
    """Measures of several methods: a panel for each measure, with a row for each method.

    Args:
        methods: Names of the methods, from top to bottom.
        panels: A dict for each panel, with the keys

            * "title": Title of the panel.
            * "unit": Label of its axis.
            * "log": Whether the axis is logarithmic; it shows only numbers above 0.
            * "series": Name -> (mean [m], standard deviation [m]) over the m methods, NaN if a
              method has no such number; at most 6 series, each with its own mark.
    """
    rows = -(-len(panels) // 2)
    # Legends stand below the last method: among the methods, their marks would look like numbers.
    most = max(len(panel["series"]) for panel in panels)
    last = len(methods) + (0.8 * -(-most // 2) if most > 1 else 0.0)
    figure = new_figure(rows * (1.3 + 0.24 * last))
    grid = figure.subplots(rows, 2, squeeze=False)
    rows_of_methods = np.arange(len(methods))
    for axes, panel in zip(np.ravel(grid), panels, strict=False):
        for index, (name, (mean, deviation)) in enumerate(panel["series"].items()):
            offset = 0.13 * (index - (len(panel["series"]) - 1) / 2)
            axes.errorbar(
                mean,
                rows_of_methods + offset,
                xerr=None if np.isnan(deviation).all() else np.nan_to_num(deviation),
                **STYLES[index] | {"linestyle": ""},
                markersize=4.5,
                capsize=2,
                label=name,
            )
        if panel["log"]:
            set_log_x(axes)
        axes.set_yticks(rows_of_methods, methods, fontsize=8)
        axes.set_ylim(last - 0.5, -0.5)
        axes.set_title(panel["title"], fontsize=10)
        axes.set_xlabel(panel["unit"], fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.grid(alpha=0.3)
        if len(panel["series"]) > 1:
            axes.legend(
                frameon=False, fontsize=8, ncols=2, loc="lower center", columnspacing=1, borderpad=0
            )
    for axes in np.ravel(grid)[len(panels) :]:
        axes.set_axis_off()
    for row in grid[:, 1:]:
        for axes in row:
            axes.tick_params(labelleft=False)
    return figure
