"""How different the N networks of a step are: terms of the loss, and the entropy behind them."""

from hypernet_tf.diversity.entropy import (
    kozachenko_leonenko_entropy,
    nearest_neighbour_distances,
    pairwise_distances,
)
from hypernet_tf.diversity.terms import (
    Batch,
    DiversityTerm,
    EnsembleLoss,
    FeatureVisualisation,
    NegativeEntropy,
    NegativeLogPrior,
    NegativeOutputEntropy,
    NegativeWeightVariance,
    TextureSynthesis,
)

__all__ = [
    "Batch",
    "DiversityTerm",
    "EnsembleLoss",
    "FeatureVisualisation",
    "NegativeEntropy",
    "NegativeLogPrior",
    "NegativeOutputEntropy",
    "NegativeWeightVariance",
    "TextureSynthesis",
    "kozachenko_leonenko_entropy",
    "nearest_neighbour_distances",
    "pairwise_distances",
]
