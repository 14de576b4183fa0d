"""What a target returns, as log-probabilities of classes."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.targets import Target

_LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)


def log_probabilities(target: Target, outputs: tf.Tensor) -> tf.Tensor:
    """The logarithm of each class's probability, [..., C], in nats.

    Args:
        target: a target of classes.
        outputs: what it returned: [..., C], or [..., 1] where one column tells two classes apart.
            A probability of 0 counts as 1.2e-38, the least of float32.
    """
    if outputs.dtype.size < 4:
        outputs = tf.cast(outputs, tf.float32)
    one_column = outputs.shape[-1] == 1  # of the second of two classes
    if target.outputs == "logits":
        if one_column:
            return tf.math.log_sigmoid(tf.concat([-outputs, outputs], -1))
        return tf.nn.log_softmax(outputs)
    if one_column:
        outputs = tf.concat([1.0 - outputs, outputs], -1)
    return tf.math.log(tf.maximum(outputs, _LEAST_PROBABILITY))


def need_classes(target: Target, what: str) -> int:
    """C, how many classes one choice per example is made among.

    Args:
        target: a target of classes.
        what: needs them, for the error.

    Raises:
        ValueError: the target returns values, or a choice for each pixel.
    """
    if target.classes is None:
        raise ValueError(
            f"{what} needs classes, but the target returns values: use predict(), or say "
            "Target(model, outputs='logits')"
        )
    if len(target.plan.shapes[keras.tree.flatten(target.plan.outputs)[0]]) != 1:
        raise ValueError(f"{what} needs one choice of class per example: use predict()")
    return target.classes
