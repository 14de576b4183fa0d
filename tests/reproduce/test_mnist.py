"""The MNIST experiment as a user runs it: flags, folder, command."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from small_experiments import command_line, python

from reproduce.cli.run_flags import config_from_flags, default_folder
from reproduce.configs import preset
from reproduce.runs.folder import UsageError


def config(*words):
    with command_line("--dataset=mnist_5k", *words):
        return config_from_flags("mnist")


class TestFlags:
    def test_the_paper_is_the_default(self):
        parsed = config()
        assert parsed == preset("mnist", "hypernetwork", "paper", dataset="mnist_5k")
        assert (parsed.steps, parsed.num_networks, parsed.lam) == (13_000, 200, 1e3)

    def test_flags_replace_values_of_the_preset(self):
        parsed = config("--preset=quick", "--steps=7", "--lam=5", "--seed=3", "--num_networks=9")
        assert (parsed.steps, parsed.num_networks) == (7, 9)
        assert (parsed.lam, parsed.seed, parsed.preset) == (5.0, 3, "quick")
        assert config("--preset=quick").steps == 2_000
        assert config("--precision=mixed_bfloat16").precision == "mixed_bfloat16"
        assert config("--diversity=none").diversity == "none"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--method=gan"], "there is no method 'gan': choose from hypernetwork, mixture, mnf"),
            (["--method=mnf", "--lam=5"], "--lam is not used by --method=mnf: remove it"),
            (["--method=mnf", "--diversity=none"], "--diversity is not used by --method=mnf"),
            (["--method=sgd", "--num_networks=5"], "--num_networks is not used by --method=sgd"),
            (["--match=runs/x"], "--match is not used by --method=hypernetwork: remove it"),
            (
                ["--method=mnf", "--preset=fast"],
                "the method mnf has no preset 'fast': choose from paper, quick",
            ),
            (["--method=noise"], "--method=noise needs --match, the folder of a finished run"),
        ],
    )
    def test_flags_that_do_not_fit(self, words, message):
        with pytest.raises(UsageError, match=message) as error:
            config(*words)
        assert "\n" not in str(error.value)

    def test_a_data_set_of_another_experiment(self):
        with pytest.raises(
            UsageError, match="cifar10 does not fit the network: choose auto, mnist"
        ):
            config("--dataset=cifar10")


def test_a_folder_is_named_after_what_differs():
    paper = preset("mnist", "hypernetwork", "paper")

    def name(config):
        return str(default_folder(config))

    assert name(paper) == "runs/mnist"
    assert name(dataclasses.replace(paper, steps=5)) == "runs/mnist"
    five = dataclasses.replace(paper, dataset="mnist_5k")
    assert name(dataclasses.replace(five, lam=1e5)) == "runs/mnist-dataset=mnist_5k-lam=100000"
    quick = config("--preset=quick")
    assert name(quick) == "runs/mnist-dataset=mnist_5k-preset=quick"
    more = dataclasses.replace(quick, num_networks=7)
    assert name(more).endswith("num_networks=7-preset=quick")
    assert name(config("--method=sgd")) == "runs/mnist-dataset=mnist_5k-method=sgd"
    for path in ("runs/mnist/", "runs/mnist"):
        noise = config("--method=noise", f"--match={path}")
        assert name(noise).endswith("method=noise-match=mnist")


class TestCommand:
    @pytest.mark.slow
    def test_from_data_to_report(self, tmp_path):
        done = python(
            *("-m", "reproduce.mnist", "--method=sgd", "--dataset=mnist_5k"),
            *("--steps=1", "--run_dir=run"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert "majority vote" in done.stdout
        metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert metrics["dataset"]["train"] == 4_000
        assert metrics["networks"]["num_networks"] == 1
        assert (tmp_path / "run" / "report.html").exists()

    @pytest.mark.slow
    @pytest.mark.parametrize("study", [False, True])
    def test_ctrl_c_in_the_middle_of_training(self, study, tmp_path):
        """SIGINT to the command and its children, as a terminal sends it; then the same again."""
        module, more = ("mnist", ["--method=sgd", "--steps=60"])
        if study:
            module, more = (
                "compare",
                ["--methods=sgd", "--seeds=0", "--trials=0", "--passes=9000"],
            )
        run = tmp_path / "run" / ("sgd-seed=0" if study else "")
        words = [f"reproduce.{module}", "--dataset=mnist_5k", "--preset=quick", "--run_dir=run"]
        script = (
            "import runpy, signal, sys\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)\n"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", script, *words, *more],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        while process.poll() is None and not list(run.glob("tensorboard/events*")):
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()[1][-2000:]
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 130, errors[-2000:]
        last = errors.strip().splitlines()[-1]
        assert "run the same command again to" in last
        assert "Traceback" not in errors
        done = python("-m", *words, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "run" / "report.html").exists()

    @pytest.mark.slow
    def test_a_users_error_is_one_line_and_nothing_is_written(self, tmp_path):
        (tmp_path / "letter").write_text("dear")
        done = python(
            "-m", "reproduce.mnist", "--dataset=mnist_5k", "--run_dir=letter", cwd=tmp_path
        )
        assert done.returncode == 1
        assert re.fullmatch(r"reproduce\.mnist: the run folder .*\n", done.stderr)
        assert [path.name for path in tmp_path.iterdir()] == ["letter"]
        assert (tmp_path / "letter").read_text() == "dear"

    def test_help_is_a_manual_that_lists_the_methods_of_an_extension(self, tmp_path):
        (tmp_path / "mine.py").write_text(
            "from dataclasses import replace\n"
            "from reproduce.configs import METHODS, register_method\n"
            "sgd = METHODS['sgd']\n"
            "rows = tuple(replace(row, method='mine') for row in sgd.presets)\n"
            "register_method(replace(sgd, name='mine', help='a method of my own', presets=rows))\n"
        )
        done = python("-m", "reproduce.mnist", "--extension=mine.py", "--help", cwd=tmp_path)
        text = " ".join(done.stdout.split())
        for words in (
            "The MNIST experiments",
            "--preset=quick",
            "--lam",
            "--run_dir",
            "--num_networks",
            "--analyses",
            "sgd: one network, trained in the ordinary way",
            "mine: a method of my own",
        ):
            assert words in text
        flags = re.findall(r"^  --(?:\[no\])?(\w+)$", done.stdout, re.M)
        assert flags[:6] == ["method", "lam", "preset", "dataset", "analyses", "run_dir"]
        assert len(flags) == len(set(flags)) > 30
        groups = re.findall(r"^(\w.*):\n  --", done.stdout, re.M)
        assert groups[:3] == ["Most used", "Data", "Training"]
        assert groups[3:] == ["Evaluation and analyses", "Devices and speed"]
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_quick_preset_shows_an_ensemble_better_than_its_mean_member(tmp_path):
    done = python(
        *("-m", "reproduce.mnist", "--preset=quick", "--dataset=mnist_5k", "--run_dir=run"),
        cwd=tmp_path,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    mean = metrics["networks"]["member_accuracy"]
    assert mean > 0.95
    assert metrics["ensemble"]["majority_vote_accuracy"] > mean
    assert metrics["ensemble"]["mean_probability_accuracy"] > mean
