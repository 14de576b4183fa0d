"""`Evaluation`: the measures of N networks and their ensemble on labelled examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from hypernet_tf.ensembles.examples import Chunk, unfit_weights, weights_of_choices
from hypernet_tf.metrics.accuracy import (
    check_weights,
    confusion,
    count_pairs,
    mean_log_probabilities,
)
from hypernet_tf.metrics.calibration import bin_sums, reliability_of
from hypernet_tf.metrics.measures import MEASURES, Measure, evaluation_measures

# More pairs of classes are not counted: those of a vocabulary of 30,000 would take 7 GB.
_CONFUSION_CLASSES = 1_000


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The measures of N networks and their ensemble on M examples.

    Every measure of `hypernet_tf.metrics.MEASURES` for the task is an attribute by its key, and an
    entry of `summary()`. Accuracies are fractions, likelihoods are in nats.

    Attributes:
        members: Key -> values [N], one for each network: `member_accuracy` and
            `member_negative_log_likelihood`; for regression `member_mean_squared_error`.
        ensemble: Key -> number: `majority_vote_accuracy`, `mean_probability_accuracy`,
            `negative_log_likelihood`, `expected_calibration_error`, ...; for regression
            `mean_squared_error`, `standard_deviation`. NaN where a measure is not defined.
        confusion: Number [C, C] of examples, or sum of their sample weights, of each class (rows)
            for which the class in the column has the highest mean probability; None for regression,
            and for more than 1,000 classes.
        undefined: Keys of measures that need more networks, or equal sample weights, or one choice
            among classes for each example.
        accuracy_by_choice: Accuracy of the mean probability for each label [L], for each pixel
            [height, width], or for each label of each pixel [height, width, L]; NaN for a choice
            that a mask leaves out of all examples. None unless each example has several choices,
            the same ones.

    Where each example has several choices among classes (L labels, the pixels of a class map, or
    both), measures are means over all choices of all examples, and `exact_match` and
    `member_exact_match` count the examples of which all choices are right. Choices that a Keras
    mask leaves out do not count.

    Example:
        >>> result = ensemble.evaluate(x_test, y_test)
        >>> result.member_accuracy.mean(), result.majority_vote_accuracy
        >>> result.summary()["negative_log_likelihood"]
    """

    members: dict[str, np.ndarray]
    ensemble: dict[str, float]
    confusion: np.ndarray | None = None
    undefined: frozenset[str] = frozenset()
    accuracy_by_choice: np.ndarray | None = None

    def __getattr__(self, key: str) -> Any:
        """A measure by its key: values [N] of the networks, or a number of the ensemble."""
        if key not in ("members", "ensemble"):  # missing while the object is copied or unpickled
            for values in (self.members, self.ensemble):
                if key in values:
                    return values[key]
        raise AttributeError(f"This evaluation has no measure '{key}'.")

    def __len__(self) -> int:
        """N."""
        return len(next(iter(self.members.values())))

    def __str__(self) -> str:
        """One line for each measure."""
        values = self.summary().items()
        lines = [f"{MEASURES[key].heading}: {MEASURES[key].text(value)}" for key, value in values]
        return "\n".join([f"{len(self)} networks", *lines])

    def summary(self) -> dict[str, float | None]:
        """Key -> number for every measure, in the order of the table; None where it is not defined.

        The number of a measure with one value for each network is their mean.
        """
        means = {key: float(values.mean()) for key, values in self.members.items()}
        numbers: dict[str, float] = means | self.ensemble
        return {
            key: None if key in self.undefined else numbers[key]
            for key in MEASURES
            if key in numbers
        }


def numeric_values(y: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """True values of a regression [M, ...].

    Args:
        y: Numbers [M, ...].
        counted: Which steps count, [M, ...]; None for all. The values of others may be anything.

    Raises:
        ValueError: Some of them are NaN or infinite.
    """
    y = np.asarray(y)
    if y.dtype.kind != "f":
        return y
    finite = np.isfinite(y)
    if counted is not None:
        finite = finite | ~counted.reshape(*counted.shape, *[1] * (y.ndim - counted.ndim))
    wrong = ~finite.reshape(len(y), -1).all(1)
    if wrong.any():
        raise ValueError(
            f"{wrong.sum()} of {len(y)} true values are NaN or infinite, the first of them number "
            f"{wrong.argmax()}: remove these examples."
        )
    return y


def integer_labels(
    y: np.ndarray, counted: np.ndarray | None = None, *, num_classes: int, shape: tuple = ()
) -> np.ndarray:
    """Classes of all choices of each example as integers [M, *shape].

    Args:
        y: Integers [M, *shape] or [M, *shape, 1], or one-hot [M, *shape, C].
        counted: Which choices count, [M, ...]; None for all. The others may be anything, and
            become 0.
        num_classes: C.
        shape: Shape of the choices of an example: () for one, (L,), (height, width) or (height,
            width, L); None for an axis of any size.

    Raises:
        ValueError: The classes are neither, or out of range.
    """
    left_out = np.zeros([1] * (len(shape) + 1), bool)
    if counted is not None and counted.ndim <= left_out.ndim:
        left_out = ~counted.reshape(*counted.shape, *[1] * (left_out.ndim - counted.ndim))
    if y.ndim == len(shape) + 2:
        if y.shape[-1] == 1:
            y = y[..., 0]
        elif y.shape[-1] == num_classes:
            one_hot = np.isin(y, (0, 1)).all(-1) & (y.sum(-1) == 1)
            y = y.argmax(-1) if (one_hot | left_out).all() else y
    if y.ndim == left_out.ndim and left_out.any():
        y = np.where(left_out, 0, y)
    same = y.ndim == len(shape) + 1 and all(
        size in (None, given) for size, given in zip(shape, y.shape[1:], strict=True)
    )
    if not same or y.dtype.kind not in "iubf" or not np.isin(y, range(num_classes)).all():
        raise ValueError(
            f"Labels must be integers from 0 to {num_classes - 1}"
            + (
                f" of shape {list(shape)} for each example; to compare other values, use "
                "Target(model, outputs='values')."
                if shape
                else ", one for each example, or one-hot rows."
            )
        )
    return y.astype(np.int64, copy=False)


def evaluate(runs: Iterable[tuple[np.ndarray, Chunk]], num_classes: int | None) -> Evaluation:
    """Evaluate classifiers or regressors.

    Args:
        runs: Log-probabilities [N, b, C], or values [N, b, ...] for regression, and the examples
            with labels, of consecutive chunks of examples. Values may have weights [b, ...] of
            the steps of each example.
        num_classes: C; None for regression.

    Raises:
        ValueError: There are not as many true values as predictions; or sample weights are
            negative, not finite, or all 0.
    """
    measures = evaluation_measures("regression" if num_classes is None else "classification")
    averaged = [measure for measure in measures if measure.kind in ("member", "example")]
    totals: dict[str, Any] = dict.fromkeys((measure.key for measure in averaged), 0.0)
    means, labels, weights = [], [], []
    num_networks, unit, weighted_runs = 0, 0.0, False
    for outputs, examples in runs:
        num_networks = len(outputs)
        if num_classes is None:
            outputs, examples = _steps_as_examples(outputs, examples)
        y, sample_weight = examples.y, examples.sample_weight
        weighted_runs |= sample_weight is not None
        # In float64: ratios of half precision would be rounded.
        ones = np.ones(len(y))
        sample_weight = ones if sample_weight is None else np.asarray(sample_weight, np.float64)
        # Relative to the first weight above 0, equal weights are exactly 1.
        unit = unit or float(sample_weight[np.argmax(sample_weight > 0)])
        relative = sample_weight / (unit or 1.0)
        weights.append(sample_weight)
        for measure in averaged:
            if num_networks >= measure.min_networks:
                totals[measure.key] += _weighted_sum(_computed(measure, outputs, y), relative)
        if num_classes is not None:
            labels.append(y)
            means.append(mean_log_probabilities(outputs))

    num_examples = sum(map(len, weights))
    all_weights = np.concatenate(weights) if weighted_runs else None
    different = check_weights(all_weights, num_examples)  # None if they are equal
    size = num_examples if different is None else (different / unit).sum()
    mean = np.concatenate(means) if means else None
    all_labels = np.concatenate(labels) if labels else np.array([])  # none for regression
    weighted = {} if different is None else {"sample_weight": different}

    undefined = frozenset(
        measure.key
        for measure in measures
        if num_networks < measure.min_networks or not (measure.weighted or different is None)
    )

    def value_of(measure: Measure) -> Any:
        if measure.kind == "prediction":
            return _computed(measure, mean, all_labels, **weighted)
        return totals[measure.key] / size

    counts = None
    if mean is not None and num_classes is not None and num_classes <= _CONFUSION_CLASSES:
        counts = confusion(mean.argmax(-1), all_labels, num_classes, all_weights)
    return _evaluation(measures, num_networks, undefined, value_of, confusion=counts)


def evaluate_choices(runs: Iterable[tuple[np.ndarray, Chunk]], num_classes: int) -> Evaluation:
    """Evaluate networks with several choices among classes for each example: labels, or pixels.

    One chunk at a time is in memory.

    Args:
        runs: Log-probabilities [N, b, ..., C] and the examples with labels [b, ...], of consecutive
            chunks of examples. Their weights are those of examples [b], or of choices [b, ...].
        num_classes: C.

    Raises:
        ValueError: Sample weights are negative, not finite, or all 0.
    """
    measures = evaluation_measures("choices")
    totals: dict[str, Any] = dict.fromkeys((measure.key for measure in measures), 0.0)
    bins: Any = 0.0
    counts: Any = 0 if num_classes <= _CONFUSION_CLASSES else None
    right: dict[tuple, Any] = {}  # shape of the choices -> weight of the right ones, and of all
    num_choices, num_examples, weights, num_networks = 0.0, 0.0, [], 0
    lowest, highest = np.inf, 0.0  # weights of choices
    for outputs, examples in runs:
        num_networks = len(outputs)
        check_choices(examples.y, outputs)
        y = examples.y.reshape(-1)
        flat = outputs.reshape(num_networks, -1, num_classes)
        each = weights_of_choices(examples)
        if not (np.isfinite(each) & (each >= 0)).all():
            raise ValueError("Sample weights must be finite numbers of at least 0.")
        lowest, highest = min(lowest, each.min()), max(highest, each.max())
        weight = each.max(-1)  # of the examples, 0 where no choice counts
        weights.append(weight)
        mean = mean_log_probabilities(flat)
        for measure in measures:
            if num_networks < measure.min_networks:
                continue
            if measure.kind in ("member", "example"):
                values = _computed(measure, flat, y)
            elif measure.of_example is not None:
                values = measure.of_example(mean, y)
            else:
                continue
            if measure.all_choices:
                values = values.reshape(*values.shape[:-1], *each.shape) | (each == 0)
                totals[measure.key] += _weighted_sum(values.all(-1), weight)
            else:
                totals[measure.key] += _weighted_sum(values, each.ravel())
        bins = bins + bin_sums(mean, y, sample_weight=each.ravel())
        predictions = mean.argmax(-1)
        if counts is not None:
            of_pairs = None if examples.sample_weight is None else each.ravel()
            counts = counts + count_pairs(predictions, y, num_classes, of_pairs)
        is_right = (predictions == y).reshape(each.shape)
        sums = np.stack([(each * is_right).sum(0), each.sum(0)]).reshape(2, *examples.y.shape[1:])
        right[sums.shape] = right.get(sums.shape, 0.0) + sums
        num_choices += each.sum()
        num_examples += weight.sum()
    check_weights(np.concatenate(weights), sum(map(len, weights)))

    undefined = frozenset(
        measure.key
        for measure in measures
        if num_networks < measure.min_networks
        or not (measure.weighted or lowest == highest)
        or (measure.kind == "prediction" and not (measure.of_example or measure.of_bins))
    )

    def value_of(measure: Measure) -> Any:
        if measure.of_bins is not None:
            return measure.of_bins(reliability_of(bins))
        return totals[measure.key] / (num_examples if measure.all_choices else num_choices)

    by_choice = None
    if len(right) == 1:
        ((correct, all_of_them),) = right.values()
        with np.errstate(invalid="ignore"):  # a choice that no example has: 0 / 0
            by_choice = correct / all_of_them
    fields = {"confusion": counts, "accuracy_by_choice": by_choice}
    return _evaluation(measures, num_networks, undefined, value_of, **fields)


def _evaluation(
    measures: Iterable[Measure],
    num_networks: int,
    undefined: frozenset[str],
    value_of: Callable[[Measure], Any],
    **fields: np.ndarray | None,
) -> Evaluation:
    """The evaluation with the values of all measures.

    Args:
        measures: The measures; a summary stands behind those that it takes.
        num_networks: N.
        undefined: Keys of measures that are not defined.
        value_of: The value of a measure that is not a summary.
        **fields: Further fields of the evaluation.
    """
    members: dict[str, np.ndarray] = {}
    ensemble: dict[str, float] = {}
    for measure in measures:
        if measure.key in undefined:
            value: Any = np.full(num_networks if measure.kind == "member" else (), np.nan)
        elif measure.kind == "summary":
            value = _computed(measure, Evaluation(members, ensemble))
        else:
            value = value_of(measure)
        if measure.kind == "member":
            members[measure.key] = value
        else:
            ensemble[measure.key] = float(value)
    return Evaluation(members, ensemble, undefined=undefined, **fields)


def check_choices(y: np.ndarray, log_p: np.ndarray) -> None:
    """Check that there is a class for each choice of each example.

    Args:
        y: Classes [b, ...].
        log_p: Log-probabilities [N, b, ..., C].

    Raises:
        ValueError: There is not.
    """
    if y.shape[1:] != log_p.shape[2:-1]:
        raise ValueError(
            f"Labels of shape {list(y.shape[1:])} do not match predictions of shape "
            f"{list(log_p.shape[2:-1])}."
        )


def _like_predictions(values: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    def sizes(shape: tuple[int, ...]) -> list[int]:
        return [size for size in shape if size != 1]

    if sizes(values.shape[1:]) != sizes(outputs.shape[2:]):
        raise ValueError(
            f"Values of shape {list(values.shape[1:])} do not match predictions of shape "
            f"{list(outputs.shape[2:])}: reshape them; or if they are classes, make the target "
            "with Target(model, outputs='logits')."
        )
    return values.reshape(outputs.shape[1:])


def _steps_as_examples(outputs: np.ndarray, examples: Chunk) -> tuple[np.ndarray, Chunk]:
    """Values of the outputs' shape; where steps have weights, each step as an example of its own.

    Args:
        outputs: Values [N, b, ...].
        examples: Examples with true values and, if there are any, weights [b] or [b, ...].
    """
    y, weights = _like_predictions(examples.y, outputs), examples.sample_weight
    if weights is None or weights.ndim == 1:
        return outputs, examples._replace(y=y)
    if weights.ndim > y.ndim:
        raise unfit_weights(weights, y.shape, "predictions")
    steps, of_a_step = y.shape[: weights.ndim], y.shape[weights.ndim :]
    return outputs.reshape(len(outputs), -1, *of_a_step), Chunk(
        None, y.reshape(-1, *of_a_step), np.broadcast_to(weights, steps).ravel()
    )


def _computed(measure: Measure, *arguments: Any, **options: Any) -> Any:
    assert measure.compute is not None
    return measure.compute(*arguments, **options)


def _weighted_sum(values: np.ndarray, weights: np.ndarray) -> Any:
    """Sum over examples, the last axis; weights that are all 1 do not change its rounding."""
    if (weights != 1.0).any():
        return np.where(weights == 0, 0, values) @ weights  # which may be infinite, as 0 times it
    if values.dtype == bool:
        return values.sum(-1)
    return values.mean(-1, dtype=np.float64) * values.shape[-1]
