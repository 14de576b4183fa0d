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
    values = check_page(folder, entry, ANALYSES["attacks"])
    assert len(values) == 1 + 5 * (4 + 7)
    for key, system in entry["systems"].items():  # 0.05 is nearer to 0.1 than 0.3
        assert values[f"attacks_{key}_judge_misled"] == system["judge_misled"][0]
        assert values[f"attacks_{key}_judge_wrong"] == system["judge_wrong"] <= 1
        assert values[f"attacks_{key}_entropy"] == system["entropy"][0]
    titles = [row.measure.title for row in ANALYSES["attacks"].rows(entry)]
    assert any("the mean of 3 networks" in title for title in titles)


def test_twelve_runs_in_one_figure(analysed):
    _, metrics = analysed
    numbers = metrics["analyses"]["attacks"]
    runs = {f"method_{index}": numbers for index in range(12)}
    none = numbers | {"systems": {}}  # of a sampler that classifies no image correctly
    drawing = ANALYSES["attacks"].side_by_side(runs | {"blind": none})
    np.testing.assert_allclose(
        drawing.arrays["method_11, misled"],
        100 * np.array(numbers["systems"]["ensemble_pgd"]["judge_misled"]),
    )
    lines = [(one.get_color(), one.get_marker()) for one in drawing.figure.axes[0].get_lines()]
    assert len(set(lines)) == len(lines) == 12
    assert ANALYSES["attacks"].side_by_side({"blind": none}) is None


def test_one_network_has_a_curve_of_success_beside_ensembles(analysed):
    _, metrics = analysed
    ensemble = metrics["analyses"]["attacks"]
    member = {
        key: values
        for key, values in ensemble["systems"]["member_pgd"].items()
        if key != "mutual_information"
    }
    single = ensemble | {"num_networks": 1, "systems": {"member_pgd": member}}
    drawing = ANALYSES["attacks"].side_by_side({"several": ensemble, "one": single})
    np.testing.assert_allclose(
        drawing.arrays["one, misled"], 100 * np.array(member["judge_misled"])
    )
    assert np.isnan(drawing.arrays["one, detected"]).all()
    rows = ANALYSES["attacks"].rows(single)
    assert len(rows) == 1 + 3 + len(member) - 3  # without mutual information
