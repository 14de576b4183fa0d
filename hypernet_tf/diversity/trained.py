"""`TrainedTerm`: a diversity term with variables of its own, such as a discriminator."""

from __future__ import annotations

import abc
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.diversity.terms import DiversityTerm, StepRecord


class TrainedTerm(DiversityTerm, keras.layers.Layer):
    """A diversity term that is a Keras layer, with a loss and an optimizer of its own.

    In each training step the term takes a step first: its variables minimise `own_loss` of the
    networks of the step. Then the sampler's variables minimise the objective, to which the term
    adds `value` of the same networks. Neither step trains the variables of the other: `own_loss`
    gets the networks without gradients.

    A subclass defines `build`, `own_loss` and `value`, and with arguments of its own `get_config`.
    Metrics that it makes in its constructor and updates in `own_loss` are reported with those of
    training. Variables, optimizer and sampler are saved and resumed together. A term belongs to
    one sampler. It computes in float32 under any global policy.

    Args:
        optimizer: Keras optimizer of the term's variables, or its name.
        weight: Factor on the term in the sampler's objective.
        name: Name of the layer, and the first word of its metrics.

    Example:
        >>> @keras.saving.register_keras_serializable(package="example")
        ... class WeightCritic(hn.diversity.TrainedTerm):
        ...     '''Minus the variance of the weights along the direction in which it is least.'''
        ...
        ...     def build(self, step):
        ...         self.direction = self.add_weight(name="direction", shape=step.theta.shape[1:])
        ...
        ...     def own_loss(self, step):
        ...         return -self.value(step)
        ...
        ...     def value(self, step):
        ...         spread = step.theta - tf.reduce_mean(step.theta, 0)
        ...         along = tf.linalg.matvec(spread, tf.math.l2_normalize(self.direction))
        ...         return -tf.reduce_mean(along**2)
    """

    def __init__(self, *, optimizer: Any = "adam", weight: float = 1.0, name: str | None = None):
        keras.layers.Layer.__init__(self, name=name, dtype="float32")
        DiversityTerm.__init__(self, weight=weight)
        # The optimizer is made with the variables: in the scope of their strategy.
        self._optimizer_config = keras.optimizers.serialize(keras.optimizers.get(optimizer))
        self.optimizer: Any = None

    @abc.abstractmethod
    def build(self, step):
        """Make the variables.

        Args:
            step: Record of two networks, from which shapes are read; outputs are zeros, `y` and
                `seed` are None.
        """

    @abc.abstractmethod
    def own_loss(self, step: StepRecord) -> tf.Tensor:
        """What the term's variables minimise: a scalar.

        Args:
            step: Networks of the step, without gradients.
        """

    def attach(self, step: StepRecord) -> None:
        """Make the variables and the optimizer, for one sampler.

        Args:
            step: Record as `build` takes it.

        Raises:
            ValueError: The term belongs to another sampler, or has regularizers.
        """
        if self.built:
            raise ValueError(
                f"The diversity term '{self.name}' belongs to another sampler: make a new one for "
                "each sampler."
            )
        self.build(step)
        if self.losses:
            raise ValueError(
                f"The diversity term '{self.name}' has regularizers, which Keras would add to the "
                "loss of the networks: add the penalty in own_loss."
            )
        self.optimizer = keras.optimizers.deserialize(self._optimizer_config)
        self.optimizer.build(self.trainable_variables)

    def train(self, step: StepRecord, replicas: int = 1) -> None:
        """Take a step of the term's own optimizer.

        Args:
            step: Networks of the step, all of them on each replica.
            replicas: R; the optimizer sums gradients over replicas.
        """
        step = StepRecord(*tf.nest.map_structure(_without_gradient, tuple(step)))
        with tf.GradientTape() as tape:
            loss = self.own_loss(step) / replicas
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor."""
        return super().get_config() | {"optimizer": self._optimizer_config, "name": self.name}

    def get_build_config(self) -> None:
        """Nothing, because the sampler builds the term."""
        return None


def _without_gradient(tensor: Any) -> Any:
    return tf.stop_gradient(tensor) if tf.is_tensor(tensor) else tensor
