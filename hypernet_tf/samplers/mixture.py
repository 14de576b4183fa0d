"""`Mixture`: networks of several latent samplers, which train side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.samplers.latent import LatentSampler


@keras.saving.register_keras_serializable(package="hypernet_tf")
class Mixture(LatentSampler):
    """K latent samplers of one target as one: the first number of z chooses among them.

    The networks of one hypernetwork become alike as it trains, and those of independently trained
    hypernetworks do not. A mixture has both: as many networks as one likes, in K regions of weight
    space, as a deep ensemble has K networks.

    Network i of a draw comes from sampler i mod K. A training step draws the networks of all
    samplers, each sees its own images, and the objective is the mean over all networks. With Adam
    this trains each sampler as if it were alone, because Adam does not depend on the scale of the
    gradient.

    Args:
        samplers: K samplers of the same kind of target, with one latent dimension; each has its
            own initial weights. They become parts of the mixture: train and sample the mixture.
        **kwargs: Options of `WeightSampler`. By default num_networks is the sum over the samplers,
            and lam, lam_growth, diversity, prior_scale, gauge, gauge_epsilon, shared_inputs and
            seed are those of the first.

    Raises:
        ValueError: There are no samplers, their targets or latent dimensions differ, a sampler
            trains in a way of its own, or a step has fewer networks than the samplers need: two
            for each hypernetwork.

    Example:
        >>> mixture = Mixture([Hypernetwork(model) for _ in range(4)])
        >>> mixture.compile("adam", SparseCategoricalCrossentropy(from_logits=True))
        >>> mixture.fit(x, y, epochs=10, batch_size=4 * 256)
        >>> mixture.sample(100).evaluate(x_test, y_test)              # 25 networks of each
    """

    def __init__(self, samplers: Sequence[LatentSampler], **kwargs: Any):
        samplers = list(samplers)
        if not samplers:
            raise ValueError("A mixture of no samplers: give at least one.")
        if len({id(sampler) for sampler in samplers}) < len(samplers):
            raise ValueError(
                "A mixture has one sampler twice: make new ones, "
                "[Hypernetwork(model) for _ in range(4)]."
            )
        first = samplers[0]
        methods = (
            "extra_loss",
            "initialize",
            "minimized",
            "train_step",
            "gauge",
            "regularization",
            "trains_in_gauge",
        )
        for sampler in samplers:
            if getattr(sampler, "_is_part", False):
                raise ValueError(
                    "A sampler is part of another mixture: make new samplers for this one."
                )
            for name in methods:
                if getattr(type(sampler), name) is not getattr(WeightSampler, name):
                    raise ValueError(
                        f"A mixture trains for accuracy and diversity alone, and would leave out "
                        f"{type(sampler).__name__}.{name}: mix hypernetworks."
                    )
        for name, values in (
            ("targets with numbers of weights", [s.target.weight_count for s in samplers]),
            ("latent dimensions", [s.latent_dim for s in samplers]),
        ):
            if len(set(values)) > 1:
                raise ValueError(
                    f"The samplers of a mixture have the {name} {values}: make them alike."
                )
        serialized = [
            [keras.saving.serialize_keras_object(one) for one in sampler.target.regularizers]
            for sampler in samplers
        ]
        if any(one != serialized[0] for one in serialized):
            raise ValueError(
                "The targets of a mixture have different regularizers: give all the same model."
            )
        options = first.get_config()
        names = (
            "lam",
            "lam_growth",
            "prior_scale",
            "gauge",
            "gauge_epsilon",
            "shared_inputs",
            "seed",
        )
        defaults = {name: options[name] for name in names}
        defaults |= {
            "diversity": first.diversity,
            "num_networks": sum(sampler.num_networks for sampler in samplers),
        }
        super().__init__(first.target, **defaults | kwargs)
        fewest = max(sampler.min_networks for sampler in samplers)
        if self.num_networks < fewest * len(samplers):
            raise ValueError(
                f"A step of {self.num_networks} networks has fewer than {fewest} for some of "
                f"{len(samplers)} samplers: give num_networks of at least {fewest * len(samplers)}."
            )
        self.min_networks = fewest * len(samplers)
        for sampler in samplers:
            sampler.become_part()
        self.samplers, self.num_samplers = samplers, len(samplers)
        self.latent_dim = 1 + first.latent_dim
        self.built = True

    @property
    def manifold_dim(self) -> int:
        """That of each sampler: the number of a sampler adds no dimension."""
        return self.samplers[0].manifold_dim

    @property
    def min_networks_per_device(self) -> int:
        """One network of each sampler: batch normalisation is over those of all devices."""
        return len(self.samplers)

    def latent_vectors(self, seed: tf.Tensor, count: int) -> tf.Tensor:
        """The number of a sampler and its latent vector, z [N, 1 + d]."""
        size = len(self.samplers)
        numbers = tf.range(count) % size
        parts = [
            sampler.latent_vectors(
                tf.random.experimental.stateless_fold_in(seed, number),
                len(range(number, count, size)),
            )
            for number, sampler in enumerate(self.samplers)
        ]
        positions = tf.dynamic_partition(tf.range(count), numbers, size)
        z = tf.ensure_shape(tf.dynamic_stitch(positions, parts), [count, parts[0].shape[1]])
        return tf.concat([tf.cast(numbers, z.dtype)[:, None], z], 1)

    def generate(self, z: tf.Tensor, *, training: bool = False) -> Draw:
        """Make the weights of networks, each by the sampler that its latent vector names.

        Args:
            z: Latent vectors [N, 1 + d]; the first number is rounded to that of a sampler.
            training: Whether batch normalisation uses the batch's statistics.

        Returns:
            A `Draw` with the samplers' own latent vectors [N, d], whose dimension the entropy
            takes, and `codes` if all samplers have them.

        Raises:
            ValueError: A training step has no network for some sampler.
        """
        size = len(self.samplers)
        if training and z.shape[0] is not None and z.shape[0] < size:
            raise ValueError(
                f"A device that runs {z.shape[0]} networks has none for some of {size} samplers: "
                f"give num_networks of at least {size} for each device."
            )
        numbers = tf.clip_by_value(tf.cast(tf.round(z[:, 0]), tf.int32), 0, size - 1)
        positions = tf.dynamic_partition(tf.range(tf.shape(z)[0]), numbers, size)
        draws = [
            sampler.generate(tf.gather(z[:, 1:], index), training=training)
            for sampler, index in zip(self.samplers, positions, strict=True)
        ]

        def stitched(*parts: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(
                tf.dynamic_stitch(positions, parts), [z.shape[0], *parts[0].shape[1:]]
            )

        trainable = [stitched(*parts) for parts in zip(*(d.trainable for d in draws), strict=True)]
        codes = None
        if all(drawn.codes is not None for drawn in draws):
            codes = [stitched(*parts) for parts in zip(*(d.codes for d in draws), strict=True)]
        return Draw(trainable, z[:, 1:], codes)

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        config = super().get_config()
        del config["target"]  # that of the samplers
        return config | {
            "samplers": [keras.saving.serialize_keras_object(s) for s in self.samplers],
            "outputs": self.target.outputs,
        }

    @classmethod
    def from_config(cls, config: dict) -> Mixture:
        """A mixture from `get_config`."""
        config = dict(config)
        samplers = [keras.saving.deserialize_keras_object(s) for s in config["samplers"]]
        # `compile` says what outputs are to the mixture, not to its samplers.
        outputs = config.pop("outputs", samplers[0].target.outputs)
        samplers[0].target = samplers[0].target.with_outputs(outputs)
        return super().from_config(config | {"samplers": samplers})
