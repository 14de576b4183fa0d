"""`LatentSampler`: weights that are a function theta(z) of a latent vector."""

from __future__ import annotations

import abc

import tensorflow as tf

from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.samplers.batching import Part, Share
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.targets import WeightSet


class LatentSampler(WeightSampler):
    """A weight sampler with a latent space: it draws z and makes weights of it.

    A subclass implements `generate` in place of `draw`. Latent vectors are standard normal, unless
    it draws them by a `latent_vectors` of its own.

    Attributes:
        latent_dim: d, the dimension of z; set by the subclass.
    """

    latent_dim: int

    @property
    def manifold_dim(self) -> int:
        """Dimension of the surface on which theta lies, a factor of its entropy: d, at most D."""
        return min(self.latent_dim, self.target.weight_count)

    def latent_vectors(self, seed: tf.Tensor, count: int) -> tf.Tensor:
        """Draw latent vectors, here standard normal.

        Args:
            seed: Two integers, a tensor.
            count: Number of networks, N.

        Returns:
            z [N, d], a pure function of the seed.
        """
        return tf.random.stateless_normal([count, self.latent_dim], tf.cast(seed, tf.int32))

    @abc.abstractmethod
    def generate(self, z: tf.Tensor, *, training: bool = False) -> Draw:
        """Make the weights of networks from latent vectors.

        Args:
            z: Latent vectors [N, d].
            training: Whether layers run in training mode.

        Returns:
            A `Draw` with `z`; its weights are not gauged.
        """

    def draw(self, seed: tf.Tensor, count: int, *, training: bool) -> Draw:
        """Make the weights of `count` networks from a stateless seed."""
        return self.generate(self.latent_vectors(seed, count), training=training)

    def draw_share(
        self, seed: tf.Tensor, count: int, share: Share | Part, *, training: bool
    ) -> Draw:
        """Some of the networks: it draws all z and makes the weights of its part."""
        z = share.take(self.latent_vectors(seed, count))
        return self.generate(z, training=training)

    def sample_latent(self, count: int, *, seed: int = 0) -> tf.Tensor:
        """The latent vectors [N, d] of `sample(count, seed=seed)`."""
        return self.latent_vectors(self.sampling_seed(seed), count)

    def weights_of(self, z: tf.Tensor) -> WeightSet:
        """The gauged weights theta(z) of the networks of N latent vectors.

        Args:
            z: Latent vectors [N, d].

        Example:
            >>> z = hyper.sample_latent(2)
            >>> Ensemble(hyper.target, hyper.weights_of(z))          # those of hyper.sample(2)
        """
        z = tf.convert_to_tensor(z, tf.float32)
        state = self.target.initial_state(z.shape[0])
        return self.gauge(WeightSet(self.generate(z).trainable, state))
