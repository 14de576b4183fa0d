"""Rank correlations."""

import numpy as np
import pytest
from scipy.stats import kendalltau

from reproduce.analyses.correlation import spearman


def test_it_is_that_of_the_ranks():
    one, other = [3.0, 1.0, 2.0, 9.0, 4.0], np.array([30.0, 12.0, 11.0, 80.0, 41.0])
    correlation, chance = spearman(one, other)
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    assert correlation == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert 0 < chance < 0.1
    assert np.sign(correlation) == np.sign(kendalltau(one, other).statistic)
    reverse, of_reverse = spearman(one, -other)
    assert (reverse, of_reverse) == pytest.approx((-correlation, 1 - chance))


def test_a_constant_series_has_none():
    assert spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert spearman([1.0, 2.0, 3.0], np.ones(3)) is None
