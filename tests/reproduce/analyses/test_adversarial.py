"""Attacks by the fast gradient method."""

import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page, digits, sampler_of

from hypernet_tf.analysis import NothingToAttackError, adversarial_success
from reproduce.analyses import ANALYSES, Limits, adversarial

pytestmark = pytest.mark.usefixtures("few_digits")


def test_attacks_mislead_one_network_and_an_ensemble(analysed, analyse):
    folder, metrics = analysed
    numbers, saved = metrics["analyses"]["adversarial"], arrays(folder, "adversarial")
    assert numbers["epsilons"] == list(range(0, 60, 2))
    assert numbers["num_images"] == 32
    assert 10 < numbers["num_attacked"] <= 32
    assert numbers["network"][0] == 0
    assert numbers["network"][-1] > 0.5
    sampler, (x, y) = sampler_of(folder), digits()
    success = adversarial_success(
        lambda count, seed: sampler.sample(count, seed=seed),
        x[:32],
        y[:32],
        num_networks=3,
        seed=adversarial.SEED,
    )
    assert numbers["num_attacked"] == success.attacked
    for name in ("network", "ensemble", "network_reached", "ensemble_reached"):
        np.testing.assert_allclose(numbers[name], getattr(success, name))
        np.testing.assert_allclose(saved[name], numbers[name])
        assert len(numbers[name]) == 30
    assert numbers["network"] != numbers["ensemble"]
    clipped = analyse("adversarial", not_drawn=None, clip=True)[1]["analyses"]["adversarial"]
    assert clipped["num_attacked"] == numbers["num_attacked"]
    assert clipped["network"] != numbers["network"]


def test_a_run_without_an_image_to_attack_has_no_figure(analyse, monkeypatch, capsys):
    def success(*_, **__):
        raise NothingToAttackError("none of the 32 images is classified correctly")

    monkeypatch.setattr(adversarial, "adversarial_success", success)
    folder, metrics = analyse("adversarial", not_drawn=None)
    entry = metrics["analyses"]["adversarial"]
    assert (entry["num_attacked"], entry["figures"]) == (0, [])
    assert "no attacks: none of the 32 images" in capsys.readouterr().out
    assert len(check_page(folder, entry, ANALYSES["adversarial"])) == 3


@pytest.mark.parametrize(("num_available", "expected"), [(None, 100), (10, 10), (1, 0)])
def test_a_finite_sampler_has_no_larger_ensemble(num_available, expected):
    limits = Limits(1, num_available, 500, (28, 28, 1), "mnist_5k")
    assert adversarial.NETWORKS.resolve(100, limits) == expected
    assert adversarial.IMAGES.resolve(1_000, limits) == 500


def test_figures_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["adversarial"]
    assert entry["figures"] == ["adversarial"]
    check_figure(folder, "adversarial")
    values = check_page(folder, entry, ANALYSES["adversarial"])
    expected = {
        "adversarial_num_images": 32,
        "adversarial_num_attacked": entry["num_attacked"],
        "adversarial_num_networks": 3,
    }
    for size in (8, 16, 32):  # of the sizes 0, 2, 4, ...
        for voter in ("network", "ensemble"):
            expected[f"adversarial_{voter}_misled_at_{size}"] = entry[voter][size // 2]
    assert list(values.items()) == list(expected.items())
