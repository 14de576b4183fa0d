"""`--help` is the same with and without the packages that take seconds to load."""

import pytest
from small_experiments import python

from reproduce.__main__ import COMMANDS
from reproduce.cli.stand_ins import PACKAGES, StandIn


def some_fast(*names):
    """All commands; those without one of these names are slow cases."""
    return [
        pytest.param(command.name, marks=[] if command.name in names else pytest.mark.slow)
        for command in COMMANDS
    ]


@pytest.fixture
def broken_packages(tmp_path, monkeypatch):
    """A folder in which none of the packages can be imported."""
    for package in PACKAGES:
        (tmp_path / "broken" / package).mkdir(parents=True)
        (tmp_path / "broken" / package / "__init__.py").write_text("raise SystemExit('loaded')")
    monkeypatch.syspath_prepend(tmp_path / "broken")


@pytest.mark.usefixtures("broken_packages")
@pytest.mark.parametrize("name", some_fast("mnist", "report", "toy"))
def test_no_command_needs_them_for_its_help(name, tmp_path):
    done = python("-m", f"reproduce.{name}", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--run_dir" in done.stdout or "--output" in done.stdout
    if name == "mnist":  # one shows that they cannot be loaded
        assert "loaded" in python("-m", "reproduce.mnist", "--helpless", cwd=tmp_path).stderr


@pytest.mark.parametrize("name", some_fast("mnist"))
def test_the_text_is_that_of_the_real_packages(name, tmp_path):
    (tmp_path / "nothing.py").write_text("import tensorflow\nprint(tensorflow.__version__)\n")
    words = ("-m", f"reproduce.{name}", "--help")
    real = python(*words, "--extension=nothing", cwd=tmp_path)
    version, _, text = real.stdout.partition("\n")
    assert version[0].isdigit(), real.stderr
    assert python(*words, cwd=tmp_path).stdout == text


def test_a_stand_in_is_whatever_it_is_used_as():
    keras = StandIn("keras")

    @keras.saving.register_keras_serializable(package="mine")
    class Layer(keras.layers.Layer):
        size: int | keras.Variable = 3

    assert Layer.__mro__ == (Layer, object)
    assert Layer().size == 3
    assert isinstance(keras.Model(keras.Input((2,)))[0].operations, StandIn)
    with pytest.raises(AttributeError):
        keras.__version__  # noqa: B018
