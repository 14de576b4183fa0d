"""The examples run, and print what they promise."""

import json
import pathlib
import runpy

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "examples"


def test_own_diversity_term(capsys):
    example = runpy.run_path(str(FOLDER / "own_diversity_term.py"))
    example["main"](steps=200)
    *_, without, with_term = capsys.readouterr().out.splitlines()
    assert without.startswith("none") and with_term.startswith("log variance")
    weights, predictions, *errors = zip(
        *([float(word) for word in line.split()[-4:]] for line in (without, with_term)), strict=True
    )
    assert weights[1] > 2 * weights[0] > 0
    assert predictions[1] > predictions[0] > 0
    assert max(*errors[0], *errors[1]) < 0.4  # the variance of y is 0.5


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = json.loads((FOLDER / "quickstart.ipynb").read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    names: dict = {}
    exec(compile(code, "quickstart.ipynb", "exec"), names)
    assert names["result"].member_accuracy.mean() > 0.9
    assert {kind: values.shape for kind, values in names["accuracies"].items()} == {
        "direct": (5, 20),
        "interpolated": (5, 20),
    }
    assert names["accuracies"]["interpolated"].mean() > 90
    assert (tmp_path / "digits.keras").exists()


def test_weights_of_an_input(capsys):
    example = runpy.run_path(str(FOLDER / "weights_of_an_input.py"))
    example["main"](epochs=6)
    one_filter, one_per_example, cosine = (
        float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[1:]
    )
    assert one_filter > 0.8  # the variance of what is learnt is 1
    assert one_per_example < 0.02
    assert 0.99 < cosine <= 1.0


def test_every_example_is_tested():
    source = pathlib.Path(__file__).read_text()
    for path in [*FOLDER.glob("*.py"), *FOLDER.glob("*.ipynb")]:
        assert f'"{path.name}"' in source
