"""The documentation tells the truth: its examples run, and its reference is complete."""

import pathlib
import re
import textwrap

import pytest

import hypernet_tf as hn
from reproduce.configs import TARGETS

DOCS = pathlib.Path(__file__).parents[1] / "docs"
PAGES = [
    path
    for path in sorted(DOCS.rglob("*.md"))
    if "```python" in path.read_text() and path.stem != "your_method"  # which test_readme runs
]


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    code = "\n".join(map(textwrap.dedent, blocks))  # those of lists are indented
    tables = [hn.metrics.MEASURES, TARGETS, hn.data.DATASETS]
    known = [dict(table) for table in tables]
    try:
        exec(compile(code, page.name, "exec"), {"__name__": page.stem})
    finally:  # a page may register a measure, a target or a data set
        for table, entries in zip(tables, known, strict=True):
            table.clear()
            table.update(entries)


def test_the_reference_names_everything_that_is_public():
    text = "".join(path.read_text() for path in (DOCS / "api").glob("*.md"))
    missing = [
        name
        for name in hn.__all__
        if not re.search(rf":: hypernet_tf\.(\w+\.)*{name}$", text, re.MULTILINE)
        and name not in {*hn.metrics.__all__, *hn.analysis.__all__}
    ]
    assert missing == []


def test_every_page_is_in_the_contents():
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")}
    pages = {page for page in pages if not page.startswith("_build")}
    entries = {"index"}
    for path in (DOCS / "index.md", DOCS / "api" / "index.md"):
        for block in re.findall(r"```\{toctree\}\n(.*?)```", path.read_text(), re.DOTALL):
            lines = [line for line in block.splitlines() if line and not line.startswith(":")]
            entries |= {str((path.parent / line).relative_to(DOCS)) for line in lines}
    assert entries == pages


def test_what_pages_link_to_is_there():
    headings = re.compile(r"^#+ (.*)$", re.MULTILINE)
    missing = []
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        for link, part in re.findall(r"\]\((?!https?:)([^)#\s]*)#?([^)\s]*)\)", page.read_text()):
            path = (page.parent / link).resolve() if link else page
            if not path.exists():
                missing.append((page.name, link))
            elif part:
                names = {
                    re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
                    for heading in headings.findall(path.read_text())
                }
                if part not in names:
                    missing.append((page.name, link, part))
    assert missing == []
