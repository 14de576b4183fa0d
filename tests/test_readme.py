"""README and its guide to new methods tell the truth: their examples run, README's links exist."""

import contextlib
import importlib
import pathlib
import re
import shlex
import sys

import pytest
from small_experiments import SmallStudy, command_line, python

from reproduce import compare
from reproduce.configs import METHODS, extensions
from reproduce.runs.match import finished_sampler
from reproduce.studies import experiment

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDE = ROOT / "docs" / "guides" / "your_method.md"


@pytest.mark.parametrize("short", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_example_runs(short, with_few_digits, tmp_path, monkeypatch, capsys, request):
    """Exactly its lines, or the same with one epoch, ten networks and eighty digits."""
    monkeypatch.chdir(tmp_path)
    if short:
        request.getfixturevalue("eager_fits")
    [code] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert sum(bool(line) for line in code.splitlines()) <= 12
    if short:
        assert [code.count(words) for words in ("epochs=20", "sample(100")] == [1, 1]
        code = code.replace("epochs=20", "epochs=1, verbose=0").replace("sample(100", "sample(10")
    names: dict = {}
    with with_few_digits() if short else contextlib.nullcontext():
        exec(compile(code, "README.md", "exec"), names)
    printed = capsys.readouterr().out
    assert "members" in printed
    assert "AUROC" in printed
    if not short:
        result = names["result"]
        assert result.majority_vote_accuracy > result.member_accuracy.mean() > 0.93


def method_example():
    """The module and the command of the guide "Your own sampler"."""
    text = GUIDE.read_text().split("<!-- method example -->\n")[1]
    module, command = re.match(r"```python\n(.*?)```\n+```sh\n(.*?)```", text, re.DOTALL).groups()
    assert "# my_sampler.py\n" in module
    assert command.startswith("python -m reproduce.compare ") and command.count("\n") == 1
    return module, shlex.split(command)[1:]


class TestMethod:
    @pytest.fixture
    def module(self, monkeypatch, tmp_path):
        """The module, in the folder in which commands run; what it registers is forgotten."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        monkeypatch.setattr(extensions, "_LOADED", [])
        (tmp_path / "my_sampler.py").write_text(method_example()[0])
        known = dict(METHODS)
        yield
        METHODS.clear()
        METHODS.update(known)
        sys.modules.pop("my_sampler", None)

    @pytest.mark.usefixtures("module", "few_digits", "quick_pictures", "eager_fits")
    def test_one_entry_adds_it_to_the_methods(self, tmp_path):
        words = method_example()[1][2:]
        extensions.load_extensions(words)
        with command_line(*words):
            comparison = compare.from_flags()
        assert set(comparison.methods) == {"jitter", "sgd"}
        assert [run.config.method for run in comparison.runs()] == [*comparison.methods]
        study = SmallStudy(("jitter",))
        [run] = study.runs()
        metrics = experiment.run(run.config, tmp_path / run.folder)
        assert metrics["method"] == "jitter"
        assert metrics["networks"]["num_networks"] == 20
        sampler = finished_sampler(tmp_path / "jitter-seed=0", run.config)
        assert type(sampler) is importlib.import_module("my_sampler").Jitter
        assert study.write(tmp_path)["numbers"]["member_accuracy"]["jitter"]["mean"] > 0
        assert "| jitter |" in (tmp_path / "table.md").read_text()

    @pytest.mark.slow
    @pytest.mark.usefixtures("module")
    def test_the_command_compares_it(self, tmp_path):
        command = [*method_example()[1], "--passes=2560", "--trials=0"]
        done = python(*command, cwd=tmp_path, timeout=900)
        assert done.returncode == 0, done.stderr
        assert re.search(r"^\| +\|.* jitter \|", done.stdout, re.M), done.stdout
        [folder] = (tmp_path / "runs").iterdir()
        assert {"jitter-seed=0", "sgd-seed=0"} <= {path.name for path in folder.iterdir()}
        assert "jitter" in (folder / "report.html").read_text()
        assert (folder / "figures" / "comparison.png").exists()


def test_what_it_links_to_is_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README.read_text())
    assert links
    for link in links:
        assert (README.parent / link).exists(), link
