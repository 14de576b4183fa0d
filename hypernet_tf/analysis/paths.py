"""Paths between networks: straight lines in the weights, or in the latent space."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from hypernet_tf.ensembles.ensemble import Ensemble, require_ensemble, require_weights_only
from hypernet_tf.targets import Target, WeightSet


def direct_path(starts: Ensemble, ends: Ensemble, points: int = 40) -> Ensemble:
    """Networks on straight lines between weights: theta_1 + t · (theta_2 - theta_1).

    Between two good networks such a line leaves the manifold of good weights, unless that manifold
    is flat (Deutsch et al. 2019, section 4.1).

    Args:
        starts: Ensemble of P networks.
        ends: Ensemble of P networks.
        points: T, the number of networks on each line, with both ends; t = 0, ..., 1.

    Returns:
        An ensemble of P·T networks, line by line: values of its members reshape to [P, T, ...]. The
        state (batch norm's statistics) is that of the starts: with batch norm, call
        `update_batch_norm` before it runs.

    Raises:
        ValueError: There are not as many starts as ends, they are of several architectures, or
            fewer than 2 points.

    Example:
        >>> line = direct_path(ensemble[:10], ensemble[10:20])
        >>> line.evaluate(x, y).member_accuracy.reshape(10, 40)
    """
    for one in (starts, ends):
        require_ensemble(one, "A path between weights")
    if len(starts) != len(ends):
        raise ValueError(f"{len(starts)} starts for {len(ends)} ends: give as many of both.")
    if not starts.target.has_weights_of(ends.target):
        raise ValueError("Starts and ends have other weights: give networks of one architecture.")
    require_weights_only(starts, "draw lines between")
    t = _positions(points)

    def line(first: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        along = tf.reshape(tf.cast(t, first.dtype), [-1, *[1] * (len(first.shape) - 1)])
        networks = first[:, None] + along * (last - first)[:, None]  # [P, T, ...]
        return tf.reshape(networks, [-1, *first.shape[1:]])

    trainable = [
        line(first, last)
        for first, last in zip(starts.weights.trainable, ends.weights.trainable, strict=True)
    ]
    state = [tf.repeat(tensor, points, axis=0) for tensor in starts.weights.state]
    return Ensemble(starts.target, WeightSet(trainable, state), temperature=starts.temperature)


def interpolated_path(
    target: Target,
    weights_of: Callable[[tf.Tensor], WeightSet],
    starts: Any,
    ends: Any,
    points: int = 40,
) -> Ensemble:
    """Networks on straight lines between latent vectors: theta(z_1 + t · (z_2 - z_1)).

    Args:
        target: Target of the networks.
        weights_of: Function theta(z): latent vectors [N, d] -> weight set of N networks.
        starts: Latent vectors [P, d].
        ends: Latent vectors [P, d].
        points: T, the number of networks on each line, with both ends; t = 0, ..., 1.

    Returns:
        An ensemble of P·T networks, line by line; see `direct_path`.

    Raises:
        ValueError: Starts and ends have different shapes, or there are fewer than 2 points.

    Example:
        >>> z = hyper.sample_latent(20)
        >>> path = interpolated_path(hyper.target, hyper.weights_of, z[:10], z[10:])
    """
    starts, ends = tf.convert_to_tensor(starts), tf.convert_to_tensor(ends)
    if starts.shape != ends.shape:
        raise ValueError(
            f"Starts of shape {list(starts.shape)} and ends of shape {list(ends.shape)} must have "
            "one shape."
        )
    along = tf.constant(_positions(points), starts.dtype)[:, None]
    z = starts[:, None] + along * (ends - starts)[:, None]  # [P, T, d]
    return Ensemble(target, weights_of(tf.reshape(z, [-1, starts.shape[1]])))


def _positions(points: int) -> np.ndarray:
    """t, from 0 to 1."""
    if points < 2:
        raise ValueError(f"A path has at least its 2 ends, not {points} points.")
    return np.linspace(0.0, 1.0, points)
