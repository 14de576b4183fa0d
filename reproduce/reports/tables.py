"""The one writer of tables, in Markdown and in HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, which a terminal shows as well; all columns except the first are numbers.

    Args:
        header: Headings of the columns.
        rows: Cells of each row.
    """
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """An HTML table; all columns except the first are numbers.

    Args:
        header: Headings of the columns.
        rows: Cells of each row.
    """
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = [
        f"<tr><td>{html.escape(first)}</td>"
        + "".join(f'<td class="n">{html.escape(cell)}</td>' for cell in rest)
        + "</tr>"
        for first, *rest in rows
    ]
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"
