"""How unsure an ensemble is of each example, from log-probabilities [N, M, C]: values [M].

The whole (`predictive_entropy`) is what each network is unsure of by itself (`expected_entropy`)
plus what the networks do not agree on (`mutual_information`). A class of probability 0 adds 0.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
from scipy.special import entr

from hypernet_tf.metrics import accuracy as metrics


@dataclasses.dataclass(frozen=True)
class Uncertainty:
    """How unsure N networks are of each of M examples, several ways: [M] each, more is less sure.

    Attributes:
        entropy: of the mean prediction, in nats: the whole uncertainty.
        expected_entropy: in nats: the part of it that each network has by itself.
        mutual_information: in nats: the part of it that is disagreement of the networks.
        variance: of the probabilities over networks, summed over classes.
        least_confidence: 1 - the highest mean probability.
    """

    entropy: np.ndarray
    expected_entropy: np.ndarray
    mutual_information: np.ndarray
    variance: np.ndarray
    least_confidence: np.ndarray


def measure(parts: Iterable[np.ndarray]) -> Uncertainty:
    """Every measure of this file.

    Args:
        parts: log-probabilities [N, b, C] over chunks of examples, in order.
    """
    found = [
        (
            predictive_entropy(part),
            expected_entropy(part),
            mutual_information(part),
            probability_variance(part),
            -np.expm1(np.minimum(metrics.mean_log_probabilities(part).max(-1), 0.0)),
        )
        for part in parts
    ]
    return Uncertainty(*(np.concatenate(values) for values in zip(*found, strict=True)))


def predictive_entropy(log_probabilities: np.ndarray) -> np.ndarray:
    """Entropy of the mean prediction: -sum_c p_c log p_c with p = 1/N sum_n p_n, in nats, [M].

    Between 0 and log C.

    Args:
        log_probabilities: [N, M, C].
    """
    # In float64 before the mean: float32 keeps too little of the difference to the expected one.
    mean = metrics.mean_log_probabilities(log_probabilities.astype(np.float64))
    return entr(np.exp(mean)).sum(-1)


def expected_entropy(log_probabilities: np.ndarray) -> np.ndarray:
    """Mean over networks of each one's entropy: 1/N sum_n -sum_c p_nc log p_nc, in nats, [M].

    Between 0 and log C.

    Args:
        log_probabilities: [N, M, C].
    """
    return entr(np.exp(log_probabilities, dtype=np.float64)).sum(-1).mean(0)


def mutual_information(log_probabilities: np.ndarray) -> np.ndarray:
    """Of class and network: predictive minus expected entropy, in nats, [M] (BALD).

    Between 0, as for one network, and log N. Equally the mean over networks of the
    Kullback-Leibler divergence from the mean prediction, the networks' joint Jensen-Shannon
    divergence.

    Args:
        log_probabilities: [N, M, C].

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
        log_probabilities: [N, M, C].
    """
    return np.exp(log_probabilities, dtype=np.float64).var(0).sum(-1)
