"""`Ensemble`: N sampled networks and what is done with them."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.ensembles import inference, io
from hypernet_tf.ensembles.evaluation import (
    Evaluation,
    evaluate_classes,
    evaluate_values,
    integer_labels,
)
from hypernet_tf.gauge import Gauge
from hypernet_tf.metrics import accuracy as metrics
from hypernet_tf.metrics import uncertainty
from hypernet_tf.targets import Target, WeightSet
from hypernet_tf.targets.weights import weights_of


class Ensemble:
    """N networks of one target: their weights, and what can be asked of them.

    Args:
        target: the `Target`.
        weights: the weight set of N networks.
        batch_norm_updated: whether the moving statistics in their state, if any, are these networks' own.

    Example:
        >>> ensemble = hyper.sample(200, seed=0)
        >>> ensemble.evaluate(x_test, y_test).majority_vote_accuracy
        >>> network = ensemble[0].to_keras()
        >>> ensemble.save("ensemble.npz"); Ensemble.load("ensemble.npz")
    """

    def __init__(self, target: Target, weights: WeightSet, *, batch_norm_updated: bool = False):
        self.target = target
        self.weights = WeightSet(list(weights.trainable), list(weights.state))
        self._batch_norm_updated = batch_norm_updated or not target.statistics

    def __len__(self) -> int:
        """N."""
        return self.weights.trainable[0].shape[0]

    def __getitem__(self, index: int | slice) -> Ensemble:
        """Some of the networks, as an ensemble; an integer gives an ensemble of one."""
        if not isinstance(index, slice):
            place = operator.index(index)
            if not -len(self) <= place < len(self):
                raise IndexError(f"network {place} of {len(self)}")
            index = slice(place % len(self), place % len(self) + 1)
        part = tf.nest.map_structure(lambda t: t[index], self.weights)
        if not part.trainable[0].shape[0]:
            raise IndexError("no network in this slice")
        return Ensemble(self.target, part, batch_norm_updated=self._batch_norm_updated)

    def __iter__(self) -> Iterator[Ensemble]:
        """The networks, each as an ensemble of one."""
        return (self[index] for index in range(len(self)))

    def theta(self) -> np.ndarray:
        """[N, D]: the weights of each network as one vector."""
        return self.target.flatten(self.weights).numpy()

    # ---- running --------------------------------------------------------------------------

    def _check_batch_norm(self) -> None:
        if not self._batch_norm_updated:
            raise ValueError(
                "these networks have batch normalisation whose moving statistics nobody computed: "
                "call ensemble.update_batch_norm(x_train) first"
            )

    def _outputs(self, x: Any, batch_size: int | None, verbose: int) -> Iterator[tuple[int, Any]]:
        """Yields (first example, outputs [N, b, ...]) over chunks of examples."""
        self._check_batch_norm()
        return inference.run(self.target, self.weights, x, batch_size=batch_size, verbose=verbose)

    def outputs(self, x: Any, *, batch_size: int | None = None, verbose: int = 0) -> Any:
        """What every network returns, [N, M, ...], structured as the model's outputs.

        Args:
            x: inputs [M, ...], the same for all networks.
            batch_size: examples run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.
        """
        parts = [part for _, part in self._outputs(x, batch_size, verbose)]
        return keras.tree.map_structure(lambda *t: np.concatenate(t, 1), *parts)

    def predict(self, x: Any, *, batch_size: int | None = None, verbose: int = 0) -> Any:
        """The mean over networks of probabilities (of values, for regression), [M, ...].

        Args:
            x: inputs [M, ...].
            batch_size: examples run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.
        """
        parts = [
            keras.tree.map_structure(
                lambda t: tf.reduce_mean(self.target.activate(tf.constant(t)), 0).numpy(), part
            )
            for _, part in self._outputs(x, batch_size, verbose)
        ]
        return keras.tree.map_structure(lambda *t: np.concatenate(t), *parts)

    def _log_probabilities(self, x: Any, batch_size: int | None, verbose: int) -> Iterator:
        """Yields (first example, log-probabilities [N, b, C]) over chunks of examples."""
        for first, outputs in self._outputs(x, batch_size, verbose):
            tensor = tf.constant(keras.tree.flatten(outputs)[0])
            yield first, self.target.log_probabilities(tensor).numpy()

    def log_probabilities(
        self, x: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> np.ndarray:
        """The logarithm of each class's probability by each network, [N, M, C], in nats.

        Where the target ends in probabilities, one of 0 counts as 1.2e-38, the least of float32.

        Args:
            x: inputs [M, ...].
            batch_size: examples run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Raises:
            ValueError: the target returns values, not classes.
        """
        self.target.require_classes("log-probabilities")
        return np.concatenate([p for _, p in self._log_probabilities(x, batch_size, verbose)], 1)

    def majority_vote(
        self, x: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> np.ndarray:
        """The class with most votes, [M]; of equally many, the lowest.

        Args:
            x: inputs [M, ...].
            batch_size: examples run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Raises:
            ValueError: the target returns values, which cannot be voted on.
        """
        classes = self.target.require_classes("a vote")
        parts = [
            metrics.majority_vote(log_p.argmax(-1), classes)
            for _, log_p in self._log_probabilities(x, batch_size, verbose)
        ]
        return np.concatenate(parts)

    # ---- evaluation -----------------------------------------------------------------------

    def evaluate(
        self, x: Any, y: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> Evaluation:
        """Members and ensemble on labelled examples.

        Args:
            x: inputs [M, ...].
            y: integer labels [M] (or [M, 1], or one-hot [M, C]); for regression values [M, ...].
            batch_size: examples run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Returns:
            An `Evaluation`, which has the measures of the target's task.

        Raises:
            ValueError: labels out of range, or not as many as examples.
        """
        if len(keras.tree.flatten(self.target.plan.outputs)) != 1:
            raise ValueError("evaluate needs a target with one output: use predict()")
        y, (_, size) = np.asarray(y), inference.arrays(x)
        if len(y) != size:
            raise ValueError(f"{len(y)} labels for {size} examples")
        if self.target.classes is None:
            outputs = self._outputs(x, batch_size, verbose)
            return evaluate_values(((i, keras.tree.flatten(o)[0]) for i, o in outputs), y)
        classes = self.target.require_classes("evaluate")
        labels = integer_labels(y, classes)
        return evaluate_classes(self._log_probabilities(x, batch_size, verbose), labels, classes)

    def uncertainty(
        self, x: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> uncertainty.Uncertainty:
        """How unsure the networks are of each example.

        Args:
            x: inputs [M, ...].
            batch_size: examples run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Raises:
            ValueError: the target returns values, not classes.

        Example:
            >>> unsure = ensemble.uncertainty(x).entropy > 0.5
            >>> ood_metrics(ensemble.uncertainty(x).entropy, ensemble.uncertainty(x_strange).entropy)
        """
        self.target.require_classes("uncertainty")
        parts = self._log_probabilities(x, batch_size, verbose)
        return uncertainty.measure(part for _, part in parts)

    def update_batch_norm(self, x: Any, *, batch_size: int = 100) -> Ensemble:
        """The same networks with batch norm's moving statistics computed on x in one pass.

        Each network's statistics are the mean over batches of its own batch means and variances.

        Args:
            x: inputs [M, ...], typically the training images.
            batch_size: B of these statistics; a last short batch counts by its size.

        Returns:
            A new ensemble. One without batch normalisation is returned as it is.
        """
        if not self.target.statistics:
            return self
        weights = inference.batch_statistics(self.target, self.weights, x, batch_size)
        return Ensemble(self.target, weights, batch_norm_updated=True)

    def polyak_average(
        self,
        x: Any = None,
        *,
        gauge: Callable[[WeightSet], WeightSet] | None = None,
        batch_size: int = 100,
    ) -> Ensemble:
        """The network whose weights are the mean of the networks': 1/N sum_n gauge(theta_n).

        Weights of networks that compute alike may differ, and their mean then computes something
        else: so the mean is taken in one gauge. It is not gauged again, which would not change its
        outputs. State that is not trained (frozen layers) is that of the first network.

        Args:
            x: Inputs [M, ...], typically the training images, on which batch norm's moving
                statistics are computed anew. Without batch norm they are not used; without them a
                network that has batch norm raises an error until it is calibrated.
            gauge: A `Gauge` of the ensemble's target, or any function of a weight set; None is
                `Gauge(target)`.
            batch_size: B of batch norm's statistics; see `update_batch_norm`.

        Returns:
            An ensemble of one.

        Example:
            >>> average = ensemble.polyak_average(x_train)
            >>> average.evaluate(x_test, y_test).member_accuracy
            >>> average.to_keras().save("average.keras")

        Reference: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by
        Averaging", over ancestral samples as in Deutsch, Nijkamp, Yang (2019).
        """
        gauged = (gauge or Gauge(self.target))(self.weights)
        # In float64 the mean of equal networks is that network.
        mean = [
            tf.cast(tf.reduce_mean(tf.cast(t, tf.float64), 0, keepdims=True), t.dtype)
            for t in gauged.trainable
        ]
        average = Ensemble(self.target, WeightSet(mean, [t[:1] for t in gauged.state]))
        return average if x is None else average.update_batch_norm(x, batch_size=batch_size)

    # ---- keeping --------------------------------------------------------------------------

    def to_keras(self) -> keras.Model:
        """The one network as an ordinary Keras model.

        Raises:
            ValueError: there are several networks, or one that is not calibrated.
        """
        if len(self) != 1:
            raise ValueError(f"one of the {len(self)} networks: ensemble[0].to_keras()")
        self._check_batch_norm()
        return self.target.to_keras(self.weights)

    @classmethod
    def from_keras(cls, target: Target, model: keras.Model) -> Ensemble:
        """An ordinary Keras model, its weights and statistics, as an ensemble of one.

        Args:
            target: what the model is a network of: the student's, or `Target(model)`.
            model: a trained model.

        Raises:
            ValueError: the model's weights are not those of a network of the target.
        """
        return cls(target, weights_of(target, model), batch_norm_updated=True)

    def save(self, path: str | os.PathLike) -> None:
        """Write weights and target to one .npz file (no pickle), aside, then moved into place."""
        frozen = [variable.value for variable in self.target.frozen]
        tensors = {"trainable": self.weights.trainable, "state": self.weights.state}
        arrays = {
            f"{kind}_{index}": tensor.numpy()
            for kind, parts in (tensors | {"frozen": frozen}).items()
            for index, tensor in enumerate(parts)
        }
        target = keras.saving.serialize_keras_object(self.target)
        io.write(path, arrays, {"target": target, "batch_norm_updated": self._batch_norm_updated})

    @classmethod
    def load(cls, path: str | os.PathLike) -> Ensemble:
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            ValueError: the file is not a saved ensemble, or is damaged; or its target has a layer
                that would execute code (Lambda).
        """
        arrays, record = io.read(path)
        target = keras.saving.deserialize_keras_object(record.get("target"))
        if not isinstance(target, Target):
            raise ValueError(f"{path} is not a saved ensemble: it has no target")

        def tensors(kind: str) -> list[tf.Tensor]:
            names = [name for name in arrays if name.startswith(kind)]
            return [tf.constant(arrays[f"{kind}_{index}"]) for index in range(len(names))]

        for variable, value in zip(target.frozen, tensors("frozen"), strict=True):
            variable.assign(value)
        weights = WeightSet(tensors("trainable"), tensors("state"))
        return cls(target, weights, batch_norm_updated=bool(record.get("batch_norm_updated")))
