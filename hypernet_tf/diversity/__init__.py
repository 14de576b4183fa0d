"""How different the N networks of a step are: terms of the loss, and the entropy they estimate."""

from hypernet_tf.diversity.entropy import (
    kozachenko_leonenko_entropy,
    nearest_neighbour_distances,
    pairwise_distances,
)
from hypernet_tf.diversity.prior import PriorDiscriminator, PriorMoments, moment_error
from hypernet_tf.diversity.terms import (
    DiversityTerm,
    NegativeEntropy,
    NegativeLogPrior,
    NegativeOutputEntropy,
    StepRecord,
)
from hypernet_tf.diversity.trained import TrainedTerm

__all__ = [
    "DiversityTerm",
    "NegativeEntropy",
    "NegativeLogPrior",
    "NegativeOutputEntropy",
    "PriorDiscriminator",
    "PriorMoments",
    "StepRecord",
    "TrainedTerm",
    "kozachenko_leonenko_entropy",
    "moment_error",
    "nearest_neighbour_distances",
    "pairwise_distances",
]
