"""Fixing the symmetries of a target: the weights that stand for all their equals.

Many weight sets compute the same function. Diversity must not count them as different, so one of
them is chosen: the *gauge* is fixed (Deutsch et al. 2019, section 3.2). Known symmetries:

* **Scale.** Where only positively homogeneous steps (f(s·x) = s·f(x) for s > 0: ReLU, leaky ReLU,
  pooling, flatten, dropout) stand between a layer and its readers, a filter, its kernel slice and
  its bias, may be multiplied by s if each reader's weights on that channel are divided by s. Fixed
  by making the mean square of each filter's elements, bias included, equal to one.
* **Scale in sums.** A sum of channels, or their mean or maximum, ties the scales of its branches.
  The mean square of the *first* filter that makes such a channel is made one; the others share its
  scale. Layers are fixed in the order in which they run. A filter's size depends on the scales of
  what it reads, which are fixed by then, so one pass is exact, and a second one changes nothing.
  Were all branches of a residual network together to have a mean square of one, a scale would
  depend on scales that depend on it: the branches read the very sum that they add to. That has no
  closed form.
* **Batch normalisation** takes away what is before it: the scale of the filters, and the bias of
  a layer directly before it. That bias is made zero, the filters get a mean square of one, and the
  moving statistics follow, so that inference stays the same. gamma and beta are the filters of new
  channels. With statistics of a batch, or computed anew, this is exact up to the normalisation's
  own epsilon, which Keras adds to the variance of the scaled channels: it counts where the variance
  of a channel, before or after, is not much larger.
* **Softmax.** The same number added to all logit biases changes nothing. Fixed by making them sum
  to zero. As an option the same of the last kernel, where a number may be added for every input.
* **Permutation**, as an option: `hypernet_tf.gauge.permutation`.

Channels that are not free (the output, non-homogeneous activations, layers called twice, frozen
layers, anything not listed) are left alone.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.gauge.channels import HELD, is_flatten, is_weighted
from hypernet_tf.gauge.permutation import Permutation
from hypernet_tf.gauge.scales import Lookup, Scales, Step
from hypernet_tf.targets.filters import WeightedLayer
from hypernet_tf.targets.outputs import is_softmax
from hypernet_tf.targets.target import Target
from hypernet_tf.targets.weights import WeightSet


class Gauge:
    """Fixes the symmetries of a target; applies to any weight set of it.

    Args:
        target: the `Target`.
        epsilon: added twice, as in the published program: s = sqrt(mean square + epsilon), filters
            divided by s + epsilon, readers multiplied by s. 1e-8 reproduces the program; it is
            noticeable where weights are small (a mean square of 1e-8 and less). 0 is exact, but
            makes NaN of a filter whose weights are all zero.
        softmax_kernel: whether the last kernel's sums over classes are made zero too.
        permutation: whether hidden filters are sorted.

    Attributes:
        steps: the layers that make or read channels with a free scale (`Step`), in the order in
            which they are fixed.
        softmax_bias: the index of the variable with the logit biases, or None.
        softmax_kernel: the index of the last kernel where it is fixed, or None.

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
        softmax_kernel: bool = False,
        permutation: bool = False,
    ):
        if epsilon < 0:
            raise ValueError(f"the gauge's epsilon is not negative, not {epsilon}")
        self.epsilon = epsilon
        self.steps: tuple[Step, ...] = Scales(target).steps
        owner: dict[int, tuple[int, int]] = {}
        for number, step in enumerate(self.steps):
            for place, own in enumerate(step.makes):
                if own > HELD:
                    owner.setdefault(own, (number, place))
        sizes = [len(step.makes) for step in self.steps]
        self._reads = [Lookup.of(step.reads, owner, sizes) for step in self.steps]
        self._makes = [Lookup.of(step.makes, owner, sizes) for step in self.steps]
        self._leads = {number for number, _ in owner.values()}
        last = _logit_layer(target)
        slots: Any = () if last is None else target.weighted(last).slots
        self.softmax_bias = slots[1].index if last is not None and last.use_bias else None
        # A depthwise filter does not read what the other classes' read.
        if not softmax_kernel or last is None or "Depthwise" in type(last).__name__:
            slots = ()
        self.softmax_kernel = slots[0].index if slots else None
        self._class_axis = slots[0].axis + 1 if slots else None
        self._sort = Permutation(target) if permutation else None

    def __call__(self, weights: WeightSet) -> WeightSet:
        """The equivalent weight set in the fixed gauge.

        State is unchanged but for batch normalisation's moving statistics.
        """
        # As tensors: variables and arrays are never changed.
        trainable, state = ([tf.convert_to_tensor(w) for w in own] for own in weights)
        self._fix_scales(trainable, state)
        for index, axis in ((self.softmax_kernel, self._class_axis), (self.softmax_bias, -1)):
            if index is not None:
                trainable[index] -= tf.reduce_mean(trainable[index], axis, keepdims=True)
        if self._sort is not None:
            self._sort(trainable, state)
        return WeightSet(trainable, state)

    def _fix_scales(self, trainable: list[tf.Tensor], state: list[tf.Tensor]) -> None:
        scales: dict[int, tf.Tensor] = {}
        shifts: dict[int, tf.Tensor] = {}
        for number, step in enumerate(self.steps):
            looked = self._reads[number]
            read = looked(scales)  # [N, C]
            if step.statistics is None:
                if read is not None:
                    index = step.layer.slots[0].index
                    trainable[index] *= _along(read, step.axis, trainable[index].shape.rank)
                if step.shift is not None:
                    shifts[step.shift] = trainable[step.shift]
                    trainable[step.shift] = tf.zeros_like(trainable[step.shift])
            else:
                mean, variance = step.statistics
                if step.shift is not None:
                    state[mean] -= shifts[step.shift]
                if read is not None:
                    divisor = read + self.epsilon * looked.free
                    state[mean] /= divisor
                    # So that variance + epsilon follows; it may leave less than nothing.
                    total = state[variance] + step.epsilon
                    state[variance] = total / tf.square(divisor) - step.epsilon
            if number in self._leads:
                scales[number] = tf.sqrt(_mean_square(step.layer, trainable) + self.epsilon)
            made = self._makes[number](scales)
            if made is not None:
                _divide(step.layer, trainable, made + self.epsilon * self._makes[number].free)


def _along(scales: tf.Tensor, axis: int, rank: int) -> tf.Tensor:
    """[N, C] with its channels on an axis of `rank`, broadcastable."""
    if rank == 2:
        return scales
    return tf.reshape(scales, [-1, *(scales.shape[1] if a == axis else 1 for a in range(1, rank))])


def _split(tensor: tf.Tensor, shape: tuple[int, ...]) -> tf.Tensor:
    """[N, ...] as [N, *shape]."""
    return tensor if tuple(tensor.shape[1:]) == shape else tf.reshape(tensor, [-1, *shape])


def _mean_square(layer: WeightedLayer, trainable: list[tf.Tensor]) -> tf.Tensor:
    """Of each filter's weights: [N, F]."""
    total = 0.0
    for slot in layer.slots:
        tensor = _split(trainable[slot.index], slot.split)
        others = [axis for axis in range(1, len(tensor.shape)) if axis != slot.axis + 1]
        total = total + tf.reduce_sum(tf.square(tensor), others)
    return total / layer.row_size


def _divide(layer: WeightedLayer, trainable: list[tf.Tensor], divisor: tf.Tensor) -> None:
    """Divide each filter by its divisor [N, F]."""
    inverse = 1.0 / divisor
    for slot in layer.slots:
        tensor = _split(trainable[slot.index], slot.split)
        tensor *= _along(inverse, slot.axis + 1, len(tensor.shape))
        trainable[slot.index] = _split(tensor, slot.shape)


def _logit_layer(target: Target) -> Any:
    """The layer that makes the logits of a softmax; None if the target has not exactly one."""
    if target.outputs == "values" or target.classes is None:
        return None
    (ref,) = keras.tree.flatten(target.plan.outputs)
    if target.plan.shapes[ref][-1] == 1:
        return None
    call, softmax = target.plan.maker(ref), target.outputs == "logits"
    while call is not None and target.weighted(call.operation) is None:
        layer = call.operation
        ref = call.inputs[0]
        if type(layer) in (keras.layers.Softmax, keras.layers.Activation):
            if not is_softmax(layer) and not _is_linear(layer):
                return None
        elif not is_flatten(target, call) or set(target.plan.shapes[ref][:-1]) != {1}:
            return None
        softmax = softmax or is_softmax(layer)
        call = target.plan.maker(ref)
    if call is None or not is_weighted(target, call.operation):
        return None
    layer = call.operation
    softmax = softmax or is_softmax(layer)
    if not softmax or not (is_softmax(layer) or _is_linear(layer)):
        return None
    return layer


def _is_linear(layer: Any) -> bool:
    return getattr(layer, "activation", None) is keras.activations.linear
