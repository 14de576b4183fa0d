"""What `fit` was given: its arguments by name, and some of its inputs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.ensembles.examples import batches, is_data_set


def arguments_of_fit(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of `keras.Model.fit` by name, however they were given."""
    return inspect.signature(keras.Model.fit).bind_partial(None, *args, **kwargs).arguments


def trained_inputs(x: Any, options: Mapping[str, Any]) -> Any:
    """The inputs of `fit` without the last part, which Keras splits off for validation.

    Args:
        x: What `fit` was given.
        options: Its other arguments by name.
    """
    arrays = all(hasattr(part, "shape") for part in keras.tree.flatten(x))
    split = options.get("validation_split")
    if not split or not arrays or options.get("validation_data") is not None:
        return x
    size = math.floor(len(keras.tree.flatten(x)[0]) * (1 - split))
    return keras.tree.map_structure(lambda t: t[:size], x)


def some_inputs(x: Any, count: int = 1_000) -> Any:
    """Up to `count` of the inputs that `fit` was given; None for a generator.

    Of arrays they are spread over all, in a random order that is always the same: arrays may be
    sorted by class, and their batches should resemble those of `fit`. Of a data set they are the
    first ones, as far as they have the shape of the first.
    """
    if is_data_set(x):
        inputs: list[Any] = []
        size, shapes = 0, None
        for batch in batches(x):
            some = keras.utils.unpack_x_y_sample_weight(batch)[0]
            given = [np.shape(array)[1:] for array in keras.tree.flatten(some)]
            if shapes not in (None, given):
                break
            shapes = given
            inputs.append(some)
            size += len(keras.tree.flatten(inputs[-1])[0])
            if size >= count:
                break
        if not inputs:
            raise ValueError(
                "The data set has no batch: give it examples, and no drop_remainder=True."
            )
        return keras.tree.map_structure(lambda *t: np.concatenate(t)[:count], *inputs)
    if not all(hasattr(array, "shape") for array in keras.tree.flatten(x)):
        return None
    x = keras.tree.map_structure(lambda t: t if isinstance(t, tf.Tensor) else np.asarray(t), x)
    size = len(keras.tree.flatten(x)[0])
    spread = np.arange(min(size, count)) * size // min(size, count)
    spread = np.random.default_rng(0).permutation(spread)
    return keras.tree.map_structure(
        lambda t: np.asarray(tf.gather(t, spread) if isinstance(t, tf.Tensor) else t[spread]), x
    )
