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
        trainable: One tensor [N, ...] for each of the model's trainable variables, in its order.
        state: One tensor [N, ...] for each non-trainable variable: batch normalisation's moving
            statistics, the seeds of dropout, the weights of frozen layers.
    """

    trainable: list[tf.Tensor]
    state: list[tf.Tensor]


def weights_of(target: Any, model: Any) -> WeightSet:
    """The weights of a Keras model as a weight set of one network.

    Args:
        target: The `Target` whose architecture the model has.
        model: A Keras model.

    Raises:
        ValueError: The model's weights have other shapes.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"A network is a Keras model, not {type(model).__name__}: pass a model with the "
            "target's architecture."
        )
    # A copy, as the target's template is: variables of an adapted Normalization are not weights.
    network = copied(model)
    if normalization_constants(record(network)) != normalization_constants(target.plan):
        raise ValueError(
            f"The model '{model.name}' is not a network of this target: a Normalization in it was "
            "adapted to other data. Make a target of this model."
        )
    like = target.unflatten(tf.zeros([1, target.weight_count]))
    parts = []
    for kind, variables, expected in (
        ("trainable", network.trainable_variables, like.trainable),
        ("non-trainable", network.non_trainable_variables, like.state),
    ):
        if [list(v.shape) for v in variables] != [t.shape[1:].as_list() for t in expected]:
            raise ValueError(
                f"The model '{model.name}' is not a network of this target: its {kind} weights "
                "have other shapes or another order. Make a target of this model."
            )
        values = [tf.convert_to_tensor(v.value)[None] for v in variables]
        if kind == "trainable":  # as samplers make them, whatever the layers' precisions are
            values = [tf.cast(value, tf.float32) for value in values]
        parts.append(values)
    return WeightSet(*parts)


def normalization_constants(plan: Plan) -> list:
    """Mean and variance of each `Normalization`, with which Keras computes as constants."""
    return [
        [np.asarray(layer.mean).tolist(), np.asarray(layer.variance).tolist()]
        for layer in plan.operations
        if type(layer) is keras.layers.Normalization
    ]
