"""README tells the truth: its examples run, its links exist."""

import pathlib
import re

import keras
import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("short", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_examples_run(short, tmp_path, monkeypatch, capsys):
    """The first block, and the one that goes on with its ensemble."""
    monkeypatch.chdir(tmp_path)
    first, second, *_ = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    code = first + second
    if short:
        assert [code.count(s) for s in ("epochs=10", "sample(100", "epochs=5")] == [1, 1, 1]
        code = code.replace("epochs=10", "epochs=1, verbose=0").replace("sample(100", "sample(10")
        code = code.replace("epochs=5", "epochs=1")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["probabilities"].shape == (500, 10)
    assert isinstance(names["network"], keras.Sequential)
    assert (tmp_path / "hyper.keras").exists()
    printed = capsys.readouterr().out
    assert "members" in printed
    assert "AUROC" in printed
    if not short:
        result = names["result"]
        assert result.majority_vote_accuracy > result.member_accuracy.mean() > 0.88


def test_what_it_links_to_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert links
    for link in links:
        assert (README.parent / link).exists(), link
