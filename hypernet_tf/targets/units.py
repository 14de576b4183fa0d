"""Layers whose weights belong together: those that make the same channels.

A filter is everything that makes one output channel. Where batch normalisation directly follows a
convolution or a dense layer, its scale and shift of a channel are part of that channel's filter.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import keras

from hypernet_tf.targets.filters import WeightedLayer
from hypernet_tf.targets.plan import Plan

Unit = tuple[WeightedLayer, ...]


def channel_units(plan: Plan, weighted: dict[int, WeightedLayer]) -> tuple[Unit, ...]:
    """The weighted layers of a plan, each with the batch normalisation that directly follows it.

    Args:
        plan: the target's.
        weighted: id of an operation -> its filters, in the order of first calls.

    Returns:
        Units in the order of their first layers; the layers of a unit have equally many filters.
    """
    readers = Counter(ref for call in plan.calls for ref in call.inputs)
    readers.update(keras.tree.flatten(plan.outputs))
    units: dict[int, list[WeightedLayer]] = {}
    for operation in plan.operations:
        layer = weighted.get(id(operation))
        if layer is None:
            continue
        before = _normalised(plan, operation, readers)
        if id(before) in units and units[id(before)][0].filters == layer.filters:
            units[id(before)].append(layer)
        else:
            units[id(operation)] = [layer]
    return tuple(tuple(unit) for unit in units.values())


def _normalised(plan: Plan, operation: Any, readers: Counter) -> Any:
    """The layer whose outputs nothing but this batch normalisation reads; else None."""
    if type(operation) is not keras.layers.BatchNormalization or plan.count(operation) != 1:
        return None
    (call,) = (call for call in plan.calls if call.operation is operation)
    ref = call.inputs[0]
    maker = plan.maker(ref)
    last = operation.axis in (-1, len(plan.shapes[ref]))  # shapes are without the batch
    if maker is None or not last or readers[ref] != 1 or plan.count(maker.operation) != 1:
        return None
    return maker.operation
