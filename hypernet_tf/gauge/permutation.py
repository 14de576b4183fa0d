"""Sorting hidden filters: one of all orders in which a target's channels may stand.

Hidden channels may change places if all that makes them and all that reads them follows. Channels
that are tied by a sum move together in all branches, and a batch normalisation, a depthwise kernel
and any activation that treats each number by itself move with their channels.

Two channels may change places with each other if they occur equally often in every tensor, as made
and as read. So a concatenation keeps its branches apart, and where a shortcut pads its channels
with zeros, those that it pads are sorted among themselves.

Filters are sorted by the row of the first layer that makes them, after its inputs are sorted:
lexicographically, ascending, first element first.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from hypernet_tf.gauge.channels import HELD, ZERO, Channels, input_axis, is_depthwise
from hypernet_tf.targets.filters import WeightedLayer
from hypernet_tf.targets.graph import Call
from hypernet_tf.targets.layers import LayerTraits, traits_of
from hypernet_tf.targets.target import Target


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of a variable that counts channels.

    Attributes:
        index: The variable's index among the trainable ones, or in the state.
        ids: The id of the channel at each position of the axis.
        trainable: Whether the variable is trainable; otherwise it is part of the state.
        axis: Which axis of the variable [N, ...] it is.
        rows: The layer whose filters the axis counts, for the kernel of a layer that makes
            channels.
    """

    index: int
    ids: np.ndarray
    trainable: bool = True
    axis: int = 1
    rows: WeightedLayer | None = None


class Orders(Channels):
    """The channels that may change places, and every axis on which they stand.

    Args:
        target: The `Target`.

    Attributes:
        axes: Every axis of a variable that counts channels, in the order of the plan; a layer's
            inputs before its filters.
        groups: The channels that may change places among themselves, at least two in each group.
    """

    def __init__(self, target: Target):
        self._axes: list[Axis] = []
        self._padded: list[np.ndarray] = []
        super().__init__(target)
        self.axes = [dataclasses.replace(a, ids=self.classes(a.ids)) for a in self._axes]
        self.groups = self._interchangeable()

    def passes(self, traits: LayerTraits) -> bool:
        """Whether a layer treats each channel by itself, and all alike."""
        return traits.is_permutable

    def weighted(self, call: Call, ids: np.ndarray) -> np.ndarray | None:
        """A layer's inputs and filters; a depthwise one's filters move with its inputs."""
        layer, weighted = call.operation, self.target.weighted(call.operation)
        traits = traits_of(layer)
        kernel, *vectors = weighted.slots
        if is_depthwise(layer) and not traits.is_permutable:
            return None
        self._note(kernel.index, ids, axis=input_axis(layer, kernel))
        num_filters = weighted.filters
        if is_depthwise(layer):
            made = _no_longer_zero(np.repeat(ids, num_filters // len(ids)))
        else:
            made = self.new(num_filters) if traits.is_permutable else np.full(num_filters, HELD)
            self._note(kernel.index, made, axis=kernel.axis + 1, rows=weighted)
        for slot in vectors:
            self._note(slot.index, made)
        return made

    def norm(self, call: Call, ids: np.ndarray) -> np.ndarray:
        """All vectors of a batch normalisation move with its channels."""
        layer, weighted = call.operation, self.target.weighted(call.operation)
        for slot in weighted.slots if weighted else ():
            self._note(slot.index, ids)
        for variable in (layer.moving_mean, layer.moving_variance):
            self._note(self.target.state_index(variable), ids, trainable=False)
        return _no_longer_zero(ids)

    def _note(self, index: int, ids: np.ndarray, **kwargs: Any) -> None:
        self._axes.append(Axis(index, ids, **kwargs))

    def _passed(self, traits: LayerTraits, ids: np.ndarray) -> np.ndarray:
        return ids if traits.homogeneous else _no_longer_zero(ids)

    def _merged(self, call: Call, inputs: list[np.ndarray]) -> np.ndarray | None:
        merged = super()._merged(call, inputs)
        if merged is not None and any((ids == ZERO).any() for ids in inputs):
            self._padded.append(merged)
        return merged

    def _interchangeable(self) -> list[list[int]]:
        num_ids = len(self._parents)
        fixed = {HELD}
        for merged in self._padded:
            # Which of a channel's several positions face a zero is more than a count tells.
            channels, counts = np.unique(self.classes(merged), return_counts=True)
            fixed.update(channels[counts > 1].tolist())
        counts_by_axis = np.array(
            [np.bincount(axis.ids[axis.ids > HELD], minlength=num_ids) for axis in self.axes]
        )
        groups: dict[bytes, list[int]] = {}
        for channel in np.flatnonzero(counts_by_axis.any(0)).tolist():
            if channel not in fixed:
                groups.setdefault(counts_by_axis[:, channel].tobytes(), []).append(channel)
        return [group for group in groups.values() if len(group) > 1]


def _no_longer_zero(ids: np.ndarray) -> np.ndarray:
    return np.where(ids == ZERO, HELD, ids)


class Permutation:
    """Sorts the hidden filters of weight sets.

    Args:
        target: The `Target`.

    Attributes:
        groups: The channels that are sorted among themselves.
        axes: Each axis on which they stand, with the positions of each group there: number of
            the group -> positions [channels, how often each occurs].
    """

    def __init__(self, target: Target):
        orders = Orders(target)
        self.groups = orders.groups
        self.axes: list[tuple[Axis, dict[int, np.ndarray]]] = []
        for axis in orders.axes:
            positions = {
                number: np.array([np.flatnonzero(axis.ids == channel) for channel in group])
                for number, group in enumerate(self.groups)
                if (axis.ids == group[0]).any()
            }
            if positions:
                self.axes.append((axis, positions))

    def __call__(self, trainable: list[tf.Tensor], state: list[tf.Tensor]) -> None:
        """Sort the filters of N networks; the lists' tensors [N, ...] are replaced.

        Args:
            trainable: The trainable weights.
            state: The state.
        """
        orders: dict[int, tf.Tensor] = {}  # number of a group -> [N, channels]
        indices: dict[bytes, tuple[tf.Tensor, tf.Tensor]] = {}  # shared by axes of the same ids
        for axis, positions in self.axes:
            tensors = trainable if axis.trainable else state
            if axis.rows is not None and not orders.keys() >= positions.keys():
                rows = axis.rows.rows([trainable[slot.index] for slot in axis.rows.slots])
                for number in positions.keys() - orders.keys():
                    group_rows = tf.gather(rows, positions[number][:, 0], axis=1)
                    orders[number] = lexicographic_order(tf.stop_gradient(group_rows))
            key = axis.ids.tobytes()
            if key not in indices:
                index = _index(len(axis.ids), positions, orders)
                indices[key] = index, tf.argsort(index)
            tensors[axis.index] = _permuted(tensors[axis.index], *indices[key], axis.axis)


def _permuted(tensor: tf.Tensor, index: tf.Tensor, inverse: tf.Tensor, axis: int) -> tf.Tensor:
    """A tensor with the positions of an axis in another order, and the gradient in the old one."""

    @tf.custom_gradient
    def permute(tensor: tf.Tensor) -> Any:
        def back(gradient: tf.Tensor) -> tf.Tensor:
            return tf.gather(gradient, inverse, axis=axis, batch_dims=1)

        return tf.gather(tensor, index, axis=axis, batch_dims=1), back

    return permute(tensor)


def _index(size: int, positions: dict[int, np.ndarray], orders: dict[int, tf.Tensor]) -> tf.Tensor:
    """Which position of an axis goes to each of its positions: [N, size]."""
    num_networks = tf.shape(orders[next(iter(positions))])[0]
    moving = np.concatenate([group.ravel() for group in positions.values()])
    fixed = np.setdiff1d(np.arange(size), moving)
    sources = [tf.tile(tf.constant(fixed[None], tf.int32), [num_networks, 1])]
    for number, group in positions.items():
        # [N, channels, how often]
        sorted_positions = tf.gather(tf.constant(group, tf.int32), orders[number])
        sources.append(tf.reshape(sorted_positions, [-1, group.size]))
    destinations = np.concatenate([fixed, moving])
    return tf.gather(tf.concat(sources, 1), np.argsort(destinations), axis=1)


@tf.function(autograph=False)  # one graph for all layers of the same shape
def lexicographic_order(rows: tf.Tensor) -> tf.Tensor:
    """The order in which rows are sorted, ascending, first element first; equal ones stay.

    Each round sorts by one more element, within the groups that all earlier elements leave
    undecided. The rounds end when no group is left; random rows need one or two.

    Args:
        rows: The rows [N, F, R] of each network's filters.

    Returns:
        Indices [N, F]: which row comes first, second, ...
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
