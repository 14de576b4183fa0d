"""Runs with deep targets, the table of them, and networks distilled from them."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import flagsaver

import hypernet_tf as hn
from hypernet_tf.training.augmentation import flip_and_crop
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce import cifar, distillation, table1
from reproduce.analyses.out_of_distribution import ood_datasets
from reproduce.analyses.subject import Subject
from reproduce.cli import experiment_flags as _experiment_flags
from reproduce.cli import flags as _flags
from reproduce.configs import published
from reproduce.runs import child as _child
from reproduce.runs import experiment as _experiment
from reproduce.runs import folder as _run
from reproduce.runs.match import finished_sampler

pytestmark = pytest.mark.usefixtures("few_digits")

SMALL = {
    "num_networks": 2,
    "networks_per_step": 2,
    "images_per_network": 4,
    "validate_every": 1,
    "checkpoint_every": 2,
}
TABLE = table1.Table(("sgd", "hypernetwork-none"), "mnist_5k", "lenet", "quick", lam=7.0, steps=2)


def of(method, **changes):
    return dataclasses.replace(cifar.configured(method, "quick", "lenet", "mnist_5k"), **changes)


@contextlib.contextmanager
def command_line(*words):
    """The flags of a command; those of a test are not those of the next."""
    if not _flags.FLAGS.is_parsed():
        _flags.FLAGS(["cifar"])
    with flagsaver.flagsaver():
        _flags.FLAGS(["cifar", *words])
        yield


def in_process(module, given, what):
    """What `_child.run` does, without the time that a process needs to start."""
    assert module == "reproduce.cifar"
    with command_line(*(f"--{k}={v}" for k, v in given.items() if v not in ("", None))):
        cifar.main()


@pytest.fixture(scope="module")
def small():
    """The quick presets, of a few images each."""
    with pytest.MonkeyPatch.context() as patch:
        for method in ("hypernetwork", "sgd", "deep_ensemble"):
            brought = cifar.METHODS[method] | SMALL
            if method == "sgd":
                brought |= {"num_networks": 1, "networks_per_step": 1}
            patch.setitem(cifar.METHODS, method, brought)
        patch.setitem(cifar.STEPS, "quick", (2, 2))
        patch.setattr(_child, "run", in_process)
        yield


@pytest.fixture(scope="module")
def table(small, few_digits, undrawn, tmp_path_factory):
    """A table of two columns."""
    folder = tmp_path_factory.mktemp("runs") / "table1"
    with undrawn():
        return folder, table1.run(TABLE, folder)


@pytest.fixture(scope="module", params=["weights", "outputs", "deep_ensemble"])
def finished(request, small, few_digits, undrawn, tmp_path_factory):
    """A run; of the others, two are in the table."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    known = request.param == "deep_ensemble"
    config = of(request.param) if known else of("hypernetwork", diversity=request.param)
    with undrawn():
        return folder, config, _experiment.run(config, folder)


def history(folder):
    return Checkpoints(folder / "checkpoints").load()[1]["history"]


def check_run(folder, config, metrics):
    assert json.loads((folder / "config.json").read_text()) == dataclasses.asdict(config)
    assert _run.finished(folder, _experiment.Config) == (config, metrics)
    for name in ("accuracy_histogram", "training_curves", "filters"):
        for suffix in ("png", "pdf", "npz"):
            assert (folder / "figures" / f"{name}.{suffix}").stat().st_size
    assert (folder / "report.html").exists()
    assert not list(folder.rglob("*.part*"))
    assert metrics["experiment"] == "cifar"
    assert metrics["target_weights"] == 62_006
    assert metrics["dataset"]["source"].endswith(", padded to 32 x 32 x 3")
    assert metrics["image_passes"] == 2 * config.passes_per_step
    tests = [entry["test"] for entry in history(folder)]
    assert metrics["best_on_test"] == {
        "validations": 2,
        "accuracy_mean": max(np.mean(one["member_accuracies"]) for one in tests),
        "majority_vote_accuracy": max(one["majority_vote_accuracy"] for one in tests),
    }
    for one in tests:
        assert len(one["member_accuracies"]) == config.num_networks


class TestRun:
    @pytest.mark.slow
    def test_the_folder_is_complete(self, finished):
        folder, config, metrics = finished
        check_run(folder, config, metrics)
        sampler = finished_sampler(folder, config)
        if config.method == "hypernetwork":
            (term,) = sampler.diversity
            kinds = {"weights": "NegativeEntropy", "outputs": "NegativeOutputEntropy"}
            assert type(term).__name__ == kinds[config.diversity]
            assert sampler.generators[3].outputs == 10_164  # generated whole
        # Validation and test images are the same ones here.
        dataset = _experiment.load(config, None)
        assert dataset.test.images.shape == (80, 32, 32, 3)
        result = sampler.sample(2, seed=1).evaluate(dataset.test.x, dataset.test.y)
        assert metrics["networks"]["accuracy_mean"] == pytest.approx(result.member_accuracy.mean())
        last = history(folder)[-1]
        assert last["test"]["member_accuracies"] == last["validation"]["member_accuracies"]

    def test_images_that_do_not_fit_are_one_line(self, monkeypatch, tmp_path):
        large = hn.data.Split(np.zeros((4, 40, 40, 3), np.uint8), np.zeros(4, int))
        drawn = hn.data.Dataset("large", "drawn", tuple("0123456789"), large, large, large)
        monkeypatch.setattr(hn.data, "load", lambda name, data_dir: drawn)
        with pytest.raises(
            hn.data.DataError, match="40 x 40 x 3, which does not fit into 32 x 32"
        ) as e:
            _experiment.run(of("hypernetwork"), tmp_path / "run")
        assert "\n" not in str(e.value)
        assert not (tmp_path / "run").exists()

    def test_images_out_of_distribution_have_the_shape_of_the_images(self):
        dataset = dataclasses.replace(_experiment.load(of("sgd"), None), name="fashion_mnist")
        datasets, _ = ood_datasets(Subject(None, dataset, {"ood": ["mnist_5k", "noise"]}))
        assert list(datasets) == ["mnist_5k", "noise"]
        for other in datasets.values():
            assert other.test.images.shape[1:] == (32, 32, 3)

    def test_colour_images_are_shifted_and_all_but_digits_mirrored(self, monkeypatch, tmp_path):
        given = []
        monkeypatch.setattr(_experiment, "train", lambda *_, **options: given.append(options))
        dataset = _experiment.load(of("sgd"), None)
        images = tf.random.stateless_uniform([64, 32, 32, 3], [0, 1])
        for name in cifar.DATASETS[1:]:
            config = cifar.configured("sgd", "quick", "lenet", name)
            _experiment.trained(config, dataset, tmp_path, None)
            assert given[-1]["watch_test"]
            found = given[-1]["augment"]
            assert (found is not None) == (name in ("cifar10", "cifar100", "svhn_cropped"))
            if found is not None:
                expected = flip_and_crop(images, [2, 3], flip=name != "svhn_cropped")
                np.testing.assert_array_equal(found(images, [2, 3]), expected)


class TestFlags:
    def folder(self, *words):
        with command_line(*words):
            config = _experiment_flags.config_from_flags(cifar.EXPERIMENT)
            return config, str(_experiment_flags.default_folder(cifar.EXPERIMENT, config))

    def test_the_configuration_and_its_folder(self, small):
        config, folder = self.folder("--dataset=mnist_5k", "--preset=quick", "--steps=9")
        assert config == of("hypernetwork", steps=9)
        assert folder == "runs/cifar-dataset=mnist_5k-preset=quick"
        config, folder = self.folder("--dataset=cifar10", "--target=resnet32", "--method=sgd")
        assert config == cifar.configured("sgd", "paper", "resnet32", "cifar10")
        assert config.augment
        assert folder == "runs/cifar-dataset=cifar10-method=sgd"

    def test_each_kind_of_diversity_has_a_lam_of_its_own(self):
        for given, lam in (([], 1e4), (["--lam=1e3"], 1e3), (["--diversity=none"], 1e3)):
            config, _ = self.folder("--dataset=mnist_5k", "--diversity=outputs", *given)
            assert config.lam == lam
        columns = ("hypernetwork-outputs", "hypernetwork-weights")
        for given, lams in ((None, [1e4, 1e3]), (7.0, [7.0, 7.0])):
            one = table1.Table(columns, "cifar10", "lenet", "paper", lam=given)
            assert [one.config(column).lam for column in columns] == lams

    @pytest.mark.parametrize("method", ["sgd", "deep_ensemble", "sgd_snapshots"])
    def test_rates_and_snapshots_follow_the_steps(self, method):
        config, folder = self.folder("--dataset=mnist_5k", f"--method={method}", "--steps=400")
        assert config.steps == 400
        assert folder == f"runs/cifar-dataset=mnist_5k-method={method}"
        if method == "sgd_snapshots":
            assert config.learning_rate_decay == 1
            assert config.snapshot_every == 20  # the last 10 lie in the second half
        else:
            assert config.learning_rate_decay**400 == pytest.approx(0.01)

    def test_bad_ones_are_one_line(self):
        with pytest.raises(_run.UsageError, match="--lam has no part in --method=sgd: drop it"):
            self.folder("--dataset=mnist_5k", "--method=sgd", "--lam=3")
        with pytest.raises(_run.UsageError, match="--diversity has no part"):
            self.folder("--dataset=mnist_5k", "--method=mnf", "--diversity=none")

    def test_the_command_has_a_default_of_its_own_and_ends_in_one_line(self, tmp_path):
        config = dataclasses.replace(
            cifar.configured("hypernetwork", "paper", "lenet", "cifar10"), dataset="mnist_5k"
        )
        _run.write_json(tmp_path / "run" / "config.json", dataclasses.asdict(config))
        done = subprocess.run(
            [sys.executable, "-m", "reproduce.cifar", "--run_dir=run"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 1
        assert done.stderr == (
            "reproduce.cifar: the run in run has dataset=mnist_5k, not cifar10: "
            "choose another --run_dir\n"
        )
        assert [path.name for path in tmp_path.rglob("*")] == ["run", "config.json"]


class TestTable:
    def test_its_numbers_are_those_of_the_runs(self, table):
        folder, metrics = table
        for column in TABLE.columns:
            own = _run.read_metrics(folder / column)
            check_run(folder / column, TABLE.config(column), own)
            several = column != "sgd"
            best, vote = own["best_on_test"], own["ensemble"]["majority_vote_accuracy"]
            assert metrics["numbers"][column] == {
                "mean": own["networks"]["accuracy_mean"],
                "vote": vote if several else None,
                "best_mean": max(best["accuracy_mean"], own["networks"]["accuracy_mean"]),
                "best_vote": max(best["majority_vote_accuracy"], vote) if several else None,
                "negative_log_likelihood": own["ensemble"]["negative_log_likelihood"],
                "entropy": own["diversity"]["entropy"],
                "disagreement": own["diversity"]["disagreement"],
                "image_passes": own["image_passes"],
                "seconds": own["seconds"]["train"],
            }
        assert TABLE.config("hypernetwork-none").lam == 7.0
        assert own["config"]["lam"] == 7.0
        assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
        header, _, *rows = (folder / "table.md").read_text().splitlines()
        cells = [[cell.strip() for cell in row.strip("| ").split("|")] for row in (header, *rows)]
        shown = dict(zip(cells[0], cells[2], strict=True))
        numbers = metrics["numbers"]["hypernetwork-none"]
        assert shown["column"] == "hypernetwork-none: no entropy"
        assert shown["mean, last"] == f"{100 * numbers['mean']:.2f}"
        assert shown["vote, best"] == f"{100 * numbers['best_vote']:.2f}"
        assert shown["published mean"] == ""  # these are digits
        assert cells[1][2] == ""  # one network has no vote
        assert "hypernetwork-none: no entropy" in (folder / "report.html").read_text()

    def test_published_numbers_stand_beside_those_of_cifar10(self, table):
        _, metrics = table
        of_cifar = dataclasses.replace(TABLE, dataset="cifar10")
        text = table1.text_table(of_cifar, metrics["numbers"])
        assert "| 76.26 | 76.47 |" in text
        for target in published.TABLE_1:
            assert published.TABLE_1[target].keys() <= table1.COLUMNS.keys()

    def test_what_is_finished_is_not_trained_again(self, table, capsys):
        folder, metrics = table
        before = {
            p: p.stat().st_mtime_ns
            for column in TABLE.columns
            for p in (folder / column).rglob("*")
        }
        assert table1.run(TABLE, folder) == metrics
        assert capsys.readouterr().out.count("is complete") == 2
        assert {p: p.stat().st_mtime_ns for p in before} == before

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--columns=sgd,gan", "there is no column 'gan': there are sgd, sgd_chains"),
            ("--columns=", "--columns names at least one"),
            ("--method=sgd", "the table has no --method "),
            ("--num_networks=4", "the table has no --num_networks "),
            ("--devices=2", "the table has no --devices "),
            ("--analyses=all", "the table has no --analyses "),
        ],
    )
    def test_flags_that_mean_nothing_are_one_line(self, words, message):
        with (
            command_line("--dataset=mnist_5k", words),
            pytest.raises(_run.UsageError, match=message),
        ):
            table1.from_flags()

    def test_its_flags_and_folder(self):
        with command_line(
            "--dataset=mnist_5k",
            "--columns=hypernetwork-none,sgd",
            "--lam=7",
            "--steps=2",
            "--preset=quick",
        ):
            asked = table1.from_flags()
        assert asked == TABLE
        assert (
            str(table1.default_folder(asked)) == "runs/table1-dataset=mnist_5k-preset=quick-lam=7"
        )

    def test_a_damaged_run_is_one_line(self, table, tmp_path):
        folder = shutil.copytree(table[0], tmp_path / "table1")
        path = folder / "sgd" / "metrics.json"
        whole = path.read_text()
        metrics = json.loads(whole)
        del metrics["best_on_test"]
        path.write_text(json.dumps(metrics))
        with pytest.raises(_run.RunError, match=r"sgd/metrics\.json is damaged") as error:
            table1.run(TABLE, folder)
        assert "\n" not in str(error.value)
        (folder / "sgd" / "config.json").write_text("{")
        with pytest.raises(_run.RunError, match=r"sgd/config\.json is damaged"):
            table1.run(TABLE, folder)

    def test_the_folder_of_something_else_is_refused(self, table, tmp_path):
        folder, _ = table
        with pytest.raises(_run.RunError, match="choose another"):
            table1.run(TABLE, folder / "sgd")
        with pytest.raises(_run.RunError, match="seed=0, not 1: choose another"):
            table1.run(dataclasses.replace(TABLE, seed=1), folder)


class TestDistillation:
    def test_the_numbers_are_those_of_the_networks(self, table, tmp_path, monkeypatch):
        folder = shutil.copytree(table[0] / "hypernetwork-none", tmp_path / "run")
        students, real = [], hn.distill

        def distill(*arguments, **options):
            students.append((options, real(*arguments, **options)))
            return students[-1][1]

        monkeypatch.setattr(hn, "distill", distill)
        with command_line(f"--run_dir={folder}", "--epochs=1", "--temperature=2"):
            distillation.main()
        metrics = json.loads((folder / "distillation.json").read_text())
        config, own = _run.finished(folder, _experiment.Config)
        assert metrics["num_networks"] == config.num_networks == 2
        found = metrics["found"]
        assert found["mean of the networks"]["accuracy"] == own["networks"]["accuracy_mean"]
        assert (
            found["ensemble, majority vote"]["accuracy"]
            == (own["ensemble"]["majority_vote_accuracy"])
        )
        assert (
            found["ensemble, mean probability"]["negative_log_likelihood"]
            == (own["ensemble"]["negative_log_likelihood"])
        )
        sampler, dataset = finished_sampler(folder, config), _experiment.load(config, None)
        ensemble, test = sampler.sample(2, seed=1), dataset.test
        for name, options in (
            ("average of the weights", {}),
            ("average, filters in one order", {"permutation": True}),
        ):
            gauge = hn.Gauge(sampler.target, epsilon=sampler.gauge_epsilon, **options)
            average = ensemble.polyak_average(gauge=gauge).evaluate(test.x, test.y)
            assert found[name] == {
                "accuracy": average.member_accuracy[0],
                "negative_log_likelihood": pytest.approx(average.negative_log_likelihood, rel=1e-6),
            }
        names = ("distilled", "distilled, from the average")
        for name, (options, student) in zip(names, students, strict=True):
            assert (options["epochs"], options["temperature"]) == (1, 2.0)
            log_p = np.log(keras.ops.convert_to_numpy(keras.ops.softmax(student(test.x))))
            assert found[name] == {
                "accuracy": pytest.approx(np.mean(log_p.argmax(1) == test.y)),
                "negative_log_likelihood": pytest.approx(-log_p[range(80), test.y].mean(), 1e-4),
            }
        assert [options["student"] is None for options, _ in students] == [True, False]
        text = (folder / "distillation.md").read_text()
        assert text == distillation.text_table(found) + "\n"
        vote = 100 * own["ensemble"]["majority_vote_accuracy"]
        assert f"| ensemble, majority vote | {vote:.2f} |  |" in text

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--run_dir={0}/nothing"], "there is no finished run in .*nothing: train it"),
            ([], "--run_dir names the finished run"),
            (["--run_dir={0}"], "holds a table: name one of the runs in it"),
            (["--run_dir={0}/sgd"], r"1 network\(s\) of 1 are not to be distilled"),
            (["--run_dir={0}/sgd", "--steps=3"], "distillation has no --steps "),
            (["--run_dir={0}/sgd", "--teacher=votes", "--temperature=2"], "has no part in"),
        ],
    )
    def test_what_cannot_be_is_one_line_and_writes_nothing(self, table, words, message):
        folder, _ = table
        before = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != ".lock"}
        with (
            command_line(*(word.format(folder) for word in words)),
            pytest.raises(_run.RunError, match=message) as error,
        ):
            distillation.main()
        assert "\n" not in str(error.value)
        after = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.name != ".lock"}
        assert after.keys() == before.keys()
        assert {p for p in after if after[p] != before[p] and not p.is_dir()} == set()


@pytest.mark.slow
def test_resnet32_trains(tmp_path, undrawn):
    """Two steps, and all that is made of a run: every ensemble in it is calibrated."""
    config = cifar.configured("hypernetwork", "quick", "resnet32", "mnist_5k")
    config = dataclasses.replace(config, **SMALL, diversity="weights")
    with undrawn():
        metrics = _experiment.run(
            config,
            tmp_path / "run",
            analyses=["paths", "adversarial"],
            settings={
                "num_networks": 2,
                "path_pairs": 1,
                "path_points": 3,
                "path_images": 20,
                "adversarial_images": 4,
                "adversarial_networks": 2,
            },
        )
    assert set(metrics["analyses"]) == {"accuracies", "filters", "paths", "adversarial"}
    assert 0 <= metrics["analyses"]["paths"]["kinds"]["interpolated"]["mean_accuracy"] <= 1
    assert metrics["run"]["target_weights"] == 465_290
    assert metrics["best_on_test"]["validations"] == 2
    assert np.isfinite(metrics["networks"]["member_negative_log_likelihood"])
    with pytest.raises(ValueError, match=r"ensemble\.update_batch_norm"):
        finished_sampler(tmp_path / "run", config).sample(2).predict(np.zeros((1, 32, 32, 3)))
