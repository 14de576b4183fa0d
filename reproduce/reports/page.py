"""A page of text, tables and figures in one HTML file, which needs no network."""

from __future__ import annotations

import base64
import html
import pathlib
from collections.abc import Mapping, Sequence

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }}
table {{ border-collapse: collapse; margin: 1rem 0; }}
th, td {{ border-bottom: 1px solid #ccc; padding: .3rem .8rem; text-align: left; }}
td.n {{ text-align: right; font-variant-numeric: tabular-nums; }}
figure {{ margin: 2rem 0; }} .runs {{ display: flex; gap: 1rem; }} .runs figure {{ flex: 1;
  margin: 1rem 0; }} img {{ max-width: 100%; }} pre {{ overflow-x: auto; background:
#f4f4f4; padding: 1rem; }} </style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""


def page(
    title: str,
    paragraphs: Sequence[str],
    tables: Sequence[str],
    figures: Mapping[str, Mapping[str, pathlib.Path]],
    config: str,
) -> str:
    """Return the HTML of a page.

    Args:
        title: Heading.
        paragraphs: Plain text of each paragraph.
        tables: HTML tables.
        figures: Caption -> label of a run -> png file, which is embedded in the page. Figures with
            labels are shown side by side; a single figure has the label "".
        config: Configuration, shown as preformatted text.
    """
    parts = [f"<p>{html.escape(text)}</p>" for text in paragraphs]
    parts += tables
    for caption, paths in figures.items():
        images = [
            _figure(label or caption, f"{caption}: {label}" if label else caption, path)
            for label, path in paths.items()
        ]
        parts += (
            images
            if "" in paths
            else [f'<h2>{html.escape(caption)}</h2><div class="runs">{"".join(images)}</div>']
        )
    parts.append(f"<h2>Configuration</h2><pre>{html.escape(config)}</pre>")
    return _PAGE.format(title=html.escape(title), body="\n".join(parts))


def _figure(caption: str, alternative: str, path: pathlib.Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    text = html.escape(caption)
    return (
        f'<figure><img alt="{html.escape(alternative)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
