"""The page: text, tables and figures in one file."""

import pytest

from reproduce.reports.page import Section, page, report


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "figure.png"
    path.write_bytes(b"a picture")  # YSBwaWN0dXJl in base 64
    return path


def test_everything_is_in_it(png):
    text = page("A & B", ["one < two"], ["<table></table>"], {"A curve": {"": png}}, '{"a": 1}')
    assert text.startswith("<!doctype html>")
    assert "<title>A &amp; B</title>" in text
    table = '<div class="table"><table></table></div>'
    assert f"<h1>A &amp; B</h1>\n<p>one &lt; two</p>\n{table}\n<figure>" in text
    assert '<img alt="A curve" src="data:image/png;base64,YSBwaWN0dXJl">' in text
    assert "<figcaption>A curve</figcaption>" in text
    assert "<pre>{&quot;a&quot;: 1}</pre>" in text


def test_figures_of_several_runs_stand_side_by_side(png):
    text = page("Runs", [], [], {"A curve": {"first": png, "second": png}}, "")
    assert '<h3>A curve</h3><div class="runs"><figure>' in text
    assert '<img alt="A curve: second"' in text
    assert "<figcaption>second</figcaption>" in text
    assert text.count("<figure>") == 2


def test_a_report_has_contents_sections_and_folded_numbers(png):
    sections = [
        Section("paths", "What lies between?", "Read it <so>.", "<table>few</table>", {}),
        Section("a_b", "Why?", "", "", {"A curve": {"": png}}),
    ]
    text = report("Run", ["what"], "<table>head</table>", sections, "<table>all</table>", "{}")
    order = [
        *("<table>head</table>", "<p>what</p>", '<a href="#paths">Paths</a>'),
        *('<a href="#a_b">A b</a>', '<h2 id="paths">Paths</h2>', "<p>What lies between?</p>"),
        *("<table>few</table>", "<p>Read it &lt;so&gt;.</p>", '<h2 id="a_b">A b</h2>'),
        *("data:image/png", "<details><summary>All numbers</summary>", "<table>all</table>"),
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
