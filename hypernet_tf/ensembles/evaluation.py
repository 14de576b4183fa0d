"""How N networks and their ensemble do on labelled examples, gathered over chunks of examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hypernet_tf.metrics import accuracy
from hypernet_tf.metrics.measures import MEASURES, evaluation_measures


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The measures of N networks and their ensemble on M examples.

    Every measure of `hypernet_tf.metrics.MEASURES` for the task is an attribute by its key, and an
    entry of `summary()`: accuracies are fractions, likelihoods nats.

    Attributes:
        members: Key -> values [N], one for each network: `member_accuracy` and
            `member_negative_log_likelihood`; for regression `member_mean_squared_error`.
        ensemble: Key -> number: `majority_vote_accuracy`, `mean_probability_accuracy`,
            `negative_log_likelihood`, `expected_calibration_error`, ...; for regression
            `mean_squared_error`, `standard_deviation`. NaN where there are too few networks.
        confusion: Counts [C, C]: how many examples of each class (rows) get which class with the
            highest mean probability (columns); None for regression.

    Example:
        >>> result = ensemble.evaluate(x_test, y_test)
        >>> result.member_accuracy.mean(), result.majority_vote_accuracy
        >>> result.summary()["negative_log_likelihood"]
    """

    members: dict[str, np.ndarray]
    ensemble: dict[str, float]
    confusion: np.ndarray | None = None

    def __getattr__(self, key: str) -> Any:
        """A measure by its key: [N] of the networks, or a number of the ensemble."""
        if key not in ("members", "ensemble"):  # which copying and pickling look for early
            for values in (self.members, self.ensemble):
                if key in values:
                    return values[key]
        raise AttributeError(f"this evaluation has no measure '{key}'")

    def __len__(self) -> int:
        """N."""
        return len(next(iter(self.members.values())))

    def summary(self) -> dict[str, float | None]:
        """Key -> number for every measure, that of the networks being their mean.

        A measure that needs more networks is None.
        """
        numbers: dict[str, float | None] = {}
        for key in (*self.members, *self.ensemble):
            measure = MEASURES[key]
            value = self.members[key].mean() if measure.kind == "member" else self.ensemble[key]
            numbers[key] = None if len(self) < measure.least_networks else float(value)
        return {key: numbers[key] for key in MEASURES if key in numbers}


def integer_labels(y: np.ndarray, classes: int) -> np.ndarray:
    """Labels as integers [M].

    Args:
        y: integers [M] or [M, 1], or one-hot [M, C].
        classes: C.

    Raises:
        ValueError: the labels are of another kind, or out of range.
    """
    if y.ndim == 2 and y.shape[1] == classes:
        one_hot = np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all()
        labels = y.argmax(-1) if one_hot else None
    else:
        whole = y.dtype.kind in "iub" or (y.dtype.kind == "f" and np.isin(y, range(classes)).all())
        labels = y.reshape(-1).astype(np.int64) if whole and y.size == len(y) else None
    if labels is None or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"labels are integers from 0 to {classes - 1}, one per example, or one-hot rows"
        )
    return labels


def evaluate_classes(
    parts: Iterable[tuple[int, np.ndarray]], labels: np.ndarray, classes: int
) -> Evaluation:
    """Evaluate classifiers.

    Args:
        parts: Chunks of examples in order: the index of the first one, and log-probabilities
            [N, b, C].
        labels: Labels [M], integers.
        classes: C.
    """
    means: list[np.ndarray] = []

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first, log_p in parts:
            means.append(accuracy.mean_log_probabilities(log_p))
            yield log_p, labels[first : first + log_p.shape[1]]

    members, ensemble = _averages("classification", chunks(), len(labels))
    mean = np.concatenate(means)
    for measure in evaluation_measures("classification"):
        if measure.kind == "prediction":
            assert measure.compute is not None
            ensemble[measure.key] = float(measure.compute(mean, labels))
    return _summarised(members, ensemble, accuracy.confusion(mean.argmax(-1), labels, classes))


def evaluate_values(parts: Iterable[tuple[int, np.ndarray]], y: np.ndarray) -> Evaluation:
    """Evaluate regressors.

    Args:
        parts: Chunks of examples in order: the index of the first one, and predictions [N, b, ...].
        y: True values [M, ...].

    Raises:
        ValueError: There are not as many values as predictions.
    """

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for first, outputs in parts:
            values = y[first : first + outputs.shape[1]]
            if values.size != outputs[0].size:
                raise ValueError(
                    f"values of shape {list(y.shape[1:])} for predictions of shape "
                    f"{list(outputs.shape[2:])}"
                )
            yield outputs, values.reshape(outputs.shape[1:])

    return _summarised(*_averages("regression", chunks(), len(y)))


def _averages(
    task: str, chunks: Iterable[tuple[np.ndarray, np.ndarray]], size: int
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """The measures that are means over examples: those of the networks [N], and the others."""
    totals: dict[str, Any] = {}
    measures = [m for m in evaluation_measures(task) if m.kind in ("member", "example")]
    for outputs, labels in chunks:
        for measure in measures:
            if len(outputs) < measure.least_networks:
                totals[measure.key] = np.nan
                continue
            assert measure.compute is not None
            values = measure.compute(outputs, labels)
            # Counts are added as whole numbers; others are averaged in float64.
            total = (
                values.sum(-1)
                if values.dtype == bool
                else values.mean(-1, dtype=np.float64) * values.shape[-1]
            )
            totals[measure.key] = totals.get(measure.key, 0.0) + total
    members = {m.key: totals[m.key] / size for m in measures if m.kind == "member"}
    ensemble = {m.key: float(totals[m.key] / size) for m in measures if m.kind == "example"}
    return members, ensemble


def _summarised(
    members: dict[str, np.ndarray],
    ensemble: dict[str, float],
    confusion: np.ndarray | None = None,
) -> Evaluation:
    """The evaluation with the measures that are functions of it."""
    result = Evaluation(members, ensemble, confusion)
    task = "regression" if confusion is None else "classification"
    for measure in evaluation_measures(task):
        if measure.kind == "summary":
            assert measure.compute is not None
            enough = len(result) >= measure.least_networks
            ensemble[measure.key] = measure.compute(result) if enough else float("nan")
    return result
