"""The figures and the page of the toy problem."""

import numpy as np
import pytest

from reproduce import toy
from reproduce.reports import toy_figures

SEEDS, POINTS = [0, 3], 30


@pytest.fixture(scope="module")
def measured():
    """Numbers and arrays of the curves of generators that are not trained."""
    mixture, z = toy.published_mixture(), np.linspace(-1, 1, POINTS)
    curves = [toy.build(seed)(z[:, None].astype("float32")).numpy() for seed in SEEDS]
    numbers, lines = zip(*(toy.measure(mixture, curve) for curve in curves), strict=True)
    return numbers, toy.arrays(mixture, z, SEEDS, list(lines))


def test_the_arrays_are_those_of_the_measured_curves(measured):
    numbers, arrays = measured
    assert arrays.keys() == toy_figures.FIGURES.keys()
    assert arrays["spacing"]["spacing"].shape == (2, POINTS)
    means = [one["score_mean"] for one in numbers]
    np.testing.assert_allclose(arrays["score"]["score"].mean(1), means)
    assert arrays["curve"]["curves"].shape == (2, POINTS, 2)


@pytest.mark.parametrize("name", toy_figures.FIGURES)
def test_a_figure_is_legible_on_half_a_page(name, measured):
    figure = toy_figures.FIGURES[name](**measured[1][name])
    assert figure.get_figwidth() <= 7
    figure.draw_without_rendering()
    texts = figure.findobj(lambda artist: hasattr(artist, "get_fontsize"))
    assert min(text.get_fontsize() for text in texts if text.get_text()) >= 8


def test_the_page(tmp_path):
    for name in toy_figures.FIGURES:
        (tmp_path / f"{name}.png").write_bytes(b"a picture")
    row = dict.fromkeys(toy.MEASURES, 2.0) | {"steps": 60_000}
    metrics = {
        "seeds": [{"seed": 3} | row],
        "mean": row,
        "measures": toy.MEASURES,
        "components": 10,
        "config": {"points": 400},
    }
    text = toy_figures.page(metrics, tmp_path)
    assert text.count("data:image/png;base64,") == 3
    assert "<th>seed 3</th><th>mean</th>" in text
    assert '<td>training steps</td><td class="n">60,000</td><td class="n">60,000</td>' in text
    assert "within sigma_i of mu_i" in text
