"""Diversity of filters against the next layer's weights."""

import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page

from reproduce.analyses import ANALYSES

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def analysed(analyse):
    return analyse("filter_diversity")


def test_ranks_are_correlated_over_the_filters_of_a_layer(analysed):
    folder, metrics = analysed
    layers = metrics["analyses"]["filter_diversity"]["layers"]
    assert list(layers) == ["layer 1", "layer 2", "layer 3"]
    saved = arrays(folder, "filter_diversity")
    for place, layer in enumerate(layers.values(), 1):
        diversity, next_weights = saved[f"diversity_{place}"], saved[f"next_weights_{place}"]
        np.testing.assert_allclose(layer["diversity_mean"], diversity.mean())
        ranks = [np.argsort(np.argsort(values)) for values in (diversity, next_weights)]
        expected = np.corrcoef(*ranks)[0, 1]
        np.testing.assert_allclose(layer["rank_correlation"], expected, rtol=1e-6)
        assert abs(expected) < 0.999


def test_figures_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["filter_diversity"]
    assert entry["figures"] == ["filter_diversity"]
    check_figure(folder, "filter_diversity")
    assert check_page(folder, entry, ANALYSES["filter_diversity"]) == {
        f"filter_diversity_layer_{place}_rank_correlation": layer["rank_correlation"]
        for place, layer in enumerate(entry["layers"].values(), 1)
    }
