"""The control for every other sampler: one trained network, and noise around it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.checks import check_fixed
from hypernet_tf.diversity.entropy import nearest_neighbour_distances
from hypernet_tf.ensembles.ensemble import Ensemble, require_ensemble, require_weights_only
from hypernet_tf.samplers.deep_ensemble import initializer_config, trained_weights
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.samplers.latent import LatentSampler
from hypernet_tf.targets import Target, WeightSet


@keras.saving.register_keras_serializable(package="hypernet_tf")
class NoiseControl(LatentSampler):
    """One trained weight vector plus Gaussian noise: theta = theta_0 + scale · z.

    A sampler that is not better than this, at the same distance between its networks, has learned
    nothing about where good weights lie. `fit` trains theta_0 in the ordinary way, without noise;
    `match` then sets the scale. The noise is added to theta_0 in the fixed gauge, where distances
    are measured. The sum is not gauged again, because the noise would no longer have this scale.

    With one scale the noise is isotropic. Gauged layers differ in the size of their weights, and
    isotropic noise can drown the layer with the smallest weights. With a scale for each layer,
    `match` makes the networks as far apart in each layer as those of the other sampler, which is
    the harder control.

    Args:
        target: The `Target`, or a Keras model.
        scale: Standard deviation of the noise, in the units of gauged weights: one number, or one
            number for each of `target.layers`.
        initializers: Initializers of theta_0; see `DeepEnsemble`.
        **kwargs: Options of `WeightSampler`, except num_networks (a training step has one network)
            and diversity: lam, prior_scale, gauge, seed, ...

    Attributes:
        scale: The scale, a variable [] or [layers].
        latent_dim: D, one number for each weight.

    Raises:
        ValueError: A scale is not positive, or there are not as many scales as layers.

    Example:
        >>> control = NoiseControl(target)
        >>> loss = SparseCategoricalCrossentropy(from_logits=True)
        >>> control.compile(optimizer="adam", loss=loss)
        >>> control.fit(x, y, batch_size=256, epochs=10)
        >>> control.match(hyper.sample(100))
        >>> control.sample(200).evaluate(x_test, y_test)
        >>> by_layer = NoiseControl(target, scale=[0.01] * len(target.layers))

    Reference: the noise control of arXiv 2506.07998.
    """

    trains_in_gauge = False

    def __init__(
        self,
        target: Target,
        *,
        scale: float | Sequence[float] = 0.01,
        initializers: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        check_fixed(self, kwargs, diversity=[], num_networks=1)
        super().__init__(target, num_networks=1, diversity=[], **kwargs)
        values = np.array(scale, "float64")
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(f"scale is {scale}: give positive, finite numbers.")
        if values.ndim and len(values) != len(self.target.layers):
            raise ValueError(
                f"scale has {len(values)} numbers, and the target {len(self.target.layers)} layers "
                "with weights: give one number, or one for each layer."
            )
        self.latent_dim = self.target.weight_count
        self.initializers = dict(initializers or {})
        self._initial_scale = values.tolist()
        self.theta = trained_weights(self, 1, self.initializers)
        self.scale = self.add_weight(
            name="scale",
            shape=values.shape,
            initializer=keras.initializers.Constant(self._initial_scale),
            trainable=False,
        )
        self.built = True

    def gauge(self, weights: WeightSet) -> WeightSet:
        """The weights as they are: theta_0 is in the gauge, and noise around it keeps its scale."""
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
        scale = self.scale.value
        if self.scale.ndim:
            scale = tf.gather(scale, self._layer_numbers())  # [layers] to [D]
        theta = self.target.flatten(centre) + scale * z
        return Draw(self.target.unflatten(theta).trainable, z)

    def regularization(self, drawn: Draw) -> tf.Tensor:
        """The penalty of theta_0, before the noise and the gauge."""
        return self.target.regularization([variable.value for variable in self.theta])

    def match(self, ensemble: Ensemble) -> float | list[float]:
        """Set the scale so that networks are as far apart as those of another sampler.

        With this scale the mean logarithm of the distance (L2, of gauged weights) to the nearest
        neighbour is the same, among as many networks. With a scale for each layer this holds for
        the weights of each layer.

        Args:
            ensemble: Networks of the other sampler, of the same target.

        Returns:
            The scale, or the scale of each layer.

        Raises:
            ValueError: There is one network, or the networks are of another target, or two of them
                are equal, in a layer if each has a scale.
        """
        require_ensemble(ensemble, "match()")
        if not self.target.has_weights_of(ensemble.target):
            raise ValueError("Cannot match networks of another target: give networks of this one.")
        if len(ensemble) < 2:
            raise ValueError("Cannot match one network, which has no distance: give at least 2.")
        require_weights_only(ensemble, "match")
        # Distances between theta_0 + scale · z are those between z, scaled.
        other = self._log_distances(self.target.flatten(super().gauge(ensemble.weights)))
        scale = np.exp(other - self._log_distances(self.sample_latent(len(ensemble))))
        if not (np.isfinite(scale) & (scale > 0)).all():
            raise ValueError("Cannot match equal networks: give networks that all differ.")
        self.scale.assign(scale)
        return self.scale.numpy().tolist()

    def _layer_numbers(self) -> np.ndarray:
        """The number of the layer of each weight, [D], in the order of theta.

        Theta has the order of the model's variables; that of the layers differs where it branches.
        """
        parts = {
            slot.index: np.full(math.prod(slot.shape), number)
            for number, layer in enumerate(self.target.layers)
            for slot in layer.slots
        }
        return np.concatenate([parts[index] for index in sorted(parts)])

    def _log_distances(self, vectors: tf.Tensor) -> np.ndarray:
        """Mean logarithm of the distance to the nearest neighbour, in the shape of the scale."""
        parts = [vectors]
        if self.scale.ndim:
            numbers = self._layer_numbers()
            parts = [
                tf.gather(vectors, np.flatnonzero(numbers == number), axis=1)
                for number in range(len(self.target.layers))
            ]
        distances = [nearest_neighbour_distances(part) for part in parts]
        means = [tf.reduce_mean(tf.math.log(distance)) for distance in distances]
        return np.reshape(means, self.scale.shape)

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {
            "scale": self._initial_scale,
            "initializers": initializer_config(self.initializers),
        }
