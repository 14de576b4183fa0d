"""Running N networks on M examples, a chunk of networks and a chunk of examples at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from hypernet_tf.checks import check_count
from hypernet_tf.ensembles.examples import Chunk, Examples, alike, check_inputs, joined, part
from hypernet_tf.targets import Target, WeightSet

# Bytes of activations that are in memory at once: half of 1 GiB, which leaves room for copies.
_ACTIVATION_BYTES = 2**29
_NETWORKS_AT_ONCE = 32
# Few networks on this many examples keep the cores busier than many networks on a few, and are
# traced sooner: ten ResNet-32 in pairs on 50 or 60 images, not all on 12.
_EXAMPLES_AT_ONCE = 48


def plan(
    activations: int, num_networks: int, num_examples: int | None, batch_size: int | None
) -> tuple[int, int]:
    """How many networks and examples run at once.

    Activations stay under 1 GiB, unless those of one network alone, on one example or on a batch of
    the given size, take more.

    Args:
        activations: Number of activations that a network computes for one example.
        num_networks: N.
        num_examples: M; None if it is not known.
        batch_size: Number of examples that run at once; None chooses it.

    Raises:
        ValueError: batch_size is not a whole number, or below 1.
    """
    if batch_size is not None:
        check_count("batch_size", batch_size)
    budget = examples_at_once(activations, 1)  # networks x examples
    least = batch_size or _EXAMPLES_AT_ONCE
    least = least if num_examples is None else min(least, num_examples)
    num_parts = -(-num_networks // max(1, min(_NETWORKS_AT_ONCE, budget // least)))
    networks = -(-num_networks // num_parts)
    examples = batch_size or min(512, max(1, budget // networks))
    if num_examples is None:
        return networks, examples
    if batch_size is None:  # chunks of one size, so that the last repeats next to nothing
        examples = -(-num_examples // -(-num_examples // examples))
    return networks, min(examples, num_examples)


def examples_at_once(activations: int, num_networks: int) -> int:
    """How many examples all networks can run on at once with activations under 1 GiB; at least 1.

    Args:
        activations: Number of activations that a network computes for one example.
        num_networks: N.
    """
    return max(1, _ACTIVATION_BYTES // (activations * 4 * num_networks))


def _plan_of(
    target: Target, weights: WeightSet, examples: Examples, batch_size: int | None
) -> tuple[int, int]:
    """The `plan` for examples of which the first ones show the sizes that the model leaves open."""
    first = next(iter(examples), None) if target.has_open_axes else None
    activations = target.activations_per_example(first and first.x)
    return plan(activations, weights.trainable[0].shape[0], examples.size, batch_size)


def run(
    target: Target,
    weights: WeightSet,
    examples: Examples,
    *,
    batch_size: int | None,
    verbose: int,
) -> Iterator[tuple[Any, Chunk]]:
    """Yields outputs [N, b, ...] and the examples, for consecutive chunks of examples.

    Args:
        target: Target of the networks.
        weights: Weights of N networks.
        examples: Examples on which all networks run.
        batch_size: Number of examples that run at once; None chooses it.
        verbose: 1 shows a progress bar.

    Raises:
        ValueError: The inputs do not have the shape that the target takes.
    """
    num_networks, length = _plan_of(target, weights, examples, batch_size)
    parts = _parts(weights, num_networks)
    total = None if examples.size is None else len(parts) * -(-examples.size // length)
    before = None
    with tqdm(total=total, disable=not verbose, desc="networks", leave=False) as bar:
        for chunk in examples.chunks(length):
            # A last, short chunk runs with examples before it: all chunks have one shape.
            missing = 0
            shown = chunk
            if before is not None and chunk.size < length and alike(before, chunk):
                missing = length - chunk.size
                shown = part(joined(before, chunk), slice(-length, None))
            target.check_inputs(chunk.x)
            x = keras.tree.map_structure(tf.constant, shown.x)
            outputs = []
            for repeated, some in parts:
                outputs.append(
                    keras.tree.map_structure(
                        lambda t, n=repeated, m=missing: t.numpy()[n:, m:],
                        target.compiled(some, x)[0],
                    )
                )
                bar.update()
            yield keras.tree.map_structure(lambda *t: np.concatenate(t), *outputs), chunk
            before = chunk


def batch_statistics(
    target: Target, weights: WeightSet, examples: Examples, batch_size: int, *, verbose: int = 0
) -> WeightSet:
    """The weights with batch norm's moving statistics computed in one pass over examples.

    Args:
        target: Target with batch normalisation.
        weights: Weights of N networks.
        examples: Examples on which all networks run.
        batch_size: B, the number of examples in the batches of the statistics. A last, short batch
            counts by its size.
        verbose: 1 shows a progress bar.

    Raises:
        ValueError: Inputs have NaN or infinity.
    """
    check_count("batch_size", batch_size)
    num_networks, _ = _plan_of(target, weights, examples, batch_size)
    parts = _parts(weights, num_networks)
    for _, some in parts:
        for index, _ in target.statistics:
            some.state[index] = tf.zeros_like(some.state[index])
    totals: list[dict[int, Any]] = [
        dict.fromkeys((index for index, _ in target.statistics), 0.0) for _ in parts
    ]
    divisor, num_examples = examples.size or batch_size, 0
    total = None if examples.size is None else len(parts) * -(-examples.size // batch_size)
    if examples.size is not None:  # in their order, by which an error counts them
        check_inputs(next(iter(examples)).x)
    with tqdm(total=total, disable=not verbose, desc="batch statistics", leave=False) as bar:
        for chunk in examples.chunks(batch_size, shuffled=True):
            target.check_inputs(chunk.x)
            if examples.size is None:
                check_inputs(chunk.x, num_examples)
            x = keras.tree.map_structure(tf.constant, chunk.x)
            num_examples += chunk.size
            for (_, some), sums in zip(parts, totals, strict=True):
                _, new = target.compiled(some, x, batch_statistics=True)
                for index, momentum in target.statistics:
                    # From zero, one update leaves (1 - momentum) · statistic of the batch.
                    sums[index] += chunk.size / divisor * new[index] / (1.0 - momentum)
                bar.update()
    state = list(weights.state)
    for index, _ in target.statistics:
        state[index] = tf.concat(
            [
                sums[index][repeated:] * (divisor / num_examples)
                for (repeated, _), sums in zip(parts, totals, strict=True)
            ],
            0,
        )
    return WeightSet(weights.trainable, state)


def _parts(weights: WeightSet, num_networks: int) -> list[tuple[int, WeightSet]]:
    """Weights of so many networks at a time, and how many of them are also in the part before.

    All parts have one shape, so that one graph is traced: the last overlaps the one before.
    """
    count = weights.trainable[0].shape[0]
    parts = []
    for start in range(0, count, num_networks):
        begin = min(start, count - num_networks)
        some = tf.nest.map_structure(lambda t, b=begin: t[b : b + num_networks], weights)
        parts.append((start - begin, some))
    return parts
