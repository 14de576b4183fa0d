"""Rank correlations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# Seven numbers have fewer orders: their probabilities are exact.
_PERMUTATIONS = 9_999


class RankCorrelation(NamedTuple):
    """Spearman's rank correlation.

    Attributes:
        statistic: The correlation, -1 to 1.
        chance: Probability of such a correlation, or a greater one, where there is none.
    """

    statistic: float
    chance: float


def spearman(one: ArrayLike, other: ArrayLike) -> RankCorrelation | None:
    """Rank correlation of two series; None if one of them is constant, so that there is none.

    Its probability by chance is that of random orders: all of them for few numbers, 9,999 for more.

    Args:
        one: Numbers [n].
        other: Numbers [n].
    """
    from scipy.stats import permutation_test, rankdata  # slow to import

    if not (np.ptp(one) and np.ptp(other)):
        return None
    ranks = rankdata(other)

    def correlation(permuted: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.apply_along_axis(lambda row: np.corrcoef(row, ranks)[0, 1], axis, permuted)

    result = permutation_test(
        (rankdata(one),),
        correlation,
        permutation_type="pairings",
        alternative="greater",
        n_resamples=_PERMUTATIONS,
        rng=0,
    )
    return RankCorrelation(float(result.statistic), float(result.pvalue))
