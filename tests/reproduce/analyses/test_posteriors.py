"""Histograms of single weights over many networks."""

import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page, sampler_of

from reproduce.analyses import ANALYSES

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def analysed(analyse):
    return analyse("posteriors", posterior_networks=20)


def test_the_weights_are_those_of_the_sampled_networks(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["posteriors"]
    assert entry["num_networks"] == 20
    assert list(entry["layers"]) == [f"layer {number}" for number in (1, 2, 3, 4)]
    sampler, saved = sampler_of(folder), arrays(folder, "posteriors")
    ensemble = sampler.sample(20, seed=10_005)
    for number, layer in enumerate(ensemble.target.layers, 1):
        weights = entry["layers"][f"layer {number}"]
        assert len(weights) == 3
        kernel = ensemble.weights.trainable[layer.slots[0].index].numpy()
        name, moments = next(iter(weights.items()))
        place = tuple(map(int, name.removeprefix("kernel[").rstrip("]").split(", ")))
        expected = kernel[(slice(None), *place)]
        np.testing.assert_allclose(saved[f"layer {number}: {name}"], expected)
        assert moments["mean"] == pytest.approx(expected.mean(), rel=1e-4)
        assert moments["std"] == pytest.approx(expected.std(ddof=1), rel=1e-4)
    assert entry["norm_spread"] == pytest.approx(sampler.norm_spread(seed=10_005))


def test_figure_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["posteriors"]
    assert entry["figures"] == ["posteriors"]
    check_figure(folder, "posteriors")
    assert check_page(folder, entry, ANALYSES["posteriors"]) == {
        "posteriors_num_networks": 20,
        "posteriors_num_norms": 100,
        "posteriors_norm_spread": entry["norm_spread"],
    }
