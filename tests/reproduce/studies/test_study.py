"""What all studies share: checking a folder, running what is missing, the table and the page."""

import dataclasses
import json
import re
import shutil
from typing import ClassVar

import numpy as np
import pytest
from small_experiments import SmallStudy, modification_times, tiny_of_study

from hypernet_tf.metrics import MEASURES, Measure
from reproduce.reports import run_page
from reproduce.runs import folder as folders
from reproduce.runs.command import DIVERGED, DivergedError, run_child
from reproduce.runs.folder import RunError, UsageError
from reproduce.studies import experiment
from reproduce.studies import study as studies
from reproduce.studies.study import Column, Number

pytestmark = pytest.mark.usefixtures("few_digits", "quick_pictures")

STUDY = SmallStudy(("sgd", "deep_ensemble"))
TWO_SEEDS = SmallStudy(("sgd",), (0, 1))


@pytest.fixture
def copy_runs(tiny_run):
    """A function that copies the finished runs of a study into its folder."""

    def function(study, folder):
        for run in study.runs():
            shutil.copytree(tiny_run(run.config), folder / run.folder)
        folders.write_json(folder / "study.json", study.record())
        return folder

    return function


@pytest.fixture
def children(monkeypatch, tiny_run):
    """Names of the runs that a study starts; each is copied into its folder."""
    started = []

    def run_child(arguments, what):
        started.append(what)
        [folder] = [a.removeprefix("--run_dir=") for a in arguments if a.startswith("--run_dir=")]
        method, seed = what.split("-seed=")
        run = tiny_run(tiny_of_study(method, int(seed)))
        shutil.copytree(run, folder, dirs_exist_ok=True)

    monkeypatch.setattr(studies, "run_child", run_child)
    return started


class TestRunning:
    def test_where_a_training_diverges_the_other_runs_are_done(self, monkeypatch, tmp_path):
        started = []

        def run_child(arguments, what):
            started.append(what)
            raise DivergedError(f"the training of {what} diverged")

        monkeypatch.setattr(studies, "run_child", run_child)
        with pytest.raises(
            RunError, match=r"^training diverged: sgd-seed=0, deep_ensemble-seed=0;"
        ):
            STUDY.execute(tmp_path / "study")
        assert started == ["sgd-seed=0", "deep_ensemble-seed=0"]

    def test_the_exit_code_of_a_child_says_that_it_diverged(self):
        for code, error in ((DIVERGED, DivergedError), (1, RunError)):
            with pytest.raises(RunError) as raised:
                run_child(["-c", f"raise SystemExit({code})"], "sgd")
            assert type(raised.value) is error

    def test_only_missing_runs_are_done(self, children, tiny_run, tmp_path, capsys):
        folder = tmp_path / "study"
        metrics = STUDY.execute(folder)
        assert children == ["sgd-seed=0", "deep_ensemble-seed=0"]
        assert json.loads((folder / "study.json").read_text()) == {
            "study": "small study",
            "dataset": "mnist_5k",
        }
        before = modification_times(folder / "sgd-seed=0")
        capsys.readouterr()
        assert STUDY.execute(folder) == metrics
        wider = dataclasses.replace(STUDY, methods=("sgd",), seeds=(0, 1))
        wider.execute(folder)
        assert children[2:] == ["sgd-seed=1"]
        assert modification_times(folder / "sgd-seed=0") == before
        said = capsys.readouterr().out
        assert "run 1 of 2: sgd-seed=0: is complete" in said
        assert "run 2 of 2: sgd-seed=1: 2 steps" in said
        STUDY.execute(folder)
        said = capsys.readouterr().out
        assert f"not in this table: sgd-seed=1, which {folder} holds" in said

    def test_a_run_without_its_page_is_not_complete(self, copy_runs, tmp_path):
        folder = copy_runs(STUDY, tmp_path / "study")
        first, second = STUDY.runs()
        assert STUDY.is_complete(folder, first)
        (folder / first.folder / "report.html").unlink()
        assert not STUDY.is_complete(folder, first)
        longer = second._replace(config=dataclasses.replace(second.config, steps=9))
        assert not STUDY.is_complete(folder, longer)

    def test_a_run_that_fails_ends_the_study(self, monkeypatch, tmp_path):
        def fail(arguments, what):
            raise RunError(f"{what} failed")

        monkeypatch.setattr(studies, "run_child", fail)
        with pytest.raises(RunError, match=r"^sgd-seed=0 failed$"):
            STUDY.execute(tmp_path / "study")
        assert [p.name for p in (tmp_path / "study").glob("[!.]*")] == ["study.json"]
        with folders.locked(tmp_path / "study"):  # free again
            pass


class TestWhoseFolderItIs:
    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("config.json", "{}", "is the folder of a single run: choose another --run_dir"),
            ("letter.txt", "dear", "is not empty and no small study: choose another"),
            ("study.json", "{", r"study\.json is damaged: choose another"),
            ("study.json", "[]", r"study\.json is damaged: choose another"),
            ("study.json", '{"study": "sweep"}', "the sweep in .* has study=sweep, not"),
            (
                "study.json",
                '{"study": "small study", "dataset": "mnist"}',
                "the small study in .* has dataset=mnist, not mnist_5k: choose another",
            ),
        ],
    )
    def test_something_else(self, name, text, message, tmp_path):
        (tmp_path / name).write_text(text)
        with pytest.raises(RunError, match=message) as error:
            STUDY.execute(tmp_path)
        assert "\n" not in str(error.value)
        assert [path.name for path in tmp_path.iterdir()] == [name]

    def test_a_file(self, tmp_path):
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(RunError, match="is a file: choose another --run_dir"):
            STUDY.execute(tmp_path / "letter.txt")

    def test_a_run_in_it_is_another(self, copy_runs, tmp_path):
        folder = copy_runs(STUDY, tmp_path / "study")
        path = folder / "sgd-seed=0" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"learning_rate": 7.0}))
        with pytest.raises(RunError, match=r"sgd-seed=0 has learning_rate=7\.0, not 0\.001"):
            STUDY.execute(folder)
        path.write_text("{")
        with pytest.raises(RunError, match=r"sgd-seed=0/config\.json is damaged"):
            STUDY.execute(folder)

    def test_another_process_is_in_it(self, tmp_path):
        with (
            folders.locked(tmp_path / "study"),
            pytest.raises(RunError, match="another process is running in"),
        ):
            STUDY.execute(tmp_path / "study")

    def test_too_few_steps_for_its_networks(self, tmp_path):
        study = SmallStudy(("sgd", "sgld"))
        with pytest.raises(UsageError, match="after 160 image passes sgld has 10 networks, and"):
            study.execute(tmp_path / "study")
        assert not (tmp_path / "study").exists()

    def test_a_study_is_not_a_run(self, copy_runs, tmp_path):
        folder = copy_runs(STUDY, tmp_path / "study")
        STUDY.write(folder)
        with pytest.raises(RunError, match="holds a small study: name one of the runs in it"):
            folders.read_metrics(folder)


class TestNumbers:
    def test_over_seeds(self):
        assert Number.over_seeds([3.0]) == Number(3.0, None, [3.0])
        assert Number.over_seeds([1.0, 3.0]) == Number(2.0, pytest.approx(2**0.5), [1.0, 3.0])
        assert Number.over_seeds([1.0, None]) == Number(None, None, [1.0, None])

    def test_as_text(self):
        percent = MEASURES["member_accuracy"]
        assert Number(0.91234, 0.0123, []).text(percent) == "91.23 ± 1.2"
        assert Number(0.91234, None, []).text(percent) == "91.23"
        assert Number(0.91234, 0.0, []).text(percent) == "91.23"
        assert Number(None, None, [None]).text(percent) == ""

    def test_they_are_those_of_the_runs(self, copy_runs, tmp_path):
        folder = copy_runs(TWO_SEEDS, tmp_path / "study")
        metrics = TWO_SEEDS.write(folder)
        runs = [folders.read_metrics(folder / run.folder) for run in TWO_SEEDS.runs()]
        values = [metrics["networks"]["member_accuracy"] for metrics in runs]
        numbers = metrics["numbers"]
        assert numbers["member_accuracy"]["sgd"] == {
            "mean": pytest.approx(np.mean(values)),
            "std": pytest.approx(np.std(values, ddof=1)),
            "values": values,
        }
        assert numbers["disagreement"]["sgd"] == {"mean": None, "std": None, "values": [None] * 2}
        assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
        assert metrics["study"] == "small study"
        assert metrics["seeds"] == (0, 1)


def cells(folder):
    """The cells of table.md, line by line."""
    header, _, *lines = (folder / "table.md").read_text().splitlines()
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in (header, *lines)]


class TestTable:
    def test_a_row_for_each_entry(self, copy_runs, tmp_path):
        folder = copy_runs(STUDY, tmp_path / "study")
        numbers = STUDY.write(folder)["numbers"]
        accuracy = numbers["member_accuracy"]
        header, *lines = cells(folder)
        assert header == ["", *(MEASURES[key].heading for key in STUDY.keys)]
        assert lines == [
            ["sgd", f"{100 * accuracy['sgd']['mean']:.2f}", "", "2"],
            [
                "deep_ensemble",
                f"{100 * accuracy['deep_ensemble']['mean']:.2f}",
                f"{100 * numbers['disagreement']['deep_ensemble']['mean']:.2f}",
                "2",
            ],
        ]
        page = (folder / "report.html").read_text()
        assert "<h1>Tiny runs</h1>" in page
        assert "<td>deep_ensemble</td>" in page
        assert "sgd-seed=0" in page  # the configurations

    def test_a_column_for_each_entry(self, copy_runs, tmp_path):
        class Turned(SmallStudy):
            entries_are_columns: ClassVar[bool] = True

        rows = copy_runs(STUDY, tmp_path / "rows")
        STUDY.write(rows)
        columns = copy_runs(STUDY, tmp_path / "columns")
        Turned(STUDY.methods).write(columns)
        assert cells(columns) == [list(line) for line in zip(*cells(rows), strict=True)]

    def test_published_numbers_and_labels(self, copy_runs, tmp_path):
        class Published(SmallStudy):
            published_header: ClassVar[tuple[str, ...]] = ("published (%)",)

            def published(self, entry):
                return ["77.36" if entry == "sgd" else ""]

            def label(self, entry, metrics):
                return f"{entry} of {metrics['study']}"

        folder = copy_runs(STUDY, tmp_path / "study")
        Published(STUDY.methods).write(folder)
        header, first, second = cells(folder)
        assert (header[-1], first[-1], second[-1]) == ("published (%)", "77.36", "")
        assert first[0] == "sgd of small study"

    def test_a_column_that_reads_something_else(self, copy_runs, tmp_path):
        class Watched(SmallStudy):
            def columns(self, results):
                measure = Measure("objective", "objective, validation", "study", format="{:.1f}")
                return [Column(measure, lambda one: one.metrics["validation"]["brier_score"])]

        folder = copy_runs(STUDY, tmp_path / "study")
        numbers = Watched(STUDY.methods).write(folder)["numbers"]
        assert numbers["objective"]["sgd"]["mean"] > 0
        assert cells(folder)[0] == ["", "objective, validation"]
        path = folder / "sgd-seed=0" / "metrics.json"
        metrics = json.loads(path.read_text())
        del metrics["validation"]["brier_score"]
        path.write_text(json.dumps(metrics))
        with pytest.raises(RunError, match=r"sgd-seed=0/metrics\.json has no objective: delete it"):
            Watched(STUDY.methods).write(folder)


class TestMeasures:
    """A measure is one entry of the table of measures and one function."""

    TOY = Measure(
        "least_confidence",
        "probability of the least certain example",
        "ensemble",
        unit="%",
        format="{:.3f}",
        kind="prediction",
        compute=lambda log_p, labels: np.exp(log_p.max(-1)).min(),
    )

    @pytest.mark.usefixtures("eager_fits")
    def test_a_new_one_is_in_the_json_on_the_page_and_in_the_table(self, monkeypatch, tmp_path):
        monkeypatch.setitem(MEASURES, self.TOY.key, self.TOY)
        study = SmallStudy(("deep_ensemble",), keys=("member_accuracy", self.TOY.key))
        [run] = study.runs()
        metrics = experiment.run(run.config, tmp_path / run.folder)
        value = json.loads((tmp_path / run.folder / "metrics.json").read_text())["ensemble"][
            self.TOY.key
        ]
        assert value == metrics["ensemble"][self.TOY.key]
        assert 0.1 <= value <= 1
        page = (tmp_path / run.folder / "report.html").read_text()
        text = f"{100 * value:.3f}"
        assert f'<td>{self.TOY.title} (%)</td><td class="n">{text}</td>' in page
        numbers = study.write(tmp_path)["numbers"]
        assert numbers[self.TOY.key]["deep_ensemble"]["values"] == [value]
        header, line = cells(tmp_path)
        assert dict(zip(header, line, strict=True))[f"{self.TOY.title} (%)"] == text
        assert f'<td class="n">{text}</td>' in (tmp_path / "report.html").read_text()

    @pytest.mark.usefixtures("eager_fits")
    def test_a_run_from_before_gets_it_without_training(self, copy_runs, monkeypatch, tmp_path):
        folder = copy_runs(STUDY, tmp_path / "study")
        [run, _] = STUDY.runs()
        where = folder / run.folder
        assert STUDY.is_complete(folder, run)
        before = folders.read_metrics(where)
        monkeypatch.setitem(MEASURES, self.TOY.key, self.TOY)
        # A report of it has an empty cell.
        page = run_page.page("A run", [run_page.Run("sgd", where, before)])
        assert f'<td>{self.TOY.title} (%)</td><td class="n"></td>' in page
        assert not STUDY.is_complete(folder, run)
        monkeypatch.setattr(experiment, "trained", None)
        metrics = experiment.run(run.config, where)
        assert STUDY.is_complete(folder, run)
        value = metrics["ensemble"].pop(self.TOY.key)
        assert 0.1 <= value <= 1
        assert metrics == before
        text = f"{100 * value:.3f}"
        assert f'<td class="n">{text}</td>' in (where / "report.html").read_text()

    def test_a_main_one_follows_the_columns_that_are_named(self, monkeypatch):
        monkeypatch.setitem(MEASURES, self.TOY.key, dataclasses.replace(self.TOY, is_main=True))
        named = ["disagreement", Column(MEASURES["majority_vote_accuracy"])]
        others = ("member_accuracy", "negative_log_likelihood", "expected_calibration_error")
        assert studies.and_main_measures(named) == [*named, *others, self.TOY.key]

    def test_a_key_that_no_run_has(self, copy_runs, tmp_path):
        folder = copy_runs(STUDY, tmp_path / "study")
        study = dataclasses.replace(STUDY, keys=("member_accuracy", "uncertainty_aurc"))
        words = r"^\S*sgd-seed=0/metrics\.json has no uncertainty_aurc: delete it and run the same"
        with pytest.raises(RunError, match=words) as error:
            study.write(folder)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("key", ["steps", "peak_memory_mib"])
    def test_a_run_that_lacks_one_is_named(self, key, copy_runs, tmp_path):
        folder = copy_runs(STUDY, tmp_path / "study")
        path = folder / "deep_ensemble-seed=0" / "metrics.json"
        metrics = json.loads(path.read_text())
        del metrics["run"][key]
        path.write_text(json.dumps(metrics))
        with pytest.raises(RunError, match=re.escape(f"{path} is damaged: it lacks '{key}'")):
            STUDY.write(folder)
