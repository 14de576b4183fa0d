"""Sorting hidden filters: of all orders in which a target's channels may stand, one.

Hidden channels may change places if all that makes them and all that reads them follows. Channels
that are tied by a sum move together in all branches, and a batch normalisation, a depthwise kernel
and any activation that treats each number by itself move with their channels.

Which channels may change places with which is read off where they stand: two that occur equally
often in every tensor, as made and as read. So a concatenation keeps its branches apart, and where
a shortcut pads its channels with zeros, those that it pads are sorted among themselves.

Filters are sorted by the row of the first layer that makes them, its inputs sorted before:
lexicographically, ascending, first element first.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.gauge.channels import (
    HELD,
    MERGES,
    ZERO,
    Channels,
    homogeneous,
    input_axis,
)
from hypernet_tf.targets.filters import WeightedLayer
from hypernet_tf.targets.graph import Call
from hypernet_tf.targets.target import Target

# Activations that treat each number by itself.
ELEMENTWISE = frozenset(
    getattr(keras.activations, name)
    for name in (
        *("celu", "elu", "exponential", "gelu", "hard_shrink", "hard_sigmoid", "hard_silu"),
        *("hard_tanh", "leaky_relu", "linear", "log_sigmoid", "mish", "relu", "relu6", "selu"),
        *("sigmoid", "silu", "soft_shrink", "softplus", "softsign", "sparse_plus", "squareplus"),
        *("tanh", "tanh_shrink", "threshold"),
    )
)


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of a variable that counts channels.

    Attributes:
        index: the variable's place among the trainable ones, or in the state.
        ids: the channel at each place of the axis.
        trainable: which of the two the variable is.
        axis: which axis of the variable [N, ...].
        rows: the layer whose filters the axis counts, for the kernel of a layer that makes
            channels.
    """

    index: int
    ids: np.ndarray
    trainable: bool = True
    axis: int = 1
    rows: WeightedLayer | None = None


class Orders(Channels):
    """The channels that may change places, and every axis on which they stand.

    Attributes:
        axes: every axis of a variable that counts channels, in the order of the plan; a layer's
            inputs before its filters.
        groups: the channels that may change places among themselves, at least two in each group.
    """

    merges = (*MERGES, keras.layers.Multiply)
    operations = (*Channels.operations, "Multiply")

    def __init__(self, target: Target):
        self._found: list[Axis] = []
        self._padded: list[np.ndarray] = []
        super().__init__(target)
        self.axes = [dataclasses.replace(a, ids=self.classes(a.ids)) for a in self._found]
        self.groups = self._interchangeable()

    def passes(self, layer: Any) -> bool:
        """Whether a layer treats each channel by itself, and all alike."""
        if type(layer) is keras.layers.Activation:
            return layer.activation in ELEMENTWISE
        return homogeneous(layer) or type(layer) in (keras.layers.ReLU, keras.layers.ELU)

    def weighted(self, call: Call, ids: np.ndarray) -> np.ndarray | None:
        """A layer's inputs and filters; a depthwise one's filters move with its inputs."""
        layer, described = call.operation, self.target.weighted(call.operation)
        elementwise = layer.activation in ELEMENTWISE
        kernel, *bias = described.slots
        depthwise = "Depthwise" in type(layer).__name__
        if depthwise and not elementwise:
            return None
        self._note(kernel.index, ids, axis=input_axis(layer, kernel))
        if depthwise:
            makes = _no_longer_zero(np.repeat(ids, layer.depth_multiplier))
        else:
            count = described.filters
            makes = self.new(count) if elementwise else np.full(count, HELD)
            self._note(kernel.index, makes, axis=kernel.axis + 1, rows=described)
        for slot in bias:
            self._note(slot.index, makes)
        return makes

    def norm(self, call: Call, ids: np.ndarray) -> np.ndarray:
        """All vectors of a batch normalisation move with its channels."""
        layer, described = call.operation, self.target.weighted(call.operation)
        for slot in described.slots if described else ():
            self._note(slot.index, ids)
        for variable in (layer.moving_mean, layer.moving_variance):
            self._note(self.target.state_place(variable), ids, trainable=False)
        return _no_longer_zero(ids)

    def _note(self, index: int, ids: np.ndarray, **kwargs: Any) -> None:
        self._found.append(Axis(index, ids, **kwargs))

    def _of_one(self, call: Call, ids: np.ndarray) -> np.ndarray | None:
        made, layer = super()._of_one(call, ids), call.operation
        kinds = (keras.layers.Activation, keras.layers.ReLU, keras.layers.ELU)
        if made is not None and type(layer) in kinds and not homogeneous(layer):
            return _no_longer_zero(made)
        return made

    def _merged(self, call: Call, inputs: list[np.ndarray]) -> np.ndarray | None:
        merged = super()._merged(call, inputs)
        if merged is not None and any((ids == ZERO).any() for ids in inputs):
            self._padded.append(merged)
        return merged

    def _interchangeable(self) -> list[list[int]]:
        size = len(self._parents)
        rows = [axis.ids for axis in self.axes]
        fixed = {HELD}
        for merged in self._padded:
            # Which of a channel's several places face a zero is more than a count tells.
            own, counts = np.unique(self.classes(merged), return_counts=True)
            fixed.update(own[counts > 1].tolist())
        counted = np.array([np.bincount(row[row > HELD], minlength=size) for row in rows])
        groups: dict[bytes, list[int]] = {}
        for channel in np.flatnonzero(counted.any(0)).tolist():
            if channel not in fixed:
                groups.setdefault(counted[:, channel].tobytes(), []).append(channel)
        return [group for group in groups.values() if len(group) > 1]


def _no_longer_zero(ids: np.ndarray) -> np.ndarray:
    return np.where(ids == ZERO, HELD, ids)


class Permutation:
    """Sorts the hidden filters of weight sets.

    Args:
        target: the `Target`.

    Attributes:
        groups: the channels that are sorted among themselves.
    """

    def __init__(self, target: Target):
        orders = Orders(target)
        self.groups = orders.groups
        # Of each axis the places of each group that stands on it: [channels, how often].
        self._axes: list[tuple[Axis, dict[int, np.ndarray]]] = []
        for axis in orders.axes:
            places = {}
            for number, group in enumerate(self.groups):
                if (axis.ids == group[0]).any():
                    found = [np.flatnonzero(axis.ids == own) for own in group]
                    places[number] = np.array(found)
            if places:
                self._axes.append((axis, places))

    def __call__(self, trainable: list[tf.Tensor], state: list[tf.Tensor]) -> None:
        """Sort, in place of the lists' tensors [N, ...]."""
        orders: dict[int, tf.Tensor] = {}
        indices: dict[
            bytes, tuple[tf.Tensor, tf.Tensor]
        ] = {}  # a layer's vectors stand in one order
        for axis, places in self._axes:
            tensors = trainable if axis.trainable else state
            if axis.rows is not None and not orders.keys() >= places.keys():
                rows = axis.rows.rows([trainable[slot.index] for slot in axis.rows.slots])
                for number in places.keys() - orders.keys():
                    own = tf.gather(rows, places[number][:, 0], axis=1)
                    orders[number] = lexicographic_order(tf.stop_gradient(own))
            key = axis.ids.tobytes()
            if key not in indices:
                index = _index(len(axis.ids), places, orders)
                indices[key] = index, tf.argsort(index)
            tensors[axis.index] = _permuted(tensors[axis.index], *indices[key], axis.axis)


def _permuted(tensor: tf.Tensor, index: tf.Tensor, inverse: tf.Tensor, axis: int) -> tf.Tensor:
    """A tensor's places on an axis in another order, which its gradient takes back."""

    @tf.custom_gradient
    def permute(tensor: tf.Tensor) -> Any:
        def back(gradient: tf.Tensor) -> tf.Tensor:
            return tf.gather(gradient, inverse, axis=axis, batch_dims=1)

        return tf.gather(tensor, index, axis=axis, batch_dims=1), back

    return permute(tensor)


def _index(size: int, places: dict[int, np.ndarray], orders: dict[int, tf.Tensor]) -> tf.Tensor:
    """Which place of an axis goes to each of its places: [N, size]."""
    count = orders[next(iter(places))].shape[0]
    still = np.setdiff1d(np.arange(size), np.concatenate([own.ravel() for own in places.values()]))
    goes = [still, *(own.ravel() for own in places.values())]
    comes = [tf.tile(tf.constant(still[None], tf.int32), [count, 1])]
    for number, own in places.items():
        moved = tf.gather(tf.constant(own, tf.int32), orders[number])  # [N, channels, how often]
        comes.append(tf.reshape(moved, [count, own.size]))
    return tf.gather(tf.concat(comes, 1), np.argsort(np.concatenate(goes)), axis=1)


@tf.function(autograph=False)  # of all layers alike one graph
def lexicographic_order(rows: tf.Tensor) -> tf.Tensor:
    """The order in which rows are sorted, ascending, first element first; equal ones stay.

    Each round sorts by one more element, within the groups that all elements before leave
    undecided, and the rounds end when no group is left: random rows need one or two.

    Args:
        rows: [N, F, R].

    Returns:
        [N, F] places in the given order.
    """
    count, length = rows.shape[1:]

    def undecided(element: tf.Tensor, group: tf.Tensor) -> tf.Tensor:
        return (element < length) & tf.reduce_any(tf.reduce_max(group, 1) < count - 1)

    def refined(element: tf.Tensor, group: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        key = tf.gather(rows, element, axis=2)
        order = tf.argsort(key, stable=True)
        within = tf.argsort(tf.gather(group, order, batch_dims=1), stable=True)
        order = tf.gather(order, within, batch_dims=1)
        key, group = (tf.gather(tensor, order, batch_dims=1) for tensor in (key, group))
        differs = (key[:, 1:] != key[:, :-1]) | (group[:, 1:] != group[:, :-1])
        sorted_group = tf.pad(tf.cumsum(tf.cast(differs, tf.int32), 1), [[0, 0], [1, 0]])
        inverse = tf.argsort(order)
        return element + 1, tf.gather(sorted_group, inverse, batch_dims=1)

    start = (tf.constant(0), tf.zeros_like(rows[:, :, 0], tf.int32))
    _, group = tf.while_loop(undecided, refined, start)
    return tf.argsort(group, stable=True)
