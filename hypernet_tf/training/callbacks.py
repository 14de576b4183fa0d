"""What happens between training steps: checks, validation, records, checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from hypernet_tf.data import Split
from hypernet_tf.ensembles.ensemble import Ensemble, Evaluation, NotFiniteError
from hypernet_tf.metrics.measures import MEASURES, main_measures
from hypernet_tf.samplers.optimizers import plain_optimizers
from hypernet_tf.samplers.weight_measures import weight_measures
from hypernet_tf.training.checkpoints import Checkpoints
from hypernet_tf.training.progress import progress_bar
from hypernet_tf.training.tensorboard import TensorBoardWriter

# The measures of training in the progress line.
PROGRESS_OF_TRAINING = ("loss", "accuracy_loss", "learning_rate", "lam")


class TrainingDivergedError(ArithmeticError):
    """A loss, a weight or an output is not finite; the message is one line that names the step."""


class HaltOnNaN(keras.callbacks.Callback):
    """Stops as soon as the loss of a step or a weight is not finite, before anything is written."""

    def on_train_begin(self, logs=None):
        """Make the check of the weights, which takes a small part of a step."""

        @tf.function(autograph=False)
        def finite() -> tf.Tensor:
            weights = self.model.trainable_variables
            return tf.reduce_all([tf.reduce_all(tf.math.is_finite(w)) for w in weights])

        self._finite = finite

    def on_train_batch_end(self, batch, logs=None):
        """Check loss and weights; a running mean is not finite from the bad step on."""
        step = int(self.model.step.numpy())
        if not math.isfinite(logs["loss"]):
            raise TrainingDivergedError(f"The loss became {logs['loss']} at step {step}.")
        if not self._finite():
            raise TrainingDivergedError(f"A weight stopped being finite at step {step}.")


class TrainingStoppedError(KeyboardInterrupt):
    """Ctrl-C in the middle of training; the message is one line that says what is kept."""


class Validated(NamedTuple):
    """A validation.

    Attributes:
        ensemble: The networks.
        result: Their evaluation on the validation images.
        of_weights: The measures of their weights, by key.
        watched: Their evaluation on other images that are watched, or None.
        seconds: Duration of the validation.
    """

    ensemble: Ensemble
    result: Evaluation
    of_weights: dict[str, float | None]
    watched: Evaluation | None
    seconds: float


class Validation(keras.callbacks.Callback):
    """Every so many steps, samples an ensemble and evaluates it on held-out images.

    Args:
        split: Validation images.
        num_networks: Number of networks; of a finite sampler at most all that it holds by then.
        every: Number of steps between validations; the last step has one too.
        last: The last step.
        watched: Other images, on which the same networks are evaluated; or None.
        verbose: Whether to show progress.
    """

    def __init__(
        self,
        split: Split,
        *,
        num_networks: int,
        every: int,
        last: int,
        watched: Split | None = None,
        verbose: bool = False,
    ):
        super().__init__()
        self.split = split
        self.watched = watched
        self.num_networks = num_networks
        self.every = every
        self.last = last
        self.verbose = int(verbose)
        self.latest: Validated | None = None

    def on_train_batch_end(self, batch, logs=None):
        """Evaluate if it is time; `latest` is None between validations.

        Raises:
            TrainingDivergedError: Networks return NaN or infinity.
        """
        step = int(self.model.step.numpy())
        self.latest = None
        if step % self.every == 0 or step == self.last:
            try:
                self.latest = self._validated()
            except NotFiniteError as error:
                raise TrainingDivergedError(f"At step {step}, {error}") from error

    def _validated(self) -> Validated:
        start = time.monotonic()
        count = self.model.at_most(self.num_networks)
        ensemble = self.model.sample(count, seed=0, verbose=self.verbose)
        result = ensemble.evaluate(self.split.x, self.split.y, verbose=self.verbose)
        of_weights = weight_measures(ensemble, self.model)
        watched = None
        if self.watched is not None:
            watched = ensemble.evaluate(self.watched.x, self.watched.y, verbose=self.verbose)
        return Validated(ensemble, result, of_weights, watched, time.monotonic() - start)


class Recorder(keras.callbacks.Callback):
    """Writes the history, the progress line, TensorBoard's files and checkpoints.

    Averages are over the steps since the last record. They restart at each record, and each record
    comes with a checkpoint, so that a resumed run records what an uninterrupted one does.

    An entry of the history holds numbers by the keys of `MEASURES`: "step", those of training (None
    for the spread of the norms of a single network), and with a validation those of
    `validation_entry` under "validation" (under "test" for watched images).

    Args:
        checkpoints: Checkpoints of the run.
        validation: The `Validation`, which comes earlier in the list of callbacks.
        every: Number of steps between records; the last step has one too.
        last: The last step.
        tensorboard: Writer of TensorBoard's files.
        record: Record of an earlier part of the run: {"history": [...], "seconds": s}.
        verbose: Whether to show progress.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        validation: Validation,
        *,
        every: int,
        last: int,
        tensorboard: TensorBoardWriter,
        record: dict[str, Any] | None = None,
        verbose: bool = True,
    ):
        super().__init__()
        self.checkpoints = checkpoints
        self.validation = validation
        self.every = every
        self.last = last
        self.record = record or {"history": [], "seconds": 0.0}
        self.verbose = verbose
        self.tensorboard = tensorboard
        self._bar: Any = None

    def on_train_begin(self, logs=None):
        """Start the clock and the progress bar."""
        step = int(self.model.step.numpy())
        self._start = time.monotonic() - self.record["seconds"]
        self.tensorboard.start(step)
        self._recorded = step, time.monotonic()
        self._bar = progress_bar(
            total=self.last,
            initial=step,
            disable=not self.verbose,
            desc="training",
            unit="step",
        )

    def on_train_batch_end(self, batch, logs=None):
        """Write a record if it is time."""
        step = int(self.model.step.numpy())
        self._bar.update(step - self._bar.n)
        validated = self.validation.latest
        if not (step % self.every == 0 or step == self.last or validated):
            return
        before, since = self._recorded
        seconds = time.monotonic() - since - (validated.seconds if validated else 0.0)
        entry: dict[str, Any] = {"step": step, **{name: float(v) for name, v in logs.items()}}
        entry["lam"] = float(self.model.lam.numpy())
        # The gauge, in which some samplers train, fixes most norms: their spread says nothing.
        entry["norm_spread"] = None if self.model.trains_in_gauge else self.model.norm_spread()
        first = plain_optimizers(self.model.optimizer)[0]
        entry["learning_rate"] = float(keras.ops.convert_to_numpy(first.learning_rate))
        if validated:
            entry["validation"] = validation_entry(validated.result, validated.of_weights)
            if validated.watched:
                entry["test"] = validation_entry(validated.watched, validated.of_weights)
        self._bar.set_postfix(
            loss=f"{entry['loss']:.4g}", accuracy_loss=f"{entry['accuracy_loss']:.4g}"
        )
        self.tensorboard.record(step, entry, steps_per_second=(step - before) / seconds)
        if validated:
            self.tensorboard.networks(step, validated.ensemble, validated.result)
        self.record["history"].append(entry)
        self.record["seconds"] = time.monotonic() - self._start
        self.checkpoints.save(self.model, step, self.record)
        if validated and self.verbose:
            with contextlib.suppress(OSError):  # of a terminal that was closed
                self._bar.write(progress_line(entry))
        self.model.reset_metrics()
        self._recorded = step, time.monotonic()

    def close_bar(self) -> None:
        """Close the progress bar, also where training ends early."""
        if self._bar is not None:
            self._bar.close()

    def on_train_end(self, logs=None):
        """Close the progress bar and TensorBoard's files."""
        self.close_bar()
        if self.validation.latest:
            self.tensorboard.finish(self.validation.latest.ensemble, self.validation.latest.result)


def validation_entry(result: Evaluation, of_weights: Mapping[str, float | None]) -> dict[str, Any]:
    """The entry of a validation in the history.

    Args:
        result: Evaluation of the ensemble.
        of_weights: The measures of its weights, see `weight_measures`.

    Returns:
        Every measure by its key (None if it has no value), and the accuracies [N] of the networks
        as "member_accuracies".
    """
    accuracies = {"member_accuracies": result.member_accuracy.tolist()}
    return accuracies | result.summary() | dict(of_weights)


def progress_line(entry: dict[str, Any]) -> str:
    """An entry of the history with a validation, in one line."""
    validation = entry["validation"]
    values = [(key, validation.get(key)) for key in (*main_measures(), "entropy")]
    values += [(key, entry[key]) for key in PROGRESS_OF_TRAINING]
    parts = [
        f"{MEASURES[key].title} {MEASURES[key].text(value)} {MEASURES[key].unit}".rstrip()
        for key, value in values
        if value is not None
    ]
    return f"step {entry['step']}: " + "; ".join(parts)
