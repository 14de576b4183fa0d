"""The histogram of the networks' accuracies."""

import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page, digits, sampler_of

from reproduce.analyses import ANALYSES

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def analysed(analyse):
    return analyse("accuracies")


def test_the_accuracies_are_those_of_each_network(analysed):
    folder, metrics = analysed
    numbers, sampler, test = metrics["analyses"]["accuracies"], sampler_of(folder), digits()
    ensembles = [sampler.sample(3, seed=seed) for seed in (1, 2)]
    members = np.array(
        [n.evaluate(*test).member_accuracy[0] for ensemble in ensembles for n in ensemble]
    )
    assert 0.3 < members.mean() < 0.99
    assert members.std() > 0.01
    saved = arrays(folder, "accuracy_histogram")
    np.testing.assert_allclose(saved["accuracies"], members)
    np.testing.assert_allclose(saved["mean_of_the_networks"], 100 * members.mean())
    votes = [ensemble.evaluate(*test).majority_vote_accuracy for ensemble in ensembles]
    np.testing.assert_allclose(saved["majority_vote"], 100 * np.mean(votes))
    assert saved["bin_width"] == 100 / 80  # one image; 0.05 points would be less
    np.testing.assert_allclose(numbers["mean"], members.mean())
    np.testing.assert_allclose(numbers["std"], members.std(ddof=1))
    assert (numbers["lowest"], numbers["highest"]) == (members.min(), members.max())


def test_figures_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["accuracies"]
    assert entry["figures"] == ["accuracy_histogram"]
    check_figure(folder, "accuracy_histogram")
    assert check_page(folder, entry, ANALYSES["accuracies"]) == {}
