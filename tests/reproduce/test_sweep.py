"""Sweeps over lam: what is searched, resumed, shared and written."""

import dataclasses
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys

import keras_tuner
import numpy as np
import pytest
from matplotlib.figure import Figure

from hypernet_tf.training.callbacks import TrainingDivergedError
from reproduce import mnist, sweep
from reproduce.cli import flags as _flags
from reproduce.runs import folder as _run
from reproduce.studies import trials as _trials
from reproduce.studies import workers as _workers
from reproduce.studies.sweep_folder import Sweep, check, default_folder, trial_folder

TINY = mnist.Config(
    dataset="mnist_5k",
    steps=2,
    num_networks=5,
    networks_per_step=3,
    images_per_network=4,
    validate_every=2,
    checkpoint_every=2,
)
BAYESIAN = Sweep(TINY, "bayesian", lam_min=10.0, lam_max=1e5, trials=4)


class TestFlags:
    @pytest.fixture(autouse=True)
    def as_given(self):
        """Flags of a test are not those of the next."""
        yield
        for flag in _flags.FLAGS.flags_by_module_dict()[sweep.__name__]:
            flag.unparse()
        for flag in _flags.FLAGS.flags_by_module_dict()[_flags.__name__]:
            flag.unparse()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--lams=1,x"], "--lams are numbers, separated by commas: .*'x'"),
            (["--lams=1,-1"], "--lams are finite numbers above 0"),
            (["--lams=1,inf"], "--lams are finite numbers above 0"),
            (["--lams="], "--lams are finite numbers above 0, at least one"),
            (["--lams=10,1e1"], "--lams names a lam twice"),
            (["--trials=3"], "--trials has no part in --search=grid: drop it"),
            (["--search=bayesian", "--lams=1,2"], "--lams has no part in --search=bayesian"),
            (["--search=bayesian", "--lam_min=9", "--lam_max=9"], "0 < min < max, not 9, 9"),
            (["--search=bayesian", "--lam_min=0"], "0 < min < max, not 0, 100000"),
            (["--search=bayesian", "--lam_max=nan"], "0 < min < max"),
            (["--lam=3"], "a sweep has no --lam "),
        ],
    )
    def test_a_sweep_that_cannot_be(self, arguments, words):
        defined = _flags.FLAGS["lam"]
        try:
            _flags.FLAGS(["sweep", "--dataset=mnist_5k", *arguments])
            with pytest.raises(_run.UsageError, match=words) as error:
                sweep.from_flags()
        finally:
            defined.unparse()
        assert "\n" not in str(error.value)

    def test_a_sweep(self):
        _flags.FLAGS(["sweep", "--dataset=mnist_5k", "--preset=quick"])
        asked = sweep.from_flags()
        assert (asked.search, asked.lams) == ("grid", (10, 100, 1e3, 1e4, 1e5))
        assert str(default_folder(asked)) == "runs/sweep-dataset=mnist_5k-preset=quick"
        _flags.FLAGS(["sweep", "--search=bayesian", "--lam_max=1e3", "--trials=3"])
        asked = sweep.from_flags()
        assert (asked.lam_min, asked.lam_max, asked.trials) == (10, 1e3, 3)
        assert "lam_max=1000" in str(default_folder(asked))

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            (("chief", "127.0.0.1", None), "go together: KERASTUNER_ORACLE_PORT is not set"),
            ((None, "127.0.0.1", "8000"), "go together: KERASTUNER_TUNER_ID is not set"),
            (("a/b", "127.0.0.1", "8000"), "KERASTUNER_TUNER_ID=a/b is no name"),
            (("tuner0", "127.0.0.1", "port"), "KERASTUNER_ORACLE_PORT=port is no port"),
            (("tuner0", "127.0.0.1", "65536"), "KERASTUNER_ORACLE_PORT=65536 is no port"),
        ],
    )
    def test_a_part_that_cannot_be(self, values, words, monkeypatch):
        for name, value in zip(_workers._VARIABLES, values, strict=True):
            if value is not None:
                monkeypatch.setenv(name, value)
        with pytest.raises(_run.UsageError, match=words):
            _workers.part()

    def test_a_worker_without_a_chief_and_a_chief_without_a_port(self):
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            part = _workers.Part("chief", *other.getsockname())
            with pytest.raises(_run.RunError, match=r"there is no chief at 127\.0\.0\.1"):
                _workers.wait_for_chief(part, seconds=0)
            other.listen()
            with pytest.raises(_run.RunError, match=r"chief cannot listen at .*in use"):
                _workers.check_address(part)


def searched(asked, folder, train):
    """What a search of Keras Tuner tries with a function in place of training, and its trials."""
    tried = []

    def recorded(lam):
        tried.append(lam)
        return {"ensemble_accuracy": train(lam)}

    if asked.search == "grid":
        oracle = lambda **kwargs: _trials.ListOracle(asked.lams, **kwargs)  # noqa: E731
    else:
        oracle = lambda **kwargs: _trials.BayesianOracle(  # noqa: E731
            asked.lam_min, asked.lam_max, max_trials=asked.trials, **kwargs
        )
    trials = _trials.search(recorded, oracle, asked.objective, folder, seed=0, is_worker=False)
    return tried, trials


def near_300(lam):
    """Best at lam 300, in the logarithm of lam."""
    return 1 - abs(np.log10(lam / 300)) / 5


class TestSearch:
    def test_a_longer_list_goes_on(self, tmp_path):
        first = Sweep(TINY, lams=(10.0, 1e3))
        assert searched(first, tmp_path / "tuner", near_300)[0] == [10, 1e3]
        longer = dataclasses.replace(first, lams=(1.0, 1e3, 10.0, 1e4))
        tried, trials = searched(longer, tmp_path / "tuner", near_300)
        assert tried == [1, 1e4]
        assert sorted(map(_trials.lam_of, trials)) == [1, 10, 1e3, 1e4]

    @pytest.mark.slow
    def test_a_bayesian_search_finds_the_best_and_goes_on(self, tmp_path):
        tried, _ = searched(BAYESIAN, tmp_path / "tuner", near_300)
        assert len(tried) == 4
        more = dataclasses.replace(BAYESIAN, trials=9)
        later, trials = searched(more, tmp_path / "tuner", near_300)
        assert len(later) == 5
        assert len(set(tried + later)) == 9 == len(trials)
        assert all(10 <= lam <= 1e5 for lam in tried + later)
        assert abs(np.log10(max(tried + later, key=near_300) / 300)) < 0.35

    def test_what_was_interrupted_is_run_again(self, tmp_path):
        asked = Sweep(TINY, lams=(10.0, 1e3, 1e4))

        def interrupted(lam):
            if lam == 1e3:
                raise KeyboardInterrupt
            return near_300(lam)

        with pytest.raises(KeyboardInterrupt):
            searched(asked, tmp_path / "tuner", interrupted)
        # As a chief leaves it: what one process began, another goes on with.
        (tmp_path / "tuner" / "tuner0.json").rename(tmp_path / "tuner" / "chief.json")
        tried, trials = searched(asked, tmp_path / "tuner", near_300)
        assert sorted(tried) == [1e3, 1e4]
        assert {trial.status for trial in trials} == {"COMPLETED"}
        assert len(trials) == 3

    def test_a_trial_that_has_only_begun_is_not_lost(self, tmp_path):
        asked = Sweep(TINY, lams=(10.0, 1e3))
        begun = searched(asked, tmp_path / "tuner", near_300)[1][1]
        # As a kill leaves it between the two files that Keras Tuner writes.
        (tmp_path / "tuner" / f"trial_{begun.trial_id}" / "trial.json").write_text(
            json.dumps(begun.get_state() | {"status": "RUNNING", "metrics": {"metrics": {}}})
        )
        tried, trials = searched(asked, tmp_path / "tuner", near_300)
        assert tried == [_trials.lam_of(begun)]
        assert [trial.status for trial in trials] == ["COMPLETED", "COMPLETED"]

    def test_no_finite_objective_is_a_failed_trial(self, tmp_path):
        values = {10.0: None, 1e3: float("inf"), 1e4: 0.5}
        trials = searched(Sweep(TINY, lams=tuple(values)), tmp_path / "tuner", values.get)[1]
        assert [trial.status for trial in trials] == ["FAILED", "FAILED", "COMPLETED"]

    def test_one_that_diverges_is_left_out_and_an_error_ends_it(self, tmp_path):
        asked = Sweep(TINY, lams=(10.0, 1e3))

        def diverging(lam):
            if lam == 10:
                raise TrainingDivergedError("the loss is nan")
            return near_300(lam)

        tried, trials = searched(asked, tmp_path / "diverged", diverging)
        assert tried == [10, 1e3]
        assert [trial.status for trial in trials] == ["FAILED", "COMPLETED"]

        def failing(lam):
            raise _run.RunError("no room is left")

        with pytest.raises(_run.RunError, match="no room is left"):
            searched(asked, tmp_path / "failed", failing)
        (tmp_path / "diverged" / "oracle.json").write_text("{")
        with pytest.raises(_run.RunError, match="is damaged: delete it"):
            searched(asked, tmp_path / "diverged", near_300)

    def test_the_middle_of_the_widest_gap_stands_in_for_a_lam_that_was_tried(self, monkeypatch):
        oracle = _trials.BayesianOracle(
            10.0, 1e5, max_trials=5, objective=_trials.objective("ensemble_accuracy")
        )
        monkeypatch.setattr(oracle, "_tried", lambda: {10.0, 100.0, 1e5})
        monkeypatch.setattr(
            keras_tuner.oracles.BayesianOptimizationOracle,
            "populate_space",
            lambda self, trial_id: {"status": "RUNNING", "values": {"lam": 100.04}},
        )
        assert oracle.populate_space("3")["values"] == {"lam": 3160.0}


@pytest.fixture(scope="module")
def swept(tmp_path_factory, few_digits):
    """A grid of two lams."""
    folder = tmp_path_factory.mktemp("runs") / "sweep"
    asked = Sweep(TINY, objective="negative_log_likelihood", lams=(10.0, 1e5))
    with pytest.MonkeyPatch.context() as patch:  # drawing is not what is tested
        patch.setattr(Figure, "savefig", lambda self, path: path.write_bytes(b"a picture"))
        yield asked, folder, sweep.run(asked, folder)


class TestSweep:
    def test_it_writes_the_frontier_of_its_trials(self, swept):
        _, folder, metrics = swept
        assert json.loads((folder / "metrics.json").read_text()) == metrics
        assert [one["lam"] for one in metrics["trials"]] == [10, 1e5]
        values = []
        for one in metrics["trials"]:
            run = _run.read_metrics(trial_folder(folder, one["lam"]))
            assert one["test"]["ensemble_accuracy"] == run["ensemble"]["majority_vote_accuracy"]
            assert one["test"]["entropy"] == run["diversity"]["entropy"]
            assert one["objective"] == run["validation"]["negative_log_likelihood"]
            values.append(one["objective"])
        best = metrics["trials"][int(np.argmin(values))]["lam"]
        assert metrics["best"]["lam"] == best
        words = shlex.split(metrics["command"])
        assert words[:3] == ["python", "-m", "reproduce.mnist"]
        assert {f"--lam={best:g}", "--steps=2", "--num_networks=5", "--seed=0"} <= {*words}
        with np.load(folder / "figures" / "frontier.npz") as numbers:
            assert numbers["lam"].tolist() == [10, 1e5]
            drawn = numbers["negative_log_likelihood"]
        tests = [one["test"]["negative_log_likelihood"] for one in metrics["trials"]]
        np.testing.assert_allclose(drawn, tests)
        table = (folder / "table.md").read_text().splitlines()
        assert len(table) == 4
        assert sum("(best)" in line for line in table) == 1
        assert (folder / "report.html").read_text().count("data:image/png;base64,") == 1

    def test_again_nothing_is_run(self, swept):
        asked, folder, metrics = swept
        before = {p: p.stat().st_mtime_ns for p in folder.glob("lam=*/**/*")}
        other = dataclasses.replace(asked, objective="entropy")
        again = sweep.run(other, folder)
        assert {p: p.stat().st_mtime_ns for p in folder.glob("lam=*/**/*")} == before
        assert [one["test"] for one in again["trials"]] == [o["test"] for o in metrics["trials"]]
        entropies = [one["validation"]["entropy"] for one in again["trials"]]
        assert again["best"]["objective"] == max(entropies)

    def test_the_folder_of_something_else_is_refused(self, swept, tmp_path):
        asked, folder, _ = swept
        with pytest.raises(_run.RunError, match="folder of a single run: choose another"):
            check(trial_folder(folder, 10.0), asked)
        with pytest.raises(_run.RunError, match="has search=grid, not bayesian"):
            check(folder, BAYESIAN)
        other = dataclasses.replace(asked, config=dataclasses.replace(TINY, steps=3))
        with pytest.raises(_run.RunError, match="has steps=2, not 3: choose another"):
            sweep.run(other, folder)
        with pytest.raises(_run.RunError, match="holds a sweep: name one of the runs in it"):
            _run.read_metrics(folder)
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(_run.RunError, match="is not empty and no sweep"):
            check(tmp_path, asked)
        with pytest.raises(_run.RunError, match="is a file"):
            check(tmp_path / "letter.txt", asked)
        with (
            _run.locked(folder),
            pytest.raises(_run.RunError, match="another process is running"),
        ):
            sweep.run(asked, folder)

    def test_a_damaged_trial_is_one_line(self, swept, tmp_path):
        asked, folder, _ = swept
        folder = shutil.copytree(folder, tmp_path / "sweep")
        path = trial_folder(folder, 10.0) / "metrics.json"
        metrics = json.loads(path.read_text())
        del metrics["validation"]["negative_log_likelihood"]
        path.write_text(json.dumps(metrics))
        with pytest.raises(_run.RunError, match="is damaged"):
            sweep.run(asked, folder)


def start(cwd, *arguments, **variables):
    """`python -m reproduce.sweep ...` as a user runs it."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "reproduce.sweep", "--dataset=mnist_5k", "--preset=quick"),
            *("--steps=2", "--num_networks=5", "--run_dir=sweep", *arguments),
        ],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class TestCommand:
    def test_a_users_error_is_one_line(self, tmp_path):
        process = start(tmp_path, "--devices=9")
        _, error = process.communicate(timeout=120)
        assert process.returncode == 1, error
        assert error.startswith("reproduce.sweep: 9 devices are not to be had"), error
        assert error.strip().count("\n") == 0
        assert not list(tmp_path.iterdir())
