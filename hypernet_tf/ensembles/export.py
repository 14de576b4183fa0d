"""Ensembles as TensorFlow SavedModels, which run without this package."""

from __future__ import annotations

import os
import pathlib
import shutil
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

    Raises:
        FileExistsError: The folder holds something else.
    """
    # Variables are files of their own, while constants would be part of the graph.
    variables = tf.nest.map_structure(lambda t: tf.Variable(t, trainable=False), weights)

    def serve(inputs: Any) -> dict[str, tf.Tensor]:
        networks = tf.nest.map_structure(lambda variable: variable.value(), variables)
        return answers(target.run_each(networks, inputs)[0])

    archive = keras.export.ExportArchive()
    for layer in target.plan.operations:
        if isinstance(layer, keras.Layer):
            archive.track(layer)  # its tables of words, which are not variables
    archive.add_endpoint("serve", serve, input_signature=[target.input_spec])
    _write_aside(archive, pathlib.Path(os.path.realpath(path)))  # a link leads to it as before


def _write_aside(archive: keras.export.ExportArchive, path: pathlib.Path) -> None:
    """Write a SavedModel beside its folder, and move it into place when it is whole.

    Raises:
        FileExistsError: What is there is no SavedModel.
    """
    is_other = path.exists() and not (path / "saved_model.pb").exists()
    if is_other and (not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path} is not empty and no SavedModel: choose another folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    part, old = (path.with_name(f".{path.name}.{os.getpid()}.{end}") for end in ("part", "old"))
    try:
        archive.write_out(os.fspath(part), verbose=False)
        if path.exists():
            path.rename(old)
        part.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
