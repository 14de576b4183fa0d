"""Principal components of the weights."""

import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page, digits, sampler_of

from reproduce.analyses import ANALYSES, Limits, scatter

pytestmark = pytest.mark.usefixtures("few_digits")

LAYERS = [f"scatter_layer_{place}" for place in (1, 2, 3, 4)]
FIGURES = ["scatter_all_weights", *LAYERS, *(f"{layer}_filter_1" for layer in LAYERS)]
DRAWN = ["scatter_all_weights"]  # from which others differ in numbers and titles only


@pytest.fixture(scope="module")
def analysed(analyse):
    return analyse("scatter", not_drawn=set(FIGURES) - set(DRAWN))


def test_the_components_are_those_of_the_weights(analysed):
    folder, metrics = analysed
    vectors = sampler_of(folder).sample(8, seed=scatter.SEED).theta().astype("float64")
    vectors -= vectors.mean(0)
    singular = np.linalg.svd(vectors, compute_uv=False) ** 2
    view = metrics["analyses"]["scatter"]["views"]["all weights"]
    assert view["weights"] == 20_018
    np.testing.assert_allclose(view["explained"], (singular / singular.sum())[:6], rtol=1e-3)
    saved = arrays(folder, "scatter_all_weights")
    np.testing.assert_allclose(saved["explained"], view["explained"])
    np.testing.assert_allclose((saved["coordinates"] ** 2).sum(0), singular[:6], rtol=1e-3)


@pytest.mark.slow
def test_colour_on_request(analyse):
    folder, _ = analyse("scatter", not_drawn=None, colour=True)
    networks = sampler_of(folder).sample(8, seed=scatter.SEED)
    np.testing.assert_allclose(
        arrays(folder, "scatter_all_weights")["accuracy_percent"],
        100 * networks.evaluate(*digits()).member_accuracy,
    )


def test_a_finite_sampler_has_no_more_networks():
    for num_available, expected in ((None, 3_000), (10, 10)):
        limits = Limits(3, num_available, 500, (28, 28, 1), "mnist_5k")
        assert scatter.NETWORKS.resolve(3_000, limits) == expected


def test_figures_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["scatter"]
    assert entry["figures"] == FIGURES
    for name in DRAWN:
        check_figure(folder, name)
    values = check_page(folder, entry, ANALYSES["scatter"])
    expected = {"scatter_num_networks": 8}
    for name, view in zip(FIGURES, entry["views"].values(), strict=True):
        for share in ("explained", "explained_if_independent"):
            expected[f"{name}_{share}"] = sum(view[share])
    assert list(values.items()) == list(expected.items())
