"""A training run of our own: ordered data, validation, records, checkpoints, resume."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from hypernet_tf.data import Dataset
from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.training.callbacks import HaltOnNaN, Recorder, Validation
from hypernet_tf.training.checkpoints import Checkpoints
from hypernet_tf.training.devices import Execution, check_batch, together
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
    batch_norm_data: Any = None,
    watch_test: bool = False,
    verbose: bool = True,
) -> tuple[WeightSampler, dict]:
    """Train a sampler, or go on where the folder's newest checkpoint stands.

    A run that was killed and is started again ends bit for bit as one that was not, on the same
    machine, where TensorFlow's operations are deterministic
    (`tf.config.experimental.enable_op_determinism`).

    Args:
        make: builds and compiles the sampler.
        dataset: what to train and validate on.
        folder: the run folder; checkpoints/ and tensorboard/ are made in it.
        steps: how many steps in all.
        images: B, images per network and step.
        num_networks: how many networks a validation samples; of a finite sampler at most all there
            are.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        seed: of the order of the data, and of what changes it.
        augment: what changes images to train on at random, `augmentation.flip_and_crop` for
            photographs; the same as before where a run goes on. None leaves them as they are.
        execution: on which devices, and how, steps are run; None for one device. It
            may be another one than before.
        hparams: the run's settings by name, for TensorBoard to show and compare.
        watch_test: whether each validation also records how its networks do on the test images,
            which is for tables that print the best of a run, and decides nothing.
        batch_norm_data: images on which sampled networks' batch-norm statistics are computed.
        verbose: whether to show progress.

    Returns:
        The trained sampler, and the record of the run: {"history": [...], "seconds": s}.

    Raises:
        CheckpointError: the newest checkpoint is damaged.
        TrainingDivergedError: the loss is not finite; the last good checkpoint stays.
        DeviceError: a batch cannot be shared out to the devices.
        WorkerLostError: another machine has gone; the last checkpoint stays.
    """
    execution = execution or Execution()
    checkpoints = Checkpoints(folder / "checkpoints")
    with together(execution), execution.scope():
        if checkpoints.latest_step() is None:
            sampler, record = make(), None
        else:
            sampler, record = checkpoints.load()
    sampler.batch_norm_data = batch_norm_data
    done = int(sampler.step.numpy())
    if done >= steps:
        assert record is not None
        return sampler, record
    check_batch(sampler.num_networks, images, execution.replicas)
    several, batch_size = execution.strategy, sampler.num_networks * images
    order = {"batch_size": batch_size, "seed": seed, "first_step": done, "augment": augment}
    data = distributed(several or tf.distribute.get_strategy(), dataset.train, **order)
    with together(execution), contextlib.ExitStack() as stack:
        if not execution.chief:  # which does all that the chief does, and keeps nothing
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            checkpoints = Checkpoints(folder / "checkpoints")
        validation = Validation(
            dataset.validation,
            num_networks=num_networks,
            every=validate_every,
            last=steps,
            watched=dataset.test if watch_test else None,
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
        loop(
            sampler,
            data,
            dataset.train.y[:1],
            [HaltOnNaN(), validation, recorder],
            steps=steps,
            stops=(validate_every, checkpoint_every),
            execution=execution,
        )
        return sampler, recorder.record
