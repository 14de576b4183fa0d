"""Rank correlations."""

import itertools

import numpy as np
import pytest
from scipy.stats import kendalltau, rankdata, spearmanr

from reproduce.studies.correlation import spearman


def test_it_is_that_of_the_ranks():
    one, other = [3.0, 1.0, 2.0, 9.0, 4.0], np.array([30.0, 12.0, 11.0, 80.0, 41.0])
    correlation, chance = spearman(one, other)
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    assert correlation == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert 0 < chance < 0.1
    assert np.sign(correlation) == np.sign(kendalltau(one, other).statistic)
    reverse, of_reverse = spearman(one, -other)
    assert reverse == pytest.approx(-correlation)
    # Of the 120 orders, 5 have a correlation of 0.9 or more, and all but one of -0.9 or more.
    assert (chance, of_reverse) == pytest.approx((5 / 120, 119 / 120))


@pytest.mark.parametrize("other", [range(6), [1, 2, 0, 4, 3, 5], [0, 0, 1, 2, 1, 3]])
def test_few_numbers_have_an_exact_probability(other):
    one = np.arange(6)
    orders = [np.corrcoef(order, rankdata(other))[0, 1] for order in itertools.permutations(one)]
    result = spearman(one, other)
    assert result.chance == pytest.approx(np.mean(np.array(orders) > result.statistic - 1e-9))


def test_many_numbers_have_nearly_the_asymptotic_probability():
    one = np.arange(30.0)
    other = one + 20 * np.random.default_rng(1).normal(size=30)
    asymptotic = spearmanr(one, other, alternative="greater").pvalue
    assert spearman(one, other).chance == pytest.approx(asymptotic, abs=0.01)


def test_a_constant_series_has_none():
    assert spearman([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert spearman([1.0, 2.0, 3.0], np.ones(3)) is None
