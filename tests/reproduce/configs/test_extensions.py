"""Modules of users that register methods or analyses."""

import sys

import pytest

from reproduce.configs import extensions
from reproduce.configs.extensions import ExtensionError, load_extensions, loaded_extensions


@pytest.fixture(autouse=True)
def forgotten(monkeypatch):
    """What a test loads is forgotten."""
    monkeypatch.setattr(extensions, "_LOADED", [])
    monkeypatch.setattr(sys, "path", list(sys.path))
    modules = set(sys.modules)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """A function that writes a module which counts how often it is imported."""
    monkeypatch.chdir(tmp_path)

    def function(name, text="import sys\nsys.imports = getattr(sys, 'imports', 0) + 1\n"):
        (tmp_path / f"{name}.py").write_text(text)

    yield function
    vars(sys).pop("imports", None)


@pytest.mark.parametrize(
    "arguments",
    [
        ["command", "--extension=first.py"],
        ["command", "--extension=first"],
        ["command", "-extension=first"],
        ["command", "--extension", "first.py", "--steps=2"],
    ],
)
def test_a_module_or_a_file_is_loaded_once(write, arguments):
    write("first")
    load_extensions(arguments)
    load_extensions(arguments)
    assert sys.imports == 1
    assert len(loaded_extensions()) == 1


def test_several_are_loaded_in_their_order(write, tmp_path):
    (tmp_path / "folder").mkdir()
    write("first")
    write("folder/second")
    load_extensions(["--dataset=mnist_5k", "--extension=first,folder/second.py"])
    assert sys.imports == 2
    assert loaded_extensions() == ["first", "folder/second.py"]


@pytest.mark.parametrize(
    "arguments", [["command"], ["extension=first"], ["--extensions=first"], ["--extension="]]
)
def test_nothing_is_loaded_without_the_flag(write, arguments):
    write("first")
    load_extensions(arguments)
    assert loaded_extensions() == []
    assert not hasattr(sys, "imports")


def test_a_file_with_the_name_of_another_module_is_an_error(write):
    write("json", "")
    with pytest.raises(ExtensionError, match="another module has the name 'json': rename the file"):
        load_extensions(["--extension=json.py"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "there is no such file"),
        ("1 +", "invalid syntax"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
        ("{}['lam']", "KeyError: 'lam'"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(write, text, words):
    if text is not None:
        write("broken", text)
    with pytest.raises(
        ExtensionError, match=rf"^cannot load --extension=broken\.py: .*{words}"
    ) as e:
        load_extensions(["--extension=broken.py"])
    assert "\n" not in str(e.value)
    assert loaded_extensions() == []
