"""The control for every other sampler: one trained network, and noise around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.diversity.entropy import nearest_neighbour_distances
from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.samplers.deep_ensemble import initializer_config, trained_weights
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.samplers.latent import LatentSampler
from hypernet_tf.targets import Target, WeightSet


@keras.saving.register_keras_serializable(package="hypernet_tf")
class NoiseControl(LatentSampler):
    """One trained weight vector plus isotropic Gaussian noise: theta = theta_0 + scale · z.

    A sampler that is not better than this, at the same distance between its networks, has learned
    nothing about where good weights lie. `fit` trains theta_0 in the ordinary way, without noise;
    `match` then sets the scale. The noise is added to theta_0 in the fixed gauge, where distances
    are measured. The sum is not gauged again, because the noise would no longer be isotropic.

    Args:
        target: The `Target`, or a Keras model.
        scale: Standard deviation of the noise, in the units of gauged weights.
        initializers: Initializers of theta_0; see `DeepEnsemble`.
        **kwargs: Options of `WeightSampler`, except num_networks (a training step has one network)
            and diversity: lam, prior_scale, gauge, seed, ...

    Attributes:
        scale: The scale, a variable.
        latent_dim: D, one number for each weight.

    Raises:
        ValueError: The scale is not positive.

    Example:
        >>> control = NoiseControl(target)
        >>> loss = SparseCategoricalCrossentropy(from_logits=True)
        >>> control.compile(optimizer="adam", loss=loss)
        >>> control.fit(x, y, batch_size=256, epochs=10)
        >>> control.match(hyper.sample(100))
        >>> control.sample(200).evaluate(x_test, y_test)

    Reference: the noise control of arXiv 2506.07998.
    """

    trains_in_gauge = False

    def __init__(
        self,
        target: Target,
        *,
        scale: float = 0.01,
        initializers: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(target, num_networks=1, diversity=[], **kwargs)
        if not 0 < scale < float("inf"):
            raise ValueError(f"scale is {scale}: give a positive, finite number.")
        self.latent_dim = self.target.weight_count
        self.initializers = dict(initializers or {})
        self._initial_scale = scale
        self.theta = trained_weights(self, 1, self.initializers)
        self.scale = self.add_weight(
            name="scale", initializer=keras.initializers.Constant(scale), trainable=False
        )
        self.built = True

    def latent_vectors(self, seed: tf.Tensor, count: int) -> tf.Tensor:
        """Draw standard normal z [N, D]."""
        return tf.random.stateless_normal([count, self.latent_dim], tf.cast(seed, tf.int32))

    def gauge(self, weights: WeightSet) -> WeightSet:
        """The weights as they are: theta_0 is in the gauge, and noise around it stays isotropic."""
        return weights

    def generate(self, z: tf.Tensor, *, training: bool = False) -> Draw:
        """theta_0 + scale · z; in training theta_0 alone, not gauged.

        Args:
            z: Standard normals [N, D].
            training: Whether a training step asks for theta_0.
        """
        trained = [weights.value for weights in self.theta]
        if training:
            return Draw(trained, z)
        centre = super().gauge(WeightSet(trained, self.target.initial_state(1)))
        theta = self.target.flatten(centre) + self.scale * z
        return Draw(self.target.unflatten(theta).trainable, z)

    def match(self, ensemble: Ensemble) -> float:
        """Set the scale so that networks are as far apart as those of another sampler.

        With this scale the mean logarithm of the distance (L2, of gauged weights) to the nearest
        neighbour is the same, among as many networks.

        Args:
            ensemble: Networks of the other sampler, of the same target.

        Returns:
            The scale.

        Raises:
            ValueError: There is one network, or the networks are of another target, or two of them
                are equal.
        """
        if ensemble.target.weight_count != self.target.weight_count:
            raise ValueError("Cannot match networks of another target: give networks of this one.")
        if len(ensemble) < 2:
            raise ValueError("Cannot match one network, which has no distance: give at least 2.")

        def distance(vectors: tf.Tensor) -> float:
            return float(tf.reduce_mean(tf.math.log(nearest_neighbour_distances(vectors))))

        # Distances between theta_0 + scale · z are those between z, scaled.
        log_scale = distance(tf.constant(ensemble.theta())) - distance(
            self.sample_latent(len(ensemble))
        )
        scale = float(np.exp(log_scale))
        if not 0 < scale < float("inf"):
            raise ValueError("Cannot match equal networks: give networks that all differ.")
        self.scale.assign(scale)
        return float(self.scale.numpy())

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        config = super().get_config()
        del config["num_networks"], config["diversity"]
        return config | {
            "scale": self._initial_scale,
            "initializers": initializer_config(self.initializers),
        }
