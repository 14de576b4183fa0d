"""An analysis is one class: it registers itself, and everything else follows from it."""

import doctest
import json
import os
import pathlib
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from analysed_runs import SMALL

import hypernet_tf as hn
import reproduce
from reproduce.analyses import ANALYSES, Analysis, Findings, Limits, Setting, base
from reproduce.analyses.perform import resolved_settings
from reproduce.analyses.subject import Subject
from reproduce.reports import run_page
from reproduce.runs.folder import RunError


class Recorder(dict):
    """Settings that remember which of them were read."""

    def __init__(self, values):
        super().__init__(values)
        self.read = set()

    def __getitem__(self, name):
        self.read.add(name)
        return super().__getitem__(name)


def methods(*names):
    """Methods of a class body, which do nothing."""
    return dict.fromkeys(names, lambda *_: None)


COMPLETE = methods("compute", "figure") | {
    **{"name": "toy", "title": "toy", "order": 0},
    "figure_caption": "a toy",
}


def test_the_order_is_that_of_the_experiment():
    assert list(ANALYSES) == [
        "accuracies",
        "ensembles",
        "ensemble_sizes",
        "filters",
        "scatter",
        "posteriors",
        "paths",
        "adversarial",
        "attacks",
        "filter_diversity",
        "uncertainty",
        "out_of_distribution",
        "detection_sizes",
    ]


def test_every_analysis_has_a_test_of_its_own():
    folder = pathlib.Path(__file__).parent
    for name in ANALYSES:
        assert (folder / f"test_{name}.py").exists(), name


@pytest.mark.parametrize("missing", sorted(COMPLETE))
def test_an_incomplete_class_is_one_error(missing):
    body = {name: value for name, value in COMPLETE.items() if name != missing}
    with pytest.raises(TypeError, match=f"^The analysis Toy lacks {missing}: add it.$"):
        type(Analysis)("Toy", (Analysis,), body)
    assert "toy" not in ANALYSES


def test_a_name_that_is_taken_is_one_error():
    before = dict(ANALYSES)
    with pytest.raises(TypeError, match=r"analyses\.paths\.Paths and .* are both named 'paths'"):
        type(Analysis)("Toy", (Analysis,), COMPLETE | {"name": "paths"})
    again = (Setting("clip", True, "Another one."),)
    with pytest.raises(TypeError, match="Toy defines the setting 'clip' again: name the object"):
        type(Analysis)("Toy", (Analysis,), COMPLETE | {"settings": again})
    assert before == ANALYSES


def test_an_analysis_is_where_its_order_says():
    type(Analysis)("Toy", (Analysis,), COMPLETE | {"order": 15})
    try:
        assert list(ANALYSES)[:3] == ["accuracies", "toy", "ensembles"]
        assert ANALYSES["toy"].rows({}) == []
    finally:
        del ANALYSES["toy"]


@pytest.mark.usefixtures("few_digits")
def test_a_dense_target_without_scale_symmetry_goes_through_all_analyses():
    """Analyses know no target. Each reads the settings that it names, and can read no other."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(6, activation="tanh"),
            keras.layers.Dense(10),
        ]
    )
    sampler = hn.DeepEnsemble(hn.Target(model, outputs="logits"), num_networks=8)
    dataset = hn.data.load("mnist_5k")
    values = SMALL | {"ensembles": None}
    # As many as there are: these networks are not trained, and are right about few.
    values |= {"adversarial_images": 80, "attack_images": 80}
    settings = resolved_settings(list(ANALYSES), values, Limits(8, 8, 80, (28, 28, 1), "mnist_5k"))
    subject = Subject(sampler, dataset, settings)
    for name, analysis in ANALYSES.items():
        restricted = subject.restricted_to(analysis.settings)
        assert restricted.settings.keys() == {setting.name for setting in analysis.settings}
        restricted.settings = Recorder(restricted.settings)
        restricted._evaluations = {}  # what another analysis computed would not be read
        findings = analysis.compute(restricted)
        assert isinstance(findings, Findings)
        assert restricted.settings.read == set(restricted.settings), name
        assert bool(findings.arrays) != (name == "filter_diversity"), name
        numbers = json.loads(json.dumps(findings.numbers))
        for row in analysis.rows(numbers):
            assert row.measure.title and isinstance(row.value, float | int | None)
        for figure_name, arrays in findings.arrays.items():
            if not figure_name.startswith("scatter_layer"):
                analysis.figure(figure_name, arrays, numbers)
            analysis.caption(figure_name)
        if name == "filters":
            shapes = {layer: array.shape for layer, array in findings.arrays["filters"].items()}
            assert shapes == {"layer_1": (4, 28, 28), "layer_2": (4, 6, 10)}


@pytest.mark.slow
def test_a_new_analysis_is_one_new_file_and_nothing_else(tmp_path):
    """The example of base.py, added to a copy of the commands, does what an analysis does."""
    source = pathlib.Path(reproduce.__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, tmp_path / "reproduce", ignore=ignored)
    example = "".join(e.source for e in doctest.DocTestParser().get_examples(base.__doc__))
    (tmp_path / "reproduce" / "analyses" / "norms.py").write_text(example)

    script = (
        "from reproduce import mnist; from reproduce.cli import command; "
        "print(command.FLAGS['norm_networks'].help, command.FLAGS['analyses'].help); "
        "command.run(mnist.main)"
    )
    run = ("--method=sgd", "--dataset=mnist_5k", "--steps=1", "--run_dir=run")
    done = subprocess.run(
        [sys.executable, "-c", script, *run, "--analyses=norms", "--norm_networks=1"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(["", *sys.path])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Number of networks whose norm is taken. Used by: norms." in done.stdout
    assert "norms: L2 norms of the networks' weights" in done.stdout
    folder = tmp_path / "run"
    metrics = json.loads((folder / "metrics.json").read_text())
    entry = metrics["analyses"]["norms"]
    assert entry["settings"] == {"norm_networks": 1, "steps": 1}
    with np.load(folder / "figures" / "norms.npz") as saved:
        assert saved["norms"].shape == (1,)
        assert entry["mean"] == pytest.approx(saved["norms"].mean())
    page = (folder / "report.html").read_text()
    row = f'<td>L2 norm of the weights, mean</td><td class="n">{entry["mean"]:.4g}</td>'
    assert row in page
    assert "<figcaption>Histogram of the L2 norms of the networks&#x27; weights<" in page
    # Without the file, the numbers of the analysis are not shown silently as if there were none.
    with pytest.raises(RunError, match="holds an analysis 'norms', and the analyses are"):
        run_page.rows(metrics)
