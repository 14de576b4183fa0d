"""`Ensemble`: N sampled networks and what is done with them."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.ensembles import chunks, metrics, saving, uncertainty
from hypernet_tf.ensembles.evaluation import (
    Evaluation,
    RegressionEvaluation,
    evaluate_classes,
    evaluate_values,
    integer_labels,
)
from hypernet_tf.ensembles.probabilities import log_probabilities, need_classes
from hypernet_tf.targets import Target, WeightSet
from hypernet_tf.targets.networks import weights_of


class Ensemble:
    """N networks of one target: their weights, and what can be asked of them.

    Args:
        target: the `Target`.
        weights: the weight set of N networks.
        calibrated: whether the moving statistics in their state, if any, are these networks' own.

    Example:
        >>> ensemble = hyper.sample(200, seed=0)
        >>> ensemble.evaluate(x_test, y_test).majority_vote_accuracy
        >>> network = ensemble[0].to_keras()
        >>> ensemble.save("ensemble.npz"); Ensemble.load("ensemble.npz")
    """

    def __init__(self, target: Target, weights: WeightSet, *, calibrated: bool = False):
        self.target = target
        self.weights = WeightSet(list(weights.trainable), list(weights.state))
        self._calibrated = calibrated or not target.statistics

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
        return Ensemble(self.target, part, calibrated=self._calibrated)

    def __iter__(self) -> Iterator[Ensemble]:
        """The networks, each as an ensemble of one."""
        return (self[index] for index in range(len(self)))

    def theta(self) -> np.ndarray:
        """[N, D]: the weights of each network as one vector."""
        return self.target.flatten(self.weights).numpy()

    # ---- running --------------------------------------------------------------------------

    def _check_calibrated(self) -> None:
        if not self._calibrated:
            raise ValueError(
                "these networks have batch normalisation whose moving statistics nobody computed: "
                "call ensemble.calibrate(x_train) first"
            )

    def _outputs(self, x: Any, batch_size: int | None, verbose: int) -> Iterator[tuple[int, Any]]:
        """Yields (first example, outputs [N, b, ...]) over chunks of examples."""
        self._check_calibrated()
        return chunks.run(self.target, self.weights, x, batch_size=batch_size, verbose=verbose)

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
            yield first, log_probabilities(self.target, tensor).numpy()

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
        need_classes(self.target, "log-probabilities")
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
        classes = need_classes(self.target, "a vote")
        parts = [
            metrics.majority_vote(log_p.argmax(-1), classes)
            for _, log_p in self._log_probabilities(x, batch_size, verbose)
        ]
        return np.concatenate(parts)

    # ---- evaluation -----------------------------------------------------------------------

    def evaluate(
        self, x: Any, y: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> Evaluation | RegressionEvaluation:
        """Members and ensemble on labelled examples.

        Args:
            x: inputs [M, ...].
            y: integer labels [M] (or [M, 1], or one-hot [M, C]); for regression values [M, ...].
            batch_size: examples run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Returns:
            An `Evaluation`, or a `RegressionEvaluation` where the target returns values.

        Raises:
            ValueError: labels out of range, or not as many as examples.
        """
        if len(keras.tree.flatten(self.target.plan.outputs)) != 1:
            raise ValueError("evaluate needs a target with one output: use predict()")
        y, (_, size) = np.asarray(y), chunks.arrays(x)
        if len(y) != size:
            raise ValueError(f"{len(y)} labels for {size} examples")
        if self.target.classes is None:
            outputs = self._outputs(x, batch_size, verbose)
            return evaluate_values(((i, keras.tree.flatten(o)[0]) for i, o in outputs), y)
        classes = need_classes(self.target, "evaluate")
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
            >>> detect(ensemble.uncertainty(x).entropy, ensemble.uncertainty(x_strange).entropy)
        """
        need_classes(self.target, "uncertainty")
        parts = self._log_probabilities(x, batch_size, verbose)
        return uncertainty.measure(part for _, part in parts)

    def calibrate(self, x: Any, *, batch_size: int = 100) -> Ensemble:
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
        weights = chunks.batch_statistics(self.target, self.weights, x, batch_size)
        return Ensemble(self.target, weights, calibrated=True)

    def polyak_average(self, x: Any = None, **options: Any) -> Ensemble:
        """One network whose weights are the mean of all networks' in one gauge.

        Args:
            x: inputs [M, ...] for batch norm's statistics, as for `calibrate`.
            **options: gauge, batch_size: see `distillation.polyak_average`.
        """
        from hypernet_tf.ensembles import distillation  # which imports this file

        return distillation.polyak_average(self, x, **options)

    # ---- keeping --------------------------------------------------------------------------

    def to_keras(self) -> keras.Model:
        """The one network as an ordinary Keras model.

        Raises:
            ValueError: there are several networks, or one that is not calibrated.
        """
        if len(self) != 1:
            raise ValueError(f"one of the {len(self)} networks: ensemble[0].to_keras()")
        self._check_calibrated()
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
        return cls(target, weights_of(target, model), calibrated=True)

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
        saving.write(path, arrays, {"target": target, "calibrated": self._calibrated})

    @classmethod
    def load(cls, path: str | os.PathLike) -> Ensemble:
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            ValueError: the file is not a saved ensemble, or is damaged; or its target has a layer
                that would execute code (Lambda).
        """
        arrays, record = saving.read(path)
        target = keras.saving.deserialize_keras_object(record.get("target"))
        if not isinstance(target, Target):
            raise ValueError(f"{path} is not a saved ensemble: it has no target")

        def tensors(kind: str) -> list[tf.Tensor]:
            names = [name for name in arrays if name.startswith(kind)]
            return [tf.constant(arrays[f"{kind}_{index}"]) for index in range(len(names))]

        for variable, value in zip(target.frozen, tensors("frozen"), strict=True):
            variable.assign(value)
        weights = WeightSet(tensors("trainable"), tensors("state"))
        return cls(target, weights, calibrated=bool(record.get("calibrated")))
