"""Weight sets: the complete weights of N networks."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.targets.graph import Plan, copied, record


class WeightSet(NamedTuple):
    """The complete weights of N networks.

    Attributes:
        trainable: one tensor [N, ...] for each of the model's trainable variables, in its order.
        state: one tensor [N, ...] for each non-trainable one: batch norm's moving statistics,
            the seeds of dropout, the weights of frozen layers.
    """

    trainable: list[tf.Tensor]
    state: list[tf.Tensor]


def weights_of(target: Any, model: Any) -> WeightSet:
    """The weights of a Keras model as a weight set of one network.

    Args:
        target: the `Target` that the model is a network of.
        model: a Keras model.

    Raises:
        ValueError: the model's weights have other shapes.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"a network is a Keras model, not {type(model).__name__}")
    # As the target's own: the values of an adapted Normalization are no weights of it.
    network = copied(model)
    if constants(record(network)) != constants(target.plan):
        raise ValueError(
            f"the model '{model.name}' is not a network of this target: a Normalization in it was "
            "adapted to other data"
        )
    like = target.unflatten(tf.zeros([1, target.weight_count]))
    parts = []
    for kind, variables, expected in (
        ("trainable", network.trainable_variables, like.trainable),
        ("non-trainable", network.non_trainable_variables, like.state),
    ):
        own = [list(v.shape) for v in variables]
        if own != [tensor.shape[1:].as_list() for tensor in expected]:
            raise ValueError(
                f"the model '{model.name}' is not a network of this target: its {kind} weights "
                "have other shapes or another order"
            )
        parts.append([tf.convert_to_tensor(v.value)[None] for v in variables])
    return WeightSet(*parts)


def constants(plan: Plan) -> list:
    """Mean and variance of each `Normalization`, with which Keras computes as constants."""
    return [
        [np.asarray(layer.mean).tolist(), np.asarray(layer.variance).tolist()]
        for layer in plan.operations
        if type(layer) is keras.layers.Normalization
    ]
