"""How good predictions are: functions of log-probabilities [N, M, C] or [M, C], and labels [M].

`N` networks, `M` examples, `C` classes. Probabilities are given as their logarithms, in nats, so
that small ones keep their precision. Accuracies and errors are fractions. Calibration is in
`calibration`, uncertainty in `uncertainty`, the similarity of networks in `similarity`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike


def concatenated(arrays: Sequence[np.ndarray], axis: int = 0) -> np.ndarray:
    """What was computed for consecutive examples, as one array.

    Args:
        arrays: Arrays [..., b, ...] of consecutive examples.
        axis: The axis of the examples.

    Raises:
        ValueError: Examples differ in size, and so have no array in common.
    """
    shapes = {(*array.shape[:axis], *array.shape[axis + 1 :]) for array in arrays}
    if len(shapes) > 1:
        raise ValueError(
            "Outputs of examples of several sizes do not fit into one array: run examples of one "
            "size at a time."
        )
    return np.concatenate(arrays, axis)


def check_log_probabilities(log_probabilities: ArrayLike, *ranks: int) -> np.ndarray:
    """Check log-probabilities and return them as an array.

    Args:
        log_probabilities: Log-probabilities, in nats.
        ranks: How many axes they may have: 2 for [M, C], 3 for [N, M, C], more where each example
            has several choices.

    Raises:
        ValueError: They have other axes, or are not logarithms of probabilities.
    """
    array = np.asarray(log_probabilities)
    if array.ndim not in ranks:
        shapes = {2: "[examples, classes]", 3: "[networks, examples, classes]"}
        advice = {
            (2, 3): "; mean_log_probabilities makes one prediction of them",
            (3, 2): "; one network is log_probabilities[None]",
        }
        raise ValueError(
            f"Log-probabilities have the shape {list(array.shape)}: give "
            + " or ".join(shapes[rank] for rank in ranks if rank in shapes)
            + advice.get((ranks[0], array.ndim), "")
            + "."
        )
    # Rounding in half precision takes the largest a little above 0.
    if array.size and (largest := array.max()) > 1e-2:
        raise ValueError(
            f"These are not log-probabilities, the largest is {largest:.3g}: give their logarithm, "
            "or ensemble.log_probabilities(x)."
        )
    some = array.reshape(-1, array.shape[-1])[:1_000] if array.size else array
    total = np.exp(some.astype(np.float64)).sum(-1)
    if array.size and (np.abs(total - 1.0) > 0.1).any():  # NaN is not
        worst = total[np.nanargmax(np.abs(total - 1.0))]
        raise ValueError(
            f"These are not log-probabilities, the probabilities of an example sum to {worst:.3g}: "
            "give tf.nn.log_softmax(logits), or a model that ends in a softmax or sigmoid."
        )
    return array


def mean_log_probabilities(log_probabilities: np.ndarray) -> np.ndarray:
    """Log of the mean probability over networks, [M, C]: log(1/N · sum_n exp(log p_n)).

    Args:
        log_probabilities: Log-probabilities [N, M, C].

    Raises:
        ValueError: These are not log-probabilities of several networks.
    """
    log_probabilities = check_log_probabilities(log_probabilities, *range(3, 8))
    # A class that every network rules out has -inf, and so has its mean.
    highest = np.maximum(log_probabilities.max(0), np.finfo(log_probabilities.dtype).min)
    total = np.exp(log_probabilities - highest).sum(0, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return highest + np.log(total / len(log_probabilities))


def check_labels(labels: ArrayLike, num_examples: int, num_classes: int) -> np.ndarray:
    """Check that each example has one label, one of the classes, and return them as an array.

    Args:
        labels: Labels, to be integers [M] from 0 to C - 1.
        num_examples: M.
        num_classes: C.

    Raises:
        ValueError: The labels have another shape, are not integers, or are out of range.
    """
    labels = np.asarray(labels)
    valid = labels.shape == (num_examples,) and labels.dtype.kind in "iub"
    if not valid or labels.min(initial=0) < 0 or labels.max(initial=0) >= num_classes:
        raise ValueError(f"Labels must be integers [{num_examples}] from 0 to {num_classes - 1}.")
    return labels


def check_weights(sample_weight: np.ndarray | None, num_examples: int) -> np.ndarray | None:
    """Sample weights as float64 [M]; None where they are None or all equal.

    Args:
        sample_weight: Weights [M] of the examples, or None.
        num_examples: M.

    Raises:
        ValueError: The weights have another shape, are negative or not finite, or are all 0.
    """
    if sample_weight is None:
        return None
    weights = np.asarray(sample_weight)
    numbers = weights.shape == (num_examples,) and weights.dtype.kind in "iubf"
    if not numbers or not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
        raise ValueError(
            f"Sample weights must be numbers [{num_examples}], at least 0 and not all of them 0."
        )
    return None if (weights == weights[0]).all() else weights.astype(np.float64)


def mean_over_examples(values: np.ndarray, sample_weight: np.ndarray | None = None) -> np.ndarray:
    """Mean over the last axis in float64: sum_m w_m v_m / sum_m w_m.

    Args:
        values: Values [..., M].
        sample_weight: Weights [M] of the examples; None for equal ones.
    """
    weights = check_weights(sample_weight, values.shape[-1])
    if weights is None:
        return values.mean(-1, dtype=np.float64)
    # A weight of 0 leaves out an infinite value, too.
    return np.where(weights == 0, 0, values) @ (weights / weights.sum())


def correct(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the most probable class of each example is its label, [..., M].

    Args:
        log_probabilities: Log-probabilities [..., M, C].
        labels: Labels [M].
    """
    return log_probabilities.argmax(-1) == labels


def classification_accuracy(
    log_probabilities: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray | None = None
) -> np.ndarray:
    """Fraction of examples whose most probable class is the label; one value, or one per network.

    Args:
        log_probabilities: Log-probabilities [M, C] or [N, M, C].
        labels: Labels [M].
        sample_weight: Weights [M] of the examples; None for equal ones.

    Raises:
        ValueError: The labels are not one class for each example.
    """
    log_probabilities = check_log_probabilities(log_probabilities, 2, 3)
    labels = check_labels(labels, *log_probabilities.shape[-2:])
    return mean_over_examples(correct(log_probabilities, labels), sample_weight)


def log_losses(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log p(label) of each example, in nats, [..., M].

    Args:
        log_probabilities: Log-probabilities [..., M, C].
        labels: Labels [M].

    Raises:
        ValueError: The labels are not one class for each example.
    """
    log_probabilities = check_log_probabilities(log_probabilities, 2, 3)
    labels = check_labels(labels, *log_probabilities.shape[-2:])
    index = labels.astype(np.int64).reshape((1,) * (log_probabilities.ndim - 2) + (-1, 1))
    return -np.take_along_axis(log_probabilities, index, -1)[..., 0]


def negative_log_likelihood(
    log_probabilities: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray | None = None
) -> np.ndarray:
    """-mean over examples of log p(label), in nats; one value, or one per network.

    Args:
        log_probabilities: Log-probabilities [M, C] or [N, M, C].
        labels: Labels [M].
        sample_weight: Weights [M] of the examples; None for equal ones.

    Raises:
        ValueError: The labels are not one class for each example.
    """
    return mean_over_examples(log_losses(log_probabilities, labels), sample_weight)


def brier_scores(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """sum_c (p_c - [c = label])^2 of each example, between 0 and 2, [M].

    Args:
        log_probabilities: Log-probabilities [M, C] of one prediction.
        labels: Labels [M].

    Raises:
        ValueError: The labels are not one class for each example.

    Source: Brier 1950. `tfp.stats.brier_score` is in float32, whose steps are greater than the
    scores of networks that are sure.
    """
    log_probabilities = check_log_probabilities(log_probabilities, 2)
    labels = check_labels(labels, *log_probabilities.shape)
    errors = np.exp(log_probabilities, dtype=np.float64)
    errors[np.arange(len(labels)), labels.astype(np.int64)] -= 1.0  # bools would be a mask
    return (errors**2).sum(-1)


def brier_score(
    log_probabilities: np.ndarray, labels: np.ndarray, sample_weight: np.ndarray | None = None
) -> float:
    """Mean over examples of their `brier_scores`, between 0 and 2.

    Args:
        log_probabilities: Log-probabilities [M, C] of one prediction.
        labels: Labels [M].
        sample_weight: Weights [M] of the examples; None for equal ones.

    Raises:
        ValueError: The labels are not one class for each example.
    """
    return float(mean_over_examples(brier_scores(log_probabilities, labels), sample_weight))


def votes(predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Number of networks that choose each class, [M, C].

    Args:
        predictions: Classes [N, M], integers.
        num_classes: C.

    Raises:
        ValueError: A prediction is not a class.
    """
    predictions = _check_classes(predictions, num_classes)
    num_examples = predictions.shape[1]
    indices = predictions.astype(np.int64) + num_classes * np.arange(num_examples)
    counts = np.bincount(indices.ravel(), minlength=num_examples * num_classes)
    return counts.reshape(num_examples, num_classes)


def _check_classes(predictions: ArrayLike, num_classes: int) -> np.ndarray:
    """Predictions as an array, checked: another class would count for another example."""
    array = np.asarray(predictions)
    outside = array.size and not 0 <= array.min() <= array.max() < num_classes
    if array.dtype.kind not in "iub" or outside:
        raise ValueError(f"Predictions must be integers from 0 to {num_classes - 1}.")
    return array


def majority_vote(predictions: np.ndarray, num_classes: int) -> np.ndarray:
    """Class that most networks choose, [M]; the lowest class where several have as many votes.

    Args:
        predictions: Classes [N, M], integers.
        num_classes: C.

    Raises:
        ValueError: A prediction is not a class.

    Example:
        >>> majority_vote(np.array([[0, 1], [2, 1], [2, 0]]), 3)
        array([2, 1])
    """
    return votes(predictions, num_classes).argmax(-1)


def most_confident(log_probabilities: np.ndarray) -> np.ndarray:
    """Class with the highest probability that any network gives to a class, [M].

    Args:
        log_probabilities: Log-probabilities [N, M, C].

    Returns:
        Classes [M], of the first network where several are as sure.

    Raises:
        ValueError: These are not log-probabilities of several networks.
    """
    log_probabilities = check_log_probabilities(log_probabilities, 3)
    # By the sum of the other classes: probabilities near 1 round to 1.
    top = log_probabilities.argmax(-1)
    others = np.exp(log_probabilities, dtype=np.float64)
    np.put_along_axis(others, top[..., None], 0.0, -1)
    doubt = others.sum(-1)
    return np.take_along_axis(top, doubt.argmin(0)[None], 0)[0]


def confusion(
    predictions: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    sample_weight: np.ndarray | None = None,
) -> np.ndarray:
    """Number of examples of each class (rows) with each prediction (columns), [C, C].

    Args:
        predictions: Classes [M], integers.
        labels: Labels [M].
        num_classes: C.
        sample_weight: Weights [M] of the examples, which are summed instead of counting; or None.

    Raises:
        ValueError: The labels are not one class for each example, or a prediction is not a class.

    Example:
        >>> confusion(np.array([1, 1, 0]), np.array([0, 1, 0]), 2)
        array([[1, 1],
               [0, 1]])
    """
    labels = check_labels(labels, len(predictions), num_classes)
    check_weights(sample_weight, len(predictions))
    return count_pairs(predictions, labels, num_classes, sample_weight)


def count_pairs(
    predictions: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    sample_weight: np.ndarray | None = None,
) -> np.ndarray:
    """`confusion` of a part of the examples, whose weights may all be 0.

    Args:
        predictions: Classes [M], integers.
        labels: Labels [M].
        num_classes: C.
        sample_weight: Weights [M] of the examples; None for equal ones.
    """
    predictions = _check_classes(predictions, num_classes)
    pairs = labels.astype(np.int64) * num_classes + predictions
    counts = np.bincount(pairs, sample_weight, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def squared_errors(outputs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Squared error of each example, mean over its numbers, [N, M] or [M].

    Args:
        outputs: Predictions [N, M, ...] or [M, ...].
        values: True values [M, ...].

    Raises:
        ValueError: They have other shapes, which NumPy would pair with each other.
    """
    if outputs.shape[outputs.ndim - values.ndim :] != values.shape:
        raise ValueError(
            f"Predictions {list(outputs.shape)} and true values {list(values.shape)} do not fit "
            "together: give true values of the shape of one network's predictions."
        )
    errors = (outputs.astype(np.float64) - values) ** 2
    leading = errors.shape[: errors.ndim - values.ndim + 1]
    return errors.reshape(*leading, -1).mean(-1)
