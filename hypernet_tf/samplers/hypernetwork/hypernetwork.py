"""The hypernetwork: z -> codes of filters -> weights (Deutsch, Nijkamp, Yang 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.checks import (
    check_choice,
    check_count,
    check_sizes,
    check_sizes_per_layer,
    is_whole,
    per_layer,
)
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.samplers.hypernetwork.layers import Extractor, WeightGenerator
from hypernet_tf.samplers.latent import LatentSampler
from hypernet_tf.targets import Target
from hypernet_tf.targets.filters import Unit

Initialization = Literal["scaled", "model", "published"]
LatentDistribution = Literal["uniform", "normal"]


@keras.saving.register_keras_serializable(package="hypernet_tf")
class Hypernetwork(LatentSampler):
    """A generative model of weights: an extractor, and a weight generator for each layer.

    z -> extractor -> a code for each filter -> the layer's generator, shared by its filters -> the
    filter's weights. A layer in `whole_layers` has one code, from which all its weights are
    generated. Batch normalisation that directly follows a layer is generated with it: its scale
    and shift are part of the filter. "Layers" below are the target's `units`.

    Args:
        target: The `Target`, or a Keras model.
        num_networks: N, number of networks that a training step draws.
        lam: Factor on the accuracy loss.
        latent_dim: d, the dimension of z.
        code_dim: Size of a filter's code; one number, or one per layer.
        extractor_hidden: Hidden sizes of the extractor.
        generator_hidden: Hidden sizes of the generators; one tuple for all, or one per layer.
        whole_layers: Indices of the layers that are generated whole (-1 is the last).
        share_generators: Whether layers whose filters have the same sizes share one generator, if
            their entries of code_dim and generator_hidden are the same too.
        residual: Whether extractor and generators have skip connections between hidden layers of
            one size.
        initialization: Distribution of the first weights, and how fast they move.

            * "scaled": As "model", and made for Adam's usual learning rate of 1e-3 and for few
              steps: the outputs of extractor and generators are scaled so that one step moves a
              weight by about 0.01 at most, hidden kernels start with variance 2 / fan-in, and batch
              normalisation has momentum 0.9.
            * "model": As the model's own initializers draw the weights, which depend on the number
              of inputs of a filter, and similar in all networks (see the anchors of `Extractor` and
              `WeightGenerator`).
            * "published": Standard deviation 0.1 in every layer, different in every network. Deep
              targets hardly train from it.
        latent_distribution: Distribution of z: "uniform" on [-1, 1], or standard "normal".
        **kwargs: Options of `WeightSampler`: lam_growth, diversity, prior_scale, gauge, seed, ...

    Raises:
        ValueError: An argument is out of range, or its length is not the number of layers.

    Example:
        >>> hyper = Hypernetwork(model)                        # any Keras model
        >>> hyper.compile("adam", SparseCategoricalCrossentropy(from_logits=True))
        >>> hyper.fit(x, y, epochs=10)
        >>> hyper.sample(100).evaluate(x_test, y_test)
        >>> published = Hypernetwork(zoo.mnist(), num_networks=32, latent_dim=300,
        ...     generator_hidden=[(40, 40), (100, 100), (100, 100), (60, 60)],
        ...     initialization="published")                    # 633,640 trainable parameters

    Reference: "A Generative Model for Sampling High-Performance and Diverse Weights for Neural
    Networks", arXiv 1905.02898.
    """

    min_networks = 2  # batch normalisation is over the networks of a step

    def __init__(
        self,
        target: Target,
        *,
        num_networks: int = 8,
        lam: float = 1e3,
        latent_dim: int = 64,
        code_dim: int | Sequence[int] = 15,
        extractor_hidden: Sequence[int] = (300, 300),
        generator_hidden: Sequence[int] | Sequence[Sequence[int]] = (100, 100),
        whole_layers: Sequence[int] = (-1,),
        share_generators: bool = False,
        residual: bool = False,
        initialization: Initialization = "scaled",
        latent_distribution: LatentDistribution = "uniform",
        **kwargs: Any,
    ):
        super().__init__(target, num_networks=num_networks, lam=lam, **kwargs)
        latent_dim = check_count("latent_dim", latent_dim)
        extractor_hidden = check_sizes("extractor_hidden", extractor_hidden)
        check_choice("latent_distribution", latent_distribution, LatentDistribution)
        check_choice("initialization", initialization, Initialization)
        units = self.target.units
        names = [unit[0].name for unit in units]
        code_dims = per_layer("code_dim", code_dim, names, same=is_whole(code_dim))
        code_dims = list(check_sizes("code_dim", code_dims))
        hidden = check_sizes_per_layer("generator_hidden", generator_hidden, names)
        if not isinstance(whole_layers, list | tuple) or any(
            not is_whole(index) or not -len(units) <= index < len(units) for index in whole_layers
        ):
            raise ValueError(
                f"whole_layers is {whole_layers}: give indices of the {len(units)} weighted layers."
            )
        whole_units = {index % len(units) for index in whole_layers}
        self.latent_dim = latent_dim
        self.latent_distribution = latent_distribution
        self._arguments = {
            "latent_dim": latent_dim,
            "code_dim": code_dims,
            "extractor_hidden": list(extractor_hidden),
            "generator_hidden": [list(sizes) for sizes in hidden],
            "whole_layers": sorted(whole_units),
            "share_generators": share_generators,
            "residual": residual,
            "initialization": initialization,
            "latent_distribution": latent_distribution,
        }
        codes = [
            (1 if index in whole_units else unit[0].filters, code)
            for index, (unit, code) in enumerate(zip(units, code_dims, strict=True))
        ]
        options: dict[str, Any] = {"residual": residual}
        if initialization == "scaled":
            options |= {"scale_output": True, "hidden_variance": 2.0, "momentum": 0.9}
        self.extractor = Extractor(
            tuple(extractor_hidden),
            codes,
            latent_mean_square=1 / 3 if latent_distribution == "uniform" else 1.0,
            anchored=initialization != "published",
            mlp=options,
            name="extractor",
            dtype=self.dtype_policy,
        )
        self.extractor.build((None, latent_dim))
        groups: dict[Any, list[int]] = {}  # indices of the units that share a generator
        for index, (unit, (filters, code)) in enumerate(zip(units, codes, strict=True)):
            parts = [tuple(slot.size // filters for slot in layer.slots) for layer in unit]
            key = (*parts, code, hidden[index]) if share_generators else index
            groups.setdefault(key, []).append(index)
        self._unit_groups = list(groups.values())
        self.generators: list[WeightGenerator] = []
        for number, indices in enumerate(self._unit_groups, 1):
            first = indices[0]
            single_code = sum(codes[index][0] for index in indices) == 1
            generator = WeightGenerator(
                hidden[first],
                _moments([units[index] for index in indices], codes[first][0], initialization),
                anchored=initialization != "published" and single_code,
                name=f"weight_generator{number}",
                dtype=self.dtype_policy,
                **options,
            )
            generator.build((None, *codes[first]))
            self.generators.append(generator)
        self.built = True

    def latent_vectors(self, seed: tf.Tensor, count: int) -> tf.Tensor:
        """Draw latent vectors z [N, d], uniform in [-1, 1] or standard normal."""
        if self.latent_distribution == "normal":
            return super().latent_vectors(seed, count)
        shape = [count, self.latent_dim]
        return tf.random.stateless_uniform(shape, tf.cast(seed, tf.int32), -1.0, 1.0)

    def generate(self, z: tf.Tensor, *, training: bool = False) -> Draw:
        """Make the weights of networks from latent vectors.

        Args:
            z: Latent vectors [N, d].
            training: Whether batch normalisation uses the batch's statistics.

        Returns:
            A `Draw` with `z` and `codes`.
        """
        codes = self.extractor(z, training=training)
        rows: dict[int, tf.Tensor] = {}
        for generator, indices in zip(self.generators, self._unit_groups, strict=True):
            group_codes = [codes[index] for index in indices]
            group_rows = generator(tf.concat(group_codes, 1), training=training)
            # In mixed precision, gauge and entropy are computed in the precision of variables.
            group_rows = tf.cast(group_rows, self.variable_dtype)
            counts = [code.shape[1] for code in group_codes]
            rows |= zip(indices, tf.split(group_rows, counts, axis=1), strict=True)
        return Draw(self.target.assemble_units([rows[i] for i in range(len(rows))]), z, codes)

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | self._arguments


def _moments(
    units: list[Unit], filters: int, initialization: str
) -> list[tuple[int, float, float | None]]:
    """The initial distribution of the parts of a generator's row.

    Args:
        units: Units of one generator; if their initializers differ, the average is taken.
        filters: F of the first unit.
        initialization: "published" or "model".

    Returns:
        (count, mean, standard deviation) of each part.
    """
    moments: list[tuple[int, float, float | None]] = []
    for slots in zip(*([s for layer in unit for s in layer.slots] for unit in units), strict=True):
        count = slots[0].size // filters
        if initialization == "published":
            moments.append((count, 0.0, None))
        else:
            mean, deviation = np.mean([slot.moments() for slot in slots], 0)
            moments.append((count, float(mean), float(deviation)))
    return moments
