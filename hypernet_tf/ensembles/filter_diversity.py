"""How much the filters of sampled networks vary, and whether anything listens to them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.targets import Gauge


class FilterDiversity(NamedTuple):
    """How much the filters of one layer vary, and how much the next layer makes of them.

    Attributes:
        layer: the layer's place among `ensemble.target.layers`, counted from 1.
        diversity: [F] root mean square, over the filter's weights, of the standard deviation over
            networks. In the fixed gauge a filter's weights have a mean square of one.
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
        One for each layer whose filters the gauge scales: not for the last one.

    Raises:
        ValueError: one network does not vary.
    """
    if len(ensemble) < 2:
        raise ValueError("diversity of filters needs at least 2 networks")
    trainable = ensemble.weights.trainable
    results = []
    for group in Gauge(ensemble.target).scales:
        read = 0.0
        for index, view, axis in group.consumers:
            tensor = np.reshape(trainable[index].numpy(), [-1, *view])
            others = tuple(place for place in range(tensor.ndim) if place != axis + 1)
            read = read + np.mean(tensor.astype(np.float64) ** 2, axis=others)
        for layer in group.producers:
            rows = layer.rows([trainable[slot.index] for slot in layer.slots]).numpy()  # [N, F, R]
            variance = rows.astype(np.float64).var(axis=0, ddof=1)
            results.append(
                FilterDiversity(
                    ensemble.target.layers.index(layer) + 1,
                    np.sqrt(variance.mean(-1)),
                    np.sqrt(read / len(group.consumers)),
                )
            )
    return results
