"""The page of the one-dimensional regression."""

from __future__ import annotations

import json
import pathlib
from typing import Any

from reproduce.reports import page as pages


def page(metrics: dict[str, Any], table: str, figures: pathlib.Path) -> str:
    """The HTML of a run's page.

    Args:
        metrics: Contents of metrics.json.
        table: HTML of the table.
        figures: Folder of the figures.
    """
    config, reference = metrics["config"], metrics["reference"]
    return pages.page(
        "One-dimensional regression",
        [
            f"y = x³ + N(0, {config['noise_std']:g}²), {config['points']} points on [-4, 4], seed "
            f"{config['seed']}. The target has 200 hidden units (ELU) and no biases. Networks see "
            "the points within [-1, 1] on both axes. Every method knows the noise. Methods with a "
            f"prior have N(0, {config['prior_std']:g}²) on each weight, BHN on the norm of each "
            "filter. Rates, batches and first weights were chosen by one to seven trials of each "
            "method, by closeness to the reference on the points of seed 100"
            + (", which these are." if config["seed"] == 100 else "."),
            f"Reference: {config['chains']} chains of Hamiltonian Monte Carlo, {config['draws']} "
            f"draws of each after {config['burn_in']}, {config['leapfrog_steps']} leapfrog steps "
            f"for each draw. R-hat is at most {reference['r_hat']:.3f} for the values of the "
            f"curve, and {reference['r_hat_log_posterior']:.3f} for the log posterior.",
            "Inside is [-4, 4], outside is the rest of [-6, 6]. NLL is the negative "
            "log-likelihood of a normal distribution with the networks' mean, and their variance "
            "plus that of the noise, averaged over the true curve with its noise. Differences are "
            "mean absolute differences from the reference.",
        ],
        [table],
        {
            "Predictions of each method, with a few networks": {"": figures / "predictions.png"},
            "Few and many networks": {"": figures / "few_and_many.png"},
        },
        json.dumps(config, indent=2),
    )
