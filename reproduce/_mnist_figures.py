"""The figures of the MNIST experiment: what of the run goes into which."""

from __future__ import annotations

import numpy as np

import hypernet_tf as hn
from hypernet_tf import plots


def draw(ensemble: hn.Ensemble, result: hn.Evaluation, history: list[dict], images: int) -> dict:
    """The figures of the run: accuracy histogram, training curves, filters."""
    marks = {
        "mean of the networks": result.member_accuracy.mean(),
        "majority vote": result.majority_vote_accuracy,
        "mean probability": result.mean_probability_accuracy,
        "most confident": result.most_confident_accuracy,
    }
    return {
        "accuracy_histogram": plots.accuracy_histogram(
            100 * result.member_accuracy,
            {name: 100 * v for name, v in marks.items()},
            bin_width=max(0.05, 100 / images),  # one image is the least difference
        ),
        "training_curves": plots.training_curves(panels(history)),
        "filters": plots.filter_grids(filters(ensemble)),
    }


def panels(history: list[dict]) -> list[dict]:
    """The history as the panels of `plots.training_curves`."""
    steps = [entry["step"] for entry in history]
    validated = [entry for entry in history if "validation" in entry]
    at = [entry["step"] for entry in validated]

    def training(name: str) -> tuple:
        return steps, [entry[name] for entry in history]

    def validation(name: str, factor: float = 1.0) -> tuple:
        return at, [factor * entry["validation"][name] for entry in validated]

    return [
        {
            "title": "Accuracy on the validation images",
            "unit": "%",
            "curves": {
                "mean of the networks": validation("member_accuracy_mean", 100),
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
        {
            "title": "Diversity loss (minus entropy), training",
            "unit": "nats",
            "curves": {"diversity loss": training("diversity_loss")},
        },
        {
            "title": "Entropy of the validated networks",
            "unit": "nats",
            "curves": {"entropy": validation("entropy")},
        },
    ]


def filters(ensemble: hn.Ensemble, count: int = 25) -> dict[str, np.ndarray]:
    """One filter of each layer in `count` networks, or the ensemble's fewer, as pictures."""
    count = min(count, int(len(ensemble) ** 0.5) ** 2)
    kernels = [w.numpy()[:count] for w in ensemble.weights.trainable[::2]]
    return {
        "layer 1: kernel of filter 1": kernels[0][:, :, :, 0, 0],
        "layer 2: channel 1 of filter 1": kernels[1][:, :, :, 0, 0],
        "layer 3: channel 1 of neuron 1": kernels[2].reshape(count, 7, 7, 16, 8)[:, :, :, 0, 0],
        "layer 4: the whole kernel": kernels[3],
    }
