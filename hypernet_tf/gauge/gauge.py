"""Fixing the symmetries of a target: one weight set represents all that compute the same function.

Many weight sets compute the same function. Diversity must not count them as different, so one of
them is chosen: the *gauge* is fixed (Deutsch et al. 2019, section 3.2). Known symmetries:

* **Scale.** Where only positively homogeneous layers (f(s·x) = s·f(x) for s > 0: ReLU, leaky ReLU,
  pooling, flatten, dropout) stand between a layer and its readers, a filter, its kernel slice and
  its bias, may be multiplied by s if each reader's weights on that channel are divided by s. Fixed
  by making the mean square of each filter's elements, bias included, equal to one.
* **Scale in sums.** A sum of channels, or their mean or maximum, ties the scales of its branches.
  The mean square of the *first* filter that makes such a channel is made one; the others share its
  scale. Layers are fixed in the order in which they run. A filter's size depends on the scales of
  what it reads, which are fixed by then, so one pass is exact, and a second one changes nothing.
  If all branches of a residual network together had a mean square of one, a scale would depend on
  scales that depend on it, because the branches read the very sum that they add to. That has no
  closed form.
* **Batch normalisation** takes away what is before it: the scale of the filters, and the bias of
  a layer directly before it. That bias is made zero, the filters get a mean square of one, and the
  moving statistics follow, so that inference stays the same. gamma and beta are the filters of new
  channels. With statistics of a batch, or computed anew, this is exact up to the normalisation's
  own epsilon, which Keras adds to the variance of the scaled channels: it counts where the variance
  of a channel, before or after, is not much larger.
* **Softmax.** The same number added to all logit biases changes nothing. Fixed by making their sum
  zero, for each output that ends in a softmax, or whose loss has one if all outputs are classes. As
  an option the same for the last kernel, where a number may be added for every input.
* **Permutation**, as an option: `hypernet_tf.gauge.permutation`.

Channels that are not free (the output, non-homogeneous activations, layers called twice, frozen
layers, layers without traits in `hypernet_tf.targets.layers`) keep their weights.

Two symmetries are not fixed, so that the entropy of the weights can grow along them: the scale of a
layer before layer, group or RMS normalisation, and the mean of logits beside an output of another
kind.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.gauge.channels import HELD, is_depthwise, is_weighted, keeps_channels
from hypernet_tf.gauge.permutation import Permutation
from hypernet_tf.gauge.scales import Lookup, Scales, Step
from hypernet_tf.targets.filters import WeightedLayer
from hypernet_tf.targets.graph import Call, Ref
from hypernet_tf.targets.outputs import is_softmax
from hypernet_tf.targets.target import Target
from hypernet_tf.targets.weights import WeightSet


class Gauge:
    """Fixes the symmetries of a target; applies to any weight set of it.

    Args:
        target: The `Target`.
        epsilon: Number that is added twice, as in the published program: s = sqrt(mean square +
            epsilon), filters divided by s + epsilon, readers multiplied by s. 1e-8 reproduces the
            program; it is noticeable where a filter's mean square is below 1e-6. 0 is
            exact, but makes NaN of a filter whose weights are all zero.
        softmax: Whether logits go through a softmax, which leaves out their mean: the mean of the
            last biases is made zero. Losses of one class against the rest do not leave it out.
        softmax_kernel: Whether the last kernel's sums over classes are made zero too.
        permutation: Whether hidden filters are sorted.

    Attributes:
        steps: The layers that make or read channels with a free scale (`Step`), in the order in
            which they are fixed.
        softmax_biases: The indices of the variables with logit biases, one for each output at most.
        softmax_kernels: The indices of the last kernels that are fixed.

    Raises:
        ValueError: A negative epsilon, or a layer that breaks what its traits promise.

    Example:
        >>> gauge = Gauge(target, epsilon=0.0)
        >>> fixed = gauge(weights)
        >>> tf.reduce_mean(target.rows(fixed.trainable)[0] ** 2, -1)     # all ones

    Reference: Deutsch, Nijkamp, Yang (2019), section 3.2. The published program subtracts the sum
    of the logit biases; their mean, which is what makes the sum zero, is subtracted here.
    """

    def __init__(
        self,
        target: Target,
        *,
        epsilon: float = 1e-8,
        softmax: bool = True,
        softmax_kernel: bool = False,
        permutation: bool = False,
    ):
        if not 0 <= epsilon < math.inf:
            raise ValueError(f"The gauge's epsilon is {epsilon}: give a number from 0.")
        self.epsilon = epsilon
        self.steps: tuple[Step, ...] = Scales(target).steps
        leaders: dict[int, tuple[int, int]] = {}  # class -> step and filter that fix its scale
        for number, step in enumerate(self.steps):
            for index, channel in enumerate(step.makes):
                if channel > HELD:
                    leaders.setdefault(channel, (number, index))
        sizes = [len(step.makes) for step in self.steps]
        lookups: dict[bytes, Lookup] = {}  # the layers of a residual group share theirs

        def lookup(channels: np.ndarray) -> Lookup:
            key = channels.tobytes()
            if key not in lookups:
                lookups[key] = Lookup.of(channels, leaders, sizes)
            return lookups[key]

        self._reads = [lookup(step.reads) for step in self.steps]
        self._makes = [lookup(step.makes) for step in self.steps]
        self._leading_steps = {number for number, _ in leaders.values()}
        self._fix_permutation = Permutation(target) if permutation else None
        class_axes: dict[int, int] = {}  # index of a kernel -> its axis of classes
        self.softmax_biases: list[int] = []
        for last in _logit_layers(target) if softmax else ():
            kernel, *bias = target.weighted(last).slots
            self.softmax_biases += [slot.index for slot in bias]
            # A depthwise filter does not read the channels that the other classes' filters read.
            if softmax_kernel and not is_depthwise(last):
                class_axes[kernel.index] = kernel.axis + 1
        self.softmax_kernels = list(class_axes)
        self._means = class_axes | dict.fromkeys(self.softmax_biases, -1)

    def __call__(self, weights: WeightSet) -> WeightSet:
        """The equivalent weight set in the fixed gauge.

        Only the moving statistics of batch normalisation change in the state.

        Args:
            weights: A weight set of the target; it is not changed.
        """
        trainable, state = ([tf.convert_to_tensor(w) for w in part] for part in weights)
        self._fix_scales(trainable, state)
        for index, axis in self._means.items():
            trainable[index] -= tf.reduce_mean(trainable[index], axis, keepdims=True)
        if self._fix_permutation is not None:
            self._fix_permutation(trainable, state)
        return WeightSet(trainable, state)

    def _fix_scales(self, trainable: list[tf.Tensor], state: list[tf.Tensor]) -> None:
        scales: dict[int, tf.Tensor] = {}  # number of a step -> [N, F]
        channel_scales: dict[int, tf.Tensor | None] = {}  # id of a lookup -> its scales [N, C]
        biases: dict[int, tf.Tensor] = {}  # those that batch normalisation takes away

        def look_up(lookup: Lookup) -> tf.Tensor | None:
            if id(lookup) not in channel_scales:
                channel_scales[id(lookup)] = lookup(scales)
            return channel_scales[id(lookup)]

        for number, step in enumerate(self.steps):
            reads, makes = self._reads[number], self._makes[number]
            read_scales = look_up(reads)  # [N, C]
            if step.statistics is None:
                if read_scales is not None:
                    index = step.layer.slots[0].index
                    rank = trainable[index].shape.rank
                    trainable[index] *= _along(read_scales, step.axis, rank)
                if step.shift is not None:
                    biases[step.shift] = trainable[step.shift]
                    trainable[step.shift] = tf.zeros_like(trainable[step.shift])
            else:
                mean, variance = step.statistics
                dtype = state[mean].dtype  # the layer's own
                if step.shift is not None:
                    state[mean] -= tf.cast(biases[step.shift], dtype)
                if read_scales is not None:
                    divisor = tf.cast(read_scales + self.epsilon * reads.free, dtype)
                    state[mean] /= divisor
                    # variance + epsilon is what scales; the variance itself may become negative.
                    total = state[variance] + step.epsilon
                    state[variance] = total / tf.square(divisor) - step.epsilon
            if number in self._leading_steps:
                scales[number] = tf.sqrt(_mean_square(step.layer, trainable) + self.epsilon)
            made_scales = look_up(makes)
            if made_scales is not None:
                _divide(step.layer, trainable, made_scales + self.epsilon * makes.free)


def _along(scales: tf.Tensor, axis: int, rank: int) -> tf.Tensor:
    """Scales [N, C] with their channels on an axis of a tensor of a rank, broadcastable."""
    if rank == 2:
        return scales
    return tf.reshape(scales, [-1, *(scales.shape[1] if a == axis else 1 for a in range(1, rank))])


def _split(tensor: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """[N, ...] as [N, *shape]."""
    return tensor if tuple(tensor.shape[1:]) == shape else tf.reshape(tensor, [-1, *shape])


def _mean_square(layer: WeightedLayer, trainable: list[tf.Tensor]) -> tf.Tensor:
    """The mean square [N, F] of each filter's weights."""
    total = 0.0
    for slot in layer.slots:
        tensor = _split(trainable[slot.index], slot.split)
        others = [axis for axis in range(1, len(tensor.shape)) if axis != slot.axis + 1]
        total = total + tf.reduce_sum(tf.square(tensor), others)
    return total / layer.row_size


def _divide(layer: WeightedLayer, trainable: list[tf.Tensor], divisor: tf.Tensor) -> None:
    """Divide each filter by its divisor [N, F]."""
    inverse = tf.math.reciprocal(divisor)
    for slot in layer.slots:
        tensor = _split(trainable[slot.index], slot.split)
        tensor *= _along(inverse, slot.axis + 1, len(tensor.shape))
        trainable[slot.index] = _split(tensor, slot.shape)


# ---- the layer before a softmax -------------------------------------------------------------


def _logit_layers(target: Target) -> list[Any]:
    """The layers that make the logits of a softmax which nothing else reads, one of each output."""
    outputs = keras.tree.flatten(target.plan.outputs)
    if target.has_labels or (target.outputs == "values" and len(outputs) == 1):
        return []
    readers = Counter([*outputs, *(ref for call in target.plan.calls for ref in call.inputs)])
    layers = [_logit_layer(target, ref, readers) for ref in outputs]
    return [layer for layer in layers if layer is not None]


def _logit_layer(target: Target, ref: Ref, readers: Mapping[Ref, int]) -> Any:
    """The layer that makes the logits of an output, or None."""
    if target.plan.shapes[ref][-1:] in ((), (1,)) or readers[ref] > 1:
        return None
    ends_in_softmax = target.outputs == "logits"
    call = target.plan.maker(ref)
    while call is not None and target.weighted(call.operation) is None:
        if not _hands_on_logits(target, call) or readers[call.inputs[0]] > 1:
            return None
        ends_in_softmax = ends_in_softmax or is_softmax(call.operation)
        call = target.plan.maker(call.inputs[0])
    if call is None or not is_weighted(target, call):
        return None
    layer = call.operation
    activation = getattr(layer, "activation", None)
    in_the_layer = is_softmax(layer) or activation is keras.activations.log_softmax
    return layer if in_the_layer or (ends_in_softmax and _is_linear(layer)) else None


def _hands_on_logits(target: Target, call: Call) -> bool:
    """Whether a call without weights is a softmax, or leaves its input as it is."""
    layer = call.operation
    if is_softmax(layer):
        return not getattr(layer, "variables", [])
    if type(layer) is keras.layers.Identity:
        return True
    if type(layer) in (keras.layers.Softmax, keras.layers.Activation):
        return _is_linear(layer)
    return keeps_channels(target, call)


def _is_linear(layer: Any) -> bool:
    return getattr(layer, "activation", None) is keras.activations.linear
