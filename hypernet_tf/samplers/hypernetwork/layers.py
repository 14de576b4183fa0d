"""The Keras layers of which a hypernetwork consists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.samplers.initializers import Columns, normal_parts

# Initial scatter of networks around an anchor, in units of the anchors' own standard deviation.
_SCATTER_AROUND_ANCHOR = 0.05


# The published variance of an initial kernel, times its fan-in.
PUBLISHED_VARIANCE = 0.01


def initial_weights(variance: float = PUBLISHED_VARIANCE) -> keras.initializers.Initializer:
    """Truncated normal of variance `variance` / fan-in, a new initializer for each kernel."""
    return keras.initializers.VarianceScaling(variance, "fan_in", "truncated_normal")


class MLP(keras.layers.Layer):
    """Per hidden layer dense without bias, leaky ReLU (0.05), batch normalisation; then dense.

    Batch normalisation averages over all axes except the last (epsilon 1e-7), and over all replicas
    if the layer is made in the scope of a strategy with several.

    Args:
        hidden: Sizes of the hidden layers.
        outputs: Size of the output.
        residual: Whether a hidden layer's input is added to its output if their sizes agree.
        last_parts: (count, standard deviation) of each part of the initial output; without any the
            last layer has the published initializer.
        input_mean_square: Mean square of the input, from which that of the last layer's follows.
        scale_output: Whether the output is divided by the square root of the last layer's fan-in,
            so that a step of Adam, which moves every kernel weight by its learning rate, moves the
            output less. Without hidden layers it has no effect.
        hidden_variance: Variance of the initial hidden kernels, times their fan-in.
        momentum: Momentum of batch normalisation.

    Input: [..., in]. Output: [..., outputs].

    Reference: Deutsch, Nijkamp, Yang (2019), appendix A, and its published program.
    """

    def __init__(
        self,
        hidden: tuple[int, ...],
        outputs: int,
        *,
        residual: bool = False,
        last_parts: Sequence[tuple[int, float]] = (),
        input_mean_square: float = 1.0,
        scale_output: bool = False,
        hidden_variance: float = PUBLISHED_VARIANCE,
        momentum: float = 0.98,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.hidden = tuple(hidden)
        self.outputs = outputs
        self.residual = residual
        self.scale_output = scale_output
        self.last_parts, self.input_mean_square = list(last_parts), input_mean_square
        synchronized = tf.distribute.get_strategy().num_replicas_in_sync > 1
        policy = self.dtype_policy
        self.blocks = [
            (
                keras.layers.Dense(
                    size,
                    use_bias=False,
                    kernel_initializer=initial_weights(hidden_variance),
                    dtype=policy,
                ),
                keras.layers.LeakyReLU(0.05, dtype=policy),
                keras.layers.BatchNormalization(
                    momentum=momentum, epsilon=1e-7, synchronized=synchronized, dtype=policy
                ),
            )
            for size in self.hidden
        ]
        self.last = keras.layers.Dense(
            outputs,
            use_bias=False,
            # An initializer that `build` replaces must take no seed, which would change all others.
            kernel_initializer="zeros" if self.last_parts else initial_weights(),
            dtype=policy,
        )

    def build(self, input_shape):
        """Build every sublayer."""
        shape, mean_square = tuple(input_shape), self.input_mean_square
        for dense, _, norm in self.blocks:
            dense.build(shape)
            # Batch normalisation makes it one, to which a skip adds.
            skip = self.residual and shape[-1] == dense.units
            mean_square = mean_square + 1.0 if skip else 1.0
            shape = (*shape[:-1], dense.units)
            norm.build(shape)
        if self.last_parts:
            scale = _output_scale(self.hidden) if self.scale_output else 1.0
            self.last.kernel_initializer = Columns(self.last_parts, scale, mean_square)
        self.last.build(shape)

    def call(self, inputs, training=False):
        """Run the blocks."""
        for dense, activation, norm in self.blocks:
            outputs = norm(activation(dense(inputs)), training=training)
            skip = self.residual and inputs.shape[-1] == dense.units
            inputs = inputs + outputs if skip else outputs
        outputs = self.last(inputs)
        return outputs * _output_scale(self.hidden) if self.scale_output else outputs

    def compute_output_shape(self, input_shape):
        """The input's shape with the last axis replaced."""
        return (*input_shape[:-1], self.outputs)


def _output_scale(hidden: tuple[int, ...]) -> float:
    """The factor of `scale_output`."""
    return hidden[-1] ** -0.5 if hidden else 1.0


class Extractor(keras.layers.Layer):
    """z -> a code for each filter of each layer.

    Args:
        hidden: Sizes of the hidden layers of its MLP.
        codes: (F, code_dim) of each unit of layers.
        latent_mean_square: Mean square of z.
        anchored: Whether each filter has an anchor in the space of codes: a fixed standard normal
            vector around which its codes lie, initially with a standard deviation of 0.05. Without
            anchors the codes of all filters lie around zero, and initially networks differ as much
            as filters do.
        mlp: Options of `MLP`: residual, scale_output, hidden_variance, momentum.

    Input: z [N, d]. Output: a list of codes [N, F, code_dim], one for each unit.
    """

    def __init__(
        self,
        hidden: tuple[int, ...],
        codes: list[tuple[int, int]],
        *,
        latent_mean_square: float = 1.0,
        anchored: bool = False,
        mlp: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.codes = [tuple(code) for code in codes]
        outputs = sum(filters * size for filters, size in self.codes)
        options = dict(mlp or {})
        self.mlp = MLP(
            hidden,
            outputs,
            last_parts=[(outputs, _SCATTER_AROUND_ANCHOR)] if anchored else [],
            input_mean_square=latent_mean_square,
            name="mlp",
            dtype=self.dtype_policy,
            **options,
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
                name="anchors", shape=shape, initializer=normal, trainable=False, autocast=False
            )

    def call(self, z, training=False):
        """The codes."""
        sizes = [filters * size for filters, size in self.codes]
        codes = self.mlp(z, training=training)
        if self.anchors is not None:
            # In the precision of variables, as in `WeightGenerator.call`.
            codes = tf.cast(codes, self.variable_dtype) + self.anchors
        flat = tf.split(codes, sizes, axis=-1)
        return [
            keras.ops.reshape(part, (-1, filters, size))
            for part, (filters, size) in zip(flat, self.codes, strict=True)
        ]

    def compute_output_shape(self, input_shape):
        """[N, F, code_dim] of each unit."""
        return [(input_shape[0], filters, size) for filters, size in self.codes]


class WeightGenerator(MLP):
    """Code of a filter -> all its weights; one generator serves all filters of a layer.

    Args:
        hidden: Sizes of the hidden layers.
        moments: (count, mean, standard deviation) of parts of the initial output; the counts add up
            to its size. If all standard deviations are None, the published initializer is used.
        anchored: Whether these moments are those of one fixed draw, the anchor, around which
            outputs lie with a twentieth of the standard deviation. This is for layers with a single
            code, because batch normalisation removes what the codes of all networks have in common.
        **kwargs: Options of `MLP` (residual, scale_output, hidden_variance, momentum) and of a
            Keras layer.

    Input: codes [N, F, code_dim]. Output: rows [N, F, sum of the counts].

    The last layer has no bias: the means, or the anchor, are fixed and added to its output.
    """

    def __init__(
        self,
        hidden: tuple[int, ...],
        moments: Sequence[tuple[int, float, float | None]],
        *,
        anchored: bool = False,
        **kwargs: Any,
    ):
        self.moments = list(moments)
        self.anchored = anchored
        factor = _SCATTER_AROUND_ANCHOR if anchored else 1.0
        scatter = [(count, factor * std) for count, _, std in self.moments if std is not None]
        outputs = sum(count for count, _, _ in self.moments)
        super().__init__(hidden, outputs, last_parts=scatter, **kwargs)
        self.means: Any = None

    def build(self, input_shape):
        """Build every sublayer and draw the anchor."""
        super().build(input_shape)
        if self.moments[0][2] is not None:
            self.means = self.add_weight(
                name="means",
                shape=(self.outputs,),
                initializer=normal_parts(self.moments, float(self.anchored)),
                trainable=False,
                autocast=False,
            )

    def call(self, inputs, training=False):
        """The rows."""
        rows = super().call(inputs, training=training)
        if self.means is None:
            return rows
        # In the precision of variables: half precision would round the networks' differences.
        return tf.cast(rows, self.variable_dtype) + self.means
