"""HyperGAN without some of its parts."""

import numpy as np
import pytest
from small_experiments import command_line, run_in_process, small_presets

from reproduce import hypergan
from reproduce.hypergan import CURVES, VARIANTS
from reproduce.studies import study as studies
from reproduce.studies.study import Number


def test_flags_describe_the_study():
    with command_line("--dataset=mnist_5k", "--preset=quick", "--seeds=2,0"):
        study = hypergan.from_flags()
    assert study.seeds == (0, 2)
    assert str(study.default_folder()) == "runs/hypergan-dataset=mnist_5k-preset=quick"
    runs = study.runs()
    assert [run.entry for run in runs] == 2 * ["nothing", "discriminator", "mixer"]
    assert {run.config.ablation for run in runs if "mixer" in run.folder} == {"mixer"}
    assert len({run.folder for run in runs}) == len(runs)


@pytest.mark.slow
def test_the_study_trains_every_variant_and_judges_the_claims(
    tmp_path, with_few_digits, undrawn, monkeypatch
):
    with small_presets("hypergan"), with_few_digits(), undrawn():
        monkeypatch.setattr(studies, "run_child", run_in_process)
        with command_line("--dataset=mnist_5k", "--preset=quick", "--seeds=0"):
            study = hypergan.from_flags()
        metrics = study.execute(tmp_path / "study")
    parameters = {k: n["mean"] for k, n in metrics["numbers"]["parameters"].items()}
    assert parameters["nothing"] == parameters["discriminator"] + 296_449
    assert parameters["discriminator"] > parameters["mixer"]
    assert [len(metrics["curves"][name]["norm_spread"]) for name in VARIANTS] == [2, 2, 2]
    with np.load(tmp_path / "study" / "figures" / "ablations.npz") as arrays:
        assert len(arrays) == len(CURVES) * len(VARIANTS)
    assert len(metrics["claims"]) == 3
    text = (tmp_path / "study" / "report.html").read_text()
    assert all(claim["claim"] in text for claim in metrics["claims"])


def test_means_of_curves_are_over_the_steps_that_all_runs_have():
    """A run that went on was validated at the step where it had ended, too."""
    runs = [
        {key: np.array(values, float) for key, values in zip(CURVES, of_keys, strict=True)}
        | {f"{key}, step": np.array(steps) for key in CURVES}
        for steps, of_keys in (
            ([2, 3, 4], [[0, 9, 4], [1, 9, 5], [2, 9, 6]]),
            ([2, 4], [[2, 6], [3, 7], [4, 8]]),
        )
    ]
    curves = hypergan._mean_curves(runs)
    means = ([1, 5], [2, 6], [3, 7])
    assert {key: curves[key] for key in CURVES} == dict(zip(CURVES, means, strict=True))
    assert all(curves[f"{key}, step"] == [2, 4] for key in CURVES)


@pytest.mark.parametrize(
    ("disagreement", "std", "spread", "holds"),
    [
        (0.0195, 0.002, 0.2, None),
        (0.0195, 0.0001, 0.2, True),
        (0.0205, 0.0001, 0.2, False),
        (0.0195, 0.002, 0.45, False),  # the spread alone tells
        (0.0195, 0.0001, 0.299, None),  # the spread alone does not
    ],
)
def test_a_difference_within_the_error_of_the_seeds_decides_nothing(
    disagreement, std, spread, holds
):
    values = {"nothing": 0.02, "discriminator": disagreement, "mixer": 0.02}
    numbers = {
        "disagreement": {name: Number(value, std, [value] * 3) for name, value in values.items()},
        "member_accuracy": {name: Number(0.95, None, [0.95]) for name in values},
    }
    ends = {"nothing": 0.3, "discriminator": spread, "mixer": 0.3}
    first = Number(0.4, 0.002, [0.4] * 3)
    spreads = {name: (first, Number(value, 0.002, [value] * 3)) for name, value in ends.items()}
    assert hypergan._claims(numbers, spreads)[0]["holds"] is holds


@pytest.mark.parametrize(
    ("change", "holds"),
    [
        ({}, [True, True, True]),
        ({"discriminator": (0.5, 0.95, 0.05)}, [False, True, True]),  # more diverse
        ({"mixer": (0.05, 0.90, 0.001)}, [True, False, True]),  # worse
        ({"mixer": (0.2, 0.95, 0.015)}, [True, False, True]),  # less diverse, by a third
        ({"start": 0.1}, [True, True, False]),
    ],
)
def test_claims_follow_from_the_numbers(change, holds):
    """Of each variant: spread of norms, accuracy of the networks, disagreement; at the end."""
    ends = {"nothing": (0.3, 0.95, 0.02), "discriminator": (0.2, 0.95, 0.01)}
    ends |= {"mixer": (0.05, 0.95, 0.001), "start": 0.4} | change
    start = ends.pop("start")
    numbers = {
        key: {name: Number(values[i], None, [values[i]]) for name, values in ends.items()}
        for i, key in ((1, "member_accuracy"), (2, "disagreement"))
    }
    first = Number(start, None, [start])
    spreads = {name: (first, Number(one[0], None, [one[0]])) for name, one in ends.items()}
    claims = hypergan._claims(numbers, spreads)
    assert [claim["holds"] for claim in claims] == holds
    assert "30" in claims[0]["numbers"]
