"""The hypernetwork: z -> codes of filters -> weights (Deutsch, Nijkamp, Yang 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.samplers.draws import Draw
from hypernet_tf.samplers.latent import LatentSampler
from hypernet_tf.samplers.layers import Extractor, WeightGenerator
from hypernet_tf.targets import Target


@keras.saving.register_keras_serializable(package="hypernet_tf")
class Hypernetwork(LatentSampler):
    """A generative model of weights: an extractor and one weight generator per layer of the target.

    z -> extractor -> a code for each filter -> the layer's generator, shared by its filters -> the
    filter's weights. A layer named in `whole` has one code, from which all its weights are
    generated.

    Args:
        target: the `Target`, or a Keras model.
        latent_dim: d, the dimension of z.
        code_dim: size of a filter's code; one number, or one per layer.
        extractor_hidden: hidden sizes of the extractor.
        generator_hidden: hidden sizes of the generators: one tuple for all, or one per layer.
        whole: which layers are generated whole, by index (-1 is the last).
        latent: distribution of z: "uniform" on [-1, 1], or standard "normal".
        **kwargs: see `WeightSampler`: networks, lam, lam_growth, diversity, prior, gauge, seed, ...

    Raises:
        ValueError: an argument is out of range, or has another length than the target has layers.

    Example:
        >>> target = Target(zoo.mnist(), outputs="logits")
        >>> hyper = Hypernetwork(target, latent_dim=300, code_dim=15, lam=1e3,
        ...     generator_hidden=[(40, 40), (100, 100), (100, 100), (60, 60)])
        >>> hyper.summary()                                    # 633,640 trainable parameters

    Reference: "A Generative Model for Sampling High-Performance and Diverse Weights for Neural
    Networks", arXiv 1905.02898.
    """

    def __init__(
        self,
        target: Target,
        *,
        latent_dim: int = 300,
        code_dim: int | Sequence[int] = 15,
        extractor_hidden: Sequence[int] = (300, 300),
        generator_hidden: Sequence[int] | Sequence[Sequence[int]] = (100, 100),
        whole: Sequence[int] = (-1,),
        latent: str = "uniform",
        **kwargs: Any,
    ):
        super().__init__(target, **kwargs)
        if latent_dim < 1:
            raise ValueError(f"latent_dim is at least 1, not {latent_dim}")
        if latent not in ("uniform", "normal"):
            raise ValueError(f"latent is 'uniform' or 'normal', not {latent!r}")
        layers = self.target.layers
        code_dims = self._per_layer("code_dim", code_dim, isinstance(code_dim, int))
        one_tuple = not generator_hidden or isinstance(generator_hidden[0], int)
        hidden = self._per_layer("generator_hidden", generator_hidden, one_tuple)
        if any(not -len(layers) <= index < len(layers) for index in whole):
            raise ValueError(f"whole names layers by index, of {len(layers)}; not {whole}")
        whole_layers = {index % len(layers) for index in whole}
        self.latent_dim = latent_dim
        self.latent = latent
        self._arguments = {
            "latent_dim": latent_dim,
            "code_dim": code_dims,
            "extractor_hidden": list(extractor_hidden),
            "generator_hidden": [list(sizes) for sizes in hidden],
            "whole": sorted(whole_layers),
            "latent": latent,
        }
        codes, sizes = [], []
        for index, (layer, code) in enumerate(zip(layers, code_dims, strict=True)):
            filters = 1 if index in whole_layers else layer.filters
            codes.append((filters, code))
            sizes.append(layer.size // filters)
        policy = self.dtype_policy
        self.extractor = Extractor(tuple(extractor_hidden), codes, name="extractor", dtype=policy)
        self.generators = [
            WeightGenerator(layer_hidden, size, name=f"weight_generator{place + 1}", dtype=policy)
            for place, (layer_hidden, size) in enumerate(zip(hidden, sizes, strict=True))
        ]
        self.extractor.build((None, latent_dim))
        for generator, code in zip(self.generators, codes, strict=True):
            generator.build((None, *code))
        self.built = True

    def _per_layer(self, name: str, value: Any, same: bool) -> list:
        layers = self.target.layers
        values = [value] * len(layers) if same else list(value)
        if len(values) != len(layers):
            raise ValueError(
                f"{name} has {len(values)} entries, the target has {len(layers)} weighted layers: "
                f"{', '.join(layer.name for layer in layers)}"
            )
        return values

    def latent_vectors(self, seed: tf.Tensor, count: int) -> tf.Tensor:
        """Latent vectors z [N, d], drawn statelessly."""
        from tensorflow_probability import distributions  # takes seconds to load

        prior = (
            distributions.Uniform(-1.0, 1.0)
            if self.latent == "uniform"
            else distributions.Normal(0.0, 1.0)
        )
        return prior.sample([count, self.latent_dim], seed=tf.cast(seed, tf.int32))

    def generate(self, z: tf.Tensor, *, training: bool = False) -> Draw:
        """Weights of the networks of N latent vectors, not gauged.

        Args:
            z: [N, d].
            training: whether batch normalisation uses the batch's statistics.
        """
        codes = self.extractor(z, training=training)
        # In mixed precision, gauge and entropy are computed in the precision of variables.
        rows = [
            tf.cast(generator(code, training=training), self.variable_dtype)
            for generator, code in zip(self.generators, codes, strict=True)
        ]
        return Draw(self.target.assemble(rows), z, codes)

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | self._arguments
