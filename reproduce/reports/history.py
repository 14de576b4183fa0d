"""The curves of a training."""

from __future__ import annotations

import pathlib
import zipfile

import numpy as np

from hypernet_tf.metrics import MEASURES
from reproduce.runs import folder as folders

_ACCURACIES = {
    "member_accuracy": "mean of the networks",
    "majority_vote_accuracy": "majority vote",
    "mean_probability_accuracy": "mean probability",
    "most_confident_accuracy": "most confident",
}


def panels(history: list[dict]) -> list[dict]:
    """Return the history of a training as the panels of `plots.training_curves`.

    Args:
        history: Records of the training, see `hypernet_tf.training.callbacks.Recorder`.
    """
    steps = [entry["step"] for entry in history]
    validated = [entry for entry in history if "validation" in entry]
    validated_steps = [entry["step"] for entry in validated]

    def training(key: str) -> tuple:
        return steps, [entry[key] for entry in history]

    def validation(key: str) -> tuple:
        factor = MEASURES[key].factor
        return validated_steps, [factor * entry["validation"][key] for entry in validated]

    curves = [
        {
            "title": "Accuracy on the validation images",
            "unit": "%",
            "curves": {label: validation(key) for key, label in _ACCURACIES.items()},
            "low_high": (*validation("member_accuracy_min"), validation("member_accuracy_max")[1]),
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
                "title": "Diversity loss, training",
                "unit": "nats",
                "curves": {"diversity loss": training("diversity_loss")},
            }
        )
    if all(entry.get("norm_spread") is not None for entry in history):
        curves.append(
            {
                "title": "Spread of the networks' L2 norms",
                "unit": "standard deviation / mean",
                "curves": {"norm spread": training("norm_spread")},
            }
        )
    if all(entry["validation"]["entropy"] is not None for entry in validated):
        curves.append(
            {
                "title": "Entropy of the validated networks",
                "unit": "nats",
                "curves": {"entropy": validation("entropy")},
            }
        )
    return curves


def arrays(history: list[dict]) -> dict[str, np.ndarray]:
    """Return the numbers behind the curves: "<curve>" [T], and its steps "<curve>, step" [T].

    Args:
        history: Records of the training.
    """
    numbers: dict[str, np.ndarray] = {}
    for panel in panels(history):
        if "low_high" in panel:
            names = ("members, step", "members, lowest", "members, highest")
            numbers |= {n: np.array(v) for n, v in zip(names, panel["low_high"], strict=True)}
        for name, (steps, values) in panel["curves"].items():
            numbers |= {name: np.array(values), f"{name}, step": np.array(steps)}
    return numbers


def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Return the `arrays` that a run folder holds.

    Args:
        folder: Run folder.

    Raises:
        RunError: They are missing or damaged.
    """
    path = folder / "figures" / "training_curves.npz"
    try:
        with np.load(path) as numbers:
            return dict(numbers)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise folders.RunError(
            f"{path} is missing or damaged: delete {folder / 'metrics.json'} and run the same "
            "command again"
        ) from error
