"""Adversarial posterior distillation: a generator that learns the networks of another sampler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.checks import check_count, check_fixed, check_number, check_sizes
from hypernet_tf.ensembles.ensemble import (
    Ensemble,
    require_ensemble,
    require_finite_weights,
    require_weights_only,
)
from hypernet_tf.samplers.batching import Share
from hypernet_tf.samplers.draws import TRAIN, Draw, stream_seed
from hypernet_tf.samplers.latent import LatentSampler
from hypernet_tf.samplers.optimizers import plain_optimizer, plain_optimizers
from hypernet_tf.targets import Target, WeightSet
from hypernet_tf.targets.filters import seeded


@keras.saving.register_keras_serializable(package="hypernet_tf")
class APD(LatentSampler):
    """A generator of weights that learns the distribution of given networks (Wang et al. 2018).

    The networks are samples of a posterior, in the paper snapshots of Langevin dynamics (`SGLD`);
    any ensemble serves. A Wasserstein GAN with gradient penalty learns their weights theta:

        critic:     E D(G(z)) - E D(theta) + penalty · E (||grad D(mix)|| - 1)²
        generator:  -E D(G(z)),    z ~ N(0, I)

    where mix is a random point between a network and a generated one. A training step is
    `critic_steps` steps of the critic and one of the generator; each sees `num_networks` networks.
    Both have an optimizer of their own, with the settings of the compiled one. Generator and critic
    are multilayer perceptrons that see each weight with mean 0 and variance 1 over the ensemble.

    The ensemble's weights are taken as they are: those that a sampler draws are gauge-fixed, which
    leaves the generator less to learn. Samples are gauge-fixed. `fit` does not learn from images:
    a step only reports the compiled loss and metrics of generated networks on its batch. It also
    reports `wasserstein`, the critic's estimate E D(theta) - E D(G(z)), whose fall shows that the
    generator learns. The ensemble is saved with the sampler, so that training can go on, until
    `forget_ensemble`.

    Args:
        target: The `Target`, or a Keras model.
        ensemble: The networks to learn; None if `learn_from` gives them later.
        latent_dim: d, dimension of z.
        hidden: Sizes of the hidden layers of generator and critic.
        critic_steps: Number of steps of the critic for each step of the generator.
        penalty: Factor on the gradient penalty.
        critic_rate: The critic's learning rate, as a multiple of the generator's. Above 1 the
            critic keeps up with a generator that learns fast.
        num_networks: N, number of networks of a step.
        **kwargs: Options of `WeightSampler`, except prior_scale and diversity: gauge, seed, ...

    Raises:
        ValueError: The ensemble has fewer networks than a step draws, is of another target, has
            weights that are not finite, or differs in dropout masks; or an argument is out of
            range.

    Example:
        >>> chain = SGLD(target, lam=55_000, num_chains=10, num_snapshots=100, snapshot_every=20)
        >>> chain.compile(optimizer=SGD(1e-6), loss=loss)
        >>> chain.fit(x, y, epochs=20)
        >>> sampler = APD(target, ensemble=chain.sample(1000))
        >>> sampler.compile(optimizer=Adam(1e-4, beta_1=0.5, beta_2=0.9), loss=loss)
        >>> sampler.fit(x, y, batch_size=128, epochs=100)
        >>> sampler.sample(200).evaluate(x_test, y_test)

    References: "Adversarial Distillation of Bayesian Neural Network Posteriors", arXiv 1806.10317;
    "Improved Training of Wasserstein GANs", arXiv 1704.00028.
    """

    trains_in_gauge = False
    optimizer: Any

    def __init__(
        self,
        target: Target,
        *,
        ensemble: Ensemble | None = None,
        latent_dim: int = 32,
        hidden: Sequence[int] = (100, 100, 100),
        critic_steps: int = 5,
        penalty: float = 10.0,
        critic_rate: float = 1.0,
        num_networks: int = 32,
        **kwargs: Any,
    ):
        latent_dim = check_count("latent_dim", latent_dim)
        critic_steps = check_count("critic_steps", critic_steps)
        check_number("penalty", penalty)
        check_number("critic_rate", critic_rate)
        check_fixed(self, kwargs, diversity=[], prior_scale=None)
        super().__init__(
            target, num_networks=num_networks, diversity=[], prior_scale=None, **kwargs
        )
        self.latent_dim, self.hidden = latent_dim, check_sizes("hidden", hidden)
        self.critic_steps, self.penalty = critic_steps, penalty
        self.critic_rate = critic_rate
        size = self.target.weight_count
        self.generator = self._perceptron("generator", latent_dim, size)
        self.critic = self._perceptron("critic", size, 1)
        # Mean and standard deviation of each weight over the ensemble.
        self.centre = self.add_weight(
            name="centre", shape=(size,), initializer="zeros", trainable=False
        )
        self.spread = self.add_weight(
            name="spread", shape=(size,), initializer="ones", trainable=False
        )
        self.critic_optimizer: Any = None  # set by compile
        self.wasserstein_tracker = keras.metrics.Mean(name="wasserstein")
        self._standardised: Any = None  # the ensemble's weights [S, D]; Keras does not track them
        if ensemble is not None:
            self.learn_from(ensemble)
        self.built = True

    def _perceptron(self, name: str, inputs: int, outputs: int) -> keras.Sequential:
        """Dense layers with ReLU between them."""
        network = keras.Sequential([keras.Input((inputs,))], name=name)
        for number, size in enumerate((*self.hidden, outputs)):
            start = seeded(keras.initializers.HeNormal(), self.seed, int(name == "critic"), number)
            is_last = number == len(self.hidden)
            network.add(
                keras.layers.Dense(
                    size,
                    activation=None if is_last else "relu",
                    kernel_initializer=start,
                    dtype="float32",
                )
            )
        return network

    # ---- the networks that it learns ------------------------------------------------------

    def learn_from(self, ensemble: Ensemble) -> None:
        """Set the networks that training learns.

        Args:
            ensemble: Networks of the same target.

        Raises:
            ValueError: There are fewer networks than a step draws, they are of another target, or
                their weights are not finite.
        """
        require_ensemble(ensemble, "APD")
        if not self.target.has_weights_of(ensemble.target):
            raise ValueError("Cannot learn networks of another target: give networks of this one.")
        require_weights_only(ensemble, "learn")
        if len(ensemble) < max(2, self.num_networks):
            raise ValueError(
                f"Cannot learn from {len(ensemble)} networks: a step draws {self.num_networks}, so "
                "give a larger ensemble, or a smaller num_networks, at least 2 of each."
            )
        theta = ensemble.theta()
        require_finite_weights(theta)
        spread = theta.std(0)
        self.centre.assign(theta.mean(0))
        self.spread.assign(spread)
        self._keep((theta - theta.mean(0)) / np.maximum(spread, 1e-12))

    def _keep(self, standardised: np.ndarray | None) -> None:
        """Learn these weights [S, D] from now on; None for no networks."""
        kept = self._standardised
        if standardised is None:
            self._standardised = None
        elif kept is not None and kept.shape == standardised.shape:
            kept.assign(standardised)
            return
        else:
            self._standardised = tf.Variable(standardised, trainable=False, dtype=tf.float32)
        if self.train_function is not None:  # its graph reads another variable
            self.make_train_function(force=True)

    def forget_ensemble(self) -> None:
        """Drop the learned networks: the sampler and its file become small, and training ends.

        A sampler that loads such a file drops its networks, too: `learn_from` gives it new ones.
        """
        self._keep(None)

    # ---- what it draws --------------------------------------------------------------------

    def generate(self, z: tf.Tensor, *, training: bool = False) -> Draw:
        """Make the weights of networks from latent vectors.

        Args:
            z: Latent vectors [N, d].
            training: Has no effect.
        """
        theta = self.centre + self.spread * self.generator(z)  # [N, D]
        return Draw(self.target.unflatten(theta).trainable, z)

    # ---- training -------------------------------------------------------------------------

    def regularization(self, drawn: Draw) -> tf.Tensor:
        """0: APD learns given networks, and has no loss on examples."""
        return tf.zeros([])

    def compile(self, optimizer="adam", *args, **kwargs):
        """As `WeightSampler.compile`; the critic gets an optimizer with the same settings.

        Raises:
            ValueError: The optimizer has use_ema, which Keras would do to the critic as well.
        """
        optimizer = keras.optimizers.get(optimizer)
        if any(getattr(one, "use_ema", False) for one in plain_optimizers(optimizer)):
            raise ValueError(
                "use_ema averages the generator's variables, and Keras would take those of the "
                "critic for them: compile without use_ema."
            )
        super().compile(optimizer, *args, **kwargs)
        if self.optimizer is None:  # evaluation only
            self.critic_optimizer = None
            return
        self.optimizer = keras.saving.deserialize_keras_object(
            keras.saving.serialize_keras_object(self.optimizer)
        )
        self.optimizer.build(self.generator.trainable_variables)
        # The critic's learning rate is the generator's in each step: a schedule counts steps.
        plain = plain_optimizer(self.optimizer)
        config = {k: v for k, v in plain.get_config().items() if k != "learning_rate"}
        critic = type(plain).from_config(config)
        self.critic_optimizer = critic if plain is self.optimizer else type(self.optimizer)(critic)
        self.critic_optimizer.build(self.critic.trainable_variables)

    def train_step(self, data):
        """Steps of the critic, then one of the generator; see the class."""
        if self._standardised is None:
            raise ValueError("There are no networks to learn: call learn_from(ensemble) first.")
        share = Share(self.num_networks)
        share.check(self.optimizer, self.target)
        seed = stream_seed(self.seed, TRAIN, self.step.value)
        rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        self.critic_optimizer.learning_rate = self.critic_rate * rate
        for number in range(self.critic_steps):
            own_seed = tf.random.experimental.stateless_fold_in(seed, number)
            wasserstein = self._critic_step(own_seed, share)
        z = share.take(self.latent_vectors(seed, self.num_networks))
        with tf.GradientTape() as tape:
            objective = -tf.reduce_mean(self.critic(self.generator(z)))
            scaled = self.optimizer.scale_loss(objective / share.replicas)
        variables = self.generator.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        self.step.assign(self.step + 1)
        self.lam.assign(self.lam * self.lam_growth)
        self._loss_tracker.update_state(objective)
        self.wasserstein_tracker.update_state(wasserstein)
        return self._report(data, z, seed, share)

    def _critic_step(self, seed: tf.Tensor, share: Share) -> tf.Tensor:
        """Train the critic once; returns its estimate of the Wasserstein distance."""
        count = self.num_networks
        seeds = [tf.random.experimental.stateless_fold_in(seed, number) for number in range(3)]
        chosen = tf.random.stateless_uniform(
            [count], seeds[0], maxval=self._standardised.shape[0], dtype=tf.int32
        )
        real = tf.gather(self._standardised, share.take(chosen))
        generated = self.generator(share.take(self.latent_vectors(seeds[1], count)))
        part = share.take(tf.random.stateless_uniform([count, 1], seeds[2]))
        with tf.GradientTape() as tape:
            wasserstein = tf.reduce_mean(self.critic(real)) - tf.reduce_mean(self.critic(generated))
            loss = self.penalty * self.gradient_penalty(part * real + (1 - part) * generated)
            loss = self.critic_optimizer.scale_loss((loss - wasserstein) / share.replicas)
        variables = self.critic.trainable_variables
        self.critic_optimizer.apply(tape.gradient(loss, variables), variables)
        return wasserstein

    def gradient_penalty(self, theta: tf.Tensor) -> tf.Tensor:
        """E (||grad D(theta)|| - 1)² (Gulrajani et al. 2017, eq. 3).

        Args:
            theta: Standardised weights [N, D].
        """
        with tf.GradientTape() as tape:
            tape.watch(theta)
            values = self.critic(theta)
        squares = tf.reduce_sum(tape.gradient(values, theta) ** 2, -1)
        return tf.reduce_mean((tf.sqrt(squares + 1e-12) - 1.0) ** 2)

    def _report(self, data: Any, z: tf.Tensor, seed: tf.Tensor, share: Share) -> dict:
        """The compiled loss and metrics of the generated networks on a batch."""
        dealt = self._dealt(data, share)
        state = [share.take(t) for t in self.target.initial_state(self.num_networks, seed)]
        weights = self.gauge(WeightSet(self.generate(z).trainable, state))
        outputs, _ = self._raw.run(weights, dealt.x, batch_statistics=True)
        y_pred = self._answers(dealt, outputs)
        y, sample_weight = dealt.labels()
        loss = self.compute_loss(dealt.x, y, y_pred, sample_weight, training=False)
        self.accuracy_loss_tracker.update_state(
            share.replicas * loss, sample_weight=dealt.num_answers
        )
        self.diversity_tracker.update_state(0.0)
        return self.compute_metrics(dealt.x, y, y_pred, sample_weight=sample_weight)

    # ---- serialisation --------------------------------------------------------------------

    def get_config(self) -> dict:
        """The arguments of the constructor, without the ensemble."""
        return super().get_config() | {
            "latent_dim": self.latent_dim,
            "hidden": list(self.hidden),
            "critic_steps": self.critic_steps,
            "penalty": self.penalty,
            "critic_rate": self.critic_rate,
        }

    def save_own_variables(self, store):
        """As `WeightSampler.save_own_variables`, and the networks that it learns."""
        super().save_own_variables(store)
        if self._standardised is not None:
            store["ensemble"] = self._standardised.numpy()

    def load_own_variables(self, store):
        """Load what `save_own_variables` saved."""
        values = {name: store[name] for name in store.keys()}  # noqa: SIM118 (not iterable)
        ensemble = values.pop("ensemble", None)
        self._keep(None if ensemble is None else np.asarray(ensemble))
        super().load_own_variables(values)
