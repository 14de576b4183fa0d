"""`Ensemble`: N sampled networks, and what can be computed with them."""

from __future__ import annotations

import functools
import math
import operator
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.checks import check_number
from hypernet_tf.ensembles import export, inference, io
from hypernet_tf.ensembles.evaluation import (
    Evaluation,
    evaluate,
    evaluate_choices,
    integer_labels,
    numeric_values,
)
from hypernet_tf.ensembles.examples import Chunk, Examples, check_inputs
from hypernet_tf.ensembles.temperature import best_temperature
from hypernet_tf.gauge import Gauge
from hypernet_tf.metrics.accuracy import concatenated, majority_vote, mean_log_probabilities
from hypernet_tf.metrics.uncertainty import (
    Predictions,
    Uncertainty,
    measure_uncertainty,
    uncertainty_in_graph,
)
from hypernet_tf.targets import Target, WeightSet
from hypernet_tf.targets.weights import normalization_constants, weights_of

# Outputs of all networks that are in memory at once: 64 MiB in float32, and a few times as much for
# what is computed from them. Of small outputs this is more than run at once anyway.
_OUTPUTS_AT_ONCE = 2**24
_EXAMPLES_AT_ONCE = 512
_BFLOAT16 = tf.bfloat16.as_numpy_dtype


class Ensemble:
    """N networks of one target: their weights, and what can be computed with them.

    Inputs `x` of its methods are arrays [M, ...], structured as the model's inputs, or a data set:
    a `tf.data.Dataset` or a `keras.utils.PyDataset` whose batches are x, (x,), (x, y) or
    (x, y, sample_weight).

    Args:
        target: Target of the networks.
        weights: Weight set of N networks.
        batch_norm_updated: Whether batch norm's moving statistics in the weight set, if there are
            any, are those of these networks.
        temperature: T > 0 at which the networks' probabilities are computed, see `calibrate`; 1
            leaves them as they are.

    Raises:
        ValueError: The temperature is not above 0, or is not 1 and the target returns values.

    Example:
        >>> ensemble = hyper.sample(200, seed=0)
        >>> ensemble.evaluate(x_test, y_test).majority_vote_accuracy
        >>> network = ensemble[0].to_keras()
        >>> ensemble.save("ensemble.npz")
        >>> ensemble = Ensemble.load("ensemble.npz")
    """

    def __init__(
        self,
        target: Target,
        weights: WeightSet,
        *,
        batch_norm_updated: bool = False,
        temperature: float = 1.0,
    ):
        check_number("temperature", temperature)
        if temperature != 1.0:
            target.require_choices("a temperature")
        self.target = target
        self.weights = WeightSet(list(weights.trainable), list(weights.state))
        self.temperature = float(temperature)
        self._batch_norm_updated = batch_norm_updated or not target.statistics

    def __len__(self) -> int:
        """N."""
        return self.weights.trainable[0].shape[0]

    def __getitem__(self, index: int | slice) -> Ensemble:
        """Some of the networks, as an ensemble; an integer gives an ensemble of one."""
        if not isinstance(index, slice):
            number = operator.index(index)
            if not -len(self) <= number < len(self):
                raise IndexError(f"There is no network {number}: this ensemble has {len(self)}.")
            index = slice(number % len(self), number % len(self) + 1)
        part = tf.nest.map_structure(lambda t: t[index], self.weights)
        if not part.trainable[0].shape[0]:
            raise IndexError("There is no network in this slice.")
        return self._like(part)

    def __iter__(self) -> Iterator[Ensemble]:
        """The networks, each as an ensemble of one."""
        return (self[index] for index in range(len(self)))

    def _like(self, weights: WeightSet, **changes: Any) -> Ensemble:
        options = {
            "batch_norm_updated": self._batch_norm_updated,
            "temperature": self.temperature,
        }
        return Ensemble(self.target, weights, **options | changes)

    @classmethod
    def concatenate(cls, ensembles: Sequence[Ensemble]) -> Ensemble:
        """The networks of several ensembles as one, which may come from different samplers.

        Args:
            ensembles: Ensembles of networks of one architecture. The networks run by the target of
                the first; shapes and the kind of outputs are compared, activations are not.

        Raises:
            ValueError: There are no ensembles; or their weights differ in shape or data type, their
                outputs in kind, their constants of `Normalization`, or their temperatures.

        Example:
            >>> together = Ensemble.concatenate([first.sample(100), second.sample(100)])
            >>> together.evaluate(x_test, y_test).majority_vote_accuracy
        """
        ensembles = [require_ensemble(one, "concatenate()") for one in ensembles]
        if not ensembles:
            raise ValueError("No ensembles to concatenate: give at least one.")
        first = ensembles[0]

        def kinds(ensemble: Ensemble) -> list[Any]:
            tensors = tf.nest.flatten(ensemble.weights)
            kinds: list[Any] = [(tensor.shape[1:].as_list(), tensor.dtype) for tensor in tensors]
            return kinds + normalization_constants(ensemble.target.plan)

        for other in ensembles[1:]:
            if kinds(other) != kinds(first):
                raise ValueError(
                    "The ensembles have weights of different shapes or data types, or a "
                    "Normalization adapted to other data: concatenate networks of one architecture."
                )
            if other.target.outputs != first.target.outputs:
                raise ValueError(
                    f"The ensembles' outputs are {first.target.outputs} and "
                    f"{other.target.outputs}: give their targets the same outputs."
                )
            if other.temperature != first.temperature:
                raise ValueError(
                    f"The ensembles have the temperatures {first.temperature:g} and "
                    f"{other.temperature:g}: concatenate them before calibrate()."
                )
        weights = tf.nest.map_structure(
            lambda *parts: tf.concat(parts, 0), *(ensemble.weights for ensemble in ensembles)
        )
        updated = all(ensemble._batch_norm_updated for ensemble in ensembles)
        return first._like(weights, batch_norm_updated=updated)

    def theta(self) -> np.ndarray:
        """Weights of each network as one vector, [N, D]."""
        return self.target.flatten(self.weights).numpy()

    # ---- running --------------------------------------------------------------------------

    def check_batch_norm(self) -> None:
        """Check that batch normalisation has the statistics of these networks.

        Raises:
            ValueError: It does not: `update_batch_norm` is needed.
        """
        if not self._batch_norm_updated:
            raise ValueError(
                "Batch normalisation has no moving statistics of these networks: use "
                "ensemble = ensemble.update_batch_norm(x_train) first."
            )

    def _run(
        self, examples: Examples, batch_size: int | None, verbose: int, target: Target | None = None
    ) -> Iterator[tuple[Any, Chunk]]:
        """Yields outputs [N, b, ...] and the examples, for consecutive chunks of examples."""
        target = target or self.target
        self.check_batch_norm()
        if batch_size is None:
            batch_size = self._examples_at_once(examples)
        begin = 0
        for outputs, chunk in inference.run(
            target, self.weights, examples, batch_size=batch_size, verbose=verbose
        ):
            require_numbers(outputs, chunk.x, logits="logits" in target.outputs, begin=begin)
            begin += chunk.size
            yield outputs, chunk

    def outputs(self, x: Any, *, batch_size: int | None = None, verbose: int = 0) -> Any:
        """Outputs of every network, [N, M, ...], structured as the model's outputs.

        Outputs are what the model returns, without the temperature.

        Args:
            x: Inputs [M, ...], the same for all networks, or a data set.
            batch_size: Number of examples that run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.
        """
        parts = [outputs for outputs, _ in self._run(Examples(x), batch_size, verbose)]
        return keras.tree.map_structure(lambda *t: concatenated(t, 1), *parts)

    def predict(self, x: Any, *, batch_size: int | None = None, verbose: int = 0) -> Any:
        """Mean over networks of probabilities (of values, for regression), [M, ...].

        Args:
            x: Inputs [M, ...] or a data set.
            batch_size: Number of examples that run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.
        """
        target = self.target if self.temperature == 1.0 else self.target.with_logits
        parts = [
            keras.tree.map_structure(
                lambda t: tf.reduce_mean(self._activated(target, tf.constant(t)), 0).numpy(),
                outputs,
            )
            for outputs, _ in self._run(Examples(x), batch_size, verbose, target)
        ]
        return keras.tree.map_structure(lambda *t: concatenated(t), *parts)

    def _activated(self, target: Target, outputs: tf.Tensor) -> tf.Tensor:
        """Probabilities, or values, in the shape of the outputs of the target that ran."""
        if self.temperature == 1.0:
            return target.activate(outputs)
        p = tf.exp(self._at_temperature(target.log_probabilities(outputs)))
        if self.target.has_labels:
            return p[..., 1]
        return p[..., 1:] if outputs.shape[-1] == 1 else p  # the second of two classes

    def log_probabilities_of(self, outputs: tf.Tensor) -> tf.Tensor:
        """Log-probabilities [N, ..., C] of outputs of the target, at the ensemble's temperature."""
        return self._at_temperature(self.target.log_probabilities(outputs))

    def _at_temperature(self, log_p: tf.Tensor) -> tf.Tensor:
        return log_p if self.temperature == 1.0 else tf.nn.log_softmax(log_p / self.temperature)

    def _logits(self, outputs: Any) -> Any:
        """Logits at the temperature; None unless there is one for each class."""
        if self.target.outputs != "logits" or outputs.shape[-1] == 1:
            return None
        if tf.as_dtype(outputs.dtype).size < 4:  # half precision, in which they would overflow
            is_array = isinstance(outputs, np.ndarray)
            outputs = outputs.astype("float32") if is_array else tf.cast(outputs, tf.float32)
        return outputs if self.temperature == 1.0 else outputs / self.temperature

    def _run_classes(
        self, examples: Examples, batch_size: int | None, verbose: int
    ) -> Iterator[tuple[np.ndarray, Chunk]]:
        """Yields log-probabilities [N, b, C] and the examples, for chunks of examples.

        They are computed from logits where there are some: a probability near 1 rounds to 1.
        """
        runs = self._run_predictions(examples, batch_size, verbose)
        return ((predicted.log_probabilities, chunk) for predicted, chunk in runs)

    def _run_predictions(
        self, examples: Examples, batch_size: int | None, verbose: int
    ) -> Iterator[tuple[Predictions, Chunk]]:
        """Yields predictions and the examples, for chunks of examples."""
        target = self.target.with_logits
        for outputs, chunk in self._run(examples, batch_size, verbose, target):
            (values,) = keras.tree.flatten(outputs)
            log_p = self._at_temperature(target.log_probabilities(tf.constant(values))).numpy()
            yield Predictions(log_p, self._logits(values)), chunk

    def predictions(
        self, x: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> Predictions:
        """Log-probabilities of every network, and its logits where it returns them.

        They are all that the scores of uncertainty need, see `hn.metrics.measure_uncertainty`.

        Args:
            x: Inputs [M, ...] or a data set.
            batch_size: Number of examples that run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Raises:
            ValueError: The target returns values, not classes.

        Example:
            >>> predicted = ensemble.predictions(x_test)
            >>> hn.metrics.energy(predicted.logits)
        """
        self.target.require_choices("predictions()")
        runs = self._run_predictions(Examples(x), batch_size, verbose)
        log_p, logits = zip(*(predicted for predicted, _ in runs), strict=True)
        return Predictions(
            concatenated(log_p, 1), None if logits[0] is None else concatenated(logits, 1)
        )

    def log_probabilities(
        self, x: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> np.ndarray:
        """Log of each class's probability by each network, [N, M, C], in nats.

        Where each example has several choices, [N, M, L, 2], [N, M, height, width, C] or
        [N, M, height, width, L, 2].

        They are computed from the logits of a last softmax or sigmoid. Of other probabilities, one
        of 0 counts as 1.2e-38, the smallest normal float32.

        Args:
            x: Inputs [M, ...] or a data set.
            batch_size: Number of examples that run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Raises:
            ValueError: The target returns values, not classes.
        """
        self.target.require_choices("log-probabilities")
        runs = self._run_classes(Examples(x), batch_size, verbose)
        return concatenated([log_p for log_p, _ in runs], 1)

    def mean_log_probabilities(
        self, x: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> np.ndarray:
        """Log of each class's mean probability, [M, C], in nats: log(1/N · sum_n p_n).

        As `log_probabilities`, without the networks' own.

        Args:
            x: Inputs [M, ...] or a data set.
            batch_size: Number of examples that run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Raises:
            ValueError: The target returns values, not classes.
        """
        self.target.require_choices("log-probabilities")
        runs = self._run_classes(Examples(x), batch_size, verbose)
        return concatenated([mean_log_probabilities(log_p) for log_p, _ in runs])

    def majority_vote(
        self, x: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> np.ndarray:
        """Class that most networks choose, [M]; the lowest class where several have as many votes.

        Args:
            x: Inputs [M, ...] or a data set.
            batch_size: Number of examples that run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Raises:
            ValueError: The target returns values, several labels, or a class for each pixel.
        """
        num_classes = self.target.require_classes("a vote")
        runs = self._run_classes(Examples(x), batch_size, verbose)
        return np.concatenate([majority_vote(log_p.argmax(-1), num_classes) for log_p, _ in runs])

    # ---- evaluation -----------------------------------------------------------------------

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        batch_size: int | None = None,
        verbose: int = 0,
    ) -> Evaluation:
        """Evaluate the networks and their ensemble on labelled examples.

        Measures are means over examples, weighted by their sample weights if there are any; only
        their ratios count. `adaptive_calibration_error` is not defined for weights that differ: it
        is then NaN, and None in `summary()`. Choices and values that a Keras mask leaves out
        (padded steps of sequences) do not count, and then measures are means over steps.

        Args:
            x: Inputs [M, ...], or a data set of (x, y) or (x, y, sample_weight).
            y: Integer labels [M] (or [M, 1], or one-hot [M, C]); for several labels 0 or 1
                [M, L], or [M, height, width, L] for those of pixels; for class maps integers
                [M, height, width] (or one-hot); for regression values [M, ...]. None for a data
                set.
            sample_weight: Sample weights [M], at least 0, or [M, ...] of the choices or steps of
                each example; None for equal weights or a data set. The labels of choices, and
                values of steps, of weight 0 may be anything.
            batch_size: Number of examples that run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Returns:
            An `Evaluation` with the measures of the target's task.

        Raises:
            ValueError: Labels are missing, out of range, or not as many as examples; or the target
                has several outputs.
        """
        if len(keras.tree.flatten(self.target.plan.outputs)) != 1:
            raise ValueError("evaluate() needs a target with one output: use predict().")
        if self.target.classes is None:
            examples = self._labelled(x, y, sample_weight, numeric_values)
            runs = self._run(examples, batch_size, verbose)
            return evaluate(((keras.tree.flatten(o)[0], chunk) for o, chunk in runs), None)
        num_classes = self.target.require_choices("evaluate()")
        examples = self._labelled(x, y, sample_weight, self._integer_labels())
        if self.target.choices_shape:
            runs = self._run_classes(examples, batch_size, verbose)
            return evaluate_choices(runs, num_classes)
        return evaluate(self._run_classes(examples, batch_size, verbose), num_classes)

    def _labelled(
        self, x: Any, y: Any, sample_weight: Any, labels: Callable[..., np.ndarray]
    ) -> Examples:
        """Examples with labels of the one output; what its Keras mask leaves out has weight 0."""
        target = self.target
        outputs = target.plan.outputs
        names = list(outputs) if isinstance(outputs, dict) else target.output_names
        return Examples(
            x,
            y,
            sample_weight,
            labels=labels,
            choices=target.classes is None or bool(target.choices_shape),
            masks=functools.partial(_mask, target) if target.has_masks else None,
            output_name=names[0],
        )

    def _integer_labels(self) -> Callable[..., np.ndarray]:
        num_classes = self.target.require_choices("labels")
        shape = self.target.choices_shape
        return functools.partial(integer_labels, num_classes=num_classes, shape=shape)

    def _examples_at_once(self, examples: Examples) -> int | None:
        """Number of examples whose outputs [N, b, ...] stay small; None where they are anyway."""
        plan, longest = self.target.plan, 1
        shapes = [plan.shapes[ref] for ref in keras.tree.flatten(plan.outputs)]
        if any(None in shape for shape in shapes):
            first = next(iter(examples), None)
            longest = 1 if first is None else self.target.longest_open_axis(first.x)
        each = sum(math.prod(size or longest for size in shape) for shape in shapes)
        if self.target.has_labels or (self.target.classes == 2 and shapes[0][-1] == 1):
            each *= 2  # both choices of each column
        count = max(1, _OUTPUTS_AT_ONCE // (len(self) * each))
        return count if count < _EXAMPLES_AT_ONCE else None

    def uncertainty(
        self, x: Any, *, batch_size: int | None = None, verbose: int = 0
    ) -> Uncertainty:
        """Scores of the networks' uncertainty about each example, each label or each pixel.

        Args:
            x: Inputs [M, ...] or a data set.
            batch_size: Number of examples that run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Raises:
            ValueError: The target returns values, not classes.

        Example:
            >>> uncertain = ensemble.uncertainty(x_test).entropy > 0.5
            >>> id_scores, ood_scores = (ensemble.uncertainty(x).entropy for x in (x_test, x_ood))
            >>> ood_metrics(id_scores, ood_scores).auroc
        """
        self.target.require_choices("uncertainty")
        runs = self._run_predictions(Examples(x), batch_size, verbose)
        return measure_uncertainty(predicted for predicted, _ in runs)

    # ---- other ensembles ------------------------------------------------------------------

    def calibrate(
        self,
        x: Any,
        y: Any = None,
        *,
        sample_weight: Any = None,
        batch_size: int | None = None,
        verbose: int = 0,
    ) -> Ensemble:
        """Temperature scaling: the same networks, with probabilities at the best temperature.

        At temperature T, network n gives class c the probability

            p_nc(T) = p_nc^(1/T) / sum_k p_nk^(1/T),

        which for logits is softmax(logits / T). The temperature minimises the negative
        log-likelihood of the mean prediction 1/N sum_n p_n(T) on the given examples, which should
        be neither training nor test examples. It is between 0.01 and 100, and one for all networks.
        The classes that single networks choose do not change.

        Holds the log-probabilities [N, M, C] of all examples in memory.

        Args:
            x: Inputs [M, ...], or a data set of (x, y) or (x, y, sample_weight).
            y: Labels [M], see `evaluate`; None for a data set.
            sample_weight: Sample weights [M] or [M, ...], see `evaluate`; None for equal weights or
                a data set.
            batch_size: Number of examples that run at once; None keeps activations under 1 GiB.
            verbose: 1 shows a progress bar.

        Returns:
            A new ensemble; its `temperature` is T.

        Raises:
            ValueError: The target returns values; or labels are missing, out of range, or not as
                many as examples.

        Example:
            >>> calibrated = ensemble.calibrate(x_validation, y_validation)
            >>> calibrated.temperature, calibrated.evaluate(x_test, y_test).negative_log_likelihood

        Reference: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2.
        """
        self.target.require_choices("calibrate()")
        examples = self._labelled(x, y, sample_weight, self._integer_labels())
        plain = self._like(self.weights, temperature=1.0)
        runs = list(plain._run_classes(examples, batch_size, verbose))
        return self._like(self.weights, temperature=best_temperature(runs, self.temperature))

    def update_batch_norm(self, x: Any, *, batch_size: int = 100, verbose: int = 0) -> Ensemble:
        """The same networks with batch norm's moving statistics computed in one pass over x.

        The statistics of a network are the means over batches of its batch means and variances.
        Batches of arrays are drawn in a random order that is always the same, so that arrays may be
        sorted by class; those of a data set are in its order.

        Args:
            x: Inputs [M, ...] or a data set, typically the training images.
            batch_size: B, the number of examples in a batch, also of a data set. A last, short
                batch counts by its size.
            verbose: 1 shows a progress bar.

        Returns:
            A new ensemble; the same one if it has no batch normalisation.
        """
        if not self.target.statistics:
            return self
        weights = inference.batch_statistics(
            self.target, self.weights, Examples(x), batch_size, verbose=verbose
        )
        return self._like(weights, batch_norm_updated=True)

    def polyak_average(
        self,
        x: Any = None,
        *,
        gauge: Callable[[WeightSet], WeightSet] | None = None,
        batch_size: int = 100,
    ) -> Ensemble:
        """The network whose weights are the mean of the networks': 1/N sum_n gauge(theta_n).

        Networks that compute the same function may have different weights, whose mean computes
        another function. The mean is therefore taken in one gauge. It is not gauged again, which
        would not change its outputs. State that is not trained (frozen layers) is that of the first
        network; the temperature is 1.

        Args:
            x: Inputs [M, ...] or a data set, typically the training images, on which batch norm's
                moving statistics are computed. Not used by targets without batch norm. If None, a
                network with batch norm needs `update_batch_norm` before it runs.
            gauge: A `Gauge` of the ensemble's target, or any function of a weight set; None is
                `Gauge(target)`.
            batch_size: B of batch norm's statistics; see `update_batch_norm`.

        Returns:
            An ensemble of one.

        Raises:
            ValueError: The networks differ in dropout masks that are not part of their weights.

        Example:
            >>> average = ensemble.polyak_average(x_train)
            >>> average.evaluate(x_test, y_test).member_accuracy
            >>> average.to_keras().save("average.keras")

        Reference: Polyak and Juditsky 1992, "Acceleration of Stochastic Approximation by
        Averaging", over ancestral samples as in Deutsch, Nijkamp, Yang (2019).
        """
        require_weights_only(self, "average")
        gauged = (gauge or Gauge(self.target))(self.weights)
        # In float64 the mean of equal networks is that network.
        mean = [
            tf.cast(tf.reduce_mean(tf.cast(t, tf.float64), 0, keepdims=True), t.dtype)
            for t in gauged.trainable
        ]
        average = Ensemble(self.target, WeightSet(mean, [t[:1] for t in gauged.state]))
        return average if x is None else average.update_batch_norm(x, batch_size=batch_size)

    # ---- saving ---------------------------------------------------------------------------

    def to_keras(self) -> keras.Model:
        """The one network as an ordinary Keras model.

        The model returns what `outputs` returns: divide its logits by `ensemble.temperature` for
        the probabilities of a calibrated ensemble.

        Raises:
            ValueError: There are several networks, or batch norm's statistics are not updated.
        """
        if len(self) != 1:
            raise ValueError(
                f"A Keras model holds 1 network, this ensemble has {len(self)}: take one of them, "
                "ensemble[0].to_keras()."
            )
        self.check_batch_norm()
        return self.target.to_keras(self.weights)

    def export(self, path: str | os.PathLike) -> None:
        """Write the networks as a TensorFlow SavedModel, which runs without this package.

        Its signature `serving_default` takes inputs [M, ...]: a single input has the name `inputs`,
        several have the names of the model's inputs. For classes it returns, by name, what
        `predict` returns as `probabilities`, and the scores of `Uncertainty`, [M] or [M, ...].
        Otherwise it returns the `mean` of the values over networks and their
        `standard_deviation`; for several outputs `mean_0`, `standard_deviation_0`, `mean_1` and so
        on. The temperature of the ensemble is applied. The networks run one after the other.

        Args:
            path: Folder of the SavedModel; what it holds is replaced. TensorFlow Serving takes
                the folder of a model, in which each version has a folder named by a number.

        Raises:
            ValueError: Batch norm's statistics are not updated.

        Example:
            >>> ensemble.export("models/digits/1")
            >>> loaded = tf.saved_model.load("models/digits/1")
            >>> scores = loaded.signatures["serving_default"](inputs=tf.constant(x_test))
            >>> scores["probabilities"], scores["mutual_information"]
        """
        self.check_batch_norm()
        export.write(path, self.target.with_logits, self.weights, self._answers)

    def _answers(self, outputs: Any) -> dict[str, tf.Tensor]:
        """What an exported ensemble returns, from outputs [N, M, ...] of `target.with_logits`."""
        flat, target = keras.tree.flatten(outputs), self.target.with_logits
        if self.target.classes is not None:
            probabilities = tf.reduce_mean(self._activated(target, flat[0]), 0)
            log_p = self._at_temperature(target.log_probabilities(flat[0]))
            scores = uncertainty_in_graph(log_p, self._logits(flat[0]))
            return {"probabilities": probabilities} | scores
        answers = {}
        for index, values in enumerate(self._activated(target, one) for one in flat):
            suffix = "" if len(flat) == 1 else f"_{index}"
            answers[f"mean{suffix}"] = tf.reduce_mean(values, 0)
            answers[f"standard_deviation{suffix}"] = tf.math.reduce_std(values, 0)
        return answers

    @classmethod
    def from_keras(cls, target: Target, model: keras.Model) -> Ensemble:
        """An ordinary Keras model, its weights and statistics, as an ensemble of one.

        Args:
            target: Target with the architecture of the model, for example `Target(model)`.
            model: Trained model.

        Raises:
            ValueError: The model's weights do not have the shapes of the target's.
        """
        return cls(target, weights_of(target, model), batch_norm_updated=True)

    def save(self, path: str | os.PathLike) -> None:
        """Write weights, target and temperature to one .npz file (no pickle).

        The file is written aside, then moved into place.

        Args:
            path: Path of the file, in a folder that is there.

        Raises:
            FileNotFoundError: There is no such folder.
        """
        if not (folder := pathlib.Path(path).parent).is_dir():
            raise FileNotFoundError(f"Cannot save to {path}: there is no folder {folder}.")
        io.write(path, *self._contents())

    def __reduce__(self) -> tuple:
        """For other processes: the contents of a file of `save`, with which `load` is safe."""
        buffer = BytesIO()
        io.pack(buffer, *self._contents())
        return Ensemble._from_bytes, (buffer.getvalue(),)

    def __deepcopy__(self, memo: dict) -> Ensemble:
        """Itself: neither an ensemble nor its target ever changes."""
        return self

    def _contents(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """What a file holds: arrays by name, and a configuration."""
        frozen = [variable.value for variable in self.target.frozen]
        tensors = {"trainable": self.weights.trainable, "state": self.weights.state}
        arrays = {
            f"{kind}_{index}": tensor.numpy()
            for kind, parts in (tensors | {"frozen": frozen}).items()
            for index, tensor in enumerate(parts)
        }
        # NumPy's files know no bfloat16, all of whose numbers float32 has.
        half = [name for name, array in arrays.items() if array.dtype == _BFLOAT16]
        arrays |= {name: arrays[name].astype(np.float32) for name in half}
        config = {
            "bfloat16": half,
            "target": keras.saving.serialize_keras_object(self.target),
            "batch_norm_updated": self._batch_norm_updated,
            "temperature": self.temperature,
        }
        return arrays, config

    @classmethod
    def load(cls, path: str | os.PathLike) -> Ensemble:
        """Read a file that `save` wrote; no code in it is executed.

        Args:
            path: Path of the file.

        Raises:
            OSError: The file cannot be opened.
            ValueError: The file is not a saved ensemble, or is damaged; or its target has a layer
                that would execute code (Lambda).
        """
        return cls._of_contents(str(path), *io.read(path))

    @classmethod
    def _from_bytes(cls, contents: bytes) -> Ensemble:
        name = "What another process sent"
        return cls._of_contents(name, *io.unpack(BytesIO(contents), name))

    @classmethod
    def _of_contents(
        cls, name: str, arrays: dict[str, np.ndarray], config: dict[str, Any]
    ) -> Ensemble:
        """The ensemble of `_contents`; `name` is that of the file, for an error."""
        try:
            target = keras.saving.deserialize_keras_object(config.get("target"))
        except TypeError as error:
            raise ValueError(
                f"{name} was written by another version of hypernet_tf, or of a class of yours: "
                "load it with that one."
            ) from error
        if not isinstance(target, Target):
            raise ValueError(f"{name} is not a saved ensemble: it has no target.")

        arrays |= {key: arrays[key].astype(_BFLOAT16) for key in config.get("bfloat16", ())}

        def tensors(kind: str) -> list[tf.Tensor]:
            count = sum(key.startswith(kind) for key in arrays)
            return [tf.constant(arrays[f"{kind}_{index}"]) for index in range(count)]

        for variable, value in zip(target.frozen, tensors("frozen"), strict=True):
            variable.assign(value)
        return cls(
            target,
            WeightSet(tensors("trainable"), tensors("state")),
            batch_norm_updated=bool(config.get("batch_norm_updated")),
            temperature=config.get("temperature", 1.0),
        )


def require_weights_only(ensemble: Ensemble, what: str) -> None:
    """Check that networks are what their weights say.

    Args:
        ensemble: The networks.
        what: What cannot be done with others, for the error.

    Raises:
        ValueError: Masks of dropout, one for each network, are not part of the weights.
    """
    if any(getattr(one, "masks_networks", False) for one in ensemble.target.plan.operations):
        raise ValueError(
            f"Cannot {what} networks that differ in dropout masks which are not part of their "
            "weights: give networks of another sampler."
        )


def require_ensemble(value: Any, what: str) -> Ensemble:
    """The value, if it is an ensemble.

    Args:
        value: Object to check.
        what: What needs it, for the error.

    Raises:
        ValueError: It is something else, such as a sampler.
    """
    if not isinstance(value, Ensemble):
        raise ValueError(
            f"{what} needs an ensemble, as sampler.sample(10), not a {type(value).__name__}."
        )
    return value


def _mask(target: Target, x: Any) -> Any:
    (mask,) = keras.tree.flatten(target.output_masks(x))
    return mask


class NotFiniteError(ValueError):
    """Networks return NaN or infinity; the message is one line that says how many do."""


def require_finite_weights(theta: np.ndarray) -> None:
    """Check that the weights [N, D] of networks are numbers.

    Raises:
        ValueError: Some are NaN or infinite.
    """
    broken = np.flatnonzero(~np.isfinite(theta).all(1))
    if len(broken):
        raise ValueError(
            f"{len(broken)} of {len(theta)} networks have weights that are NaN or infinite, the "
            f"first of them number {broken[0]}: leave them out."
        )


def require_numbers(outputs: Any, x: Any, *, logits: bool = False, begin: int = 0) -> None:
    """Check that inputs are finite, and that networks return numbers.

    Args:
        outputs: Outputs [N, b, ...] of the networks.
        x: Their inputs [b, ...].
        logits: Whether outputs are logits, of which -infinity is one: a probability of 0.
        begin: Number of the first input among all that are run.

    Raises:
        ValueError: An input is not finite.
        NotFiniteError: Networks return NaN or infinity.
    """
    check_inputs(x, begin)
    infinite = np.isposinf if logits else np.isinf
    for values in keras.tree.flatten(outputs):
        rows = values.reshape(len(values), -1)
        broken = np.flatnonzero((np.isnan(rows) | infinite(rows)).any(1))
        if len(broken):
            raise NotFiniteError(
                f"{len(broken)} of {len(values)} networks return NaN or infinity, the first of "
                f"them number {broken[0]}: train again with a smaller learning rate."
            )
