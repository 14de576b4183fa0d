"""Searches over lam in Keras Tuner, with a function in place of training."""

import functools
import json

import keras_tuner
import numpy as np
import pytest

from hypernet_tf.ensembles.ensemble import NotFiniteError
from hypernet_tf.training.callbacks import TrainingDivergedError
from hypernet_tf.training.tuning import objective
from reproduce.runs.folder import RunError
from reproduce.studies import trials
from reproduce.studies.trials import BayesianOracle, ListOracle, rounded, values_of

OBJECTIVE = "majority_vote_accuracy"


def search(make_oracle, folder, train):
    """Search, and return the lams that were tried and all trials of the folder."""
    tried = []

    def recorded(values):
        [(name, lam)] = values.items()
        assert name == "lam"
        tried.append(lam)
        return {OBJECTIVE: train(lam)}

    ended = trials.search(recorded, make_oracle, OBJECTIVE, folder, seed=0, is_worker=False)
    return tried, ended


def grid(*lams):
    return functools.partial(ListOracle, [{"lam": lam} for lam in lams])


def bayesian(count):
    return functools.partial(BayesianOracle, 10.0, 1e5, max_trials=count)


def near_300(lam):
    """Best at lam 300, in the logarithm of lam."""
    return 1 - abs(np.log10(lam / 300)) / 5


def test_significant_digits():
    assert rounded(1 / 3) == 0.333333
    assert rounded(123_456.789) == 123_457
    assert rounded(3162.27, 3) == 3160


def test_a_longer_list_continues_a_shorter_one(tmp_path):
    folder = tmp_path / "tuner"
    assert search(grid(10.0, 1e3), folder, near_300)[0] == [10, 1e3]
    tried, ended = search(grid(1.0, 1e3, 10.0, 1e4), folder, near_300)
    assert tried == [1, 1e4]
    assert sorted(values_of(trial)["lam"] for trial in ended) == [1, 10, 1e3, 1e4]


@pytest.mark.slow
def test_a_bayesian_search_finds_the_best_and_continues(tmp_path):
    tried, _ = search(bayesian(4), tmp_path / "tuner", near_300)
    assert len(tried) == 4
    later, ended = search(bayesian(9), tmp_path / "tuner", near_300)
    assert len(later) == 5
    assert len(set(tried + later)) == 9 == len(ended)
    assert all(10 <= lam <= 1e5 for lam in tried + later)
    assert abs(np.log10(max(tried + later, key=near_300) / 300)) < 0.35


def test_an_interrupted_trial_is_run_again(tmp_path):
    def interrupted(lam):
        if lam == 1e3:
            raise KeyboardInterrupt
        return near_300(lam)

    oracle = grid(10.0, 1e3, 1e4)
    with pytest.raises(KeyboardInterrupt):
        search(oracle, tmp_path / "tuner", interrupted)
    # As a chief leaves it: another process continues what one began.
    (tmp_path / "tuner" / "tuner0.json").rename(tmp_path / "tuner" / "chief.json")
    tried, ended = search(oracle, tmp_path / "tuner", near_300)
    assert sorted(tried) == [1e3, 1e4]
    assert {trial.status for trial in ended} == {"COMPLETED"}
    assert len(ended) == 3


def test_a_trial_that_has_only_begun_is_not_lost(tmp_path):
    oracle = grid(10.0, 1e3)
    begun = search(oracle, tmp_path / "tuner", near_300)[1][1]
    # As a kill leaves it between the two files that Keras Tuner writes.
    (tmp_path / "tuner" / f"trial_{begun.trial_id}" / "trial.json").write_text(
        json.dumps(begun.get_state() | {"status": "RUNNING", "metrics": {"metrics": {}}})
    )
    tried, ended = search(oracle, tmp_path / "tuner", near_300)
    assert tried == [values_of(begun)["lam"]]
    assert [trial.status for trial in ended] == ["COMPLETED", "COMPLETED"]


def test_a_trial_without_a_finite_objective_fails(tmp_path):
    values = {10.0: None, 1e3: float("inf"), 1e4: 0.5}
    _, ended = search(grid(*values), tmp_path / "tuner", values.get)
    assert [trial.status for trial in ended] == ["FAILED", "FAILED", "COMPLETED"]


@pytest.mark.parametrize("error", [TrainingDivergedError, NotFiniteError])
def test_a_trial_that_diverges_fails_and_the_search_goes_on(error, tmp_path, capsys):
    """Also where it shows in the networks that are evaluated, and not in those of a validation."""

    def diverging(lam):
        if lam == 10:
            raise error("the loss is nan")
        return near_300(lam)

    tried, ended = search(grid(10.0, 1e3), tmp_path / "tuner", diverging)
    assert tried == [10, 1e3]
    assert [trial.status for trial in ended] == ["FAILED", "COMPLETED"]
    assert "lam 10: the loss is nan" in capsys.readouterr().out


def test_another_error_ends_the_search(tmp_path):
    def failing(lam):
        raise RunError("no room is left")

    with pytest.raises(RunError, match="no room is left"):
        search(grid(10.0, 1e3), tmp_path / "tuner", failing)


def test_a_damaged_state_is_one_line(tmp_path):
    search(grid(10.0), tmp_path / "tuner", near_300)
    (tmp_path / "tuner" / "oracle.json").write_text("{")
    with pytest.raises(RunError, match="is damaged: delete it and run") as error:
        search(grid(10.0, 1e3), tmp_path / "tuner", near_300)
    assert "\n" not in str(error.value)


def test_the_middle_of_the_widest_gap_replaces_a_lam_that_was_tried(monkeypatch):
    oracle = BayesianOracle(10.0, 1e5, max_trials=5, objective=objective(OBJECTIVE))
    monkeypatch.setattr(oracle, "_tried", lambda: [{"lam": lam} for lam in (10.0, 100.0, 1e5)])
    monkeypatch.setattr(
        keras_tuner.oracles.BayesianOptimizationOracle,
        "populate_space",
        lambda self, trial_id: {"status": "RUNNING", "values": {"lam": 100.04}},
    )
    assert oracle.populate_space("3")["values"] == {"lam": 3160.0}
