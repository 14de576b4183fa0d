"""Distances between N points, and the entropy of a sample from its nearest neighbours, in nats.

Memory is O(N·D + N²): no function holds N x N x D numbers.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import tensorflow as tf

from hypernet_tf.checks import check_choice

Distance = Literal["l1", "l2"]

_BLOCK = 2**16  # numbers in a block of columns: 256 KiB, a part of a core's cache
_MOST_IN_BLOCKS = 256  # points; the graph has half as many differences of a block


def pairwise_distances(points: tf.Tensor, distance: Distance = "l2") -> tf.Tensor:
    """Distances between all pairs of N points, [N, N]. Not meant to be differentiated.

    Args:
        points: Points [N, D].
        distance: "l2", computed from the Gram matrix of the centred points in float64, because in
            float32 the distances of close points among distant ones are lost. Or "l1", computed by
            comparing the points with themselves shifted by 1, 2, ..., N/2 positions.

    Raises:
        ValueError: The distance has another name.
    """
    check_choice("distance", distance, Distance)
    points = tf.convert_to_tensor(points)
    if distance == "l2":
        wide = tf.cast(points, tf.float64)
        wide -= tf.reduce_mean(wide, 0, keepdims=True)
        products = tf.matmul(wide, wide, transpose_b=True)
        squares = tf.linalg.diag_part(products)
        squared = squares[:, None] + squares[None] - 2.0 * products
        squared = tf.linalg.set_diag(squared, tf.zeros_like(squares))  # zero up to rounding
        return tf.cast(tf.sqrt(tf.maximum(squared, 0.0)), points.dtype)
    count = points.shape[0] if points.shape[0] is not None else tf.shape(points)[0]
    half = count // 2
    by_shift = _l1_by_shift(points, count, half)  # entry (s, i) is the distance of i and i + s
    index = tf.range(count)
    shift = (index[None] - index[:, None]) % count
    near = tf.minimum(shift, count - shift)
    start = tf.where(shift <= half, index[:, None], index[None])
    return tf.gather_nd(by_shift, tf.stack([near, start], -1))


def _l1_by_shift(points: tf.Tensor, count: Any, half: Any) -> tf.Tensor:
    """Distances [N/2 + 1, N] of the points and of the points 0, 1, ..., N/2 positions further.

    Up to 256 points go in blocks of columns that stay in the cache, three to four times as fast.

    Args:
        points: Points [N, D].
        count: N, an integer where it is known.
        half: N/2, rounded down.
    """

    def distances(block: tf.Tensor, moved: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.abs(block - moved), -1)

    def rows_of(block: tf.Tensor) -> tf.Tensor:
        twice = tf.concat([block, block], 0)
        return tf.stack([distances(block, twice[s : s + count]) for s in range(half + 1)])

    columns = points.shape[1]
    if not isinstance(count, int) or columns is None or count > _MOST_IN_BLOCKS:
        rows = tf.TensorArray(points.dtype, size=half + 1, element_shape=[points.shape[0]])
        _, rows = tf.while_loop(
            lambda shift, _: shift <= half,
            lambda shift, rows: (
                shift + 1,
                rows.write(shift, distances(points, tf.roll(points, -shift, 0))),
            ),
            (0, rows),
            parallel_iterations=1,
        )
        return rows.stack()
    width = _BLOCK // count
    whole, rest = divmod(columns, width)
    if not whole:
        return rows_of(points)
    _, sums = tf.while_loop(
        lambda number, _: number < whole,
        lambda number, sums: (
            number + 1,
            sums + rows_of(tf.slice(points, [0, number * width], [count, width])),
        ),
        (0, tf.zeros([half + 1, count], points.dtype)),
        parallel_iterations=4,
    )
    return sums + rows_of(points[:, -rest:]) if rest else sums


def nearest_neighbour_distances(
    points: tf.Tensor, *, distance: Distance = "l2", k: int = 1
) -> tf.Tensor:
    """Distance of each point to its k-th nearest other point, [N], differentiable.

    Neighbours are found without gradients; then N distances are computed with gradients. Two equal
    points have distance 0 and a zero gradient.

    Args:
        points: Points [N, D].
        distance: "l1" or "l2".
        k: Number of the neighbour, 1 for the nearest.

    Raises:
        ValueError: There are fewer than k + 1 points, k is below 1, or the distance has another
            name.
    """
    if k < 1:
        raise ValueError(f"Neighbours are counted from 1: k cannot be {k}.")
    points = tf.convert_to_tensor(points)
    count = points.shape[0]
    if count is not None and count <= k:
        raise ValueError(f"{count} points have no neighbour number {k}: use more networks.")
    matrix = pairwise_distances(tf.stop_gradient(points), distance)
    itself = tf.one_hot(tf.range(tf.shape(points)[0]), tf.shape(points)[0], dtype=points.dtype)
    matrix = tf.where(itself > 0, tf.constant(math.inf, points.dtype), matrix)
    _, neighbours = tf.math.top_k(-matrix, k)
    return _distances_to(points, neighbours[:, k - 1], distance)


def _distances_to(points: tf.Tensor, others: tf.Tensor, distance: Distance) -> tf.Tensor:
    """Distance of each point to another one of them, [N], differentiable.

    The gradient of `tf.gather` adds rows one after the other; a product with an N x N matrix sums
    the same rows faster.

    Args:
        points: Points [N, D].
        others: For each the index of the other, [N].
        distance: "l1" or "l2".
    """

    @tf.custom_gradient
    def distances(points: tf.Tensor) -> Any:
        difference = points - tf.gather(points, others)
        if distance == "l1":
            lengths, slope = tf.reduce_sum(tf.abs(difference), -1), tf.sign(difference)
        else:
            lengths, slope = tf.sqrt(tf.reduce_sum(difference**2, -1)), difference

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # Two equal points get a zero gradient, also where that of a root or logarithm at zero
            # is infinite.
            factors = tf.math.divide_no_nan(upstream, lengths if distance == "l2" else 1.0)
            factors = tf.where(lengths > 0, factors, tf.zeros_like(factors))
            pulled = factors[:, None] * tf.one_hot(others, tf.shape(points)[0], dtype=points.dtype)
            return tf.matmul(tf.linalg.diag(factors) - tf.transpose(pulled), slope)

        return lengths, gradient

    return distances(points)


def kozachenko_leonenko_entropy(
    points: tf.Tensor,
    dimension: int,
    *,
    distance: Distance = "l2",
    k: int = 1,
    constants: bool = False,
    epsilon: float = 0.0,
) -> tf.Tensor:
    """Estimate of the entropy of the distribution of a sample, in nats.

    H = psi(N) + d · mean_i log(eps_i + epsilon), where eps_i is the distance of point i to its k-th
    nearest neighbour (Kozachenko and Leonenko 1987; Deutsch et al. 2019, section 3.1). psi(N) makes
    estimates from different N comparable. With `constants` the estimate is asymptotically unbiased:
    H = psi(N) - psi(k) + log V_d + d · mean_i log(eps_i + epsilon), where V_d is the volume of the
    unit ball: pi^(d/2)/Gamma(d/2 + 1) for L2, 2^d/d! for L1. For L1 this needs d = D: on a surface
    of fewer dimensions the ball's section depends on the surface's direction.

    Args:
        points: Points [N, D].
        dimension: d, the dimension of the manifold on which the points lie: that of z, not D.
        distance: "l2" (the paper) or "l1" (its published program).
        k: Number of the neighbour, 1 for the nearest.
        constants: Whether to add the constants -psi(k) + log V_d.
        epsilon: Number that is added to each distance before the logarithm.

    Returns:
        A scalar.

    Raises:
        ValueError: There are fewer than k + 1 points, k is below 1, the distance has another name,
            or the constants are not known: for L1 with d other than D.

    Example:
        >>> points = np.random.default_rng(0).normal(size=(4000, 2))
        >>> kozachenko_leonenko_entropy(points, 2, constants=True)       # log(2·pi·e) = 2.838
    """
    points = tf.convert_to_tensor(points)
    distances = nearest_neighbour_distances(points, distance=distance, k=k)
    count = tf.cast(tf.shape(points)[0], points.dtype)
    entropy = tf.math.digamma(count) + dimension * tf.reduce_mean(tf.math.log(distances + epsilon))
    if constants:
        if distance == "l1" and dimension != points.shape[-1]:
            raise ValueError(
                f'The constants are not known for "l1" and points of {points.shape[-1]} numbers on '
                f'a surface of {dimension} dimensions: give distance="l2".'
            )
        if distance == "l2":
            volume = dimension / 2 * math.log(math.pi) - math.lgamma(dimension / 2 + 1)
        else:
            volume = dimension * math.log(2.0) - math.lgamma(dimension + 1)
        entropy += tf.constant(volume, points.dtype) - tf.math.digamma(tf.cast(k, points.dtype))
    return entropy
