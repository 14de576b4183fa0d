"""How uncertain an ensemble is about each example, and the one table of these scores.

Scores are functions of log-probabilities [N, M, C] with values [M]; the energy is one of logits
[N, M, C]. The total uncertainty (`predictive_entropy`) is the mean uncertainty of the single
networks (`expected_entropy`) plus their disagreement (`mutual_information`). Probabilities of 0
add 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hypernet_tf.metrics.accuracy import check_log_probabilities, concatenated


class Predictions(NamedTuple):
    """What N networks predict for M examples.

    Where each example has several choices among classes, they are the axes before the last one:
    [N, M, labels, 2], [N, M, height, width, C].

    Attributes:
        log_probabilities: Log-probabilities [N, M, C], in nats.
        logits: Logits [N, M, C], divided by the temperature; None unless the networks return one
            logit for each class.
    """

    log_probabilities: np.ndarray
    logits: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Score:
    """One score of uncertainty: its name, and how it is computed. Higher is less certain.

    Attributes:
        key: Name in code, JSON, rows of tables and exported models.
        title: Title in tables and figures, without the unit.
        compute: Function of log-probabilities, a float64 tensor [N, M, C], that returns scores [M];
            exported models contain it.
        unit: Unit of the score.
        of_logits: Whether the function takes logits instead of log-probabilities.
        is_drawn: Whether analyses draw figures of it; their tables have all scores.
        min_networks: 2 for a score of disagreement, which one network does not have: its is 0.
    """

    key: str
    title: str
    compute: Callable[[tf.Tensor], tf.Tensor]
    unit: str = ""
    of_logits: bool = False
    is_drawn: bool = True
    min_networks: int = 1

    @property
    def name(self) -> str:
        """The key in words."""
        return self.key.replace("_", " ")

    def of_array(self, values: np.ndarray) -> np.ndarray:
        """The scores [...] of log-probabilities or logits, an array [N, ..., C].

        They are computed in float64: float32 loses most of the difference between the entropies.

        Args:
            values: The log-probabilities, or the logits.
        """
        return _of_array(self.compute, values)

    @property
    def heading(self) -> str:
        """The title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Scores of N networks' uncertainty about each of M examples; higher is less certain.

    Every score of `hypernet_tf.metrics.SCORES` is an attribute by its key:

    * `entropy`: Entropy of the mean prediction, in nats: the total uncertainty.
    * `expected_entropy`: Mean entropy of the networks' predictions, in nats: the part of the total
      that each network has (aleatoric uncertainty).
    * `mutual_information`: Their difference, in nats: the part of the total that is disagreement of
      the networks (epistemic uncertainty).
    * `variance`: Variance of the probabilities over networks, summed over classes.
    * `least_confidence`: 1 - the highest mean probability.
    * `variation_ratio`: Share of the networks that do not choose the most frequent class.
    * `energy`: Free energy of the mean logits, in nats; only for networks that return one logit for
      each class.

    Attributes:
        scores: Key -> scores [M], in the order of the table; [M, labels] for labels, and maps
            [M, height, width] for class maps.
    """

    scores: dict[str, np.ndarray]

    def __getattr__(self, key: str) -> np.ndarray:
        """Scores [M] by their key."""
        if key == "scores":  # missing while the object is copied or unpickled
            raise AttributeError(key)
        if key in self.scores:
            return self.scores[key]
        if key in SCORES:
            raise AttributeError(
                f"There is no {key} of these networks, which do not return one logit for each "
                "class: use a model without its last softmax or sigmoid, or another score."
            )
        raise AttributeError(f"There is no score '{key}': choose one of {', '.join(self.scores)}.")


def measure_uncertainty(predictions: Predictions | Iterable[Predictions]) -> Uncertainty:
    """All scores of `Uncertainty`.

    Args:
        predictions: Predictions for all examples, or for consecutive chunks of them.

    Example:
        >>> measure_uncertainty(ensemble.predictions(x_test)).entropy
    """
    chunks = [predictions] if isinstance(predictions, Predictions) else predictions
    parts = [
        {
            key: score.of_array(values)
            for key, score in SCORES.items()
            if (values := _inputs(score, *chunk)) is not None
        }
        for chunk in chunks
    ]
    return Uncertainty({key: concatenated([part[key] for part in parts]) for key in parts[0]})


def uncertainty_in_graph(
    log_probabilities: tf.Tensor, logits: tf.Tensor | None
) -> dict[str, tf.Tensor]:
    """All scores of `Uncertainty` in TensorFlow, each [M], by key.

    Args:
        log_probabilities: Log-probabilities [N, M, C].
        logits: Logits [N, M, C], or None; see `Predictions`.
    """
    return {
        key: tf.cast(score.compute(tf.cast(values, tf.float64)), tf.float32)
        for key, score in SCORES.items()
        if (values := _inputs(score, log_probabilities, logits)) is not None
    }


def _inputs(score: Score, log_probabilities: Any, logits: Any) -> Any:
    return logits if score.of_logits else log_probabilities


def _of_array(compute: Callable[[tf.Tensor], tf.Tensor], values: np.ndarray) -> np.ndarray:
    flat = tf.constant(values.reshape(len(values), -1, values.shape[-1]), tf.float64)
    return compute(flat).numpy().reshape(values.shape[1:-1])


def predictive_entropy(log_probabilities: np.ndarray) -> np.ndarray:
    """Entropy of the mean prediction: -sum_c p_c log p_c with p = 1/N sum_n p_n, in nats, [M].

    Between 0 and log C.

    Args:
        log_probabilities: Log-probabilities [N, M, C].
    """
    return _of_array(_predictive_entropy, check_log_probabilities(log_probabilities, 3, 4, 5, 6))


def expected_entropy(log_probabilities: np.ndarray) -> np.ndarray:
    """Mean over networks of their entropies: 1/N sum_n -sum_c p_nc log p_nc, in nats, [M].

    Between 0 and log C.

    Args:
        log_probabilities: Log-probabilities [N, M, C].
    """
    return _of_array(_expected_entropy, check_log_probabilities(log_probabilities, 3, 4, 5, 6))


def mutual_information(log_probabilities: np.ndarray) -> np.ndarray:
    """Mutual information of class and network: predictive minus expected entropy, in nats, [M].

    Between 0, as for one network, and log N. It equals the mean over networks of the
    Kullback-Leibler divergence from the mean prediction, the joint Jensen-Shannon divergence of the
    networks. Known as BALD.

    Args:
        log_probabilities: Log-probabilities [N, M, C].

    Source: Houlsby et al. 2011, "Bayesian Active Learning for Classification and Preference
    Learning", equation 2.
    """
    return _of_array(_mutual_information, check_log_probabilities(log_probabilities, 3, 4, 5, 6))


def probability_variance(log_probabilities: np.ndarray) -> np.ndarray:
    """Sum over classes of the variance over networks: sum_c 1/N sum_n (p_nc - p_c)^2, [M].

    Between 0, as for one network, and 1 - 1/N.

    Args:
        log_probabilities: Log-probabilities [N, M, C].
    """
    return _of_array(_probability_variance, check_log_probabilities(log_probabilities, 3, 4, 5, 6))


def least_confidence(log_probabilities: np.ndarray) -> np.ndarray:
    """1 - max_c p_c with p = 1/N sum_n p_n, [M].

    Between 0 and 1 - 1/C. It orders examples as minus the maximum probability does.

    Args:
        log_probabilities: Log-probabilities [N, M, C].

    Source: Hendrycks and Gimpel 2017, "A Baseline for Detecting Misclassified and
    Out-of-Distribution Examples in Neural Networks".
    """
    return _of_array(_least_confidence, check_log_probabilities(log_probabilities, 3, 4, 5, 6))


def variation_ratio(log_probabilities: np.ndarray) -> np.ndarray:
    """Share of the networks that do not choose the most frequent class: 1 - max_c v_c / N, [M].

    Between 0, as for one network, and 1 - 1/N. v_c is the number of networks whose most probable
    class is c.

    Args:
        log_probabilities: Log-probabilities [N, M, C].

    Source: Freeman 1965, "Elementary Applied Statistics"; Gal 2016, "Uncertainty in Deep Learning",
    equation 3.19.
    """
    return _of_array(_variation_ratio, check_log_probabilities(log_probabilities, 3, 4, 5, 6))


def energy(logits: np.ndarray) -> np.ndarray:
    """Free energy of the mean logits: -log sum_c exp(f_c) with f = 1/N sum_n f_n, in nats, [M].

    The mean of the logits has a higher energy than the networks have on average, the more so the
    more they disagree. A constant that is added to all logits of an example changes its energy and
    no probability, so that the training does not set the energy's scale. It has no bounds.

    Args:
        logits: Logits [N, M, C].

    Source: Liu et al. 2020, "Energy-based Out-of-distribution Detection", equation 4, at
    temperature 1; for an ensemble of the mean logits, as `EnergyCriterion` of Torch-Uncertainty.
    """
    logits = np.asarray(logits)
    if logits.ndim < 3:
        raise ValueError(
            f"Logits have the shape {list(logits.shape)}: give [networks, examples, classes]."
        )
    return _of_array(_energy, logits)


# ---- the formulas ------------------------------------------------------------------------------


def _over_networks(values: tf.Tensor) -> tf.Tensor:
    """The mean [M] of values [N, M]; of equal values the value itself, without rounding."""
    return values[0] + tf.reduce_mean(values - values[0], 0)


def _mean(log_p: tf.Tensor) -> tf.Tensor:
    """Logarithms [M, C] of the mean probabilities; of equal networks their own."""
    highest = tf.maximum(tf.reduce_max(log_p, 0), log_p.dtype.min)
    return highest + tf.math.log(tf.reduce_mean(tf.exp(log_p - highest), 0))


def _entropy(log_p: tf.Tensor) -> tf.Tensor:
    """-sum_c p_c log p_c; a probability of 0 adds 0."""
    return tf.reduce_sum(tf.math.multiply_no_nan(-log_p, tf.exp(log_p)), -1)


def _predictive_entropy(log_p: tf.Tensor) -> tf.Tensor:
    return _entropy(_mean(log_p))


def _expected_entropy(log_p: tf.Tensor) -> tf.Tensor:
    return _over_networks(_entropy(log_p))


def _mutual_information(log_p: tf.Tensor) -> tf.Tensor:
    # Rounding may make the difference negative.
    return tf.maximum(_predictive_entropy(log_p) - _expected_entropy(log_p), 0.0)


def _probability_variance(log_p: tf.Tensor) -> tf.Tensor:
    p = tf.exp(log_p)
    return tf.reduce_sum(tf.math.reduce_variance(p - p[:1], 0), -1)  # exactly 0 for equal networks


def _least_confidence(log_p: tf.Tensor) -> tf.Tensor:
    # The sum of the other classes: a probability near 1 rounds to 1.
    p = tf.exp(_mean(log_p))
    others = tf.one_hot(tf.argmax(p, -1), p.shape[-1], on_value=0.0, off_value=1.0, dtype=p.dtype)
    return tf.reduce_sum(p * others, -1)


def _variation_ratio(log_p: tf.Tensor) -> tf.Tensor:
    chosen = tf.one_hot(tf.argmax(log_p, -1), log_p.shape[-1], dtype=log_p.dtype)
    return 1.0 - tf.reduce_max(tf.reduce_mean(chosen, 0), -1)


def _energy(logits: tf.Tensor) -> tf.Tensor:
    return -tf.reduce_logsumexp(tf.reduce_mean(logits, 0), -1)


_TABLE = (
    Score("entropy", "entropy of the mean prediction", _predictive_entropy, unit="nats"),
    Score(
        "expected_entropy",
        "entropy of the networks' predictions, mean",
        _expected_entropy,
        unit="nats",
        is_drawn=False,
    ),
    Score(
        "mutual_information",
        "mutual information of class and network",
        _mutual_information,
        unit="nats",
        min_networks=2,
    ),
    Score("variance", "variance of the probabilities", _probability_variance, min_networks=2),
    Score("least_confidence", "1 - highest mean probability", _least_confidence),
    Score(
        "variation_ratio",
        "share of the networks that do not choose the most frequent class",
        _variation_ratio,
        is_drawn=False,
        min_networks=2,
    ),
    Score("energy", "free energy of the mean logits", _energy, unit="nats", of_logits=True),
)

SCORES: dict[str, Score] = {score.key: score for score in _TABLE}
"""Key -> score, for everything that computes, exports, tabulates or draws scores."""
