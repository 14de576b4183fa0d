"""Measures of the weights of sampled networks: entries of the table of measures."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hypernet_tf.diversity import NegativeEntropy, StepRecord
from hypernet_tf.diversity.entropy import nearest_neighbour_distances
from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.metrics import Measure, register_measure
from hypernet_tf.metrics.measures import of_weights
from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.samplers.latent import LatentSampler

NEIGHBOURS_AMONG = 10  # networks, so that ensembles of any size compare


def weight_measures(ensemble: Ensemble, sampler: WeightSampler) -> dict[str, float | None]:
    """Every measure of the kind "weights" by its key; None where it has no value.

    Args:
        ensemble: Networks of the sampler.
        sampler: The sampler.
    """
    values: dict[str, float | None] = {}
    for measure in of_weights():
        enough = measure.compute is not None and len(ensemble) >= measure.min_networks
        value = measure.compute(ensemble, sampler) if enough else None  # type: ignore[misc]
        values[measure.key] = None if value is None else float(value)
    return values


def ensemble_entropy(ensemble: Ensemble, sampler: WeightSampler) -> float | None:
    """The entropy of an ensemble's weights, as its sampler's entropy term estimates it.

    Args:
        ensemble: Networks of the sampler.
        sampler: The sampler. If it trains without an entropy term, the default term is used.

    Returns:
        The entropy in nats; None if there is no latent space, and so no dimension of the manifold
        of weights, or if there are too few networks for it.
    """
    if not isinstance(sampler, LatentSampler):
        return None
    terms = [
        term
        for term in sampler.diversity
        if isinstance(term, NegativeEntropy) and not term.uses_outputs
    ]
    term = (terms or [NegativeEntropy()])[0]
    if len(ensemble) < term.min_networks:
        return None
    theta = tf.constant(ensemble.theta())
    return float(term.entropy(StepRecord(theta, manifold_dim=sampler.manifold_dim)))


def nearest_neighbour_distance(ensemble: Ensemble, sampler: WeightSampler) -> float:
    """Mean L2 distance to the nearest of ten networks.

    Args:
        ensemble: At least ten networks.
        sampler: Has no effect.
    """
    theta = tf.constant(ensemble[:NEIGHBOURS_AMONG].theta())
    return float(np.mean(nearest_neighbour_distances(theta)))


register_measure(
    Measure(
        "entropy",
        "entropy of the networks' weights",
        "diversity",
        unit="nats",
        better="higher",
        format="{:,.1f}",
        kind="weights",
        compute=ensemble_entropy,
        description="Entropy of the sampled networks' gauged weights, as the diversity term "
        "estimates it; comparable where the latent space has the same dimension.",
    )
)
register_measure(
    Measure(
        "nearest_neighbour_distance",
        f"distance to the nearest of {NEIGHBOURS_AMONG} networks, mean",
        "diversity",
        better="higher",
        kind="weights",
        compute=nearest_neighbour_distance,
        min_networks=NEIGHBOURS_AMONG,
        description="L2 distance between the weights of networks.",
    )
)
