"""Diversity terms: how different the N networks of a training step are.

A term is a callable on the record of a step, `term(step) -> scalar`, that is *added* to the loss:

    loss = lam · accuracy loss + sum of the terms

so it decreases as the networks become more diverse. Entropies are in nats. Terms that compare what
the networks *compute* (`uses_outputs`) get the outputs of all networks on the same images.

`examples/own_diversity_term.py` shows how to write one. A term with variables of its own is a
`TrainedTerm`.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar, NamedTuple

import keras
import tensorflow as tf

from hypernet_tf.checks import check_choice
from hypernet_tf.diversity.entropy import Distance, kozachenko_leonenko_entropy


class StepRecord(NamedTuple):
    """The networks of one step, as diversity terms get them.

    Attributes:
        theta: The weights that are trained, [N, D]: gauged, unless the sampler sets
            `trains_in_gauge = False`.
        z: Latent vectors [N, d]; None if the sampler has none.
        codes: Codes of the filters, one tensor [N, F, code_dim] per layer; None if the sampler has
            none.
        outputs: Outputs [N, B, ...] of all networks on the *same* B inputs; logits are centred over
            classes, unless the loss sees their mean, and padding is 0. None unless a term has
            `uses_outputs`.
        y: Labels [B, ...] of these inputs; None unless a term has `uses_outputs`.
        seed: Two integers, from which a term draws random numbers of its own
            (`tf.random.stateless_normal`, ...); a sampler sets them in each step.
        manifold_dim: Dimension of the surface on which theta lies; None for d, or for that of the
            points if there are no latent vectors.
    """

    theta: tf.Tensor
    z: tf.Tensor | None = None
    codes: list[tf.Tensor] | None = None
    outputs: Any = None
    y: Any = None
    seed: Any = None
    manifold_dim: int | None = None


class DiversityTerm(abc.ABC):
    """Base class of diversity terms. A subclass defines `value`.

    A term with arguments of its own also defines `get_config`, so that it is saved with its
    sampler; register its class with `keras.saving.register_keras_serializable`.

    Args:
        weight: Factor on the term.

    Attributes:
        uses_outputs: Whether the term needs `outputs` and `y` of the record, for which the networks
            run once more in each step.
    """

    uses_outputs: ClassVar[bool] = False

    def __init__(self, *, weight: float = 1.0):
        self.weight = weight

    @property
    def min_networks(self) -> int:
        """The smallest number of networks that the term compares."""
        return 1

    @abc.abstractmethod
    def value(self, step: StepRecord) -> tf.Tensor:
        """The term without its factor: a scalar that decreases as diversity grows.

        Args:
            step: Networks of the step.
        """

    def __call__(self, step: StepRecord) -> tf.Tensor:
        """The term as it is added to the loss: a scalar."""
        return self.weight * self.value(step)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return {"weight": self.weight}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DiversityTerm:
        """A term with the arguments of `get_config`."""
        return cls(**config)


@keras.saving.register_keras_serializable(package="hypernet_tf")
class NegativeEntropy(DiversityTerm):
    """-H(theta), the diversity loss of the paper: the entropy of the gauged weights.

    H is estimated by `kozachenko_leonenko_entropy`.

    Args:
        distance: "l1" (the published program) or "l2" (the paper).
        k: Number of the neighbour, 1 for the nearest.
        constants: Whether to add the constants of the estimate, which have no gradient.
        epsilon: Number that is added to each distance before the logarithm.
        dimension: d of the estimate; None is that of the surface on which the sampler's weights
            lie (its latent dimension, or D if that is smaller), or the number of coordinates if it
            has no z.
        subset: Number of weights, chosen once at random, from which distances are computed; None is
            all. The entropy changes by about d·log(subset / D) for L1, half of it for L2. Only
            what the sampler shares between weights carries gradients to the other weights.
        weight: Factor on the term.

    Raises:
        ValueError: The distance has another name.

    Reference: Deutsch, Nijkamp, Yang (2019), equation 2 and section 3.1.
    """

    def __init__(
        self,
        *,
        distance: Distance = "l1",
        k: int = 1,
        constants: bool = False,
        epsilon: float = 1e-8,
        dimension: int | None = None,
        subset: int | None = None,
        weight: float = 1.0,
    ):
        super().__init__(weight=weight)
        check_choice("distance", distance, Distance)
        self.distance = distance
        self.k = k
        self.constants = constants
        self.epsilon = epsilon
        self.dimension = dimension
        self.subset = subset

    @property
    def min_networks(self) -> int:
        """A network and k neighbours."""
        return self.k + 1

    def points(self, step: StepRecord) -> tf.Tensor:
        """Points [N, ...] whose entropy is estimated."""
        return step.theta

    def entropy(self, step: StepRecord) -> tf.Tensor:
        """H in nats, a scalar.

        Args:
            step: Networks of the step.

        Raises:
            ValueError: There are not more networks than k, or the dimension is not known.
        """
        points = tf.reshape(self.points(step), [step.theta.shape[0], -1])
        if self.subset is not None:
            order = tf.random.experimental.stateless_shuffle(
                tf.range(tf.shape(points)[-1]), seed=(0, 0)
            )
            points = tf.gather(points, order[: self.subset], axis=-1)
        dimension = self.dimension or step.manifold_dim
        if dimension is None:
            dimension = (points if step.z is None else step.z).shape[-1]
        if dimension is None:
            raise ValueError(
                "The number of outputs differs between batches: pass dimension= to the term."
            )
        if self.dimension is None and points.shape[-1] is not None:
            dimension = min(dimension, points.shape[-1])  # as of a subset, or of few outputs
        return kozachenko_leonenko_entropy(
            points,
            dimension,
            distance=self.distance,
            k=self.k,
            constants=self.constants,
            epsilon=self.epsilon,
        )

    def value(self, step: StepRecord) -> tf.Tensor:
        """-H."""
        return -self.entropy(step)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return super().get_config() | {
            "distance": self.distance,
            "k": self.k,
            "constants": self.constants,
            "epsilon": self.epsilon,
            "dimension": self.dimension,
            "subset": self.subset,
        }


@keras.saving.register_keras_serializable(package="hypernet_tf")
class NegativeOutputEntropy(NegativeEntropy):
    """-H(T(x; theta)): the entropy of the networks' outputs on given inputs.

    The points are all outputs of a network on the same B inputs as one vector; logits are centred
    over classes (`Target.centred`), unless the loss sees their mean, and those of padding, which no
    loss sees, are 0. The arguments are those of `NegativeEntropy`.

    Reference: Deutsch, Nijkamp, Yang (2019), equation 3.
    """

    uses_outputs = True

    def points(self, step: StepRecord) -> tf.Tensor:
        """All outputs of a network as one vector, [N, ...]."""
        count = step.theta.shape[0]
        return tf.concat([tf.reshape(t, [count, -1]) for t in keras.tree.flatten(step.outputs)], 1)


@keras.saving.register_keras_serializable(package="hypernet_tf")
class NegativeLogPrior(DiversityTerm):
    """-E log p(theta), where the weights are independent and normal (appendices C, D).

    The term of variational inference: with lam = |data set|,
    `NegativeEntropy(distance="l2", constants=True, epsilon=0.0)` and no gauge, the loss is the
    negative evidence lower bound, |data set| · E[-log p(y|x, theta)] - H(theta) - E log p(theta),
    if z has at least as many dimensions as theta. With fewer, networks lie on a surface; the
    entropy is that on the surface, and the loss is not a bound.

    Args:
        scale: Standard deviation of the prior.
        weight: Factor on the term.

    Raises:
        ValueError: The scale is not above 0.
    """

    def __init__(self, scale: float = 1.0, *, weight: float = 1.0):
        super().__init__(weight=weight)
        if not scale > 0:
            raise ValueError(f"The scale of the prior must be above 0, not {scale}.")
        self.scale = scale

    def value(self, step: StepRecord) -> tf.Tensor:
        """-mean_n sum_j log N(theta_nj; 0, scale^2)."""
        import tensorflow_probability as tfp  # takes seconds: only for those who use it

        prior = tfp.distributions.Normal(tf.zeros([], step.theta.dtype), self.scale)
        return -tf.reduce_mean(tf.reduce_sum(prior.log_prob(step.theta), -1))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return super().get_config() | {"scale": self.scale}
