"""What a sweep shows: the trade of accuracy for diversity, as a table, a figure and a page."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf import plots
from reproduce.reports import page as _report

# What can be searched for -> its name among a run's validation numbers.
OBJECTIVES = {
    "ensemble_accuracy": "majority_vote_accuracy",
    "mean_probability_accuracy": "mean_probability_accuracy",
    "member_accuracy": "member_accuracy_mean",
    "negative_log_likelihood": "negative_log_likelihood",
    "expected_calibration_error": "expected_calibration_error",
    "entropy": "entropy",
}


class _Column(NamedTuple):
    """A column of the table: its title, what it shows of a trial, in which format."""

    title: str
    name: str
    format: str = "{:.4g}"
    factor: float = 1.0


_COLUMNS = (
    _Column("entropy (nats)", "entropy", "{:.1f}"),
    _Column("mean of the networks (%)", "member_accuracy", "{:.2f}", 100),
    _Column("majority vote (%)", "ensemble_accuracy", "{:.2f}", 100),
    _Column("mean probability (%)", "mean_probability_accuracy", "{:.2f}", 100),
    _Column("NLL (nats)", "negative_log_likelihood"),
    _Column("calibration error", "expected_calibration_error"),
    _Column("Brier score", "brier_score"),
    _Column("disagreement (%)", "disagreement", "{:.2f}", 100),
)


def trial(lam: float, folder: str, metrics: Mapping[str, Any], objective: str) -> dict[str, Any]:
    """What a sweep keeps of a trial.

    Args:
        lam: its balance.
        folder: its run folder, from the sweep's.
        metrics: metrics.json of its run.
        objective: one of `OBJECTIVES`.

    Raises:
        KeyError, TypeError: metrics.json is damaged.
    """
    return {
        "lam": lam,
        "folder": folder,
        "objective": metrics["validation"][OBJECTIVES[objective]],
        "validation": metrics["validation"],
        "test": {
            "member_accuracy": metrics["networks"]["accuracy_mean"],
            "member_accuracy_std": metrics["networks"]["accuracy_std"],
            "ensemble_accuracy": metrics["ensemble"]["majority_vote_accuracy"],
            **{
                name: metrics["ensemble"][name]
                for name in (
                    "mean_probability_accuracy",
                    "negative_log_likelihood",
                    "expected_calibration_error",
                    "brier_score",
                )
            },
            "entropy": metrics["diversity"]["entropy"],
            "disagreement": metrics["diversity"]["disagreement"],
        },
        "seconds": metrics["seconds"],
    }


def command(config: Any, run_dir: pathlib.Path, data_dir: str | None) -> str:
    """The command that runs a trial again, as a shell takes it.

    Args:
        config: the `reproduce.mnist.Config` of the trial.
        run_dir: where to.
        data_dir: see `hypernet_tf.data.load`.
    """
    flags = {
        "dataset": config.dataset,
        "preset": config.preset,
        "lam": f"{config.lam:g}",
        "steps": config.steps,
        "num_networks": config.num_networks,
        "seed": config.seed,
        "data_dir": data_dir,
        "run_dir": run_dir,
    }
    given = [f"--{name}={value}" for name, value in flags.items() if value is not None]
    return shlex.join(["python", "-m", "reproduce.mnist", *given])


def _cells(sweep: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    header = ["lam", *(c.title for c in _COLUMNS), f"{sweep['objective']}, validation"]
    rows = []
    for one in sweep["trials"]:
        lam = f"{one['lam']:g}" + (" (best)" if one["lam"] == sweep["best"]["lam"] else "")
        values = [(one["test"][c.name], c.factor, c.format) for c in _COLUMNS]
        values.append((one["objective"], 1, "{:.4g}"))
        shown = ["" if v is None else form.format(factor * v) for v, factor, form in values]
        rows.append([lam, *shown])
    return header, rows


def text_table(sweep: Mapping[str, Any]) -> str:
    """The table in Markdown, which a terminal shows as well.

    Args:
        sweep: what metrics.json of the sweep holds.
    """
    header, rows = _cells(sweep)
    lines = [header, ["---:"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def figure(trials: Sequence[Mapping[str, Any]], best: int) -> tuple[Figure, dict[str, np.ndarray]]:
    """The frontier, and what is in it.

    Args:
        trials: in the order of lam.
        best: which one has a ring.
    """

    def column(name: str, factor: float = 1.0) -> np.ndarray:
        return factor * np.array([one["test"][name] for one in trials], float)

    arrays = {
        "lam": np.array([one["lam"] for one in trials]),
        "entropy": column("entropy"),
        "member_accuracy": column("member_accuracy", 100),
        "ensemble_accuracy": column("ensemble_accuracy", 100),
        "negative_log_likelihood": column("negative_log_likelihood"),
    }
    panels = [
        {
            "title": "Mean accuracy of the networks",
            "unit": "%",
            "log": False,
            "values": arrays["member_accuracy"],
        },
        {
            "title": "Accuracy of the majority vote",
            "unit": "%",
            "log": False,
            "values": arrays["ensemble_accuracy"],
        },
        {
            "title": "Negative log-likelihood of the ensemble",
            "unit": "nats",
            "log": True,
            "values": arrays["negative_log_likelihood"],
        },
    ]
    return plots.frontier(arrays["lam"], arrays["entropy"], panels, best=best), arrays


def page(sweep: Mapping[str, Any], config: Any, picture: pathlib.Path) -> str:
    """The HTML of the page.

    Args:
        sweep: what metrics.json of the sweep holds.
        config: the best trial's.
        picture: the figure.
    """
    header, rows = _cells(sweep)
    best = sweep["best"]
    paragraphs = [
        f"Each trial trained the hypernetwork with another lam, the weight of accuracy against "
        f"diversity, for {config.steps:,} steps. Accuracies, likelihoods and calibration in table "
        f"and figure are those of {config.num_networks} networks on the test images; entropy is that "
        "of these networks' weights.",
        f"The best trial is the one with the best {sweep['objective'].replace('_', ' ')} on the "
        "validation images, on which no trial trained. The test images had no part in the choice. "
        f"It is lam {best['lam']:g}, in {best['folder']}. It is trained again by: "
        f"{sweep['command']}",
    ]
    if sweep["failed"]:
        lams = ", ".join(f"{lam:g}" for lam in sweep["failed"])
        paragraphs.append(f"Not in the table, because training diverged: lam {lams}.")
    caption = (
        "The accuracy-diversity frontier on the test images: a mark for each trial, its lam beside "
        "it, a ring around the best one; the grey line goes from lam to lam"
    )
    return _report.page(
        f"Sweep over lam on {config.dataset}",
        paragraphs,
        [_report.table(header, rows)],
        {caption: {"": picture}},
        json.dumps(dataclasses.asdict(config), indent=2),
    )
