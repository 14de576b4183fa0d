"""Runs side by side on one page."""

import json
import re
import shutil

import numpy as np
import pytest
from small_experiments import command_line, python

from reproduce import report
from reproduce.reports import history
from reproduce.runs.folder import RunError, UsageError

pytestmark = pytest.mark.usefixtures("few_digits")


def figures(metrics):
    return {name for entry in metrics["analyses"].values() for name in entry["figures"]}


def test_several_runs_on_one_page(analysed, single, tmp_path):
    output = tmp_path / "pages" / "report.html"
    report.write([analysed[0], single[0]], output)
    text = output.read_text()
    header = re.search(r"<tr><th>.*?</tr>", text)[0]
    assert header == "<tr><th></th><th>analysed</th><th>single</th></tr>"  # nothing to cite there
    row = re.search(r"<tr><td>trainable parameters</td>.*?</tr>", text)[0]
    cells = re.findall(r'<td class="n">(.*?)</td>', row)
    assert cells == ["20,018", "20,018", "633,640"]
    row = re.search(r"<tr><td>networks on a path</td>.*?</tr>", text)[0]
    assert re.findall(r'<td class="n">(.*?)</td>', row) == ["3", "", "40"]
    first, second = (figures(metrics) | {"training_curves"} for _, metrics in (analysed, single))
    assert text.count("data:image/png;base64,") == len(first) + len(second) + 1
    assert text.count("<figcaption>single</figcaption>") == len(second)


def test_their_learning_curves_are_in_files_beside_the_page(analysed, single, tmp_path):
    """Without the vote of a run of one network; named after the page, whose name has a dot."""
    folders = [analysed[0], shutil.copytree(single[0], tmp_path / "one")]
    text = (folders[1] / "metrics.json").read_text()
    metrics = json.loads(text)
    metrics["networks"]["num_networks"] = 1
    (folders[1] / "metrics.json").write_text(json.dumps(metrics))
    report.write(folders, tmp_path / "v1.2.html")
    figures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert figures == [f"v1.2-learning.{suffix}" for suffix in ("npz", "pdf", "png")]
    with np.load(tmp_path / "figures" / "v1.2-learning.npz") as drawn:
        assert sorted(drawn) == [
            "analysed, majority_vote_accuracy",
            "analysed, member_accuracy",
            "one, member_accuracy",
        ]
        passes, accuracy = drawn["one, member_accuracy"]
    config, curves = metrics["config"], history.read(folders[1])
    step_of = config["networks_per_step"] * config["images_per_network"]
    assert passes[-1] == metrics["steps"] * step_of
    np.testing.assert_array_equal(passes, curves["member_accuracy, step"] * step_of)
    np.testing.assert_array_equal(accuracy, curves["member_accuracy"])
    report.write(folders[:1], tmp_path / "alone.html")  # nothing to set beside each other
    assert len(list((tmp_path / "figures").iterdir())) == 3


def test_a_run_of_cifar_on_the_page(single, tmp_path):
    cifar = shutil.copytree(single[0], tmp_path / "cifar")
    for name in ("config.json", "metrics.json"):
        text = (cifar / name).read_text()
        (cifar / name).write_text(text.replace('"experiment": "mnist"', '"experiment": "cifar"'))
    report.write([single[0], cifar], tmp_path / "page.html")
    header = re.search(r"<tr><th>.*?</tr>", (tmp_path / "page.html").read_text())[0]
    assert header == "<tr><th></th><th>single</th><th>cifar</th></tr>"


def test_what_cannot_be_set_side_by_side(analysed, tmp_path):
    folder, _ = analysed
    cases = {
        "name the folders": [],
        "no finished run in": [folder, tmp_path],
        "is named twice": [folder, folder],
    }
    for message, folders in cases.items():
        with pytest.raises(RunError, match=message):
            report.write(folders, tmp_path / "page.html")
    toy = tmp_path / "toy"
    toy.mkdir()
    (toy / "metrics.json").write_text('{"experiment": "toy", "steps": 1}')
    with pytest.raises(RunError, match=r"not a run of reproduce\.mnist or reproduce\.cifar: name"):
        report.write([toy], tmp_path / "page.html")
    for damaged in ("{", "[]", "{}"):
        (toy / "metrics.json").write_text(damaged)
        with pytest.raises(RunError, match="damaged"):
            report.write([toy], tmp_path / "page.html")
    (toy / "metrics.json").write_text('{"experiment": "mnist", "steps": 60}')
    shutil.copy(folder / "config.json", toy)
    with pytest.raises(RunError, match="damaged: it lacks"):
        report.write([toy], tmp_path / "page.html")
    with pytest.raises(RunError, match="cannot be written"):
        report.write([folder], folder / "metrics.json" / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_folders_of_the_same_name_are_named_by_their_paths(analysed, tmp_path):
    twin = shutil.copytree(analysed[0], tmp_path / "analysed")
    report.write([analysed[0], twin], tmp_path / "page.html")
    assert f"<th>{twin}</th>" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_an_error_is_one_line(tmp_path):
    """As a user sees it: one line, an exit code, nothing written."""
    (tmp_path / "empty").mkdir()
    done = python("-m", "reproduce.report", "empty", "--output=page.html", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    line = r"reproduce\.report: there is no finished run in empty.*\n"
    assert re.fullmatch(line, done.stderr)
    assert [path.name for path in tmp_path.rglob("*")] == ["empty"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lam=3"], r"a report has no --lam\. "),
        (["--output={0}"], "--output names the page to write: give a file, not a folder"),
    ],
)
def test_flags_that_do_not_fit(words, message, tmp_path):
    with (
        command_line(*(word.format(tmp_path) for word in words)),
        pytest.raises(UsageError, match=message),
    ):
        report.main([])
