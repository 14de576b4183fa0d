"""`LatentSampler`: weights that are a function theta(z) of a latent vector."""

from __future__ import annotations

import abc

import tensorflow as tf

from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.samplers.batching import Share
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.targets import WeightSet


class LatentSampler(WeightSampler):
    """A weight sampler with a latent space: draws z and makes weights of it.

    Attributes:
        latent_dim: d, the dimension of z; set by the system.
    """

    latent_dim: int

    @abc.abstractmethod
    def latent_vectors(self, seed: tf.Tensor, count: int) -> tf.Tensor:
        """Latent vectors z [N, d], drawn from a stateless seed (two integers)."""

    @abc.abstractmethod
    def generate(self, z: tf.Tensor, *, training: bool = False) -> Draw:
        """Weights of the networks of N latent vectors, not gauged.

        Args:
            z: [N, d].
            training: whether layers run in training mode.
        """

    def draw(self, seed: tf.Tensor, count: int, *, training: bool) -> Draw:
        """Weights of `count` networks from a stateless seed."""
        return self.generate(self.latent_vectors(seed, count), training=training)

    def draw_share(self, seed: tf.Tensor, count: int, share: Share, *, training: bool) -> Draw:
        """A replica's networks: all z are drawn, and weights are made of its own."""
        z = share.take(self.latent_vectors(seed, count))
        return self.generate(z, training=training)

    def sample_latent(self, count: int, *, seed: int = 0) -> tf.Tensor:
        """The latent vectors [N, d] of `sample(count, seed=seed)`."""
        return self.latent_vectors(self.sampling_seed(seed), count)

    def weights_of(self, z: tf.Tensor) -> WeightSet:
        """Gauged weights of the networks of N latent vectors: theta(z).

        Args:
            z: [N, d].

        Example:
            >>> z = hyper.sample_latent(2)
            >>> Ensemble(hyper.target, hyper.weights_of(z)).theta()     # that of hyper.sample(2)
        """
        z = tf.convert_to_tensor(z, tf.float32)
        state = self.target.initial_state(z.shape[0])
        return self.gauge(WeightSet(self.generate(z).trainable, state))
