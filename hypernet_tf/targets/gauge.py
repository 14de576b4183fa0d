"""Symmetries of a target, read off its plan, and the weights that stand for all their equals.

Many weight sets compute the same function. Diversity must not count them as different, so one of
them is chosen: the *gauge* is fixed (Deutsch et al. 2019, section 3.2). Two symmetries are known
here:

* **Scale.** Between two weighted layers stand only positively homogeneous steps (f(s·x) = s·f(x)
  for s > 0: ReLU, leaky ReLU, pooling, flatten, dropout). Then a filter, its kernel slice and its
  bias, may be multiplied by s if each consumer's weights on that channel are divided by s. Fixed by
  making the mean square of each filter's elements, bias included, equal to one.
* **Softmax.** The same number added to all logit biases changes nothing. Fixed by making them sum
  to zero.

Channels whose scale is tied or not free (the output, non-homogeneous activations, layers called
twice, frozen layers, anything not listed) are left alone.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.targets.filters import WeightedLayer
from hypernet_tf.targets.networks import WeightSet
from hypernet_tf.targets.plan import Call, Ref
from hypernet_tf.targets.target import Target

_WEIGHTED = (
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
_HOMOGENEOUS = (
    keras.layers.LeakyReLU,
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
_HOMOGENEOUS_ACTIVATIONS = (
    keras.activations.linear,
    keras.activations.relu,
    keras.activations.leaky_relu,
)


@dataclasses.dataclass
class ScaleGroup:
    """Channels that share one free scale.

    Attributes:
        producers: the layers whose filters make the channels. More than one: their scales are tied,
            as the branches of a sum are.
        consumers: what reads the channels, as (variable index, view, axis): the variable, reshaped
            to `view`, has the channels on `axis`.
        free: whether nothing forbids to change the scale.
    """

    producers: list[WeightedLayer]
    consumers: list[tuple[int, tuple[int, ...], int]] = dataclasses.field(default_factory=list)
    free: bool = True


def homogeneous(layer: keras.Layer) -> bool:
    """Whether f(s·x) = s·f(x) for s > 0, channel by channel, channels last."""
    if getattr(layer, "data_format", None) == "channels_first":
        return False
    if type(layer) is keras.layers.ReLU:
        return layer.max_value is None and not layer.threshold
    if type(layer) is keras.layers.Activation:
        return layer.activation in _HOMOGENEOUS_ACTIVATIONS
    return type(layer) in _HOMOGENEOUS


class _Reader:
    """Walks a plan and groups channels by the scale that they share."""

    def __init__(self, target: Target):
        self.target = target
        self.groups: list[ScaleGroup] = []
        # Where the channels of a tensor come from: their group, and how many places in a row of the
        # last axis each channel has (1, or the number of pixels after a flatten).
        self.channels: dict[Ref, tuple[ScaleGroup, int]] = {}
        for call in target.plan.calls:
            self._read(call)
        for ref in keras.tree.flatten(target.plan.outputs):
            self._hold(ref)

    def _hold(self, ref: Ref) -> None:
        if ref in self.channels:
            self.channels[ref][0].free = False

    def _read(self, call: Call) -> None:
        operation, inputs = call.operation, call.inputs
        if len(inputs) == 1 and self.is_weighted(operation):
            self._consume(operation, inputs[0])
            if operation.activation in _HOMOGENEOUS_ACTIVATIONS:
                group = ScaleGroup([self.target.weighted(operation)])
                self.groups.append(group)
                self.channels[call.outputs] = (group, 1)
        elif len(inputs) == 1 and homogeneous(operation):
            if inputs[0] in self.channels:
                self.channels[call.outputs] = self.channels[inputs[0]]
        elif type(operation) is keras.layers.Flatten and operation.data_format != "channels_first":
            if inputs[0] in self.channels:
                group, repeats = self.channels[inputs[0]]
                pixels: tuple[Any, ...] = self.target.plan.shapes[inputs[0]][:-1]
                if None in pixels:
                    self._hold(inputs[0])
                else:
                    self.channels[call.outputs] = (group, repeats * math.prod(pixels))
        else:
            for ref in inputs:
                self._hold(ref)

    def is_weighted(self, layer: keras.Layer) -> bool:
        """Whether a layer's whole kernel and bias are generated, and used in one place only."""
        described = self.target.weighted(layer)
        return (
            type(layer) in _WEIGHTED
            and described is not None
            and len(described.slots) == len(layer.weights)
            and self.target.plan.count(layer) == 1
            and getattr(layer, "data_format", None) != "channels_first"
            and getattr(layer, "groups", 1) == 1
        )

    def _consume(self, layer: keras.Layer, ref: Ref) -> None:
        if ref not in self.channels:
            return
        group, repeats = self.channels[ref]
        slot = self.target.weighted(layer).slots[0]
        if type(layer) is keras.layers.Dense:
            view = (repeats, slot.shape[0] // repeats, slot.shape[1])
            group.consumers.append((slot.index, view, 1))
        elif repeats != 1:
            group.free = False
        else:
            transposed = "Transpose" in type(layer).__name__
            axis = len(slot.shape) - (1 if transposed else 2)
            group.consumers.append((slot.index, slot.shape, axis))


def _along(scale: tf.Tensor, view: tuple[int, ...], axis: int) -> tf.Tensor:
    """[N, C] with its channels on `axis` of [N, *view], broadcastable."""
    return tf.reshape(
        scale, [-1, *(size if place == axis else 1 for place, size in enumerate(view))]
    )


class Gauge:
    """Fixes the symmetries of a target; applies to any weight set of it.

    Args:
        target: the `Target`.
        epsilon: added twice, as in the published program: s = sqrt(mean square + epsilon), filters
            divided by s + epsilon, consumers multiplied by s. 1e-8 reproduces the program; it is
            noticeable where weights are small (a mean square of 1e-8 and less). 0 is exact, but
            makes NaN of a filter whose weights are all zero.

    Attributes:
        scales: the free scales (`ScaleGroup`), first layer first, in the order in which they are
            fixed.
        softmax_bias: the index of the variable with the logit biases, or None.

    Example:
        >>> gauge = Gauge(target, epsilon=0.0)
        >>> fixed = gauge(weights)
        >>> tf.reduce_mean(target.rows(fixed.trainable)[0] ** 2, -1)     # all ones

    Reference: Deutsch, Nijkamp, Yang (2019), section 3.2. The published program subtracts the sum
    of the logit biases; their mean, which is what makes the sum zero, is subtracted here.
    """

    def __init__(self, target: Target, *, epsilon: float = 1e-8):
        if epsilon < 0:
            raise ValueError(f"the gauge's epsilon is not negative, not {epsilon}")
        reader = _Reader(target)
        self.epsilon = epsilon
        self.scales = tuple(group for group in reader.groups if group.free and group.consumers)
        self.softmax_bias = _logit_bias(target, reader)

    def __call__(self, weights: WeightSet) -> WeightSet:
        """The equivalent weight set in the fixed gauge; state is unchanged."""
        trainable = list(weights.trainable)
        for group in self.scales:
            self._fix_scale(group, trainable)
        if self.softmax_bias is not None:
            bias = trainable[self.softmax_bias]
            trainable[self.softmax_bias] = bias - tf.reduce_mean(bias, -1, keepdims=True)
        return WeightSet(trainable, weights.state)

    def _fix_scale(self, group: ScaleGroup, trainable: list[tf.Tensor]) -> None:
        rows = [layer.rows([trainable[s.index] for s in layer.slots]) for layer in group.producers]
        mean_square = tf.reduce_mean(tf.concat(rows, -1) ** 2, -1)  # [N, F]
        scale = tf.sqrt(mean_square + self.epsilon)
        for slot in (slot for layer in group.producers for slot in layer.slots):
            tensor = tf.reshape(trainable[slot.index], [-1, *slot.split])
            tensor /= _along(scale + self.epsilon, slot.split, slot.axis)
            trainable[slot.index] = tf.reshape(tensor, [-1, *slot.shape])
        for index, view, axis in group.consumers:
            tensor = trainable[index]
            scaled = tf.reshape(tensor, [-1, *view]) * _along(scale, view, axis)
            trainable[index] = tf.reshape(scaled, [-1, *tensor.shape[1:]])


def _logit_bias(target: Target, reader: _Reader) -> int | None:
    """The variable that is added to the logits of a softmax, if the target has exactly one."""
    if target.outputs == "values" or target.classes is None:
        return None
    ref = target.plan.outputs
    if not isinstance(ref, Ref) or target.plan.shapes[ref][-1] == 1:
        return None
    call, softmax = target.plan.maker(ref), target.outputs == "logits"
    while call is not None and target.weighted(call.operation) is None:
        if type(call.operation) not in (keras.layers.Softmax, keras.layers.Activation):
            return None
        if not _is_softmax(call.operation) and not _is_linear(call.operation):
            return None
        softmax = softmax or _is_softmax(call.operation)
        call = target.plan.maker(call.inputs[0])
    if call is None or not reader.is_weighted(call.operation):
        return None
    layer = call.operation
    softmax = softmax or _is_softmax(layer)
    if not softmax or not layer.use_bias or not (_is_softmax(layer) or _is_linear(layer)):
        return None
    return target.weighted(layer).slots[1].index


def _is_softmax(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    return type(layer) is keras.layers.Softmax or activation is keras.activations.softmax


def _is_linear(layer: Any) -> bool:
    return getattr(layer, "activation", None) is keras.activations.linear
