"""Networks trained in the ordinary way, all at once: one network, or a deep ensemble."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.checks import check_fixed
from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.samplers.optimizers import plain_optimizers
from hypernet_tf.targets import Target
from hypernet_tf.targets.filters import seeded

# Optimizers whose step of a weight depends on others of its variable.
_OF_WHOLE_VARIABLES = (keras.optimizers.Adafactor, keras.optimizers.Lamb, keras.optimizers.Muon)


@keras.saving.register_keras_serializable(package="hypernet_tf")
class DeepEnsemble(WeightSampler):
    """N independently trained networks, trained in one step (Lakshminarayanan et al. 2017).

    Each network starts from its own initial weights and sees its own share of every batch. A step
    minimises the *sum* over networks of what each would minimise alone, so that training them
    together changes nothing; the reported losses are means. With `num_networks=1` this is ordinary
    training of one network. Where answers are masked, Keras divides by those of all networks that
    count, so that a network with more of them in a batch has a greater step.

    The sampler is finite: `sample(count)` takes `count` of the N networks, chosen by the seed.
    Training steps run on the weights as they are; samples are gauge-fixed.

    Args:
        target: The `Target`, or a Keras model.
        num_networks: N, number of networks of the ensemble.
        initializers: Name of a variable ("kernel", "bias", ...) -> Keras initializer, or its name.
            Other variables start as in the user's model: by the initializers of its layers, or with
            the model's values if a layer does not state its initializer.
        **kwargs: Options of `WeightSampler`, except diversity: lam, prior_scale, gauge, seed, ...

    Raises:
        ValueError: The target has no variable of a name in `initializers`.

    Example:
        >>> ensemble = DeepEnsemble(Target(zoo.mnist()), num_networks=10)
        >>> loss = SparseCategoricalCrossentropy(from_logits=True)
        >>> ensemble.compile(optimizer="adam", loss=loss)
        >>> ensemble.fit(x, y, batch_size=10 * 128, epochs=10)
        >>> ensemble.sample(10).evaluate(x_test, y_test)

    Reference: "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles",
    arXiv 1612.01474.
    """

    trains_in_gauge = False
    trains_networks = True

    def __init__(
        self,
        target: Target,
        *,
        num_networks: int = 10,
        initializers: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        check_fixed(self, kwargs, diversity=[])
        super().__init__(target, num_networks=num_networks, diversity=[], **kwargs)
        self.initializers = dict(initializers or {})
        self.theta = trained_weights(self, num_networks, self.initializers)
        self.built = True

    def compile(self, optimizer="adam", loss=None, *args, **kwargs):
        """As `WeightSampler.compile`.

        Raises:
            ValueError: The optimizer takes norms or means over a whole variable, which holds the
                weights of all networks; or the loss divides by all sample weights.
        """
        optimizer = keras.optimizers.get(optimizer)
        plain = plain_optimizers(optimizer) if self.num_networks > 1 else []
        if mixing := [one for one in plain if isinstance(one, _OF_WHOLE_VARIABLES)]:
            raise ValueError(
                f"{type(mixing[0]).__name__} computes norms or means of a variable, which holds "
                "the weights of all networks, so that they would not train as each alone: use "
                "another optimizer, such as Adam."
            )
        reductions = [getattr(one, "reduction", None) for one in keras.tree.flatten(loss)]
        if plain and "mean_with_sample_weight" in reductions:
            raise ValueError(
                "reduction='mean_with_sample_weight' divides by the weights of all networks' "
                "examples together, so that they would not train as each alone: use "
                "'sum_over_batch_size'."
            )
        for name in ("clipnorm", "global_clipnorm"):
            if any(getattr(one, name, None) for one in plain):
                raise ValueError(
                    f"{name} is a norm of all networks' gradients together, so that they would not "
                    "train as each alone: use clipvalue, or none."
                )
        super().compile(optimizer, loss, *args, **kwargs)

    @property
    def num_available(self) -> int:
        """N."""
        return self.num_networks

    def draw(self, seed: tf.Tensor, count: int, *, training: bool) -> Draw:
        """All networks in training; otherwise `count` of them, chosen by the seed, in order."""
        if training or count == self.num_available:
            return Draw([weights.value for weights in self.theta])
        order = tf.random.experimental.stateless_shuffle(tf.range(self.num_available), seed)
        chosen = tf.sort(order[:count])
        return Draw([tf.gather(weights.value, chosen) for weights in self.theta])

    def minimized(self, objective: tf.Tensor) -> tf.Tensor:
        """The sum over networks of what each would minimise alone."""
        return self.num_networks * objective

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {"initializers": initializer_config(self.initializers)}


def trained_weights(
    sampler: WeightSampler, num_networks: int, initializers: Mapping[str, Any]
) -> list[Any]:
    """Add variables to a sampler that are the weights of N networks themselves.

    Args:
        sampler: Sampler to which they belong.
        num_networks: N.
        initializers: Name of a variable -> Keras initializer; see `DeepEnsemble`.

    Returns:
        One variable [N, ...] for each trainable variable of the target.

    Raises:
        ValueError: The target has no variable of such a name.
    """
    slots = sampler.target.slots
    names = {slot.name for slot in slots}
    unknown = set(initializers) - names
    if unknown:
        raise ValueError(
            f"The target has no variable named {', '.join(sorted(unknown))}: choose among "
            f"{', '.join(sorted(names))}."
        )
    given = {name: keras.initializers.get(value) for name, value in initializers.items()}
    return [
        sampler.add_weight(
            name=f"{slot.name}_{slot.index}",  # optimizers leave variables out by their names
            shape=(num_networks, *slot.shape),
            initializer=_Stacked(given.get(slot.name, slot.initializer), sampler.seed, slot.index),
        )
        for slot in slots
    ]


def initializer_config(initializers: Mapping[str, Any]) -> dict[str, Any]:
    """Initializers as JSON, which the constructor turns into initializers again."""
    return {
        name: keras.saving.serialize_keras_object(keras.initializers.get(value))
        for name, value in initializers.items()
    }


class _Stacked(keras.initializers.Initializer):
    """Initial values of one variable in N networks, each from its own seed."""

    def __init__(self, initializer: Any, seed: int, index: int):
        self.initializer, self.seed, self.index = initializer, seed, index

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """[N, ...]."""
        return tf.stack([self._one(network, shape[1:], dtype) for network in range(shape[0])])

    def _one(self, network: int, shape: Any, dtype: Any) -> Any:
        return seeded(self.initializer, self.seed, network, self.index)(shape, dtype=dtype)
