"""The page: text, tables and figures in one file."""

import pytest

from reproduce.reports.page import page


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"a picture")  # YSBwaWN0dXJl in base 64
    return path


def test_everything_is_in_it(png):
    text = page("A & B", ["one < two"], ["<table></table>"], {"A curve": {"": png}}, '{"a": 1}')
    assert text.startswith("<!doctype html>")
    assert "<title>A &amp; B</title>" in text
    assert "<h1>A &amp; B</h1>\n<p>one &lt; two</p>\n<table></table>\n<figure>" in text
    assert '<img alt="A curve" src="data:image/png;base64,YSBwaWN0dXJl">' in text
    assert "<figcaption>A curve</figcaption>" in text
    assert "<pre>{&quot;a&quot;: 1}</pre>" in text


def test_figures_of_several_runs_stand_side_by_side(png):
    text = page("Runs", [], [], {"A curve": {"first": png, "second": png}}, "")
    assert '<h2>A curve</h2><div class="runs"><figure>' in text
    assert '<img alt="A curve: second"' in text
    assert "<figcaption>second</figcaption>" in text
    assert text.count("<figure>") == 2
