"""Running N networks on M examples, a chunk of networks and a chunk of examples at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from hypernet_tf.targets import Target, WeightSet

# The most that activations held at once may take: half of 1 GiB, the rest is room for copies.
_ACTIVATION_BYTES = 2**29
_NETWORKS_AT_ONCE = 32


def arrays(x: Any) -> tuple[Any, int]:
    """Inputs as arrays, and M, how many examples they hold.

    Raises:
        ValueError: there are none, or not as many in each input.
    """
    inputs = keras.tree.map_structure(np.asarray, x)
    sizes = {array.shape[:1] for array in keras.tree.flatten(inputs)}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError("inputs are arrays [M, ...], all with the same number of examples")
    ((size,),) = sizes
    if size == 0:
        raise ValueError("there are no examples to run on")
    return inputs, size


def plan(target: Target, count: int, size: int, batch_size: int | None) -> tuple[int, int]:
    """How many networks and examples run at once.

    Activations stay under 1 GiB, unless one network's alone, on one example or on the batch that is
    asked for, are more.

    Args:
        target: the target.
        count: N.
        size: M.
        batch_size: how many examples; None chooses.

    Raises:
        ValueError: batch_size is below 1.
    """
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"a batch has at least one example, not {batch_size}")
    each = target.activations_per_example * 4
    budget = max(1, _ACTIVATION_BYTES // each)  # networks x examples
    asked = 1 if batch_size is None else min(batch_size, size)
    parts = -(-count // max(1, min(_NETWORKS_AT_ONCE, budget // asked)))
    networks = -(-count // parts)
    examples = batch_size or min(512, max(1, budget // networks))
    return networks, min(examples, size)


def _parts(weights: WeightSet, networks: int) -> list[tuple[int, WeightSet]]:
    """Weights of so many networks at a time, and how many of these the part before has too.

    All parts have one shape, so that one graph is traced: the last overlaps the one before.
    """
    count = weights.trainable[0].shape[0]
    parts = []
    for start in range(0, count, networks):
        begin = min(start, count - networks)
        part = tf.nest.map_structure(lambda t, b=begin: t[b : b + networks], weights)
        parts.append((start - begin, part))
    return parts


def _take(inputs: Any, first: int, count: int) -> Any:
    return keras.tree.map_structure(lambda t: tf.constant(t[first : first + count]), inputs)


def run(
    target: Target, weights: WeightSet, x: Any, *, batch_size: int | None, verbose: int
) -> Iterator[tuple[int, Any]]:
    """Yields (first example, outputs [N, b, ...]) over chunks of examples.

    Args:
        target: the target.
        weights: of N networks.
        x: inputs [M, ...].
        batch_size: examples run at once; None chooses.
        verbose: 1 shows a progress bar.
    """
    inputs, size = arrays(x)
    networks, examples = plan(target, weights.trainable[0].shape[0], size, batch_size)
    parts = _parts(weights, networks)
    steps = len(parts) * -(-size // examples)
    with tqdm(total=steps, disable=not verbose, desc="networks", leave=False) as bar:
        for first in range(0, size, examples):
            begin = min(first, size - examples)  # the last chunk has the shape of the others
            images = _take(inputs, begin, examples)
            outputs = []
            for known, part in parts:
                outputs.append(
                    keras.tree.map_structure(
                        lambda t, n=known, f=first - begin: t.numpy()[n:, f:],
                        target.compiled(part, images)[0],
                    )
                )
                bar.update()
            yield first, keras.tree.map_structure(lambda *t: np.concatenate(t), *outputs)


def batch_statistics(target: Target, weights: WeightSet, x: Any, batch_size: int) -> WeightSet:
    """The weights with batch norm's moving statistics computed on x in one pass.

    Args:
        target: a target with batch normalisation.
        weights: of N networks.
        x: inputs [M, ...].
        batch_size: B of the statistics; a last short batch counts by its size.
    """
    inputs, size = arrays(x)
    networks, _ = plan(target, weights.trainable[0].shape[0], size, batch_size)
    computed: dict[int, list] = {index: [] for index, _ in target.statistics}
    for known, part in _parts(weights, networks):
        for index in computed:
            part.state[index] = tf.zeros_like(part.state[index])
        totals: dict[int, Any] = dict.fromkeys(computed, 0.0)
        for first in range(0, size, batch_size):
            images = _take(inputs, first, batch_size)
            _, new = target.compiled(part, images, batch_statistics=True)
            share = len(keras.tree.flatten(images)[0]) / size
            for index, momentum in target.statistics:
                # From zero, one update leaves (1 - momentum) · statistic of the batch.
                totals[index] += share * new[index] / (1.0 - momentum)
        for index, total in totals.items():
            computed[index].append(total[known:])
    state = list(weights.state)
    for index, parts in computed.items():
        state[index] = tf.concat(parts, 0)
    return WeightSet(weights.trainable, state)
