"""The experiment with deep targets: flags, folder, runs."""

import dataclasses
import json

import numpy as np
import pytest
from small_experiments import command_line, python, tiny

from hypernet_tf.data import names_for
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce.analyses.out_of_distribution import ood_datasets, ood_names
from reproduce.analyses.subject import Subject
from reproduce.cli.run_flags import config_from_flags, default_folder
from reproduce.configs import RunConfig, preset
from reproduce.runs import folder as folders
from reproduce.runs.folder import UsageError
from reproduce.runs.match import finished_sampler
from reproduce.studies import experiment

pytestmark = pytest.mark.usefixtures("few_digits")

SIZES = {
    "num_networks": 2,
    "networks_per_step": 2,
    "images_per_network": 4,
    "validate_every": 1,
}


class TestFlags:
    def parsed(self, *words):
        with command_line(*words):
            config = config_from_flags("cifar")
            return config, str(default_folder(config))

    def test_the_configuration_and_its_folder(self):
        config, folder = self.parsed("--dataset=mnist_5k", "--preset=quick", "--steps=9")
        assert config == preset("cifar", "hypernetwork", "quick", dataset="mnist_5k", steps=9)
        assert folder == "runs/cifar-dataset=mnist_5k-preset=quick"
        config, folder = self.parsed("--dataset=cifar10", "--target=resnet32", "--method=sgd")
        assert config == preset("cifar", "sgd", "paper", target="resnet32", dataset="cifar10")
        assert config.augment
        assert folder == "runs/cifar-method=sgd-target=resnet32"

    def test_each_kind_of_diversity_has_a_lam_of_its_own(self):
        for given, lam in (
            (["--diversity=outputs"], 1e4),
            (["--diversity=outputs", "--lam=1e3"], 1e3),
            (["--diversity=none"], 1e3),
        ):
            config, _ = self.parsed("--dataset=mnist_5k", *given)
            assert config.lam == lam

    @pytest.mark.parametrize("method", ["sgd", "deep_ensemble", "sgd_snapshots"])
    def test_rates_and_snapshots_follow_the_steps(self, method):
        config, folder = self.parsed("--dataset=mnist_5k", f"--method={method}", "--steps=400")
        assert config.steps == 400
        assert folder == f"runs/cifar-dataset=mnist_5k-method={method}"
        if method == "sgd_snapshots":
            assert config.decay_per_step == 1
            assert config.steps_between_snapshots == 20  # the last 10 lie in the second half
        else:
            assert config.decay_per_step**400 == pytest.approx(0.01)

    def test_flags_that_do_not_fit(self):
        with pytest.raises(UsageError, match="--lam is not used by --method=sgd: remove it"):
            self.parsed("--dataset=mnist_5k", "--method=sgd", "--lam=3")
        with pytest.raises(UsageError, match="--diversity is not used by --method=mnf"):
            self.parsed("--dataset=mnist_5k", "--method=mnf", "--diversity=none")

    @pytest.mark.slow
    def test_the_command_has_a_default_data_set_and_ends_in_one_line(self, tmp_path):
        config = preset("cifar", "hypernetwork", "paper", dataset="mnist_5k")
        folders.write_json(tmp_path / "run" / "config.json", dataclasses.asdict(config))
        (tmp_path / "run" / "checkpoints").mkdir()  # something has been trained
        done = python("-m", "reproduce.cifar", "--run_dir=run", cwd=tmp_path)
        assert done.returncode == 1
        assert done.stderr == (
            "reproduce.cifar: the run in run has dataset=mnist_5k, not cifar10: "
            "choose another --run_dir\n"
        )
        assert sorted(path.name for path in tmp_path.rglob("*")) == [
            *("checkpoints", "config.json", "run")
        ]


def history(folder):
    return Checkpoints(folder / "checkpoints").load()[1]["history"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        tiny("hypernetwork", "cifar", architecture="published", **SIZES),
        tiny("hypernetwork", "cifar", architecture="published", diversity="outputs", **SIZES),
        tiny("deep_ensemble", "cifar", **SIZES),
        tiny("sgd", "cifar", **SIZES | {"num_networks": 1, "networks_per_step": 1}),
    ],
    ids=["weights", "outputs", "deep_ensemble", "sgd"],
)
def test_the_folder_of_a_run_is_complete(config, tiny_run):
    folder = tiny_run(config)
    metrics = folders.read_metrics(folder)
    assert json.loads((folder / "config.json").read_text()) == dataclasses.asdict(config)
    assert folders.finished(folder, RunConfig) == (config, metrics)
    for name in ("accuracy_histogram", "training_curves", "filters"):
        for suffix in ("png", "pdf", "npz"):
            assert (folder / "figures" / f"{name}.{suffix}").stat().st_size
    assert (folder / "report.html").exists()
    assert not list(folder.rglob("*.part*"))
    assert metrics["experiment"] == "cifar"
    assert metrics["run"]["target_weights"] == 62_006
    assert metrics["run"]["image_passes"] == 2 * config.passes_per_step
    assert metrics["dataset"]["source"].endswith(", padded to 32 x 32 x 3")
    tests = [entry["test"] for entry in history(folder)]
    assert metrics["best_on_test"] == {
        "validations": 2,
        "member_accuracy": max(np.mean(one["member_accuracies"]) for one in tests),
        "majority_vote_accuracy": max(one["majority_vote_accuracy"] for one in tests),
    }
    for one in tests:
        assert len(one["member_accuracies"]) == config.num_networks
    sampler = finished_sampler(folder, config)
    if config.method == "hypernetwork":
        (term,) = sampler.diversity
        kinds = {"weights": "NegativeEntropy", "outputs": "NegativeOutputEntropy"}
        assert type(term).__name__ == kinds[config.diversity]
        assert sampler.generators[3].outputs == 10_164  # generated whole
    dataset = experiment.load(config, None)
    assert dataset.test.images.shape == (80, 32, 32, 3)
    result = sampler.sample(config.num_networks, seed=1).evaluate(dataset.test.x, dataset.test.y)
    accuracy = metrics["networks"]["member_accuracy"]
    assert accuracy == pytest.approx(result.member_accuracy.mean())
    validated, last = sampler.sample(config.num_networks, seed=0), history(folder)[-1]
    for name, split in (("validation", dataset.validation), ("test", dataset.test)):
        result = validated.evaluate(split.x, split.y)
        np.testing.assert_allclose(last[name]["member_accuracies"], result.member_accuracy)
        loss = last[name]["negative_log_likelihood"]
        assert loss == pytest.approx(result.negative_log_likelihood, rel=1e-5)


def test_images_out_of_distribution_have_the_shape_of_the_images():
    dataset = experiment.load(tiny("sgd", "cifar"), None)
    dataset = dataclasses.replace(dataset, name="fashion_mnist")
    settings = {"num_networks": 2, "ood": ["mnist_5k", "noise"]}
    datasets, _ = ood_datasets(Subject(None, dataset, settings))
    for name in ("mnist_5k", "noise"):
        assert datasets[name].test.images.shape[1:] == (32, 32, 3)
    for name in names_for((32, 32, 3))[1:]:
        assert "noise" in ood_names((), name)


@pytest.mark.slow
def test_resnet32_trains(tmp_path, undrawn):
    """Two steps and the analyses of a run, in which batch norm is updated for every ensemble."""
    config = preset("cifar", "hypernetwork", "quick", target="resnet32", dataset="mnist_5k")
    config = dataclasses.replace(config, **SIZES, steps=2, checkpoint_every=2)
    settings = {
        "num_networks": 2,
        "path_pairs": 1,
        "path_points": 3,
        "path_images": 20,
        "adversarial_images": 4,
        "adversarial_networks": 2,
    }
    with undrawn():
        metrics = experiment.run(
            config, tmp_path / "run", analyses=["paths", "adversarial"], settings=settings
        )
    assert set(metrics["analyses"]) == {"accuracies", "filters", "paths", "adversarial"}
    kinds = metrics["analyses"]["paths"]["kinds"]
    assert all(0 <= kind["lowest_accuracy"] <= 1 for kind in kinds.values())
    assert metrics["run"]["target_weights"] == 465_290
    assert metrics["best_on_test"]["validations"] == 2
    assert np.isfinite(metrics["networks"]["member_negative_log_likelihood"])
    # The images for the statistics of batch norm travel with the checkpoint.
    ensemble = finished_sampler(tmp_path / "run", config).sample(2)
    assert np.isfinite(ensemble.predict(np.zeros((1, 32, 32, 3)))).all()
