"""How uncertain an ensemble is about each example: log-probabilities [N, M, C] -> values [M].

The total uncertainty (`predictive_entropy`) is the mean uncertainty of the single networks
(`expected_entropy`) plus their disagreement (`mutual_information`). Probabilities of 0 add 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from scipy.special import entr

from hypernet_tf.metrics.accuracy import mean_log_probabilities


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """Scores of N networks' uncertainty about each of M examples; higher is less certain.

    Attributes:
        entropy: Entropy [M] of the mean prediction, in nats: the total uncertainty.
        expected_entropy: Mean entropy [M] of the networks' predictions, in nats: the part of the
            total that each network has (aleatoric uncertainty).
        mutual_information: Their difference [M], in nats: the part of the total that is
            disagreement of the networks (epistemic uncertainty).
        variance: Variance [M] of the probabilities over networks, summed over classes.
        least_confidence: 1 - the highest mean probability, [M].
    """

    entropy: np.ndarray
    expected_entropy: np.ndarray
    mutual_information: np.ndarray
    variance: np.ndarray
    least_confidence: np.ndarray


def measure_uncertainty(chunks: Iterable[np.ndarray]) -> Uncertainty:
    """All scores of `Uncertainty`.

    Args:
        chunks: Log-probabilities [N, b, C] of consecutive chunks of examples.
    """
    scores = [
        (
            predictive_entropy(log_p),
            expected_entropy(log_p),
            mutual_information(log_p),
            probability_variance(log_p),
            -np.expm1(np.minimum(mean_log_probabilities(log_p).max(-1), 0.0)),
        )
        for log_p in chunks
    ]
    return Uncertainty(*(np.concatenate(values) for values in zip(*scores, strict=True)))


def predictive_entropy(log_probabilities: np.ndarray) -> np.ndarray:
    """Entropy of the mean prediction: -sum_c p_c log p_c with p = 1/N sum_n p_n, in nats, [M].

    Between 0 and log C.

    Args:
        log_probabilities: Log-probabilities [N, M, C].
    """
    # In float64 before the mean: float32 loses most of the difference to the expected entropy.
    mean = mean_log_probabilities(log_probabilities.astype(np.float64))
    return entr(np.exp(mean)).sum(-1)


def expected_entropy(log_probabilities: np.ndarray) -> np.ndarray:
    """Mean over networks of their entropies: 1/N sum_n -sum_c p_nc log p_nc, in nats, [M].

    Between 0 and log C.

    Args:
        log_probabilities: Log-probabilities [N, M, C].
    """
    return entr(np.exp(log_probabilities, dtype=np.float64)).sum(-1).mean(0)


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
    if len(log_probabilities) == 1:
        return np.zeros(log_probabilities.shape[1])
    difference = predictive_entropy(log_probabilities) - expected_entropy(log_probabilities)
    return np.maximum(difference, 0.0)  # rounding


def probability_variance(log_probabilities: np.ndarray) -> np.ndarray:
    """Sum over classes of the variance over networks: sum_c 1/N sum_n (p_nc - p_c)^2, [M].

    Between 0, as for one network, and 1 - 1/N.

    Args:
        log_probabilities: Log-probabilities [N, M, C].
    """
    return np.exp(log_probabilities, dtype=np.float64).var(0).sum(-1)
