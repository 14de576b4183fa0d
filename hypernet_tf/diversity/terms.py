"""Diversity terms: how different the N networks of a step are.

A term is a callable on one record of the step, `term(batch) -> scalar`, that is *added* to the
loss: the more diverse the networks, the smaller. Entropies are in nats, the others in the units of
their formula.

    loss = lam · accuracy loss + sum of the terms

Terms that compare what the networks *do* (`uses_outputs`) see the outputs of all networks on the
same images.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from hypernet_tf.diversity.entropy import (
    check_distance,
    kozachenko_leonenko_entropy,
)


class Batch(NamedTuple):
    """One step, as a diversity term sees it.

    Attributes:
        theta: [N, D] gauged weights.
        z: [N, d] latent vectors; None where a sampler has none.
        codes: one tensor [N, F, code_dim] per layer; None where a sampler has none.
        outputs: [N, B, ...] outputs of all networks on the *same* B inputs, logits centred over
            classes; None unless a term asks for them.
        y: [B, ...] the labels of these inputs; None likewise.
    """

    theta: tf.Tensor
    z: tf.Tensor | None = None
    codes: list[tf.Tensor] | None = None
    outputs: Any = None
    y: Any = None


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
        dimension: d; None takes the latent dimension of the sampler, or the number of
            coordinates where it has no z.
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
        check_distance(distance)
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
        if self.subset is not None:
            order = tf.random.experimental.stateless_shuffle(
                tf.range(tf.shape(points)[-1]), seed=(0, 0)
            )
            points = tf.gather(points, order[: self.subset], axis=-1)
        dimension = self.dimension
        if dimension is None:
            dimension = (points if batch.z is None else batch.z).shape[-1]
        if dimension is None:
            raise ValueError(
                "how many outputs there are differs between batches: give the entropy's dimension="
            )
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

    The networks' outputs on the same B inputs, side by side, are the points; of logits what is left
    of them without their mean over classes (`Target.centred`). Same arguments as `NegativeEntropy`.
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
        activation: what turns one network's output into what is averaged: "softmax" for logits,
            "sigmoid" for one column of them, "linear" otherwise.
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
        answers = tf.reduce_mean(keras.activations.get(self.activation)(batch.outputs), 0)
        y = tf.convert_to_tensor(batch.y)
        if answers.shape[-1] == 1 and y.shape.rank == answers.shape.rank - 1:
            y = y[..., None]  # a loss that is a function does not do this itself
        return tf.reduce_mean(self.loss(y, answers))

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {"loss": keras.losses.serialize(self.loss)}


@_register
class TextureSynthesis(DiversityTerm):
    """-mean |features - features of a shuffled copy of the batch| (Li et al. 2017).

    The term of texture synthesis.
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
    vec(G_n) · vec(G_m) / (|G_n| |G_m|): least where the networks' answers are least alike. (Olah et
    al. call its negative the diversity.)
    """

    uses_outputs = True

    def value(self, batch: Batch) -> tf.Tensor:
        """The mean cosine over pairs of networks."""
        count = batch.outputs.shape[0]
        if count < 2:
            raise ValueError("one network has no other to be compared with: use more networks")
        features = tf.reshape(
            batch.outputs, [count, tf.shape(batch.outputs)[1], math.prod(batch.outputs.shape[2:])]
        )
        grams = tf.matmul(features, features, transpose_a=True)  # [N, C, C]
        unit = tf.math.l2_normalize(tf.reshape(grams, [count, -1]), -1)
        cosines = tf.matmul(unit, unit, transpose_b=True)
        return (tf.reduce_sum(cosines) - tf.linalg.trace(cosines)) / (count * (count - 1))


@_register
class NegativeLogPrior(DiversityTerm):
    """-E log p(theta), with independent normal weights (appendices C, D).

    It is what variational inference adds: with lam = |data set|,
    `NegativeEntropy(distance="l2", constants=True, epsilon=0.0)` and no gauge, the loss is the
    negative evidence lower bound, |data set| · E[-log p(y|x, theta)] - H(theta) - E log p(theta).

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
