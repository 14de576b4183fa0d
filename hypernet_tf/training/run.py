"""A training run: ordered data, validation, records, checkpoints, resume."""

from __future__ import annotations

import contextlib
import hashlib
import pathlib
import sys
import tempfile
from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from hypernet_tf.checks import check_count
from hypernet_tf.data import Dataset, Split
from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.samplers.fit_inputs import some_inputs
from hypernet_tf.samplers.optimizers import plain_optimizers
from hypernet_tf.training.callbacks import HaltOnNaN, Recorder, TrainingStoppedError, Validation
from hypernet_tf.training.checkpoints import CheckpointError, Checkpoints
from hypernet_tf.training.devices import Execution, check_batch, detect_lost_workers
from hypernet_tf.training.loop import loop
from hypernet_tf.training.stream import distributed
from hypernet_tf.training.tensorboard import TensorBoardWriter


def train(
    make: Callable[[], WeightSampler],
    dataset: Dataset,
    folder: pathlib.Path,
    *,
    steps: int,
    images: int,
    num_networks: int,
    validate_every: int,
    checkpoint_every: int,
    seed: int,
    augment: Callable[..., tf.Tensor] | None = None,
    execution: Execution | None = None,
    hparams: Mapping[str, int | float | str | bool] | None = None,
    watch_test: bool = False,
    verbose: bool = True,
) -> tuple[WeightSampler, dict]:
    """Train a sampler, or continue from the folder's newest checkpoint.

    A run that is killed and started again ends bit for bit as an uninterrupted one, on the same
    machine, if TensorFlow's operations are deterministic
    (`tf.config.experimental.enable_op_determinism`).

    Args:
        make: Function that builds and compiles the sampler.
        dataset: Data set on which to train and validate.
        folder: Run folder; checkpoints/ and tensorboard/ are made in it.
        steps: Number of training steps in all.
        images: B, number of images per network and step.
        num_networks: Number of networks that a validation samples; of a finite sampler at most all
            that it holds.
        validate_every: Number of steps between validations.
        checkpoint_every: Number of steps between checkpoints.
        seed: Seed of the order of the data, and of their augmentation.
        augment: Function that changes training images at random, such as
            `augmentation.flip_and_crop` for photographs; None leaves them as they are. A continued
            run must give the same one as before.
        execution: Devices on which steps are run, and how; None for one device. A continued run may
            give another one than before.
        hparams: Settings of the run by name, which TensorBoard shows and compares.
        watch_test: Whether each validation also records the results on the test images. This is for
            tables that print the best of a run; it decides nothing.
        verbose: Whether to show progress.

    Returns:
        The trained sampler, and the record of the run: {"history": [...], "seconds": s, "begun":
        what it began with}.

    Raises:
        ValueError: There are no validation images, a number is below 1, or the optimizer averages
            weights that only `fit` would use (use_ema).
        CheckpointError: The newest checkpoint is damaged or of another version, or the run began
            with other images, another seed or another number of images.
        TrainingDivergedError: The loss is not finite; the last good checkpoint stays.
        DeviceError: A batch cannot be shared among the devices.
        WorkerLostError: Another machine has ended; the last checkpoint stays.
        TrainingStoppedError: Ctrl-C; the last checkpoint stays.
    """
    for name, value in (
        ("steps", steps),
        ("images", images),
        ("num_networks", num_networks),
        ("validate_every", validate_every),
        ("checkpoint_every", checkpoint_every),
    ):
        check_count(name, value)
    if not len(dataset.validation):
        raise ValueError("There are no images for validation: give the data set some.")
    execution = execution or Execution()
    checkpoints = Checkpoints(folder / "checkpoints")
    chosen = some_inputs(dataset.train.images)
    some = Split(chosen, dataset.train.labels[: len(chosen)]).x
    with detect_lost_workers(execution), execution.scope():
        if checkpoints.latest_step() is None:
            sampler, record = make(), None
            sampler.initialize(some, verbose=int(verbose and execution.chief))
        else:
            sampler, record = checkpoints.load()
    begun = {"images": _digest(dataset), "seed": int(seed), "images per network": int(images)}
    if record is None:
        record = {"history": [], "seconds": 0.0}
    before = record.setdefault("begun", begun)
    others = [name for name, value in begun.items() if value != before.get(name)]
    if others:
        raise CheckpointError(
            f"The run in {folder} began with other {' and '.join(others)}: continue it with the "
            "same, or train in another folder."
        )
    if sampler.target.statistics and sampler.batch_norm_data is None:
        sampler.batch_norm_data = some
    done = int(sampler.step.numpy())
    if done >= steps:
        return sampler, record
    for one in plain_optimizers(sampler.optimizer):
        if one.use_ema and not one.ema_overwrite_frequency:
            raise ValueError(
                "use_ema without ema_overwrite_frequency averages weights at the end of a fit, and "
                "has no effect in a run: compile without it."
            )
    shared = sampler.shared_inputs
    check_batch(
        sampler.num_networks,
        images,
        execution.replicas,
        shared_inputs=shared,
        min_networks=sampler.min_networks_per_device,
    )
    batch_size = images if shared else sampler.num_networks * images
    order = {"batch_size": batch_size, "seed": seed, "first_step": done, "augment": augment}
    strategy = execution.strategy or tf.distribute.get_strategy()
    data = distributed(strategy, dataset.train, **order)
    with detect_lost_workers(execution), contextlib.ExitStack() as stack:
        kept = checkpoints
        if not execution.chief:  # it does all that the chief does, and keeps nothing
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            checkpoints = Checkpoints(folder / "checkpoints")
        validation = Validation(
            dataset.validation,
            num_networks=num_networks,
            every=validate_every,
            last=steps,
            watched=dataset.test if watch_test else None,
            verbose=verbose and execution.chief and sys.stderr.isatty(),  # a bar below a bar
        )
        recorder = Recorder(
            checkpoints,
            validation,
            every=checkpoint_every,
            last=steps,
            tensorboard=TensorBoardWriter(
                folder / "tensorboard", classes=dataset.classes, hparams=hparams
            ),
            record=record,
            verbose=verbose and execution.chief,
        )
        try:
            loop(
                sampler,
                data,
                dataset.train.y[:1],
                [HaltOnNaN(), validation, recorder],
                steps=steps,
                stops=(validate_every, checkpoint_every),
                execution=execution,
            )
        except KeyboardInterrupt:
            raise TrainingStoppedError(_stopped(int(sampler.step.numpy()), kept)) from None
        finally:
            recorder.close_bar()
        return sampler, recorder.record


def _digest(dataset: Dataset) -> str:
    """What tells whether training and validation images are still those that a run began with."""
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.validation):
        for array in (split.images, split.labels):
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _stopped(step: int, checkpoints: Checkpoints) -> str:
    """What is kept of a run that was stopped, and how to go on."""
    kept = checkpoints.latest_step()
    if kept is None:
        return (
            f"stopped at step {step:,}, before the first checkpoint: "
            "run the same command again to start anew"
        )
    return (
        f"stopped at step {step:,}; the checkpoint of step {kept:,} is kept: "
        "run the same command again to go on"
    )
