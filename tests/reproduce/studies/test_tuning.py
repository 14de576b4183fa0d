"""The learning rate and the batch of a method, chosen on validation images."""

import dataclasses
import itertools
import math
import re

import pytest

from hypernet_tf.training.callbacks import TrainingDivergedError
from reproduce.configs import METHODS, preset
from reproduce.runs.folder import RunError
from reproduce.studies import tuning
from reproduce.studies.study import Progress


def row(method, **changes):
    return dataclasses.replace(preset("mnist", method, "quick", dataset="mnist_5k"), **changes)


class TestCandidates:
    @pytest.mark.parametrize("method", METHODS)
    def test_the_first_is_the_preset(self, method):
        config = row(method)
        first, *others = tuning.candidates(config, 8)
        assert first["learning_rate"] == config.learning_rate
        assert {name: getattr(config, name) for name in first} == first
        # Images teach nothing to a method that learns networks.
        assert ("images_per_network" in first) != METHODS[method].learns_match
        assert len(others) == 7
        assert all(one.keys() == first.keys() for one in others)

    def test_they_are_the_same_for_all_methods(self):
        def relative(method, count):
            """Factors on the learning rate, as numbers of 1/32 of the range, and batches."""
            rate = row(method).learning_rate
            return [
                (round(32 * math.log(one["learning_rate"] / rate, 64)), one["images_per_network"])
                for one in tuning.candidates(row(method), count)[1:]
            ]

        for method in ("sgd_chains", "deep_ensemble", "mnf"):
            assert relative(method, 8) == relative("sgd", 8)
        # Only steps that are too large are left out.
        assert set(relative("hypernetwork", 8)) < set(relative("sgd", 16))
        for choice in tuning.candidates(row("hypernetwork"), 40):
            assert choice["networks_per_step"] * choice["images_per_network"] <= 1_280

    def test_a_step_takes_no_more_images_than_there_are(self):
        for choice in tuning.candidates(row("hypernetwork"), 8, 300):
            assert choice["networks_per_step"] * choice["images_per_network"] <= 300
        shared = tuning.candidates(row("hypergan"), 8)  # all networks see the same images
        assert tuning.candidates(row("hypergan"), 8, 300) == shared

    def test_they_cover_the_range(self):
        config = row("hypernetwork")
        choices = tuning.candidates(config, 13)[1:]
        rates = sorted(one["learning_rate"] / config.learning_rate for one in choices)
        assert 1 / 8 < rates[0] < 1 / 4
        assert 4 < rates[-1] < 8
        assert max(b / a for a, b in itertools.pairwise(rates)) < 2
        for name, values in (
            ("images_per_network", tuning.IMAGES_PER_NETWORK),
            ("networks_per_step", tuning.NETWORKS_PER_STEP),
        ):
            tried = [one[name] for one in choices]
            assert set(tried) == set(values)

    def test_more_trials_go_on_with_the_same_ones(self):
        config = row("sgd", learning_rate=1e-3, images_per_network=64)  # the first point as well
        choices = tuning.candidates(config, 9)
        assert len({tuple(one.values()) for one in choices}) == 9
        for count in range(1, 9):
            assert tuning.candidates(config, count) == choices[:count]

    @pytest.mark.parametrize("method", METHODS)
    @pytest.mark.parametrize("name", ["paper", "quick"])
    def test_all_methods_have_as_many(self, method, name):
        if ("mnist", name) in {(r.experiment, r.preset) for r in METHODS[method].presets}:
            assert len(tuning.candidates(preset("mnist", method, name), 8)) == 8

    def test_only_some_methods_are_free_in_their_networks(self):
        free = [m for m in METHODS if "networks_per_step" in tuning.preset_choice(row(m))]
        assert free == ["hypernetwork"]


class TestConfigured:
    def test_adam_lets_its_rate_fall_and_sgd_keeps_its_schedule(self):
        choice = {"learning_rate": 0.25, "images_per_network": 64}
        network = tuning.configured(row("sgd"), choice)
        assert (network.learning_rate, network.images_per_network) == (0.25, 64)
        assert network.decay_per_step**network.steps == pytest.approx(0.01)
        for method in ("sgd_chains", "sgd_snapshots", "sgld"):
            assert tuning.configured(row(method), choice).decay_per_step == 1.0
        of_preset = row("hypernetwork").networks_per_step
        assert tuning.configured(row("hypernetwork"), choice).networks_per_step == of_preset != 16
        others = tuning.configured(row("hypernetwork"), choice | {"networks_per_step": 16})
        assert others.networks_per_step == 16

    def test_snapshots_stay_as_far_apart_in_image_passes(self):
        config = row("sgld")
        changed = tuning.configured(config, {"learning_rate": 0.1, "images_per_network": 64})
        for name in ("snapshot_every", "validate_every", "checkpoint_every"):
            before, after = (getattr(one, name) * one.passes_per_step for one in (config, changed))
            assert after == before
        cyclic = row("sgd_chains", restart_every=600)
        assert cyclic.with_step_of(networks_per_step=10, images_per_network=64).restart_every == 300
        adam = tuning.configured(
            row("sgd", restart_every=600), {"learning_rate": 0.1, "images_per_network": 64}
        )
        assert adam.restart_every == 0
        large = config.with_step_of(networks_per_step=10, images_per_network=10_000)
        assert (large.snapshot_every, large.checkpoint_every) == (1, 1)
        assert (
            row("sgd").with_step_of(networks_per_step=1, images_per_network=9).snapshot_every == 0
        )


def config_of(choice):
    return dataclasses.replace(tuning.configured(row("sgd"), choice), steps=6)


def tune(folder, count):
    """Trials of a single network, whose data set nobody reads."""
    choices = tuning.candidates(row("sgd"), count)
    return tuning.tune(config_of, choices, folder, dict, Progress(), passes_after=1_000)


class TestTune:
    """With a function in place of training."""

    def test_more_trials_are_added(self, monkeypatch, tmp_path, capsys):
        values = iter([0.5, 0.4, 0.9])
        monkeypatch.setattr(tuning.experiment, "trial", lambda *_: {tuning.OBJECTIVE: next(values)})
        folder = tmp_path / "sgd"
        assert tune(folder, 2).chosen == tuning.candidates(row("sgd"), 2)[1]
        more = tune(folder, 3)
        # Fewer trials choose among the first.
        assert tune(folder, 1).chosen == tuning.candidates(row("sgd"), 1)[0]
        assert [trial[tuning.OBJECTIVE] for trial in more.trials] == [0.5, 0.4, 0.9]
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == (
            "trial 1 of 2 of sgd: learning_rate 0.001, images_per_network 256; 0 s so far"
        )
        assert re.search(r"images_per_network 64; \d s so far, about \d s to go$", lines[1])
        assert lines[2].startswith("trial 3 of 3 of sgd: learning_rate ")

    def test_what_is_left_are_trials_that_have_not_ended(self, monkeypatch, tmp_path):
        """Those that came to their end, and those that diverged, are not run again."""
        choices = tuning.candidates(row("sgd"), 4)
        passes = [config_of(choice).image_passes for choice in choices]
        folder = tmp_path / "sgd"
        assert tuning.seeds_of_trials(tmp_path) == []
        assert tuning.passes_left(config_of, choices, folder) == sum(passes)
        left = []

        def trial(config, dataset, where):
            left.append(tuning.passes_left(config_of, choices, folder))
            if len(left) == 2:
                raise TrainingDivergedError("the loss is nan")
            return {tuning.OBJECTIVE: 1.0}

        monkeypatch.setattr(tuning.experiment, "trial", trial)
        tune(folder, 3)
        assert left == [sum(passes), sum(passes[1:]), sum(passes[2:])]
        assert tuning.passes_left(config_of, choices, folder) == passes[3]
        assert tuning.seeds_of_trials(tmp_path) == [0]
        [state] = folder.glob("seed=0-tuner/trial_*0/trial.json")
        state.write_text("{")  # killed while it was written
        assert tuning.passes_left(config_of, choices, folder) == passes[0] + passes[3]

    def test_a_trial_that_was_cut_off_is_not_repeated_if_fewer_are_asked_for(
        self, monkeypatch, tmp_path
    ):
        tried = []

        def trial(config, dataset, folder):
            tried.append(config.images_per_network)
            if len(tried) == 3:
                raise KeyboardInterrupt
            return {tuning.OBJECTIVE: float(len(tried))}

        monkeypatch.setattr(tuning.experiment, "trial", trial)
        with pytest.raises(KeyboardInterrupt):
            tune(tmp_path / "sgd", 4)
        assert len(tune(tmp_path / "sgd", 2).trials) == 2
        assert len(tried) == 3
        again = tune(tmp_path / "sgd", 3).trials
        assert len(tried) == 4 and tried[3] == tried[2] == again[2]["images_per_network"]

    def test_a_trial_that_diverged_is_not_chosen(self, monkeypatch, tmp_path):
        def trial(config, dataset, folder):
            if config.images_per_network == 256:
                raise TrainingDivergedError("the loss is nan")
            return {tuning.OBJECTIVE: 2.0}

        monkeypatch.setattr(tuning.experiment, "trial", trial)
        of_sgd = tune(tmp_path / "sgd", 2)
        assert [one[tuning.OBJECTIVE] for one in of_sgd.trials] == [None, 2.0]
        assert of_sgd.chosen == tuning.candidates(row("sgd"), 2)[1]
        with pytest.raises(RunError, match=r"no trial in .* came to its end: training diverged"):
            tune(tmp_path / "sgd", 1)


def test_a_trial_evaluates_few_networks():
    for method, networks in (("hypernetwork", 20), ("sgld", 20), ("sgd_snapshots", 10), ("sgd", 1)):
        config = tuning._trial_config(row(method))
        assert config.num_networks == networks
        assert config.validate_every == config.steps
    short = row("sgld", steps=100)  # one snapshot of each chain
    assert tuning._trial_config(short).num_networks == 10
