"""Accuracy along paths between networks."""

import types

import keras
import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page, digits, sampler_of

import hypernet_tf as hn
from hypernet_tf.analysis import direct_path
from reproduce.analyses import ANALYSES, Limits, paths
from reproduce.analyses.subject import Subject

pytestmark = pytest.mark.usefixtures("few_digits")


def test_paths_are_straight_in_the_weights_and_in_the_latent_space(analysed):
    folder, metrics = analysed
    kinds, saved = metrics["analyses"]["paths"]["kinds"], arrays(folder, "paths")
    sampler, (x, y) = sampler_of(folder), digits()
    z = sampler.sample_latent(4, seed=paths.SEED).numpy()
    between = np.concatenate([z[:2], (z[:2] + z[2:]) / 2, z[2:]])  # two paths, three points
    middle = hn.Ensemble(sampler.target, sampler.weights_of(between))
    expected = middle.evaluate(x[:30], y[:30]).member_accuracy.reshape(3, 2).T
    np.testing.assert_allclose(saved["interpolated"], expected)
    theta = sampler.target.flatten(sampler.weights_of(z)).numpy()
    line = sampler.target.unflatten((theta[:2] + theta[2:]) / 2)
    straight = hn.Ensemble(sampler.target, line).evaluate(x[:30], y[:30]).member_accuracy
    np.testing.assert_allclose(saved["direct"][:, 1], straight)
    np.testing.assert_allclose(saved["direct"][:, ::2], expected[:, ::2])
    assert (saved["direct"] != saved["interpolated"]).any()
    assert list(kinds) == ["direct", "interpolated"]
    for kind, values in kinds.items():
        along = saved[kind]
        ends = (along[:, 0] + along[:, 2]) / 2
        assert values == pytest.approx(
            {
                "end_accuracy": ends.mean(),
                "lowest_accuracy": along.min(1).mean(),
                "mean_accuracy": along.mean(),
                "dip": (ends - along.min(1)).mean(),
            }
        )


@pytest.mark.parametrize(("parts", "pairs"), [(2, 2), (2, 3), (3, 2)])
def test_both_ends_of_a_path_are_networks_of_one_sampler_of_a_mixture(parts, pairs, monkeypatch):
    model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(10))
    target, seen = hn.Target(model, outputs="logits"), []
    sampler = hn.Mixture([hn.Hypernetwork(target, latent_dim=3) for _ in range(parts)])
    monkeypatch.setattr(
        paths, "interpolated_path", lambda target, of, *z: seen.append(z) or interpolated(*z)
    )

    def interpolated(one, other, points):
        return direct_path(
            *(hn.Ensemble(target, sampler.weights_of(z)) for z in (one, other)), points
        )

    x, y = digits()
    subject = Subject(
        sampler,
        types.SimpleNamespace(test=hn.data.Split(np.uint8(255 * x), y)),
        {"path_pairs": pairs, "path_points": 3, "path_images": 10},
    )
    numbers, _ = ANALYSES["paths"].compute(subject)
    [(one, other, _)] = seen
    np.testing.assert_array_equal(one[:, 0], other[:, 0])
    assert np.abs(one - other).max(1).min() > 0
    ends = {kind: values["end_accuracy"] for kind, values in numbers["kinds"].items()}
    assert ends["direct"] == pytest.approx(ends["interpolated"])


@pytest.mark.parametrize(("num_available", "expected"), [(None, 10), (10, 5), (3, 1)])
def test_a_finite_sampler_has_no_more_pairs(num_available, expected):
    limits = Limits(3, num_available, 500, (28, 28, 1), "mnist_5k")
    assert paths.PAIRS.resolve(10, limits) == expected
    assert paths.IMAGES.resolve(2_000, limits) == 500


def test_figures_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["paths"]
    assert entry["figures"] == ["paths"]
    check_figure(folder, "paths")
    values = check_page(folder, entry, ANALYSES["paths"])
    expected = {"paths_num_paths": 2, "paths_num_networks": 3, "paths_num_images": 30}
    for kind in ("direct", "interpolated"):
        for place in ("end", "mean", "lowest"):
            accuracy = entry["kinds"][kind][f"{place}_accuracy"]
            expected[f"paths_{kind}_{place}_accuracy"] = accuracy
    assert list(values.items()) == list(expected.items())
