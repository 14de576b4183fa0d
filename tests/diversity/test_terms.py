"""Distances, entropy and diversity terms: brute force, closed forms, formulas written out."""

import inspect
import json
import math
import resource

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import hypernet_tf as hn
from hypernet_tf import diversity
from hypernet_tf.diversity import (
    Batch,
    DiversityTerm,
    EnsembleLoss,
    FeatureVisualisation,
    NegativeEntropy,
    NegativeLogPrior,
    NegativeOutputEntropy,
    NegativeWeightVariance,
    TextureSynthesis,
    kozachenko_leonenko_entropy,
    nearest_neighbour_distances,
    pairwise_distances,
)

DISTANCES = ("l1", "l2")
moderately = settings(deadline=None, derandomize=True, max_examples=60)


def brute_force(points, distance):
    """[N, N] from all N x N x D differences, in float64."""
    difference = points[:, None].astype(np.float64) - points[None]
    if distance == "l1":
        return np.abs(difference).sum(-1)
    return np.sqrt((difference**2).sum(-1))


def brute_force_nearest(points, distance, k):
    """[N]: row by row, the k-th smallest distance to another point."""
    matrix = brute_force(points, distance)
    return np.array([np.sort(np.delete(row, i))[k - 1] for i, row in enumerate(matrix)])


def log_ball(distance, d):
    """log of the volume of the unit ball, from the surfaces: V_1, V_2, V_3 are written out."""
    volumes = {"l1": (2, 2, 4 / 3), "l2": (2, math.pi, 4 / 3 * math.pi)}
    return math.log(volumes[distance][d - 1])


def normal(*shape, seed=0, dtype="float32"):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


@st.composite
def clouds(draw, least=1):
    """Points [N, D] in float32, N odd and even, some of them equal."""
    shape = draw(st.tuples(st.integers(least, 9), st.integers(1, 6)))
    numbers = st.floats(-100, 100, width=32)
    return draw(arrays.arrays(np.float32, shape, elements=numbers))


# ---- distances ------------------------------------------------------------------------------


# Gram matrices in float64 lose half of its 16 digits where two points nearly coincide, and the
# result is rounded to float32: 1e-6 of the largest distance covers both.
def nearly(ours, exact, scale):
    np.testing.assert_allclose(ours, exact, rtol=2e-6, atol=1e-6 * scale)


@moderately
@given(points=clouds(), distance=st.sampled_from(DISTANCES))
def test_pairwise_distances_equal_brute_force(points, distance):
    ours = pairwise_distances(tf.constant(points), distance).numpy()
    exact = brute_force(points, distance)
    nearly(ours, exact, exact.max())
    assert not np.diag(ours).any()
    np.testing.assert_array_equal(ours, ours.T)


@moderately
@given(points=clouds(least=2), distance=st.sampled_from(DISTANCES), k=st.integers(1, 3))
def test_nearest_distances_equal_brute_force(points, distance, k):
    k = min(k, len(points) - 1)
    ours = nearest_neighbour_distances(tf.constant(points), distance=distance, k=k).numpy()
    nearly(ours, brute_force_nearest(points, distance, k), brute_force(points, distance).max())


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize("count", (2, 7, 8))
def test_distances_of_an_unknown_number_of_points(distance, count):
    """In a graph that is traced once for any N."""
    points = normal(count, 3)

    @tf.function(input_signature=[tf.TensorSpec([None, 3])])
    def graph(points):
        return pairwise_distances(points, distance), nearest_neighbour_distances(
            points, distance=distance
        )

    pairs, nearest = graph(points)
    np.testing.assert_allclose(pairs, brute_force(points, distance), rtol=1e-6)
    np.testing.assert_allclose(nearest, brute_force_nearest(points, distance, 1), rtol=1e-6)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(("spread", "offset"), ((1e-2, 1e3), (1e-4, 0.0), (1e-5, 0.0)))
def test_close_neighbours_are_found_in_distant_clusters(distance, spread, offset):
    """Neither a common offset nor the distance between clusters hides the distances within them.

    In float32 a Gram matrix forgets distances below 1/3000 of the largest.
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
    ours = pairwise_distances(tf.constant(points), distance).numpy()
    np.testing.assert_allclose(ours, exact, rtol=tolerance)
    for k in (1, 3):
        ours = nearest_neighbour_distances(tf.constant(points), distance=distance, k=k)
        exact_nearest = brute_force_nearest(points, distance, k)
        np.testing.assert_allclose(ours, exact_nearest, rtol=tolerance)


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
    weights = tf.constant(normal(count, seed=1, dtype="float64"))  # tells the N distances apart

    def ours(points):
        return tf.reduce_sum(weights * nearest_neighbour_distances(points, distance=distance, k=k))

    def brute(points):
        difference = points[:, None] - points[None]
        if distance == "l1":
            matrix = tf.reduce_sum(tf.abs(difference), -1)
        else:
            apart = tf.reduce_sum(difference**2, -1) + tf.eye(count, dtype=tf.float64)
            matrix = tf.sqrt(apart) - tf.eye(count, dtype=tf.float64)
        return tf.reduce_sum(weights * tf.sort(matrix, -1)[:, k])  # place 0 is the point itself

    gradient = gradient_of(ours, points)
    np.testing.assert_allclose(gradient, gradient_of(brute, points), rtol=1e-9, atol=1e-12)
    step = 1e-6
    for place in np.ndindex(*points.shape):
        moved = np.zeros_like(points)
        moved[place] = step
        slope = (float(ours(points + moved)) - float(ours(points - moved))) / (2 * step)
        assert abs(slope - gradient[place]) < 1e-7


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


@pytest.mark.parametrize("distance", DISTANCES)
def test_memory_is_of_the_order_of_the_points(distance):
    """Distances and their gradient of N = 300 points in D = 20,000 dimensions: 24 MB of points.

    All differences would be 7.2 GB. Allowed are 20 times the points.
    """
    count, size = 300, 20_000
    points = tf.constant(normal(count, size))

    @tf.function
    def gradient(points):
        with tf.GradientTape() as tape:
            tape.watch(points)
            entropy = kozachenko_leonenko_entropy(points, 3, distance=distance)
        return tape.gradient(entropy, points)

    gradient(tf.constant(normal(count, 2)))  # what a first call takes for itself
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert np.isfinite(gradient(points)).all()
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert 1024 * kilobytes < 20 * count * size * 4


# ---- entropy --------------------------------------------------------------------------------


def standard_error(count, k, log_density_variance):
    """Of the estimator. d·log eps_i is log f(X_i) plus a variable of variance psi'(k).

    The sum over i is counted twice, because two points that are each other's neighbour share their
    distance. (Over 150 draws of 1,000 points the deviation was 1.0 to 1.5 times that of independent
    distances in each case below; sqrt(2) is allowed.)
    """
    return math.sqrt((2 * scipy.special.polygamma(1, k) + log_density_variance) / count)


CASES = [(distance, d) for distance in DISTANCES for d in (1, 2, 3)]
every_case = pytest.mark.parametrize(("distance", "d"), CASES)


def estimate(points, distance, k, **kwargs):
    """H in nats, of points that fill their space."""
    points = tf.constant(points)
    entropy = kozachenko_leonenko_entropy(points, points.shape[1], distance=distance, k=k, **kwargs)
    return float(entropy)


@every_case
@pytest.mark.parametrize("k", (1, 3))
def test_entropy_of_a_normal(distance, d, k):
    """Of log f the variance is d/2; the bias, of order (k/N)^(2/d), is at most one such error."""
    deviations = np.array([0.5, 1.0, 3.0])[:d]
    points = deviations * normal(1000, d, seed=d, dtype="float64")
    exact = d / 2 * math.log(2 * math.pi * math.e) + np.log(deviations).sum()
    ours = estimate(points, distance, k, constants=True)
    assert abs(ours - exact) < 4 * standard_error(1000, k, d / 2)


@every_case
@pytest.mark.parametrize("k", (1, 3))
def test_entropy_of_a_uniform_cube(distance, d, k):
    """The cube's edge biases upwards, never downwards, and by a bounded amount.

    A face nearer than eps_i cuts off at most half of the ball, which adds at most log 2 to
    d·log eps_i; a point is as near to one of the 2d faces with probability 2d·eps.
    """
    side = 2.5
    points = side * np.random.default_rng(d).uniform(size=(1000, d))
    ours = estimate(points, distance, k, constants=True)
    distances = brute_force_nearest(points, distance, k)
    edge = 2 * d * math.log(2) * distances.mean() / side
    error = 4 * standard_error(1000, k, 0.0)
    assert -error < ours - d * math.log(side) < error + edge


@every_case
def test_the_constants_are_all_that_they_add(distance, d):
    points = normal(20, d, dtype="float64")
    for k in (1, 3):
        without = estimate(points, distance, k)
        logs = np.log(brute_force_nearest(points, distance, k))
        assert without == pytest.approx(scipy.special.digamma(20) + d * logs.mean(), abs=1e-12)
        constants = log_ball(distance, d) - scipy.special.digamma(k)
        ours = estimate(points, distance, k, constants=True)
        assert ours - without == pytest.approx(constants, abs=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
def test_psi_makes_numbers_of_points_comparable(distance):
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


def test_dimension_is_the_manifold_s_and_epsilon_is_added():
    points = normal(6, 5, dtype="float64")
    distances = brute_force_nearest(points, "l2", 1)
    ours = kozachenko_leonenko_entropy(points, 2, epsilon=0.3)
    exact = scipy.special.digamma(6) + 2 * np.log(distances + 0.3).mean()
    assert float(ours) == pytest.approx(exact, abs=1e-12)


def test_one_line_for_what_cannot_be_estimated():
    points = tf.ones([3, 2])
    for k in (3, 4):
        with pytest.raises(ValueError, match=f"^3 points have no neighbour number {k}: use more"):
            nearest_neighbour_distances(points, k=k)
    with pytest.raises(ValueError, match=r"^neighbours are counted from 1: there is no number 0$"):
        nearest_neighbour_distances(points, k=0)
    for function in (pairwise_distances, lambda p, d: nearest_neighbour_distances(p, distance=d)):
        with pytest.raises(ValueError, match=r"^the distance is 'l1' or 'l2', not 'L1'$"):
            function(points, "L1")
    with pytest.raises(ValueError, match=r"^the distance is 'l1' or 'l2', not 'cosine'$"):
        NegativeEntropy(distance="cosine")
    with pytest.raises(ValueError, match=r"use more networks$"):
        NegativeEntropy(k=3)(Batch(points, tf.ones([3, 2])))
    for scale in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"^the prior's scale is positive, not"):
            NegativeLogPrior(scale)
    with pytest.raises(ValueError, match=r"use more networks$"):
        FeatureVisualisation()(Batch(points[:1], outputs=tf.ones([1, 4, 3])))


# ---- terms ----------------------------------------------------------------------------------

N, D, B, C = 5, 7, 6, 3


def batch(spread=1.0):
    """A step; `spread` scales how far the networks are from their mean."""

    def apart(tensor):
        return tensor.mean(0) + spread * (tensor - tensor.mean(0))

    return Batch(
        theta=apart(normal(N, D, seed=1)),
        z=normal(N, 2, seed=2),
        outputs=apart(normal(N, B, C, seed=3)),
        y=np.arange(B) % C,
    )


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def negative_entropy(points, d, distance, k=1, epsilon=0.0, constants=0.0):
    distances = brute_force_nearest(points.reshape(len(points), -1), distance, k)
    return -(
        scipy.special.digamma(len(points)) + d * np.log(distances + epsilon).mean() + constants
    )


def ensemble_loss(b):
    mean = np.mean([softmax(network.astype(np.float64)) for network in b.outputs], 0)
    return -np.mean([math.log(mean[i, label]) for i, label in enumerate(b.y)])


def texture(b):
    pairs = [np.abs(b.outputs[n] - b.outputs[n - 1]).mean() for n in range(len(b.outputs))]
    return -np.mean(pairs)


def visualisation(b):
    grams = [(outputs.T @ outputs).ravel() for outputs in b.outputs.astype(np.float64)]
    return np.mean(
        [
            g @ h / (np.linalg.norm(g) * np.linalg.norm(h))
            for i, g in enumerate(grams)
            for j, h in enumerate(grams)
            if i != j
        ]
    )


def log_normal(values, scale):
    return -0.5 * (values / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


# Each term: arguments other than the defaults, and its formula with these arguments.
TERMS = {
    NegativeEntropy: (
        {"distance": "l2", "k": 2, "constants": True, "epsilon": 0.1},
        lambda b: negative_entropy(
            b.theta, 2, "l2", 2, 0.1, math.log(math.pi) - 1 + np.euler_gamma
        ),
    ),
    NegativeOutputEntropy: (
        {"distance": "l1", "k": 2, "dimension": 4, "epsilon": 0.01},
        lambda b: negative_entropy(b.outputs, 4, "l1", 2, 0.01),
    ),
    NegativeWeightVariance: (
        {},
        lambda b: -np.mean([np.mean((w - w.mean()) ** 2) for w in b.theta.T]),
    ),
    EnsembleLoss: ({"loss": "sparse_categorical_crossentropy"}, ensemble_loss),
    TextureSynthesis: ({}, texture),
    FeatureVisualisation: ({}, visualisation),
    NegativeLogPrior: (
        {"scale": 0.7},
        lambda b: -np.mean([log_normal(theta, 0.7).sum() for theta in b.theta]),
    ),
}
every_term = pytest.mark.parametrize("term", TERMS, ids=lambda term: term.__name__)


def test_every_term_is_in_the_table():
    def below(cls):
        return {cls}.union(*map(below, cls.__subclasses__()))

    ours = {cls for cls in below(DiversityTerm) if cls.__module__.startswith("hypernet_tf")}
    assert ours - {DiversityTerm} == set(TERMS)
    public = {value for value in vars(diversity).values() if inspect.isclass(value)}
    assert ours <= public


@every_term
def test_term_equals_its_formula(term):
    arguments, formula = TERMS[term]
    value = term(**arguments)(batch())
    assert value.shape == ()
    assert float(value) == pytest.approx(formula(batch()), rel=2e-6)


@every_term
def test_term_equals_itself_in_a_graph(term):
    made = term(**TERMS[term][0])
    tensors = Batch(*(t if t is None else tf.constant(t) for t in batch()))
    np.testing.assert_allclose(tf.function(made)(tensors), made(tensors), rtol=1e-6)


@every_term
def test_weight_is_a_factor(term):
    arguments, _ = TERMS[term]
    weighted, plain = term(**arguments, weight=-2.5), term(**arguments)
    assert float(weighted(batch())) == pytest.approx(-2.5 * float(plain(batch())), rel=1e-6)


@every_term
def test_term_survives_serialisation(term):
    made = term(**TERMS[term][0], weight=1.5)
    config = made.get_config()
    accepted = {
        name
        for cls in term.__mro__
        if "__init__" in vars(cls)
        for name, p in inspect.signature(cls).parameters.items()
        if p.kind is not p.VAR_KEYWORD
    }
    assert set(config) == accepted
    text = json.dumps(keras.saving.serialize_keras_object(made))
    for copy in (term.from_config(config), keras.saving.deserialize_keras_object(json.loads(text))):
        assert type(copy) is term
        assert copy.get_config() == config
        assert float(copy(batch())) == float(made(batch()))


@pytest.mark.parametrize(
    "term", (NegativeEntropy, NegativeOutputEntropy, NegativeWeightVariance, TextureSynthesis)
)
def test_term_falls_as_networks_move_apart(term):
    values = [float(term()(batch(spread))) for spread in (0.5, 1.0, 2.0)]
    assert values[0] > values[1] + 0.01 > values[2] + 0.02


def test_ensemble_loss_falls_as_networks_err_on_different_examples():
    """Each network is wrong on one example of four; the ensemble is right where they differ."""
    right, wrong = np.eye(2) * 3.0, np.eye(2)[::-1] * 3.0
    y = np.array([0, 1, 0, 1])

    def loss(places):
        outputs = np.stack([right[y]] * 4)
        for network, place in enumerate(places):
            outputs[network, place] = wrong[y[place]]
        return float(EnsembleLoss()(Batch(None, outputs=outputs, y=y)))

    assert loss([0, 1, 2, 3]) < loss([0, 0, 1, 1]) < loss([0, 0, 0, 0])


def test_feature_visualisation_falls_as_answers_differ():
    """Networks that each answer on a channel of their own have cosine 0, twins have cosine 1."""
    apart, twins = np.zeros((3, 4, 3)), np.zeros((3, 4, 3))
    for network in range(3):
        apart[network, :, network] = twins[network, :, 0] = network + 1.0
    values = [float(FeatureVisualisation()(Batch(None, outputs=o))) for o in (apart, twins)]
    assert values == pytest.approx([0.0, 1.0], abs=1e-12)


def test_log_prior_is_highest_at_the_centre():
    """It draws the networks together, against the entropy: it is the other half of the KL."""
    term = NegativeLogPrior(2.0)
    centre = D * math.log(2 * math.sqrt(2 * math.pi))
    assert float(term(Batch(np.zeros((N, D))))) == pytest.approx(centre)
    assert float(term(batch(2.0))) > float(term(batch(1.0))) > centre


@pytest.mark.parametrize("loss", ("binary_crossentropy", keras.losses.BinaryCrossentropy()))
def test_ensemble_loss_of_one_column(loss):
    logits, y = normal(N, B, 1), np.arange(B) % 2
    p = (1 / (1 + np.exp(-logits[..., 0].astype(np.float64)))).mean(0)
    ours = EnsembleLoss(loss, activation="sigmoid")(Batch(None, outputs=logits, y=y))
    exact = -np.mean(np.where(y == 1, np.log(p), np.log(1 - p)))
    assert float(ours) == pytest.approx(exact, rel=1e-5)


def test_ensemble_loss_of_values():
    values, y = normal(N, B, C), normal(B, C, seed=9)
    ours = EnsembleLoss("mean_squared_error", activation="linear")(Batch(None, outputs=values, y=y))
    assert float(ours) == pytest.approx(((values.mean(0) - y) ** 2).mean(), rel=1e-5)


def test_dimension_comes_from_z_or_else_from_the_points():
    theta, z = normal(N, D), normal(N, 2)
    for b, arguments, d in (
        (Batch(theta, z), {}, 2),
        (Batch(theta), {}, D),
        (Batch(theta), {"subset": 3}, 3),
        (Batch(theta, z), {"dimension": 4}, 4),
    ):
        slopes = [float(NegativeEntropy(epsilon=0.0, **arguments)(b._replace(theta=t)))
                  for t in (theta, math.e * theta)]  # fmt: skip
        assert slopes[0] - slopes[1] == pytest.approx(d, rel=1e-5)

    @tf.function(input_signature=[tf.TensorSpec([N, None, C])])
    def of_any_batch(outputs):
        return NegativeOutputEntropy()(Batch(theta, outputs=outputs))

    with pytest.raises(ValueError, match="differs between batches: give the entropy's dimension="):
        of_any_batch(normal(N, B, C))


def test_subset_of_the_weights():
    """Two networks that differ by 2^j in weight j: their L1 distance names the weights it sees."""

    def seen(size, subset):
        theta = tf.constant(np.stack([np.zeros(size), 2.0 ** np.arange(size)]))
        term = NegativeEntropy(subset=subset, epsilon=0.0, dimension=1)
        values = [float(function(Batch(theta))) for function in (term, tf.function(term), term)]
        assert len(set(values)) == 1  # drawn once, in a graph as well
        distance = round(math.exp(-values[0] - scipy.special.digamma(2)))
        return [j for j in range(size) if distance >> j & 1]

    some = seen(20, 6)
    assert len(some) == 6
    assert some != list(range(6))  # drawn at random
    assert len(seen(20, 19)) == 19
    assert seen(20, 20) == seen(20, None) == seen(20, 50) == list(range(20))


# ---- variational inference ------------------------------------------------------------------


@pytest.mark.parametrize("which", ("posterior", "another"))
def test_the_loss_is_the_negative_evidence_lower_bound(which):
    """Linear regression y = x·theta + noise, theta ~ N(0, s^2), networks from a normal q.

    lam = |data set| and the two terms give -ELBO(q), which is KL(q | posterior) - log p(y): both
    normal, so known in closed form. Tolerance: four standard errors, those of the mean over
    networks and of the entropy estimate added up (the two are not independent).
    """
    count, size, noise, scale = 2000, 12, 0.8, 1.5
    rng = np.random.default_rng(5)
    x = rng.normal(size=(size, 2))
    y = x @ [1.0, -0.5] + noise * rng.normal(size=size)

    precision = x.T @ x / noise**2 + np.eye(2) / scale**2
    covariance = np.linalg.inv(precision)
    mean = covariance @ x.T @ y / noise**2
    marginal = noise**2 * np.eye(size) + scale**2 * x @ x.T
    evidence = -0.5 * (
        y @ np.linalg.solve(marginal, y) + np.linalg.slogdet(2 * math.pi * marginal)[1]
    )
    if which == "posterior":
        q_mean, q_covariance, gap = mean, covariance, 0.0
    else:
        turn = np.array([[0.8, -0.6], [0.6, 0.8]])
        q_mean, q_covariance = mean + np.array([0.3, -0.2]), turn @ covariance @ turn.T / 4
        away = mean - q_mean
        gap = 0.5 * (
            np.trace(precision @ q_covariance)
            - 2
            + away @ precision @ away
            - np.linalg.slogdet(precision @ q_covariance)[1]
        )
        assert gap > 1

    target = hn.Target(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, use_bias=False)]))
    z = rng.normal(size=(count, 2))
    theta = tf.constant(q_mean + z @ np.linalg.cholesky(q_covariance).T, tf.float32)
    outputs = target(target.unflatten(theta), x.astype("float32"))[..., 0].numpy()  # [N, |data|]
    member_loss = -log_normal(outputs - y, noise).mean(1)  # the accuracy loss of each network
    step = Batch(theta, z)
    terms = [NegativeEntropy(distance="l2", constants=True, epsilon=0.0), NegativeLogPrior(scale)]
    loss = size * member_loss.mean() + sum(float(term(step)) for term in terms)

    each = size * member_loss - log_normal(theta.numpy(), scale).sum(1)
    error = each.std() / math.sqrt(count) + standard_error(count, 1, 2 / 2)
    assert abs(loss - (gap - evidence)) < 4 * error < 0.3
