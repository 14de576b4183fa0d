"""The settings that analyses share."""

import pytest

from reproduce.analyses import Limits
from reproduce.analyses.subject import ENSEMBLES, MOST_PREDICTIONS, NUM_NETWORKS
from reproduce.runs.folder import UsageError


def limits(num_networks=200, num_available=None, num_images=500):
    return Limits(num_networks, num_available, num_images, (28, 28, 1), "mnist_5k")


def test_fewer_ensembles_where_the_published_number_takes_too_long():
    assert ENSEMBLES.resolve(None, limits()) == 20
    number = ENSEMBLES.resolve(None, limits(num_images=10_000))
    assert 2 <= number < 20
    assert number * 200 * 10_000 <= MOST_PREDICTIONS
    assert ENSEMBLES.resolve(20, limits(num_images=10_000)) == 20


def test_a_finite_sampler_has_one_ensemble():
    finite = limits(num_networks=10, num_available=10)
    assert ENSEMBLES.resolve(None, finite) == ENSEMBLES.resolve(1, finite) == 1
    assert NUM_NETWORKS.resolve(10, finite) == 10
    with pytest.raises(UsageError, match="Cannot sample 2 ensembles: this sampler holds one"):
        ENSEMBLES.resolve(2, finite)
    with pytest.raises(UsageError, match=r"^Cannot sample 11 networks: this sampler holds 10\.$"):
        NUM_NETWORKS.resolve(11, finite)
