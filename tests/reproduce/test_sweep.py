"""Sweeps over lam: which one the flags ask for, and what it writes."""

import dataclasses
import json
import math
import pathlib
import shlex
import shutil

import numpy as np
import pytest
from small_experiments import TINY, command_line, modification_times, python

from reproduce import sweep
from reproduce.analyses import Row
from reproduce.runs import folder as folders
from reproduce.runs.folder import RunError, UsageError
from reproduce.studies import workers
from reproduce.studies.study import Number, RunResult
from reproduce.sweep import Sweep

BAYESIAN = Sweep(TINY, "bayesian", lam_min=10.0, lam_max=1e5, num_trials=4)


class TestFlags:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--lams=1,x"], "--lams are numbers, separated by commas: .*'x'"),
            (["--lams=1,-1"], "--lams are numbers from 1.2e-38"),
            (["--lams=1,1e39"], "--lams are numbers from 1.2e-38"),
            (["--lams="], "--lams are numbers from 1.2e-38 to 3e[+]38, at least one"),
            (["--lams=10,1e1"], "--lams names a lam twice"),
            (["--trials=3"], "--trials is not used by --search=grid: remove it"),
            (["--search=bayesian", "--lams=1,2"], "--lams is not used by --search=bayesian"),
            (
                ["--search=bayesian", "--lam_min=9", "--lam_max=9"],
                "of them smaller, not 9, 9",
            ),
            (["--search=bayesian", "--lam_min=0"], "the first of them smaller, not 0, 100000"),
            (["--search=bayesian", "--lam_max=nan"], "the first of them smaller"),
            (["--lam=3"], "a sweep has no --lam\\. "),
            (["--method=sgd"], "--method=sgd has no lam: choose a hypernetwork or a mixture"),
            (["--analyses=pca"], "there is no analysis 'pca': the analyses are"),
            (["--objective=steps"], "--objective: Unknown objective 'steps': choose one of"),
            (["--objective=exact_match"], "--objective=exact_match is not for classes: choose"),
        ],
    )
    def test_flags_that_do_not_fit(self, arguments, words):
        with (
            command_line("--dataset=mnist_5k", *arguments),
            pytest.raises(UsageError, match=words) as error,
        ):
            sweep.from_flags()
        assert "\n" not in str(error.value)

    def test_a_grid(self):
        with command_line("--dataset=mnist_5k", "--preset=quick"):
            study = sweep.from_flags()
        assert (study.search, study.lams) == ("grid", (10, 100, 1e3, 1e4, 1e5))
        assert study.objective == "majority_vote_accuracy"
        assert str(study.default_folder()) == "runs/sweep-dataset=mnist_5k-preset=quick"

    def test_a_bayesian_search(self):
        flags = ("--search=bayesian", "--lam_max=1e3", "--trials=3", "--objective=entropy")
        with command_line("--dataset=mnist_5k", *flags):
            study = sweep.from_flags()
        assert (study.lam_min, study.lam_max, study.num_trials) == (10, 1e3, 3)
        assert str(study.default_folder()) == (
            "runs/sweep-dataset=mnist_5k-search=bayesian-objective=entropy-lam_max=1000"
        )

    def test_another_method_of_another_target(self):
        flags = ("--target=lenet", "--method=mixture", "--diversity=outputs")
        with command_line("--dataset=mnist_5k", "--preset=quick", *flags):
            study = sweep.from_flags()
        config = study.run_of(10.0).config
        assert (config.experiment, config.target, config.method) == ("cifar", "lenet", "mixture")
        assert study.title() == "Sweep over lam on mnist_5k, lenet, mixture"
        folder = "runs/sweep-dataset=mnist_5k-method=mixture-preset=quick-target=lenet"
        assert str(study.default_folder()) == f"{folder}-diversity=outputs"

    def test_a_run_of_it_has_the_settings_of_the_flags(self):
        flags = ("--steps=7", "--seed=3", "--num_networks=9", "--precision=mixed_bfloat16")
        with command_line("--dataset=mnist_5k", "--preset=quick", *flags):
            study = sweep.from_flags()
        run = study.run_of(1e5)
        assert (run.entry, run.folder, run.config.lam) == ("100000", "lam=100000", 1e5)
        assert (run.config.steps, run.config.seed, run.config.num_networks) == (7, 3, 9)
        assert run.config.precision == "mixed_bfloat16"


def result(lam, value, *, key):
    run = BAYESIAN.run_of(lam)
    return RunResult(run, {"validation": {key: value}}, dict[str, Row]())


@pytest.mark.parametrize(
    ("objective", "values", "best"),
    [
        ("majority_vote_accuracy", [0.5, 0.9, 0.7], 100),
        ("negative_log_likelihood", [0.5, 0.9, 0.7], 10),
        ("negative_log_likelihood", [0.5, None, 0.0], 1000),  # infinity is null in a file
        ("entropy", [None, -7.0, 0.0], 1000),
    ],
)
def test_the_best_trial(objective, values, best, tmp_path):
    lams = (10.0, 100.0, 1000.0)
    study = dataclasses.replace(BAYESIAN, objective=objective, done=lams)
    results = [result(lam, v, key=objective) for lam, v in zip(lams, values, strict=True)]
    numbers = {
        "objective": {
            one.run.entry: Number.over_seeds([v]) for one, v in zip(results, values, strict=True)
        }
    }
    summary = study.summary(results, numbers, tmp_path / "sweep", None)
    assert summary["best"]["lam"] == best
    assert summary["config"] == dataclasses.asdict(study.run_of(best).config)
    assert f"--run_dir={tmp_path / 'sweep-best'}" in shlex.split(summary["command_line"])
    assert study.label(f"{best}", summary).endswith("(best)")


def test_the_folder_of_a_sweep_may_be_this_one(monkeypatch, tmp_path):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    study = dataclasses.replace(BAYESIAN, objective="entropy", done=(10.0,))
    numbers = {"objective": {"10": Number.over_seeds([1.0])}}
    results = [result(10.0, 1.0, key="entropy")]
    summary = study.summary(results, numbers, pathlib.Path(), None)
    assert "here-best" in summary["command_line"]


@pytest.fixture(scope="module")
def swept(tmp_path_factory, few_digits, undrawn):
    """A grid of two lams."""
    folder = tmp_path_factory.mktemp("runs") / "sweep"
    study = Sweep(TINY, objective="negative_log_likelihood", lams=(10.0, 1e5))
    with undrawn():
        return study, folder, sweep.run(study, folder)


@pytest.mark.slow
@pytest.mark.usefixtures("few_digits", "quick_pictures")
class TestSweep:
    def test_it_writes_the_frontier_of_its_trials(self, swept):
        _, folder, metrics = swept
        assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
        assert [one["lam"] for one in metrics["trials"]] == [10, 1e5]
        values = []
        for one in metrics["trials"]:
            run = folders.read_metrics(folder / one["folder"])
            entry = f"{one['lam']:g}"
            numbers = {key: values[entry]["mean"] for key, values in metrics["numbers"].items()}
            assert numbers["majority_vote_accuracy"] == run["ensemble"]["majority_vote_accuracy"]
            assert numbers["member_accuracy"] == run["networks"]["member_accuracy"]
            assert numbers["entropy"] == run["diversity"]["entropy"]
            assert one["validation"] == run["validation"]
            assert one["objective"] == run["validation"]["negative_log_likelihood"]
            assert numbers["objective"] == one["objective"]
            values.append(one["objective"])
        best = metrics["trials"][int(np.argmin(values))]["lam"]
        assert metrics["best"]["lam"] == best
        words = shlex.split(metrics["command_line"])
        assert words[:3] == ["python", "-m", "reproduce.mnist"]
        assert {f"--lam={best:g}", "--steps=2", "--num_networks=5", "--seed=0"} <= {*words}
        with np.load(folder / "figures" / "frontier.npz") as arrays:
            assert arrays["lam"].tolist() == [10, 1e5]
            drawn = arrays["negative_log_likelihood"]
        tests = metrics["numbers"]["negative_log_likelihood"]
        np.testing.assert_allclose(drawn, [tests[lam]["mean"] for lam in ("10", "100000")])
        table = (folder / "table.md").read_text().splitlines()
        assert len(table) == 4
        assert sum("(best)" in line for line in table) == 1
        page = (folder / "report.html").read_text()
        assert page.count("data:image/png;base64,") == 1
        assert f"It is lam {best:g}, in lam={best:g}" in page

    def test_again_nothing_is_run(self, swept):
        study, folder, metrics = swept
        before = {path: path.stat().st_mtime_ns for path in folder.glob("lam=*/**/*")}
        again = sweep.run(dataclasses.replace(study, objective="entropy"), folder)
        assert {path: path.stat().st_mtime_ns for path in folder.glob("lam=*/**/*")} == before
        for key in ("entropy", "brier_score"):
            assert again["numbers"][key] == metrics["numbers"][key]
        entropies = [one["validation"]["entropy"] for one in again["trials"]]
        assert again["best"]["objective"] == max(entropies)

    def test_the_folder_of_something_else(self, swept):
        study, folder, _ = swept
        with pytest.raises(RunError, match="folder of a single run: choose another"):
            study.check(folder / "lam=10")
        with pytest.raises(RunError, match="has search=grid, not bayesian"):
            sweep.run(BAYESIAN, folder)
        other = dataclasses.replace(study, config=dataclasses.replace(TINY, steps=3))
        with pytest.raises(RunError, match="has steps=2, not 3: choose another"):
            sweep.run(other, folder)
        with pytest.raises(RunError, match="holds a sweep: name one of the runs in it"):
            folders.read_metrics(folder)
        with (
            folders.locked(folder),
            pytest.raises(RunError, match="another process is running"),
        ):
            sweep.run(study, folder)

    def test_a_damaged_trial_is_one_line(self, swept, tmp_path):
        study, folder, _ = swept
        folder = shutil.copytree(folder, tmp_path / "sweep")
        path = folder / "lam=10" / "metrics.json"
        metrics = json.loads(path.read_text())
        del metrics["validation"]["negative_log_likelihood"]
        path.write_text(json.dumps(metrics))
        with pytest.raises(RunError, match=r"lam=10/metrics\.json has no objective: delete it"):
            sweep.run(study, folder)

    def test_results_that_were_deleted_are_made_again(self, swept, tmp_path, undrawn):
        study, folder, metrics = swept
        folder = shutil.copytree(folder, tmp_path / "sweep")
        (folder / "lam=10" / "metrics.json").unlink()
        with undrawn():
            again = sweep.run(study, folder)
        assert again["numbers"]["brier_score"] == metrics["numbers"]["brier_score"]

    def test_a_narrower_grid_shows_what_it_names(self, swept, tmp_path, capsys):
        study, folder, _ = swept
        folder = shutil.copytree(folder, tmp_path / "sweep")
        one = dataclasses.replace(study, lams=study.lams[:1])
        metrics = sweep.run(one, folder)
        assert [trial["lam"] for trial in metrics["trials"]] == [study.lams[0]]
        assert f"not in this table: lam={study.lams[1]:g}" in capsys.readouterr().out

    def test_trials_that_diverged_are_named(self, swept, tmp_path):
        study, folder, _ = swept
        folder = shutil.copytree(folder, tmp_path / "sweep")
        some = dataclasses.replace(study, done=(10.0,), failed=(1e5,))
        metrics = some.write(folder)
        assert metrics["failed"] == (1e5,)
        page = (folder / "report.html").read_text()
        assert "Not in the table, because training diverged: lam 100000." in page

    def test_all_trials_diverged(self, monkeypatch, tmp_path):
        monkeypatch.setattr(sweep, "_search", lambda *_, is_worker: [])
        with pytest.raises(RunError, match=r"no trial in .* came to its end: training diverged"):
            sweep.run(Sweep(TINY, lams=(math.pi,)), tmp_path / "sweep")

    def test_a_worker_of_another_folder(self, monkeypatch, tmp_path):
        monkeypatch.setattr(workers, "wait_for_chief", lambda part: None)
        part = workers.Part("tuner0", "127.0.0.1", 8000)
        with pytest.raises(RunError, match="the chief works in another folder, not in"):
            sweep.run(Sweep(TINY, lams=(1.0,)), tmp_path / "sweep", part=part)
        assert not modification_times(tmp_path)


@pytest.mark.slow
def test_a_users_error_is_one_line(tmp_path):
    flags = ("--dataset=mnist_5k", "--preset=quick", "--run_dir=sweep", "--devices=9")
    done = python("-m", "reproduce.sweep", *flags, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("reproduce.sweep: "), done.stderr
    assert "9" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
