"""The run of `--match`: noise as far apart as its networks, and a generator that learns them."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from analysed_runs import SMALL
from small_experiments import modification_times, tiny, tiny_of_study

import hypernet_tf as hn
from hypernet_tf.diversity.entropy import nearest_neighbour_distances
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce.configs import RunConfig
from reproduce.runs import folder as folders
from reproduce.runs.folder import RunError
from reproduce.runs.match import ensemble_to_match, finished_run, finished_sampler
from reproduce.studies import experiment

pytestmark = pytest.mark.usefixtures("few_digits")


@pytest.fixture(scope="module")
def ensemble_run(tiny_run):
    return tiny_run(tiny("deep_ensemble", steps=30))


@pytest.fixture(scope="module")
def small_run(tiny_run):
    """A run of three networks that have hardly learned, for tests without training of their own."""
    return tiny_run(tiny_of_study("deep_ensemble"))


def sampler_of(folder):
    return finished_sampler(folder, folders.finished(folder, RunConfig)[0])


@pytest.mark.slow
def test_noise_is_as_far_apart_as_the_run_that_it_matches(ensemble_run, tmp_path):
    config = tiny("noise", num_networks=10, match=str(ensemble_run))
    metrics = experiment.run(config, tmp_path / "noise")
    sampler, other = sampler_of(tmp_path / "noise"), sampler_of(ensemble_run)
    assert isinstance(sampler, hn.NoiseControl)

    def distance(ensemble):
        return float(np.log(nearest_neighbour_distances(ensemble.theta())).mean())

    # What is analysed later is what was evaluated.
    assert distance(sampler.sample(10)) == pytest.approx(distance(other.sample(10)), abs=1e-3)
    again = experiment.run(config, tmp_path / "noise", analyses=["uncertainty"], settings=SMALL)
    assert again["diversity"] == metrics["diversity"]


@pytest.mark.slow
def test_training_goes_on_as_if_noise_had_not_been_matched(ensemble_run, tmp_path):
    config = tiny("noise", num_networks=10, match=str(ensemble_run))
    more = dataclasses.replace(config, steps=4)
    experiment.run(config, tmp_path / "twice")
    for name in ("twice", "at_once"):
        experiment.run(more, tmp_path / name)
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
def test_a_generator_learns_the_networks_of_a_run_and_goes_on_alike(ensemble_run, tmp_path):
    times = modification_times(ensemble_run)
    config = tiny("apd", num_networks=4, networks_per_step=6, match=str(ensemble_run))
    more = dataclasses.replace(config, steps=4)
    metrics = experiment.run(config, tmp_path / "twice")
    assert metrics["networks"]["num_networks"] == 4
    for name in ("twice", "at_once"):
        experiment.run(more, tmp_path / name)
    twice, at_once = (sampler_of(tmp_path / name) for name in ("twice", "at_once"))
    for one, other in zip(twice.variables, at_once.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    theta = sampler_of(ensemble_run).sample(10).theta()
    np.testing.assert_allclose(twice.centre, theta.mean(0), atol=1e-5)
    assert modification_times(ensemble_run) == times  # the first stage is not repeated


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "cannot learn the 10 networks in .*: name a run with at least 32"),
        ({"target": "lenet", "networks_per_step": 2}, "are of the target mnist, not lenet: name"),
    ],
)
def test_a_generator_needs_enough_networks_of_its_target(ensemble_run, tmp_path, changes, words):
    config = tiny("apd", match=str(ensemble_run), **changes)
    with pytest.raises(RunError, match=words) as error:
        ensemble_to_match(tmp_path / "apd", config)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_generator_does_not_go_on_with_other_networks(ensemble_run, tmp_path):
    config = tiny("apd", num_networks=4, networks_per_step=6, match=str(ensemble_run))
    experiment.run(config, tmp_path / "apd")
    assert len(ensemble_to_match(tmp_path / "apd", config)) == 10
    shutil.copytree(ensemble_run, tmp_path / "longer")
    checkpoints = Checkpoints(tmp_path / "longer" / "checkpoints")
    sampler, record = checkpoints.load()
    for variable in sampler.trainable_variables:
        variable.assign(2 * variable)
    checkpoints.save(sampler, checkpoints.latest_step(), record)
    longer = dataclasses.replace(config, match=str(tmp_path / "longer"))
    with pytest.raises(RunError, match=r"has other networks than those that .* began to learn"):
        ensemble_to_match(tmp_path / "apd", longer)


@pytest.mark.slow
class TestWhatCannotBeMatched:
    """An error before anything is trained or written."""

    def check(self, config, folder, message):
        with pytest.raises(RunError, match=message) as error:
            experiment.run(config, folder)
        assert "\n" not in str(error.value)
        assert not folder.exists()

    def test_no_run(self, tmp_path):
        config = tiny("noise", match=str(tmp_path / "nothing"))
        self.check(config, tmp_path / "noise", r"no finished run in .*nothing: train it first")

    def test_a_run_on_other_images(self, ensemble_run, tmp_path):
        clothes = shutil.copytree(ensemble_run, tmp_path / "clothes")
        saved = json.loads((clothes / "config.json").read_text())
        folders.write_json(clothes / "config.json", saved | {"dataset": "fashion_mnist"})
        config = tiny("noise", match="../clothes")
        self.check(config, tmp_path / "noise", "is on fashion_mnist, not mnist_5k")

    def test_a_run_of_another_target(self, ensemble_run, tmp_path):
        config = tiny("noise", match=str(ensemble_run), target="lenet")
        self.check(config, tmp_path / "noise", "are of the target mnist, not lenet: name another")

    def test_a_run_of_one_network(self, tiny_run, tmp_path):
        config = tiny("noise", match=str(tiny_run(tiny("sgd"))))
        self.check(config, tmp_path / "noise", "has one network, and so no distances to match")


@pytest.mark.usefixtures("eager_fits")
def test_as_many_networks_are_matched_as_the_other_run_has(small_run, tmp_path):
    for asked, expected in ((2, 2), (50, 3)):
        config = tiny("noise", num_networks=asked, match=str(small_run))
        assert len(ensemble_to_match(tmp_path / "noise", config)) == expected


@pytest.mark.usefixtures("eager_fits")
def test_networks_that_are_equal_cannot_be_matched(small_run, monkeypatch, tmp_path):
    def fail(self, ensemble):
        raise ValueError("no noise is as weak")

    monkeypatch.setattr(hn.NoiseControl, "match", fail)
    config = tiny("noise", num_networks=3, match=str(small_run))
    with pytest.raises(RunError, match="the noise cannot be matched: no noise is as weak"):
        experiment.run(config, tmp_path / "noise")
    assert not (tmp_path / "noise" / "metrics.json").exists()


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        *(("method", "method"), ("target", "target")),
        *(("dataset", "data set"), ("diversity", "diversity")),
    ],
)
def test_a_run_of_what_is_not_known_asks_for_its_module(key, kind, small_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(small_run, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: "jitter"}))
    with pytest.raises(RunError, match=rf"{kind} 'jitter', which is not known: name its mod"):
        finished_run(folder)
