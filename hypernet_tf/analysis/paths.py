"""Paths between networks: straight in the weights, or straight in the latent space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.targets import Target, WeightSet


def direct_path(starts: Ensemble, ends: Ensemble, points: int = 40) -> Ensemble:
    """Networks on straight lines between weights: theta_1 + t · (theta_2 - theta_1).

    Deutsch et al. (2019), section 4.1: between two good networks such a line leaves the manifold of
    good weights, unless that manifold is flat.

    Args:
        starts: P networks.
        ends: P networks.
        points: T, how many networks on each line, its ends included; t = 0, ..., 1.

    Returns:
        P·T networks, line by line: values of theirs reshape to [P, T, ...]. Their state (the
        statistics of batch norm) is that of the starts: `update_batch_norm` it where there is any.

    Raises:
        ValueError: not as many starts as ends, or fewer than 2 points.

    Example:
        >>> line = direct_path(ensemble[:10], ensemble[10:20])
        >>> line.evaluate(x, y).member_accuracy.reshape(10, 40)
    """
    if len(starts) != len(ends):
        raise ValueError(f"{len(starts)} starts for {len(ends)} ends")
    t = _between(points)

    def line(first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        along = tf.reshape(tf.cast(t, first.dtype), [-1, *[1] * (len(first.shape) - 1)])
        both = first[:, None] + along * (last - first)[:, None]  # [P, T, ...]
        return tf.reshape(both, [-1, *first.shape[1:]])

    trainable = [
        line(first, last)
        for first, last in zip(starts.weights.trainable, ends.weights.trainable, strict=True)
    ]
    state = [tf.repeat(tensor, points, axis=0) for tensor in starts.weights.state]
    return Ensemble(starts.target, WeightSet(trainable, state))


def interpolated_path(
    target: Target,
    weights_of: Callable[[tf.Tensor], WeightSet],
    starts: Any,
    ends: Any,
    points: int = 40,
) -> Ensemble:
    """Networks on straight lines between latent vectors: theta(z_1 + t · (z_2 - z_1)).

    Args:
        target: the target.
        weights_of: theta(z): z [N, d] -> weights of N networks.
        starts: z [P, d].
        ends: z [P, d].
        points: T, how many networks on each line, its ends included; t = 0, ..., 1.

    Returns:
        P·T networks, line by line; see `direct_path`.

    Example:
        >>> z = hyper.sample_latent(20)
        >>> path = interpolated_path(hyper.target, hyper.weights_of, z[:10], z[10:])
    """
    starts, ends = tf.convert_to_tensor(starts), tf.convert_to_tensor(ends)
    if starts.shape != ends.shape:
        raise ValueError(f"starts of shape {list(starts.shape)}, ends of {list(ends.shape)}")
    along = tf.constant(_between(points), starts.dtype)[:, None]
    z = starts[:, None] + along * (ends - starts)[:, None]  # [P, T, d]
    return Ensemble(target, weights_of(tf.reshape(z, [-1, starts.shape[1]])))


def _between(points: int) -> np.ndarray:
    if points < 2:
        raise ValueError(f"a path has at least its 2 ends, not {points} points")
    return np.linspace(0.0, 1.0, points)
