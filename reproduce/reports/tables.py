"""The one writer of tables, in Markdown and in HTML, and the rows that analyses report."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import NamedTuple

from hypernet_tf.metrics import Measure


class Row(NamedTuple):
    """A number of a run.

    Attributes:
        measure: What the number is; its key is unique among the rows of a run.
        value: The number as it is stored (fractions, nats); None where it is not defined.
    """

    measure: Measure
    value: float | None


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
