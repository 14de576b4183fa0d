"""Figures of networks: their accuracies, training, weights, paths and attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from hypernet_tf.plots.style import STYLES, many_styles, new_figure, set_log_x


def accuracy_histogram(
    accuracies: np.ndarray, marks: Mapping[str, float], *, bin_width: float = 0.05
) -> Figure:
    """Histogram of the accuracies of networks.

    Args:
        accuracies: Accuracies [N] of the networks, in percent.
        marks: Name -> accuracy of an ensemble in percent, drawn as a vertical line.
        bin_width: Width of a bin, in percentage points.
    """
    figure = new_figure(4)
    axes = figure.subplots()
    values = np.concatenate([accuracies, list(marks.values())])
    # Bins are centred on multiples of their width, because accuracies often are such multiples.
    first, last = (np.round(limit / bin_width) for limit in (values.min(), values.max()))
    bins = bin_width * (np.arange(first, last + 2) - 0.5)
    axes.hist(accuracies, bins=list(bins), color="#8fb7d6", edgecolor="#3f6f95", linewidth=0.5)
    for (name, value), style in zip(marks.items(), many_styles(), strict=False):
        axes.axvline(value, **style | {"marker": ""}, label=f"{name}: {value:.2f} %")
    axes.set_xlabel("test accuracy (%)")
    axes.set_ylabel(f"networks per {bin_width:g} points")
    axes.set_title(f"Accuracies of {len(accuracies):,} networks", fontsize=10)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def ensembles(members: np.ndarray, kinds: Mapping[str, np.ndarray]) -> Figure:
    """Accuracies of E ensembles, beside the mean accuracy of their networks.

    Args:
        members: Mean accuracies [E] of each ensemble's networks, in percent.
        kinds: Name of an ensemble's prediction (such as the majority vote) -> accuracies [E] in
            percent.
    """
    figure = new_figure(3.2)
    axes = figure.subplots()
    columns = {"mean of the networks": members} | dict(kinds)
    for index, values in enumerate(columns.values()):
        style = STYLES[index % len(STYLES)] | {"linestyle": ""}
        x = index + np.linspace(-0.2, 0.2, len(values))
        axes.plot(x, values, **style, markersize=4)
    axes.set_xticks(
        range(len(columns)),
        [f"{name}\n{values.mean():.2f} %" for name, values in columns.items()],
        fontsize=8,
    )
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"{len(members)} ensembles, a mark for each; below, their mean", fontsize=10)
    axes.grid(axis="y", alpha=0.3)
    return figure


def ensemble_sizes(accuracies: Mapping[int, np.ndarray]) -> Figure:
    """Accuracy against the number of networks: a mark for each ensemble, a line of their means.

    Args:
        accuracies: Number of networks -> accuracies [E] of E ensembles, in percent.
    """
    figure = new_figure(3.4)
    axes = figure.subplots()
    for size, values in accuracies.items():
        x = np.full(len(values), size)
        axes.plot(x, values, **STYLES[0] | {"color": "0.6", "linestyle": ""}, markersize=3)
    means = [values.mean() for values in accuracies.values()]
    axes.plot(list(accuracies), means, **STYLES[0])
    axes.set_xscale("log")
    axes.set_xticks(list(accuracies), [f"{size:,}" for size in accuracies], fontsize=8)
    axes.minorticks_off()
    axes.set_xlabel("networks of an ensemble")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title("Accuracy of the mean probability; the line shows means", fontsize=10)
    axes.grid(alpha=0.3)
    return figure


def training_curves(panels: Sequence[Mapping]) -> Figure:
    """Curves against training steps.

    Args:
        panels: A dict for each panel, with the keys

            * "title": Title of the panel.
            * "unit": Label of its axis.
            * "curves": Name -> (steps [T], values [T]).
            * "low_high" (optional): (steps [T], lowest [T], highest [T]) of the networks, drawn as
              a band.
    """
    rows = -(-len(panels) // 2)
    figure = new_figure(2.6 * rows)
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(rows, 2, index + 1)
        if "low_high" in panel:
            axes.fill_between(
                *panel["low_high"], color="#0072b2", alpha=0.18, label="members, lowest to highest"
            )
        curves = panel["curves"].items()
        for (name, (steps, values)), style in zip(curves, many_styles(), strict=False):
            marks = {} if len(steps) < 30 else {"marker": ""}
            axes.plot(steps, values, **style | marks, markersize=3, label=name)
        axes.set_title(panel["title"], fontsize=10)
        axes.set_xlabel("training step")
        axes.set_ylabel(panel["unit"])
        axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:.4g}"))
        axes.grid(alpha=0.3)
        if len(panel["curves"]) > 1 or "low_high" in panel:
            # On white: it may lie over the band of the members.
            axes.legend(fontsize=8, edgecolor="none", framealpha=0.8)
    return figure


def learning_curves(
    panels: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], label: str
) -> Figure:
    """A number along several trainings, against their cost on a logarithmic axis.

    Args:
        panels: Title of a panel -> name of a training -> (image passes [T], values [T]).
        label: Label of the axis of values.
    """
    figure = new_figure(4.4)
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    styles = dict(zip(names, many_styles(), strict=False))
    labelled: set[str] = set()
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        for name, (passes, values) in curves.items():
            label_once = None if name in labelled else name
            x = np.asarray(passes) / 1e6
            axes.plot(x, values, **styles[name], markersize=3, label=label_once)
            labelled.add(name)
        set_log_x(axes)
        axes.set_xlabel("million image passes in training")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    grid[0].set_ylabel(label)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=2)
    return figure


def filter_grids(grids: Mapping[str, np.ndarray]) -> Figure:
    """The same filter in many networks, a grid of small pictures for each layer.

    Args:
        grids: Title -> weights [n, height, width] of n networks, n a square number. Each grid has
            its own symmetric grey scale around zero.
    """
    rows = -(-len(grids) // 2)
    figure = new_figure(2.6 * rows)
    panels = np.ravel(figure.subplots(rows, 2, squeeze=False))
    for axes in panels:
        axes.set_axis_off()
    for axes, (title, pictures) in zip(panels, grids.items(), strict=False):
        side = round(len(pictures) ** 0.5)
        height, width = np.array(pictures.shape[1:]) / 2
        cell = 1.15 * max(pictures.shape[1:])  # with a gap
        limit = float(np.abs(pictures).max())
        image: Any = None
        for index, picture in enumerate(pictures):
            y, x = cell * (np.array(divmod(index, side)) + 0.5)
            image = axes.imshow(
                picture,
                extent=(x - width, x + width, y + height, y - height),
                cmap=matplotlib.colormaps["gray"],
                vmin=-limit,
                vmax=limit,
            )
            corner = (x - width, y - height)
            axes.add_patch(Rectangle(corner, 2 * width, 2 * height, fill=False, linewidth=0.5))
        axes.set_xlim(0, side * cell)  # one pair of axes: as many as pictures take seconds
        axes.set_ylim(side * cell, 0)
        axes.set_title(title, fontsize=10)
        bar = figure.colorbar(image, ax=axes, location="right", shrink=0.9, aspect=25)
        bar.set_label("weight", fontsize=8)
        bar.ax.tick_params(labelsize=8)
    return figure


def scatter_matrix(
    coordinates: np.ndarray,
    explained: np.ndarray,
    title: str,
    *,
    values: np.ndarray | None = None,
    label: str = "",
) -> Figure:
    """Scatter plots of each pair of principal components, with histograms on the diagonal.

    Args:
        coordinates: Coordinates [N, c] of N networks.
        explained: Share [c] of the variance of each component; NaN where there is no variance.
        title: Title of the figure.
        values: Values [N] shown by the shade of the points; None for one shade.
        label: Name of the values, with their unit.
    """
    count = coordinates.shape[1]
    figure = new_figure(5.2 if values is None else 5.8)
    figure.suptitle(
        f"{title}\nbelow: each one's share of the variance, standard deviation", fontsize=10
    )
    grid = figure.subplots(count, count, squeeze=False)
    points = None
    for row in range(count):
        for column in range(count):
            axes = grid[row, column]
            axes.set_xticks([])
            axes.set_yticks([])
            if row == column:
                # Networks that differ by rounding alone leave no room for bins in float32.
                wide = coordinates[:, row].astype(np.float64)
                axes.hist(wide, bins=50, histtype="stepfilled", color="#5b7f9e")
            else:
                points = axes.scatter(
                    coordinates[:, column],
                    coordinates[:, row],
                    s=1.5 if values is None else 2.5,
                    c="#24445e" if values is None else values,
                    cmap=None if values is None else matplotlib.colormaps["viridis"],
                    alpha=0.35 if values is None else 1.0,
                    linewidths=0,
                    rasterized=True,  # otherwise thousands of points make a slow page
                )
        spread = coordinates[:, row].std(ddof=1)
        grid[row, 0].set_ylabel(f"{row + 1}", fontsize=9)
        share = "none" if np.isnan(explained[row]) else f"{100 * explained[row]:.1f} %"
        grid[-1, row].set_xlabel(f"{row + 1}: {share}\n± {spread:.3g}", fontsize=8)
    if values is not None and points is not None:
        bar = figure.colorbar(points, ax=grid, location="bottom", shrink=0.6, aspect=40)
        bar.set_label(label, fontsize=8)
        bar.ax.tick_params(labelsize=8)
    return figure


def paths(t: np.ndarray, kinds: Mapping[str, np.ndarray]) -> Figure:
    """Accuracy along paths between networks: a thin line for each, a thick one for their mean.

    Args:
        t: Positions [T] on the path, from 0 (one network) to 1 (the other).
        kinds: Name of a kind of path -> accuracies [P, T] of P paths, in percent.
    """
    figure = new_figure(3.6)
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, (name, accuracies), style in zip(panels, kinds.items(), many_styles(), strict=False):
        axes.plot(t, accuracies.T, color="0.65", linewidth=0.7)
        axes.plot(t, accuracies.mean(0), **style, markersize=3, markevery=3, linewidth=2)
        axes.set_title(f"{name}: {len(accuracies)} paths, and their mean", fontsize=10)
        axes.set_xlabel("t, from one network to the other")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test accuracy (%)")
    return figure


def weight_histograms(layers: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Histograms of single weights over networks, a row for each layer.

    Args:
        layers: Name of a layer -> name of a weight -> values [N].
    """
    columns = max(map(len, layers.values()))
    figure = new_figure(0.4 + 1.6 * len(layers))
    rows = figure.subfigures(len(layers), 1, squeeze=False)[:, 0]
    for row, (layer, weights) in zip(rows, layers.items(), strict=True):
        row.suptitle(layer, fontsize=10)
        panels = row.subplots(1, columns, squeeze=False)[0]
        for axes, (name, values) in zip(panels, weights.items(), strict=False):
            # Values that differ by rounding alone leave no room for bins in float32.
            wide = values.astype(np.float64)
            axes.hist(wide, bins=40, histtype="stepfilled", color="#5b7f9e")
            axes.set_xlabel(name, fontsize=8)
            axes.set_yticks([])
            axes.xaxis.set_major_locator(ticker.MaxNLocator(4))
            axes.tick_params(labelsize=8)
        for axes in panels[len(weights) :]:
            axes.set_visible(False)
        panels[0].set_ylabel("networks", fontsize=8)
    return figure


def curves_by_size(
    sizes: np.ndarray, panels: Mapping[str, Mapping[str, np.ndarray]], label: str
) -> Figure:
    """A number against the size of the ensembles, on a logarithmic axis.

    Args:
        sizes: Numbers of networks [S].
        panels: Title of a panel -> name of a curve -> values [S]; all panels have the same names.
        label: Label of the axis of values.
    """
    figure = new_figure(3.6)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (title, curves) in zip(grid, panels.items(), strict=True):
        for (name, values), style in zip(curves.items(), many_styles(), strict=False):
            label_once = name if axes is grid[0] else None
            axes.plot(sizes, values, **style, markersize=4, label=label_once)
        axes.set_xscale("log")
        axes.set_xticks(sizes, map(str, sizes))
        axes.xaxis.set_minor_locator(ticker.NullLocator())
        axes.set_xlabel("networks in an ensemble")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
    grid[0].set_ylabel(label)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=3)
    return figure


def success_curves(epsilons: np.ndarray, curves: Mapping[str, np.ndarray]) -> Figure:
    """Success rates of attacks against their size.

    Args:
        epsilons: Sizes [E] of the attacks, as fractions of the pixel range.
        curves: Name -> success rates [E], in percent of the attacked images.
    """
    figure = new_figure(4)
    axes = figure.subplots()
    for (name, values), style in zip(curves.items(), many_styles(), strict=False):
        axes.plot(255 * epsilons, values, **style, markersize=3, label=name)
    axes.set_xlabel("size of the attack (1/255 of the pixel range)")
    axes.set_ylabel("attacked images misclassified (%)")
    axes.set_ylim(0, 102)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    return figure


def attack_curves(sizes: np.ndarray, curves: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Success of attacks and their detection, against their size.

    Args:
        sizes: Sizes [E] of the attacks, fractions of the pixel range.
        curves: Name -> (misled images [E], area under ROC by mutual information [E]), both in
            percent.
    """
    columns = 2 if len(curves) <= 6 else 4
    figure = new_figure(3.2 + 0.2 * -(-len(curves) // columns))
    panels = figure.subplots(1, 2, sharex=True)
    for (name, values), style in zip(curves.items(), many_styles(), strict=False):
        for axes, points in zip(panels, values, strict=True):
            label_once = name if axes is panels[0] else None
            axes.plot(sizes, points, **style, markersize=3, label=label_once)
    panels[0].set_title("Success of the attacks", fontsize=10)
    panels[1].set_title("Detection by mutual information", fontsize=10)
    panels[1].axhline(50, color="0.6", linewidth=0.8)
    for axes, label in zip(
        panels,
        ("attacked images misclassified (%)", "area under ROC (%)"),
        strict=True,
    ):
        axes.set_xlabel("size (fraction of the pixel range)")
        axes.set_ylabel(label)
        axes.set_ylim(0, 102)
        axes.grid(alpha=0.3)
    figure.legend(frameon=False, fontsize=8, loc="outside lower center", ncols=columns)
    return figure


def filter_diversity(layers: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """Diversity of each filter against the next layer's weights on it, a panel for each layer.

    Args:
        layers: Title -> (diversity [F], next layer's weights [F]), both root mean squares.
    """
    figure = new_figure(3)
    panels = figure.subplots(1, len(layers), squeeze=False)[0]
    for axes, (title, (diversity, next_weights)) in zip(panels, layers.items(), strict=True):
        axes.scatter(next_weights, diversity, s=14, marker="o", color="#24445e", alpha=0.8)
        axes.set_title(title, fontsize=9)
        axes.set_xlabel("next layer's weights\n(root mean square)", fontsize=8)
        axes.xaxis.set_major_locator(ticker.MaxNLocator(3))
        axes.xaxis.set_major_formatter("{x:.2g}")
        axes.set_xlim(0, 1.1 * next_weights.max() or 1.0)
        axes.set_ylim(0, 1.1 * diversity.max() or 1.0)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("standard deviation of the\nfilter's weights over networks", fontsize=8)
    return figure
