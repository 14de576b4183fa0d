"""Attacks on members, ensembles and new networks."""

import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page, digits, sampler_of

from hypernet_tf.analysis import attack_detection
from reproduce.analyses import ANALYSES

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def analysed(analyse):
    settings = {"attack_images": 30, "attack_steps": 2, "attack_sizes": ["0.05", "0.3"]}
    return analyse("attacks", **settings)


def test_the_numbers_are_those_of_attacks_on_its_networks(analysed):
    folder, metrics = analysed
    numbers = metrics["analyses"]["attacks"]
    names = {"member_fgsm", "member_pgd", "ensemble_fgsm", "ensemble_pgd", "resampled_pgd"}
    assert set(numbers["systems"]) == names
    x, y = (values[:30] for values in digits())
    judge = sampler_of(folder).sample(3, seed=1)
    result = attack_detection(judge[0], judge, x, y, [0.05, 0.3], steps=2)
    values = numbers["systems"]["member_pgd"]
    assert values["attacked"] == result.attacked
    np.testing.assert_allclose(values["judge_misled"], result.judge_misled)
    np.testing.assert_allclose(values["entropy"], result.auroc["entropy"], atol=1e-6)


def test_figures_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["attacks"]
    assert entry["figures"] == ["attacks"]
    check_figure(folder, "attacks")
    assert arrays(folder, "attacks")["sizes"].tolist() == [0.05, 0.3]
    keys = check_page(folder, entry, ANALYSES["attacks"])
    assert len(keys) == 1 + 5 * (3 + 7)
