"""A page of text, tables and figures in one HTML file, which needs no network."""

from __future__ import annotations

import base64
import html
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; overflow-wrap: break-word; }}
table {{ border-collapse: collapse; margin: 1rem 0; }} .table {{ overflow-x: auto; }}
th, td {{ border-bottom: 1px solid #ccc; padding: .3rem .8rem; text-align: left; }}
td.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
figure {{ margin: 1.5rem 0; break-inside: avoid; }} figcaption {{ color: #555; }}
.runs {{ display: flex; flex-wrap: wrap; gap: 1rem; }} .runs figure {{ flex: 1 1 20rem;
  margin: 1rem 0; min-width: 0; }} img {{ max-width: 100%; height: auto; }}
pre {{ overflow-x: auto; background: #f4f4f4; padding: 1rem; }} nav ul {{ columns: 14rem; }}
summary {{ cursor: pointer; font-weight: bold; margin: 1rem 0; }} h2 {{ margin-top: 2.5rem;
  break-after: avoid; }}
@media (max-width: 40rem) {{ th, td {{ padding: .2rem .3rem; font-size: .9rem; }}
  figure {{ overflow-x: auto; }} img {{ max-width: none; width: 40rem; }} }}
@media print {{ nav {{ display: none; }} body {{ margin: 0; max-width: none; }} }}
</style></head><body>
<h1>{title}</h1>
{body}
<script>addEventListener("beforeprint", () =>
  document.querySelectorAll("details").forEach((part) => {{ part.open = true; }}));</script>
</body></html>
"""


class Section(NamedTuple):
    """A part of a page, with an entry in its contents.

    Attributes:
        name: Heading, and the anchor of the section.
        question: What is asked, in a sentence.
        reading: How to read the figures, in a sentence; "" for nothing.
        table: HTML table of the few numbers that matter; "" for none.
        figures: Caption -> label of a run -> png file, as in `page`.
    """

    name: str
    question: str
    reading: str
    table: str
    figures: Mapping[str, Mapping[str, pathlib.Path]]


def page(
    title: str,
    paragraphs: Sequence[str],
    tables: Sequence[str],
    figures: Mapping[str, Mapping[str, pathlib.Path]],
    config: str,
) -> str:
    """The HTML of a page.

    Args:
        title: Heading.
        paragraphs: Plain text of each paragraph.
        tables: HTML tables.
        figures: Caption -> label of a run -> png file, which is embedded in the page. Figures with
            labels are shown side by side; a single figure has the label "".
        config: Configuration, shown as preformatted text.
    """
    parts = [*map(_paragraph, paragraphs), *map(_scrolled, tables), *_figures(figures)]
    parts.append(f"<h2>Configuration</h2><pre>{html.escape(config)}</pre>")
    return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def report(
    title: str,
    paragraphs: Sequence[str],
    headline: str,
    sections: Sequence[Section],
    table: str,
    config: str,
) -> str:
    """The HTML of a report: the headline, a contents list, sections, all numbers folded.

    Args:
        title: Heading.
        paragraphs: Plain text of each paragraph below the headline.
        headline: HTML table of the numbers that matter most.
        sections: The sections.
        table: HTML table of all numbers.
        config: Configuration, shown as preformatted text.
    """
    links = "".join(
        f'<li><a href="#{html.escape(s.name)}">{html.escape(_heading(s.name))}</a></li>'
        for s in sections
    )
    parts = [_scrolled(headline), *map(_paragraph, paragraphs), f"<nav><ul>{links}</ul></nav>"]
    for section in sections:
        heading = html.escape(_heading(section.name))
        parts.append(f'<h2 id="{html.escape(section.name)}">{heading}</h2>')
        parts.append(_paragraph(section.question))
        parts += [_scrolled(section.table)] if section.table else []
        parts += _figures(section.figures)
        parts += [_paragraph(section.reading)] if section.reading else []
    for summary, content in (
        ("All numbers", _scrolled(table)),
        ("Configuration", f"<pre>{html.escape(config)}</pre>"),
    ):
        parts.append(f"<details><summary>{summary}</summary>{content}</details>")
    return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def _heading(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _paragraph(text: str) -> str:
    return f"<p>{html.escape(text)}</p>"


def _scrolled(table: str) -> str:
    """The table in a box that scrolls where it is wider than the window."""
    return f'<div class="table">{table}</div>'


def _figures(figures: Mapping[str, Mapping[str, pathlib.Path]]) -> list[str]:
    parts = []
    for caption, paths in figures.items():
        images = [
            _figure(label or caption, f"{caption}: {label}" if label else caption, path)
            for label, path in paths.items()
        ]
        parts += (
            images
            if "" in paths
            else [f'<h3>{html.escape(caption)}</h3><div class="runs">{"".join(images)}</div>']
        )
    return parts


def _figure(caption: str, alternative: str, path: pathlib.Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return (
        f'<figure><img alt="{html.escape(alternative)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
