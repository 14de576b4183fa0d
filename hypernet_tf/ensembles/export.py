"""Ensembles as TensorFlow SavedModels, which run without this package."""

from __future__ import annotations

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
    for layer in target.plan.operations:
        if isinstance(layer, keras.Layer):
            archive.track(layer)  # its tables of words, which are no variables
    archive.add_endpoint("serve", serve, input_signature=[target.input_spec])
    archive.write_out(os.fspath(path), verbose=False)
