"""Normalizing flows of masked coupling steps, whose networks are Keras layers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


class Coupling(keras.layers.Layer):
    """One masked RealNVP step with a gate (Louizos & Welling 2017, eq. 9 and 10).

        h = tanh(dense(m · z)),  mu = dense(h),  gate = sigmoid(dense(h))
        z' = m · z + (1 - m) (z · gate + (1 - gate) mu),    log |dz'/dz| = sum (1 - m) log gate

    The mask m is drawn once, each entry 0 or 1 with probability one half, and is kept as a weight.
    The gate's bias starts at 2, so that a new step is close to the identity.

    Args:
        hidden: Size of h.
        seed: Two integers that determine the mask.

    Input: z [N, n]. Output: the shift and the logarithm of the scale of z' = scale · z + shift,
    both [N, n], which are functions of m · z; see `flow`.

    Reference: "Multiplicative Normalizing Flows for Variational Bayesian Neural Networks",
    arXiv 1703.01961.
    """

    def __init__(self, hidden: int, *, seed: Sequence[int] = (0, 0), **kwargs: Any):
        super().__init__(**kwargs)
        self.hidden_size = hidden
        self.seed = [int(word) for word in seed]

    def build(self, input_shape):
        """Draw the mask and build the network."""
        size = input_shape[-1]
        self.mask = self.add_weight(
            name="mask", shape=(size,), initializer=self._draw_mask, trainable=False
        )
        dense = functools.partial(keras.layers.Dense, dtype=self.dtype_policy)
        self.hidden = dense(self.hidden_size, activation="tanh", name="hidden")
        self.mu = dense(size, name="mu")
        two = keras.initializers.Constant(2.0)
        self.gate = dense(size, bias_initializer=two, name="gate")
        self.hidden.build((None, size))
        self.mu.build((None, self.hidden_size))
        self.gate.build((None, self.hidden_size))

    def _draw_mask(self, shape: Any, dtype: Any = None) -> tf.Tensor:
        from tensorflow_probability import distributions  # takes seconds to load

        seed = tf.cast(tf.constant(self.seed, tf.int64), tf.int32)
        return distributions.Bernoulli(probs=0.5, dtype=dtype).sample(shape, seed=seed)

    def call(self, z):
        """The shift and the log scale that the step applies to z."""
        h = self.hidden(self.mask * z)
        changed = 1.0 - self.mask
        logits = self.gate(h)
        shift = changed * tf.sigmoid(-logits) * self.mu(h)  # (1 - gate) mu
        return shift, changed * tf.math.log_sigmoid(logits)

    def compute_output_shape(self, input_shape):
        """Two tensors of the input's shape."""
        return tuple(input_shape), tuple(input_shape)


def flow(steps: Sequence[Coupling]) -> Any:
    """Coupling steps one after the other, as a bijector of vectors [N, n].

    A step's shift and scale depend only on m · z, which it does not change. Its inverse therefore
    is a `tfb.MaskedAutoregressiveFlow` whose "autoregressive" order is the masked entries, then the
    others. (`tfb.RealNVP` couples contiguous parts; these masks are scattered.) `forward` runs each
    step once. `inverse` runs it n times, as that class does, and is exact.

    Args:
        steps: Coupling steps in the order in which they are applied.

    Returns:
        A `tfb.Bijector`; make a new one for each use, so that a gradient tape sees the layers.

    Example:
        >>> bijector = flow([first, second])
        >>> bijector.forward(z).shape
        TensorShape([N, n])
    """
    from tensorflow_probability import bijectors as tfb  # takes seconds to load

    def backwards(step: Coupling) -> Any:
        @functools.cache  # the value and the log-determinant run the network once
        def at(z: Any) -> Any:
            shift, log_scale = step(z.deref())
            return tfb.Invert(tfb.Chain([tfb.Shift(shift), tfb.Scale(log_scale=log_scale)]))

        return tfb.MaskedAutoregressiveFlow(bijector_fn=lambda z: at(z.ref()))

    return tfb.Chain([tfb.Invert(backwards(step)) for step in reversed(steps)])
