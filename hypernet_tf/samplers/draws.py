"""What a sampler draws, and the streams of random numbers from which it draws."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

# Streams of random numbers: one seed gives unrelated numbers for training and for sampling.
TRAIN, SAMPLE, MASK, LANGEVIN, AUGMENT, TERMS, PRETRAIN = 0, 2, 3, 4, 5, 6, 7


def stream_seed(seed: int, stream: int, number: Any) -> tf.Tensor:
    """A stateless seed (two integers).

    Args:
        seed: Seed of the sampler.
        stream: One of the streams above.
        number: Position in the stream, such as the training step.
    """
    return tf.random.experimental.stateless_fold_in(
        tf.constant([seed, stream], tf.int64), tf.cast(number, tf.int64)
    )


class Draw(NamedTuple):
    """The weights that a sampler makes of random numbers.

    Attributes:
        trainable: Weights of N networks, not gauged: one tensor [N, ...] for each trainable
            variable of the target, in its order (`Target.unflatten(theta).trainable`).
        z: Latent vectors [N, d]; None if the sampler has none.
        codes: Codes from which the weights are generated, one tensor [N, F, code_dim] per unit
            (F = 1 if one code makes the whole unit); None if the sampler has none.
    """

    trainable: list[tf.Tensor]
    z: tf.Tensor | None = None
    codes: list[tf.Tensor] | None = None
