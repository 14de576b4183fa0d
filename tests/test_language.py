"""The words of the project: short, literal sentences that readers from every country understand."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = [
    path
    for folder in ("hypernet_tf", "reproduce", "benchmarks", "examples", "tests")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != pathlib.Path(__file__)
]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
BANNED = (
    r"to be had",
    r"\bbut for\b",
    r"has no part in",
    r"tells the rest",
    r"\b(is|are) refused\b",
    r"whoever it is",
)


@pytest.mark.parametrize("phrase", BANNED)
def test_a_phrase_that_readers_stumble_over_is_nowhere(phrase):
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in SOURCES + DOCUMENTS
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(phrase, line)
    ]
    assert found == []


def test_an_argument_is_described_by_what_it_is():
    """Not "seed: of the weights" but "seed: Seed of the weights"."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            text = ast.get_docstring(node) or ""
            found += [
                f"{path.relative_to(ROOT)}: {line.strip()}"
                for line in re.findall(r"^    \w+: of .*$", text, re.MULTILINE)
            ]
    assert found == []
