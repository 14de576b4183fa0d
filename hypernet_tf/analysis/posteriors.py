"""Distributions of single weights over many networks.

Layers are numbered from 1 as in `ensemble.target.layers`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hypernet_tf.ensembles.ensemble import Ensemble


class SingleWeight(NamedTuple):
    """One weight of a target in N networks.

    Attributes:
        layer: Number of its layer.
        name: Its variable and its position there, such as "kernel[2, 0, 0, 4]".
        values: Values [N].
    """

    layer: int
    name: str
    values: np.ndarray


def single_weights(ensemble: Ensemble, per_layer: int = 3) -> list[SingleWeight]:
    """A few weights of each layer in each network, the same ones for every ensemble of a target.

    Of a layer with D weights, its variables one after the other, the k-th of K is the weight of
    number floor((k + 1/2) D / K).

    Args:
        ensemble: N networks.
        per_layer: K, number of weights of each layer; all of a layer with fewer.

    Raises:
        ValueError: `per_layer` is below 1.

    Example:
        >>> for layer, name, values in single_weights(gan.sample(1_000)): ...

    Reference: Ratzlaff and Fuxin (2019), histograms of generated weights.
    """
    if per_layer < 1:
        raise ValueError(f"per_layer is {per_layer}: give at least 1.")
    results = []
    for number, layer in enumerate(ensemble.target.layers, 1):
        starts = np.cumsum([0, *(slot.size for slot in layer.slots)])
        count = min(per_layer, int(starts[-1]))
        for k in range(count):
            index = (2 * k + 1) * int(starts[-1]) // (2 * count)
            which = int(np.searchsorted(starts, index, side="right")) - 1
            slot = layer.slots[which]
            position = np.unravel_index(index - starts[which], slot.shape)
            values = ensemble.weights.trainable[slot.index][(slice(None), *map(int, position))]
            name = f"{slot.name}[{', '.join(map(str, map(int, position)))}]"
            results.append(SingleWeight(number, name, values.numpy()))
    return results
