"""The control for every generator of weights: one trained network, and noise around it."""

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

    A generator that does not do better than this, at the same distance between its networks, has
    learned nothing about where good weights lie. `fit` trains theta_0 in the ordinary way, without
    noise; `match` then sets the scale. Noise is added to theta_0 in the fixed gauge, where
    distances are measured, and the sum is not gauged again: noise would no longer be isotropic.

    Args:
        target: the `Target`, or a Keras model.
        scale: standard deviation of the noise, in the units of gauged weights.
        initializers: see `DeepEnsemble`.
        **kwargs: see `WeightSampler`: lam, prior_scale, gauge, seed, ... There is no diversity term, and
            a training step has one network.

    Attributes:
        scale: a variable.
        latent_dim: D, one number for each weight.

    Example:
        >>> control = NoiseControl(target)
        >>> control.compile(optimizer="adam", loss=SparseCategoricalCrossentropy(from_logits=True))
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
            raise ValueError(f"the noise's scale is a positive number, not {scale}")
        self.latent_dim = self.target.weight_count
        self.initializers = dict(initializers or {})
        self._initial_scale = scale
        self.theta = trained_weights(self, 1, self.initializers)
        self.scale = self.add_weight(
            name="scale", initializer=keras.initializers.Constant(scale), trainable=False
        )
        self.built = True

    def latent_vectors(self, seed: tf.Tensor, count: int) -> tf.Tensor:
        """Standard normal z [N, D]."""
        return tf.random.stateless_normal([count, self.latent_dim], tf.cast(seed, tf.int32))

    def gauge(self, weights: WeightSet) -> WeightSet:
        """The weights as they are: theta_0 is in the gauge, and noise around it stays isotropic."""
        return weights

    def generate(self, z: tf.Tensor, *, training: bool = False) -> Draw:
        """theta_0 + scale · z; in training theta_0 alone, not gauged.

        Args:
            z: [N, D].
            training: whether theta_0 is being trained.
        """
        trained = [weights.value for weights in self.theta]
        if training:
            return Draw(trained, z)
        centre = super().gauge(WeightSet(trained, self.target.initial_state(1)))
        theta = self.target.flatten(centre) + self.scale * z
        return Draw(self.target.unflatten(theta).trainable, z)

    def match(self, ensemble: Ensemble) -> float:
        """Set the scale at which networks are as far apart as those of another sampler.

        The mean logarithm of the distance (L2, of gauged weights) to the nearest neighbour among as
        many networks is made the same.

        Args:
            ensemble: networks of the other sampler, of the same target.

        Returns:
            The scale.

        Raises:
            ValueError: one network, or of another target, or two that are the same.
        """
        if ensemble.target.weight_count != self.target.weight_count:
            raise ValueError("the networks to match are of another target")
        if len(ensemble) < 2:
            raise ValueError("one network has no distance to others: give at least 2 to match")

        def distance(vectors: tf.Tensor) -> float:
            return float(tf.reduce_mean(tf.math.log(nearest_neighbour_distances(vectors))))

        # Distances between theta_0 + scale · z are those between z, scaled.
        log_scale = distance(tf.constant(ensemble.theta())) - distance(
            self.sample_latent(len(ensemble))
        )
        scale = float(np.exp(log_scale))
        if not 0 < scale < float("inf"):
            raise ValueError("no noise makes networks as far apart as those of the other sampler")
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
