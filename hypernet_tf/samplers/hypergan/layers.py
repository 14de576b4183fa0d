"""The Keras layers of which HyperGAN consists; its discriminator is a diversity term."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.samplers.initializers import Columns, normal_parts


class NormalizedMLP(keras.layers.Layer):
    """Per hidden layer dense, batch normalisation, activation; then dense. No layer has a bias.

    Batch normalisation averages over networks (momentum 0.9, epsilon 1e-5), and over all replicas
    if the layer is made in the scope of a strategy with several.

    Args:
        hidden: Sizes of the hidden layers.
        parts: (count, standard deviation) of parts of the output as it is initially; the counts
            add up to its size.
        activation: Name of the activation, "relu" or "elu", for example.
        shift: Whether batch normalisation has a shift.
        scale_output: Whether the output is divided by the square root of the last layer's fan-in,
            so that a step of Adam, which moves every kernel weight by its learning rate, moves the
            output less.

    Input: [N, in]. Output: [N, outputs].
    """

    def __init__(
        self,
        hidden: Sequence[int],
        parts: Sequence[tuple[int, float]],
        *,
        activation: str,
        shift: bool,
        scale_output: bool,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden = tuple(hidden)
        self.parts = [(int(count), std) for count, std in parts]
        self.scale_output = scale_output
        self.outputs = sum(count for count, _ in self.parts)
        synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
        policy = self.dtype_policy
        self.blocks = [
            (
                keras.layers.Dense(
                    size, use_bias=False, kernel_initializer="he_normal", dtype=policy
                ),
                keras.layers.BatchNormalization(
                    momentum=0.9,
                    epsilon=1e-5,
                    center=shift,
                    synchronized=synchronized,
                    dtype=policy,
                ),
                keras.layers.Activation(activation, dtype=policy),
            )
            for size in self.hidden
        ]
        self.last = keras.layers.Dense(
            self.outputs,
            use_bias=False,
            kernel_initializer=Columns(
                self.parts, self._output_scale, _mean_square(activation, hidden)
            ),
            dtype=policy,
        )

    @property
    def _output_scale(self) -> float:
        return self.hidden[-1] ** -0.5 if self.scale_output and self.hidden else 1.0

    def build(self, input_shape):
        """Build every sublayer."""
        shape = tuple(input_shape)
        for dense, norm, _ in self.blocks:
            dense.build(shape)
            shape = (*shape[:-1], dense.units)
            norm.build(shape)
        self.last.build(shape)

    def call(self, inputs, training=False):
        """Run the blocks."""
        for dense, norm, activation in self.blocks:
            inputs = activation(norm(dense(inputs), training=training))
        return self.last(inputs) * self._output_scale

    def compute_output_shape(self, input_shape):
        """The input's shape with the last axis replaced."""
        return (*input_shape[:-1], self.outputs)


def _mean_square(activation: str, hidden: Sequence[int]) -> float:
    """The mean square of what a last layer gets: the activation of a standard normal."""
    if not hidden:
        return 1.0
    quantiles = tf.cast(tf.linspace(0.0005, 0.9995, 1000), tf.float32)
    values = keras.activations.get(activation)(tf.math.ndtri(quantiles))
    return float(tf.reduce_mean(values**2))


class Mixer(NormalizedMLP):
    """HyperGAN's mixer: noise -> one code for each layer of the target, which are correlated.

    Args:
        hidden: Sizes of the hidden layers.
        parts: (code_dim, initial standard deviation) of each code.
        **kwargs: Options of `NormalizedMLP`.

    Input: noise [N, noise_dim]. Output: codes [N, layers, code_dim].
    """

    def call(self, inputs, training=False):
        """The codes."""
        codes = super().call(inputs, training=training)
        return keras.ops.reshape(codes, (-1, len(self.parts), self.parts[0][0]))

    def compute_output_shape(self, input_shape):
        """[N, layers, code_dim]."""
        return (input_shape[0], len(self.parts), self.parts[0][0])


class LayerGenerator(NormalizedMLP):
    """HyperGAN's generator of a layer: its code -> all its weights and biases.

    The last layer has no bias: a fixed row, the anchor, is added to its output.

    Args:
        hidden: Sizes of the hidden layers.
        moments: (count, mean, standard deviation) of the layer's kernel, bias, ..., initially.
        scatter: Standard deviation of the networks around the anchor, in units of the moments'; the
            anchor is a draw with the rest of the variance.
        **kwargs: Options of `NormalizedMLP`.

    Input: codes [N, code_dim]. Output: weights [N, size of the layer].
    """

    def __init__(
        self,
        hidden: Sequence[int],
        moments: Sequence[tuple[int, float, float]],
        *,
        scatter: float,
        **kwargs: Any,
    ):
        super().__init__(hidden, [(count, scatter * std) for count, _, std in moments], **kwargs)
        self.moments = [tuple(part) for part in moments]
        self.scatter = scatter

    def build(self, input_shape):
        """Build every sublayer and draw the anchor."""
        super().build(input_shape)
        draw = normal_parts(self.moments, (1 - self.scatter**2) ** 0.5)
        self.anchor = self.add_weight(
            name="anchor", shape=(self.outputs,), initializer=draw, trainable=False, autocast=False
        )

    def call(self, inputs, training=False):
        """The weights."""
        outputs = super().call(inputs, training=training)
        # In the precision of variables: half precision would round the networks' differences.
        return tf.cast(outputs, self.variable_dtype) + self.anchor
