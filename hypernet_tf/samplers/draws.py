"""What a sampler draws: from which random numbers, and what it makes of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf

# Streams of random numbers: the same seed gives unrelated numbers for training and for sampling.
TRAIN, EVALUATE, SAMPLE, MASK, LANGEVIN, AUGMENT = range(6)


def stream_seed(seed: int, stream: int, number: Any) -> tf.Tensor:
    """The stateless seed (two integers) number `number` of a stream."""
    return tf.random.experimental.stateless_fold_in(
        tf.constant([seed, stream], tf.int64), tf.cast(number, tf.int64)
    )


class Draw(NamedTuple):
    """What a sampler makes of random numbers.

    Attributes:
        trainable: weights of N networks, one tensor [N, ...] per variable of the target, not
            gauged.
        z: [N, d] the latent vectors, where the sampler has any.
        codes: what stands between z and the weights, where the sampler has it.
    """

    trainable: list[tf.Tensor]
    z: tf.Tensor | None = None
    codes: list[tf.Tensor] | None = None
