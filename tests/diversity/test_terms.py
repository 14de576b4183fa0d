"""Diversity terms: formulas written out, serialisation, and variational inference."""

import inspect
import json
import math

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from brute_force import brute_force_nearest, normal, standard_error

import hypernet_tf as hn
from hypernet_tf import diversity
from hypernet_tf.diversity import (
    DiversityTerm,
    NegativeEntropy,
    NegativeLogPrior,
    NegativeOutputEntropy,
    PriorMoments,
    StepRecord,
    TrainedTerm,
)

N, D, B, C = 5, 7, 6, 3


def test_outputs_of_several_heads_are_one_point():
    a, b = normal(N, B, C, seed=3), normal(N, B, 1, seed=6)
    points = np.concatenate([a.reshape(N, -1), b.reshape(N, -1)], 1)
    term = NegativeOutputEntropy(dimension=2)
    value = term(StepRecord(normal(N, D, seed=1), None, None, outputs={"a": a, "b": b}))
    expected = term(StepRecord(normal(N, D, seed=1), None, None, outputs=points))
    assert float(value) == pytest.approx(float(expected), rel=1e-6)


def step(spread=1.0):
    """The record of a step; `spread` scales the networks' distances from their mean."""

    def apart(tensor):
        return tensor.mean(0) + spread * (tensor - tensor.mean(0))

    return StepRecord(
        theta=apart(normal(N, D, seed=1)),
        z=normal(N, 2, seed=2),
        codes=[normal(N, 2, 3, seed=4), normal(N, 1, 2, seed=5)],
        outputs=apart(normal(N, B, C, seed=3)),
        y=np.arange(B) % C,
    )


def negative_entropy(points, d, distance, k=1, epsilon=0.0, constants=0.0):
    distances = brute_force_nearest(points.reshape(len(points), -1), distance, k)
    return -(
        scipy.special.digamma(len(points)) + d * np.log(distances + epsilon).mean() + constants
    )


def log_normal(values, scale):
    return -0.5 * (values / scale) ** 2 - math.log(scale) - 0.5 * math.log(2 * math.pi)


def moment_error(points):
    """Of two halves: every product is one of independent estimates."""
    halves = np.split(points[: len(points) // 2 * 2], 2)
    means = [half.mean(0) for half in halves]
    excesses = [np.cov(half.T) - np.eye(points.shape[1]) for half in halves]
    return (np.vdot(*means) + np.vdot(*excesses)) / points.shape[1]


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
    NegativeLogPrior: (
        {"scale": 0.7},
        lambda b: -np.mean([log_normal(theta, 0.7).sum() for theta in b.theta]),
    ),
    PriorMoments: (
        {},
        lambda b: np.mean([moment_error(c[:, f]) for c in b.codes for f in range(c.shape[1])]),
    ),
}
every_term = pytest.mark.parametrize("term", TERMS, ids=lambda term: term.__name__)


def test_every_term_is_tested():
    def below(cls):
        return {cls}.union(*map(below, cls.__subclasses__()))

    terms = {cls for cls in below(DiversityTerm) if cls.__module__.startswith("hypernet_tf")}
    trained = below(TrainedTerm)  # tests/diversity/test_trained.py
    assert terms - trained - {DiversityTerm} == set(TERMS)
    public = {value for value in vars(diversity).values() if inspect.isclass(value)}
    assert terms <= public


@every_term
def test_term_equals_its_formula(term):
    arguments, formula = TERMS[term]
    value = term(**arguments)(step())
    assert value.shape == ()
    assert float(value) == pytest.approx(formula(step()), rel=2e-6)


@every_term
def test_term_equals_itself_in_a_graph(term):
    made = term(**TERMS[term][0])
    tensors = StepRecord(*tf.nest.map_structure(
        lambda t: t if t is None else tf.constant(t), tuple(step())
    ))  # fmt: skip
    np.testing.assert_allclose(tf.function(made)(tensors), made(tensors), rtol=1e-6)


@every_term
def test_weight_is_a_factor(term):
    arguments, _ = TERMS[term]
    weighted, plain = term(**arguments, weight=-2.5), term(**arguments)
    assert float(weighted(step())) == pytest.approx(-2.5 * float(plain(step())), rel=1e-6)


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
        assert float(copy(step())) == float(made(step()))


@pytest.mark.parametrize("term", (NegativeEntropy, NegativeOutputEntropy))
def test_term_decreases_as_networks_move_apart(term):
    values = [float(term()(step(spread))) for spread in (0.5, 1.0, 2.0)]
    assert values[0] > values[1] + 0.01 > values[2] + 0.02


def test_a_term_of_ones_own_is_a_class_with_a_value():
    class Spread(DiversityTerm):
        def value(self, step):
            return -tf.reduce_mean(tf.math.reduce_std(step.theta, 0))

    term = Spread(weight=2.0)
    assert float(term(step())) == pytest.approx(-2 * step().theta.std(0).mean(), rel=1e-6)
    assert Spread.from_config(term.get_config()).weight == 2.0
    with pytest.raises(TypeError, match="abstract"):
        DiversityTerm()


def test_log_prior_is_highest_at_the_centre():
    """It pulls the networks together, against the entropy: both are the KL divergence."""
    term = NegativeLogPrior(2.0)
    centre = D * math.log(2 * math.sqrt(2 * math.pi))
    assert float(term(StepRecord(np.zeros((N, D))))) == pytest.approx(centre)
    assert float(term(step(2.0))) > float(term(step(1.0))) > centre


def test_dimension_is_that_of_z_or_of_the_points():
    theta, z = normal(N, D), normal(N, 2)
    for b, arguments, d in (
        (StepRecord(theta, z), {}, 2),
        (StepRecord(theta), {}, D),
        (StepRecord(theta), {"subset": 3}, 3),
        (StepRecord(theta, z), {"dimension": 4}, 4),
    ):
        slopes = [float(NegativeEntropy(epsilon=0.0, **arguments)(b._replace(theta=t)))
                  for t in (theta, math.e * theta)]  # fmt: skip
        assert slopes[0] - slopes[1] == pytest.approx(d, rel=1e-5)

    @tf.function(input_signature=[tf.TensorSpec([N, None, C])])
    def of_any_batch(outputs):
        return NegativeOutputEntropy()(StepRecord(theta, outputs=outputs))

    with pytest.raises(ValueError, match="differs between batches: pass dimension="):
        of_any_batch(normal(N, B, C))


def test_no_more_dimensions_than_coordinates():
    theta = tf.constant(normal(9, 20))
    step = StepRecord(theta, z=tf.zeros([9, 64]), manifold_dim=15)
    for size, dimension in ((4, 4), (17, 15), (None, 15)):
        given = NegativeEntropy(subset=size, dimension=dimension)
        assert float(NegativeEntropy(subset=size).entropy(step)) == float(given.entropy(step))


def test_subset_of_the_weights():
    """Two networks that differ by 2^j in weight j: their L1 distance tells the weights used."""

    def used(size, subset):
        theta = tf.constant(np.stack([np.zeros(size), 2.0 ** np.arange(size)]))
        term = NegativeEntropy(subset=subset, epsilon=0.0, dimension=1)
        values = [
            float(function(StepRecord(theta))) for function in (term, tf.function(term), term)
        ]
        assert len(set(values)) == 1  # drawn once, in a graph as well
        distance = round(math.exp(-values[0] - scipy.special.digamma(2)))
        return [j for j in range(size) if distance >> j & 1]

    some = used(20, 6)
    assert len(some) == 6
    assert some != list(range(6))  # drawn at random
    assert len(used(20, 19)) == 19
    assert used(20, 20) == used(20, None) == used(20, 50) == list(range(20))


def test_mistakes_are_one_line():
    points = tf.ones([3, 2])
    with pytest.raises(ValueError, match=r"^Unknown distance='cosine': choose 'l1' or 'l2'"):
        NegativeEntropy(distance="cosine")
    with pytest.raises(ValueError, match=r"use more networks\.$"):
        NegativeEntropy(k=3)(StepRecord(points, tf.ones([3, 2])))
    for scale in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"^The scale of the prior must be above 0, not"):
            NegativeLogPrior(scale)


# ---- variational inference ------------------------------------------------------------------


@pytest.mark.parametrize("which", ("posterior", "another"))
def test_the_loss_is_the_negative_evidence_lower_bound(which):
    """Linear regression y = x·theta + noise, theta ~ N(0, s^2), networks from a normal q.

    lam = |data set| and the two terms give -ELBO(q), which is KL(q | posterior) - log p(y): both
    normal, so known in closed form. Tolerance: four standard errors, the sum of those
    of the mean over networks and of the entropy estimate (the two are not independent).
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
    record = StepRecord(theta, z)
    terms = [NegativeEntropy(distance="l2", constants=True, epsilon=0.0), NegativeLogPrior(scale)]
    loss = size * member_loss.mean() + sum(float(term(record)) for term in terms)

    each = size * member_loss - log_normal(theta.numpy(), scale).sum(1)
    error = each.std() / math.sqrt(count) + standard_error(count, 1, 2 / 2)
    assert abs(loss - (gap - evidence)) < 4 * error < 0.3
