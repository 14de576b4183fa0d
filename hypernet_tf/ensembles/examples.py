"""Examples from arrays or data sets, in chunks of any length."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.metrics.accuracy import check_weights


class Chunk(NamedTuple):
    """Consecutive examples.

    Attributes:
        x: Inputs [b, ...], structured as the model's inputs.
        y: Labels or values [b, ...]; None where they are not needed.
        sample_weight: Sample weights [b], or [b, ...] of the choices of each example; None where
            there are none.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None

    @property
    def size(self) -> int:
        """Number of examples."""
        return len(keras.tree.flatten(self.x)[0])


class Examples:
    """Examples from arrays or a data set. Of a data set, a few batches at a time are in memory.

    Args:
        x: Inputs [M, ...], structured as the model's inputs; or a `tf.data.Dataset` or a
            `keras.utils.PyDataset` whose batches are x, (x,), (x, y) or (x, y, sample_weight).
        y: Labels or values [M, ...]; None where x is a data set or labels are not needed.
        sample_weight: Sample weights [M]; None where x is a data set or for equal weights.
        labels: Function that checks and converts labels; None where labels are not needed.
        weighted: Whether sample weights are needed where labels are not.
        choices: Whether an example has several choices or steps, which may have weights [M, ...] of
            their own: `labels` gets, as a second argument, which of them count.
        masks: Function of inputs [M, ...] that returns which choices count, [M, ...]; None for all.
        output_name: Name of the output, by which labels and sample weights may be dicts.

    Attributes:
        size: M; None for a data set.

    Raises:
        ValueError: There are no examples, not as many of one kind as of another, labels are needed
            but missing, or they are given twice.
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        labels: Callable[..., np.ndarray] | None = None,
        weighted: bool = False,
        choices: bool = False,
        masks: Callable[[Any], Any] | None = None,
        output_name: str = "",
    ):
        self._labels, self._weighted = labels, weighted
        self._choices, self._masks, self._output_name = choices, masks, output_name
        self._data_set = is_data_set(x)
        self.size: int | None = None
        if self._data_set:
            if y is not None or sample_weight is not None:
                raise ValueError("Labels and sample weights come from the data set: pass only it.")
            self._source = x
        else:
            self._source = self._checked((x, y, sample_weight))
            self.size = self._source.size
            _check_all(self._source.sample_weight)

    def __iter__(self) -> Iterator[Chunk]:
        """The batches of a data set, or all examples of the arrays."""
        if not self._data_set:
            yield self._source
            return
        check_end(self._source)
        for batch in batches(self._source):
            parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
            if not 1 <= len(parts) <= 3:
                raise ValueError(
                    "A batch must be x, (x,), (x, y) or (x, y, sample_weight), not "
                    f"{len(parts)} parts."
                )
            yield self._checked((*parts, None, None)[:3])

    def chunks(self, length: int, *, shuffled: bool = False) -> Iterator[Chunk]:
        """The examples in chunks of one length; the last one may be shorter.

        Where batches have examples of other shapes, such as longer sequences, so may the last one
        before them.

        Args:
            length: Number of examples in a chunk.
            shuffled: Whether arrays, which may be sorted by class, are read in a random order; it
                is always the same.

        Raises:
            ValueError: The data set has no examples, or no end.
        """
        if shuffled and not self._data_set:
            order = np.random.default_rng(0).permutation(self._source.size)
            for first in range(0, len(order), length):
                yield part(self._source, order[first : first + length])
            return
        rest = None
        empty = True
        for chunk in self:
            empty = False
            if rest is not None and not alike(rest, chunk):
                yield rest
                rest = None
            chunk = chunk if rest is None else joined(rest, chunk)
            whole = chunk.size - chunk.size % length
            for first in range(0, whole, length):
                yield part(chunk, slice(first, first + length))
            rest = part(chunk, slice(whole, None)) if whole < chunk.size else None
        if empty:
            raise ValueError("There are no examples to run on.")
        if rest is not None:
            yield rest

    def in_memory(self) -> Chunk:
        """All examples at once.

        Raises:
            ValueError: The data set has no examples, no end, or inputs of different shapes; or the
                sample weights are not numbers that are at least 0 and not all of them 0.
        """
        parts = list(self)
        if not parts:
            raise ValueError("There are no examples to run on.")
        for one in parts[1:]:
            if not alike(parts[0], one):
                raise ValueError(
                    "The batches of the data set have inputs of different shapes, which cannot be "
                    "held together: pad them to one shape."
                )
        whole = joined(*parts)
        _check_all(whole.sample_weight)
        return whole

    def _checked(self, batch: tuple[Any, Any, Any]) -> Chunk:
        x, y, sample_weight = batch
        inputs, size = arrays(x)
        if self._labels is None and not self._weighted:
            return Chunk(inputs)
        sample_weight = self._of_output(sample_weight)
        weights = None if sample_weight is None else np.asarray(sample_weight)
        if weights is not None and (
            weights.shape[:1] != (size,) or (weights.ndim > 1 and not self._choices)
        ):
            raise ValueError(f"Sample weights must be numbers [{size}], one for each example.")
        if self._labels is None:
            return Chunk(inputs, None, weights)
        if y is None:
            raise ValueError("There are no labels: give y, or a data set of (x, y).")
        y = np.asarray(self._of_output(y))
        if y.ndim == 0:
            raise ValueError(
                "The data set gives single examples, not batches: use data_set.batch(256)."
            )
        if len(y) != size:
            raise ValueError(f"There are {len(y)} labels for {size} examples: give one for each.")
        while weights is not None and weights.ndim > 1 and weights.shape[-1] == 1:
            weights = weights[..., 0]  # as Keras does
        if self._masks is not None:
            mask = np.asarray(self._masks(inputs))
            given = np.ones(size) if weights is None else weights
            _check_fit(given, mask.shape, "the mask")
            ndim = max(mask.ndim, given.ndim)
            weights = _expanded(given, ndim) * _expanded(mask, ndim)
        if weights is None or weights.ndim == 1:
            return Chunk(inputs, self._labels(y), weights)
        if weights.ndim > y.ndim:
            raise unfit_weights(weights, y.shape, "labels")
        _check_fit(weights, y.shape, "labels")
        labels = self._labels(y, weights > 0)
        if weights.ndim > labels.ndim:
            raise unfit_weights(weights, labels.shape, "labels")
        return Chunk(inputs, labels, weights)

    def _of_output(self, values: Any) -> Any:
        """Labels or sample weights of the output, which may be given by its name."""
        if not isinstance(values, dict):
            return values
        if list(values) != [self._output_name]:
            raise ValueError(
                f"There is no output '{next(iter(values), '')}': the target has "
                f"{self._output_name}."
            )
        return values[self._output_name]


def _check_all(weights: np.ndarray | None) -> None:
    """Check weights of examples, or of their choices."""
    if weights is not None:
        check_weights(weights.ravel(), weights.size)


def _check_fit(weights: np.ndarray, shape: tuple[int, ...], what: str) -> None:
    """Check the axes that sample weights share with something else; weights may have a size of 1.

    Raises:
        ValueError: One has another size.
    """
    if any(size not in (1, other) for size, other in zip(weights.shape, shape, strict=False)):
        raise unfit_weights(weights, shape, what)


def unfit_weights(weights: np.ndarray, shape: tuple[int, ...], what: str) -> ValueError:
    """The error of sample weights whose axes are not those of something else.

    Args:
        weights: The weights.
        shape: Shape of the other.
        what: Name of the other.
    """
    return ValueError(
        f"Sample weights {list(weights.shape)} do not fit {what} {list(shape)}: give one for each "
        "example, or for each of its choices or steps."
    )


def _expanded(array: np.ndarray, ndim: int) -> np.ndarray:
    """An array with axes of size 1 at its end."""
    return array.reshape(*array.shape, *[1] * (ndim - array.ndim))


def arrays(x: Any) -> tuple[Any, int]:
    """Inputs as arrays, and M, the number of examples.

    Args:
        x: Inputs [M, ...], structured as the model's inputs.

    Raises:
        ValueError: There are no examples, or not as many in each input.
    """
    inputs = keras.tree.map_structure(np.asarray, x)
    sizes = {array.shape[:1] for array in keras.tree.flatten(inputs)}
    if len(sizes) != 1 or sizes == {()}:
        raise ValueError("Inputs must be arrays [M, ...] with the same number of examples in each.")
    ((size,),) = sizes
    if size == 0:
        raise ValueError("There are no examples to run on.")
    return inputs, size


def check_inputs(x: Any, begin: int = 0) -> None:
    """Check that inputs are finite, because ReLU and pooling may turn NaN into a number.

    Args:
        x: Inputs [b, ...] that run together, structured as the model's inputs.
        begin: Number of the first of them among all inputs.

    Raises:
        ValueError: Inputs have NaN or infinity.
    """
    for array in map(np.asarray, keras.tree.flatten(x)):
        if not np.issubdtype(array.dtype, np.floating):
            continue
        rows = array.reshape(len(array), -1)
        for what, is_wrong in (("NaN", np.isnan), ("infinity", np.isinf)):
            wrong = is_wrong(rows).any(1)
            if wrong.any():
                raise ValueError(
                    f"{wrong.sum()} of {len(array)} inputs that ran together have {what}, the "
                    f"first of them number {begin + wrong.argmax()}: remove or replace them."
                )


def weights_of_choices(chunk: Chunk) -> np.ndarray:
    """Weights [b, choices] of all choices of each example; 1 where there are none.

    Args:
        chunk: Examples with labels [b, ...] and weights [b] or [b, ...], or none.
    """
    given, shape = chunk.sample_weight, chunk.y.shape
    weights = np.ones(shape[0]) if given is None else np.asarray(given, np.float64)
    return np.broadcast_to(_expanded(weights, len(shape)), shape).reshape(len(weights), -1)


def part(chunk: Chunk, index: slice | np.ndarray) -> Chunk:
    """Some of the examples."""
    return Chunk(*(_each(lambda array: array[index], values) for values in chunk))


def alike(one: Chunk, other: Chunk) -> bool:
    """Whether the examples of two chunks have the same shapes."""

    def shapes(chunk: Chunk) -> list[tuple[int, ...]]:
        return [array.shape[1:] for array in keras.tree.flatten(chunk.x)]

    return shapes(one) == shapes(other)


def joined(*chunks: Chunk) -> Chunk:
    """The examples of several chunks; without sample weights, examples of a weighted set have 1."""
    given = [np.shape(one.sample_weight) for one in chunks if one.sample_weight is not None]
    if given:
        shape = max(given, key=len)[1:]  # those of single steps, if there are some
        chunks = tuple(
            chunk._replace(sample_weight=_weights_of_steps(chunk, shape)) for chunk in chunks
        )
    return Chunk(
        *(
            None
            if values[0] is None
            else keras.tree.map_structure(lambda *t: np.concatenate(t), *values)
            for values in zip(*chunks, strict=True)
        )
    )


def _weights_of_steps(chunk: Chunk, shape: tuple[int, ...]) -> np.ndarray:
    """The weights of a chunk with the axes of others, [b, *shape]."""
    weights = np.ones(chunk.size) if chunk.sample_weight is None else chunk.sample_weight
    if weights.ndim > len(shape):
        return weights
    return np.broadcast_to(_expanded(weights, len(shape) + 1), (chunk.size, *shape))


def _each(function: Callable[[np.ndarray], Any], values: Any) -> Any:
    return None if values is None else keras.tree.map_structure(function, values)


class SomeBatches:
    """Batches of a generator, or the first ones of a data set, to be read once.

    The first is kept, because the shapes of data sets are looked at before they run.

    Args:
        source: Generator of batches, or a data set.
        count: Number of batches; None for all.
    """

    def __init__(self, source: Any, count: int | None = None):
        source = batches(source) if is_data_set(source) else source
        self._rest = itertools.islice(source, count)
        self._first = [*itertools.islice(self._rest, 1)]

    def __iter__(self) -> Iterator[Any]:
        yield from self._first
        yield from self._rest


def is_data_set(x: Any) -> bool:
    """Whether x is a data set of batches, rather than arrays."""
    return isinstance(x, (tf.data.Dataset, keras.utils.PyDataset, SomeBatches))


def check_end(data_set: Any) -> None:
    """Check that a data set has an end.

    Args:
        data_set: A `tf.data.Dataset` or a `keras.utils.PyDataset`.

    Raises:
        ValueError: It has no end.
    """
    if isinstance(data_set, tf.data.Dataset):
        if data_set.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError("The data set has no end: use data_set.take(number of batches).")
    elif not isinstance(data_set, SomeBatches) and data_set.num_batches is None:
        raise ValueError("The data set has no end: its num_batches must be a number.")


def batches(data_set: Any) -> Iterator[Any]:
    """The batches of a data set, as arrays; without an end if it has none.

    Args:
        data_set: A `tf.data.Dataset` or a `keras.utils.PyDataset`.
    """
    if isinstance(data_set, tf.data.Dataset):
        yield from data_set.as_numpy_iterator()
        return
    if isinstance(data_set, SomeBatches):
        yield from data_set
        return
    size = data_set.num_batches
    for index in itertools.count() if size is None else range(size):
        yield data_set[index]
