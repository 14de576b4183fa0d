"""The table of HyperGAN's paper."""

import pytest
from small_experiments import command_line, run_in_process, small_presets

from reproduce import classification
from reproduce.classification import METHODS_SHOWN, QUICK_PASSES, Classification
from reproduce.runs import folder as folders
from reproduce.runs.folder import UsageError
from reproduce.studies import study as studies


def test_flags_describe_the_papers_table():
    with command_line("--seeds=1,0"):
        study = classification.from_flags()
    assert study.datasets == ("mnist", "mnist:5000", "cifar10:0-4", "cifar10")
    assert (study.methods, study.seeds) == (METHODS_SHOWN, (0, 1))
    runs = study.runs()
    assert len(runs) == len({run.folder for run in runs}) == 2 * 4 * 5
    assert {run.config.experiment for run in runs if "cifar" in run.entry} == {"cifar"}
    assert {run.config.experiment for run in runs if "mnist" in run.entry} == {"mnist"}
    assert runs[5].folder == "hypergan-dataset=mnist@5000-seed=0"
    assert study.label(runs[10].entry, {}) == "cifar10, classes 0-4: hypergan"
    assert str(study.default_folder()) == "runs/classification"


def test_the_quick_preset_is_the_embedded_digits_at_one_cost():
    with command_line("--preset=quick", "--seeds=0", "--methods=mnf,hypergan"):
        study = classification.from_flags()
    assert (study.datasets, study.methods) == (("mnist_5k",), ("hypergan", "mnf"))
    for run in study.runs():
        config = run.config
        assert 0 <= config.image_passes - QUICK_PASSES < config.passes_per_step


def test_other_methods_join_where_they_are_named():
    with command_line("--preset=quick", "--methods=bhn,hypergan"):
        assert classification.from_flags().methods == ("hypergan", "bhn")


def test_a_data_set_may_be_some_classes():
    with command_line("--datasets=mnist_5k:0,3,7,mnist_5k:4-6"):
        study = classification.from_flags()
    assert {run.config.dataset for run in study.runs()} == {"mnist_5k:0,3,7", "mnist_5k:4-6"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--datasets=cats"], "there is no data set 'cats': --datasets takes mnist, mnist_5k"),
        (["--datasets=glyphs"], "there is no data set 'glyphs'"),
        (["--datasets=mnist,mnist:0-9"], "names a data set twice"),
        (["--preset=fast"], "has no preset 'fast': choose quick"),
        (["--methods=noise"], "there is no method 'noise'"),
        (["--datasets="], "--datasets is empty: name at least one"),
        (["--datasets=mnist_5k:3"], "a network needs at least 2 classes: --datasets=mnist_5k:3"),
        (["--lam=3"], "a study of classification has no --lam"),
    ],
)
def test_mistakes_are_one_line(words, message):
    with command_line(*words), pytest.raises(UsageError, match=message) as error:
        classification.from_flags()
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_one_table_with_empty_cells(tmp_path, with_few_digits, undrawn, monkeypatch):
    methods = ("hypergan", "mnf", "deep_ensemble")
    study = Classification(("mnist_5k:0-4",), methods, "quick", (0,))
    monkeypatch.setattr(classification, "QUICK_PASSES", 16)
    monkeypatch.setattr(studies, "run_child", run_in_process)
    with small_presets(*methods), with_few_digits(), undrawn():
        metrics = study.execute(tmp_path / "study")
    numbers = metrics["numbers"]
    for entry in (run.entry for run in study.runs()):
        holds_two = "deep_ensemble" in entry
        for size in ("5", "10", "100"):
            number = numbers[f"ensemble_sizes_{size}_accuracy"][entry]["mean"]
            assert (number is None) == holds_two
        assert 0 <= numbers["ensemble_sizes_1_accuracy"][entry]["mean"] <= 1
    run = folders.read_metrics(tmp_path / "study" / "mnf-dataset=mnist_5k@0-4-seed=0")
    accuracy = run["analyses"]["ensemble_sizes"]["sizes"]["100"]["accuracy"]
    assert numbers["ensemble_sizes_100_accuracy"]["mnist_5k:0-4 mnf"]["mean"] == accuracy
    lines = (tmp_path / "study" / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 3
    cells = lines[-1].split("|")[1:-1]
    assert cells[0].strip() == "mnist_5k, classes 0-4: deep_ensemble"
    assert sum(not cell.strip() for cell in cells) == 6  # too few networks
