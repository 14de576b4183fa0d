"""What happens between training steps: watching, validating, recording, keeping."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, NamedTuple

import keras
import tensorflow as tf
from tqdm import tqdm

from hypernet_tf.data import Split
from hypernet_tf.diversity import NegativeEntropy, StepRecord
from hypernet_tf.ensembles.ensemble import Ensemble, Evaluation
from hypernet_tf.samplers.latent import LatentSampler
from hypernet_tf.training.checkpoints import Checkpoints
from hypernet_tf.training.tensorboard import TensorBoardWriter


class TrainingDivergedError(ArithmeticError):
    """The loss is not a number any more; the message is one line that says at which step."""


class HaltOnNaN(keras.callbacks.Callback):
    """Stops as soon as a step's loss or a weight is not finite, before anything is written."""

    def on_train_begin(self, logs=None):
        """Make the check of the weights, a small part of a step."""

        @tf.function
        def finite() -> tf.Tensor:
            weights = self.model.trainable_variables
            return tf.reduce_all([tf.reduce_all(tf.math.is_finite(w)) for w in weights])

        self._finite = finite

    def on_train_batch_end(self, batch, logs=None):
        """Look at loss and weights; a running mean is not finite from the bad step on."""
        step = int(self.model.step.numpy())
        if not math.isfinite(logs["loss"]):
            raise TrainingDivergedError(f"the loss became {logs['loss']} at step {step}")
        if not self._finite():
            raise TrainingDivergedError(f"a weight stopped being finite at step {step}")


class Validated(NamedTuple):
    """A validation.

    Attributes:
        ensemble: the networks.
        result: how they do on the validation images.
        entropy: H of their weights in nats; None where there is none.
        watched: how they do on other images, if any are watched.
        seconds: how long it took.
    """

    ensemble: Ensemble
    result: Evaluation
    entropy: float | None
    watched: Evaluation | None
    seconds: float


class Validation(keras.callbacks.Callback):
    """Every so many steps, samples an ensemble and evaluates it on held-out images.

    Args:
        split: the validation images.
        num_networks: how many networks; of a finite sampler at most all that it has by then.
        every: after how many steps, and after the last one.
        last: the last step.
        watched: other images, on which the same networks are evaluated; or None.
    """

    def __init__(
        self,
        split: Split,
        *,
        num_networks: int,
        every: int,
        last: int,
        watched: Split | None = None,
    ):
        super().__init__()
        self.split = split
        self.watched = watched
        self.num_networks = num_networks
        self.every = every
        self.last = last
        self.latest: Validated | None = None

    def on_train_batch_end(self, batch, logs=None):
        """Evaluate if it is time; `latest` is None between validations."""
        step = int(self.model.step.numpy())
        self.latest = None
        if step % self.every == 0 or step == self.last:
            start = time.monotonic()
            networks = min(self.num_networks, self.model.num_available or self.num_networks)
            ensemble = self.model.sample(networks, seed=0)
            result = ensemble.evaluate(self.split.x, self.split.y)
            entropy = ensemble_entropy(ensemble, self.model)
            watched = None
            if self.watched is not None:
                watched = ensemble.evaluate(self.watched.x, self.watched.y)
            self.latest = Validated(ensemble, result, entropy, watched, time.monotonic() - start)


def ensemble_entropy(ensemble: Ensemble, sampler: keras.Model) -> float | None:
    """H of an ensemble's weights in nats, as its sampler's entropy term estimates it.

    A sampler that trains without an entropy term is measured by the default one. Where there is no
    latent space, and so no dimension of the manifold of weights, it is None.
    """
    if not isinstance(sampler, LatentSampler):
        return None
    terms = [term for term in sampler.diversity if type(term) is NegativeEntropy]
    latent = tf.zeros([len(ensemble), sampler.latent_dim])
    theta = tf.constant(ensemble.theta())
    return float((terms or [NegativeEntropy()])[0].entropy(StepRecord(theta, latent)))


class Recorder(keras.callbacks.Callback):
    """Writes the history, the progress line, TensorBoard's files and checkpoints.

    Averages are over the steps since the last record; they restart at each, and a checkpoint is
    written with each, so that a resumed run records what an uninterrupted one does.

    Args:
        checkpoints: where to keep the model.
        validation: the `Validation`, which stands before this in the list of callbacks.
        every: after how many steps to record and keep, and after the last one.
        last: the last step.
        tensorboard: writes TensorBoard's files.
        record: of an earlier part of the run: {"history": [...], "seconds": s}.
        verbose: whether to show progress.
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

    def on_train_begin(self, logs=None):
        """Start the clock and the progress bar."""
        step = int(self.model.step.numpy())
        self._start = time.monotonic() - self.record["seconds"]
        self.tensorboard.start(step)
        self._recorded = step, time.monotonic()
        self._bar = tqdm(
            total=self.last,
            initial=step,
            disable=not self.verbose,
            desc="training",
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 30.0,  # a log file is not redrawn
        )

    def on_train_batch_end(self, batch, logs=None):
        """Record and keep if it is time."""
        step = int(self.model.step.numpy())
        self._bar.update(step - self._bar.n)
        validated = self.validation.latest
        if not (step % self.every == 0 or step == self.last or validated):
            return
        before, since = self._recorded
        seconds = time.monotonic() - since - (validated.seconds if validated else 0.0)
        entry: dict[str, Any] = {"step": step, **{name: float(v) for name, v in logs.items()}}
        entry["lam"] = float(self.model.lam.numpy())
        entry["learning_rate"] = float(
            keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        )
        if validated:
            entry["validation"] = validation_entry(validated.result, validated.entropy)
            if validated.watched:
                entry["test"] = validation_entry(validated.watched, validated.entropy)
            if self.verbose:
                self._bar.write(progress_line(entry))
        self._bar.set_postfix(
            loss=f"{entry['loss']:.4g}", accuracy_loss=f"{entry['accuracy_loss']:.4g}"
        )
        self.tensorboard.record(step, entry, steps_per_second=(step - before) / seconds)
        if validated:
            self.tensorboard.networks(step, validated.ensemble, validated.result)
        self.record["history"].append(entry)
        self.record["seconds"] = time.monotonic() - self._start
        self.checkpoints.save(self.model, step, self.record)
        self.model.reset_metrics()
        self._recorded = step, time.monotonic()

    def on_train_end(self, logs=None):
        """Close what is open."""
        self._bar.close()
        if self.validation.latest:
            self.tensorboard.finish(self.validation.latest.ensemble, self.validation.latest.result)


def validation_entry(result: Evaluation, entropy: float | None) -> dict[str, Any]:
    """What is recorded of a validation: every measure by its key, and each network's accuracy.

    Args:
        result: Evaluation of the ensemble.
        entropy: Entropy of the networks' weights in nats, or None.
    """
    members = {"member_accuracies": result.member_accuracy.tolist()}
    return members | result.summary() | ({} if entropy is None else {"entropy": entropy})


def progress_line(entry: dict[str, Any]) -> str:
    """A validation in one line."""
    v = entry["validation"]
    return (
        f"step {entry['step']}: members {v['member_accuracy']:.2%} "
        f"({v['member_accuracy_min']:.2%} to {v['member_accuracy_max']:.2%}), "
        f"vote {v['majority_vote_accuracy']:.2%}, "
        f"mean probability {v['mean_probability_accuracy']:.2%}, "
        f"most confident {v['most_confident_accuracy']:.2%}, "
        + (f"entropy {v['entropy']:.1f} nats, " if "entropy" in v else "")
        + f"loss {entry['loss']:.4g}, accuracy loss {entry['accuracy_loss']:.4g}, "
        f"lr {entry['learning_rate']:.3g}, lam {entry['lam']:.4g}"
    )
