"""How much the filters of sampled networks vary, and whether anything listens to them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.targets import Gauge
from hypernet_tf.targets.scales import Step


class FilterDiversity(NamedTuple):
    """How much the filters of one layer vary, and how much the next layer makes of them.

    Attributes:
        layer: the layer's place among `ensemble.target.layers`, counted from 1.
        diversity: [F] root mean square, over the filter's weights, of the standard deviation over
            networks. In the fixed gauge a filter's weights have a mean square of one, but for all
            but the first branch of a sum.
        next_weights: [F] root mean square of the weights by which the next layer reads the filter,
            over networks and weights.
    """

    layer: int
    diversity: np.ndarray
    next_weights: np.ndarray


def filter_diversity(ensemble: Ensemble) -> list[FilterDiversity]:
    """Diversity of each filter beside the size of the next layer's weights on it.

    A sampler can make entropy out of filters that nobody listens to; then the most diverse filters
    are those with the least weights after them (Deutsch et al. 2019, section 4.1, the failure
    to watch).

    Args:
        ensemble: N >= 2 networks in the fixed gauge.

    Returns:
        One for each layer whose filters all have a free scale and a reader: not for the last one.
        A batch normalisation reads by gamma, and its gamma and beta are filters.

    Raises:
        ValueError: one network does not vary.
    """
    if len(ensemble) < 2:
        raise ValueError("diversity of filters needs at least 2 networks")
    trainable = ensemble.weights.trainable
    steps, results = Gauge(ensemble.target).steps, []
    for step in steps:
        read = _read(steps, step.makes, trainable)
        if step.layer is None or read is None:
            continue
        rows = step.layer.rows([trainable[slot.index] for slot in step.layer.slots]).numpy()
        variance = rows.astype(np.float64).var(axis=0, ddof=1)  # [F, R]
        layer = ensemble.target.layers.index(step.layer) + 1
        results.append(FilterDiversity(layer, np.sqrt(variance.mean(-1)), np.sqrt(read)))
    return results


def _read(steps: Sequence[Step], channels: np.ndarray, trainable: list) -> np.ndarray | None:
    """Mean square of the weights that read each channel [F]; None where some have no reader."""
    total, readers = np.zeros(len(channels)), np.zeros(len(channels))
    for step in steps:
        first = None if step.layer is None else step.layer.slots[0]
        if first is None or first.name == "beta" or not np.isin(channels, step.reads).any():
            continue
        weights = trainable[first.index].numpy().astype(np.float64)
        others = tuple(place for place in range(weights.ndim) if place != step.axis)
        square = np.mean(weights**2, axis=others)
        for place, own in enumerate(channels):
            if own > 0 and (found := step.reads == own).any():
                total[place] += square[found].mean()
                readers[place] += 1
    return total / readers if readers.all() else None
