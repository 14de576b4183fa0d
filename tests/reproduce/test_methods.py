"""Every method of `reproduce.mnist`."""

import dataclasses
import json
import shutil

import keras
import numpy as np
import pytest

import hypernet_tf as hn
from hypernet_tf.diversity.entropy import nearest_neighbour_distances
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce import mnist
from reproduce.analyses import ANALYSES
from reproduce.cli import experiment_flags as _experiment_flags
from reproduce.cli import flags as _flags
from reproduce.configs import methods as _methods
from reproduce.reports import run_page as _run_page
from reproduce.runs import folder as _run
from reproduce.runs.match import finished_sampler

pytestmark = pytest.mark.usefixtures("few_digits")

SMALL = {
    "num_networks": 4,
    "ensembles": 2,
    "scatter_networks": 8,
    "path_pairs": 2,
    "path_points": 3,
    "path_images": 30,
    "adversarial_images": 30,
    "adversarial_networks": 3,
    "ood": ["glyphs", "noise"],
}


def tiny(method, **changes):
    short = {"steps": 2, "validate_every": 2, "checkpoint_every": 2}
    config = dataclasses.replace(
        mnist.defaults(method, "quick"), dataset="mnist_5k", **short | changes
    )
    images = min(config.images_per_network, 80 // config.networks_per_step)  # as few digits allow
    return dataclasses.replace(config, images_per_network=images)


def sampler_of(folder):
    return finished_sampler(folder, _run.finished(folder, mnist.Config)[0])


@pytest.fixture(scope="module")
def ensemble_run(tmp_path_factory, few_digits, undrawn):
    folder = tmp_path_factory.mktemp("runs") / "deep_ensemble"
    with undrawn():
        mnist.run(tiny("deep_ensemble", steps=30), folder)
    return folder


class TestMethods:
    @pytest.mark.parametrize("preset", ["paper", "quick"])
    @pytest.mark.parametrize("method", _methods.METHODS)
    def test_its_preset_is_what_it_says(self, method, preset):
        config = mnist.defaults(method, preset)
        sampler = _methods.build(config, num_data=4_000)
        assert sampler.num_networks == config.networks_per_step
        size = sampler.num_available_after(config.steps)
        assert size is None or size >= config.num_networks
        assert (size == 1) == (method == "sgd")
        rate = config.learning_rate / (4_000 if method == "sgld" else 1)
        assert float(sampler.optimizer.learning_rate) == pytest.approx(rate)
        lam = {"hypernetwork": 1_000, "sgld": 4_000}.get(method, 1)
        assert float(sampler.lam.numpy()) == lam
        chains = isinstance(sampler.optimizer, keras.optimizers.SGD)
        assert chains == (method in ("sgd_chains", "sgd_snapshots", "sgld"))

    @pytest.mark.slow
    def test_noise_is_as_far_apart_as_the_run_that_it_matches(self, ensemble_run, tmp_path):
        config = tiny("noise", num_networks=10, match=str(ensemble_run))
        metrics = mnist.run(config, tmp_path / "noise")
        sampler, other = sampler_of(tmp_path / "noise"), sampler_of(ensemble_run)
        assert isinstance(sampler, hn.NoiseControl)

        def distance(ensemble):
            return float(np.log(nearest_neighbour_distances(ensemble.theta())).mean())

        # What is analysed later is what was evaluated.
        assert distance(sampler.sample(10)) == pytest.approx(distance(other.sample(10)), abs=1e-3)
        again = mnist.run(config, tmp_path / "noise", analyses=["uncertainty"], settings=SMALL)
        assert again["diversity"] == metrics["diversity"]

    @pytest.mark.slow
    def test_training_goes_on_as_if_noise_had_not_been_matched(self, ensemble_run, tmp_path):
        config = tiny("noise", num_networks=10, match=str(ensemble_run))
        more = dataclasses.replace(config, steps=4)
        mnist.run(config, tmp_path / "twice")
        for name in ("twice", "at_once"):
            mnist.run(more, tmp_path / name)
        histories = [
            [entry["validation"] for entry in record["history"] if entry["step"] == 4]
            for _, record in (
                Checkpoints(tmp_path / name / "checkpoints").load() for name in ("twice", "at_once")
            )
        ]
        assert histories[0] == histories[1]
        thetas = [sampler_of(tmp_path / name).sample(3).theta() for name in ("twice", "at_once")]
        np.testing.assert_array_equal(*thetas)

    @pytest.mark.slow
    def test_what_noise_cannot_match(self, ensemble_run, tmp_path, quick_pictures):
        with pytest.raises(_run.RunError, match=r"no finished run in .*nothing: train it first"):
            mnist.run(tiny("noise", match=str(tmp_path / "nothing")), tmp_path / "noise")
        other = tiny("noise", match=str(ensemble_run))
        saved = json.loads((ensemble_run / "config.json").read_text())
        clothes = shutil.copytree(ensemble_run, tmp_path / "clothes")
        _run.write_json(clothes / "config.json", saved | {"dataset": "fashion_mnist"})
        with pytest.raises(_run.RunError, match="is on fashion_mnist, not mnist_5k"):
            mnist.run(dataclasses.replace(other, match=str(clothes)), tmp_path / "noise")
        mnist.run(tiny("sgd"), tmp_path / "sgd")
        with pytest.raises(_run.RunError, match="has one network, and so no distances to match"):
            mnist.run(dataclasses.replace(other, match=str(tmp_path / "sgd")), tmp_path / "noise")
        assert not (tmp_path / "noise").exists()

    def test_more_networks_than_there_are(self, tmp_path):
        for config, count in ((tiny("deep_ensemble", num_networks=11), 10), (tiny("sgld"), 10)):
            with pytest.raises(_run.UsageError, match=f"this sampler holds {count}"):
                mnist.run(config, tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.slow
    @pytest.mark.parametrize("method", _methods.METHODS)
    def test_every_analysis_runs_on_it_unchanged(self, method, ensemble_run, tmp_path):
        match = str(ensemble_run) if method == "noise" else ""
        size = {"sgd": 1, "deep_ensemble": 10, "sgd_chains": 10, "sgld": 20}.get(method)
        steps = 200 if method == "sgld" else 30
        config = tiny(method, steps=steps, match=match)
        config = dataclasses.replace(config, num_networks=min(size or 4, 4))
        settings = SMALL | {"num_networks": config.num_networks}
        if size is not None:
            settings["ensembles"] = None
        metrics = mnist.run(config, tmp_path / "run", analyses=["all"], settings=settings)
        possible = {
            name for name, a in ANALYSES.items() if a.least_networks <= (size or a.least_networks)
        }
        assert set(metrics["analyses"]) == possible
        assert {"uncertainty", "out_of_distribution"} <= possible
        values = {row.measure.key: row.value for row in _run_page.rows(metrics)}
        assert values["steps"] == steps


class TestMethodFlags:
    @pytest.fixture(autouse=True)
    def as_given(self):
        """Flags of a test are not those of the next."""
        yield
        for module in (_experiment_flags, _flags):
            for flag in _flags.FLAGS.flags_by_module_dict()[module.__name__]:
                flag.unparse()

    def config(self, *arguments):
        _flags.FLAGS(["mnist", "--dataset=mnist_5k", *arguments])
        return mnist.config_from_flags()

    def test_what_has_no_part_or_is_missing(self):
        for arguments, words in (
            (["--method=mnf", "--lam=5"], "--lam has no part in --method=mnf"),
            (["--method=sgd", "--num_networks=5"], "--num_networks has no part in --method=sgd"),
            (["--match=runs/x"], "--match has no part in --method=hypernetwork"),
            (["--method=noise"], "--method=noise needs --match"),
        ):
            with pytest.raises(_run.UsageError, match=words):
                self.config(*arguments)
            self.forget()

    def forget(self):
        for flag in _flags.FLAGS.flags_by_module_dict()[_experiment_flags.__name__]:
            flag.unparse()
        for name in ("lam", "num_networks"):
            _flags.FLAGS[name].unparse()

    def test_a_folder_is_named_after_the_method(self):
        for path in ("runs/mnist/", "runs/mnist"):
            config = self.config("--method=noise", f"--match={path}")
            assert str(mnist.default_folder(config)).endswith("method=noise-match=mnist")
            self.forget()
