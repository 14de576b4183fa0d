"""Width and line styles of all figures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Lines differ by dash pattern and marker as well as by colour, for grey print.
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#0072b2", "linestyle": "-", "marker": "o"},
    {"color": "#d55e00", "linestyle": "--", "marker": "s"},
    {"color": "#009e73", "linestyle": "-.", "marker": "^"},
    {"color": "#cc79a7", "linestyle": ":", "marker": "D"},
    {"color": "#e69f00", "linestyle": (0, (5, 1, 1, 1, 1, 1)), "marker": "v"},
    {"color": "#56b4e9", "linestyle": (0, (1, 3)), "marker": "P"},
)


def many_styles() -> Iterator[dict[str, Any]]:
    """Styles without end: after the first six, the colours come back with other lines and marks."""
    for index in itertools.count():
        style = STYLES[(index + index // len(STYLES)) % len(STYLES)]
        yield style | {"color": STYLES[index % len(STYLES)]["color"]}


def new_figure(height: float) -> Figure:
    """An empty figure, 7 inches wide.

    Args:
        height: Height in inches.
    """
    figure = Figure(figsize=(7, height), dpi=150, layout="constrained")
    figure.set_facecolor("white")
    return figure


def set_log_x(axes: Axes) -> None:
    """Make the x axis of what is drawn logarithmic, with few ticks and plain numbers.

    On a short axis the usual ticks run into each other.
    """
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    subs = (1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5)
    ticks = ticker.LogLocator(subs=subs)
    if high > 2e3 * low:
        ticks = ticker.LogLocator(numticks=6)  # powers of ten
    axes.xaxis.set_major_locator(ticks)
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(ticker.NullLocator())
