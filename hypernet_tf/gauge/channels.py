"""Which channels of a target belong together, read off its plan.

Every channel that a layer makes has a number, its *id*, and every tensor carries the ids of its
last axis. Layers that treat each channel by itself pass ids on, layers that move numbers move ids,
and a sum ties them, position by position, in a union-find; the table of layer traits
(`hypernet_tf.targets.layers`) says which layer does what. A channel that anything else reads (an
output, an unknown layer, a layer called twice) may not change: its id is tied to `HELD`. Channels
that padding adds are `ZERO`: they stay zero whatever happens to their neighbours, and tie nothing.
"""

from __future__ import annotations

import abc
from typing import Any

import keras
import numpy as np

from hypernet_tf.targets.filters import Slot
from hypernet_tf.targets.graph import Call, Ref
from hypernet_tf.targets.layers import ZERO, LayerTraits, kernel_axes, traits_of
from hypernet_tf.targets.target import Target

HELD = 0


def is_weighted(target: Target, call: Call) -> bool:
    """Whether a call makes one channel with each filter of a generated kernel used nowhere else."""
    layer = call.operation
    weighted, kernel = target.weighted(layer), kernel_axes(layer)
    return (
        kernel is not None
        and kernel.inputs is not None
        and weighted is not None
        and weighted.has_filters
        and len(weighted.slots) == len(layer.weights)
        and target.plan.num_calls(layer) == 1
        and isinstance(call.outputs, Ref)
        and target.plan.shapes[call.outputs][-1:] == (weighted.filters,)
    )


def input_axis(layer: Any, kernel: Slot) -> int:
    """The axis of a weighted layer's kernel [N, ...] that counts its input's channels."""
    axes = kernel_axes(layer)
    assert axes is not None and axes.inputs is not None
    return range(1, len(kernel.shape) + 1)[axes.inputs]


def is_depthwise(layer: Any) -> bool:
    """Whether each filter of a weighted layer reads one channel only."""
    axes = kernel_axes(layer)
    return axes is not None and axes.depthwise


def keeps_channels(target: Target, call: Call) -> bool:
    """Whether a call of one input only moves numbers, and leaves its channels where they are."""
    channels = traits_of(call.operation).channels
    if channels is None or len(call.inputs) != 1:
        return False
    shape = target.plan.shapes[call.inputs[0]]
    if not shape or shape[-1] is None:
        return False
    ids = np.arange(1, shape[-1] + 1)
    moved = channels(call, [ids], [shape])
    return moved is not None and np.array_equal(moved, ids)


class Channels(abc.ABC):
    """The ids of every tensor of a plan; subclasses note the layers that make and read them.

    Args:
        target: The `Target`.
    """

    def __init__(self, target: Target):
        self.target = target
        self._parents = [HELD]
        self._ids: dict[Ref, np.ndarray] = {}
        for call in target.plan.calls:
            self._read(call)
        for ref in keras.tree.flatten(target.plan.outputs):
            self._hold(ref)
        self._classes = np.array([self._find(i) for i in range(len(self._parents))] + [ZERO])

    # ---- what a subclass says ---------------------------------------------------------------

    @abc.abstractmethod
    def passes(self, traits: LayerTraits) -> bool:
        """Whether a layer treats each channel by itself, in the way that matters here."""

    @abc.abstractmethod
    def weighted(self, call: Call, ids: np.ndarray) -> np.ndarray | None:
        """Note that a weighted layer reads channels.

        Returns:
            The ids that it makes; None to hold what it reads.
        """

    @abc.abstractmethod
    def norm(self, call: Call, ids: np.ndarray) -> np.ndarray | None:
        """Note that a batch normalisation reads channels; returns as `weighted`."""

    # ---- ids --------------------------------------------------------------------------------

    def new(self, count: int) -> np.ndarray:
        """Ids of new channels."""
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

    def _find(self, channel: int) -> int:
        while self._parents[channel] != channel:
            self._parents[channel] = channel = self._parents[self._parents[channel]]
        return channel

    def _tie(self, first: int, second: int) -> None:
        low, high = sorted((self._find(first), self._find(second)))
        self._parents[high] = low  # so that what is tied to HELD, which is 0, finds HELD

    def _hold(self, ref: Ref) -> None:
        for channel in self._ids.get(ref, []):
            if channel != ZERO:
                self._tie(channel, HELD)

    # ---- calls ------------------------------------------------------------------------------

    def _read(self, call: Call) -> None:
        made = self._outputs(call) if isinstance(call.outputs, Ref) else None
        if made is None:
            for ref in call.inputs:
                self._hold(ref)
        else:
            self._check_number(call, made)
            self._ids[call.outputs] = made

    def _outputs(self, call: Call) -> np.ndarray | None:
        """The ids of what a call returns; None: nothing is known of it, its inputs are held."""
        inputs = [ids for ref in call.inputs if (ids := self.of(ref)) is not None]
        if not inputs or len(inputs) < len(call.inputs) or call.reads_constants:
            return None
        traits = traits_of(call.operation)
        if traits.channels is not None:
            shapes = [self.target.plan.shapes[ref] for ref in call.inputs]
            moved = traits.channels(call, inputs, shapes)
            if moved is not None:
                return moved
        if traits.merges:  # with one tensor the other operand is a number, as in x + 1
            is_merge = len(inputs) > 1 and self.passes(traits)
            return self._merged(call, inputs) if is_merge else None
        if len(inputs) > 1:
            return None
        if is_weighted(self.target, call):
            return self.weighted(call, inputs[0])
        if self.is_norm(call):
            return self.norm(call, inputs[0])
        if traits.kernel is None and self.passes(traits):
            return self._passed(traits, inputs[0])
        return None

    def _passed(self, traits: LayerTraits, ids: np.ndarray) -> np.ndarray:
        """The ids behind a layer that passes them on."""
        return ids

    def _merged(self, call: Call, inputs: list[np.ndarray]) -> np.ndarray | None:
        """The ids of tensors that are tied position by position; None where shapes differ."""
        ranks = {len(self.target.plan.shapes[ref]) for ref in call.inputs}
        if len(ranks) > 1 or len({len(ids) for ids in inputs}) > 1:
            return None
        merged = inputs[0].copy()
        for ids in inputs[1:]:
            for first, second in zip(merged, ids, strict=True):
                if first not in (ZERO, second) and second != ZERO:
                    self._tie(first, second)
            merged = np.where(merged == ZERO, ids, merged)
        return merged

    def _check_number(self, call: Call, ids: np.ndarray) -> None:
        shape = self.target.plan.shapes[call.outputs]
        if shape[-1:] != (len(ids),):
            raise ValueError(
                f"Layer '{call.operation.name}' returns {list(shape)} for {len(ids)} channels: its "
                "traits promise one position on the last axis for each. Correct them with "
                "register_layer."
            )

    def is_norm(self, call: Call) -> bool:
        """Whether a call is a batch normalisation of the last axis, called once and trained.

        One that leaves out masked positions is none.
        """
        layer = call.operation
        weighted = self.target.weighted(layer)
        return (
            type(layer) is keras.layers.BatchNormalization
            and len(call.inputs) == 1
            and not call.reads_constants
            and layer.trainable
            and not layer.renorm
            and layer.axis in (-1, len(self.target.plan.shapes[call.inputs[0]]))
            and self.target.plan.num_calls(layer) == 1
            and layer.scale + layer.center == (len(weighted.slots) if weighted else 0)
        )
