"""Distances and entropy: brute force, closed forms, and limits."""

import math

import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from brute_force import brute_force, brute_force_nearest, normal, standard_error
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hypernet_tf.diversity import entropy as entropy_module
from hypernet_tf.diversity import (
    kozachenko_leonenko_entropy,
    nearest_neighbour_distances,
    pairwise_distances,
)
from reproduce.runs.memory import peak_memory, reset_peak_memory

DISTANCES = ("l1", "l2")
moderately = settings(deadline=None, derandomize=True, max_examples=60)


def log_ball(distance, d):
    """Log of the volume of the unit ball in 1, 2 and 3 dimensions."""
    volumes = {"l1": (2, 2, 4 / 3), "l2": (2, math.pi, 4 / 3 * math.pi)}
    return math.log(volumes[distance][d - 1])


@st.composite
def clouds(draw, least=1):
    """Points [N, D] in float32, N odd and even, some of them equal."""
    shape = draw(st.tuples(st.integers(least, 9), st.integers(1, 6)))
    numbers = st.floats(-100, 100, width=32)
    return draw(arrays.arrays(np.float32, shape, elements=numbers))


# ---- distances ------------------------------------------------------------------------------


# Gram matrices in float64 lose half of its 16 digits where two points nearly coincide, and the
# result is rounded to float32: 1e-6 of the largest distance covers both.
def nearly(result, exact, scale):
    np.testing.assert_allclose(result, exact, rtol=2e-6, atol=1e-6 * scale)


@moderately
@given(points=clouds(), distance=st.sampled_from(DISTANCES))
def test_pairwise_distances_equal_brute_force(points, distance):
    result = pairwise_distances(tf.constant(points), distance).numpy()
    exact = brute_force(points, distance)
    nearly(result, exact, exact.max())
    assert not np.diag(result).any()
    np.testing.assert_array_equal(result, result.T)


@moderately
@given(points=clouds(least=2), distance=st.sampled_from(DISTANCES), k=st.integers(1, 3))
def test_nearest_distances_equal_brute_force(points, distance, k):
    k = min(k, len(points) - 1)
    result = nearest_neighbour_distances(tf.constant(points), distance=distance, k=k).numpy()
    nearly(result, brute_force_nearest(points, distance, k), brute_force(points, distance).max())


def test_constants_on_a_surface_are_those_of_l2():
    line = normal(2000, 1, dtype="float64") * np.ones(100) / 10  # of length 1
    points = tf.constant(line)
    result = kozachenko_leonenko_entropy(points, 1, constants=True)
    exact = 0.5 * math.log(2 * math.pi * math.e)
    assert abs(float(result) - exact) < 4 * standard_error(2000, 1, 0.5)
    with pytest.raises(ValueError, match=r'not known for "l1" and points of 100 numbers on a surf'):
        kozachenko_leonenko_entropy(points, 1, distance="l1", constants=True)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("count", (2, 7, 8))
def test_distances_of_an_unknown_number_of_points(distance, count):
    """In a graph that is traced once for all N."""
    points = normal(count, 3)

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def graph(points):
        return pairwise_distances(points, distance), nearest_neighbour_distances(
            points, distance=distance
        )

    pairs, nearest = graph(points)
    np.testing.assert_allclose(pairs, brute_force(points, distance), rtol=1e-6)
    np.testing.assert_allclose(nearest, brute_force_nearest(points, distance, 1), rtol=1e-6)


@pytest.mark.parametrize("columns", (9, 10, 11, 37))
def test_blocks_of_columns_add_up(columns, monkeypatch):
    monkeypatch.setattr(entropy_module, "_BLOCK", 70)  # ten columns
    points = normal(7, columns)
    result = pairwise_distances(tf.constant(points), "l1")
    np.testing.assert_allclose(result, brute_force(points, "l1"), rtol=2e-6)
    if columns == 37:  # compiling takes a second
        compiled = tf.function(pairwise_distances, jit_compile=True)(tf.constant(points), "l1")
        np.testing.assert_allclose(compiled, result, rtol=2e-6)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("spread", "offset"), ((1e-2, 1e3), (1e-4, 0.0), (1e-5, 0.0)))
def test_close_neighbours_are_found_in_distant_clusters(distance, spread, offset):
    """Distances are exact in spite of a common offset and of distant clusters.

    In float32 a Gram matrix loses distances below 1/3000 of the largest.
    """
    rng = np.random.default_rng(0)
    centres = 10 * rng.normal(size=(2, 1, 50))
    points = (offset + centres + spread * rng.normal(size=(2, 8, 50))).reshape(16, 50)
    points = points.astype("float32")
    exact = brute_force(points, distance)
    ratio = exact.max() / exact[exact > 0].min()
    assert ratio > 0.1 * 10 / spread
    # For L1 float32's rounding; the Gram matrix of L2 has float64's, magnified by ratio^2.
    tolerance = 1e-5 + (10 * np.finfo(np.float64).eps * ratio**2 if distance == "l2" else 0.0)
    assert tolerance < 0.01
    result = pairwise_distances(tf.constant(points), distance).numpy()
    np.testing.assert_allclose(result, exact, rtol=tolerance)
    for k in (1, 3):
        result = nearest_neighbour_distances(tf.constant(points), distance=distance, k=k)
        exact_nearest = brute_force_nearest(points, distance, k)
        np.testing.assert_allclose(result, exact_nearest, rtol=tolerance)


def gradient_of(function, points):
    points = tf.constant(points)
    with tf.GradientTape() as tape:
        tape.watch(points)
        value = function(points)
    return tape.gradient(value, points).numpy()


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("count", "k"), ((6, 1), (7, 2), (6, 3)))
def test_gradients_of_nearest_distances(distance, count, k):
    """Against autodiff through all N x N x D differences, and against central differences."""
    points = normal(count, 4, dtype="float64")
    weights = tf.constant(normal(count, seed=1, dtype="float64"))  # factors on the distances

    def nearest(points):
        return tf.reduce_sum(weights * nearest_neighbour_distances(points, distance=distance, k=k))

    def brute(points):
        difference = points[:, None] - points[None]
        if distance == "l1":
            matrix = tf.reduce_sum(tf.abs(difference), -1)
        else:
            apart = tf.reduce_sum(difference**2, -1) + tf.eye(count, dtype=tf.float64)
            matrix = tf.sqrt(apart) - tf.eye(count, dtype=tf.float64)
        return tf.reduce_sum(weights * tf.sort(matrix, -1)[:, k])  # index 0 is the point itself

    gradient = gradient_of(nearest, points)
    np.testing.assert_allclose(gradient, gradient_of(brute, points), rtol=1e-9, atol=1e-12)
    step = 1e-6
    for index in np.ndindex(*points.shape):
        moved = np.zeros_like(points)
        moved[index] = step
        slope = (float(nearest(points + moved)) - float(nearest(points - moved))) / (2 * step)
        assert abs(slope - gradient[index]) < 1e-7


@pytest.mark.parametrize("distance", DISTANCES)
def test_two_equal_points_have_a_gradient(distance):
    points = normal(5, 3)
    points[3] = points[1]

    def nearest(points):
        return nearest_neighbour_distances(points, distance=distance)

    def entropy(points):
        return kozachenko_leonenko_entropy(points, 3, distance=distance, epsilon=1e-8)

    assert nearest(tf.constant(points))[1] == 0
    for function in (nearest, entropy):
        gradient = gradient_of(function, points)
        assert np.isfinite(gradient).all()
        assert np.abs(gradient[[0, 2, 4]]).max() > 0
    np.testing.assert_array_equal(gradient_of(lambda p: nearest(p)[1], points), 0 * points)
    without = gradient_of(lambda p: kozachenko_leonenko_entropy(p, 3, distance=distance), points)
    assert np.isfinite(without).all()
    assert np.abs(without[[0, 2, 4]]).max() > 0


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize("distance", ["l1", pytest.param("l2", marks=pytest.mark.slow)])
def test_memory_is_of_the_order_of_the_points(distance):
    """Distances and gradients of N = 300 points in D = 20,000 dimensions, which take 24 MB.

    All differences would take 7.2 GB. The limit is 20 times the points.
    """
    count, size = 300, 20_000
    points = tf.constant(normal(count, size))

    @tf.function
    def gradient(points):
        with tf.GradientTape() as tape:
            tape.watch(points)
            entropy = kozachenko_leonenko_entropy(points, 3, distance=distance)
        return tape.gradient(entropy, points)

    gradient(tf.constant(normal(count, 2)))  # the memory of a first call
    reset_peak_memory()  # that of a larger test before
    before = peak_memory()
    assert np.isfinite(gradient(points)).all()
    assert 2**20 * (peak_memory() - before) < 20 * count * size * 4


# ---- entropy --------------------------------------------------------------------------------

CASES = [(distance, d) for distance in DISTANCES for d in (1, 2, 3)]
every_case = pytest.mark.parametrize(("distance", "d"), CASES)


def estimate(points, distance, k, **kwargs):
    """H in nats of points whose dimension is that of their space."""
    points = tf.constant(points)
    entropy = kozachenko_leonenko_entropy(points, points.shape[1], distance=distance, k=k, **kwargs)
    return float(entropy)


@every_case
@pytest.mark.parametrize("k", (1, 3))
def test_entropy_of_a_normal(distance, d, k):
    """The variance of log f is d/2; the bias, of order (k/N)^(2/d), is at most one such error."""
    deviations = np.array([0.5, 1.0, 3.0])[:d]
    points = deviations * normal(1000, d, seed=d, dtype="float64")
    exact = d / 2 * math.log(2 * math.pi * math.e) + np.log(deviations).sum()
    result = estimate(points, distance, k, constants=True)
    assert abs(result - exact) < 4 * standard_error(1000, k, d / 2)


@every_case
@pytest.mark.parametrize("k", (1, 3))
def test_entropy_of_a_uniform_cube(distance, d, k):
    """The edge of the cube biases the estimate upwards, by a bounded amount.

    A face nearer than eps_i cuts off at most half of the ball, which adds at most log 2 to
    d·log eps_i; a point is as near to one of the 2d faces with probability 2d·eps.
    """
    side = 2.5
    points = side * np.random.default_rng(d).uniform(size=(1000, d))
    result = estimate(points, distance, k, constants=True)
    distances = brute_force_nearest(points, distance, k)
    edge = 2 * d * math.log(2) * distances.mean() / side
    error = 4 * standard_error(1000, k, 0.0)
    assert -error < result - d * math.log(side) < error + edge


@every_case
def test_constants_are_added_to_the_estimate(distance, d):
    points = normal(20, d, dtype="float64")
    for k in (1, 3):
        without = estimate(points, distance, k)
        logs = np.log(brute_force_nearest(points, distance, k))
        assert without == pytest.approx(scipy.special.digamma(20) + d * logs.mean(), abs=1e-12)
        constants = log_ball(distance, d) - scipy.special.digamma(k)
        result = estimate(points, distance, k, constants=True)
        assert result - without == pytest.approx(constants, abs=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_psi_makes_estimates_from_different_numbers_comparable(distance):
    """40 times 50 points against once 2,000, without constants; psi alone differs by 3.70 nats."""
    points = normal(2000, 2, dtype="float64")
    large = estimate(points, distance, 1)
    small = np.mean([estimate(part, distance, 1) for part in np.split(points, 40)])
    # Each mean is over 2,000 distances; at N = 50 the bias is of order (k/N)^(2/d) = 0.02, which
    # the tails double.
    assert abs(small - large) < 4 * math.sqrt(2) * standard_error(2000, 1, 1.0) + 0.04
    assert scipy.special.digamma(2000) - scipy.special.digamma(50) > 3.6


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    scale=st.floats(1e-3, 1e3),
    distance=st.sampled_from(DISTANCES),
    k=st.integers(1, 3),
    d=st.integers(1, 4),
    constants=st.booleans(),
)
def test_scale_law(scale, distance, k, d, constants):
    """H(aX) = H(X) + d·log a, exactly: up to rounding in float64."""
    points = normal(9, d, dtype="float64")
    once = estimate(points, distance, k, constants=constants)
    scaled = estimate(scale * points, distance, k, constants=constants)
    assert scaled == pytest.approx(once + d * math.log(scale), abs=1e-9)


def test_dimension_is_that_of_the_manifold_and_epsilon_is_added():
    points = normal(6, 5, dtype="float64")
    distances = brute_force_nearest(points, "l2", 1)
    result = kozachenko_leonenko_entropy(points, 2, epsilon=0.3)
    exact = scipy.special.digamma(6) + 2 * np.log(distances + 0.3).mean()
    assert float(result) == pytest.approx(exact, abs=1e-12)


def test_points_without_an_estimate_raise():
    points = tf.ones([3, 2])
    for k in (3, 4):
        message = rf"^3 points have no neighbour number {k}: use more networks\.$"
        with pytest.raises(ValueError, match=message):
            nearest_neighbour_distances(points, k=k)
    with pytest.raises(ValueError, match=r"^Neighbours are counted from 1: k cannot be 0\.$"):
        nearest_neighbour_distances(points, k=0)
    for function in (pairwise_distances, lambda p, d: nearest_neighbour_distances(p, distance=d)):
        with pytest.raises(ValueError, match=r"^Unknown distance='L1': choose 'l1' or 'l2'"):
            function(points, "L1")
