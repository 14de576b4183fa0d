"""Flags of the analyses."""

import re
import shutil

import pytest
from analysed_runs import TINY
from small_experiments import command_line, python

from reproduce import mnist, report
from reproduce.analyses import ANALYSES, perform
from reproduce.cli import analysis_flags
from reproduce.cli.command import FLAGS
from reproduce.runs import folder as folders
from reproduce.runs.folder import RunError, UsageError

pytestmark = pytest.mark.usefixtures("few_digits")


def main(**values):
    with command_line(*(f"--{name}={value}" for name, value in values.items())):
        mnist.main()


def test_every_setting_has_a_flag_that_names_its_analyses():
    for analysis in ANALYSES.values():
        for setting in analysis.settings:
            flag = FLAGS[setting.name]
            if setting.name == "num_networks":  # a flag of every run
                continue
            assert flag.help.startswith(setting.help)
            assert re.search(rf"Used by: .*\b{analysis.name}\b", flag.help)
    assert FLAGS["ensembles"].help.endswith("Used by: accuracies, ensembles.")
    assert "paths: accuracy along paths" in FLAGS["analyses"].help


@pytest.mark.parametrize(
    "flag", ["--ensembles=3", "--colour", "--scatter_networks=9", "--num_networks=9", "--ood=noise"]
)
def test_a_flag_that_no_requested_analysis_uses(flag):
    name = flag.split("=")[0]
    message = f"^{name} is not used by the analyses asked for: remove it.$"
    for analyses in ("--analyses=paths,adversarial", "--seed=0"):
        with command_line(analyses, flag), pytest.raises(UsageError, match=message):
            names = perform.names_of(analysis_flags.requested())
            analysis_flags.settings(names, trains=False)


def test_settings_come_from_flags():
    arguments = ["--ensembles=3", "--colour", "--num_networks=7", "--ood=noise,glyphs"]
    with command_line("--analyses=all", *arguments):
        names = perform.names_of(analysis_flags.requested())
        assert analysis_flags.settings(names, trains=True) == {
            "num_networks": 7,
            "ensembles": 3,
            "colour": True,
            "ood": ["noise", "glyphs"],
        }


def test_a_finished_run_is_analysed_by_its_folder_alone(bent_run, tmp_path, capsys, quick_pictures):
    folder = shutil.copytree(bent_run, tmp_path / "run")
    main(run_dir=str(folder), analyses="filter_diversity")
    assert (folder / "figures" / "filter_diversity.pdf").exists()
    assert "analysis 1 of 1: filter_diversity" in capsys.readouterr().out


def test_without_a_finished_run(bent_run, tmp_path):
    unfinished = shutil.copytree(bent_run, tmp_path / "run")
    (unfinished / "metrics.json").unlink()
    for folder in (unfinished, tmp_path / "nothing"):
        with pytest.raises(RunError, match=r"no finished run in .*: train it first$"):
            main(run_dir=str(folder), analyses="paths")
    assert not (tmp_path / "nothing").exists()


def test_a_run_that_was_continued_and_stopped_is_not_analysed(bent_run, tmp_path):
    folder = shutil.copytree(bent_run, tmp_path / "run")
    config = folders.finished(bent_run, type(TINY))[0]
    folders.write_json(folder / "config.json", vars(config) | {"steps": 3000})
    with pytest.raises(RunError, match="has done 60 of its 3000 steps: finish it first"):
        main(run_dir=str(folder), analyses="filters")
    with pytest.raises(RunError, match="has done 60 of its 3000 steps"):
        report.write([folder], tmp_path / "page.html")


def test_unknown_analyses(bent_run):
    with pytest.raises(UsageError, match="there is no analysis 'pathes': the analyses are"):
        main(run_dir=str(bent_run), analyses="paths,pathes")
    with pytest.raises(UsageError, match="--analyses is empty"):
        main(run_dir=str(bent_run), analyses="")


@pytest.mark.slow
def test_an_error_is_one_line(tmp_path):
    """As a user sees it: one line, an exit code, nothing written."""
    (tmp_path / "empty").mkdir()
    done = python("-m", "reproduce.mnist", "--run_dir=empty", "--analyses=all", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    line = r"reproduce\.mnist: there is no finished run in empty.*\n"
    assert re.fullmatch(line, done.stderr)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]
