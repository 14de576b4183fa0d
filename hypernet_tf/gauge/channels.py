"""Which channels of a target belong together, read off its plan.

Every channel that a layer makes has a number, its *id*, and every tensor carries the ids of its
last axis. Layers that treat each channel by itself pass ids on; a flatten repeats them for every
pixel; a concatenation appends them; a sum ties them, place by place, in a union-find. What a
channel means to anything else (an output, an unknown layer, a layer called twice) may not change:
its id is tied to `HELD`. Channels that zero padding adds are `ZERO`: they stay zero whatever is
done to their neighbours, and tie nothing.
"""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np

from hypernet_tf.targets.filters import Slot
from hypernet_tf.targets.graph import Call, Ref
from hypernet_tf.targets.target import Target

HELD, ZERO = 0, -1

WEIGHTED = (
    keras.layers.Dense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
)
# Layers through which a channel's positive scale passes, channels staying on the last axis.
HOMOGENEOUS = (
    keras.layers.LeakyReLU,
    keras.layers.Identity,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalMaxPooling3D,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalAveragePooling3D,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.ZeroPadding3D,
    keras.layers.Cropping1D,
    keras.layers.Cropping2D,
    keras.layers.Cropping3D,
    keras.layers.UpSampling1D,
    keras.layers.UpSampling2D,
    keras.layers.UpSampling3D,
)
HOMOGENEOUS_ACTIVATIONS = (
    keras.activations.linear,
    keras.activations.relu,
    keras.activations.leaky_relu,
)
# Of several tensors one, place by place: f(s·x, s·y) = s·f(x, y) for s > 0.
MERGES = (
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
)


def homogeneous(layer: Any) -> bool:
    """Whether f(s·x) = s·f(x) for s > 0, channel by channel, channels last."""
    if getattr(layer, "data_format", None) == "channels_first":
        return False
    if type(layer) is keras.layers.ReLU or is_operation(layer, "ReLU"):
        return layer.max_value is None and not layer.threshold
    if type(layer) is keras.layers.Activation:
        return layer.activation in HOMOGENEOUS_ACTIVATIONS
    return type(layer) in HOMOGENEOUS or is_operation(layer, "Relu")


def is_operation(operation: Any, *names: str) -> bool:
    """Whether a call is of a function of Keras, as `x + y` or `keras.ops.relu`, by their names."""
    kind = type(operation)  # of which Keras exports only the function
    return kind.__name__ in names and kind.__module__ in (
        "keras.src.ops.numpy",
        "keras.src.ops.nn",
        "keras.src.activations.activations",
    )


def is_weighted(target: Target, layer: Any) -> bool:
    """Whether a layer's whole kernel and bias are generated, and used in one place only."""
    described = target.weighted(layer)
    return (
        type(layer) in WEIGHTED
        and described is not None
        and len(described.slots) == len(layer.weights)
        and target.plan.count(layer) == 1
        and getattr(layer, "data_format", None) != "channels_first"
        and getattr(layer, "groups", 1) == 1
    )


def is_flatten(target: Target, call: Call) -> bool:
    """Whether a call puts all numbers of an example in one row, channels being the last axis."""
    layer = call.operation
    if type(layer) is keras.layers.Flatten:
        return layer.data_format != "channels_first"
    return type(layer) is keras.layers.Reshape and len(target.plan.shapes[call.outputs]) == 1


def input_axis(layer: Any, kernel: Slot) -> int:
    """The axis of a weighted layer's kernel [N, ...] on which it reads its input's channels."""
    return len(kernel.shape) + 1 - (1 if "Transpose" in type(layer).__name__ else 2)


class Channels:
    """The ids of every tensor of a plan; what makes and reads them is a subclass's.

    Args:
        target: the `Target`.
    """

    merges: tuple[type, ...] = MERGES
    operations: tuple[str, ...] = ("Add", "Subtract", "Maximum", "Minimum")

    def __init__(self, target: Target):
        self.target = target
        self._parents = [HELD]
        self._ids: dict[Ref, np.ndarray] = {}
        for call in target.plan.calls:
            self._read(call)
        for ref in keras.tree.flatten(target.plan.outputs):
            self._hold(ref)
        self._classes = np.array([self._find(own) for own in range(len(self._parents))] + [ZERO])

    # ---- what a subclass says ---------------------------------------------------------------

    def passes(self, layer: Any) -> bool:
        """Whether a layer of one input treats each channel by itself, in the way that matters."""
        raise NotImplementedError

    def weighted(self, call: Call, ids: np.ndarray) -> np.ndarray | None:
        """Note what a weighted layer reads; returns what it makes, None to hold what it reads."""
        raise NotImplementedError

    def norm(self, call: Call, ids: np.ndarray) -> np.ndarray | None:
        """The same of a batch normalisation."""
        raise NotImplementedError

    # ---- ids --------------------------------------------------------------------------------

    def new(self, count: int) -> np.ndarray:
        """Ids that nothing has yet."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def classes(self, ids: np.ndarray) -> np.ndarray:
        """For each id the one that stands for all that are tied to it: `HELD`, `ZERO` or another.

        Known when the whole plan is read.
        """
        return self._classes[ids]

    def of(self, ref: Ref) -> np.ndarray | None:
        """The ids of a tensor; None where it has no last axis of a fixed size."""
        shape = self.target.plan.shapes[ref]
        if not shape or shape[-1] is None:
            return None
        return self._ids.get(ref, np.full(shape[-1], HELD))

    def _find(self, own: int) -> int:
        while self._parents[own] != own:
            self._parents[own] = own = self._parents[self._parents[own]]
        return own

    def _tie(self, first: int, second: int) -> None:
        low, high = sorted((self._find(first), self._find(second)))
        self._parents[high] = low  # so that what is tied to HELD, which is 0, finds HELD

    def _hold(self, ref: Ref) -> None:
        for own in self._ids.get(ref, []):
            if own != ZERO:
                self._tie(own, HELD)

    # ---- calls ------------------------------------------------------------------------------

    def _read(self, call: Call) -> None:
        ids = self._outputs(call)
        if ids is None:
            for ref in call.inputs:
                self._hold(ref)
        elif isinstance(call.outputs, Ref):
            self._ids[call.outputs] = ids

    def _outputs(self, call: Call) -> np.ndarray | None:
        """The ids of what a call returns; None: nothing is known of it, its inputs are held."""
        layer, found = call.operation, [self.of(ref) for ref in call.inputs]
        inputs = [ids for ids in found if ids is not None]
        if not inputs or len(inputs) < len(found) or call.reads_constants:
            return None
        if len(inputs) == 1:
            return self._of_one(call, inputs[0])
        if type(layer) is keras.layers.Concatenate:
            rank = len(self.target.plan.shapes[call.inputs[0]])
            if layer.axis in (-1, rank):
                return np.concatenate(inputs)
            return self._merged(call, inputs)
        if type(layer) in self.merges or is_operation(layer, *self.operations):
            return self._merged(call, inputs)
        return None

    def _of_one(self, call: Call, ids: np.ndarray) -> np.ndarray | None:
        layer = call.operation
        shape: Any = self.target.plan.shapes[call.inputs[0]]
        if is_weighted(self.target, layer):
            return self.weighted(call, ids)
        if self.is_norm(call):
            return self.norm(call, ids)
        if type(layer) is keras.layers.ZeroPadding2D and layer.data_format == "channels_first":
            # Which axes are padded, no more: the channels of these tensors are on the last one.
            before, after = layer.padding[1]
            return np.pad(ids, (before, after), constant_values=ZERO)
        if is_flatten(self.target, call):
            return None if None in shape else np.tile(ids, math.prod(shape[:-1]))
        return ids if self.passes(layer) else None

    def _merged(self, call: Call, inputs: list) -> np.ndarray | None:
        """The ids of tensors that are tied place by place; None where places are not opposite."""
        shapes = {len(self.target.plan.shapes[ref]) for ref in call.inputs}
        if len(shapes) > 1 or len({len(ids) for ids in inputs}) > 1:
            return None
        merged = inputs[0].copy()
        for ids in inputs[1:]:
            for first, second in zip(merged, ids, strict=True):
                if first not in (ZERO, second) and second != ZERO:
                    self._tie(first, second)
            merged = np.where(merged == ZERO, ids, merged)
        return merged

    def is_norm(self, call: Call) -> bool:
        """Whether a call is a batch normalisation of the last axis, in use once and trained."""
        layer = call.operation
        described = self.target.weighted(layer)
        return (
            type(layer) is keras.layers.BatchNormalization
            and layer.trainable
            and not layer.renorm
            and layer.axis in (-1, len(self.target.plan.shapes[call.inputs[0]]))
            and self.target.plan.count(layer) == 1
            and layer.scale + layer.center == (len(described.slots) if described else 0)
        )
