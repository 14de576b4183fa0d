"""A run: its folder, its numbers, its page, and what it does not do again."""

import dataclasses
import html.parser
import json
import pathlib
import re
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from analysed_runs import SMALL
from small_experiments import TINY, modification_times, tiny
from target_models import Scale

import hypernet_tf as hn
from hypernet_tf.diversity import kozachenko_leonenko_entropy
from hypernet_tf.metrics import MEASURES
from hypernet_tf.training.augmentation import flip_and_crop
from hypernet_tf.training.callbacks import TrainingDivergedError
from hypernet_tf.training.checkpoints import CheckpointError
from reproduce.analyses import ANALYSES
from reproduce.configs import METHODS, TARGETS, preset
from reproduce.configs.methods import DIVERSITY, build_sampler
from reproduce.reports import run_page
from reproduce.runs.folder import OccupiedError, RunError, UsageError
from reproduce.runs.match import finished_sampler
from reproduce.studies import experiment

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_digits, undrawn, eagerly):
    folder = tmp_path_factory.mktemp("runs") / "mnist"
    with undrawn({"training_curves", "filters"}), eagerly():
        return folder, experiment.run(TINY, folder)


class TestFolder:
    def test_it_holds_what_it_should(self, finished):
        folder, metrics = finished
        assert json.loads((folder / "config.json").read_text()) == dataclasses.asdict(TINY)
        assert json.loads((folder / "metrics.json").read_text()) == metrics
        assert (folder / "figures" / "accuracy_histogram.png").read_bytes()[:4] == b"\x89PNG"
        for name in ("accuracy_histogram", "training_curves", "filters"):
            for suffix in ("png", "pdf", "npz"):
                assert (folder / "figures" / f"{name}.{suffix}").exists()
        assert any((folder / "tensorboard").iterdir())
        assert not list(folder.rglob("*.part*"))

    @pytest.mark.usefixtures("eager_fits")
    def test_metrics_are_those_of_the_networks(self, finished):
        """Those of the first ensemble on the test images, and of a validation on its images."""
        folder, metrics = finished
        sampler, dataset = finished_sampler(folder, TINY), experiment.load(TINY, None)

        def numbers(seed, split):
            networks = sampler.sample(5, seed=seed)
            entropy = kozachenko_leonenko_entropy(
                networks.theta(), sampler.latent_dim, distance="l1", epsilon=1e-8
            )
            of_weights = {"entropy": float(entropy), "nearest_neighbour_distance": None}  # of 10
            return networks.evaluate(split.x, split.y).summary() | of_weights

        for key, value in numbers(1, dataset.test).items():
            assert metrics[MEASURES[key].group][key] == pytest.approx(value), key
        assert metrics["validation"] == pytest.approx(numbers(0, dataset.validation))

    def test_metrics_have_all_numbers(self, finished):
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
        assert metrics["config"] == dataclasses.asdict(TINY)
        run = metrics["run"]
        assert set(run) == {
            "steps",
            "image_passes",
            "target_weights",
            "parameters",
            "peak_memory_mib",
        }
        assert (run["steps"], run["image_passes"]) == (2, 2 * 3 * 4)
        assert (run["target_weights"], run["parameters"]) == (20_018, 633_640)
        assert run["peak_memory_mib"] > 100
        assert metrics["networks"]["num_networks"] == 5
        members = {
            "member_accuracy",
            "member_accuracy_std",
            "member_accuracy_min",
            "member_accuracy_max",
            "member_negative_log_likelihood",
        }
        ensemble = {
            "majority_vote_accuracy",
            "mean_probability_accuracy",
            "most_confident_accuracy",
            "negative_log_likelihood",
            "expected_calibration_error",
            "adaptive_calibration_error",
            "brier_score",
        }
        assert set(metrics["networks"]) == {"num_networks"} | members
        assert set(metrics["ensemble"]) == ensemble
        diversity = {"entropy", "disagreement", "nearest_neighbour_distance"}
        assert set(metrics["validation"]) == members | ensemble | diversity
        assert set(metrics["diversity"]) == diversity
        assert set(metrics["seconds"]) == {"train_seconds", "evaluate_seconds", "sample_seconds"}
        assert "best_on_test" not in metrics  # the test images were not watched
        low, mean, high = (
            metrics["networks"][f"member_accuracy{end}"] for end in ("_min", "", "_max")
        )
        assert 0 <= low <= mean <= high <= 1
        assert np.isfinite(metrics["diversity"]["entropy"])
        assert metrics["diversity"]["nearest_neighbour_distance"] is None  # of ten networks

    def test_the_report_opens_without_a_network(self, finished):
        folder, _ = finished
        text = (folder / "report.html").read_text()
        assert "20,018" in text
        assert "633,640" in text
        assert text.count("data:image/png;base64,") == 3
        sources = re.findall(r'(?:src|href)="([^"]{0,30})', text)
        assert all(source.startswith(("data:", "#")) for source in sources)
        opened = []

        class Checker(html.parser.HTMLParser):
            def handle_starttag(self, tag, attrs):
                if tag not in ("meta", "img"):
                    opened.append(tag)

            def handle_endtag(self, tag):
                assert opened.pop() == tag

        Checker().feed(text)
        assert not opened

    def test_a_finished_run_is_not_run_again(self, finished, capsys):
        folder, metrics = finished
        before = modification_times(folder)
        assert experiment.run(TINY, folder) == metrics
        assert "complete" in capsys.readouterr().out
        assert modification_times(folder) == before

    def test_another_configuration(self, finished):
        folder, _ = finished
        before = modification_times(folder)
        with pytest.raises(RunError, match=r"lam=1000\.0, not 7\.0: choose another") as error:
            experiment.run(dataclasses.replace(TINY, lam=7.0), folder)
        assert "\n" not in str(error.value)
        assert modification_times(folder) == before

    def test_a_folder_of_something_else(self, tmp_path):
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(RunError, match="not a run folder"):
            experiment.run(TINY, tmp_path)
        assert [p.name for p in tmp_path.iterdir()] == ["letter.txt"]
        with pytest.raises(RunError, match=r"^the run folder /dev/null/run [^\n]*$"):
            experiment.run(TINY, pathlib.Path("/dev/null/run"))

    def test_an_old_run_folder_is_one_line(self, finished, tmp_path):
        folder = shutil.copytree(finished[0], tmp_path / "run")
        saved = dataclasses.asdict(TINY) | {"networks": 5}
        for name in ("experiment", "target", "num_networks"):
            del saved[name]
        (folder / "config.json").write_text(json.dumps(saved))
        with pytest.raises(RunError, match=r"by another version .*: choose another") as error:
            experiment.run(TINY, folder)
        assert "\n" not in str(error.value)

    def test_metrics_without_a_group_are_damaged(self, finished, tmp_path):
        folder = shutil.copytree(finished[0], tmp_path / "run")
        metrics = json.loads((folder / "metrics.json").read_text())
        del metrics["networks"]
        (folder / "metrics.json").write_text(json.dumps(metrics))
        with pytest.raises(RunError, match=r"metrics\.json is damaged: delete it"):
            experiment.run(TINY, folder)

    def test_a_damaged_checkpoint_is_named(self, finished, tmp_path):
        folder = shutil.copytree(finished[0], tmp_path / "run")
        model = folder / "checkpoints" / "step-00000002" / "model.keras"
        model.write_bytes(model.read_bytes()[:1000])
        with pytest.raises(CheckpointError, match="step-00000002 is damaged"):
            experiment.run(dataclasses.replace(TINY, steps=3), folder)
        shutil.rmtree(model.parent)
        for steps, words in ((2, "of step 2 is not in .*there is none"), (3, "are gone: delete")):
            config = dataclasses.replace(TINY, steps=steps)
            with pytest.raises(RunError, match=words) as error:
                experiment.run(config, folder, analyses=["accuracies"])
            assert "\n" not in str(error.value)

    @pytest.mark.usefixtures("eager_fits")
    def test_results_of_another_process_are_kept(self, finished, tmp_path, monkeypatch):
        """It finishes while this one waits for its data."""
        folder = shutil.copytree(finished[0], tmp_path / "run")
        real = experiment.load

        def load(config, data_dir):
            metrics = json.loads((folder / "metrics.json").read_text())
            metrics["mark"] = "of another process"
            (folder / "metrics.json").write_text(json.dumps(metrics))
            return real(config, data_dir)

        monkeypatch.setattr(experiment, "load", load)
        experiment.run(TINY, folder, analyses=["accuracies"])
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["mark"] == "of another process"
        assert "accuracies" in metrics["analyses"]

    def test_a_run_that_another_process_finished_is_not_done_again(
        self, finished, tmp_path, monkeypatch
    ):
        folder = tmp_path / "run"
        real = experiment.load

        def load(config, data_dir):
            shutil.copytree(finished[0], folder)
            return real(config, data_dir)

        monkeypatch.setattr(experiment, "load", load)
        with pytest.raises(OccupiedError, match="has just finished the run in"):
            experiment.run(TINY, folder)
        assert (folder / "metrics.json").exists()


class TestBeforeTraining:
    """What cannot be done is an error before anything is trained or written."""

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            (tiny("deep_ensemble", num_networks=11), "Cannot sample 11 networks: .* holds 10"),
            (tiny("sgld"), "Cannot sample 50 networks: this sampler holds 10"),
        ],
    )
    def test_more_networks_than_there_are(self, config, message, tmp_path):
        with pytest.raises(UsageError, match=message):
            experiment.run(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    def test_images_that_do_not_fit(self, monkeypatch, tmp_path):
        large = hn.data.Split(np.zeros((4, 40, 40, 3), np.uint8), np.zeros(4, int))
        drawn = hn.data.Dataset("large", "drawn", tuple("0123456789"), large, large, large)
        monkeypatch.setattr(hn.data, "load", lambda name, data_dir: drawn)
        with pytest.raises(
            hn.data.DataError, match="40 x 40 x 3, which does not fit into 32 x 32"
        ) as error:
            experiment.run(tiny("hypernetwork", "cifar"), tmp_path / "run")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()


def test_layers_compute_in_the_precision_of_the_configuration():
    before = keras.config.dtype_policy()
    try:
        for precision in ("mixed_bfloat16", "float32"):
            experiment._prepare(dataclasses.replace(TINY, precision=precision))
            assert keras.config.dtype_policy().name == precision
            layer = keras.layers.Dense(2)
            assert layer.compute_dtype == precision.removeprefix("mixed_")
            assert layer.variable_dtype == "float32"
    finally:
        keras.config.set_dtype_policy(before)


@pytest.mark.slow
def test_part_of_a_data_set_is_an_ordinary_run(tmp_path, quick_pictures):
    config = tiny("deep_ensemble", dataset="mnist_5k:0,3,7", num_networks=3)
    settings = {"num_networks": 3, "ood": ["mnist_5k:8", "9"]}  # a flag divided at commas
    metrics = experiment.run(
        config, tmp_path / "run", analyses=["out_of_distribution"], settings=settings
    )
    assert metrics["dataset"]["name"] == "mnist_5k:0,3,7"
    entry = metrics["analyses"]["out_of_distribution"]
    assert entry["settings"]["ood"] == list(entry["sets"]) == ["mnist_5k:8-9"]
    sampler = finished_sampler(tmp_path / "run", config)
    assert sampler.target.classes == 3
    assert sampler.target.weight_count == 20_018 - 7 * 9
    page = (tmp_path / "run" / "report.html").read_text()
    assert "deep_ensemble on mnist_5k, classes 0,3,7" in page
    assert "mnist_5k, classes 8-9 by entropy: area under ROC" in page


def test_colour_images_are_shifted_and_all_but_digits_mirrored(monkeypatch, tmp_path):
    options = []
    monkeypatch.setattr(experiment, "train", lambda *_, **given: options.append(given))
    dataset = experiment.load(tiny("sgd", "cifar"), None)
    images = tf.random.stateless_uniform([64, 32, 32, 3], [0, 1])
    for name in hn.data.names_for((32, 32, 3))[1:]:
        config = preset("cifar", "sgd", "quick", dataset=f"{name}:0-4")
        experiment.trained(config, dataset, tmp_path, None)
        assert options[-1]["watch_test"]
        augment = options[-1]["augment"]
        assert (augment is not None) == (name not in hn.data.names_for((28, 28, 1)))
        if augment is not None:
            expected = flip_and_crop(images, [2, 3], flip=name != "svhn_cropped")
            np.testing.assert_array_equal(augment(images, [2, 3]), expected)
    less = experiment.augmentation(dataclasses.replace(config, crop_margin=1))
    expected = flip_and_crop(images, [2, 3], margin=1, flip=name != "svhn_cropped")
    np.testing.assert_array_equal(less(images, [2, 3]), expected)


def test_l2_that_a_layer_does_not_take_writes_nothing(tmp_path, monkeypatch):
    mnist = TARGETS["mnist"]

    def make(shape, classes):
        model = mnist.make(shape, classes)
        return keras.Sequential([keras.Input(shape), *model.layers, Scale()])

    monkeypatch.setitem(TARGETS, "mnist", dataclasses.replace(mnist, make=make))
    with pytest.raises(UsageError, match=r"'mnist' takes no regularizer: train without l2$"):
        experiment.run(tiny("sgd", l2=1e-4), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_step_of_more_images_than_there_are_writes_nothing(tmp_path):
    config = dataclasses.replace(tiny("sgd"), images_per_network=81)
    message = r"^a step of sgd takes 81 images, and mnist_5k has 80 for training: choose"
    for run in (
        lambda: experiment.run(config, tmp_path / "run"),
        lambda: experiment.trial(config, experiment.load(config, None), tmp_path / "run"),
    ):
        with pytest.raises(UsageError, match=message):
            run()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_every_analysis_runs_on_every_method(method, tiny_run, tmp_path):
    match = str(tiny_run(tiny("deep_ensemble", steps=30))) if METHODS[method].matches else ""
    steps = 200 if method == "sgld" else 30
    changes = {"networks_per_step": 10} if METHODS[method].learns_match else {}
    config = tiny(method, steps=steps, match=match, **changes)
    available = METHODS[method].num_available(config)
    config = dataclasses.replace(config, num_networks=min(available or 4, 4))
    settings = SMALL | {"num_networks": config.num_networks}
    if available is not None:
        del settings["ensembles"]
    metrics = experiment.run(config, tmp_path / "run", analyses=["all"], settings=settings)
    possible = {
        name
        for name, analysis in ANALYSES.items()
        if available is None or analysis.min_networks <= available
    }
    assert set(metrics["analyses"]) == possible
    assert {"uncertainty", "out_of_distribution"} <= possible
    rows = {row.measure.key: row.value for row in run_page.rows(metrics)}
    assert rows["steps"] == steps


class TestErrors:
    @pytest.mark.usefixtures("eager_fits")
    def test_networks_that_return_infinity_have_diverged(self, tmp_path):
        """The loss of the one step is finite, and the networks after it are not."""
        config = tiny("sgd", steps=1, validate_every=1, checkpoint_every=1, learning_rate=1e30)
        with pytest.raises(TrainingDivergedError, match=r"^At step 1, 1 of 1 networks return NaN"):
            experiment.run(config, tmp_path / "run")
        assert not (tmp_path / "run" / "metrics.json").exists()

    def test_a_data_set_that_is_missing_is_noticed_before_training(self, tmp_path):
        with pytest.raises(hn.data.DataError, match="notmnist"):
            experiment.run(
                TINY,
                tmp_path / "run",
                str(tmp_path),
                analyses=["out_of_distribution"],
                settings={"ood": ["notmnist"]},
            )
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("diversity", DIVERSITY)
def test_image_passes_are_those_that_go_through_networks(diversity, monkeypatch):
    config = tiny("hypernetwork", diversity=diversity)
    split = experiment.load(config, None).train[: config.images_per_step]
    sampler = build_sampler(config, 80)
    passes, run = [], hn.Target.run

    def counted(target, weights, x, **options):
        # Images [N, B, ...], one batch for each network, or [B, ...] for all of them.
        each = x.shape[1] if x.ndim == 5 else x.shape[0]
        passes.append(weights.trainable[0].shape[0] * each)
        return run(target, weights, x, **options)

    monkeypatch.setattr(hn.Target, "run", counted)
    sampler.train_step((tf.constant(split.x), tf.constant(split.y)))
    assert sum(passes) == config.passes_per_step
