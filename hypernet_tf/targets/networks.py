"""What N networks hold: weight sets, and while they run, the values between layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.targets.plan import Plan, copied, record


class WeightSet(NamedTuple):
    """The complete weights of N networks.

    Attributes:
        trainable: one tensor [N, ...] for each of the model's trainable variables, in its order.
        state: one tensor [N, ...] for each non-trainable one: batch norm's moving statistics,
            the seeds of dropout, the weights of frozen layers.
    """

    trainable: list[tf.Tensor]
    state: list[tf.Tensor]


def weights_of(target: Any, model: Any) -> WeightSet:
    """The weights of a Keras model as a weight set of one network.

    Args:
        target: the `Target` that the model is a network of.
        model: a Keras model.

    Raises:
        ValueError: the model's weights have other shapes.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"a network is a Keras model, not {type(model).__name__}")
    # As the target's own: the values of an adapted Normalization are no weights of it.
    network = copied(model)
    if constants(record(network)) != constants(target.plan):
        raise ValueError(
            f"the model '{model.name}' is not a network of this target: a Normalization in it was "
            "adapted to other data"
        )
    like = target.unflatten(tf.zeros([1, target.weight_count]))
    parts = []
    for kind, variables, expected in (
        ("trainable", network.trainable_variables, like.trainable),
        ("non-trainable", network.non_trainable_variables, like.state),
    ):
        own = [list(v.shape) for v in variables]
        if own != [tensor.shape[1:].as_list() for tensor in expected]:
            raise ValueError(
                f"the model '{model.name}' is not a network of this target: its {kind} weights "
                "have other shapes or another order"
            )
        parts.append([tf.convert_to_tensor(v.value)[None] for v in variables])
    return WeightSet(*parts)


def constants(plan: Plan) -> list:
    """Mean and variance of each `Normalization`, with which Keras computes as constants."""
    return [
        [np.asarray(layer.mean).tolist(), np.asarray(layer.variance).tolist()]
        for layer in plan.operations
        if type(layer) is keras.layers.Normalization
    ]


class Value:
    """What N networks hold at one place of the graph, converted on demand and only once.

    Args:
        count: N.
        shared: one tensor [B, ...] that is the same for all networks.
        stacked: [N, B, ...].
        each: N tensors [B, ...].
    """

    def __init__(
        self,
        count: int,
        *,
        shared: Any = None,
        stacked: Any = None,
        each: Sequence | None = None,
    ):
        self.count = count
        self.shared = shared
        self._stacked = stacked
        self._each = None if each is None else list(each)

    @property
    def each(self) -> list:
        """N tensors [B, ...]."""
        if self._each is None:
            if self.shared is not None:
                self._each = [self.shared] * self.count
            else:
                self._each = tf.unstack(self._stacked, num=self.count)
        return self._each

    @property
    def stacked(self) -> tf.Tensor:
        """One tensor [N, B, ...]."""
        if self._stacked is None:
            if self.shared is not None:
                repeats = [self.count] + [1] * self.shared.shape.rank
                self._stacked = tf.tile(self.shared[None], repeats)
            else:
                self._stacked = tf.stack(self._each)
        return self._stacked

    @property
    def masked(self) -> bool:
        """Whether the tensors carry a Keras mask."""
        tensors = [self.shared] if self.shared is not None else self._each or []
        return any(getattr(tensor, "_keras_mask", None) is not None for tensor in tensors)

    @property
    def is_stacked(self) -> bool:
        """Whether the stacked tensor is at hand and the N tensors are not."""
        return self.shared is None and self._each is None


def input_value(tensor: tf.Tensor, shape: tuple, count: int) -> Value:
    """An input as a value: the same for all networks, or one for each."""
    given = tuple(tensor.shape)
    if len(given) == len(shape) + 1 and tensor.shape[1:].is_compatible_with(shape):
        return Value(count, shared=tensor)
    if len(given) == len(shape) + 2 and tensor.shape[2:].is_compatible_with(shape):
        if given[0] not in (count, None):
            raise ValueError(f"inputs for {given[0]} networks, but weights of {count}")
        return Value(count, stacked=tensor)
    sizes = ", ".join(["B", *map(str, shape)])
    raise ValueError(f"the target takes inputs [{sizes}] or [N, {sizes}], not {given}")


class Networks:
    """One run of N weight sets: gives each layer its weights and gathers its new state.

    Args:
        variables: id of a template variable -> its N values, as one tensor [N, ...].
        count: N.
        training: the mode of the run.
        batch_statistics: whether batch norm uses the batch's own statistics outside training too.
        grouped: whether convolutions with one kernel per network are one grouped convolution.
    """

    def __init__(
        self,
        variables: dict[int, tf.Tensor],
        count: int,
        *,
        training: bool,
        batch_statistics: bool,
        grouped: bool,
    ):
        self.count = count
        self.training = training
        self.batch_statistics = batch_statistics
        self.grouped = grouped
        self.variables = variables
        self.new_state: dict[int, tf.Tensor] = {}
        self._unstacked: dict[int, list] = {}

    def mode_of(self, layer: keras.Layer) -> bool:
        """Whether a layer runs in training mode."""
        return self.training or (
            self.batch_statistics and isinstance(layer, keras.layers.BatchNormalization)
        )

    def trainable(self, layer: keras.Layer) -> list[tf.Tensor]:
        """The layer's generated weights, each [N, ...], in the order of its trainable variables."""
        return [self.variables[id(v)] for v in layer.trainable_variables]

    def per_network(self, variables: Sequence) -> list[list[tf.Tensor]]:
        """The values of some template variables, as one list per network."""
        columns = []
        for variable in variables:
            key = id(variable)
            if key not in self._unstacked:
                self._unstacked[key] = tf.unstack(self._current(variable), num=self.count)
            columns.append(self._unstacked[key])
        return [[column[n] for column in columns] for n in range(self.count)]

    def set_state(self, variable: Any, values: list[tf.Tensor]) -> None:
        """Keep the new values, one per network, of a state variable; a later call sees them."""
        self._unstacked[id(variable)] = list(values)
        self.new_state[id(variable)] = tf.stack(values)

    def _current(self, variable: Any) -> tf.Tensor:
        return self.new_state.get(id(variable), self.variables[id(variable)])


def is_seed(variable: Any) -> bool:
    """Whether a state variable is the state of a `keras.random.SeedGenerator`."""
    return variable.name == "seed_generator_state"
