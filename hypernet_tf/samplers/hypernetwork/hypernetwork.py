"""The hypernetwork: z -> codes of filters -> weights (Deutsch, Nijkamp, Yang 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.samplers.draws import Draw
from hypernet_tf.samplers.hypernetwork.layers import Extractor, WeightGenerator
from hypernet_tf.samplers.latent import LatentSampler
from hypernet_tf.targets import Target
from hypernet_tf.targets.filters import Unit


@keras.saving.register_keras_serializable(package="hypernet_tf")
class Hypernetwork(LatentSampler):
    """A generative model of weights: an extractor and one weight generator per layer of the target.

    z -> extractor -> a code for each filter -> the layer's generator, shared by its filters -> the
    filter's weights. A layer named in `whole_layers` has one code, from which all its weights are
    generated. Batch normalisation that directly follows a layer is generated with it: its scale
    and shift are part of the filter, and "layers" below are the target's `units`.

    Args:
        target: the `Target`, or a Keras model.
        latent_dim: d, the dimension of z.
        code_dim: size of a filter's code; one number, or one per layer.
        extractor_hidden: hidden sizes of the extractor.
        generator_hidden: hidden sizes of the generators: one tuple for all, or one per layer.
        whole_layers: which layers are generated whole, by index (-1 is the last).
        share_generators: whether layers whose filters have the same sizes share one generator (and
            their entries of code_dim and generator_hidden are the same).
        residual: whether extractor and generators have skip connections between hidden layers of
            one size.
        initialization: how the first weights are distributed: as "published" (standard deviation 0.1,
            whatever the layer; every network of its own, under which deep targets hardly train), or
            as the "model"'s own initializers draw them, which know how many inputs a filter has,
            and alike in all networks (see the places of `Extractor` and `WeightGenerator`).
        latent_distribution: distribution of z: "uniform" on [-1, 1], or standard "normal".
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
        whole_layers: Sequence[int] = (-1,),
        share_generators: bool = False,
        residual: bool = False,
        initialization: str = "published",
        latent_distribution: str = "uniform",
        **kwargs: Any,
    ):
        super().__init__(target, **kwargs)
        if latent_dim < 1:
            raise ValueError(f"latent_dim is at least 1, not {latent_dim}")
        if latent_distribution not in ("uniform", "normal"):
            raise ValueError(
                f"latent_distribution is 'uniform' or 'normal', not {latent_distribution!r}"
            )
        if initialization not in ("published", "model"):
            raise ValueError(f"initialization is 'published' or 'model', not {initialization!r}")
        units = self.target.units
        code_dims = self._per_layer("code_dim", code_dim, isinstance(code_dim, int))
        one_tuple = not generator_hidden or isinstance(generator_hidden[0], int)
        hidden = self._per_layer("generator_hidden", generator_hidden, one_tuple)
        hidden = [tuple(sizes) for sizes in hidden]
        if any(not -len(units) <= index < len(units) for index in whole_layers):
            raise ValueError(
                f"whole_layers names layers by index, of {len(units)}; not {whole_layers}"
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
            (1 if place in whole_units else unit[0].filters, code)
            for place, (unit, code) in enumerate(zip(units, code_dims, strict=True))
        ]
        options: dict[str, Any] = {"residual": residual, "dtype": self.dtype_policy}
        self.extractor = Extractor(
            tuple(extractor_hidden),
            codes,
            places=initialization == "model",
            name="extractor",
            **options,
        )
        self.extractor.build((None, latent_dim))
        groups: dict[Any, list[int]] = {}  # what one generator makes: places of units
        for place, (unit, (filters, code)) in enumerate(zip(units, codes, strict=True)):
            parts = [tuple(slot.size // filters for slot in layer.slots) for layer in unit]
            key = (*parts, code, hidden[place]) if share_generators else place
            groups.setdefault(key, []).append(place)
        self._generated = list(groups.values())
        self.generators: list[WeightGenerator] = []
        for number, places in enumerate(self._generated, 1):
            filters = codes[places[0]][0]
            single = sum(codes[place][0] for place in places) == 1
            moments = _moments([units[place] for place in places], filters, initialization)
            name = f"weight_generator{number}"
            generator = WeightGenerator(
                hidden[places[0]],
                moments,
                place=initialization == "model" and single,
                name=name,
                **options,
            )
            generator.build((None, *codes[places[0]]))
            self.generators.append(generator)
        self.built = True

    def _per_layer(self, name: str, value: Any, same: bool) -> list:
        units = self.target.units
        values = [value] * len(units) if same else list(value)
        if len(values) != len(units):
            raise ValueError(
                f"{name} has {len(values)} entries, the target has {len(units)} weighted layers: "
                f"{', '.join(unit[0].name for unit in units)}"
            )
        return values

    def latent_vectors(self, seed: tf.Tensor, count: int) -> tf.Tensor:
        """Latent vectors z [N, d], drawn statelessly."""
        from tensorflow_probability import distributions  # takes seconds to load

        prior = (
            distributions.Uniform(-1.0, 1.0)
            if self.latent_distribution == "uniform"
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
        rows = {}
        for generator, places in zip(self.generators, self._generated, strict=True):
            own = [codes[place] for place in places]
            together = generator(tf.concat(own, 1), training=training)
            # In mixed precision, gauge and entropy are computed in the precision of variables.
            together = tf.cast(together, self.variable_dtype)
            for place, part in zip(
                places, tf.split(together, [c.shape[1] for c in own], axis=1), strict=True
            ):
                sizes = [layer.size // part.shape[1] for layer in self.target.units[place]]
                for layer, layer_rows in zip(
                    self.target.units[place], tf.split(part, sizes, axis=2), strict=True
                ):
                    rows[id(layer)] = layer_rows
        return Draw(self.target.assemble([rows[id(x)] for x in self.target.layers]), z, codes)

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | self._arguments


def _moments(
    units: list[Unit], filters: int, initialization: str
) -> list[tuple[int, float, float | None]]:
    """(count, mean, standard deviation) of the parts of a row at the start.

    Args:
        units: those of one generator; where their initializers differ, their average is taken.
        filters: F of the first one.
        initialization: "published" or "model".
    """
    moments: list[tuple[int, float, float | None]] = []
    for alike in zip(*([s for layer in unit for s in layer.slots] for unit in units), strict=True):
        count = alike[0].size // filters
        if initialization == "published":
            moments.append((count, 0.0, None))
        else:
            mean, deviation = np.mean([slot.moments() for slot in alike], 0)
            moments.append((count, float(mean), float(deviation)))
    return moments
