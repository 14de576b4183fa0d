"""Dealing a batch of examples out to N networks, and collecting the answers."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def deal(x: Any, count: int) -> Any:
    """Deal a batch out to N networks.

    Args:
        x: a structure of tensors [M, ...].
        count: N.

    Returns:
        The same as [N, B, ...] with B = ceil(M / N): the first B examples for the first network,
        and so on. Where M does not divide by N, the places left over at the end repeat the first
        examples.
    """
    size = keras.tree.flatten(x)[0].shape[0]

    def share(tensor: Any) -> tf.Tensor:
        tensor = tf.convert_to_tensor(tensor)
        if size is not None and size % count == 0:
            return tf.reshape(tensor, [count, size // count, *tensor.shape[1:]])
        total = tf.shape(tensor)[0]
        each = (total + count - 1) // count
        filled = tf.gather(tensor, tf.range(count * each) % total)
        return _reshape(filled, [count, each], tensor.shape[1:])

    return keras.tree.map_structure(share, x)


def collect(outputs: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The reverse for outputs: each example's answer once.

    Args:
        outputs: [N, B, ...].
        size: M; the N·B - M places that were filled up are dropped.

    Returns:
        [M, ...], in float32 where they were in half of it.
    """
    whole = tf.shape(outputs)[0] * tf.shape(outputs)[1]
    return widened(_reshape(outputs, [whole], outputs.shape[2:])[:size])


def widened(outputs: tf.Tensor) -> tf.Tensor:
    """Outputs of mixed precision as float32, which losses and diversity terms need."""
    half = outputs.dtype in (tf.float16, tf.bfloat16)
    return tf.cast(outputs, tf.float32) if half else outputs


def _reshape(tensor: tf.Tensor, front: list, rest: tf.TensorShape) -> tf.Tensor:
    """Reshape to [*front, *rest]; of `rest` one axis may be open."""
    return tf.reshape(tensor, [*front, *(-1 if axis is None else axis for axis in rest)])
