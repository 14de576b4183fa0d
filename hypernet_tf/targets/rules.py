"""Rules: how a layer runs with N weight sets at once.

Between layers the values of N networks stand in one of three forms (`Value`): one tensor that all
networks share, one stacked tensor [N, B, ...], or N tensors [B, ...]. A rule takes values in the
form that suits it and returns whichever it makes; `Value` converts only where neighbours differ.

Measured on two CPU cores with the MNIST target (N = B = 32, forward and backward; the floor is
one ordinary CNN on the same images): convolution, activation and pooling each unrolled over
networks 0.96 x the floor, convolution alone unrolled 1.13 x. A network's activations stay in the
cache while it runs, so unrolled is the default form; layers that multiply by a matrix are stacked.

`per_network` is the rule of every layer that has no other. It calls the layer as Keras calls it,
once for each network, and supports every layer. The other rules only make a layer faster and must
give the same values. Which layer has which rule is said in `hypernet_tf.targets.layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.targets.activations import activation_traits
from hypernet_tf.targets.graph import Call


class Value:
    """The values of one tensor of the graph in N networks, converted on demand and only once.

    Args:
        num_networks: N.
        shared: One tensor [B, ...] that is the same for all networks.
        stacked: One tensor [N, B, ...].
        each: N tensors [B, ...].
    """

    def __init__(
        self,
        num_networks: int,
        *,
        shared: Any = None,
        stacked: Any = None,
        each: Sequence | None = None,
    ):
        self.num_networks = num_networks
        self.shared = shared
        self._stacked = stacked
        self._each = None if each is None else list(each)

    @property
    def each(self) -> list:
        """N tensors [B, ...]."""
        if self._each is None:
            if self.shared is not None:
                self._each = [self.shared] * self.num_networks
            else:
                self._each = tf.unstack(self._stacked, num=self.num_networks)
        return self._each

    @property
    def stacked(self) -> tf.Tensor:
        """One tensor [N, B, ...]."""
        if self._stacked is None:
            if self.shared is not None:
                repeats = [self.num_networks] + [1] * self.shared.shape.rank
                self._stacked = tf.tile(self.shared[None], repeats)
            else:
                self._stacked = tf.stack(self._each)
        return self._stacked

    @property
    def is_masked(self) -> bool:
        """Whether the tensors carry a Keras mask."""
        tensors = [self.shared] if self.shared is not None else self._each or []
        return any(getattr(tensor, "_keras_mask", None) is not None for tensor in tensors)

    @property
    def is_stacked(self) -> bool:
        """Whether the value is held as one stacked tensor only."""
        return self.shared is None and self._each is None


class NetworkRun:
    """One run of N weight sets: holds their weights, and collects the new state.

    Args:
        variables: id of a template variable -> its N values, as one tensor [N, ...].
        num_networks: N.
        training: Whether layers run in training mode.
        batch_statistics: Whether batch normalisation uses the statistics of the batch outside
            training too.
        grouped: Whether convolutions with one kernel per network are one grouped convolution.
    """

    def __init__(
        self,
        variables: dict[int, tf.Tensor],
        num_networks: int,
        *,
        training: bool,
        batch_statistics: bool,
        grouped: bool,
    ):
        self.num_networks = num_networks
        self.training = training
        self.batch_statistics = batch_statistics
        self.grouped = grouped
        self._values = dict(variables)
        self._unstacked: dict[int, list] = {}

    def in_training_mode(self, layer: keras.Layer) -> bool:
        """Whether a layer runs in training mode."""
        return self.training or (
            self.batch_statistics and isinstance(layer, keras.layers.BatchNormalization)
        )

    def value(self, variable: Any) -> tf.Tensor:
        """The current values [N, ...] of a template variable."""
        return self._values[id(variable)]

    def weights(self, layer: keras.Layer) -> list[tf.Tensor]:
        """A layer's generated weights, each [N, ...], in the order of its trainable variables."""
        return [self.value(variable) for variable in layer.trainable_variables]

    def values_per_network(self, variables: Sequence) -> list[list[tf.Tensor]]:
        """The current values of template variables, as one list per network."""
        columns = []
        for variable in variables:
            key = id(variable)
            if key not in self._unstacked:
                self._unstacked[key] = tf.unstack(self._values[key], num=self.num_networks)
            columns.append(self._unstacked[key])
        return [[column[n] for column in columns] for n in range(self.num_networks)]

    def set_state(self, variable: Any, values: tf.Tensor) -> None:
        """Keep the new values [N, ...] of a state variable, which later calls read."""
        self._unstacked.pop(id(variable), None)
        self._values[id(variable)] = values


Rule = Callable[[NetworkRun, Call, tuple, dict], Any]


def values_in(args: tuple, kwargs: dict) -> list[Value]:
    """The values among the arguments of a call, in order."""
    return [leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, Value)]


def _with_tensors(arguments: Any, tensor_of: Callable[[Value], Any]) -> Any:
    """Arguments of a call with a tensor in place of each value."""
    return keras.tree.map_structure(
        lambda leaf: tensor_of(leaf) if isinstance(leaf, Value) else leaf, arguments
    )


# ---- rules for every layer ------------------------------------------------------------------


def per_network(run: NetworkRun, call: Call, args: tuple, kwargs: dict) -> Any:
    """Run a layer or operation network by network, which supports everything that Keras can call.

    Weights and state are handed in by a `keras.StatelessScope`, as `model.stateless_call` does;
    the layer's own `stateless_call` would skip what its `__call__` does: masks, mixed precision,
    and the mode of the layers inside it. An operation without variables whose inputs are all shared
    runs once, and its result stays shared.
    """
    operation = call.operation
    is_layer = isinstance(operation, keras.Layer)
    # A layer whose call does not take the mode still hands it to the layers inside it.
    mode = {"training": run.in_training_mode(operation)} if is_layer else {}
    variables = operation.variables if is_layer else []
    state = operation.non_trainable_variables if is_layer else []

    def called_with(tensor_of: Callable[[Value], Any]) -> Any:
        return operation(
            *_with_tensors(args, tensor_of), **_with_tensors(kwargs, tensor_of), **mode
        )

    def check_changes(scope: keras.StatelessScope) -> None:
        if scope.state_mapping.keys() - {id(variable) for variable in variables}:
            raise ValueError(
                f"Layer '{operation.name}' changes a variable that is not its own, such as Keras's "
                "global seed: draw with a keras.random.SeedGenerator that is its attribute."
            )

    if not variables and all(value.shared is not None for value in values_in(args, kwargs)):
        with keras.StatelessScope() as scope:
            result = called_with(lambda value: value.shared)
        check_changes(scope)
        return keras.tree.map_structure(lambda t: Value(run.num_networks, shared=t), result)

    given_values = values_in(args, kwargs)
    # MultiHeadAttention takes masks off its inputs, which networks may share.
    masks = [[getattr(t, "_keras_mask", None) for t in value.each] for value in given_values]
    results, scopes = [], []
    given: dict[int, list] = {id(variable): [] for variable in state}
    for n, weights in enumerate(run.values_per_network(variables)):
        for value, of_networks in zip(given_values, masks, strict=True):
            if of_networks[n] is not None:
                value.each[n]._keras_mask = of_networks[n]
        mapping = list(zip(variables, weights, strict=True))
        with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
            for variable in state:
                given[id(variable)].append(scope.get_current_value(variable))
            results.append(called_with(lambda value: value.each[n]))  # noqa: B023 (called at once)
        if scope.losses and run.training:
            raise ValueError(
                f"Layer '{operation.name}' calls add_loss, which is not supported in a target: "
                "return the loss as an output of the model, or use a diversity term."
            )
        check_changes(scope)
        scopes.append(scope)
    for variable in state:
        values = [scope.get_current_value(variable) for scope in scopes]
        if any(value is not old for value, old in zip(values, given[id(variable)], strict=True)):
            run.set_state(variable, tf.stack(values))
    return keras.tree.map_structure(lambda *each: Value(run.num_networks, each=each), *results)


def folded(run: NetworkRun, call: Call, args: tuple, kwargs: dict) -> Any:
    """Run a layer once on the batch [N·B, ...] of all networks' examples.

    For layers that treat each example by itself and have no variables. Only a stacked value is
    folded; a value that is held as N tensors runs network by network.
    """
    operation = call.operation
    values = values_in(args, kwargs)
    if (
        len(values) != 1
        or not values[0].is_stacked
        or call.reads_constants  # which may have a batch axis of their own
        or values[0].stacked.shape.rank == 2  # [N, B], without an axis inside of an example
        or getattr(operation, "variables", [])
    ):
        return per_network(run, call, args, kwargs)
    mode = {}
    if isinstance(operation, keras.Layer):
        mode = {"training": run.in_training_mode(operation)}

    def fold(value: Value) -> tf.Tensor:
        return _fold(value.stacked)

    outputs = operation(*_with_tensors(args, fold), **_with_tensors(kwargs, fold), **mode)
    return keras.tree.map_structure(
        lambda tensor: Value(run.num_networks, stacked=_unfold(tensor, run.num_networks)), outputs
    )


def _fold(tensor: tf.Tensor) -> tf.Tensor:
    """[N, B, ...] -> [N·B, ...]."""
    rest = tensor.shape[2:]
    if rest.is_fully_defined():
        return tf.reshape(tensor, [-1, *rest])
    shape = tf.shape(tensor)
    return tf.reshape(tensor, tf.concat([[shape[0] * shape[1]], shape[2:]], 0))


def _unfold(tensor: tf.Tensor, num_networks: int) -> tf.Tensor:
    """[N·B, ...] -> [N, B, ...]."""
    rest = tensor.shape[1:]
    if rest.is_fully_defined() and tensor.shape[0] is not None:
        return tf.reshape(tensor, [num_networks, tensor.shape[0] // num_networks, *rest])
    shape = tf.shape(tensor)
    return tf.reshape(tensor, tf.concat([[num_networks, shape[0] // num_networks], shape[1:]], 0))


# ---- batch normalisation --------------------------------------------------------------------


def batch_normalization(run: NetworkRun, call: Call, args: tuple, kwargs: dict) -> Any:
    """Batch normalisation of images: TensorFlow's fused operation, once for each network.

    Keras computes it in a dozen operations with as many passes over the activations, and a gradient
    of twice as many. The fused operation takes about half of the time.
    """
    layer, (value, *masks) = call.operation, values_in(args, kwargs)
    if (
        masks
        or call.reads_constants
        or value.each[0].shape.rank != 4
        or layer.axis not in (-1, 3)
        or not (layer.scale and layer.center)
        or layer.renorm
        or layer.variable_dtype != "float32"
        or layer.compute_dtype == "float64"
        or (layer.synchronized and tf.distribute.get_strategy().num_replicas_in_sync > 1)
    ):
        return per_network(run, call, args, kwargs)
    variables = [layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance]
    of_batch = run.in_training_mode(layer) and layer.trainable
    empty = tf.zeros([0])
    outputs, means, variances = [], [], []
    for x, parts in zip(value.each, run.values_per_network(variables), strict=True):
        gamma, beta, mean, variance = (tf.cast(part, "float32") for part in parts)
        normalised, batch_mean, batch_variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(x, "float32"),
            scale=gamma,
            offset=beta,
            mean=empty if of_batch else mean,
            variance=empty if of_batch else variance,
            epsilon=layer.epsilon,
            is_training=of_batch,
        )
        outputs.append(tf.cast(normalised, layer.compute_dtype))
        means.append(batch_mean)
        variances.append(batch_variance)
    if of_batch:
        size = tf.cast(tf.reduce_prod(tf.shape(value.each[0])[:-1]), "float32")
        biased = (size - 1.0) / size  # the operation divides by one less than the size
        for variable, batch in (
            (layer.moving_mean, tf.stack(means)),
            (layer.moving_variance, tf.stack(variances) * biased),
        ):
            old = run.value(variable)
            run.set_state(variable, old * layer.momentum + batch * (1.0 - layer.momentum))
    return Value(run.num_networks, each=outputs)


# ---- rules for layers with a kernel ---------------------------------------------------------


def dense(run: NetworkRun, call: Call, args: tuple, kwargs: dict) -> Any:
    """One batched matrix product: [N, B, in] x [N, in, out]; shared inputs are not repeated."""
    layer = call.operation
    weights = _kernel_and_bias(run, layer)
    if not weights:
        return per_network(run, call, args, kwargs)
    (value,) = values_in(args, kwargs)
    kernel = weights[0]
    if value.shared is not None and value.shared.shape.rank == 2:
        inputs = tf.cast(value.shared, layer.compute_dtype)
        outputs = tf.einsum("bi,nio->nbo", inputs, kernel)
    else:
        inputs = tf.cast(value.stacked, layer.compute_dtype)
        if inputs.shape.rank > 3:  # [N, B, ..., in]: the axes between belong to the examples
            kernel = tf.reshape(
                kernel, [run.num_networks, *[1] * (inputs.shape.rank - 3), *kernel.shape[1:]]
            )
        outputs = tf.matmul(inputs, kernel)
    if layer.use_bias:
        bias = weights[1]
        outputs += tf.reshape(
            bias, [run.num_networks, *[1] * (outputs.shape.rank - 2), bias.shape[-1]]
        )
    return Value(run.num_networks, stacked=_activated(layer.activation, outputs, run.num_networks))


def convolution(run: NetworkRun, call: Call, args: tuple, kwargs: dict) -> Any:
    """Unrolled over networks, or, where `run.grouped`, one convolution for all of them.

    Shared inputs need no groups: the N kernels are one kernel with N·F filters. Otherwise the
    networks are side by side on the channel axis, [B, ..., N·C], and convolved in N groups.
    """
    layer = call.operation
    weights = _kernel_and_bias(run, layer)
    (value,) = values_in(args, kwargs)
    if (
        not weights
        or layer.groups != 1
        or layer.data_format != "channels_last"
        or layer.padding == "causal"
    ):
        return per_network(run, call, args, kwargs)
    # TensorFlow has no grouped 3D convolution on CPU.
    if run.grouped and not (value.shared is None and layer.rank == 3):
        return _grouped_convolution(run, layer, weights, value)
    # What a call of the layer computes, in fewer operations: graphs of deep targets are large.
    outputs = []
    for n, unstacked in enumerate(zip(*map(tf.unstack, weights), strict=True)):
        each = _convolved(layer, value.each[n], unstacked[0])
        if layer.use_bias:
            each = tf.nn.bias_add(each, unstacked[1])
        outputs.append(layer.activation(each))
    return Value(run.num_networks, each=outputs)


def _convolved(layer: Any, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """The product [B, ..., F] of a convolution."""
    return tf.nn.convolution(
        tf.cast(inputs, layer.compute_dtype),
        kernel,
        strides=layer.strides,
        padding=layer.padding.upper(),
        dilations=layer.dilation_rate,
        # The default, which eager gradients in 3D do not know.
        data_format=("NWC", "NHWC", "NDHWC")[layer.rank - 1],
    )


def _grouped_convolution(
    run: NetworkRun, layer: Any, weights: list[tf.Tensor], value: Value
) -> Value:
    """One convolution for all networks."""
    num_networks, filters, kernel = run.num_networks, layer.filters, weights[0]
    # [N, ..., C, F] -> [..., C, N·F]: a network's filters stay together, which is what groups need.
    rank = kernel.shape.rank  # with N one more than a kernel's: that of [N, B, ..., C] too
    kernel = tf.transpose(kernel, [*range(1, rank - 1), 0, rank - 1])
    kernel = tf.reshape(kernel, [*kernel.shape[:-2], num_networks * filters])
    if value.shared is not None:
        inputs = value.shared
    else:
        stacked = value.stacked  # [N, B, ..., C]
        inputs = tf.transpose(stacked, [*range(1, rank - 1), 0, rank - 1])
        inputs = tf.reshape(
            inputs, tf.concat([tf.shape(inputs)[:-2], [num_networks * stacked.shape[-1]]], 0)
        )
    outputs = _convolved(layer, inputs, kernel)
    if layer.use_bias:
        outputs += tf.reshape(weights[1], [-1])
    outputs = tf.reshape(outputs, tf.concat([tf.shape(outputs)[:-1], [num_networks, filters]], 0))
    outputs = tf.transpose(outputs, [rank - 2, *range(rank - 2), rank - 1])
    return Value(num_networks, stacked=_activated(layer.activation, outputs, num_networks))


def _kernel_and_bias(run: NetworkRun, layer: Any) -> list[tf.Tensor]:
    """The generated weights of a layer, cast to its compute type.

    Empty where they are not just its kernel and bias: frozen, adapted (LoRA) or quantised weights,
    or an activation that is a layer, which has a mode and may have variables.
    """
    weights = run.weights(layer)
    is_layer = isinstance(layer.activation, keras.Layer)
    if is_layer or not len(weights) == len(layer.variables) == 1 + layer.use_bias:
        return []
    return [tf.cast(w, layer.compute_dtype) for w in weights]


def _activated(activation: Callable, outputs: tf.Tensor, num_networks: int) -> tf.Tensor:
    """The activation of [N, B, ...]: on all networks at once where that is the same."""
    if activation is keras.activations.linear:
        return outputs
    if activation_traits(activation).per_example:
        return _unfold(activation(_fold(outputs)), num_networks)
    return tf.stack([activation(part) for part in tf.unstack(outputs, num=num_networks)])
