"""Which channels of a target have a free positive scale, and which layers make and read them."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.gauge.channels import HELD, Channels, input_axis
from hypernet_tf.targets.graph import Call
from hypernet_tf.targets.layers import LayerTraits, traits_of
from hypernet_tf.targets.target import Target


@dataclasses.dataclass(frozen=True)
class Step:
    """A layer that makes or reads channels with a free scale.

    Attributes:
        layer: Its generated weights (`WeightedLayer`); None for a batch normalisation without any.
        reads: For each channel that it reads, the class that shares its scale; `HELD` or `ZERO`
            where there is nothing to scale.
        makes: The same for each of its filters.
        axis: The axis of its first variable, kernel or gamma, [N, ...] that counts what it reads.
        statistics: Where a batch normalisation's moving mean and variance are in the state.
        epsilon: What that batch normalisation adds to the variance.
        shift: Index of a bias that the batch normalisation right after it takes away at once; the
            steps of both layers have it.
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

    Between a layer and its readers stand only positively homogeneous layers (f(s·x) = s·f(x) for
    s > 0). A batch normalisation takes any scale away, and makes channels of its own, whose filters
    are gamma and beta.

    Args:
        target: The `Target`.

    Attributes:
        steps: The layers that make or read channels with a free scale, in the order of the plan.
    """

    def __init__(self, target: Target):
        self._steps: list[Step] = []
        self._shifts: dict[Any, int] = {}
        super().__init__(target)
        steps = (
            dataclasses.replace(
                step, reads=self.classes(step.reads), makes=self.classes(step.makes)
            )
            for step in self._steps
        )
        self.steps = tuple(step for step in steps if step.is_free)

    def passes(self, traits: LayerTraits) -> bool:
        """Whether f(s·x) = s·f(x)."""
        return bool(traits.homogeneous)

    def weighted(self, call: Call, ids: np.ndarray) -> np.ndarray:
        """What a layer with a kernel makes: free where it is homogeneous in its filters."""
        layer, weighted = call.operation, self.target.weighted(call.operation)
        is_free = traits_of(layer).homogeneous
        makes = self.new(weighted.filters) if is_free else np.full(weighted.filters, HELD)
        shift = None
        bias = next((slot for slot in weighted.slots if slot.name == "bias"), None)
        is_linear = getattr(layer, "activation", None) is keras.activations.linear
        if bias is not None and is_linear:
            reader = self._only_reader(call)
            if reader is not None and self.is_norm(reader):
                shift = self._shifts[call.outputs] = bias.index
        axis = input_axis(layer, weighted.slots[0])
        self._steps.append(Step(weighted, ids, makes, axis=axis, shift=shift))
        return makes

    def norm(self, call: Call, ids: np.ndarray) -> np.ndarray:
        """What a batch normalisation makes: free where gamma scales all that it adds."""
        layer = call.operation
        makes = self.new(len(ids)) if layer.scale else np.full(len(ids), HELD)
        statistics = (
            self.target.state_index(layer.moving_mean),
            self.target.state_index(layer.moving_variance),
        )
        step = Step(
            self.target.weighted(layer),
            ids,
            makes,
            statistics=statistics,
            epsilon=layer.epsilon,
            shift=self._shifts.get(call.inputs[0]),
        )
        self._steps.append(step)
        return makes

    def _only_reader(self, call: Call) -> Call | None:
        """The one call that reads what a call returns; None where it is read more than once."""
        plan = self.target.plan
        readers = [reader for reader in plan.calls for ref in reader.inputs if ref == call.outputs]
        is_output = call.outputs in keras.tree.flatten(plan.outputs)
        return readers[0] if len(readers) == 1 and not is_output else None


@dataclasses.dataclass(frozen=True)
class Lookup:
    """Where the scales of a row of channels are: columns of some steps' scales, side by side.

    Attributes:
        step_numbers: The steps whose scales are put side by side.
        columns: For each channel its column there; column 0 is a one if any channel is not free.
        free: Whether each channel is free.
    """

    step_numbers: tuple[int, ...]
    columns: np.ndarray
    free: np.ndarray

    @classmethod
    def of(
        cls, channels: np.ndarray, leaders: dict[int, tuple[int, int]], sizes: list[int]
    ) -> Lookup:
        """Find the scales of channels.

        Args:
            channels: The class of each channel.
            leaders: class -> number of the step that fixes its scale, and which of its filters.
            sizes: The number of filters of each step.
        """
        free = channels > HELD
        step_numbers = tuple(sorted({leaders[channel][0] for channel in channels[free]}))
        starts, start = {}, 0 if free.all() else 1
        for number in step_numbers:
            starts[number], start = start, start + sizes[number]
        columns = [
            starts[leaders[channel][0]] + leaders[channel][1] if channel > HELD else 0
            for channel in channels
        ]
        return cls(step_numbers, np.array(columns), free)

    def __call__(self, scales: dict[int, tf.Tensor]) -> tf.Tensor | None:
        """The scales [N, C], given the scales [N, F] of each step; None where they are all one."""
        if not self.step_numbers:
            return None
        parts = [scales[number] for number in self.step_numbers]
        if not self.free.all():
            parts.insert(0, tf.ones_like(parts[0][:, :1]))
        table = parts[0] if len(parts) == 1 else tf.concat(parts, 1)
        width = table.shape[1]
        # Nearly all rows are one step's filters in their order, once or for every pixel.
        if len(self.columns) % width == 0 and np.array_equal(
            self.columns, np.tile(np.arange(width), len(self.columns) // width)
        ):
            repeats = len(self.columns) // width
            return table if repeats == 1 else tf.tile(table, [1, repeats])
        return tf.gather(table, self.columns, axis=1)
