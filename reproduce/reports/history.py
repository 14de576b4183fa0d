"""What the training of an MNIST run looked like: its history as curves."""

from __future__ import annotations

import numpy as np


def panels(history: list[dict]) -> list[dict]:
    """The history as the panels of `plots.training_curves`."""
    steps = [entry["step"] for entry in history]
    validated = [entry for entry in history if "validation" in entry]
    at = [entry["step"] for entry in validated]

    def training(name: str) -> tuple:
        return steps, [entry[name] for entry in history]

    def validation(name: str, factor: float = 1.0) -> tuple:
        return at, [factor * entry["validation"][name] for entry in validated]

    curves = [
        {
            "title": "Accuracy on the validation images",
            "unit": "%",
            "curves": {
                "mean of the networks": validation("member_accuracy", 100),
                "majority vote": validation("majority_vote_accuracy", 100),
                "mean probability": validation("mean_probability_accuracy", 100),
                "most confident": validation("most_confident_accuracy", 100),
            },
            "low_high": (
                *validation("member_accuracy_min", 100),
                validation("member_accuracy_max", 100)[1],
            ),
        },
        {
            "title": "Accuracy loss (cross-entropy), training",
            "unit": "nats",
            "curves": {"accuracy loss": training("accuracy_loss")},
        },
    ]
    if any(entry["diversity_loss"] for entry in history):
        curves.append(
            {
                "title": "Diversity loss (minus entropy), training",
                "unit": "nats",
                "curves": {"diversity loss": training("diversity_loss")},
            }
        )
    if all(entry["validation"].get("entropy") is not None for entry in validated):
        curves.append(
            {
                "title": "Entropy of the validated networks",
                "unit": "nats",
                "curves": {"entropy": validation("entropy")},
            }
        )
    return curves


def arrays(history: list[dict]) -> dict[str, np.ndarray]:
    """The numbers behind the curves: "<curve>" [T] beside "<curve>, step" [T]."""
    found: dict[str, np.ndarray] = {}
    for panel in panels(history):
        if "low_high" in panel:
            names = ("members, step", "members, lowest", "members, highest")
            found |= {n: np.array(v) for n, v in zip(names, panel["low_high"], strict=True)}
        for name, (steps, values) in panel["curves"].items():
            found |= {name: np.array(values), f"{name}, step": np.array(steps)}
    return found
