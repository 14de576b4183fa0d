"""Pictures of the same filter in several networks; every run has this analysis."""

import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page, sampler_of

from reproduce.analyses import ANALYSES, filters
from reproduce.runs.folder import read_metrics

pytestmark = pytest.mark.usefixtures("few_digits")


def test_the_pictures_are_weights_of_the_first_filter(bent_run):
    pictures = arrays(bent_run, "filters")
    weights = sampler_of(bent_run).sample(25, seed=filters.SEED).weights.trainable
    first, _, _, _, third, *_ = weights
    np.testing.assert_array_equal(pictures["layer_1"], first[..., 0, 0])
    # Neuron 1 reads channel 1 of the 16 at each of the 7 x 7 pixels.
    np.testing.assert_array_equal(pictures["layer_3"].reshape(25, 49), third[:, ::16, 0])
    assert pictures["layer_4"].shape == (25, 8, 10)


def test_figures_and_page(bent_run):
    entry = read_metrics(bent_run)["analyses"]["filters"]
    assert entry["num_networks"] == 25
    assert entry["pictures"]["layer_1"] == "layer 1: filter 1, channel 1"
    assert entry["figures"] == ["filters"]
    check_figure(bent_run, "filters")
    assert check_page(bent_run, entry, ANALYSES["filters"]) == {}
