"""Distances between N points, and the entropy of a sample by its nearest neighbours, in nats.

Nothing here holds N x N x D numbers: the most is a few times N·D, and N x N.
"""

from __future__ import annotations

import math

import tensorflow as tf


def check_distance(distance: str) -> None:
    """Raise a ValueError unless the distance is "l1" or "l2"."""
    if distance not in ("l1", "l2"):
        raise ValueError(f"the distance is 'l1' or 'l2', not {distance!r}")


def pairwise_distances(points: tf.Tensor, distance: str = "l2") -> tf.Tensor:
    """All distances between N points, [N, N], in O(N·D) memory; not meant to be differentiated.

    Args:
        points: [N, D].
        distance: "l2", by the Gram matrix of the centred points, in float64: two close points among
            distant ones would be lost in float32. Or "l1": the points are compared with themselves
            shifted by one place, by two, ..., so that each pair is met once.

    Raises:
        ValueError: another distance.
    """
    check_distance(distance)
    points = tf.convert_to_tensor(points)
    if distance == "l2":
        wide = tf.cast(points, tf.float64)
        wide -= tf.reduce_mean(wide, 0, keepdims=True)
        squares = tf.reduce_sum(wide**2, -1)
        squared = squares[:, None] + squares[None] - 2.0 * tf.matmul(wide, wide, transpose_b=True)
        squared = tf.linalg.set_diag(squared, tf.zeros_like(squares))  # up to rounding it is zero
        return tf.cast(tf.sqrt(tf.maximum(squared, 0.0)), points.dtype)
    count = tf.shape(points)[0]
    half = count // 2

    def shifted(shift, rows):
        distances = tf.reduce_sum(tf.abs(points - tf.roll(points, -shift, 0)), -1)
        return shift + 1, rows.write(shift, distances)

    rows = tf.TensorArray(points.dtype, size=half + 1, element_shape=[points.shape[0]])
    _, rows = tf.while_loop(
        lambda shift, _: shift <= half, shifted, (0, rows), parallel_iterations=1
    )
    by_shift = rows.stack()  # [half + 1, N]: entry (s, i) is the distance of i and i + s
    index = tf.range(count)
    shift = (index[None] - index[:, None]) % count
    near = tf.minimum(shift, count - shift)
    start = tf.where(shift <= half, index[:, None], index[None])
    return tf.gather_nd(by_shift, tf.stack([near, start], -1))


def nearest_neighbour_distances(
    points: tf.Tensor, *, distance: str = "l2", k: int = 1
) -> tf.Tensor:
    """The distance of each point to its k-th nearest other point, [N], differentiable.

    Only that one distance has a gradient, so the neighbour is found without gradients and N
    distances are computed. Two equal points have distance 0 and a zero gradient.

    Args:
        points: [N, D].
        distance: "l1" or "l2".
        k: which neighbour, 1 for the nearest.

    Raises:
        ValueError: fewer than k + 1 points, k below 1, or another distance.
    """
    if k < 1:
        raise ValueError(f"neighbours are counted from 1: there is no number {k}")
    points = tf.convert_to_tensor(points)
    count = points.shape[0]
    if count is not None and count <= k:
        raise ValueError(f"{count} points have no neighbour number {k}: use more networks")
    matrix = pairwise_distances(tf.stop_gradient(points), distance)
    itself = tf.one_hot(tf.range(tf.shape(points)[0]), tf.shape(points)[0], dtype=points.dtype)
    matrix = tf.where(itself > 0, tf.constant(math.inf, points.dtype), matrix)
    _, neighbours = tf.math.top_k(-matrix, k)
    difference = points - tf.gather(points, neighbours[:, k - 1])
    if distance == "l1":
        return tf.reduce_sum(tf.abs(difference), -1)
    # The root's slope at zero is infinite; two equal points get a zero gradient instead.
    squared = tf.reduce_sum(difference**2, -1)
    positive = squared > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, squared, 1.0)), 0.0)


def kozachenko_leonenko_entropy(
    points: tf.Tensor,
    dimension: int,
    *,
    distance: str = "l2",
    k: int = 1,
    constants: bool = False,
    epsilon: float = 0.0,
) -> tf.Tensor:
    """Entropy of a sample, in nats, by nearest neighbours.

    H = psi(N) + d · mean_i log(eps_i + epsilon), with eps_i the distance of point i to its k-th
    nearest neighbour (Kozachenko and Leonenko 1987; Deutsch et al. 2019, section 3.1). With
    `constants` the estimate is unbiased as N grows and compares with closed forms:
    H = psi(N) - psi(k) + log V_d + d · mean_i log eps_i, V_d the volume of the unit ball:
    pi^(d/2)/Gamma(d/2 + 1) for L2, 2^d/d! for L1.

    Args:
        points: [N, D].
        dimension: d, the dimension of the manifold on which the points lie: that of z, not D.
        distance: "l2", as the paper writes, or "l1", as its program computes.
        k: which neighbour.
        constants: whether to add -psi(k) + log V_d.
        epsilon: added to each distance before the logarithm.

    Returns:
        A scalar. psi(N) makes estimates from different N comparable.

    Example:
        >>> points = np.random.default_rng(0).normal(size=(4000, 2))
        >>> kozachenko_leonenko_entropy(points, 2, constants=True)       # log(2·pi·e) = 2.838
    """
    points = tf.convert_to_tensor(points)
    distances = nearest_neighbour_distances(points, distance=distance, k=k)
    count = tf.cast(tf.shape(points)[0], points.dtype)
    entropy = tf.math.digamma(count) + dimension * tf.reduce_mean(tf.math.log(distances + epsilon))
    if constants:
        if distance == "l2":
            volume = dimension / 2 * math.log(math.pi) - math.lgamma(dimension / 2 + 1)
        else:
            volume = dimension * math.log(2.0) - math.lgamma(dimension + 1)
        entropy += tf.constant(volume, points.dtype) - tf.math.digamma(tf.cast(k, points.dtype))
    return entropy
