"""Stochastic gradient descent as a sampler: constant-rate chains, and Langevin dynamics."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.checks import check_count, is_number
from hypernet_tf.samplers.deep_ensemble import DeepEnsemble
from hypernet_tf.samplers.draws import LANGEVIN, Draw, stream_seed
from hypernet_tf.samplers.optimizers import plain_optimizer
from hypernet_tf.targets import Target

SGD_RATE = 1e-2  # Keras's default
# Options of `keras.optimizers.SGD` under which its chain does not follow Langevin dynamics.
_NO_LANGEVIN = (
    "momentum",
    "gradient_accumulation_steps",
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "weight_decay",
    "use_ema",
)


@keras.saving.register_keras_serializable(package="hypernet_tf")
class SGDChains(DeepEnsemble):
    """Networks that constant-rate SGD visits once it has settled (Mandt et al. 2017).

    C chains run at once, each on its own share of every batch. The sampler's networks are the last
    S snapshots of each chain, taken every `snapshot_every` steps. With S = 1 and many chains they
    are independent samples; with C = 1 and many snapshots they are samples of one chain. Before the
    first snapshot the networks are the current states of the chains. Compile it with an optimizer
    whose learning rate is constant.

    Args:
        target: The `Target`, or a Keras model.
        num_chains: C, number of chains.
        num_snapshots: S, number of snapshots of each chain that are kept, the newest ones.
        snapshot_every: Number of steps between two snapshots.
        **kwargs: Options of `DeepEnsemble`, except num_networks.

    Raises:
        ValueError: `num_snapshots` or `snapshot_every` is not a positive integer.

    Example:
        >>> chain = SGDChains(model, num_chains=1, num_snapshots=10, snapshot_every=500)
        >>> loss = SparseCategoricalCrossentropy(from_logits=True)
        >>> chain.compile(optimizer=SGD(0.05), loss=loss)
        >>> chain.fit(x, y, batch_size=128, epochs=50)
        >>> chain.sample(10).evaluate(x_test, y_test)

    Reference: "Stochastic Gradient Descent as Approximate Bayesian Inference", arXiv 1704.04289.
    """

    def __init__(
        self,
        target: Target,
        *,
        num_chains: int = 10,
        num_snapshots: int = 1,
        snapshot_every: int = 1,
        **kwargs: Any,
    ):
        if "num_networks" in kwargs:
            raise TypeError(f"{type(self).__name__} has num_chains in place of num_networks.")
        num_chains = check_count("num_chains", num_chains)
        num_snapshots = check_count("num_snapshots", num_snapshots)
        snapshot_every = check_count("snapshot_every", snapshot_every)
        super().__init__(target, num_networks=num_chains, **kwargs)
        self.num_chains = self.num_networks
        self.num_snapshots, self.snapshot_every = num_snapshots, snapshot_every
        self.snapshots = [
            self.add_weight(
                name=f"kept_{index}",
                shape=(num_snapshots, *weights.shape),
                initializer="zeros",
                trainable=False,
            )
            for index, weights in enumerate(self.theta)
        ]

    @property
    def num_available(self) -> int:
        """C times the number of snapshots taken so far, at least C and at most C · S."""
        with tf.init_scope():  # a number also while a graph is traced
            taken = int(self.step.numpy()) // self.snapshot_every
        return self.num_chains * min(self.num_snapshots, max(1, taken))

    def draw(self, seed: tf.Tensor, count: int, *, training: bool) -> Draw:
        """All chains in training; otherwise `count` of the snapshots, chosen by the seed."""
        if training:
            return super().draw(seed, count, training=True)
        taken = tf.cast(self.step.value, tf.int32) // self.snapshot_every
        taken = tf.minimum(taken, self.num_snapshots)
        candidates = tf.range(self.num_chains * tf.maximum(taken, 1))
        # In random order: neighbours of one chain would otherwise stand side by side in ensembles.
        chosen = tf.random.experimental.stateless_shuffle(candidates, seed)[:count]
        chosen = tf.ensure_shape(chosen, [count])

        def networks(kept: Any, weights: Any) -> tf.Tensor:
            snapshots = tf.reshape(kept.value, [-1, *kept.shape[2:]])
            return tf.cond(
                taken > 0,
                lambda: tf.gather(snapshots, chosen),
                lambda: tf.gather(weights.value, chosen),
            )

        return Draw([networks(*pair) for pair in zip(self.snapshots, self.theta, strict=True)])

    def train_step(self, data):
        """A step of each chain, and a snapshot if it is time."""
        metrics = self._move(data)
        step = tf.cast(self.step.value, tf.int32)
        tf.cond(
            step % self.snapshot_every == 0,
            lambda: self._take_snapshot(step // self.snapshot_every - 1),
            tf.no_op,
        )
        return metrics

    def _take_snapshot(self, number: tf.Tensor) -> tf.Operation:
        oldest = number % self.num_snapshots
        for kept, weights in zip(self.snapshots, self.theta, strict=True):
            kept.assign(tf.tensor_scatter_nd_update(kept.value, [[oldest]], weights.value[None]))
        return tf.no_op()

    def _move(self, data: Any) -> dict:
        """A step of each chain."""
        return super().train_step(data)

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        config = super().get_config()
        config["num_chains"] = config.pop("num_networks")
        return config | {"num_snapshots": self.num_snapshots, "snapshot_every": self.snapshot_every}


@keras.saving.register_keras_serializable(package="hypernet_tf")
class SGLD(SGDChains):
    """Stochastic gradient Langevin dynamics: SGD with Gaussian noise of variance 2 · rate.

        theta <- theta - rate · grad U(theta) + sqrt(2 · rate) · noise,
        U = lam · mean loss - log p(theta)                         (Welling and Teh 2011, eq. 4)

    Regularizers of the target's layers are a further prior: U has lam times their penalty.

    For lam = |data| and a loss that is a negative log-likelihood, its networks are samples of the
    posterior exp(-U) as the rate goes to zero; a larger lam makes the posterior colder.

    Args:
        target: The `Target`, or a Keras model.
        lam: Number of training examples.
        prior_scale: Standard deviation of a normal prior on the weights; None for a flat prior.
        **kwargs: Options of `SGDChains`.

    Raises:
        ValueError: lam is not positive, or `compile` is given another optimizer than plain SGD.

    Example:
        >>> chain = SGLD(model, lam=55_000, num_chains=1, num_snapshots=100, snapshot_every=100)
        >>> loss = SparseCategoricalCrossentropy(from_logits=True)
        >>> chain.compile(optimizer=SGD(1e-7), loss=loss)

    Reference: "Bayesian Learning via Stochastic Gradient Langevin Dynamics", ICML 2011.
    """

    def __init__(
        self, target: Target, *, lam: float, prior_scale: float | None = 1.0, **kwargs: Any
    ):
        if not is_number(lam) or not lam > 0:
            raise ValueError(f"lam is {lam!r}: give the number of training examples.")
        super().__init__(target, lam=lam, prior_scale=prior_scale, **kwargs)

    def compile(self, optimizer=None, *args, **kwargs):
        """As `WeightSampler.compile`, with `keras.optimizers.SGD`.

        Its default rate is 0.01 / lam: that of the mean loss is 0.01, as in Keras.
        """
        rate = SGD_RATE / self._initial_lam
        optimizer = keras.optimizers.get(optimizer or keras.optimizers.SGD(rate))
        plain = plain_optimizer(optimizer)
        if type(plain) is not keras.optimizers.SGD:
            raise ValueError("Langevin dynamics follow SGD: compile with keras.optimizers.SGD.")
        if options := [name for name in _NO_LANGEVIN if getattr(plain, name)]:
            raise ValueError(f"Langevin dynamics follow plain SGD: compile without {options[0]}.")
        super().compile(optimizer, *args, **kwargs)

    def _move(self, data: Any) -> dict:
        """A step of each chain, and the noise."""
        seed = stream_seed(self.seed, LANGEVIN, self.step.value)
        rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        steps = plain_optimizer(self.optimizer).iterations
        done = tf.identity(steps.value)
        metrics = super()._move(data)
        # Where half precision overflows, the optimizer makes no step.
        rate = tf.where(steps.value > done, rate, tf.zeros_like(rate))
        for index, weights in enumerate(self.theta):
            own_seed = tf.random.experimental.stateless_fold_in(seed, index)
            noise = tf.random.stateless_normal(weights.shape, own_seed, dtype=weights.dtype)
            weights.assign_add(tf.sqrt(2.0 * rate) * noise)
        return metrics
