"""The Keras layers of which a hypernetwork consists."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

# Initial scatter of networks around an anchor, in units of the anchors' own standard deviation.
_SCATTER_AROUND_ANCHOR = 0.05


def initial_weights() -> keras.initializers.Initializer:
    """The published initializer: truncated normal of variance 0.01 / fan-in."""
    return keras.initializers.VarianceScaling(0.01, "fan_in", "truncated_normal")


@keras.saving.register_keras_serializable(package="hypernet_tf")
class MLP(keras.layers.Layer):
    """Per hidden layer dense without bias, leaky ReLU (0.05), batch normalisation; then dense.

    Batch normalisation averages over all axes except the last (momentum 0.98, epsilon 1e-7), and
    over all replicas if the layer is made in the scope of a strategy with several.

    Args:
        hidden: Sizes of the hidden layers.
        outputs: Size of the output.
        residual: Whether a hidden layer's input is added to its output if their sizes agree.
        last_initializer: Initializer of the last layer; None for the published one.

    Input: [..., in]. Output: [..., outputs].

    Reference: Deutsch, Nijkamp, Yang (2019), appendix A, and its published program.
    """

    def __init__(
        self,
        hidden: tuple[int, ...],
        outputs: int,
        *,
        residual: bool = False,
        last_initializer: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden = tuple(hidden)
        self.outputs = outputs
        self.residual = residual
        synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
        policy = self.dtype_policy
        self.blocks = [
            (
                keras.layers.Dense(
                    size, use_bias=False, kernel_initializer=initial_weights(), dtype=policy
                ),
                keras.layers.LeakyReLU(0.05, dtype=policy),
                keras.layers.BatchNormalization(
                    momentum=0.98, epsilon=1e-7, synchronized=synchronized, dtype=policy
                ),
            )
            for size in self.hidden
        ]
        self.last = keras.layers.Dense(
            outputs,
            use_bias=False,
            kernel_initializer=last_initializer or initial_weights(),
            dtype=policy,
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
    """z -> a code for each filter of each layer.

    Args:
        hidden: Sizes of the hidden layers of its MLP.
        codes: (F, code_dim) of each unit of layers.
        residual: Whether the MLP has skip connections.
        anchored: Whether each filter has an anchor in the space of codes: a fixed standard normal
            vector around which its codes lie, initially with a standard deviation of 0.05. Without
            anchors the codes of all filters lie around zero, and initially networks differ as much
            as filters do.

    Input: z [N, d]. Output: a list of codes [N, F, code_dim], one for each unit.
    """

    def __init__(
        self,
        hidden: tuple[int, ...],
        codes: list[tuple[int, int]],
        *,
        residual: bool = False,
        anchored: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.codes = [tuple(code) for code in codes]
        outputs = sum(filters * size for filters, size in self.codes)
        scatter = [(outputs, _SCATTER_AROUND_ANCHOR)]
        self.mlp = MLP(
            hidden,
            outputs,
            residual=residual,
            last_initializer=_Columns(scatter, tuple(hidden), residual) if anchored else None,
            name="mlp",
            dtype=self.dtype_policy,
        )
        self.anchored = anchored
        self.anchors: Any = None

    def build(self, input_shape):
        """Build the MLP and draw the anchors."""
        self.mlp.build(input_shape)
        if self.anchored:
            normal = keras.initializers.RandomNormal(stddev=1.0)
            shape = (self.mlp.outputs,)
            self.anchors = self.add_weight(
                name="anchors", shape=shape, initializer=normal, trainable=False
            )

    def call(self, z, training=False):
        """The codes."""
        sizes = [filters * size for filters, size in self.codes]
        codes = self.mlp(z, training=training)
        if self.anchors is not None:
            codes += tf.cast(self.anchors, codes.dtype)
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
            "anchored": self.anchored,
        }


@keras.saving.register_keras_serializable(package="hypernet_tf")
class WeightGenerator(MLP):
    """Code of a filter -> all its weights; one generator serves all filters of a layer.

    Args:
        hidden: Sizes of the hidden layers.
        moments: (count, mean, standard deviation) of parts of the initial output; the counts add up
            to its size. If all standard deviations are None, the published initializer is used.
        anchored: Whether these moments are those of one fixed draw, the anchor, around which
            outputs lie with a twentieth of the standard deviation. This is for layers with a single
            code, because batch normalisation removes what the codes of all networks have in common.
        residual: Whether the MLP has skip connections.

    Input: codes [N, F, code_dim]. Output: rows [N, F, sum of the counts].

    The last layer has no bias: the means, or the anchor, are fixed and added to its output.
    """

    def __init__(
        self,
        hidden: tuple[int, ...],
        moments: Sequence[tuple[int, float, float | None]],
        *,
        anchored: bool = False,
        residual: bool = False,
        **kwargs: Any,
    ):
        self.moments = list(moments)
        self.anchored = anchored
        factor = _SCATTER_AROUND_ANCHOR if anchored else 1.0
        scatter = [(count, factor * std) for count, _, std in self.moments if std is not None]
        initializer = _Columns(scatter, tuple(hidden), residual) if scatter else None
        outputs = sum(count for count, _, _ in self.moments)
        super().__init__(hidden, outputs, residual=residual, last_initializer=initializer, **kwargs)
        self.means: Any = None

    def build(self, input_shape):
        """Build every sublayer and draw the anchor."""
        super().build(input_shape)
        if self.moments[0][2] is not None:
            counts, means, deviations = np.array(self.moments, float).T
            draw = keras.initializers.RandomNormal(
                np.repeat(means, counts.astype(int)).astype("float32"),
                np.repeat(self.anchored * deviations, counts.astype(int)).astype("float32"),
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
        return config | {
            "moments": [list(part) for part in self.moments],
            "anchored": self.anchored,
        }


class _Columns(keras.initializers.Initializer):
    """Initializer of a last layer that gives parts of its output a given standard deviation.

    The layer's input has mean square one, as after batch normalisation, and one more for each skip
    connection before it. Without hidden layers the input is a code, of mean square about 0.01.
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
