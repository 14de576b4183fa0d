"""README tells the truth: its example runs, its commands exist."""

import pathlib
import re

import keras
import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("short", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_example_runs(short, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    if short:
        assert [code.count(s) for s in ("epochs=60", "sample(1000", "epochs=20")] == [1, 1, 1]
        code = code.replace("epochs=60", "epochs=1, verbose=0").replace("sample(1000", "sample(10")
        code = code.replace("epochs=20", "epochs=1")
    names: dict = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["probabilities"].shape == (500, 10)
    assert isinstance(names["network"], keras.Sequential)
    assert (tmp_path / "hyper.keras").exists()
    if not short:
        result = names["result"]
        assert result.majority_vote_accuracy > result.member_accuracy.mean() > 0.88
    capsys.readouterr()


def test_what_it_links_to_is_there():
    links = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    assert links
    for link in links:
        assert (README.parent / link).exists(), link
