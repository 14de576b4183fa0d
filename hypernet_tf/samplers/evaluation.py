"""What `WeightSampler.evaluate` keeps: its networks, and their losses and metrics."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.samplers.draws import Draw
from hypernet_tf.targets import WeightSet


class Scores(keras.Model):
    """The compiled loss and metrics of one kind of prediction, with states of their own.

    Args:
        name: Prefix of the results: "member" or "ensemble".
        output_names: Names of the target's outputs.
        **compiled: Loss and metrics as `keras.Model.compile` takes them. Metric objects are copied.
    """

    def __init__(self, name: str, output_names: list[str], **compiled: Any):
        super().__init__(name=name)
        self.output_names = output_names
        self.compile(optimizer=None, **keras.tree.map_structure(_copied, compiled))

    def update(self, y: Any, y_pred: Any, sample_weight: Any) -> tf.Tensor:
        """Add examples.

        Args:
            y: Labels [M, ...].
            y_pred: Outputs [M, ...] in the form of the target's.
            sample_weight: Weights of the examples, or None.

        Returns:
            The mean loss of these examples.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        # Keras divides a mean by the number of replicas.
        loss = replicas * self.compute_loss(None, y, y_pred, sample_weight, training=False)
        size = tf.shape(keras.tree.flatten(y_pred)[0])[0]
        self._loss_tracker.update_state(loss, sample_weight=size)
        self.compute_metrics(None, y, y_pred, sample_weight)
        return loss

    def results(self) -> dict[str, tf.Tensor]:
        """Loss and metrics by name, `<prefix>_loss` first."""
        return {f"{self.name}_{key}": value for key, value in self.get_metrics_result().items()}


def _copied(part: Any) -> Any:
    """A metric with a state of its own; anything else as it is.

    Raises:
        ValueError: The metric does not say with which arguments it was made.
    """
    if not isinstance(part, keras.metrics.Metric):
        return part
    config = part.get_config()
    parameters = inspect.signature(type(part)).parameters.values()
    open_ended = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [one.name for one in parameters if one.kind not in open_ended]
    if len(named) == len(parameters) and "dtype" not in named:
        config.pop("dtype", None)  # of Keras's own `get_config`, for a class that does not take it
    missing = [name for name in named if name not in config]
    if missing and not type(part).__module__.startswith("keras."):
        raise ValueError(
            f"The metric '{part.name}' cannot be copied for members and ensemble: return "
            f"'{missing[0]}' from its get_config, too."
        )
    try:
        copy = type(part).from_config(config)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The metric '{part.name}' cannot be copied for members and ensemble: give the "
            "function itself in its place, or register it with Keras."
        ) from error
    if hasattr(part, "_fn_kwargs"):  # some metrics of Keras's do not have them in their config
        copy._fn_kwargs = part._fn_kwargs
    return copy


def build_metrics(model: keras.Model, y: Any, y_pred: Any) -> None:
    """Make the variables of a model's metrics, which a step in a replica cannot make.

    Args:
        model: A compiled model.
        y: Labels of a few examples.
        y_pred: Outputs of these examples.
    """
    for metric in model.metrics:
        if not getattr(metric, "built", True):
            metric.build(y, y_pred)
    if model._compile_loss is not None and not model._compile_loss.built:
        model._compile_loss.build(y, y_pred)


class EvaluatedNetworks:
    """N networks in variables that Keras does not track: one graph evaluates any N networks."""

    def __init__(self) -> None:
        self._variables: list[tf.Variable] = []
        self._structure: Any = None

    def assign(self, drawn: Draw, weights: WeightSet) -> bool:
        """Keep networks.

        Args:
            drawn: What the sampler drew.
            weights: The weights on which the target runs.

        Returns:
            Whether the networks are of another number than before, so that a new graph is needed.
        """
        networks = (drawn, weights)
        tensors = [t for t in tf.nest.flatten(networks) if t is not None]
        self._structure = tf.nest.map_structure(lambda t: t is not None, networks)
        if [t.shape for t in tensors] == [v.shape for v in self._variables]:
            for variable, tensor in zip(self._variables, tensors, strict=True):
                variable.assign(tensor)
            return False
        self._variables = [tf.Variable(tensor, trainable=False) for tensor in tensors]
        return True

    def read(self) -> tuple[Draw, WeightSet]:
        """The networks, as `assign` was given them."""
        values = iter(self._variables)
        return tf.nest.map_structure(
            lambda there: next(values).value() if there else None, self._structure
        )


class EvaluationState:
    """The networks, losses and metrics of `WeightSampler.evaluate`.

    Args:
        output_names: Names of the target's outputs.
        **compiled: Loss and metrics as `keras.Model.compile` takes them.

    Attributes:
        networks: The evaluated networks.
        objective: Mean of the objective, weighted by the number of examples.
        member: Scores of all networks' own predictions, together.
        ensemble: Scores of the mean prediction.
    """

    def __init__(self, output_names: list[str], **compiled: Any):
        self.networks = EvaluatedNetworks()
        self.objective = keras.metrics.Mean(name="loss")
        self.member = Scores("member", output_names, **compiled)
        self.ensemble = Scores("ensemble", output_names, **compiled)

    def reset(self) -> None:
        """Forget all examples."""
        self.objective.reset_state()
        self.member.reset_metrics()
        self.ensemble.reset_metrics()

    def results(self) -> dict[str, tf.Tensor]:
        """`loss`, then everything of the members, then everything of the ensemble."""
        loss = {"loss": self.objective.result()}
        return loss | self.member.results() | self.ensemble.results()
