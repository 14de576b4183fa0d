"""The parts of which hypernetworks are made, as Keras layers."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def initial_weights() -> keras.initializers.Initializer:
    """The published start: truncated normal of variance 0.01 / fan-in."""
    return keras.initializers.VarianceScaling(0.01, "fan_in", "truncated_normal")


@keras.saving.register_keras_serializable(package="hypernet_tf")
class MLP(keras.layers.Layer):
    """Per hidden layer dense without bias, leaky ReLU (0.05), batch normalisation; then dense.

    Batch normalisation averages over every axis but the last (momentum 0.98, epsilon 1e-7), and
    over all replicas where the layer is made in the scope of a strategy that has several.

    Args:
        hidden: the sizes of the hidden layers.
        outputs: the size of the output.

    Input [..., in], output [..., outputs].

    Reference: Deutsch, Nijkamp, Yang (2019), appendix A, and its published program.
    """

    def __init__(self, hidden: tuple[int, ...], outputs: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden = tuple(hidden)
        self.outputs = outputs
        several = tf.distribute.get_strategy().num_replicas_in_sync > 1
        policy = self.dtype_policy
        self.blocks = [
            (
                keras.layers.Dense(
                    size, use_bias=False, kernel_initializer=initial_weights(), dtype=policy
                ),
                keras.layers.LeakyReLU(0.05, dtype=policy),
                keras.layers.BatchNormalization(
                    momentum=0.98, epsilon=1e-7, synchronized=several, dtype=policy
                ),
            )
            for size in self.hidden
        ]
        self.last = keras.layers.Dense(
            outputs, use_bias=False, kernel_initializer=initial_weights(), dtype=policy
        )

    def build(self, input_shape):
        """Build every sublayer."""
        shape = tuple(input_shape)
        for dense, _, norm in self.blocks:
            dense.build(shape)
            shape = (*shape[:-1], dense.units)
            norm.build(shape)
        self.last.build(shape)

    def call(self, inputs, training=False):
        """Run the blocks."""
        for dense, activation, norm in self.blocks:
            inputs = norm(activation(dense(inputs)), training=training)
        return self.last(inputs)

    def compute_output_shape(self, input_shape):
        """The input's shape with the last axis replaced."""
        return (*input_shape[:-1], self.outputs)

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {"hidden": list(self.hidden), "outputs": self.outputs}


@keras.saving.register_keras_serializable(package="hypernet_tf")
class Extractor(keras.layers.Layer):
    """z -> one code for each filter of each layer.

    Args:
        hidden: the sizes of the hidden layers of its MLP.
        codes: (F, code_dim) of each layer.

    Input z [N, d]; output a list of codes [N, F, code_dim], layer by layer.
    """

    def __init__(self, hidden: tuple[int, ...], codes: list[tuple[int, int]], **kwargs: Any):
        super().__init__(**kwargs)
        self.codes = [tuple(code) for code in codes]
        outputs = sum(filters * size for filters, size in self.codes)
        self.mlp = MLP(hidden, outputs, name="mlp", dtype=self.dtype_policy)

    def build(self, input_shape):
        """Build the MLP."""
        self.mlp.build(input_shape)

    def call(self, z, training=False):
        """The codes."""
        sizes = [filters * size for filters, size in self.codes]
        flat = tf.split(self.mlp(z, training=training), sizes, axis=-1)
        return [
            keras.ops.reshape(part, (-1, filters, size))
            for part, (filters, size) in zip(flat, self.codes, strict=True)
        ]

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {
            "hidden": list(self.mlp.hidden),
            "codes": [list(code) for code in self.codes],
        }


@keras.saving.register_keras_serializable(package="hypernet_tf")
class WeightGenerator(MLP):
    """Code of a filter -> all its weights; one generator serves all filters of a layer.

    Input codes [N, F, code_dim]; output rows [N, F, outputs].
    """
