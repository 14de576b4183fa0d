"""`python -m reproduce`: the list of commands."""

import importlib
import pathlib
import subprocess
import sys

import pytest

import reproduce
from reproduce.__main__ import COMMANDS, main


def modules():
    folder = pathlib.Path(reproduce.__file__).parent
    return {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}


def test_it_lists_the_commands_that_there_are():
    names = [command.name for command in COMMANDS]
    assert set(names) == modules()
    assert len(names) == len(set(names))
    for command in COMMANDS:
        assert command.makes and command.duration


def test_every_command_is_one():
    for name in modules():
        module = importlib.import_module(f"reproduce.{name}")
        assert callable(module.main)
        assert f"python -m reproduce.{name}" in module.__doc__


def test_it_prints_what_each_makes_and_how_long_it_takes(capsys):
    main()
    text = capsys.readouterr().out
    assert "python -m reproduce.<command> --help" in text
    for command in COMMANDS:
        assert f"  {command.name} " in text
        assert command.makes in text
        assert command.duration in text


def test_as_a_user_runs_it_it_takes_no_tensorflow(tmp_path):
    root = pathlib.Path(reproduce.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "reproduce"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "mnist" in done.stdout
    assert "tensorflow" not in done.stderr


def test_help_is_the_list(capsys):
    main()
    listed = capsys.readouterr().out
    main(["--help"])
    assert capsys.readouterr().out == listed


def test_an_argument_is_an_error(capsys):
    with pytest.raises(SystemExit) as error:
        main(["mnist"])
    assert error.value.code == 2
    assert "unexpected argument 'mnist': run python -m reproduce.mnist\n" in capsys.readouterr().err
