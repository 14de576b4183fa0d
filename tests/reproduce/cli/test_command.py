"""The frame of a command: errors in one line, and what importing it leaves alone."""

import ast
import os
import pathlib
import signal
import sys

import pytest
from absl import logging
from absl.testing import flagsaver
from small_experiments import SmallStudy, command_line

import reproduce
from hypernet_tf.data import DataError
from hypernet_tf.training.callbacks import TrainingDivergedError
from hypernet_tf.training.checkpoints import CheckpointError
from hypernet_tf.training.devices import DeviceError, WorkerLostError
from reproduce import mnist
from reproduce.cli import command, quiet
from reproduce.configs import extensions
from reproduce.runs.folder import RunError, UsageError


class TestParsing:
    @pytest.mark.parametrize(
        ("flag", "expected"),
        [
            ("--dataset=imagenet", "choose one of auto, mnist, mnist_5k, fashion_mnist"),
            ("--lam=-1", "lam is a number from 1.2e-38"),
            ("--lam=nan", "lam is a number from 1.2e-38"),
            ("--lam=inf", "lam is a number from 1.2e-38"),
            ("--lam=much", "much"),
            ("--steps=0", "at least 1 training step"),
            ("--num_networks=1", "at least 2 networks"),
            ("--preset=slow", "paper"),
            ("--seed=-1", "the seed is between 0 and 2147483647"),
            ("--devices=0", "a number of devices, at least 1, or all"),
            ("--lamm=1", "lamm"),
            ("quick", "unexpected argument 'quick': flags are written --name=value"),
            ("--run_dir=", "--run_dir is empty: name a folder, or leave it out"),
            ("--extension=nowhere.py", "cannot load --extension=nowhere.py: there is no such file"),
        ],
    )
    def test_bad_flags_are_one_line(self, flag, expected, monkeypatch, tmp_path, capsys):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["mnist.py"])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with flagsaver.flagsaver(), pytest.raises(SystemExit) as end:
            command.parse_flags_only(["mnist", flag])
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("reproduce.mnist: ")
        assert expected in line
        assert not list(tmp_path.iterdir())

    def test_arguments_beside_flags(self):
        with flagsaver.flagsaver():
            assert command.parse(["report", "runs/a", "--seed=3", "runs/b"]) == [
                *("report", "runs/a", "runs/b")
            ]
            assert command.FLAGS.seed == 3

    def test_a_folder_may_be_that_of_the_user(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/ada")
        with flagsaver.flagsaver():
            command.parse(["mnist", "--run_dir=~/runs/a", "--data_dir=~"])
            assert (command.FLAGS.run_dir, command.FLAGS.data_dir) == (
                "/home/ada/runs/a",
                "/home/ada",
            )

    def test_an_extension_is_loaded_before_flags_are_parsed(self, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(extensions, "_LOADED", [])
        (tmp_path / "seeds_of_mine.py").write_text(
            "from absl import flags\nflags.DEFINE_integer('mine_2718', 1, 'A flag of mine.')\n"
        )
        with flagsaver.flagsaver():
            command.parse(["mnist", "--extension=seeds_of_mine.py", "--mine_2718=4"])
            assert command.FLAGS.mine_2718 == 4
        del sys.modules["seeds_of_mine"]


class TestErrors:
    def run(self, monkeypatch, error):
        """The exit of a command whose main raises an error."""

        def main(arguments):
            raise error

        monkeypatch.setattr(sys, "argv", ["/somewhere/reproduce/mnist.py"])
        monkeypatch.setattr(command.app, "run", lambda guarded, flags_parser: guarded(["mnist"]))
        verbosity = logging.get_verbosity()
        try:
            command.run_with_arguments(main)
        finally:
            logging.set_verbosity(verbosity)

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (UsageError("do something else"), 2),
            (RunError("do something else"), 1),
            (DataError("do something else"), 1),
            (CheckpointError("do something else"), 1),
            (DeviceError("do something else"), 1),
            (TrainingDivergedError("do something else"), 3),
            (WorkerLostError("do something else"), 1),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_an_error_of_the_user_is_one_line(self, error, code, monkeypatch, capsys):
        with pytest.raises(SystemExit) as end:
            self.run(monkeypatch, error)
        assert end.value.code == code
        assert capsys.readouterr().err == "reproduce.mnist: do something else\n"

    def test_a_stop_is_one_line(self, monkeypatch, capsys):
        with pytest.raises(SystemExit) as end:
            self.run(monkeypatch, KeyboardInterrupt())
        assert end.value.code == 130
        assert capsys.readouterr().err == (
            "reproduce.mnist: stopped; what is finished is kept: "
            "run the same command again to go on\n"
        )

    def test_another_error_is_a_traceback(self, monkeypatch):
        with pytest.raises(ZeroDivisionError):
            self.run(monkeypatch, ZeroDivisionError())


@pytest.mark.parametrize("run_dir", [None, "elsewhere"])
def test_a_study_prints_its_table(run_dir, monkeypatch, tmp_path, capsys):
    executed = []

    def execute(study, folder, data_dir):
        executed.append((str(folder), data_dir))
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "table.md").write_text("| a table |\n")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SmallStudy, "execute", execute)
    before = signal.getsignal(signal.SIGTERM)
    try:
        with command_line(*([f"--run_dir={run_dir}"] if run_dir else [])):
            command.run_study(SmallStudy(("sgd",)))
    finally:
        signal.signal(signal.SIGTERM, before)
    folder = run_dir or "runs/small-dataset=mnist_5k"
    assert executed == [(folder, None)]
    assert capsys.readouterr().out == f"| a table |\nreport: {folder}/report.html\n"


class TestImports:
    def test_a_command_imports_its_frame_before_tensorflow(self):
        """Or the notes that TensorFlow writes while it loads are on stderr."""
        folder = pathlib.Path(reproduce.__file__).parent
        light = {*sys.stdlib_module_names, "absl", "numpy", "matplotlib"}
        for path in folder.glob("*.py"):
            if path.stem in ("__init__", "__main__"):
                continue
            imported = []
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.Import):
                    imported += [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    imported.append(node.module)
            first = imported.index("reproduce.cli")
            assert {name.split(".")[0] for name in imported[:first]} <= light, path.name

    def test_notes_are_held_back_and_shown_with_an_error(self, monkeypatch, capfd):
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
        quiet.load_tensorflow_quietly()
        with quiet._held_back():
            os.write(2, b"a note\n")
        assert capfd.readouterr().err == ""
        with pytest.raises(ValueError, match="an error"), quiet._held_back():
            os.write(2, b"a note\n")
            raise ValueError("an error")
        assert capfd.readouterr().err == "a note\n"
        os.write(2, b"after\n")
        assert capfd.readouterr().err == "after\n"


def test_mnist_has_the_flags_of_a_run():
    names = {flag.name for flag in command.FLAGS.get_key_flags_for_module(mnist.__name__)}
    expected = {"method", "diversity", "match", "lam", "dataset", "target", "steps"}
    expected |= {"analyses", "devices"}
    assert expected <= names
    assert "seeds" not in names
