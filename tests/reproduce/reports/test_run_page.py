"""The page of a run: its rows, figures and captions."""

import copy
import dataclasses
import pathlib
import re
import shutil
import subprocess

import pytest

from hypernet_tf.metrics import MEASURES
from reproduce.analyses import ANALYSES
from reproduce.configs import published
from reproduce.reports import run_page
from reproduce.runs.folder import RunError

pytestmark = pytest.mark.usefixtures("few_digits")


def test_the_rows_are_the_measures_of_the_run_and_of_its_analyses(analysed):
    _, metrics = analysed
    rows = run_page.rows(metrics)
    keys = [row.measure.key for row in rows]
    assert len(set(keys)) == len(keys)
    values = {row.measure.key: row.value for row in rows}
    for group in run_page.GROUPS:
        assert metrics[group].keys() <= values.keys()
        assert all(values[key] == value for key, value in metrics[group].items())
    assert (
        values["paths_direct_lowest_accuracy"]
        == (metrics["analyses"]["paths"]["kinds"]["direct"]["lowest_accuracy"])
    )
    assert values["adversarial_seconds"] == metrics["analyses"]["adversarial"]["seconds"]


def test_the_published_numbers_are_those_of_rows(analysed):
    scatter = ANALYSES["scatter"].rows({"num_networks": 8, "views": {}})
    rows = run_page.rows(analysed[1]) + scatter
    assert published.MNIST.keys() <= {row.measure.key for row in rows}


def test_the_page_shows_them(analysed):
    folder, metrics = analysed
    text = (folder / "report.html").read_text()
    figures = [name for entry in metrics["analyses"].values() for name in entry["figures"]]
    assert text.count("data:image/png;base64,") == 1 + len(figures)
    for words in (
        "accuracy of the majority vote (%)",
        "accuracy of the majority vote, mean over ensembles (%)",
        "interpolated paths, lowest accuracy, mean over paths (%)",
        "attacked images that mislead the ensemble at eps = 16/255 (%)",
        "expected calibration error of the networks, mean",
    ):
        assert f"<td>{words}</td>" in text
    measure = MEASURES["majority_vote_accuracy"]
    vote = measure.text(metrics["ensemble"]["majority_vote_accuracy"])
    line = f'<td class="n">{vote}</td><td class="n"></td></tr>'  # nothing to cite
    assert f"<td>accuracy of the majority vote (%)</td>{line}" in text


def test_a_value_that_is_not_defined_is_an_empty_cell(single):
    folder, metrics = single
    assert metrics["diversity"]["disagreement"] is None
    title = MEASURES["disagreement"].heading
    text = (folder / "report.html").read_text()
    assert f'<td>{title}</td><td class="n"></td><td class="n"></td>' in text
    assert "1 network of " in text


@pytest.mark.parametrize(
    "path",
    [
        ("networks", "num_networks"),
        ("run", "peak_memory_mib"),
        ("seconds",),
        ("analyses", "paths", "kinds"),
        ("analyses", "adversarial", "ensemble"),
        ("analyses", "uncertainty", "seconds"),
    ],
)
def test_a_missing_number_is_an_error(analysed, path):
    damaged = copy.deepcopy(analysed[1])
    *groups, key = path
    values = damaged
    for group in groups:
        values = values[group]
    del values[key]
    with pytest.raises(RunError, match=f"^runs/x/metrics.json is damaged: it lacks '{key}'"):
        run_page.rows(damaged, pathlib.Path("runs/x/metrics.json"))


def test_a_new_measure_of_the_table_is_a_row(analysed, monkeypatch):
    toy = type(MEASURES["brier_score"])("toy", "toy measure", "ensemble")
    monkeypatch.setitem(MEASURES, "toy", toy)
    with pytest.raises(RunError, match="it lacks 'toy'"):
        run_page.rows(analysed[1])
    computed = dataclasses.replace(toy, kind="summary", compute=float)
    monkeypatch.setitem(MEASURES, "toy", computed)
    assert (computed, None) in run_page.rows(analysed[1])
    monkeypatch.setitem(MEASURES, "toy", toy)
    metrics = copy.deepcopy(analysed[1])
    metrics["ensemble"]["toy"] = 0.5
    assert (toy, 0.5) in run_page.rows(metrics)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [400, 1200])
def test_a_browser_shows_all_pictures_and_nothing_overflows(width, analyse, tmp_path):
    folder, metrics = analyse("paths", "uncertainty")
    text = (folder / "report.html").read_text()
    measure = """<script>addEventListener("load", () => {
        const images = [...document.images], page = document.documentElement;
        document.querySelectorAll("details").forEach((part) => { part.open = true; });
        document.title = [images.length, images.filter((one) => !one.naturalWidth).length,
            page.scrollWidth - page.clientWidth].join(" ");
    });</script></body>"""
    (tmp_path / "page.html").write_text(text.replace("</body>", measure))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--dump-dom"]
    options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    options += [f"--user-data-dir={tmp_path}/user", f"--window-size={width},2000"]
    command = ["chromium", *options, f"file://{tmp_path}/page.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    shown, broken, overflow = map(int, re.search(r"<title>(.*)</title>", done.stdout)[1].split())
    figures = [name for entry in metrics["analyses"].values() for name in entry["figures"]]
    assert shown == 1 + len(figures)
    undrawn = [path for path in (folder / "figures").glob("*.png") if path.stat().st_size < 100]
    assert broken == len(undrawn) == 2  # those of the training, which the fixture does not draw
    assert overflow == 0


def test_numbers_of_other_settings_stand_in_rows_of_their_own():
    from reproduce.analyses import Row
    from reproduce.analyses.base import percent

    columns = [
        [Row(percent("misled", f"misled at eps = {size}", "lower"), value)]
        for size, value in (("0.1", 0.25), ("0.3", 0.75))
    ]
    table = run_page._table(["a", "b"], columns, {})
    for size, value in (("0.1", "25"), ("0.3", "75")):
        [row] = [line for line in table.split("<tr>") if f"eps = {size}" in line]
        assert value in row and row.count("<td") >= 2
