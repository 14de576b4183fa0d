"""Accuracies of several ensembles."""

import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page, digits, sampler_of

from reproduce.analyses import ANALYSES

pytestmark = pytest.mark.usefixtures("few_digits")


def test_means_and_standard_deviations_are_over_ensembles(analysed):
    folder, metrics = analysed
    numbers, sampler = metrics["analyses"]["ensembles"], sampler_of(folder)
    results = [sampler.sample(3, seed=seed).evaluate(*digits()) for seed in (1, 2)]
    members = np.stack([result.member_accuracy for result in results])
    saved = arrays(folder, "ensembles")
    np.testing.assert_allclose(saved["members"], members)
    np.testing.assert_allclose(numbers["member"]["mean"], members.mean())
    np.testing.assert_allclose(numbers["member"]["std"], members.std(ddof=1))
    for kind in ("majority_vote", "mean_probability", "most_confident"):
        expected = np.array([getattr(result, f"{kind}_accuracy") for result in results])
        np.testing.assert_allclose(saved[kind], expected)
        np.testing.assert_allclose(numbers[kind]["mean"], expected.mean())
        np.testing.assert_allclose(numbers[kind]["std"], expected.std(ddof=1))


def test_figures_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["ensembles"]
    assert entry["figures"] == ["ensembles"]
    check_figure(folder, "ensembles")
    values = check_page(folder, entry, ANALYSES["ensembles"])
    expected = {"ensembles_num_ensembles": 2, "ensembles_num_networks": 3}
    for kind in ("member", "majority_vote", "mean_probability", "most_confident"):
        expected[f"ensembles_{kind}_accuracy"] = entry[kind]["mean"]
        expected[f"ensembles_{kind}_accuracy_std"] = entry[kind]["std"]
    assert list(values.items()) == list(expected.items())
