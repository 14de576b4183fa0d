"""The temperature at which an ensemble's mean prediction has the highest likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.special import log_softmax

from hypernet_tf.ensembles.evaluation import check_choices
from hypernet_tf.ensembles.examples import Chunk, weights_of_choices
from hypernet_tf.metrics.accuracy import log_losses, mean_log_probabilities, mean_over_examples

LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0


def best_temperature(runs: Sequence[tuple[np.ndarray, Chunk]], start: float = 1.0) -> float:
    """Temperature that minimises the negative log-likelihood of the mean prediction.

    Args:
        runs: Log-probabilities [N, b, C] at temperature 1, and the examples with labels, of chunks
            of examples; or [N, b, ..., C] and labels [b, ...], with weights of examples [b] or of
            choices [b, ...].
        start: Temperature that is returned if no other one is better.

    Returns:
        T between 0.01 and 100.

    Source: `scipy.optimize.minimize_scalar` on log T, bounded; Guo et al. 2017, section 4.2.
    """
    from scipy.optimize import minimize_scalar  # takes a second: only for those who use it

    for log_p, examples in runs:
        check_choices(examples.y, log_p)
    labels = [examples.y.reshape(-1) for _, examples in runs]
    weights = None
    if any(examples.sample_weight is not None for _, examples in runs):
        weights = np.concatenate([weights_of_choices(examples).ravel() for _, examples in runs])

    def loss(log_temperature: float) -> float:
        losses = []
        for (log_p, _), y in zip(runs, labels, strict=True):
            scaled = log_softmax(log_p.astype(np.float64) / np.exp(log_temperature), -1)
            flat = scaled.reshape(len(scaled), -1, scaled.shape[-1])
            losses.append(log_losses(mean_log_probabilities(flat), y))
        return float(mean_over_examples(np.concatenate(losses), weights))

    # The loss of a mean prediction may have several minima.
    grid = np.linspace(np.log(LOWEST_TEMPERATURE), np.log(HIGHEST_TEMPERATURE), 10)
    best = int(np.argmin([loss(log_temperature) for log_temperature in grid]))
    minimum = minimize_scalar(
        loss,
        bounds=(grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(minimum.x)) if minimum.fun < loss(np.log(start)) else start
