"""Bayesian hypernetworks: a flow makes the norms of all filters of a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.checks import check_choice, check_count, check_fixed, check_number
from hypernet_tf.ensembles.inference import examples_at_once
from hypernet_tf.samplers.deep_ensemble import initializer_config, trained_weights
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.samplers.fit_inputs import some_inputs
from hypernet_tf.samplers.latent import LatentSampler
from hypernet_tf.samplers.mnf.flows import flow as chain_of_steps
from hypernet_tf.targets import Target, WeightSet
from hypernet_tf.targets.filters import Slot, seeded
from hypernet_tf.targets.graph import Call, in_order, record, replay
from hypernet_tf.targets.layers import channels_last

# What a step of the flow reads to change an entry: the other half of the vector, or all before it.
FlowKind = Literal["realnvp", "iaf"]

# Standard deviation of a norm at the start, as a fraction of its mean.
_INITIAL_SPREAD = 0.1


@keras.saving.register_keras_serializable(package="hypernet_tf")
class BHN(LatentSampler):
    """Bayesian hypernetwork: a normalizing flow makes the norms of all filters (Krueger et al.).

    Layers are weight-normalised: filter j of a kernel is W_j = g_j · v_j / ||v_j||. The norms g of
    all filters of a network come from one vector of standard normals,

        g = step_K ∘ … ∘ step_1 (m + s · z),    z ~ N(0, I)

    so that layers depend on each other. The directions v, the biases, and the weights of layers
    without filters are trained constants. The loss is the negative evidence lower bound divided by
    the size of the data set,

        lam · accuracy loss + mean over networks of (log q(g) - log p(g)) / num_data

    with a normal prior p(g) of variance 1 / precision. `fit` reports log q(g) - log p(g) in nats,
    undivided, as `kl_norms`.

    Steps of the flow start as the identity. `fit` begins with `initialize`, which sets m and the
    biases so that pre-activations have mean 0 and variance 1. Training steps run on the weights as
    they are; samples are gauge-fixed, which moves the norms of hidden filters into the layers that
    read them, and changes no function.

    Args:
        target: The `Target`, or a Keras model.
        num_data: Number of training examples.
        flow: Kind of the flow's steps: "realnvp", in which one half of the norms changes the other
            half, in turns; or "iaf", inverse autoregressive, in which a norm changes all norms
            behind it.
        num_steps: K, number of steps; 0 for independent normal norms.
        hidden: Number of hidden units of a step's network.
        precision: Precision of the normal prior on the norms.
        initializers: Initializers of the directions and the constants; see `DeepEnsemble`.
        **kwargs: Options of `WeightSampler`, except prior_scale and diversity: num_networks, lam,
            gauge, seed, ...

    Attributes:
        latent_dim: d, the number of filters.

    Raises:
        ValueError: No layer of the target has filters, or an argument is out of range.

    Example:
        >>> sampler = BHN(zoo.mnist(), num_data=55_000, num_networks=1)
        >>> sampler.latent_dim                       # 32 + 16 + 8 + 10 filters
        66
        >>> loss = SparseCategoricalCrossentropy(from_logits=True)
        >>> sampler.compile(Adam(1e-3, epsilon=1e-8), loss)
        >>> sampler.fit(x, y, batch_size=128, epochs=100)

    Reference: "Bayesian Hypernetworks", arXiv 1710.04759.
    """

    trains_in_gauge = False
    initializes_on_inputs = True

    def __init__(
        self,
        target: Target,
        *,
        num_data: int,
        flow: FlowKind = "realnvp",
        num_steps: int = 4,
        hidden: int = 200,
        precision: float = 1.0,
        initializers: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        num_data = check_count("num_data", num_data)
        check_choice("flow", flow, FlowKind)
        num_steps, hidden = check_count("num_steps", num_steps, 0), check_count("hidden", hidden)
        check_number("precision", precision)
        check_fixed(self, kwargs, diversity=[], prior_scale=None)
        super().__init__(target, diversity=[], prior_scale=None, **kwargs)
        self.num_data, self.flow, self.num_steps = num_data, flow, num_steps
        self.hidden, self.precision = hidden, precision
        self.initializers = dict(initializers or {})
        self._normalised = [
            layer
            for layer in self.target.layers
            if layer.has_filters and len(layer.slots[0].split) > 1
        ]
        if not self._normalised:
            raise ValueError("No layer of the target has filters: use a dense layer, for example.")
        self.latent_dim = sum(layer.filters for layer in self._normalised)
        self.theta = trained_weights(self, 1, self.initializers)
        norms = tf.concat(self._initial_norms(), 0)
        self.shift = self.add_weight(
            name="shift", shape=(self.latent_dim,), initializer=lambda *_, **__: norms
        )
        self.log_scale = self.add_weight(
            name="log_scale",
            shape=(self.latent_dim,),
            initializer=lambda *_, **__: _log_spread(norms),
        )
        self.steps = [
            FlowStep(
                hidden,
                kind=flow,
                is_reversed=number % 2 == 1,
                seed=self.seed * 1_000 + number,  # samplers share none
                dtype="float32",
            )
            for number in range(num_steps)
        ]
        for step in self.steps:
            step.build((None, self.latent_dim))
        self.kl_tracker = keras.metrics.Mean(name="kl_norms")
        self.built = True

    def _initial_norms(self) -> list[tf.Tensor]:
        """The norms [F] of each layer's filters as the model's initializers draw them."""
        kernels = [(layer.slots[0], self.theta[layer.slots[0].index]) for layer in self._normalised]
        return [
            tf.sqrt(tf.reduce_sum(tf.reshape(kernel.value, slot.split) ** 2, _other_axes(slot)))
            for slot, kernel in kernels
        ]

    # ---- what it draws --------------------------------------------------------------------

    def norms(self, z: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The norms of the filters, which may be negative.

        Args:
            z: Standard normals [N, d].

        Returns:
            g [N, d], and log q(g) [N].
        """
        from tensorflow_probability import distributions as tfd  # takes seconds to load

        start = self.shift.value + tf.exp(self.log_scale.value) * z
        normal = tfd.MultivariateNormalDiag(self.shift.value, tf.exp(self.log_scale.value))
        log_q = normal.log_prob(start)
        if not self.steps:
            return start, log_q
        bijector = chain_of_steps(self.steps)
        return bijector.forward(start), log_q - bijector.forward_log_det_jacobian(start)

    def generate(self, z: tf.Tensor, *, training: bool = False) -> Draw:
        """Make the weights of networks from latent vectors.

        Args:
            z: Standard normals [N, d].
            training: Has no effect.
        """
        norms = tf.split(self.norms(z)[0], [layer.filters for layer in self._normalised], axis=-1)
        weights = [
            tf.broadcast_to(variable.value, [z.shape[0], *variable.shape[1:]])
            for variable in self.theta
        ]
        for layer, of_filters in zip(self._normalised, norms, strict=True):
            slot = layer.slots[0]
            directions = _unit_filters(self.theta[slot.index].value[0], slot)
            shape = [z.shape[0], *[1] * len(slot.split)]
            shape[slot.axis + 1] = layer.filters
            kernel = directions * tf.reshape(of_filters, shape)  # [N, ...]
            weights[slot.index] = tf.reshape(kernel, [z.shape[0], *slot.shape])
        return Draw(weights, z)

    def kl(self, z: tf.Tensor) -> tf.Tensor:
        """Estimate log q(g) - log p(g) of networks, in nats.

        Args:
            z: Standard normals [N, d].

        Returns:
            The estimates [N], whose mean is the Kullback-Leibler divergence of q from the prior.
        """
        norms, log_q = self.norms(z)
        log_p = 0.5 * (math.log(self.precision / (2 * math.pi)) - self.precision * norms**2)
        return log_q - tf.reduce_sum(log_p, -1)

    def extra_loss(self, drawn: Draw) -> tf.Tensor:
        """The mean of log q(g) - log p(g) over networks, divided by the size of the data set."""
        mean = tf.reduce_mean(self.kl(drawn.z))
        self.kl_tracker.update_state(mean)
        return mean / self.num_data

    # ---- the start ------------------------------------------------------------------------

    def initialize(self, x: Any = None, *, verbose: int = 0) -> None:
        """Give the pre-activations of each layer with filters mean 0 and variance 1 on inputs.

        It sets the means and the spread of the norms, and the biases, layer by layer. A channel
        that is constant on these inputs gets variance 0. Call it before training; `fit` does.

        Args:
            x: Some training inputs [M, ...]; None changes nothing.
            verbose: Has no effect.
        """
        if x is None:
            return
        # All activations of one network on these inputs are in memory at once.
        activations = self.target.activations_per_example(some_inputs(x, 1))
        x = some_inputs(x, min(1_000, max(2, examples_at_once(activations, 1))))
        # Training steps run on these weights, not on those in the gauge.
        drawn = self.generate(tf.zeros([1, self.latent_dim]))
        network = self.target.to_keras(WeightSet(drawn.trainable, self.target.initial_state(1)))
        plan = record(network)
        layers = {
            id(operation): self.target.weighted(original)
            for operation, original in zip(
                plan.operations, self.target.plan.operations, strict=True
            )
        }
        inputs = in_order(x, plan.inputs, [tensor.name for tensor in network.inputs])
        inputs = [tf.cast(x, like.dtype) for x, like in zip(inputs, network.inputs, strict=True)]

        def initialize_and_call(call: Call, args: tuple, kwargs: dict) -> Any:
            operation = call.operation
            if isinstance(operation, keras.layers.BatchNormalization):
                kwargs["training"] = True
            layer = layers.pop(id(operation), None)
            if layer in self._normalised and hasattr(operation, "activation"):
                self._start_layer(operation, layer, network, args, kwargs)
            return operation(*args, **kwargs)

        replay(plan, inputs, initialize_and_call)

    def _start_layer(
        self, operation: Any, layer: Any, network: keras.Model, args: tuple, kwargs: dict
    ) -> None:
        """Set the norms and the biases of a layer, here and in the network that runs."""
        slots = {slot.name: slot for slot in layer.slots}
        kernel_slot, bias_slot = layer.slots[0], slots.get("bias")
        kernel = network.trainable_variables[kernel_slot.index]
        directions = _unit_filters(self.theta[kernel_slot.index].value[0], kernel_slot)
        kernel.assign(tf.reshape(directions, kernel_slot.shape))
        if bias_slot is not None:
            network.trainable_variables[bias_slot.index].assign(tf.zeros(bias_slot.shape))
        activation, operation.activation = operation.activation, keras.activations.linear
        outputs = operation(*args, **kwargs)
        operation.activation = activation
        axis = outputs.shape.rank - 1 if channels_last(operation) else 1
        others = [other for other in range(outputs.shape.rank) if other != axis]
        mean, variance = tf.nn.moments(tf.cast(outputs, tf.float32), others)
        norms = tf.where(variance > 1e-6, tf.math.rsqrt(tf.maximum(variance, 1e-6)), 1.0)  # [F]
        shape = [1] * len(kernel_slot.split)
        shape[kernel_slot.axis] = layer.filters
        kernel.assign(tf.reshape(directions * tf.reshape(norms, shape), kernel_slot.shape))
        if bias_slot is not None:
            network.trainable_variables[bias_slot.index].assign(-mean * norms)
            self.theta[bias_slot.index].assign((-mean * norms)[None])
        first = sum(other.filters for other in self._normalised[: self._normalised.index(layer)])
        index = tf.range(first, first + layer.filters)[:, None]
        for variable, value in ((self.shift, norms), (self.log_scale, _log_spread(norms))):
            variable.assign(tf.tensor_scatter_nd_update(variable.value, index, value))

    # ---- serialisation --------------------------------------------------------------------

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {
            "num_data": self.num_data,
            "flow": self.flow,
            "num_steps": self.num_steps,
            "hidden": self.hidden,
            "precision": self.precision,
            "initializers": initializer_config(self.initializers),
        }


def _log_spread(norms: tf.Tensor) -> tf.Tensor:
    return tf.math.log(_INITIAL_SPREAD * tf.maximum(tf.abs(norms), 1e-3))


def _other_axes(slot: Slot) -> list[int]:
    return [axis for axis in range(len(slot.split)) if axis != slot.axis]


def _unit_filters(kernel: Any, slot: Slot) -> tf.Tensor:
    """The directions of a kernel's filters, in the shape `slot.split`."""
    return tf.math.l2_normalize(tf.reshape(kernel, slot.split), axis=_other_axes(slot))


class FlowStep(keras.layers.Layer):
    """A step x' = exp(log_scale(x)) · x + shift(x) of a flow, triangular in the entries of x.

        h = relu(dense(x)),    shift, a = dense(h),    log_scale = tanh(a)

    Both dense layers are weight-normalised, and masked so that an entry depends only on entries of
    a lower degree (Germain et al. 2015): "realnvp" gives degree 0 to the first half and 1 to the
    second, "iaf" counts all entries. Entries of degree 0 do not change. The gains of the second
    layer start at 0, so that a new step is the identity.

    Args:
        hidden: Number of hidden units.
        kind: "realnvp" or "iaf".
        is_reversed: Whether degrees fall along x instead of rising.
        seed: Seed of the initial directions.
        **kwargs: Arguments of `keras.layers.Layer`.

    Input: x [N, n]. Output: shift and log_scale, both [N, n].

    References: "Density estimation using Real NVP", arXiv 1605.08803; "Improving Variational
    Inference with Inverse Autoregressive Flow", arXiv 1606.04934.
    """

    def __init__(
        self,
        hidden: int,
        *,
        kind: FlowKind,
        is_reversed: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden, self.kind, self.is_reversed, self.seed = hidden, kind, is_reversed, seed

    def build(self, input_shape):
        """Make the masks and the weights."""
        size = input_shape[-1]
        degrees = np.arange(size) if self.kind == "iaf" else np.arange(size) * 2 // size
        if self.is_reversed:
            degrees = degrees.max() - degrees
        highest = max(1, degrees.max())
        hidden = np.arange(self.hidden)  # the degrees of hidden units, spread if they are few
        hidden = hidden * highest // self.hidden if self.hidden < highest else hidden % highest
        twice = np.tile(degrees, 2)  # shifts, then logarithms of scales
        self._changes = tf.constant(twice > 0, tf.float32)
        self._masks = [
            tf.constant(degrees[:, None] <= hidden, tf.float32),
            tf.constant(hidden[:, None] < twice, tf.float32),
        ]
        self.directions, self.gains, self.biases = [], [], []
        for number, (shape, gain) in enumerate(
            (((size, self.hidden), "ones"), ((self.hidden, 2 * size), "zeros"))
        ):
            normal = seeded(keras.initializers.RandomNormal(stddev=0.05), self.seed, number)
            self.directions.append(
                self.add_weight(name=f"directions_{number}", shape=shape, initializer=normal)
            )
            self.gains.append(
                self.add_weight(name=f"gains_{number}", shape=shape[1:], initializer=gain)
            )
            self.biases.append(
                self.add_weight(name=f"biases_{number}", shape=shape[1:], initializer="zeros")
            )

    def _dense(self, number: int, x: tf.Tensor) -> tf.Tensor:
        masked = self._masks[number] * self.directions[number].value
        kernel = self.gains[number].value * tf.math.l2_normalize(masked, axis=0)
        return tf.matmul(x, kernel) + self.biases[number].value

    def call(self, x):
        """The shift and the logarithm of the scale that the step applies to x."""
        outputs = self._changes * self._dense(1, tf.nn.relu(self._dense(0, x)))
        shift, log_scale = tf.split(outputs, 2, axis=-1)
        return shift, tf.tanh(log_scale)

    def compute_output_shape(self, input_shape):
        """Two tensors of the input's shape."""
        return tuple(input_shape), tuple(input_shape)
