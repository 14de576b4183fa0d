"""The examples run, and print what they promise."""

import pathlib
import runpy

FOLDER = pathlib.Path(__file__).parents[1] / "examples"


def test_own_diversity_term(capsys):
    example = runpy.run_path(str(FOLDER / "own_diversity_term.py"))
    example["main"](epochs=60)
    title, header, without, with_term = capsys.readouterr().out.splitlines()
    assert "deviation" in title and "in the gap" in header
    assert without.startswith("none") and with_term.startswith("log variance")
    deviations = [float(line.split()[-1]) for line in (without, with_term)]
    assert deviations[1] > deviations[0] > 0


def test_every_example_is_tested():
    source = pathlib.Path(__file__).read_text()
    for path in [*FOLDER.glob("*.py"), *FOLDER.glob("*.ipynb")]:
        assert f'"{path.name}"' in source
