"""Ensembles as TensorFlow SavedModels, which run without this package."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.targets import Target, WeightSet


def write(
    path: str | os.PathLike,
    target: Target,
    weights: WeightSet,
    answers: Callable[[Any], dict[str, tf.Tensor]],
) -> None:
    """Write networks as a SavedModel with one endpoint, `serve`.

    Args:
        path: Folder of the SavedModel.
        target: Target of the networks.
        weights: Weights of N networks.
        answers: Function of the outputs [N, M, ...] of all networks, structured as the model's,
            that returns what the endpoint returns: tensors [M, ...] by name.
    """
    # Variables are files of their own, while constants would be part of the graph.
    variables = tf.nest.map_structure(lambda t: tf.Variable(t, trainable=False), weights)

    def serve(inputs: Any) -> dict[str, tf.Tensor]:
        networks = tf.nest.map_structure(lambda variable: variable.value(), variables)
        return answers(target.run_each(networks, inputs)[0])

    archive = keras.export.ExportArchive()
    archive.add_endpoint("serve", serve, input_signature=[target.input_spec])
    archive.write_out(os.fspath(path), verbose=False)


def uncertainty(log_probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
    """The scores of `hypernet_tf.metrics.Uncertainty` in TensorFlow, each [M], by name.

    Args:
        log_probabilities: Log-probabilities [N, M, C].
    """
    log_p = tf.cast(log_probabilities, tf.float64)
    mean = tf.reduce_logsumexp(log_p, 0) - math.log(log_p.shape[0])
    total, expected = _entropy(mean), tf.reduce_mean(_entropy(log_p), 0)
    scores = {
        "entropy": total,
        "expected_entropy": expected,
        "mutual_information": tf.maximum(total - expected, 0.0),  # rounding
        "variance": tf.reduce_sum(tf.math.reduce_variance(tf.exp(log_p), 0), -1),
        "least_confidence": -tf.math.expm1(tf.minimum(tf.reduce_max(mean, -1), 0.0)),
    }
    return {name: tf.cast(values, tf.float32) for name, values in scores.items()}


def _entropy(log_p: tf.Tensor) -> tf.Tensor:
    """-sum_c p_c log p_c; a probability of 0 adds 0."""
    return -tf.reduce_sum(tf.math.multiply_no_nan(log_p, tf.exp(log_p)), -1)
