"""Detection of unknown and attacked images by ensembles of several sizes."""

import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page, digits, sampler_of

import hypernet_tf as hn
from reproduce.analyses import ANALYSES

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def analysed(analyse):
    settings = {"ensemble_sizes": ["1", "3", "6"], "ood": ["noise"], "ood_images": 60}
    settings |= {"attack_images": 40, "attack_steps": 2, "attack_sizes": ["0.01", "0.15"]}
    return analyse("detection_sizes", **settings)


def test_areas_are_means_over_ensembles_of_the_same_networks(analysed):
    folder, metrics = analysed
    numbers = metrics["analyses"]["detection_sizes"]
    assert numbers["sizes"] == [1, 3, 6]
    ensemble = sampler_of(folder).sample(6, seed=10_007)
    images, labels = digits()
    noise = hn.data.uniform_noise(1_000, images.shape[1:]).test.x[:60]
    right = ensemble[0].majority_vote(images[:40]) == labels[:40]
    clean = images[:40][right]
    moved = hn.analysis.projected_gradient(ensemble[0], clean, labels[:40][right], 0.15, steps=2)
    sets = {"noise": (images[:60], noise), "pgd_0.15": (clean, moved)}
    assert list(numbers["sets"]) == list(sets)
    for name, (ours, others) in sets.items():
        for score, values in numbers["sets"][name].items():
            for size, value in zip(numbers["sizes"], values, strict=True):
                areas = []
                for start in range(0, 6, size):
                    members = ensemble[start : start + size]
                    known, unknown = (
                        getattr(members.uncertainty(x), score) for x in (ours, others)
                    )
                    areas.append(hn.ood_metrics(known, unknown).auroc)
                assert value == pytest.approx(np.mean(areas), abs=2e-3)
    assert numbers["sets"]["noise"]["mutual_information"][0] == pytest.approx(0.5, abs=0.05)


def test_figure_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["detection_sizes"]
    check_figure(folder, "detection_sizes")
    assert arrays(folder, "detection_sizes")["sizes"].tolist() == [1, 3, 6]
    values = check_page(folder, entry, ANALYSES["detection_sizes"])
    expected = {"detection_sizes_largest": 6}
    for name in ("noise", "pgd_0.15"):
        areas, key = entry["sets"][name], f"detection_sizes_{name}"
        expected[f"{key}_entropy_smallest"] = areas["entropy"][0]
        expected[f"{key}_entropy_largest"] = areas["entropy"][2]
        expected[f"{key}_mutual_information_largest"] = areas["mutual_information"][2]
    assert list(values.items()) == list(expected.items())
