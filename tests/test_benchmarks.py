"""Benchmarks can be started: what they import is there."""

import importlib
import importlib.machinery
import importlib.util
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "benchmarks"
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))


@pytest.fixture(scope="module", autouse=True)
def package():
    """The checkout's folder as a package: the wheel does not contain it."""
    spec = importlib.machinery.PathFinder.find_spec("benchmarks", [str(FOLDER.parent)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "benchmarks", importlib.util.module_from_spec(spec))
        yield
    for name in NAMES:
        sys.modules.pop(f"benchmarks.{name}", None)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_is_imported(name):
    assert importlib.import_module(f"benchmarks.{name}").__doc__
