"""How each kind of layer runs with N weight sets at once.

Between layers the values of N networks stand in one of three forms (`Value`): one tensor that all
networks share, one stacked tensor [N, B, ...], or N tensors [B, ...]. A rule takes values in the form
that suits it and returns whichever it makes; `Value` converts only where two neighbours differ.

Measured on two CPU cores with the MNIST target (N = B = 32, forward and backward; the floor is
one ordinary CNN on the same images): convolution, activation and pooling each unrolled over
networks 1.04 x the floor, convolution alone unrolled 1.11 x. A network's activations stay in the
cache while it runs, so unrolled is the default form; layers that multiply by a matrix are stacked.

**A layer without a rule runs network by network through `layer.stateless_call`**, which is right
for every Keras layer. A rule only makes a layer faster, and must give the same values. Add your own
with `register_rule`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.targets.plan import Call, is_ref

Rule = Callable[["Networks", Call, tuple, dict], Any]
_RULES: dict[type, Rule] = {}


def register_rule(*layer_types: type) -> Callable[[Rule], Rule]:
    """Register how layers of exactly these types run with N weight sets.

    The rule is called as `rule(networks, call, args, kwargs)`: `networks` is the run (`Networks`),
    `call.operation` the layer, and the arguments hold a `Value` for each tensor. It returns a `Value`,
    or `per_network(networks, call, args, kwargs)` for the cases that it does not cover.

    Example:
        >>> @register_rule(MyScale)                                          # doctest: +SKIP
        ... def scale(networks, call, args, kwargs):
        ...     (factor,) = networks.trainable(call.operation)               # [N]
        ...     return Value(networks.count, stacked=args[0].stacked * factor[:, None, None])
    """

    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(layer_types, rule))
        return rule

    return register


def rule_for(operation: Any) -> Rule:
    """The rule of a layer or operation; a subclass never inherits one, since its call may differ."""
    return _RULES.get(type(operation), per_network)


class Value:
    """What N networks hold at one place of the graph, converted on demand and only once.

    Args:
        count: N.
        shared: one tensor [B, ...] that is the same for all networks.
        stacked: [N, B, ...].
        each: N tensors [B, ...].
    """

    def __init__(self, count: int, *, shared=None, stacked=None, each: Sequence | None = None):
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
    def is_stacked(self) -> bool:
        """Whether the stacked tensor is at hand and the N tensors are not."""
        return self.shared is None and self._each is None


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


def _is_value(leaf: Any) -> bool:
    return isinstance(leaf, Value)


def _values(args: tuple, kwargs: dict) -> list[Value]:
    return [leaf for leaf in keras.tree.flatten((args, kwargs)) if _is_value(leaf)]


def _pick(structure: Any, choose: Callable[[Value], Any]) -> Any:
    return keras.tree.map_structure(
        lambda leaf: choose(leaf) if _is_value(leaf) else leaf, structure
    )


def per_network(networks: Networks, call: Call, args: tuple, kwargs: dict) -> Any:
    """Run a layer or operation network by network: right for everything that Keras can call.

    Weights and state go through `layer.stateless_call`. An operation without variables whose inputs
    are all shared runs once, and its result stays shared.
    """
    operation = call.operation
    is_layer = isinstance(operation, keras.Layer)
    takes_mode = is_layer and "training" in operation.call_signature_parameters
    mode = {"training": networks.mode_of(operation)} if takes_mode else {}
    has_variables = is_layer and bool(operation.variables)

    if not has_variables and all(v.shared is not None for v in _values(args, kwargs)):
        result = operation(
            *_pick(args, lambda v: v.shared), **_pick(kwargs, lambda v: v.shared), **mode
        )
        return keras.tree.map_structure(lambda t: Value(networks.count, shared=t), result)

    def arguments(n: int) -> tuple[tuple, dict]:
        return _pick(args, lambda v: v.each[n]), _pick(kwargs, lambda v: v.each[n]) | mode

    results = []
    if has_variables:
        state_variables = operation.non_trainable_variables
        weights = networks.per_network(operation.trainable_variables)
        state = networks.per_network(state_variables)
        new_state = []
        for n in range(networks.count):
            positional, keyword = arguments(n)
            output, updated = operation.stateless_call(weights[n], state[n], *positional, **keyword)
            results.append(output)
            new_state.append(updated)
        for variable, values in zip(state_variables, zip(*new_state, strict=True), strict=True):
            networks.set_state(variable, list(values))
    else:
        for n in range(networks.count):
            positional, keyword = arguments(n)
            results.append(operation(*positional, **keyword))
    return keras.tree.map_structure(lambda *each: Value(networks.count, each=each), *results)


def _fold(tensor: tf.Tensor) -> tf.Tensor:
    """[N, B, ...] -> [N·B, ...]."""
    rest = tensor.shape[2:]
    if rest.is_fully_defined():
        return tf.reshape(tensor, [-1, *rest])
    shape = tf.shape(tensor)
    return tf.reshape(tensor, tf.concat([[shape[0] * shape[1]], shape[2:]], 0))


def _unfold(tensor: tf.Tensor, count: int) -> tf.Tensor:
    """[N·B, ...] -> [N, B, ...]."""
    rest = tensor.shape[1:]
    if rest.is_fully_defined() and tensor.shape[0] is not None:
        return tf.reshape(tensor, [count, tensor.shape[0] // count, *rest])
    shape = tf.shape(tensor)
    return tf.reshape(tensor, tf.concat([[count, shape[0] // count], shape[1:]], 0))


@register_rule(
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
    keras.layers.Flatten,
    keras.layers.Reshape,
    keras.layers.Permute,
    keras.layers.Rescaling,
    keras.layers.MaxPooling1D,
    keras.layers.MaxPooling2D,
    keras.layers.MaxPooling3D,
    keras.layers.AveragePooling1D,
    keras.layers.AveragePooling2D,
    keras.layers.AveragePooling3D,
    keras.layers.GlobalMaxPooling1D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.ZeroPadding1D,
    keras.layers.ZeroPadding2D,
    keras.layers.Cropping2D,
    keras.layers.UpSampling2D,
)
def per_example(networks: Networks, call: Call, args: tuple, kwargs: dict) -> Any:
    """A layer that treats each example by itself: networks and examples are one batch [N·B, ...].

    Only a value that stands stacked is folded; one that stands as N tensors stays so.
    """
    values = _values(args, kwargs)
    if len(values) != 1 or not values[0].is_stacked or call.operation.variables:
        return per_network(networks, call, args, kwargs)
    folded = call.operation(*_pick(args, lambda v: _fold(v.stacked)))
    return Value(networks.count, stacked=_unfold(folded, networks.count))


@register_rule(keras.layers.Dense)
def dense(networks: Networks, call: Call, args: tuple, kwargs: dict) -> Any:
    """One batched matrix product: [N, B, in] x [N, in, out]; shared inputs are not repeated."""
    layer = call.operation
    weights = [tf.cast(w, layer.compute_dtype) for w in networks.trainable(layer)]
    if len(weights) != 1 + layer.use_bias:  # frozen, adapted (LoRA) or quantised
        return per_network(networks, call, args, kwargs)
    (value,) = args
    kernel = weights[0]
    if value.shared is not None and value.shared.shape.rank == 2:
        inputs = tf.cast(value.shared, layer.compute_dtype)
        outputs = tf.einsum("bi,nio->nbo", inputs, kernel)
    else:
        inputs = tf.cast(value.stacked, layer.compute_dtype)
        if inputs.shape.rank > 3:  # [N, B, ..., in]: the axes between belong to the examples
            kernel = tf.reshape(
                kernel, [networks.count, *[1] * (inputs.shape.rank - 3), *kernel.shape[1:]]
            )
        outputs = tf.matmul(inputs, kernel)
    if layer.use_bias:
        bias = weights[1]
        outputs += tf.reshape(
            bias, [networks.count, *[1] * (outputs.shape.rank - 2), bias.shape[-1]]
        )
    if layer.activation is not keras.activations.linear:
        outputs = _unfold(layer.activation(_fold(outputs)), networks.count)
    return Value(networks.count, stacked=outputs)


@register_rule(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
def convolution(networks: Networks, call: Call, args: tuple, kwargs: dict) -> Any:
    """Unrolled over networks, or, where `networks.grouped`, one convolution for all of them.

    Shared inputs need no groups: the N kernels are one kernel with N·F filters. Otherwise the
    networks are side by side on the channel axis, [B, ..., N·C], and convolved in N groups.
    """
    layer = call.operation
    weights = [tf.cast(w, layer.compute_dtype) for w in networks.trainable(layer)]
    if (
        not networks.grouped
        or len(weights) != 1 + layer.use_bias
        or layer.groups != 1
        or layer.data_format != "channels_last"
        or layer.padding == "causal"
    ):
        return per_network(networks, call, args, kwargs)
    (value,) = args
    count, filters, kernel = networks.count, layer.filters, weights[0]
    # [N, ..., C, F] -> [..., C, N·F]: a network's filters stay together, which is what groups need.
    rank = kernel.shape.rank
    kernel = tf.transpose(kernel, [*range(1, rank - 1), 0, rank - 1])
    kernel = tf.reshape(kernel, [*kernel.shape[:-2], count * filters])
    if value.shared is not None:
        inputs = value.shared
    else:
        stacked = value.stacked  # [N, B, ..., C]
        inputs = tf.transpose(stacked, [*range(1, rank), 0, rank])
        inputs = tf.reshape(
            inputs, tf.concat([tf.shape(inputs)[:-2], [count * stacked.shape[-1]]], 0)
        )
    outputs = tf.nn.convolution(
        tf.cast(inputs, layer.compute_dtype),
        kernel,
        strides=layer.strides,
        padding=layer.padding.upper(),
        dilations=layer.dilation_rate,
    )
    if layer.use_bias:
        outputs += tf.reshape(weights[1], [-1])
    outputs = tf.reshape(outputs, tf.concat([tf.shape(outputs)[:-1], [count, filters]], 0))
    outputs = tf.transpose(outputs, [rank - 1, *range(rank - 1), rank])
    if layer.activation is not None:
        outputs = _unfold(layer.activation(_fold(outputs)), count)
    return Value(count, stacked=outputs)


def run_plan(plan, networks: Networks, inputs: dict) -> Any:
    """Run every call of a plan; returns the outputs as the model structures them, as `Value`s."""
    values = dict(inputs)

    def fetch(structure):
        return keras.tree.map_structure(
            lambda leaf: values[leaf] if is_ref(leaf) else leaf, structure
        )

    for call in plan.calls:
        result = rule_for(call.operation)(networks, call, fetch(call.args), fetch(call.kwargs))
        keras.tree.map_structure(values.__setitem__, call.outputs, result)
    return fetch(plan.outputs)
