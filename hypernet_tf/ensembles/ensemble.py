"""`Ensemble`: N sampled networks and what is done with them."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from hypernet_tf.ensembles import metrics
from hypernet_tf.targets import Target, WeightSet

# The most that activations held at once may take: half of 1 GiB, the rest is room for copies.
_ACTIVATION_BYTES = 2**29
_NETWORKS_AT_ONCE = 32


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How N classifiers and their ensemble do on M examples. Accuracies are fractions.

    Attributes:
        member_accuracy: [N].
        member_negative_log_likelihood: [N], nats.
        majority_vote_accuracy: of the class with most votes.
        mean_probability_accuracy: of the class with the highest mean probability.
        most_confident_accuracy: of the most confident network's choice.
        negative_log_likelihood: of the mean probability, nats.
        expected_calibration_error: of the mean probability, 15 bins.
        brier_score: of the mean probability, between 0 and 2.
        disagreement: mean over pairs of networks of the share of examples on which they differ; NaN for one network.
    """

    member_accuracy: np.ndarray
    member_negative_log_likelihood: np.ndarray
    majority_vote_accuracy: float
    mean_probability_accuracy: float
    most_confident_accuracy: float
    negative_log_likelihood: float
    expected_calibration_error: float
    brier_score: float
    disagreement: float


@dataclasses.dataclass(frozen=True)
class RegressionEvaluation:
    """How N regressors and their mean do on M examples.

    Attributes:
        member_mean_squared_error: [N].
        mean_squared_error: of the mean prediction.
        standard_deviation: of the predictions over networks, averaged over examples.
    """

    member_mean_squared_error: np.ndarray
    mean_squared_error: float
    standard_deviation: float


class Ensemble:
    """N networks of one target: their weights, and what can be asked of them.

    Args:
        target: the `Target`.
        weights: the weight set of N networks.

    Example:
        >>> ensemble = hyper.sample(200, seed=0)
        >>> ensemble.evaluate(x_test, y_test).majority_vote_accuracy
        >>> network = ensemble[0].to_keras()
        >>> ensemble.save("ensemble.npz"); Ensemble.load("ensemble.npz")
    """

    def __init__(self, target: Target, weights: WeightSet):
        self.target = target
        self.weights = WeightSet(list(weights.trainable), list(weights.state))
        self._calibrated = not target.statistics

    def __len__(self) -> int:
        """N."""
        return self.weights.trainable[0].shape[0]

    def __getitem__(self, index: int | slice) -> Ensemble:
        """Some of the networks, as an ensemble; an integer gives an ensemble of one."""
        if isinstance(index, int):
            if not -len(self) <= index < len(self):
                raise IndexError(f"network {index} of {len(self)}")
            index = slice(index % len(self), index % len(self) + 1)
        part = tf.nest.map_structure(lambda t: t[index], self.weights)
        if not part.trainable[0].shape[0]:
            raise IndexError("no network in this slice")
        chosen = Ensemble(self.target, part)
        chosen._calibrated = self._calibrated
        return chosen

    def __iter__(self) -> Iterator[Ensemble]:
        """The networks, each as an ensemble of one."""
        return (self[index] for index in range(len(self)))

    def theta(self) -> np.ndarray:
        """[N, D]: the weights of each network as one vector."""
        return self.target.flatten(self.weights).numpy()

    # ---- running --------------------------------------------------------------------------

    def _outputs(self, x: Any, batch_size: int | None, verbose: int) -> Iterator:
        """Yields (first example, outputs [N, b, ...]) over chunks of examples.

        Chunks all have one shape, so that one graph is traced: the last ones overlap those before.
        """
        if not self._calibrated:
            raise ValueError(
                "these networks have batch normalisation whose moving statistics nobody computed: "
                "call ensemble.calibrate(x_train) first"
            )
        inputs = keras.tree.map_structure(np.asarray, x)
        size = len(keras.tree.flatten(inputs)[0])
        if size == 0:
            raise ValueError("there are no examples to run on")
        networks, examples = self._chunks(batch_size, size)
        run = tf.function(lambda weights, images: self.target(weights, images))
        starts = range(0, len(self), networks)
        parts = []
        for start in starts:
            start = min(start, len(self) - networks)
            parts.append(
                tf.nest.map_structure(lambda t, s=start: t[s : s + networks], self.weights)
            )
        with tqdm(
            total=len(parts) * -(-size // examples),
            disable=not verbose,
            desc="networks",
            leave=False,
        ) as bar:
            for first in range(0, size, examples):
                begin = min(first, size - examples)
                images = keras.tree.map_structure(
                    lambda t, b=begin: tf.constant(t[b : b + examples]), inputs
                )
                outputs = []
                for start, part in zip(starts, parts, strict=True):
                    new = max(0, start + networks - len(self))  # computed by the chunk before
                    answer = run(part, images)
                    outputs.append(
                        keras.tree.map_structure(
                            lambda t, n=new, f=first - begin: t.numpy()[n:, f:], answer
                        )
                    )
                    bar.update()
                yield first, keras.tree.map_structure(lambda *t: np.concatenate(t), *outputs)

    def _chunks(self, batch_size: int | None, size: int) -> tuple[int, int]:
        """How many networks and examples run at once."""
        each = self.target.activations_per_example * 4
        budget = max(1, _ACTIVATION_BYTES // each)  # networks x examples
        parts = -(-len(self) // min(_NETWORKS_AT_ONCE, budget))
        networks = -(-len(self) // parts)
        examples = batch_size or min(512, max(1, budget // networks))
        return networks, min(examples, size)

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

    def _log_probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """[N, b, C] in nats; one column is the second of two classes."""
        tensor = tf.constant(outputs)
        if self.target.outputs == "logits":
            if tensor.shape[-1] == 1:
                tensor = tf.concat([-tensor, tensor], -1)
                return tf.math.log_sigmoid(tensor).numpy()
            return tf.nn.log_softmax(tensor).numpy()
        if tensor.shape[-1] == 1:
            tensor = tf.concat([1.0 - tensor, tensor], -1)
        return tf.math.log(tf.maximum(tensor, np.finfo(np.float32).tiny)).numpy()

    def log_probabilities(
        self, x: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> np.ndarray:
        """log p of each class by each network, [N, M, C], in nats.

        Raises:
            ValueError: the target returns values, not classes.
        """
        self._need_classes("log-probabilities")
        parts = [self._log_probabilities(o) for _, o in self._outputs(x, batch_size, verbose)]
        return np.concatenate(parts, 1)

    def majority_vote(
        self, x: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> np.ndarray:
        """The class with most votes, [M].

        Raises:
            ValueError: the target returns values, which cannot be voted on.
        """
        self._need_classes("a vote")
        parts = [
            metrics.majority_vote(self._log_probabilities(o).argmax(-1), self.target.classes)
            for _, o in self._outputs(x, batch_size, verbose)
        ]
        return np.concatenate(parts)

    def _need_classes(self, what: str) -> None:
        if self.target.classes is None:
            raise ValueError(
                f"{what} needs classes, but the target returns values: use predict(), or say "
                "Target(model, outputs='logits')"
            )

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
        y = np.asarray(y)
        if len(y) != len(keras.tree.flatten(x)[0]):
            raise ValueError(f"{len(y)} labels for {len(keras.tree.flatten(x)[0])} examples")
        if self.target.classes is None:
            return self._evaluate_values(x, y, batch_size, verbose)
        labels = self._labels(y)
        correct = np.zeros(len(self))
        likelihood = np.zeros(len(self))
        means, confident, voted, differing = [], [], [], 0.0
        for first, outputs in self._outputs(x, batch_size, verbose):
            log_p = self._log_probabilities(outputs)
            part = labels[first : first + log_p.shape[1]]
            predictions = log_p.argmax(-1)
            correct += (predictions == part).sum(1)
            likelihood += metrics.negative_log_likelihood(log_p, part) * len(part)
            means.append(metrics.mean_log_probabilities(log_p))
            confident.append(metrics.most_confident(log_p))
            voted.append(metrics.majority_vote(predictions, self.target.classes))
            if len(self) > 1:
                differing += metrics.disagreement(predictions, self.target.classes) * len(part)
        mean = np.concatenate(means)
        return Evaluation(
            member_accuracy=correct / len(labels),
            member_negative_log_likelihood=likelihood / len(labels),
            majority_vote_accuracy=float(np.mean(np.concatenate(voted) == labels)),
            mean_probability_accuracy=float(np.mean(mean.argmax(-1) == labels)),
            most_confident_accuracy=float(np.mean(np.concatenate(confident) == labels)),
            negative_log_likelihood=float(metrics.negative_log_likelihood(mean, labels)),
            expected_calibration_error=metrics.expected_calibration_error(mean, labels),
            brier_score=metrics.brier_score(mean, labels),
            disagreement=differing / len(labels) if len(self) > 1 else float("nan"),
        )

    def _labels(self, y: np.ndarray) -> np.ndarray:
        classes = self.target.classes
        if y.ndim == 2 and y.shape[1] == classes and classes > 1:
            y = y.argmax(-1)
        labels = y.reshape(-1).astype(np.int64)
        if len(labels) != len(y) or labels.min() < 0 or labels.max() >= classes:
            raise ValueError(f"labels are integers from 0 to {classes - 1}, one per example")
        return labels

    def _evaluate_values(self, x, y, batch_size, verbose) -> RegressionEvaluation:
        errors, mean_error, spread = np.zeros(len(self)), 0.0, 0.0
        for first, outputs in self._outputs(x, batch_size, verbose):
            size = outputs.shape[1]
            part = y[first : first + size].reshape(outputs.shape[1:])
            errors += ((outputs - part) ** 2).reshape(len(self), -1).mean(1) * size
            mean_error += ((outputs.mean(0) - part) ** 2).mean() * size
            spread += outputs.std(0).mean() * size
        return RegressionEvaluation(errors / len(y), mean_error / len(y), spread / len(y))

    def calibrate(self, x: Any, *, batch_size: int = 100) -> Ensemble:
        """The same networks with batch norm's moving statistics computed on x in one pass.

        Each network's statistics are the mean over batches of its own batch means and variances.

        Args:
            x: inputs [M, ...], typically the training images.
            batch_size: B of these statistics; a last short batch counts by its size.

        Returns:
            A new ensemble. One without batch normalisation is returned as it is.
        """
        statistics = self.target.statistics
        if not statistics:
            return self
        inputs = keras.tree.map_structure(np.asarray, x)
        size = len(keras.tree.flatten(inputs)[0])
        totals = [tf.zeros_like(self.weights.state[index]) for index, _ in statistics]
        state = list(self.weights.state)
        for index, _ in statistics:
            # From zero, one update leaves (1 - momentum) · statistic of the batch.
            state[index] = tf.zeros_like(state[index])
        blank = WeightSet(self.weights.trainable, state)
        run = tf.function(lambda images: self.target.run(blank, images, batch_statistics=True)[1])
        for first in range(0, size, batch_size):
            images = keras.tree.map_structure(
                lambda t, f=first: tf.constant(t[f : f + batch_size]), inputs
            )
            new = run(images)
            share = len(keras.tree.flatten(images)[0]) / size
            totals = [
                total + share * new[index] / (1.0 - momentum)
                for total, (index, momentum) in zip(totals, statistics, strict=True)
            ]
        for (index, _), total in zip(statistics, totals, strict=True):
            state[index] = total
        calibrated = Ensemble(self.target, WeightSet(self.weights.trainable, state))
        calibrated._calibrated = True
        return calibrated

    # ---- keeping --------------------------------------------------------------------------

    def to_keras(self) -> keras.Model:
        """The one network as an ordinary Keras model.

        Raises:
            ValueError: there are several networks.
        """
        if len(self) != 1:
            raise ValueError(f"one of the {len(self)} networks: ensemble[0].to_keras()")
        return self.target.to_keras(self.weights)

    def save(self, path: str | os.PathLike) -> None:
        """Write weights and target to one .npz file (no pickle), aside and then moved into place."""
        path = pathlib.Path(path)
        arrays = {f"trainable_{i}": t.numpy() for i, t in enumerate(self.weights.trainable)}
        arrays |= {f"state_{i}": t.numpy() for i, t in enumerate(self.weights.state)}
        config = keras.saving.serialize_keras_object(self.target)
        text = json.dumps({"target": config, "calibrated": self._calibrated})
        arrays["config"] = np.frombuffer(text.encode(), np.uint8)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(file, **arrays)
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise

    @classmethod
    def load(cls, path: str | os.PathLike) -> Ensemble:
        """Read what `save` wrote; nothing in the file is executed.

        Raises:
            ValueError: the file is not a saved ensemble, or is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            saved = json.loads(arrays["config"].tobytes())
        except (KeyError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise ValueError(f"{path} is not a saved ensemble, or is damaged: {error}") from error
        target = keras.saving.deserialize_keras_object(saved["target"])

        def tensors(kind: str) -> list[tf.Tensor]:
            names = [name for name in arrays if name.startswith(kind)]
            return [tf.constant(arrays[f"{kind}_{index}"]) for index in range(len(names))]

        ensemble = cls(target, WeightSet(tensors("trainable"), tensors("state")))
        ensemble._calibrated = saved["calibrated"]
        return ensemble
