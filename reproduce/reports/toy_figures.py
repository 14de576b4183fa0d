"""The figures and the page of the toy problem; nothing is computed here.

Each figure takes the arrays of its npz file.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hypernet_tf.plots import new_figure
from reproduce.reports import page as pages
from reproduce.reports.tables import html_table

_POINTS = 8  # size of the letters


def _panels(rows: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    """A figure and its panels, which share their axes and have no labels yet."""
    figure = new_figure(height)
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat:
        axes.tick_params(labelsize=_POINTS)
    return figure, list(grid.flat)


def curve(
    *,
    seeds: np.ndarray,
    curves: np.ndarray,
    mu: np.ndarray,
    axis: np.ndarray,
    plane: np.ndarray,
) -> Figure:
    """The learned curves over the score.

    Args:
        seeds: Seeds [S].
        curves: Points of the curves [S, P, 2] in the order of z.
        mu: Centres of the score's components [K, 2].
        axis: Coordinates of the grid [G], the same on both axes.
        plane: Score on the grid [G, G]; rows go along theta_2.
    """
    columns = min(3, len(seeds))
    rows = -(-len(seeds) // columns)
    figure, panels = _panels(rows, columns, 1.2 + 2.4 * rows)
    for axes in panels[len(seeds) :]:
        axes.set_visible(False)
    for axes, seed, points in zip(panels, seeds, curves, strict=False):
        # One hue that gets darker with the score prints well in grey. The range of colours ends
        # above the highest score, so that the black line stays legible.
        filled = axes.contourf(
            axis, axis, plane, levels=12, cmap="Blues", vmin=0, vmax=1.7 * plane.max()
        )
        (line,) = axes.plot(*points.T, "k.-", linewidth=0.5, markersize=1.8)
        (start,) = axes.plot(*points[0], "ks", markersize=4, markerfacecolor="white")
        (centre,) = axes.plot(*mu.T, "x", color="#a33b00", markersize=6, markeredgewidth=1.6)
        axes.set_title(f"seed {seed}", fontsize=_POINTS + 1)
        axes.set_aspect("equal")
        axes.set_xlabel("theta_1", fontsize=_POINTS)
        axes.locator_params(nbins=5)
    for axes in panels[::columns]:
        axes.set_ylabel("theta_2", fontsize=_POINTS)
    bar = figure.colorbar(filled, ax=panels, location="bottom", aspect=40, shrink=0.7)
    bar.set_label("score f", fontsize=_POINTS)
    bar.ax.tick_params(labelsize=_POINTS)
    figure.legend(
        [line, start, centre],
        [f"learned curve, {len(points)} points", "its end at z = -1", "component centre mu_i"],
        loc="outside lower center",
        ncols=3,
        frameon=False,
        fontsize=_POINTS,
    )
    return figure


def score(*, seeds: np.ndarray, z: np.ndarray, score: np.ndarray) -> Figure:
    """The score along z, a panel for each seed.

    Args:
        seeds: Seeds [S].
        z: Inputs of the generators [P].
        score: Scores [S, P].
    """
    figure, panels = _panels(len(seeds), 1, 0.6 + 1.2 * len(seeds))
    for axes, seed, values in zip(panels, seeds, score, strict=True):
        axes.plot(z, values, "k-", linewidth=1)
        axes.set_title(f"seed {seed}", fontsize=_POINTS + 1, loc="left")
        axes.set_ylabel("score f", fontsize=_POINTS)
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("z", fontsize=_POINTS)
    panels[0].set_xlim(z[0], z[-1])
    panels[0].set_ylim(0)
    return figure


def spacing(*, seeds: np.ndarray, z: np.ndarray, spacing: np.ndarray, score: np.ndarray) -> Figure:
    """The distance to the nearest other point of the curve along z, with the score beside it.

    Args:
        seeds: Seeds [S].
        z: Inputs of the generators [P].
        spacing: Distances to the nearest other point of the curve [S, P].
        score: Scores [S, P].
    """
    figure, panels = _panels(len(seeds), 1, 1 + 1.4 * len(seeds))
    for axes, seed, distances, values in zip(panels, seeds, spacing, score, strict=True):
        (spacing_line,) = axes.plot(z, distances, "k-", linewidth=1)
        twin = axes.twinx()
        (score_line,) = twin.plot(z, values, color="#d55e00", linestyle="--", linewidth=1)
        axes.set_title(f"seed {seed}", fontsize=_POINTS + 1, loc="left")
        axes.set_ylabel("spacing", fontsize=_POINTS)
        axes.grid(axis="x", alpha=0.3)
        twin.set_ylabel("score f", fontsize=_POINTS)
        twin.tick_params(labelsize=_POINTS)
        twin.set_ylim(0, 1.05 * score.max())
    panels[-1].set_xlabel("z", fontsize=_POINTS)
    panels[0].set_xlim(z[0], z[-1])
    panels[0].set_ylim(0)
    figure.legend(
        [spacing_line, score_line],
        ["distance to the nearest other point of the curve (left)", "score f there (right)"],
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=_POINTS,
    )
    return figure


FIGURES: dict[str, Callable[..., Figure]] = {"curve": curve, "score": score, "spacing": spacing}


def page(metrics: dict, figures: pathlib.Path) -> str:
    """The HTML of a run's page.

    Args:
        metrics: Contents of metrics.json.
        figures: Folder of the figures.
    """
    columns = [*metrics["seeds"], metrics["mean"]]
    rows = [
        [text, *(f"{column[name]:,.{0 if name == 'steps' else 3}f}" for column in columns)]
        for name, text in metrics["measures"].items()
    ]
    return pages.page(
        "Hypernetwork on the toy problem",
        [
            "One hypernetwork for each seed is trained to bend the line z in [-1, 1] through the "
            f"peaks of a score of {metrics['components']} components on the plane.",
            "The publication shows figures without numbers. Its number of steps is not known.",
            f"A curve is measured at {metrics['config']['points']} equally spaced z. The rank "
            "correlation is negative if the curve is sparser at low scores.",
        ],
        [html_table(["", *(f"seed {row['seed']}" for row in metrics["seeds"]), "mean"], rows)],
        {
            "The learned curves over the score": {"": figures / "curve.png"},
            "The score along z": {"": figures / "score.png"},
            "Spacing of the curve's points along z": {"": figures / "spacing.png"},
        },
        json.dumps(metrics["config"], indent=2),
    )
