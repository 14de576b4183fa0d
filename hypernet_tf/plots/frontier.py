"""Measures of accuracy against entropy, a mark for each lam."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from hypernet_tf.plots.style import many_styles, new_figure

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
# Positions of a label relative to its mark, in points: above, below, beside it, then further out.
_LABEL_OFFSETS = [
    (radius * math.cos(angle), radius * math.sin(angle))
    for radius in (12, 16, 21, 27, 35, 45)
    for angle in np.deg2rad([90, 270, 0, 180, 45, 135, 315, 225])
]


def frontier(
    lam: np.ndarray, entropy: np.ndarray, panels: Sequence[Mapping], *, best: int | None = None
) -> Figure:
    """Measures against the entropy of the networks' weights, a mark for each lam.

    Args:
        lam: Values of lam [m], written beside the marks.
        entropy: Entropy [m] of the networks' weights, in nats; the axis that all panels share.
        panels: A dict for each panel, with the keys

            * "title": Title of the panel.
            * "unit": Label of its axis.
            * "log": Whether the axis is logarithmic; it shows only values above 0.
            * "values": Values [m] of the measure; NaN leaves a mark out.
        best: Index of the mark that has a ring around it; None for none.
    """
    figure = new_figure(0.5 + 2.1 * len(panels))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    order = np.argsort(lam)
    for axes, panel, style in zip(grid, panels, many_styles(), strict=False):
        values = np.asarray(panel["values"], float)
        axes.plot(entropy[order], values[order], color="#bbbbbb", linewidth=0.8, zorder=1)
        axes.plot(entropy, values, **style | {"linestyle": ""}, markersize=5)
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
    figure.draw_without_rendering()  # positions are known only after it
    for axes, panel in zip(grid, panels, strict=True):
        _label(axes, entropy, np.asarray(panel["values"], float), [_power(one) for one in lam])
    return figure


def _power(value: float) -> str:
    if value <= 0:
        return f"{value:g}"
    exponent = round(math.log10(value))
    if math.isclose(value, 10.0**exponent):
        return "10" + str(exponent).translate(_SUPERSCRIPTS)
    return f"{value:g}"


def _label(axes: Axes, x: np.ndarray, y: np.ndarray, texts: Sequence[str]) -> None:
    """Write texts beside marks, each at the first free position."""
    pixels = axes.figure.dpi / 72  # per point
    ring = 5 * pixels
    shown = np.flatnonzero(np.isfinite(x) & np.isfinite(y)).tolist()
    marks = axes.transData.transform(np.stack([x, y], 1))
    taken = [Bbox.from_extents(*(marks[i] - ring), *(marks[i] + ring)) for i in shown]
    frame = axes.get_window_extent()
    for index in shown:
        text = axes.text(x[index], y[index], texts[index], fontsize=8)
        size = np.array(text.get_window_extent().size)
        text.remove()
        for right, up in _LABEL_OFFSETS:
            # A label beside its mark starts at the end of the mark.
            right += math.copysign(size[0] / pixels / 2, right) if abs(right) > 1 else 0
            middle = marks[index] + np.array([right, up]) * pixels
            box = Bbox.from_extents(*(middle - size / 2), *(middle + size / 2))
            inside = frame.x0 < box.x0 and box.x1 < frame.x1
            inside = inside and frame.y0 < box.y0 and box.y1 < frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        axes.annotate(
            texts[index],
            (x[index], y[index]),
            textcoords="offset points",
            xytext=(right, up),
            ha="center",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3},
        ).set_in_layout(False)
