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
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.targets.graph import Plan


@dataclasses.dataclass(frozen=True)
class Slot:
    """One trainable variable of a layer, as its filters see it.

    Attributes:
        index: its place among the target's trainable variables.
        shape: its shape.
        split: its shape with the filters on one axis; differs from `shape` only where filters are
            counted by two axes (input channel and multiplier of a depthwise convolution).
        axis: which axis of `split` counts the filters.
        name: what its layer calls it: "kernel", "bias", "gamma", ...
        initializer: the Keras initializer of the user's model, for those who train the weights.
            Where its layer does not tell, one that returns the model's own values.
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
        """How many numbers the variable holds."""
        return math.prod(self.shape)

    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation of what the initializer draws."""
        drawn = np.asarray(self.initializer(self.shape, dtype="float32"), np.float64)
        return float(drawn.mean()), float(drawn.std())


@dataclasses.dataclass(frozen=True)
class WeightedLayer:
    """A layer whose weights are generated.

    Attributes:
        name: the Keras layer's name.
        slots: its trainable variables.
        filters: F, how many filters it has.
        row_size: how many weights one filter has.
    """

    name: str
    slots: tuple[Slot, ...]
    filters: int

    @property
    def row_size(self) -> int:
        """The number of weights of one filter, bias included."""
        return self.size // self.filters

    @property
    def size(self) -> int:
        """The number of weights of the layer."""
        return sum(slot.size for slot in self.slots)

    def assemble(self, rows: tf.Tensor) -> list[tf.Tensor]:
        """Generated rows as weight tensors.

        Args:
            rows: [N, F, row_size], or [N, 1, size]: the whole layer as one row, which is the kernel
                flattened in its own order, then the bias.

        Returns:
            One tensor [N, ...] for each slot.

        Raises:
            ValueError: the rows have another shape.

        Example:
            >>> layer = target.layers[0]                          # Conv2D(4, 3) on one channel
            >>> [t.shape for t in layer.assemble(tf.zeros([6, 4, 10]))]
            [TensorShape([6, 3, 3, 1, 4]), TensorShape([6, 4])]
        """
        shape = (rows.shape[1], rows.shape[2])
        if shape == (1, self.size):
            parts = tf.split(rows[:, 0], [math.prod(slot.shape) for slot in self.slots], axis=-1)
            return [
                tf.reshape(part, [-1, *slot.shape])
                for part, slot in zip(parts, self.slots, strict=True)
            ]
        if shape != (self.filters, self.row_size):
            raise ValueError(
                f"layer '{self.name}' is made of rows [N, {self.filters}, {self.row_size}] or "
                f"[N, 1, {self.size}], not {tuple(rows.shape)}"
            )
        parts = tf.split(rows, [math.prod(slot.row) for slot in self.slots], axis=-1)
        weights = []
        for part, slot in zip(parts, self.slots, strict=True):
            tensor = tf.reshape(part, [-1, self.filters, *slot.row])  # [N, F, ...]
            rank = len(slot.split)
            order = list(range(2, rank + 1))
            order.insert(slot.axis, 1)
            tensor = tf.transpose(tensor, [0, *order])
            weights.append(tf.reshape(tensor, [-1, *slot.shape]))
        return weights

    def rows(self, weights: list[tf.Tensor]) -> tf.Tensor:
        """Weight tensors as rows [N, F, row_size]: the inverse of `assemble`.

        Args:
            weights: one tensor [N, ...] for each slot.
        """
        parts = []
        for tensor, slot in zip(weights, self.slots, strict=True):
            tensor = tf.reshape(tensor, [-1, *slot.split])
            rank = len(slot.split)
            order = [axis for axis in range(1, rank + 1) if axis != slot.axis + 1]
            tensor = tf.transpose(tensor, [0, slot.axis + 1, *order])  # [N, F, ...]
            parts.append(tf.reshape(tensor, [-1, self.filters, math.prod(slot.row)]))
        return tf.concat(parts, axis=-1)


# Layers whose weights belong together, because they make the same channels: a convolution or dense
# layer, and the batch normalisation that directly follows it.
Unit = tuple[WeightedLayer, ...]

_CHANNELS_LAST_KERNEL = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
)
_TRANSPOSED_KERNEL = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)
_DEPTHWISE_KERNEL = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
_VECTORS = (
    keras.layers.BatchNormalization,
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)


def _describe(layer: Any, indices: dict[int, int]) -> WeightedLayer:
    """Read the filters of a layer.

    Args:
        layer: a Keras layer with trainable variables.
        indices: id of a variable -> its place among the target's trainable variables. A variable
            that is not among them belongs to an earlier layer.
    """
    variables = [v for v in layer.trainable_variables if id(v) in indices]
    shapes = [tuple(v.shape) for v in variables]
    splits, axes = list(shapes), [0] * len(shapes)
    kind = type(layer)
    names = [v.name for v in variables]
    if kind in _CHANNELS_LAST_KERNEL and names in (["kernel", "bias"], ["kernel"]):
        axes[0] = len(shapes[0]) - 1
    elif kind in _TRANSPOSED_KERNEL and names in (["kernel", "bias"], ["kernel"]):
        axes[0] = len(shapes[0]) - 2
    elif kind in _DEPTHWISE_KERNEL and names in (["kernel", "bias"], ["kernel"]):
        splits[0] = (*shapes[0][:-2], shapes[0][-2] * shapes[0][-1])
        axes[0] = len(splits[0]) - 1
    elif not (
        (kind in _VECTORS and all(len(s) == 1 for s in shapes)) or kind is keras.layers.Embedding
    ):
        # No filters of its own: a single filter, on an axis of length one put in front.
        splits = [(1, *shape) for shape in shapes]
    slots = tuple(
        Slot(indices[id(v)], shape, split, axis, v.name, _initializer(layer, v))
        for v, shape, split, axis in zip(variables, shapes, splits, axes, strict=True)
    )
    return WeightedLayer(layer.name, slots, splits[0][axes[0]])


def _initializer(layer: Any, variable: Any) -> Any:
    """The initializer of a layer's variable, by the names that Keras's layers give it."""
    name = variable.name
    if name == "kernel" and type(layer) in _DEPTHWISE_KERNEL:
        name = "depthwise"
    if name == "bias" and getattr(layer, "unit_forget_bias", False):
        return keras.initializers.Constant(variable.numpy())  # of two kinds: ones to forget by
    for known in (name, name.removesuffix("_kernel")):  # "recurrent_kernel", "pointwise_kernel"
        given = getattr(layer, f"{known}_initializer", None)
        if given is not None:
            return keras.initializers.get(given)
    for inner in vars(layer).values():
        if isinstance(inner, keras.Layer) and any(v is variable for v in inner.variables):
            return _initializer(inner, variable)
    return keras.initializers.Constant(variable.numpy())


def seeded(initializer: Any, *words: int) -> Any:
    """An initializer like another, whose random numbers are a function of integers.

    Args:
        initializer: a Keras initializer; one that draws nothing is returned as it is.
        *words: not negative.
    """
    if not hasattr(initializer, "seed"):
        return initializer
    seed = int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)
    return type(initializer).from_config(initializer.get_config() | {"seed": seed})


def describe_layers(operations: list[Any], trainable: list[Any]) -> dict[int, WeightedLayer]:
    """Read the filters of the layers that share out the trainable variables among them.

    Args:
        operations: the layers and operations of a plan.
        trainable: the target's trainable variables; each belongs to the first layer that has it.

    Returns:
        id of a layer -> its filters, for each layer that owns a variable.

    Raises:
        ValueError: a layer has a regularizer, a constraint, or batch normalisation inside it; or no
            layer has a variable.
    """
    indices = {id(v): index for index, v in enumerate(trainable)}
    layers = {}
    for operation in operations:
        variables = getattr(operation, "trainable_variables", [])
        regularizers = [getattr(v, "regularizer", None) for v in variables]
        if any(regularizers) or getattr(operation, "activity_regularizer", None):
            raise ValueError(
                f"layer '{operation.name}' has a regularizer, which acts on trained weights; "
                "remove it, and give the sampler a prior instead"
            )
        if any(getattr(v, "constraint", None) for v in variables):
            raise ValueError(
                f"layer '{operation.name}' has a constraint, which generated weights do not meet: "
                "remove it"
            )
        own_norm = isinstance(operation, keras.layers.BatchNormalization)
        state = getattr(operation, "non_trainable_variables", [])
        if variables and not own_norm and any(v.name == "moving_variance" for v in state):
            raise ValueError(
                f"layer '{operation.name}' has batch normalisation inside it, whose statistics "
                "could not be computed for each network: make it a layer of the model itself"
            )
        if any(id(v) in indices for v in variables):
            layers[id(operation)] = layer = _describe(operation, indices)
            for slot in layer.slots:
                del indices[id(trainable[slot.index])]
    if indices:
        raise ValueError("the model has weights that its outputs do not use: remove them")
    return layers


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
