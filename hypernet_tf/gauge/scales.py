"""Which channels of a target have a free positive scale, and which layers make and read them."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.gauge.channels import (
    HELD,
    HOMOGENEOUS_ACTIVATIONS,
    Channels,
    homogeneous,
    input_axis,
)
from hypernet_tf.targets.graph import Call
from hypernet_tf.targets.target import Target


@dataclasses.dataclass(frozen=True)
class Step:
    """A layer that makes or reads channels with a free scale.

    Attributes:
        layer: its generated weights (`WeightedLayer`); None for a batch normalisation without any.
        reads: for each channel that it reads the class that shares its scale; `HELD` or `ZERO`
            where there is nothing to scale.
        makes: the same for each of its filters.
        axis: which axis of its first variable, kernel or gamma, [N, ...] counts what it reads.
        statistics: where a batch normalisation's moving mean and variance are in the state.
        epsilon: which that batch normalisation adds to the variance.
        shift: a bias that the batch normalisation right after it takes away at once, as the index
            of the variable; both layers have it.
    """

    layer: Any
    reads: np.ndarray
    makes: np.ndarray
    axis: int = 1
    statistics: tuple[int, int] | None = None
    epsilon: float = 0.0
    shift: int | None = None

    @property
    def is_free(self) -> bool:
        """Whether there is anything to scale or to shift."""
        return bool((self.reads > HELD).any() or (self.makes > HELD).any()) or (
            self.shift is not None
        )


class Scales(Channels):
    """The classes of channels that share a positive scale.

    Between a layer and its readers stand only positively homogeneous steps (f(s·x) = s·f(x) for
    s > 0). A batch normalisation takes any scale away, and makes channels of its own, whose filters
    are gamma and beta.

    Attributes:
        steps: the layers concerned, in the order of the plan.
    """

    def __init__(self, target: Target):
        self._found: list[Step] = []
        self._shifts: dict[Any, int] = {}
        super().__init__(target)
        steps = (
            dataclasses.replace(
                step, reads=self.classes(step.reads), makes=self.classes(step.makes)
            )
            for step in self._found
        )
        self.steps = tuple(step for step in steps if step.is_free)

    def passes(self, layer: Any) -> bool:
        """Whether f(s·x) = s·f(x)."""
        return homogeneous(layer)

    def weighted(self, call: Call, ids: np.ndarray) -> np.ndarray:
        """What a convolution or dense layer makes: free where its activation is homogeneous."""
        layer, described = call.operation, self.target.weighted(call.operation)
        free = layer.activation in HOMOGENEOUS_ACTIVATIONS
        makes = self.new(described.filters) if free else np.full(described.filters, HELD)
        shift = None
        if layer.use_bias and layer.activation is keras.activations.linear:
            reader = self._only_reader(call)
            if reader is not None and self.is_norm(reader):
                shift = self._shifts[call.outputs] = described.slots[1].index
        axis = input_axis(layer, described.slots[0])
        self._found.append(Step(described, ids, makes, axis=axis, shift=shift))
        return makes

    def norm(self, call: Call, ids: np.ndarray) -> np.ndarray:
        """What a batch normalisation makes: free where all that it adds is scaled by gamma."""
        layer, described = call.operation, self.target.weighted(call.operation)
        makes = self.new(len(ids)) if layer.scale else np.full(len(ids), HELD)
        places = (
            self.target.state_place(layer.moving_mean),
            self.target.state_place(layer.moving_variance),
        )
        shift = self._shifts.get(call.inputs[0])
        own = {"statistics": places, "epsilon": layer.epsilon, "shift": shift}
        self._found.append(Step(described, ids, makes, **own))
        return makes

    def _only_reader(self, call: Call) -> Call | None:
        """The one call that reads what a call returns; None where it is read more than once."""
        plan = self.target.plan
        readers = [own for own in plan.calls for ref in own.inputs if ref == call.outputs]
        is_output = call.outputs in keras.tree.flatten(plan.outputs)
        return readers[0] if len(readers) == 1 and not is_output else None


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Where the scales of a row of channels stand: columns of some steps' scales, side by side.

    Attributes:
        owners: the steps, by number, whose scales are put side by side.
        columns: for each channel its place in them, where place 0 is a one if any is not free.
        free: whether each channel is free.
    """

    owners: tuple[int, ...]
    columns: np.ndarray
    free: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, owner: dict[int, tuple[int, int]], sizes: list[int]) -> Lookup:
        """Find channels.

        Args:
            ids: the class of each channel.
            owner: class -> number of the step that fixes its scale, and which of its filters.
            sizes: how many filters each step has.
        """
        free = ids > HELD
        owners = tuple(sorted({owner[own][0] for own in ids[free]}))
        starts, start = {}, 0 if free.all() else 1
        for number in owners:
            starts[number], start = start, start + sizes[number]
        columns = [starts[owner[own][0]] + owner[own][1] if own > HELD else 0 for own in ids]
        return cls(owners, np.array(columns), free)

    def __call__(self, scales: dict[int, tf.Tensor]) -> tf.Tensor | None:
        """The scales [N, C]; None where they are all one."""
        if not self.owners:
            return None
        parts = [scales[number] for number in self.owners]
        if not self.free.all():
            parts.insert(0, tf.ones_like(parts[0][:, :1]))
        table = parts[0] if len(parts) == 1 else tf.concat(parts, 1)
        width = table.shape[1]
        # Nearly all rows are one step's filters as they are, once or for every pixel: a gather,
        # whose gradient is slow, is kept for the others.
        if len(self.columns) % width == 0 and np.array_equal(
            self.columns, np.tile(np.arange(width), len(self.columns) // width)
        ):
            repeats = len(self.columns) // width
            return table if repeats == 1 else tf.tile(table, [1, repeats])
        return tf.gather(table, self.columns, axis=1)
