"""The order of the data: a batch is a function of (seed, step), so that runs resume exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from hypernet_tf.data import Split
from hypernet_tf.samplers.draws import AUGMENT, stream_seed


def batch_indices(step: tf.Tensor, *, size: int, batch_size: int, seed: int) -> tf.Tensor:
    """The indices of the examples of a batch, [batch_size].

    Examples are counted through all epochs; example i of epoch e has the index pi_e(i), with pi_e a
    stateless random permutation of the data set that depends on (seed, e). Every epoch uses each
    example once.

    Args:
        step: Number of the batch, from 0.
        size: Number of examples, at least batch_size.
        batch_size: Number of examples per batch.
        seed: Seed of the order.
    """
    seed = int(seed)
    counter = tf.cast(step, tf.int64) * batch_size + tf.range(batch_size, dtype=tf.int64)
    epoch = counter // size
    first = epoch[0]  # a batch no larger than the data set meets at most two epochs
    this, following = (_shuffled(counter % size, size, seed, e) for e in (first, first + 1))
    return tf.where(epoch == first, this, following)


def _shuffled(index: tf.Tensor, size: int, seed: int, epoch: tf.Tensor) -> tf.Tensor:
    """Indices [b] in a random permutation of `size` that depends on (seed, epoch).

    TensorFlow's permutation reads the last byte of a seed alone where there are up to 65,536
    examples, so there is one for each byte, up to the last that is not 0.
    """
    for byte in range(max(2, math.ceil(seed.bit_length() / 8))):
        left = tf.stack([tf.constant(seed // 256**byte, tf.int64), epoch // 256**byte])
        last = tf.cast(size - 1, tf.int64)
        shuffled = tf.random.experimental.index_shuffle(index, left % 256, last)
        index = shuffled if byte == 0 else tf.where(tf.reduce_any(left > 0), shuffled, index)
    return index


def batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    parts: int = 1,
    given: range = range(1),
    augment: Callable[..., tf.Tensor] | None = None,
) -> tf.data.Dataset:
    """Endless batches (x, y) in a fixed order, from step `first_step` on.

    Args:
        split: The examples.
        batch_size: Number of examples per batch.
        seed: Seed of the order.
        first_step: Number of the first batch; a resumed run gives its step.
        parts: Number of equal parts into which each batch is cut.
        given: Numbers of the parts that are given, one after the other.
        augment: Function that changes images at random, called as
            augment(images, seed, first=..., of=...) with images uint8 [batch_size / parts, H, W, C]
            (see `hypernet_tf.training.augmentation.flip_and_crop`); None leaves them as they are.

    Returns:
        A data set of x [batch_size / parts, H, W, C] float32 in [0, 1] and y [batch_size / parts]
        int64.

    Raises:
        ValueError: The split has fewer examples than a batch, or the parts are not equal.
    """
    size = len(split)
    if size < batch_size:
        raise ValueError(
            f"Cannot make a batch of {batch_size} examples of {size}: choose a smaller batch."
        )
    if batch_size % parts:
        raise ValueError(
            f"Cannot cut a batch of {batch_size} examples into {parts} equal parts: choose a size "
            "that is divisible by their number."
        )
    images, labels = tf.constant(split.images), tf.constant(split.labels)
    part_size = batch_size // parts

    def gather(number):  # counts the given parts, from the first step on
        step, part = number // len(given), number % len(given)
        index = batch_indices(step, size=size, batch_size=batch_size, seed=seed)
        first = (given.start + part) * part_size
        index = tf.slice(index, [first], [part_size])
        x = tf.gather(images, index)
        if augment is not None:
            x = augment(x, stream_seed(seed, AUGMENT, step), first=first, of=batch_size)
        return tf.cast(x, tf.float32) / 255.0, tf.gather(labels, index)

    counter = tf.data.Dataset.counter(first_step * len(given))
    return counter.map(gather).prefetch(2 * len(given))


def distributed(strategy: tf.distribute.Strategy, split: Split, **order: Any) -> Any:
    """The same batches, each replica's part on its own device.

    Args:
        strategy: Strategy of the devices.
        split: The examples.
        **order: Options of `batches`.
    """
    parts = strategy.num_replicas_in_sync
    if parts == 1:
        return batches(split, **order)

    def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = parts // context.num_input_pipelines
        first = context.input_pipeline_id * count
        return batches(split, parts=parts, given=range(first, first + count), **order)

    return strategy.distribute_datasets_from_function(pipeline)
