"""How each kind of layer runs with N weight sets at once.

Between layers the values of N networks stand in one of three forms (`Value`): one tensor that all
networks share, one stacked tensor [N, B, ...], or N tensors [B, ...]. A rule takes values in the
form that suits it and returns whichever it makes; `Value` converts only where neighbours differ.

Measured on two CPU cores with the MNIST target (N = B = 32, forward and backward; the floor is
one ordinary CNN on the same images): convolution, activation and pooling each unrolled over
networks 0.96 x the floor, convolution alone unrolled 1.13 x. A network's activations stay in the
cache while it runs, so unrolled is the default form; layers that multiply by a matrix are stacked.

**A layer without a rule runs network by network**, called as Keras calls it, which is right for
every Keras layer. A rule only makes a layer faster, and must give the same values. Add your own
with `register_rule`. Values that carry a Keras mask (`Embedding(mask_zero=True)`, `Masking`) never
meet a rule, since only a call of the layer itself passes the mask on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.targets.graph import Call, Plan, is_ref


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


Rule = Callable[[Networks, Call, tuple, dict], Any]
_RULES: dict[type, Rule] = {}


def register_rule(*layer_types: type) -> Callable[[Rule], Rule]:
    """Register how layers of exactly these types run with N weight sets.

    The rule is called as `rule(networks, call, args, kwargs)`: `networks` is the run (`Networks`),
    `call.operation` the layer, and the arguments hold a `Value` for each tensor. It returns a
    `Value`, or `per_network(networks, call, args, kwargs)` for the cases that it does not cover.

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
    """The rule of a layer or operation; a subclass inherits none, since its call may differ."""
    return _RULES.get(type(operation), per_network)


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

    Weights and state are handed in by a `keras.StatelessScope`, as `model.stateless_call` does;
    the layer's own `stateless_call` would skip what its `__call__` does: masks, mixed precision,
    and the mode of the layers inside it. An operation without variables whose inputs are all shared
    runs once, and its result stays shared.
    """
    operation = call.operation
    is_layer = isinstance(operation, keras.Layer)
    # A layer whose call does not take the mode still hands it to the layers inside it.
    mode = {"training": networks.mode_of(operation)} if is_layer else {}
    variables = operation.variables if is_layer else []

    def run(choose: Callable[[Value], Any]) -> Any:
        return operation(*_pick(args, choose), **_pick(kwargs, choose), **mode)

    if not variables and all(v.shared is not None for v in _values(args, kwargs)):
        result = run(lambda v: v.shared)
        return keras.tree.map_structure(lambda t: Value(networks.count, shared=t), result)

    results, scopes = [], []
    for n, weights in enumerate(networks.per_network(variables)):
        mapping = list(zip(variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=mapping) as scope:
            results.append(run(lambda v: v.each[n]))  # noqa: B023 (called at once)
        scopes.append(scope)
    for variable in operation.non_trainable_variables if is_layer else []:
        networks.set_state(variable, [scope.get_current_value(variable) for scope in scopes])
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


# The activations that are known to treat each example by itself; a user's own may mix examples.
_ACTIVATIONS = frozenset(f for f in vars(keras.activations).values() if callable(f))


def _activate(activation: Callable, outputs: tf.Tensor, count: int) -> tf.Tensor:
    """The activation of [N, B, ...]: of all networks at once where that is the same."""
    if activation is keras.activations.linear:
        return outputs
    if activation in _ACTIVATIONS:
        return _unfold(activation(_fold(outputs)), count)
    return tf.stack([activation(own) for own in tf.unstack(outputs, num=count)])


def _kernel_and_bias(networks: Networks, layer: Any) -> list[tf.Tensor]:
    """The generated weights of a layer, ready to compute with.

    Empty where they are not just its kernel and bias: frozen, adapted (LoRA) or quantised ones, or
    an activation with variables of its own.
    """
    weights = networks.trainable(layer)
    if not len(weights) == len(layer.variables) == 1 + layer.use_bias:
        return []
    return [tf.cast(w, layer.compute_dtype) for w in weights]


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
    activation = getattr(call.operation, "activation", keras.activations.linear)
    if len(values) != 1 or not values[0].is_stacked or activation not in _ACTIVATIONS:
        return per_network(networks, call, args, kwargs)

    def fold(value: Value) -> tf.Tensor:
        return _fold(value.stacked)

    folded = call.operation(*_pick(args, fold), **_pick(kwargs, fold))
    return Value(networks.count, stacked=_unfold(folded, networks.count))


@register_rule(keras.layers.Dense)
def dense(networks: Networks, call: Call, args: tuple, kwargs: dict) -> Any:
    """One batched matrix product: [N, B, in] x [N, in, out]; shared inputs are not repeated."""
    layer = call.operation
    weights = _kernel_and_bias(networks, layer)
    if not weights:
        return per_network(networks, call, args, kwargs)
    (value,) = _values(args, kwargs)
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
    return Value(networks.count, stacked=_activate(layer.activation, outputs, networks.count))


@register_rule(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
def convolution(networks: Networks, call: Call, args: tuple, kwargs: dict) -> Any:
    """Unrolled over networks, or, where `networks.grouped`, one convolution for all of them.

    Shared inputs need no groups: the N kernels are one kernel with N·F filters. Otherwise the
    networks are side by side on the channel axis, [B, ..., N·C], and convolved in N groups.
    """
    layer = call.operation
    weights = _kernel_and_bias(networks, layer)
    (value,) = _values(args, kwargs)
    if (
        not networks.grouped
        or not weights
        or layer.groups != 1
        or layer.data_format != "channels_last"
        or layer.padding == "causal"
        # TensorFlow has no grouped 3D convolution on CPU.
        or (value.shared is None and isinstance(layer, keras.layers.Conv3D))
    ):
        return per_network(networks, call, args, kwargs)
    count, filters, kernel = networks.count, layer.filters, weights[0]
    # [N, ..., C, F] -> [..., C, N·F]: a network's filters stay together, which is what groups need.
    rank = kernel.shape.rank  # with N one more than a kernel's: that of [N, B, ..., C] too
    kernel = tf.transpose(kernel, [*range(1, rank - 1), 0, rank - 1])
    kernel = tf.reshape(kernel, [*kernel.shape[:-2], count * filters])
    if value.shared is not None:
        inputs = value.shared
    else:
        stacked = value.stacked  # [N, B, ..., C]
        inputs = tf.transpose(stacked, [*range(1, rank - 1), 0, rank - 1])
        inputs = tf.reshape(
            inputs, tf.concat([tf.shape(inputs)[:-2], [count * stacked.shape[-1]]], 0)
        )
    outputs = tf.nn.convolution(
        tf.cast(inputs, layer.compute_dtype),
        kernel,
        strides=layer.strides,
        padding=layer.padding.upper(),
        dilations=layer.dilation_rate,
        # The default, which eager gradients in 3D do not know.
        data_format=("NWC", "NHWC", "NDHWC")[layer.rank - 1],
    )
    if layer.use_bias:
        outputs += tf.reshape(weights[1], [-1])
    outputs = tf.reshape(outputs, tf.concat([tf.shape(outputs)[:-1], [count, filters]], 0))
    outputs = tf.transpose(outputs, [rank - 2, *range(rank - 2), rank - 1])
    return Value(count, stacked=_activate(layer.activation, outputs, count))


def run_plan(plan: Plan, networks: Networks, inputs: dict) -> Any:
    """Run every call of a plan; returns the outputs as the model structures them, as `Value`s."""
    values = dict(inputs)

    def fetch(structure):
        return keras.tree.map_structure(
            lambda leaf: values[leaf] if is_ref(leaf) else leaf, structure
        )

    for call in plan.calls:
        args, kwargs = fetch(call.args), fetch(call.kwargs)
        masked = any(value.masked for value in _values(args, kwargs))
        rule = per_network if masked else rule_for(call.operation)
        result = rule(networks, call, args, kwargs)
        keras.tree.map_structure(values.__setitem__, call.outputs, result)
    return fetch(plan.outputs)
