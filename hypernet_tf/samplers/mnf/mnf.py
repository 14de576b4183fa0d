"""Multiplicative normalizing flows: a variational posterior that makes weights (MNFG)."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.checks import check_count, check_number
from hypernet_tf.samplers.draws import MASK, Draw, stream_seed
from hypernet_tf.samplers.latent import LatentSampler
from hypernet_tf.samplers.mnf.posteriors import (
    ConvolutionPosterior,
    DensePosterior,
    GaussianPosterior,
    Posterior,
)
from hypernet_tf.targets import Target

_POSTERIORS = {
    keras.layers.Dense: DensePosterior,
    keras.layers.Conv1D: ConvolutionPosterior,
    keras.layers.Conv2D: ConvolutionPosterior,
    keras.layers.Conv3D: ConvolutionPosterior,
}


@keras.saving.register_keras_serializable(package="hypernet_tf")
class MNF(LatentSampler):
    """Bayesian networks by multiplicative normalizing flows (Louizos & Welling 2017).

    The weights of a dense layer or convolution are normal, and their means are multiplied by a
    random vector that a flow makes (`MultiplicativePosterior`); the weights of other layers are
    normal. The loss is the negative evidence lower bound divided by the size of the data set,

        lam · accuracy loss + mean over networks of KL / num_data + diversity terms

    with lam = 1 and no diversity term by default. It is divided, as published, so that learning
    rates and the loss do not depend on the size. Gradients of the KL are then of the order
    1 / num_data, and Adam's epsilon should lie well below: use 1e-8 rather than Keras's 1e-7.

    Networks differ by explicit samples of all their weights. (The published program adds noise to
    each image's activations instead, which has the same mean.) The latent vector of a network is
    all its standard normals. Training steps run on the weights as they are; samples are
    gauge-fixed.

    `fit` reports the KL of each layer in nats, undivided, as `kl_<layer>`.

    Args:
        target: The `Target`, or a Keras model.
        num_data: Number of training examples.
        lam: Factor on the accuracy loss; above 1 the posterior is "cold".
        prior_scale: Standard deviation of the normal prior on the weights.
        diversity: A diversity term or a list of them.
        **kwargs: Options of `WeightSampler`: num_networks, lam_growth, gauge, gauge_epsilon, seed.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> target = Target(zoo.mnist(), outputs="logits")
        >>> mnf = MNF(target, num_data=55_000, num_networks=20)
        >>> mnf.latent_dim                       # 20,018 weights and 840 multipliers
        20858
        >>> loss = SparseCategoricalCrossentropy(from_logits=True)
        >>> mnf.compile(Adam(1e-3, epsilon=1e-8), loss)
        >>> mnf.fit(x, y, batch_size=100, epochs=100)

    Reference: "Multiplicative Normalizing Flows for Variational Bayesian Neural Networks",
    arXiv 1703.01961.
    """

    trains_in_gauge = False

    def __init__(
        self,
        target: Target,
        *,
        num_data: int,
        lam: float = 1.0,
        prior_scale: float = 1.0,
        diversity: Any = (),
        **kwargs: Any,
    ):
        super().__init__(target, lam=lam, diversity=diversity, **kwargs)
        num_data = check_count("num_data", num_data)
        check_number("prior_scale", prior_scale)
        self.num_data = num_data
        self.prior_scale = prior_scale  # part of the KL: the base class adds no term for it
        self.posteriors = self._make_posteriors()
        for posterior in self.posteriors:
            posterior.build()
        # The numbers of z are each layer's multipliers, then its noise.
        self.latent_dim = sum(posterior.normals for posterior in self.posteriors)
        self.kl_trackers = [
            keras.metrics.Mean(name=f"kl_{name}")
            for name in _distinct([layer.name for layer in self.target.layers])
        ]
        self.built = True

    def _make_posteriors(self) -> list[Posterior]:
        operations = [op for op in self.target.plan.operations if self.target.weighted(op)]
        posteriors: list[Posterior] = []
        for number, operation in enumerate(operations):
            layer = self.target.weighted(operation)
            shapes = [slot.shape for slot in layer.slots]
            kind = _POSTERIORS.get(type(operation))
            # A kernel may belong to an earlier layer that shares it.
            if kind is None or layer.slots[0].name != "kernel":
                initial = [slot.initializer for slot in layer.slots]
                posteriors.append(
                    GaussianPosterior(shapes, initial=initial, prior=self.prior_scale)
                )
            else:
                seed = stream_seed(self.seed, MASK, number).numpy()
                posteriors.append(kind(shapes, prior=self.prior_scale, seed=seed))
        return posteriors

    def generate(self, z: tf.Tensor, *, training: bool = False) -> Draw:
        """Make the weights of networks from latent vectors.

        Args:
            z: Latent vectors [N, d].
            training: Has no effect.
        """
        weights: dict[int, tf.Tensor] = {}
        for posterior, layer, normals in self._by_layer(z):
            indices = [slot.index for slot in layer.slots]
            weights |= zip(indices, posterior(normals), strict=True)
        return Draw([weights[index] for index in range(len(weights))], z)

    def _by_layer(self, z: tf.Tensor) -> list[tuple]:
        """Posterior, weighted layer and normals [N, ...] of each layer."""
        parts = tf.split(z, [posterior.normals for posterior in self.posteriors], axis=-1)
        return list(zip(self.posteriors, self.target.layers, parts, strict=True))

    def kl(self, drawn: Draw) -> list[tf.Tensor]:
        """Estimate each layer's KL(q || prior).

        Args:
            drawn: Draw of N networks.

        Returns:
            For each layer the estimates [N] of the networks, in nats.
        """
        return [
            posterior.kl(normals, [drawn.trainable[slot.index] for slot in layer.slots])
            for posterior, layer, normals in self._by_layer(drawn.z)
        ]

    def extra_loss(self, drawn: Draw) -> tf.Tensor:
        """The KL, averaged over networks, divided by the size of the data set."""
        means = [tf.reduce_mean(kl) for kl in self.kl(drawn)]
        for tracker, mean in zip(self.kl_trackers, means, strict=True):
            tracker.update_state(mean)
        return tf.add_n(means) / self.num_data

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {"num_data": self.num_data}


def _distinct(names: list[str]) -> list[str]:
    """Names, of which a repeated one (in nested models) gets a number."""
    return [
        f"{name}_{names[:index].count(name) + 1}" if name in names[:index] else name
        for index, name in enumerate(names)
    ]
