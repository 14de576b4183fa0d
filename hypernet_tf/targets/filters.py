"""The filters of a weighted layer: how generator rows and weight tensors turn into each other.

A *filter* is everything that makes one output channel: the kernel slice and the bias of a
convolution's filter, the whole receptive field and the bias of a dense neuron. A *row* is a filter
written as one vector: its kernel slice in the kernel's own order (height, width, input channel),
then its bias. A layer whose weights do not split into filters is one filter: all its weights in a
row.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.targets.graph import Plan
from hypernet_tf.targets.layers import channels_last, kernel_axes, traits_of

_FEW_WEIGHTS = 32  # of so few weights, one draw does not tell the standard deviation
_DRAWS_OF_FEW = 32


@dataclasses.dataclass(frozen=True)
class Slot:
    """One trainable variable of a layer, as its filters see it.

    Attributes:
        index: Its index among the target's trainable variables.
        shape: Its shape.
        split: Its shape with the filters on one axis; differs from `shape` only where filters are
            counted by two axes (input channel and multiplier of a depthwise convolution).
        axis: The axis of `split` that counts the filters.
        name: The name that its layer gives it: "kernel", "bias", "gamma", ...
        initializer: The Keras initializer of the user's model, for samplers that train the weights.
            Where the layer does not state one, an initializer that returns the model's values.
    """

    index: int
    shape: tuple[int, ...]
    split: tuple[int, ...]
    axis: int
    name: str
    initializer: Any = dataclasses.field(compare=False)

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of one filter's part of the variable."""
        return self.split[: self.axis] + self.split[self.axis + 1 :]

    @property
    def size(self) -> int:
        """The number of weights in the variable."""
        return math.prod(self.shape)

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of the initializer's draws.

        One draw of a large variable tells them; a small one is drawn several times.
        """
        draws = [self.initializer]
        if self.size < _FEW_WEIGHTS:
            draws = [seeded(self.initializer, number) for number in range(_DRAWS_OF_FEW)]
        values = np.stack([np.asarray(draw(self.shape, dtype="float32")) for draw in draws])
        values = values.astype(np.float64)
        return float(values.mean()), float(values.std())


@dataclasses.dataclass(frozen=True)
class WeightedLayer:
    """A layer whose weights are generated.

    Attributes:
        name: The Keras layer's name.
        slots: Its trainable variables.
        filters: F, the number of its filters.
    """

    name: str
    slots: tuple[Slot, ...]
    filters: int

    @property
    def row_size(self) -> int:
        """The number of weights of one filter, bias included."""
        return self.size // self.filters

    @property
    def has_filters(self) -> bool:
        """Whether the weights split into filters; otherwise all of them are one filter."""
        return len(self.slots[0].split) <= len(self.slots[0].shape)

    @property
    def size(self) -> int:
        """The number of weights of the layer."""
        return sum(slot.size for slot in self.slots)

    def assemble(self, rows: tf.Tensor) -> list[tf.Tensor]:
        """Generated rows as weight tensors.

        Args:
            rows: Rows [N, F, row_size], or [N, 1, size]: the whole layer as one row, which is the
                kernel flattened in its own order, then the bias.

        Returns:
            One tensor [N, ...] for each slot.

        Raises:
            ValueError: The rows have another shape.

        Example:
            >>> layer = target.layers[0]                          # Conv2D(4, 3) on one channel
            >>> [t.shape for t in layer.assemble(tf.zeros([6, 4, 10]))]
            [TensorShape([6, 3, 3, 1, 4]), TensorShape([6, 4])]
        """
        row_shape = (rows.shape[1], rows.shape[2])
        if row_shape == (1, self.size):
            parts = tf.split(rows[:, 0], [slot.size for slot in self.slots], axis=-1)
            return [
                tf.reshape(part, [-1, *slot.shape])
                for part, slot in zip(parts, self.slots, strict=True)
            ]
        if row_shape != (self.filters, self.row_size):
            raise ValueError(
                f"Cannot assemble layer '{self.name}' from rows {tuple(rows.shape)}: it takes rows "
                f"[N, {self.filters}, {self.row_size}] or [N, 1, {self.size}]."
            )
        parts = tf.split(rows, [math.prod(slot.row) for slot in self.slots], axis=-1)
        weights = []
        for part, slot in zip(parts, self.slots, strict=True):
            tensor = tf.reshape(part, [-1, self.filters, *slot.row])  # [N, F, ...]
            order = list(range(2, len(slot.split) + 1))
            order.insert(slot.axis, 1)
            tensor = tf.transpose(tensor, [0, *order])
            weights.append(tf.reshape(tensor, [-1, *slot.shape]))
        return weights

    def rows(self, weights: list[tf.Tensor]) -> tf.Tensor:
        """Weight tensors as rows [N, F, row_size]: the inverse of `assemble`.

        Args:
            weights: One tensor [N, ...] for each slot.
        """
        parts = []
        for tensor, slot in zip(weights, self.slots, strict=True):
            tensor = tf.reshape(tensor, [-1, *slot.split])
            filter_axis = slot.axis + 1
            others = [axis for axis in range(1, len(slot.split) + 1) if axis != filter_axis]
            tensor = tf.transpose(tensor, [0, filter_axis, *others])  # [N, F, ...]
            parts.append(tf.reshape(tensor, [-1, self.filters, math.prod(slot.row)]))
        return tf.concat(parts, axis=-1)


# Layers whose weights belong together, because they make the same channels: a convolution or dense
# layer, and the batch normalisation that directly follows it.
Unit = tuple[WeightedLayer, ...]


# ---- reading the layers of a plan -----------------------------------------------------------


def describe_layers(operations: Sequence, trainable: Sequence) -> dict[int, WeightedLayer]:
    """Read the filters of the layers that own a target's trainable variables.

    Args:
        operations: The layers and operations of a plan.
        trainable: The target's trainable variables; each belongs to the first layer that has it.

    Returns:
        id of a layer -> its filters, for each layer that owns a variable.

    Raises:
        ValueError: A layer has a constraint, penalises its outputs, or has batch normalisation
            inside it; or no layer has a variable.
    """
    unowned = {id(v): index for index, v in enumerate(trainable)}
    layers = {}
    for operation in operations:
        _check_supported(operation)
        variables = getattr(operation, "trainable_variables", [])
        if any(id(v) in unowned for v in variables):
            layers[id(operation)] = layer = _describe(operation, unowned)
            for slot in layer.slots:
                del unowned[id(trainable[slot.index])]
    if unowned:
        raise ValueError("The model has weights that its outputs do not use: remove them.")
    return layers


def _check_supported(operation: Any) -> None:
    """Check that a layer can be part of a target; see `describe_layers`."""
    if isinstance(operation, keras.layers.SpectralNormalization):
        raise ValueError(
            f"Layer '{operation.name}' changes its weights as it trains, which generated weights "
            "do not: use the layer inside it."
        )
    if getattr(operation, "stateful", False):
        raise ValueError(
            f"Layer '{operation.name}' keeps its state between batches, which networks that are "
            "drawn anew do not: use stateful=False."
        )
    if getattr(operation, "metrics", None):
        raise ValueError(
            f"Layer '{operation.name}' has metrics, which are not reported: remove them, or return "
            "what they measure as an output."
        )
    if getattr(operation, "activity_regularizer", None):
        raise ValueError(
            f"Layer '{operation.name}' has an activity_regularizer, which is not supported: remove "
            "it. Regularizers of weights are supported."
        )
    variables = getattr(operation, "trainable_variables", [])
    if any(getattr(v, "constraint", None) for v in variables):
        raise ValueError(
            f"Layer '{operation.name}' has a constraint, which generated weights do not meet: "
            "remove it."
        )
    is_norm = isinstance(operation, keras.layers.BatchNormalization)
    if is_norm and operation.momentum >= 1:
        raise ValueError(
            f"Layer '{operation.name}' has momentum={operation.momentum:g}, with which its "
            "statistics never follow the data: give one below 1."
        )
    if is_norm and operation.renorm and operation.trainable:
        raise ValueError(
            f"Layer '{operation.name}' has renorm=True, which normalises by statistics of training "
            "steps before, and generated weights have none: use renorm=False."
        )
    state = getattr(operation, "non_trainable_variables", [])
    inside = operation._flatten_layers() if isinstance(operation, keras.Layer) else ()
    norms = [layer for layer in inside if isinstance(layer, keras.layers.BatchNormalization)]
    known = {id(v) for norm in norms for v in norm.variables}
    others = getattr(operation, "trainable", False) and any(
        v.name == "moving_variance" and id(v) not in known for v in state
    )
    if not is_norm and (others or any(norm.trainable for norm in norms)):
        raise ValueError(
            f"Layer '{operation.name}' has batch normalisation inside it, whose statistics cannot "
            "be computed for each network: make it a layer of the model itself."
        )


def _describe(layer: Any, indices: dict[int, int]) -> WeightedLayer:
    """Read the filters of one layer.

    Args:
        layer: A Keras layer with trainable variables.
        indices: id of a variable -> its index among the target's trainable variables. A variable
            that is not among them belongs to an earlier layer.
    """
    variables = [v for v in layer.trainable_variables if id(v) in indices]
    shapes = [tuple(v.shape) for v in variables]
    splits, axes = _split_into_filters(layer, [v.name for v in variables], shapes)
    slots = tuple(
        Slot(indices[id(v)], shape, split, axis, v.name, _initializer(layer, v))
        for v, shape, split, axis in zip(variables, shapes, splits, axes, strict=True)
    )
    return WeightedLayer(layer.name, slots, splits[0][axes[0]])


def _split_into_filters(
    layer: Any, names: list[str], shapes: list[tuple]
) -> tuple[list[tuple], list[int]]:
    """For each variable of a layer its `Slot.split` and `Slot.axis`."""
    kernel = kernel_axes(layer)
    if kernel is not None and names[0] == kernel.name:
        split, axis = shapes[0], range(len(shapes[0]))[kernel.filters]
        if kernel.depthwise:  # inputs and multiplier, two axes side by side, count the filters
            axis -= 1
            split = (*split[:axis], split[axis] * split[axis + 1], *split[axis + 2 :])
        if all(shape == (split[axis],) for shape in shapes[1:]):
            return [split, *shapes[1:]], [axis, *[0] * len(shapes[1:])]
    if traits_of(layer).vectors and all(len(shape) == 1 for shape in shapes):
        return shapes, [0] * len(shapes)
    # All weights together are one filter, on an axis of length one that is put in front.
    return [(1, *shape) for shape in shapes], [0] * len(shapes)


# ---- initializers ---------------------------------------------------------------------------


def _initializer(layer: Any, variable: Any) -> Any:
    """The initializer of a layer's variable, found by the names that Keras's layers give it."""
    name = variable.name
    kernel = kernel_axes(layer)
    if kernel is not None and kernel.depthwise and name == kernel.name:
        name = "depthwise"
    if name == "bias" and getattr(layer, "unit_forget_bias", False):
        if isinstance(layer.bias_initializer, keras.initializers.Zeros):
            gates = np.repeat([0.0, 1.0, 0.0, 0.0], variable.shape[0] // 4)  # ones: to forget
            return keras.initializers.Constant(gates)
        return keras.initializers.Constant(variable.numpy())
    for stem in (name, name.removesuffix("_kernel")):  # "recurrent_kernel", "pointwise_kernel"
        initializer = getattr(layer, f"{stem}_initializer", None)
        if initializer is not None:
            return keras.initializers.get(initializer)
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        if any(v is variable for v in inner.variables):
            return _initializer(inner, variable)
    return keras.initializers.Constant(variable.numpy())


def seeded(initializer: Any, *words: int) -> Any:
    """A copy of an initializer, whose random numbers are a function of integers.

    Args:
        initializer: A Keras initializer. One that draws no random numbers is returned as it is.
        *words: Integers that are not negative.
    """
    if not hasattr(initializer, "seed"):
        return initializer
    seed = int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)
    return type(initializer).from_config(initializer.get_config() | {"seed": seed})


# ---- units ----------------------------------------------------------------------------------


def channel_units(plan: Plan, weighted: dict[int, WeightedLayer]) -> tuple[Unit, ...]:
    """The weighted layers of a plan, each with the batch normalisation that directly follows it.

    Args:
        plan: The target's calls.
        weighted: id of an operation -> its filters, in the order of first calls.

    Returns:
        Units in the order of their first layers; all layers of a unit have the same number of
        filters.
    """
    num_readers = Counter(ref for call in plan.calls for ref in call.inputs)
    num_readers.update(keras.tree.flatten(plan.outputs))
    units: dict[int, list[WeightedLayer]] = {}
    for operation in plan.operations:
        layer = weighted.get(id(operation))
        if layer is None:
            continue
        before = _layer_before_norm(plan, operation, num_readers)
        if id(before) in units and units[id(before)][0].filters == layer.filters:
            units[id(before)].append(layer)
        else:
            units[id(operation)] = [layer]
    return tuple(tuple(unit) for unit in units.values())


def _layer_before_norm(plan: Plan, operation: Any, num_readers: Counter) -> Any:
    """The layer whose outputs only this batch normalisation reads; None if there is none."""
    if type(operation) is not keras.layers.BatchNormalization or plan.num_calls(operation) != 1:
        return None
    (call,) = (call for call in plan.calls if call.operation is operation)
    ref = call.inputs[0]
    maker = plan.maker(ref)
    if maker is None or num_readers[ref] != 1 or type(maker.operation) is keras.layers.Embedding:
        return None
    rank = len(plan.shapes[ref]) + 1  # shapes are without the batch
    channels = rank - 1 if channels_last(maker.operation) else 1
    if operation.axis not in (channels, channels - rank):
        return None
    return maker.operation if plan.num_calls(maker.operation) == 1 else None
