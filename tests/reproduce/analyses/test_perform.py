"""Analyses in a run folder: what is done, done again, left out, and what a kill leaves behind."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from analysed_runs import ALONE, SMALL, TINY, arrays, times

from hypernet_tf.data import DataError
from reproduce import report
from reproduce.analyses import ANALYSES, perform
from reproduce.analyses.base import Findings
from reproduce.configs import RunConfig
from reproduce.runs import folder as folders
from reproduce.runs.folder import RunError, UsageError
from reproduce.studies import experiment

pytestmark = pytest.mark.usefixtures("few_digits")

BASIC = {name for name, analysis in ANALYSES.items() if analysis.basic}
ANALYSED = ["ensembles", "paths", "adversarial", "uncertainty"]


def test_names_are_in_the_order_of_the_analyses():
    assert perform.names_of(["paths", "accuracies"]) == ["accuracies", "paths"]
    assert perform.names_of(["all"]) == list(ANALYSES)
    assert perform.names_of([]) == []


def test_every_run_has_the_basic_analyses_with_one_ensemble(bent_run):
    analyses = folders.read_metrics(bent_run)["analyses"]
    assert set(analyses) == BASIC == {"accuracies", "filters"}
    settings = {"num_networks": 5, "ensembles": 1, "steps": 60}
    assert analyses["accuracies"]["settings"] == settings


def test_an_entry_says_what_it_depends_on(analysed):
    _, metrics = analysed
    assert set(metrics["analyses"]) == {*ANALYSED, *BASIC}
    for name in ANALYSED:
        entry = metrics["analyses"][name]
        names = [setting.name for setting in ANALYSES[name].settings]
        assert list(entry["settings"]) == [*names, "steps"]
        assert entry["settings"].items() <= (SMALL | {"steps": 60, "clip": False}).items()
        assert entry["seconds"] >= 0


def test_what_is_done_is_not_done_again(analysed, tmp_path, quick_pictures):
    folder = shutil.copytree(analysed[0], tmp_path / "run")
    before = times(folder)
    again = experiment.run(TINY, folder, analyses=ANALYSED, settings=SMALL)
    assert again == analysed[1]
    assert times(folder) == before
    settings = SMALL | {"path_points": 4}
    changed = experiment.run(TINY, folder, analyses=["filters", "paths"], settings=settings)
    after = times(folder)
    assert {name for name in before if before[name] != after[name]} == {
        "paths.png",
        "paths.pdf",
        "paths.npz",
    }
    assert changed["analyses"]["paths"]["num_networks"] == 4
    assert changed["analyses"]["adversarial"] == analysed[1]["analyses"]["adversarial"]


def test_an_analysis_that_fails_leaves_the_one_before(analysed, tmp_path, monkeypatch):
    folder = shutil.copytree(analysed[0], tmp_path / "run")
    before = times(folder), (folder / "metrics.json").read_text()

    def compute(subject):
        raise DataError("a file is missing")

    monkeypatch.setattr(ANALYSES["paths"], "compute", compute)
    with pytest.raises(DataError, match="a file is missing"):
        experiment.run(TINY, folder, analyses=["paths"], settings=SMALL | {"path_points": 4})
    assert (times(folder), (folder / "metrics.json").read_text()) == before
    assert (folder / "report.html").exists()


def test_a_figure_of_another_analysis_is_not_replaced(analysed, tmp_path, monkeypatch):
    folder = shutil.copytree(analysed[0], tmp_path / "run")
    before = times(folder)
    findings = Findings({}, {"filters": {}})
    monkeypatch.setattr(ANALYSES["paths"], "compute", lambda subject: findings)
    with pytest.raises(RunError, match="'paths' makes a figure 'filters', which is another one"):
        experiment.run(TINY, folder, analyses=["paths"], settings=SMALL | {"path_points": 4})
    assert times(folder) == before


def test_an_analysis_that_is_not_known_names_the_flag(analysed, tmp_path):
    folder = shutil.copytree(analysed[0], tmp_path / "run")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["analyses"]["norms"] = {}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    before = times(folder)
    with pytest.raises(RunError, match=r"analysis 'norms', which is not known: .* --extension"):
        experiment.run(TINY, folder, analyses=["paths"], settings=SMALL | {"path_points": 4})
    assert times(folder) == before


def test_one_network_has_the_analyses_of_one_network(single):
    folder, metrics = single
    assert metrics["method"] == "sgd"
    assert metrics["run"]["parameters"] == metrics["run"]["target_weights"] == 20_018
    assert metrics["networks"]["num_networks"] == 1
    assert metrics["networks"]["member_accuracy_std"] is None
    assert set(metrics["diversity"].values()) == {None}
    of_several = {name for name, analysis in ANALYSES.items() if analysis.min_networks > 1}
    assert of_several == {
        *("ensembles", "scatter", "posteriors", "paths", "filter_diversity"),
        "detection_sizes",
    }
    analyses = metrics["analyses"]
    assert set(analyses) == set(ANALYSES) - of_several
    assert set(analyses["uncertainty"]["pairs"].values()) == {None, 80}  # the number of images
    assert analyses["uncertainty"]["mutual_information"]["mean"] == 0
    assert "ensemble" not in analyses["adversarial"]
    attacks = analyses["attacks"]["systems"]
    assert set(attacks) == {"member_fgsm", "member_pgd"}
    assert "entropy" in attacks["member_pgd"] and "mutual_information" not in attacks["member_pgd"]
    assert "NaN" not in (folder / "metrics.json").read_text()


def test_an_analysis_of_more_networks_than_there_are(single, capsys):
    folder, _ = single
    config = folders.finished(folder, RunConfig)[0]
    for name, least in (("scatter", 7), ("paths", 2), ("ensembles", 2)):
        for place in (folder, folder.parent / "fresh"):
            with pytest.raises(UsageError) as error:
                experiment.run(config, place, analyses=[name, "all"])
        assert not place.exists()  # the error comes before anything is trained
        assert str(error.value) == (
            f"the analysis '{name}' needs at least {least} networks, and this sampler holds 1: "
            "leave it out"
        )
    capsys.readouterr()
    experiment.run(config, folder, analyses=["all"], settings=ALONE)
    assert capsys.readouterr().out.count("left out: the analysis") == 6


class TestKilled:
    """A kill in the middle: the same command again comes to the same end."""

    @pytest.fixture
    def killed(self, monkeypatch):
        """Kills the writing of a figure of this name, once."""

        def at(figure):
            real = folders.write_figure

            def write(folder, name, *rest):
                if name == figure:
                    monkeypatch.setattr(folders, "write_figure", real)
                    raise KeyboardInterrupt
                real(folder, name, *rest)

            monkeypatch.setattr(folders, "write_figure", write)

        return at

    def test_while_an_analysis_is_done_again(self, analysed, tmp_path, killed, quick_pictures):
        folder = shutil.copytree(analysed[0], tmp_path / "run")
        killed("risk_coverage")  # the second of two figures
        with pytest.raises(KeyboardInterrupt):
            settings = SMALL | {"num_networks": 4}
            experiment.run(TINY, folder, analyses=["uncertainty"], settings=settings)
        assert "uncertainty" not in json.loads((folder / "metrics.json").read_text())["analyses"]
        assert not (folder / "report.html").exists()
        again = experiment.run(TINY, folder, analyses=["uncertainty"], settings=SMALL)
        again["analyses"]["uncertainty"]["seconds"] = 0
        expected = dict(analysed[1]["analyses"]["uncertainty"], seconds=0)
        assert again["analyses"]["uncertainty"] == expected
        for name in expected["figures"]:
            for key, values in arrays(analysed[0], name).items():
                np.testing.assert_array_equal(arrays(folder, name)[key], values)
        assert (folder / "report.html").exists()

    @pytest.mark.slow
    def test_after_more_training_which_removes_earlier_analyses(
        self, analysed, tmp_path, killed, quick_pictures, as_bent
    ):
        folder = shutil.copytree(analysed[0], tmp_path / "run")
        longer = dataclasses.replace(TINY, steps=61)
        killed("accuracy_histogram")
        with pytest.raises(KeyboardInterrupt):
            experiment.run(longer, folder)
        assert not (folder / "metrics.json").exists()  # it would be of fewer steps
        with pytest.raises(RunError, match="no finished run"):
            report.write([folder], tmp_path / "page.html")
        metrics = experiment.run(longer, folder)
        assert metrics["steps"] == 61
        assert (folder / "checkpoints" / "step-00000061").exists()
        assert set(metrics["analyses"]) == BASIC
        assert not (folder / "figures" / "paths.png").exists()
        assert set(times(folder)) >= {"accuracy_histogram.png", "filters.png"}
        with pytest.raises(RunError, match="goes to 61 steps, not 60"):
            experiment.run(TINY, folder)
