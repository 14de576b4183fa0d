"""The curves of a training, and of several trainings beside each other."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Mapping

import numpy as np

from hypernet_tf import plots
from hypernet_tf.metrics import MEASURES
from reproduce.analyses import Drawing
from reproduce.runs import folder as folders

# Keys of the curves, which are those of records and measures -> what figures call them.
LABELS = {
    "member_accuracy": "mean of the networks",
    "majority_vote_accuracy": "majority vote",
    "mean_probability_accuracy": "mean probability",
    "most_confident_accuracy": "most confident",
    "accuracy_loss": "accuracy loss",
    "diversity_loss": "diversity loss",
    "norm_spread": "norm spread",
    "entropy": "entropy",
}
_SHOWN = ("member_accuracy", "majority_vote_accuracy")  # against the cost of a training
_ACCURACIES = tuple(key for key in LABELS if key.endswith("_accuracy"))


def _panels(history: list[dict]) -> list[dict]:
    """The panels of `panels`, whose curves have keys instead of labels."""
    steps = [entry["step"] for entry in history]
    validated = [entry for entry in history if "validation" in entry]
    validated_steps = [entry["step"] for entry in validated]

    def training(key: str) -> dict[str, tuple]:
        return {key: (steps, [entry[key] for entry in history])}

    def validation(key: str) -> tuple:
        factor = MEASURES[key].factor
        return validated_steps, [factor * entry["validation"][key] for entry in validated]

    panels = [
        {
            "title": "Accuracy on the validation images",
            "unit": "%",
            "curves": {key: validation(key) for key in _ACCURACIES},
            "low_high": (*validation("member_accuracy_min"), validation("member_accuracy_max")[1]),
        },
        {
            "title": "Accuracy loss (cross-entropy), training",
            "unit": "nats",
            "curves": training("accuracy_loss"),
        },
    ]
    if any(entry["diversity_loss"] for entry in history):
        panels.append(
            {
                "title": "Diversity loss, training",
                "unit": "nats",
                "curves": training("diversity_loss"),
            }
        )
    if all(entry.get("norm_spread") is not None for entry in history):
        panels.append(
            {
                "title": "Spread of the networks' L2 norms",
                "unit": "standard deviation / mean",
                "curves": training("norm_spread"),
            }
        )
    if all(entry["validation"]["entropy"] is not None for entry in validated):
        panels.append(
            {
                "title": "Entropy of the validated networks",
                "unit": "nats",
                "curves": {"entropy": validation("entropy")},
            }
        )
    return panels


def panels(history: list[dict]) -> list[dict]:
    """The history of a training as the panels of `plots.training_curves`.

    Args:
        history: Records of the training, see `hypernet_tf.training.callbacks.Recorder`.
    """
    return [
        panel | {"curves": {LABELS[key]: curve for key, curve in panel["curves"].items()}}
        for panel in _panels(history)
    ]


def arrays(history: list[dict]) -> dict[str, np.ndarray]:
    """The numbers behind the curves: "<key>" [T] and its steps "<key>, step" [T].

    Keys are those of `LABELS`; and "member_accuracy_min" and "member_accuracy_max", whose steps are
    those of "member_accuracy".

    Args:
        history: Records of the training.
    """
    numbers: dict[str, np.ndarray] = {}
    for panel in _panels(history):
        if "low_high" in panel:
            _, lowest, highest = map(np.array, panel["low_high"])
            numbers |= {"member_accuracy_min": lowest, "member_accuracy_max": highest}
        for key, (steps, values) in panel["curves"].items():
            numbers |= {key: np.array(values), f"{key}, step": np.array(steps)}
    return numbers


def read(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The `arrays` that a run folder holds.

    Args:
        folder: Run folder.

    Raises:
        RunError: They are missing or damaged.
    """
    path = folder / "figures" / "training_curves.npz"
    try:
        with np.load(path) as numbers:
            return {key: numbers[key] for key in (*_SHOWN, *numbers)}  # every run has these two
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged archive raises
        raise folders.RunError(
            f"{path} is missing or damaged: delete {folder / 'metrics.json'} and run the same "
            "command again"
        ) from error


def against_cost(folder: pathlib.Path, passes_per_step: int) -> dict[str, list[float]]:
    """The mean accuracy and the vote of each validation of a run, by its image passes.

    Args:
        folder: Run folder.
        passes_per_step: Image passes of a training step.

    Raises:
        RunError: The run's curves are missing or damaged.
    """
    numbers = read(folder)
    passes = numbers["member_accuracy, step"] * passes_per_step
    return {"image_passes": passes.tolist()} | {key: numbers[key].tolist() for key in _SHOWN}


def learning_curves(
    curves: Mapping[str, Mapping[str, list[float]]], single: Collection[str] = ()
) -> Drawing:
    """Draw the accuracies of several trainings against their cost.

    Args:
        curves: Name of a training -> its `against_cost`.
        single: Names of those that train one network, which has no vote.
    """
    panels: dict[str, dict[str, tuple]] = {}
    arrays: dict[str, np.ndarray] = {}
    for key in _SHOWN:
        drawn = {
            name: (np.array(one["image_passes"]), np.array(one[key]))
            for name, one in curves.items()
            if key == "member_accuracy" or name not in single
        }
        if drawn:
            panels[LABELS[key].capitalize()] = drawn
        arrays |= {f"{name}, {key}": np.stack(pair) for name, pair in drawn.items()}
    figure = plots.learning_curves(panels, "accuracy on the validation images (%)")
    return Drawing("learning", "Along the training", figure, arrays)
