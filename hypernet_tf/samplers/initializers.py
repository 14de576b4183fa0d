"""Initializers of layers whose outputs are weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf


class Columns(keras.initializers.Initializer):
    """Initializer of a last layer that gives parts of its output a given standard deviation.

    Args:
        parts: (count, standard deviation) of each part.
        scale: Factor by which the layer's output is multiplied.
        mean_square: Mean square of the layer's input.
    """

    def __init__(self, parts: Sequence[tuple[int, float]], scale: float, mean_square: float):
        self.parts, self.scale, self.mean_square = parts, scale, mean_square

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """The kernel [in, out]."""
        columns = []
        for count, std in self.parts:
            if std == 0.0:
                columns.append(tf.zeros((shape[0], count), dtype))
                continue
            variance = (std / self.scale) ** 2 / self.mean_square
            scaled = keras.initializers.VarianceScaling(variance, "fan_in", "truncated_normal")
            columns.append(scaled((shape[0], count), dtype=dtype))
        return tf.concat(columns, 1)


def normal_parts(
    moments: Sequence[Sequence[float | None]], factor: float
) -> keras.initializers.RandomNormal:
    """Initializer of a vector whose parts are normal.

    Args:
        moments: (count, mean, standard deviation) of each part.
        factor: Factor on all standard deviations.
    """
    counts, means, deviations = np.array(moments, float).T
    mean, deviation = (
        np.repeat(values, counts.astype(int)).astype("float32")
        for values in (means, factor * deviations)
    )
    return keras.initializers.RandomNormal(mean, deviation)
