"""Command lines as a user runs them, run folders, reports."""

import dataclasses
import html.parser
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from absl.testing import flagsaver

from hypernet_tf.training.checkpoints import CheckpointError, Checkpoints
from reproduce import mnist
from reproduce.cli import experiment_flags as _experiment_flags
from reproduce.cli import flags as _flags
from reproduce.configs import methods as _methods
from reproduce.runs import experiment as _experiment
from reproduce.runs import folder as _run

TINY = mnist.Config(
    dataset="mnist_5k",
    steps=2,
    num_networks=5,
    networks_per_step=3,
    images_per_network=4,
    validate_every=2,
    checkpoint_every=2,
)


pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_digits):
    folder = tmp_path_factory.mktemp("runs") / "mnist"
    return folder, mnist.run(TINY, folder)


class TestRunFolder:
    def test_it_holds_what_it_should(self, finished):
        folder, metrics = finished
        assert json.loads((folder / "config.json").read_text()) == dataclasses.asdict(TINY)
        assert json.loads((folder / "metrics.json").read_text()) == metrics
        for name in ("accuracy_histogram", "training_curves", "filters"):
            assert (folder / "figures" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert any((folder / "tensorboard").iterdir())
        assert not list(folder.rglob("*.part*"))

    def test_metrics_are_those_of_the_networks(self, finished):
        _, metrics = finished
        assert metrics["experiment"] == "mnist"
        assert metrics["method"] == "hypernetwork"
        assert metrics["dataset"] == {
            "name": "mnist_5k",
            "source": metrics["dataset"]["source"],
            "train": 80,
            "validation": 80,
            "test": 80,
        }
        assert metrics["steps"] == 2
        assert metrics["target_weights"] == 20_018
        assert metrics["parameters"] == 633_640
        assert metrics["networks"]["count"] == 5
        assert set(metrics["networks"]) == {
            "count",
            "accuracy_mean",
            "accuracy_std",
            "accuracy_min",
            "accuracy_max",
            "negative_log_likelihood_mean",
        }
        assert set(metrics["ensemble"]) == {
            "majority_vote_accuracy",
            "mean_probability_accuracy",
            "most_confident_accuracy",
            "negative_log_likelihood",
            "expected_calibration_error",
            "adaptive_calibration_error",
            "brier_score",
        }
        assert set(metrics["validation"]) == {
            "member_accuracy_mean",
            "member_accuracy_min",
            "member_accuracy_max",
            "majority_vote_accuracy",
            "mean_probability_accuracy",
            "most_confident_accuracy",
            "negative_log_likelihood",
            "expected_calibration_error",
            "entropy",
        }
        assert metrics["image_passes"] == 2 * 3 * 4
        assert set(metrics["diversity"]) == {
            "entropy",
            "disagreement",
            "nearest_neighbour_distance",
        }
        assert set(metrics["seconds"]) == {"train", "evaluate", "sample"}
        assert metrics["peak_memory_mib"] > 100
        low, mean, high = (metrics["networks"][f"accuracy_{k}"] for k in ("min", "mean", "max"))
        assert 0 <= low <= mean <= high <= 1
        assert np.isfinite(metrics["diversity"]["entropy"])

    def test_the_report_opens_without_a_network(self, finished):
        folder, _ = finished
        text = (folder / "report.html").read_text()
        assert "20,018" in text
        assert "633,640" in text
        assert "not available" in text  # published accuracies that cannot be cited
        assert text.count("data:image/png;base64,") == 3
        sources = re.findall(r'(?:src|href)="([^"]{0,30})', text)
        assert all(source.startswith("data:") for source in sources)
        opened = []

        class Checker(html.parser.HTMLParser):
            def handle_starttag(self, tag, attrs):
                if tag not in ("meta", "img"):
                    opened.append(tag)

            def handle_endtag(self, tag):
                assert opened.pop() == tag

        Checker().feed(text)
        assert not opened

    def test_again_it_says_that_it_is_complete(self, finished, capsys):
        folder, metrics = finished
        before = (folder / "metrics.json").stat().st_mtime_ns
        assert mnist.run(TINY, folder) == metrics
        assert "complete" in capsys.readouterr().out
        assert (folder / "metrics.json").stat().st_mtime_ns == before

    @pytest.mark.parametrize(
        ("field", "value"), [("lam", 7.0), ("seed", 5), ("dataset", "fashion_mnist")]
    )
    def test_another_configuration_is_refused(self, finished, field, value):
        folder, _ = finished
        before = {p: p.stat().st_mtime_ns for p in folder.rglob("*")}
        with pytest.raises(_run.RunError, match=f"{field}=.*, not .*{value}") as error:
            mnist.run(dataclasses.replace(TINY, **{field: value}), folder)
        assert "\n" not in str(error.value)
        assert before == {p: p.stat().st_mtime_ns for p in folder.rglob("*")}

    def test_a_folder_of_something_else_is_refused(self, tmp_path):
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(_run.RunError, match="not a run folder"):
            mnist.run(TINY, tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]

    def test_a_folder_that_cannot_be_is_refused(self):
        with pytest.raises(_run.RunError, match=r"^the run folder /dev/null/run [^\n]*$"):
            mnist.run(TINY, pathlib.Path("/dev/null/run"))

    def test_a_second_process_is_refused(self, tmp_path):
        folder = tmp_path / "run"
        with (
            _run.occupy(folder, TINY),
            pytest.raises(_run.RunError, match="another process"),
            _run.occupy(folder, TINY),
        ):
            pass
        with _run.occupy(folder, TINY):  # free again
            pass

    def test_a_damaged_checkpoint_is_named(self, finished, tmp_path):
        folder = shutil.copytree(finished[0], tmp_path / "run")
        model = folder / "checkpoints" / "step-00000002" / "model.keras"
        model.write_bytes(model.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match="step-00000002 is damaged"):
            mnist.run(dataclasses.replace(TINY, steps=3), folder)
        with pytest.raises(CheckpointError, match="no checkpoint"):
            shutil.rmtree(folder / "checkpoints")
            Checkpoints(folder / "checkpoints").load()

    def test_every_field_of_the_configuration_is_read(self):
        modules = (_experiment, _experiment_flags, _methods)
        source = "".join(pathlib.Path(m.__file__).read_text() for m in modules)
        for field in dataclasses.fields(mnist.Config):
            assert re.search(rf"config\.{field.name}\b", source), field.name


class TestFlags:
    def parsed(self, **flags):
        if not _flags.FLAGS.is_parsed():
            _flags.FLAGS(["mnist"])
        with flagsaver.flagsaver(dataset="mnist_5k", **flags):
            return mnist.config_from_flags()

    def test_the_paper_is_the_default(self):
        config = self.parsed()
        assert config == mnist.Config(dataset="mnist_5k")
        assert (config.steps, config.num_networks, config.lam) == (13_000, 200, 1e3)

    def test_flags_win_over_the_preset(self):
        config = self.parsed(preset="quick", steps=7, lam=5.0, seed=3, num_networks=9)
        assert (config.steps, config.num_networks) == (7, 9)
        assert (config.lam, config.seed, config.preset) == (5.0, 3, "quick")
        assert self.parsed(preset="quick").steps == mnist.PRESETS["hypernetwork", "quick"]["steps"]

    def test_a_folder_is_named_after_what_differs(self):
        def name(config):
            return str(mnist.default_folder(config))

        assert name(mnist.Config()) == "runs/mnist"
        assert name(mnist.Config(steps=5)) == "runs/mnist"
        assert name(mnist.Config(dataset="mnist_5k", lam=1e5)) == (
            "runs/mnist-dataset=mnist_5k-lam=100000"
        )
        quick = self.parsed(preset="quick")
        assert name(quick) == "runs/mnist-dataset=mnist_5k-preset=quick"
        assert name(dataclasses.replace(quick, num_networks=7)).endswith(
            "num_networks=7-preset=quick"
        )
        assert name(self.parsed(method="sgd")) == "runs/mnist-dataset=mnist_5k-method=sgd"


def command(*arguments, cwd, timeout=120):
    """`python -m reproduce.mnist ...` as a user runs it."""
    return subprocess.run(
        [sys.executable, "-m", "reproduce.mnist", *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


class TestCommand:
    def test_from_data_to_report(self, tmp_path):
        done = command(
            "--method=sgd", "--dataset=mnist_5k", "--steps=1", "--run_dir=run", cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr
        assert "majority vote" in done.stdout
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert metrics["dataset"]["train"] == 4_000
        assert metrics["networks"]["count"] == 1

    def test_a_users_error_is_one_line_and_nothing_is_written(self, tmp_path):
        (tmp_path / "letter").write_text("dear")
        done = command("--dataset=mnist_5k", "--run_dir=letter", cwd=tmp_path)
        assert done.returncode == 1
        assert re.fullmatch(r"reproduce\.mnist: the run folder .*\n", done.stderr)
        assert [p.name for p in tmp_path.iterdir()] == ["letter"]
        assert (tmp_path / "letter").read_text() == "dear"

    def test_bad_flags_are_one_line(self, tmp_path, monkeypatch, capsys):
        monkeypatch.chdir(tmp_path)
        cases = {
            "--dataset=imagenet": "the data sets are auto, mnist, mnist_5k, fashion_mnist",
            "--lam=-1": "lam is a finite number above 0",
            "--lam=nan": "lam is a finite number above 0",
            "--lam=inf": "lam is a finite number above 0",
            "--lam=much": "much",
            "--steps=0": "at least 1 training step",
            "--num_networks=1": "at least 2 networks",
            "--preset=fast": "paper",
            "--seed=-1": "seed",
            "--lamm=1": "lamm",
            "quick": "unexpected argument 'quick'",
        }
        for flag, expected in cases.items():
            with flagsaver.flagsaver(), pytest.raises(SystemExit) as end:
                _flags._parse_flags_only(["mnist", flag])
            assert end.value.code == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert expected in line
        assert not list(tmp_path.iterdir())

    def test_help_reads_like_a_manual(self, tmp_path):
        done = command("--help", cwd=tmp_path)
        text = " ".join(done.stdout.split())
        for words in (
            "The MNIST experiment",
            "--preset=quick",
            "--lam",
            "--run_dir",
            "--num_networks",
        ):
            assert words in text


@pytest.mark.slow
def test_the_quick_preset_shows_an_ensemble_better_than_its_mean_member(tmp_path):
    done = command(
        "--preset=quick", "--dataset=mnist_5k", "--run_dir=run", cwd=tmp_path, timeout=400
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    mean = metrics["networks"]["accuracy_mean"]
    assert mean > 0.85
    assert metrics["ensemble"]["majority_vote_accuracy"] > mean + 0.01
    assert metrics["ensemble"]["mean_probability_accuracy"] > mean + 0.01
