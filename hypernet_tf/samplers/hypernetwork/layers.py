"""The parts of which hypernetworks are made, as Keras layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# How far networks lie from what they have in common at the start, in its standard deviations.
_AROUND_A_PLACE = 0.05


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
        residual: whether a hidden layer's input is added to its output, where their sizes agree.
        start: initializer of the last layer; None for the published one.

    Input [..., in], output [..., outputs].

    Reference: Deutsch, Nijkamp, Yang (2019), appendix A, and its published program.
    """

    def __init__(
        self,
        hidden: tuple[int, ...],
        outputs: int,
        *,
        residual: bool = False,
        start: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden = tuple(hidden)
        self.outputs = outputs
        self.residual = residual
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
            outputs, use_bias=False, kernel_initializer=start or initial_weights(), dtype=policy
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
            outputs = norm(activation(dense(inputs)), training=training)
            skip = self.residual and inputs.shape[-1] == dense.units
            inputs = inputs + outputs if skip else outputs
        return self.last(inputs)

    def compute_output_shape(self, input_shape):
        """The input's shape with the last axis replaced."""
        return (*input_shape[:-1], self.outputs)

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {
            "hidden": list(self.hidden),
            "outputs": self.outputs,
            "residual": self.residual,
        }


@keras.saving.register_keras_serializable(package="hypernet_tf")
class Extractor(keras.layers.Layer):
    """z -> one code for each filter of each layer.

    Args:
        hidden: the sizes of the hidden layers of its MLP.
        codes: (F, code_dim) of each unit of layers.
        residual: see `MLP`.
        places: whether each filter has a place of its own in the space of codes, a fixed standard
            normal vector around which its codes lie, at the start with a standard deviation of
            0.05. Without it the codes of all filters lie around zero, and at the start networks
            differ as much as filters do.

    Input z [N, d]; output a list of codes [N, F, code_dim], unit by unit.
    """

    def __init__(
        self,
        hidden: tuple[int, ...],
        codes: list[tuple[int, int]],
        *,
        residual: bool = False,
        places: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.codes = [tuple(code) for code in codes]
        outputs = sum(filters * size for filters, size in self.codes)
        start = _Columns([(outputs, _AROUND_A_PLACE)], tuple(hidden), residual) if places else None
        options: dict[str, Any] = {"residual": residual, "dtype": self.dtype_policy}
        self.mlp = MLP(hidden, outputs, start=start, name="mlp", **options)
        self.has_places = places
        self.places: Any = None

    def build(self, input_shape):
        """Build the MLP."""
        self.mlp.build(input_shape)
        if self.has_places:
            normal = keras.initializers.RandomNormal(stddev=1.0)
            shape = (self.mlp.outputs,)
            self.places = self.add_weight(
                name="places", shape=shape, initializer=normal, trainable=False
            )

    def call(self, z, training=False):
        """The codes."""
        sizes = [filters * size for filters, size in self.codes]
        codes = self.mlp(z, training=training)
        if self.places is not None:
            codes += tf.cast(self.places, codes.dtype)
        flat = tf.split(codes, sizes, axis=-1)
        return [
            keras.ops.reshape(part, (-1, filters, size))
            for part, (filters, size) in zip(flat, self.codes, strict=True)
        ]

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {
            "hidden": list(self.mlp.hidden),
            "codes": [list(code) for code in self.codes],
            "residual": self.mlp.residual,
            "places": self.has_places,
        }


@keras.saving.register_keras_serializable(package="hypernet_tf")
class WeightGenerator(MLP):
    """Code of a filter -> all its weights; one generator serves all filters of a layer.

    Args:
        hidden: the sizes of the hidden layers.
        moments: (count, mean, standard deviation) of parts of the output at the start, which add up
            to its size. Standard deviations, all of them, may be None: the published start.
        place: whether these moments are those of one fixed draw, around which outputs lie with a
            twentieth of the standard deviation. For layers with a single code: batch normalisation
            leaves nothing of what the codes of all networks have in common.
        residual: see `MLP`.

    Input codes [N, F, code_dim]; output rows [N, F, sum of the counts].

    The last layer has no bias: a mean that is not zero, or the draw, is added to its output, and
    stays.
    """

    def __init__(
        self,
        hidden: tuple[int, ...],
        moments: Sequence[tuple[int, float, float | None]],
        *,
        place: bool = False,
        residual: bool = False,
        **kwargs: Any,
    ):
        self.moments = list(moments)
        self.place = place
        part = _AROUND_A_PLACE if place else 1.0
        scatter = [(count, part * std) for count, _, std in self.moments if std is not None]
        start = _Columns(scatter, tuple(hidden), residual) if scatter else None
        outputs = sum(count for count, _, _ in self.moments)
        super().__init__(hidden, outputs, residual=residual, start=start, **kwargs)
        self.means: Any = None

    def build(self, input_shape):
        """Build every sublayer."""
        super().build(input_shape)
        if self.moments[0][2] is not None:
            counts, means, deviations = np.array(self.moments, float).T
            draw = keras.initializers.RandomNormal(
                np.repeat(means, counts.astype(int)).astype("float32"),
                np.repeat(self.place * deviations, counts.astype(int)).astype("float32"),
            )
            self.means = self.add_weight(
                name="means", shape=(self.outputs,), initializer=draw, trainable=False
            )

    def call(self, inputs, training=False):
        """The rows."""
        rows = super().call(inputs, training=training)
        return rows if self.means is None else rows + tf.cast(self.means, rows.dtype)

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        config = super().get_config()
        del config["outputs"]
        return config | {"moments": [list(part) for part in self.moments], "place": self.place}


class _Columns(keras.initializers.Initializer):
    """Kernel of a generator's last layer, such that parts of its output have a given scatter.

    What it reads has mean square one, that of a normalised layer, and one more for each skip
    connection before it. Without hidden layers it reads codes, taken to be of mean square 0.01.
    """

    def __init__(self, parts: list[tuple[int, float]], hidden: tuple[int, ...], residual: bool):
        self.parts = parts
        self.mean_square = 1.0 if hidden else 0.01
        for size, before in itertools.pairwise(reversed(hidden)):
            if not residual or size != before:
                break
            self.mean_square += 1.0

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        columns = []
        for count, std in self.parts:
            if std == 0.0:
                columns.append(tf.zeros((shape[0], count), dtype))
                continue
            variance = std**2 / self.mean_square
            scaled = keras.initializers.VarianceScaling(variance, "fan_in", "truncated_normal")
            columns.append(scaled((shape[0], count), dtype=dtype))
        return tf.concat(columns, 1)
