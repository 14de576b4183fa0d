"""How good an ensemble is: functions of log-probabilities [N, M, C] and labels [M].

`N` networks, `M` examples, `C` classes. Probabilities are given as their logarithms, in nats,
so that no small one is lost. Accuracies and errors are fractions. Whether confidence is deserved is
in `calibration`, uncertainty in `uncertainty` and `detection`, likeness in `similarity`.
"""

from __future__ import annotations

import numpy as np


def mean_log_probabilities(log_probabilities: np.ndarray) -> np.ndarray:
    """Log of the mean probability over networks, [M, C]: log(1/N · sum_n exp(log p_n)).

    Args:
        log_probabilities: [N, M, C].
    """
    # A class that every network rules out has -inf, as well as its mean.
    highest = np.maximum(log_probabilities.max(0), np.finfo(log_probabilities.dtype).min)
    total = np.exp(log_probabilities - highest).sum(0, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return highest + np.log(total / len(log_probabilities))


def check_labels(labels: np.ndarray, examples: int, classes: int) -> None:
    """Refuse labels that are not one class for each example, such as those of letters or noise.

    Raises:
        ValueError: another shape, not integers, or out of range.
    """
    whole = labels.shape == (examples,) and labels.dtype.kind in "iub"
    if not whole or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels are integers [{examples}] from 0 to {classes - 1}")


def majority_vote(predictions: np.ndarray, classes: int) -> np.ndarray:
    """The class that most networks choose, [M]; of equally many, the lowest.

    Args:
        predictions: [N, M] integer classes.
        classes: C.

    Example:
        >>> majority_vote(np.array([[0, 1], [2, 1], [2, 0]]), 3)
        array([2, 1])
    """
    return votes(predictions, classes).argmax(-1)


def votes(predictions: np.ndarray, classes: int) -> np.ndarray:
    """How many networks choose each class, [M, C].

    Args:
        predictions: [N, M] integer classes.
        classes: C.
    """
    examples = predictions.shape[1]
    places = predictions.astype(np.int64) + classes * np.arange(examples)
    counts = np.bincount(places.ravel(), minlength=examples * classes)
    return counts.reshape(examples, classes)


def most_confident(log_probabilities: np.ndarray) -> np.ndarray:
    """The class chosen by the network that gives its choice the highest probability, [M].

    Of equally confident networks' choices, the lowest.

    Args:
        log_probabilities: [N, M, C].
    """
    return log_probabilities.max(0).argmax(-1)


def negative_log_likelihood(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-mean over examples of log p(label), in nats; one value, or one per network.

    Args:
        log_probabilities: [M, C] or [N, M, C].
        labels: [M].
    """
    check_labels(labels, *log_probabilities.shape[-2:])
    index = labels.reshape((1,) * (log_probabilities.ndim - 2) + (-1, 1))
    chosen = np.take_along_axis(log_probabilities, index, -1)[..., 0]
    return -chosen.mean(-1, dtype=np.float64)


def disagreement(predictions: np.ndarray, classes: int) -> float:
    """Mean over pairs of networks of the share of examples on which the two differ.

    Counted from the votes: c networks with one class make c(c-1)/2 agreeing pairs.

    Args:
        predictions: [N, M] integer classes, N >= 2.
        classes: C.

    Raises:
        ValueError: one network has no pair.
    """
    networks = len(predictions)
    if networks < 2:
        raise ValueError("disagreement needs at least 2 networks")
    counts = votes(predictions, classes).astype(np.float64)
    agreeing = (counts * (counts - 1)).sum(-1) / (networks * (networks - 1))
    return float(1.0 - agreeing.mean())


def confusion(predictions: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """How many examples of each class (rows) are taken for which class (columns), [C, C].

    Args:
        predictions: [M] integer classes.
        labels: [M].
        classes: C.

    Example:
        >>> confusion(np.array([1, 1, 0]), np.array([0, 1, 0]), 2)
        array([[1, 1],
               [0, 1]])
    """
    check_labels(labels, len(predictions), classes)
    pairs = labels.astype(np.int64) * classes + predictions
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def brier_score(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Mean over examples of sum_c (p_c - [c = label])^2, between 0 and 2.

    Args:
        log_probabilities: [M, C] of one prediction.
        labels: [M].

    Raises:
        ValueError: labels out of range.

    Source: `tfp.stats.brier_score`, which leaves out the constant 1 (Brier 1950).
    """
    check_labels(labels, *log_probabilities.shape)
    import tensorflow_probability as tfp  # takes seconds: only for those who use it

    scores = tfp.stats.brier_score(
        labels=labels.astype(np.int32), logits=log_probabilities.astype(np.float32)
    )
    return float(np.mean(scores.numpy(), dtype=np.float64) + 1.0)


# ---- functions of one chunk of examples, which `measures` averages ------------------------------


def correct(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether each network classifies each example correctly, [N, M].

    Args:
        log_probabilities: Log-probabilities [N, M, C].
        labels: Labels [M].
    """
    return log_probabilities.argmax(-1) == labels


def surprise(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """-log p(label) by each network for each example, [N, M], in nats.

    Args:
        log_probabilities: Log-probabilities [N, M, C].
        labels: Labels [M].
    """
    check_labels(labels, *log_probabilities.shape[-2:])
    return -np.take_along_axis(log_probabilities, labels[None, :, None], -1)[..., 0]


def vote_is_correct(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the majority vote is the label, [M].

    Args:
        log_probabilities: Log-probabilities [N, M, C].
        labels: Labels [M].
    """
    classes = log_probabilities.shape[-1]
    return majority_vote(log_probabilities.argmax(-1), classes) == labels


def most_confident_is_correct(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Whether the choice of the most confident network is the label, [M].

    Args:
        log_probabilities: Log-probabilities [N, M, C].
        labels: Labels [M].
    """
    return most_confident(log_probabilities) == labels


def classification_accuracy(log_probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The fraction of examples whose most probable class is the label.

    Args:
        log_probabilities: Log-probabilities [M, C] of one prediction.
        labels: Labels [M].
    """
    return float(np.mean(log_probabilities.argmax(-1) == labels))


def pairwise_disagreement(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The share of pairs of networks that choose different classes, for each example, [M].

    Args:
        log_probabilities: Log-probabilities [N, M, C], N >= 2.
        labels: Labels [M]; not used.
    """
    networks, _, classes = log_probabilities.shape
    counts = votes(log_probabilities.argmax(-1), classes).astype(np.float64)
    return 1.0 - (counts * (counts - 1)).sum(-1) / (networks * (networks - 1))


def squared_errors(outputs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The squared error of each network for each example, mean over columns, [N, M].

    Args:
        outputs: Predictions [N, M, ...].
        values: True values [M, ...].
    """
    errors = (outputs.astype(np.float64) - values) ** 2
    return errors.reshape(*errors.shape[:2], -1).mean(-1)


def squared_error_of_mean(outputs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The squared error of the mean prediction for each example, mean over columns, [M].

    Args:
        outputs: Predictions [N, M, ...].
        values: True values [M, ...].
    """
    return squared_errors(outputs.astype(np.float64).mean(0)[None], values)[0]


def spread_of_predictions(outputs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The standard deviation over networks for each example, mean over columns, [M].

    Args:
        outputs: Predictions [N, M, ...].
        values: True values [M, ...]; not used.
    """
    deviations = outputs.astype(np.float64).std(0)
    return deviations.reshape(len(deviations), -1).mean(-1)
