"""Stochastic gradient descent as a sampler: constant-rate chains, and Langevin dynamics."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.samplers.deep_ensemble import DeepEnsemble
from hypernet_tf.samplers.draws import LANGEVIN, Draw, stream_seed
from hypernet_tf.targets import Target

# Options of `keras.optimizers.SGD` with which its chain is not that of Langevin dynamics.
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
    """Networks that constant-rate SGD passes through, once it has settled (Mandt et al. 2017).

    C chains run at once, each on its own share of every batch. The sampler's networks are the last
    S snapshots of each chain, one every so many steps: S = 1 and many chains are independent
    samples, C = 1 and many snapshots are those of one chain. Before the first snapshot its networks
    are the chains as they stand. Compile it with an optimizer whose rate stays constant.

    Args:
        target: the `Target`, or a Keras model.
        num_chains: C, how many chains run.
        num_snapshots: S, how many networks of each chain are kept, the newest.
        snapshot_every: steps between two of them.
        **kwargs: see `DeepEnsemble`; its `networks` are the chains.

    Attributes:
        num_available: C · the snapshots that there are by now; `num_available_after(steps)` foretells it.

    Example:
        >>> chain = SGDChains(Target(zoo.mnist()), num_chains=1, num_snapshots=10, snapshot_every=500)
        >>> chain.compile(optimizer=SGD(0.05), loss=SparseCategoricalCrossentropy(from_logits=True))
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
        if not (
            isinstance(num_snapshots, int)
            and isinstance(snapshot_every, int)
            and min(num_snapshots, snapshot_every) > 0
        ):
            raise ValueError(
                "a chain keeps a whole number of snapshots, at least one, a whole number of steps "
                f"apart: not {num_snapshots}, {snapshot_every} apart"
            )
        super().__init__(target, num_networks=num_chains, **kwargs)
        self.num_chains, self.num_snapshots, self.snapshot_every = (
            num_chains,
            num_snapshots,
            snapshot_every,
        )
        self.kept = [
            self.add_weight(
                name=f"kept_{place}",
                shape=(num_snapshots, *weights.shape),
                initializer="zeros",
                trainable=False,
            )
            for place, weights in enumerate(self.theta)
        ]

    @property
    def num_available(self) -> int:
        """How many networks there are by now."""
        return self.num_chains * max(1, int(self._snapshots_taken()))

    def num_available_after(self, steps: int) -> int:
        """How many networks there are after so many training steps."""
        return self.num_chains * min(self.num_snapshots, max(1, steps // self.snapshot_every))

    def _snapshots_taken(self) -> tf.Tensor:
        taken = tf.cast(self.step.value, tf.int32) // self.snapshot_every
        return tf.minimum(taken, self.num_snapshots)

    def draw(self, seed: tf.Tensor, count: int, *, training: bool) -> Draw:
        """All chains in training; otherwise `count` of the snapshots, chosen by the seed."""
        if training:
            return super().draw(seed, count, training=True)
        taken = self._snapshots_taken()
        everything = tf.range(self.num_chains * tf.maximum(taken, 1))
        places = tf.sort(tf.random.experimental.stateless_shuffle(everything, seed)[:count])
        places = tf.ensure_shape(places, [count])

        def chosen(kept: Any, weights: Any) -> tf.Tensor:
            snapshots = tf.reshape(kept.value, [-1, *kept.shape[2:]])
            return tf.cond(
                taken > 0,
                lambda: tf.gather(snapshots, places),
                lambda: tf.gather(weights.value, places),
            )

        return Draw([chosen(*both) for both in zip(self.kept, self.theta, strict=True)])

    def train_step(self, data):
        """A step of each chain; every so many steps the networks are kept."""
        own = stream_seed(self.seed, LANGEVIN, self.step.value)
        rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        metrics = super().train_step(data)
        self._move(own, rate)
        step = tf.cast(self.step.value, tf.int32)
        tf.cond(
            step % self.snapshot_every == 0,
            lambda: self._keep(step // self.snapshot_every - 1),
            tf.no_op,
        )
        return metrics

    def _keep(self, number: tf.Tensor) -> tf.Operation:
        place = number % self.num_snapshots
        for kept, weights in zip(self.kept, self.theta, strict=True):
            kept.assign(tf.tensor_scatter_nd_update(kept.value, [[place]], weights.value[None]))
        return tf.no_op()

    def _move(self, seed: tf.Tensor, rate: tf.Tensor) -> None:
        """What a chain does beside following the gradient: nothing."""

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        config = super().get_config()
        config["num_chains"] = config.pop("num_networks")
        return config | {"num_snapshots": self.num_snapshots, "snapshot_every": self.snapshot_every}


@keras.saving.register_keras_serializable(package="hypernet_tf")
class SGLD(SGDChains):
    """Stochastic gradient Langevin dynamics: SGD with Gaussian noise of variance 2 · rate.

    theta <- theta - rate · grad U(theta) + sqrt(2 · rate) · noise, with
    U = lam · mean loss - log p(theta) (Welling and Teh 2011). For lam = |data| and a loss that is
    a negative log-likelihood, its networks are samples of the posterior exp(-U), as the rate goes
    to zero; a larger lam makes the posterior colder.

    Args:
        target: the `Target`, or a Keras model.
        lam: the number of training examples.
        prior_scale: standard deviation of a normal prior on the weights; None for a flat one.
        **kwargs: see `SGDChains`.

    Example:
        >>> chain = SGLD(Target(zoo.mnist()), lam=55_000, num_chains=1, num_snapshots=100, snapshot_every=100)
        >>> chain.compile(optimizer=SGD(1e-7), loss=SparseCategoricalCrossentropy(from_logits=True))

    Raises:
        ValueError: compiled with another optimizer than plain SGD.

    Reference: "Bayesian Learning via Stochastic Gradient Langevin Dynamics", ICML 2011.
    """

    def __init__(
        self, target: Target, *, lam: float, prior_scale: float | None = 1.0, **kwargs: Any
    ):
        if not lam > 0:
            raise ValueError(f"lam is the number of training examples, at least 1: not {lam}")
        super().__init__(target, lam=lam, prior_scale=prior_scale, **kwargs)

    def compile(self, optimizer="sgd", loss=None, metrics=None, **kwargs):
        """As `WeightSampler.compile`."""
        super().compile(optimizer=optimizer, loss=loss, metrics=metrics, **kwargs)
        # In float16 it is inside the one that scales the loss.
        plain = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        if type(plain) is not keras.optimizers.SGD:
            raise ValueError("Langevin dynamics follow SGD: compile with keras.optimizers.SGD")
        if asked := [name for name in _NO_LANGEVIN if getattr(plain, name)]:
            raise ValueError(f"Langevin dynamics follow plain SGD: compile without {asked[0]}")

    def _move(self, seed: tf.Tensor, rate: tf.Tensor) -> None:
        for place, weights in enumerate(self.theta):
            own = tf.random.experimental.stateless_fold_in(seed, place)
            noise = tf.random.stateless_normal(weights.shape, own, dtype=weights.dtype)
            weights.assign_add(tf.sqrt(2.0 * rate) * noise)
