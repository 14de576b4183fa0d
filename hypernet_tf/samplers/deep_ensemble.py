"""Networks trained in the ordinary way: a single one, or a deep ensemble, all at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.targets import Target
from hypernet_tf.targets.filters import seeded


@keras.saving.register_keras_serializable(package="hypernet_tf")
class DeepEnsemble(WeightSampler):
    """N independently trained networks, all trained in one step (Lakshminarayanan et al. 2017).

    Each network starts from its own initial weights and sees its own share of every batch. What is
    minimised is the *sum* over networks of what each would minimise alone, so that training them
    together changes nothing; the reported losses are means. With `num_networks=1` this is ordinary
    training of one network.

    It is finite: `sample(count)` takes `count` of the N networks, which ones the seed decides, and
    refuses more than N. Training steps run on the weights as they are; samples are gauge-fixed.

    Args:
        target: the `Target`, or a Keras model.
        num_networks: N, how many networks it consists of.
        initializers: name of a variable ("kernel", "bias", ...) -> Keras initializer, or its name;
            variables not named here start as in the user's model: by the initializers of its
            layers, or where a layer does not tell its own, with the model's values.
        **kwargs: see `WeightSampler`: lam, prior_scale, gauge, seed, ... There is no diversity term.

    Example:
        >>> ensemble = DeepEnsemble(Target(zoo.mnist()), num_networks=10)
        >>> ensemble.compile(optimizer="adam", loss=SparseCategoricalCrossentropy(from_logits=True))
        >>> ensemble.fit(x, y, batch_size=10 * 128, epochs=10)
        >>> ensemble.sample(10).evaluate(x_test, y_test)

    Reference: "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
    arXiv 1612.01474.
    """

    trains_in_gauge = False

    def __init__(
        self,
        target: Target,
        *,
        num_networks: int = 10,
        initializers: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(target, num_networks=num_networks, diversity=[], **kwargs)
        self.initializers = dict(initializers or {})
        self.theta = trained_weights(self, num_networks, self.initializers)
        self.built = True

    @property
    def num_available(self) -> int:
        """N: it has no other networks."""
        return self.num_networks

    def draw(self, seed: tf.Tensor, count: int, *, training: bool) -> Draw:
        """All networks in training; otherwise `count` of them, chosen by the seed, in order."""
        if training or count == self.num_available:
            return Draw([weights.value for weights in self.theta])
        places = tf.random.experimental.stateless_shuffle(tf.range(self.num_available), seed)[
            :count
        ]
        return Draw([tf.gather(weights.value, tf.sort(places)) for weights in self.theta])

    def _objective(self, *args: Any, **kwargs: Any) -> tuple[tf.Tensor, dict]:
        mean, metrics = super()._objective(*args, **kwargs)
        return self.num_networks * mean, metrics

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        config = super().get_config()
        del config["diversity"]
        return config | {"initializers": initializer_config(self.initializers)}


def trained_weights(
    sampler: WeightSampler, networks: int, initializers: Mapping[str, Any]
) -> list[Any]:
    """Variables of a sampler that are the weights themselves: [N, ...] for each of the target's.

    Args:
        sampler: whose they are.
        num_networks: N.
        initializers: name of a variable -> Keras initializer; see `DeepEnsemble`.

    Raises:
        ValueError: the target has no variable of such a name.
    """
    slots = [slot for layer in sampler.target.layers for slot in layer.slots]
    names = {slot.name for slot in slots}
    unknown = set(initializers) - names
    if unknown:
        raise ValueError(
            f"the target has no variable named {', '.join(sorted(unknown))}; its variables are "
            f"named {', '.join(sorted(names))}"
        )
    given = {name: keras.initializers.get(value) for name, value in initializers.items()}
    return [
        sampler.add_weight(
            name=f"weights_{slot.index}",
            shape=(networks, *slot.shape),
            initializer=_Stacked(given.get(slot.name, slot.initializer), sampler.seed, slot.index),
        )
        for slot in sorted(slots, key=lambda slot: slot.index)
    ]


def initializer_config(initializers: Mapping[str, Any]) -> dict[str, Any]:
    """Initializers as JSON, of which the constructor makes initializers again."""
    return {
        name: keras.saving.serialize_keras_object(keras.initializers.get(value))
        for name, value in initializers.items()
    }


class _Stacked(keras.initializers.Initializer):
    """Initial values of one variable in N networks, each from a seed of its own."""

    def __init__(self, initializer: Any, seed: int, index: int):
        self.initializer, self.seed, self.index = initializer, seed, index

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """[N, ...]."""
        return tf.stack([self._one(place, shape[1:], dtype) for place in range(shape[0])])

    def _one(self, place: int, shape: Any, dtype: Any) -> Any:
        return seeded(self.initializer, self.seed, place, self.index)(shape, dtype=dtype)
