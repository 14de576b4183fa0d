"""What accuracy costs in diversity: measures against entropy, a point for each setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from hypernet_tf.plots.style import STYLES, new_figure

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Where a label may stand, in points from its mark: above, below, beside it, then further out.
_PLACES = [
    (radius * math.cos(angle), radius * math.sin(angle))
    for radius in (12, 16, 21, 27, 35, 45)
    for angle in np.deg2rad([90, 270, 0, 180, 45, 135, 315, 225])
]


def frontier(
    lam: np.ndarray, entropy: np.ndarray, panels: Sequence[Mapping], *, best: int | None = None
) -> Figure:
    """Panels over a common axis of entropy, a mark for each lam, which is written beside it.

    Args:
        lam: [m] balances of accuracy and diversity.
        entropy: [m] of the networks' weights, in nats.
        panels: each {"title", "unit", "log", "values": [m]}; NaN leaves a mark out, and a
            logarithmic axis shows values above 0.
        best: which of them has a ring around it; None for none.
    """
    figure = new_figure(0.5 + 2.1 * len(panels))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    order = np.argsort(lam)
    for axes, panel, (color, _, marker) in zip(grid, panels, STYLES, strict=False):
        values = np.asarray(panel["values"], float)
        axes.plot(entropy[order], values[order], color="#bbbbbb", linewidth=0.8, zorder=1)
        axes.plot(entropy, values, color=color, linestyle="", marker=marker, markersize=5)
        if best is not None:
            axes.plot(
                entropy[best],
                values[best],
                color="black",
                linestyle="",
                marker="o",
                markersize=10,
                markerfacecolor="none",
            )
        if panel["log"]:
            axes.set_yscale("log")
        axes.margins(0.1, 0.25)
        axes.set_title(panel["title"], fontsize=10)
        axes.set_ylabel(panel["unit"], fontsize=8)
        axes.tick_params(which="both", labelsize=8)
        axes.grid(alpha=0.3)
    grid[-1].set_xlabel("entropy of the networks' weights (nats); beside each mark its lam")
    grid[-1].xaxis.label.set_fontsize(8)
    figure.draw_without_rendering()  # where things are is known only now
    for axes, panel in zip(grid, panels, strict=True):
        _label(axes, entropy, np.asarray(panel["values"], float), [_power(one) for one in lam])
    return figure


def _power(value: float) -> str:
    exponent = round(math.log10(value))
    if math.isclose(value, 10.0**exponent):
        return "10" + str(exponent).translate(_SUPERSCRIPTS)
    return f"{value:g}"


def _label(axes: Axes, x: np.ndarray, y: np.ndarray, texts: Sequence[str]) -> None:
    """Write texts beside marks, each in the first place that is free."""
    pixels = axes.figure.dpi / 72  # of a point
    ring = 5 * pixels
    shown = [
        place for place in range(len(texts)) if np.isfinite(x[place]) and np.isfinite(y[place])
    ]
    marks = axes.transData.transform(np.stack([x, y], 1))
    taken = [Bbox.from_extents(*(marks[p] - ring), *(marks[p] + ring)) for p in shown]
    frame = axes.get_window_extent()
    for place in shown:
        text = axes.text(x[place], y[place], texts[place], fontsize=8)
        size = np.array(text.get_window_extent().size)
        text.remove()
        for right, up in _PLACES:
            # A label at a side starts where its mark ends.
            right += math.copysign(size[0] / pixels / 2, right) if abs(right) > 1 else 0
            middle = marks[place] + np.array([right, up]) * pixels
            box = Bbox.from_extents(*(middle - size / 2), *(middle + size / 2))
            inside = frame.x0 < box.x0 and box.x1 < frame.x1
            inside = inside and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        axes.annotate(
            texts[place],
            (x[place], y[place]),
            textcoords="offset points",
            xytext=(right, up),
            ha="center",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
        ).set_in_layout(False)
