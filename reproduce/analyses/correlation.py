"""Rank correlations."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


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

    Args:
        one: Numbers [n].
        other: Numbers [n].
    """
    from scipy.stats import spearmanr  # slow to import

    if not (np.ptp(one) and np.ptp(other)):
        return None
    result = spearmanr(one, other, alternative="greater")
    return RankCorrelation(float(result.statistic), float(result.pvalue))
