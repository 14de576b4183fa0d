"""Diversity terms: how different the N networks of a step are.

A term is a callable on one record of the step, `term(batch) -> scalar`, that is *added* to the loss: the more diverse the networks,
the smaller. Entropies and distances are in the units of their formula; entropies in nats.

    loss = lam · accuracy loss + sum of the terms

Terms that compare what the networks *do* (`uses_outputs`) see the outputs of all networks on the same images.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf


class Batch(NamedTuple):
    """One step, as a diversity term sees it.

    Attributes:
        theta: [N, D] gauged weights.
        z: [N, d] latent vectors; None where a sampler has none.
        codes: one tensor [N, F, code_dim] per layer; None where a sampler has none.
        outputs: [N, B, ...] outputs of all networks on the *same* B inputs; None unless a term
            asks for them.
        y: [B, ...] the labels of these inputs; None likewise.
    """

    theta: tf.Tensor
    z: tf.Tensor | None = None
    codes: list[tf.Tensor] | None = None
    outputs: tf.Tensor | None = None
    y: tf.Tensor | None = None


# ---- distances ------------------------------------------------------------------------------


def pairwise_distances(points: tf.Tensor, distance: str = "l2") -> tf.Tensor:
    """All distances between N points, [N, N], in O(N·D) memory; not meant to be differentiated.

    Args:
        points: [N, D].
        distance: "l2" (Gram matrix of the centred points) or "l1". For L1, |a - b| summed over D is
            2·max(a, b) - a - b summed: the points are compared with themselves shifted by one place, by
            two, ..., so that no more than N·D numbers are held, and each pair is met once.
    """
    _check_distance(distance)
    points -= tf.reduce_mean(points, 0, keepdims=True)  # the same distances, better conditioned
    if distance == "l2":
        squares = tf.reduce_sum(points**2, -1)
        squared = (
            squares[:, None] + squares[None] - 2.0 * tf.matmul(points, points, transpose_b=True)
        )
        return tf.sqrt(tf.maximum(squared, 0.0))
    count = tf.shape(points)[0]
    sums = tf.reduce_sum(points, -1)
    index = tf.range(count)

    def shifted(shift, rows):
        other = (index + shift) % count
        distances = (
            2.0 * tf.reduce_sum(tf.maximum(points, tf.roll(points, -shift, 0)), -1)
            - sums
            - tf.gather(sums, other)
        )
        return shift + 1, rows.write(shift, tf.maximum(distances, 0.0))

    half = count // 2
    rows = tf.TensorArray(points.dtype, size=half + 1, element_shape=[points.shape[0]])
    rows = rows.write(0, tf.zeros([count], points.dtype))
    _, rows = tf.while_loop(
        lambda shift, _: shift <= half, shifted, (1, rows), parallel_iterations=1
    )
    by_shift = rows.stack()  # [half + 1, N]: entry (s, i) is the distance of i and i + s
    shift = (index[None] - index[:, None]) % count
    near = tf.minimum(shift, count - shift)
    start = tf.where(shift <= half, index[:, None], index[None])
    return tf.gather_nd(by_shift, tf.stack([near, start], -1))


def nearest_neighbour_distances(
    points: tf.Tensor, *, distance: str = "l2", k: int = 1
) -> tf.Tensor:
    """The distance of each point to its k-th nearest other point, [N], differentiable.

    Only that one distance has a gradient, so the neighbour is found without gradients and N distances
    are computed: never N x N x D numbers.

    Args:
        points: [N, D].
        distance: "l1" or "l2".
        k: which neighbour, 1 for the nearest.

    Raises:
        ValueError: fewer than k + 1 points.
    """
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


def _check_distance(distance: str) -> None:
    if distance not in ("l1", "l2"):
        raise ValueError(f"the distance is 'l1' or 'l2', not {distance!r}")


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

    H = psi(N) + d · mean_i log(eps_i + epsilon), with eps_i the distance of point i to its k-th nearest
    neighbour (Kozachenko and Leonenko 1987; Deutsch et al. 2019, section 3.1). With `constants` the
    estimate is unbiased as N grows and compares with closed forms:
    H = psi(N) - psi(k) + log V_d + d · mean_i log eps_i, V_d the volume of the unit ball: pi^(d/2)/Gamma(d/2 + 1)
    for L2, 2^d/d! for L1.

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
        entropy += tf.cast(volume, points.dtype) - tf.math.digamma(tf.cast(k, points.dtype))
    return entropy


# ---- terms ----------------------------------------------------------------------------------


class DiversityTerm:
    """Base of the terms: a weight, and serialisation.

    Args:
        weight: factor on the term.
    """

    uses_outputs: ClassVar[bool] = False

    def __init__(self, *, weight: float = 1.0):
        self.weight = weight

    def value(self, batch: Batch) -> tf.Tensor:
        """The unweighted term."""
        raise NotImplementedError

    def __call__(self, batch: Batch) -> tf.Tensor:
        """The term, as it is added to the loss: a scalar that falls as diversity grows."""
        return self.weight * self.value(batch)

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return {name.lstrip("_"): value for name, value in vars(self).items()}

    @classmethod
    def from_config(cls, config: dict) -> DiversityTerm:
        """A term from `get_config`."""
        return cls(**config)


def _register(term: type) -> type:
    return keras.saving.register_keras_serializable(package="hypernet_tf")(term)


@_register
class NegativeEntropy(DiversityTerm):
    """-H(theta), the paper's diversity loss: `kozachenko_leonenko_entropy` of the gauged weights.

    Args:
        distance: "l1" (the published program) or "l2" (the paper).
        k: which neighbour.
        constants: see `kozachenko_leonenko_entropy`.
        epsilon: added to the distances.
        dimension: d; None takes the latent dimension of the sampler.
        subset: compute distances on this many weights, drawn once at random, as the paper does for
            large targets; None takes all.
        weight: factor on the term.
    """

    def __init__(
        self,
        *,
        distance: str = "l1",
        k: int = 1,
        constants: bool = False,
        epsilon: float = 1e-8,
        dimension: int | None = None,
        subset: int | None = None,
        weight: float = 1.0,
    ):
        super().__init__(weight=weight)
        _check_distance(distance)
        self.distance = distance
        self.k = k
        self.constants = constants
        self.epsilon = epsilon
        self.dimension = dimension
        self.subset = subset

    def points(self, batch: Batch) -> tf.Tensor:
        """What the entropy is taken of: [N, anything]."""
        return batch.theta

    def entropy(self, batch: Batch) -> tf.Tensor:
        """H in nats."""
        points = tf.reshape(self.points(batch), [batch.theta.shape[0], -1])
        dimension = self.dimension
        if dimension is None:
            dimension = points.shape[-1] if batch.z is None else batch.z.shape[-1]
        if self.subset is not None:
            order = tf.random.experimental.stateless_shuffle(
                tf.range(tf.shape(points)[-1]), seed=(0, 0)
            )
            points = tf.gather(points, order[: self.subset], axis=-1)
        return kozachenko_leonenko_entropy(
            points,
            dimension,
            distance=self.distance,
            k=self.k,
            constants=self.constants,
            epsilon=self.epsilon,
        )

    def value(self, batch: Batch) -> tf.Tensor:
        """-H."""
        return -self.entropy(batch)


@_register
class NegativeOutputEntropy(NegativeEntropy):
    """-H(T(x; theta)) (eq. 3): the entropy of what the networks answer on given inputs.

    The networks' outputs on the same B inputs, side by side, are the points. Same arguments as
    `NegativeEntropy`.
    """

    uses_outputs = True

    def points(self, batch: Batch) -> tf.Tensor:
        """The outputs, [N, B, ...]."""
        return batch.outputs


@_register
class NegativeWeightVariance(DiversityTerm):
    """-mean over weights of their variance over networks: 1/D · sum_j Var_n theta_nj."""

    def value(self, batch: Batch) -> tf.Tensor:
        """Minus the mean variance."""
        return -tf.reduce_mean(tf.math.reduce_variance(batch.theta, 0))


@_register
class EnsembleLoss(DiversityTerm):
    """The loss of the ensemble's aggregated prediction: loss(y, mean_n activation(outputs_n)).

    Args:
        loss: a Keras loss or its name, on probabilities (or values).
        activation: what turns one network's output into what is averaged: "softmax" for logits, "linear" otherwise.
        weight: factor on the term.
    """

    uses_outputs = True

    def __init__(
        self,
        loss: Any = "sparse_categorical_crossentropy",
        *,
        activation: str = "softmax",
        weight: float = 1.0,
    ):
        super().__init__(weight=weight)
        self.loss = keras.losses.get(loss)
        self.activation = activation

    def value(self, batch: Batch) -> tf.Tensor:
        """The mean loss of the averaged prediction."""
        answers = keras.activations.get(self.activation)(batch.outputs)
        return tf.reduce_mean(self.loss(batch.y, tf.reduce_mean(answers, 0)))

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {"loss": keras.losses.serialize(self.loss)}


@_register
class TextureSynthesis(DiversityTerm):
    """-mean |features - features of a shuffled copy of the batch| (Li et al. 2017, texture synthesis).

    The features are the outputs on the same inputs. The shuffle is a rotation by one network: no
    network is compared with itself.
    """

    uses_outputs = True

    def value(self, batch: Batch) -> tf.Tensor:
        """Minus the mean absolute difference."""
        return -tf.reduce_mean(tf.abs(batch.outputs - tf.roll(batch.outputs, 1, 0)))


@_register
class FeatureVisualisation(DiversityTerm):
    """Mean pairwise cosine of Gram matrices (Olah et al. 2017, feature visualisation).

    With G_n = outputs_n^T · outputs_n over the B inputs, the term is the mean over pairs of
    vec(G_n) · vec(G_m) / (|G_n| |G_m|): least where the networks' answers are least alike. (Olah et al.
    call its negative the diversity.)
    """

    uses_outputs = True

    def value(self, batch: Batch) -> tf.Tensor:
        """The mean cosine over pairs of networks."""
        count = batch.outputs.shape[0]
        features = tf.reshape(
            batch.outputs, [count, tf.shape(batch.outputs)[1], math.prod(batch.outputs.shape[2:])]
        )
        grams = tf.matmul(features, features, transpose_a=True)  # [N, C, C]
        unit = tf.math.l2_normalize(tf.reshape(grams, [count, -1]), -1)
        cosines = tf.matmul(unit, unit, transpose_b=True)
        return (tf.reduce_sum(cosines) - tf.linalg.trace(cosines)) / (count * (count - 1))


@_register
class NegativeLogPrior(DiversityTerm):
    """-E log p(theta), with independent normal weights: what variational inference adds (appendices C, D).

    With lam = |data set|, `NegativeEntropy(constants=True)` and no gauge, the loss is the negative evidence
    lower bound: |data set| · E[-log p(y|x, theta)] - H(theta) - E log p(theta).

    Args:
        scale: the prior's standard deviation.
        weight: factor on the term.
    """

    def __init__(self, scale: float = 1.0, *, weight: float = 1.0):
        super().__init__(weight=weight)
        if not scale > 0:
            raise ValueError(f"the prior's scale is positive, not {scale}")
        self.scale = scale

    def value(self, batch: Batch) -> tf.Tensor:
        """-mean_n sum_j log N(theta_nj; 0, scale^2)."""
        import tensorflow_probability as tfp  # takes seconds: only for those who use it

        prior = tfp.distributions.Normal(tf.zeros([], batch.theta.dtype), self.scale)
        return -tf.reduce_mean(tf.reduce_sum(prior.log_prob(batch.theta), -1))
