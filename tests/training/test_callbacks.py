"""What happens between steps: checks, records, the progress line."""

import json

import numpy as np
import pytest
import tensorflow as tf
from small_training_runs import DATASET, run

import hypernet_tf as hn
from hypernet_tf.metrics.measures import MEASURES
from hypernet_tf.samplers.weight_measures import weight_measures
from hypernet_tf.training.callbacks import (
    TrainingDivergedError,
    progress_line,
    validation_entry,
)
from hypernet_tf.training.checkpoints import Checkpoints


@pytest.fixture(scope="module")
def learned(tmp_path_factory, undrawn):
    """A run that learns its digits, and its record."""
    folder = tmp_path_factory.mktemp("learned")
    with undrawn():
        return run(folder, 160, validate_every=80, checkpoint_every=80)


def test_it_learns_and_records(learned):
    sampler, record = learned
    first, last = record["history"]
    assert (first["step"], last["step"]) == (80, 160)
    assert last["accuracy_loss"] < np.log(3) / 2  # half of what guessing gives
    assert last["validation"]["majority_vote_accuracy"] > 0.8
    result = sampler.sample(5, seed=0).evaluate(DATASET.validation.x, DATASET.validation.y)
    of_weights = weight_measures(sampler.sample(5, seed=0), sampler)
    assert np.isfinite(of_weights["entropy"])
    assert of_weights["nearest_neighbour_distance"] is None  # of ten networks
    assert last["validation"] == validation_entry(result, of_weights)
    assert last["validation"]["member_accuracies"] == result.member_accuracy.tolist()
    assert (last["lam"], last["learning_rate"]) == (50.0, pytest.approx(0.01))
    assert record["seconds"] > 0
    json.dumps(record)


def test_the_keys_are_those_of_the_table(learned):
    """Everything that is recorded is a measure; a validation has all that an evaluation has."""
    _, record = learned
    for entry in record["history"]:
        validation = entry.pop("validation")
        assert set(entry) - {"step"} <= set(MEASURES)
        assert set(validation) - {"member_accuracies"} <= set(MEASURES)
        expected = {m.key for m in MEASURES.values() if m.compute and m.task == "classification"}
        assert set(validation) == expected | {"entropy", "member_accuracies"}
        entry["validation"] = validation


def test_the_progress_line_has_the_titles_of_the_table(learned):
    entry = learned[1]["history"][-1]
    line = progress_line(entry)
    assert line.startswith("step 160: accuracy of the networks, mean ")
    accuracy = 100 * entry["validation"]["majority_vote_accuracy"]
    assert f"; accuracy of the majority vote {accuracy:.2f} %; " in line
    assert line.endswith("; lam 50")
    assert "entropy" in line
    entry = entry | {"validation": entry["validation"] | {"entropy": None}}
    assert "entropy" not in progress_line(entry)
    entry["validation"].pop("majority_vote_accuracy")  # of a measure that is newer than the run
    assert "majority vote" not in progress_line(entry)


@pytest.mark.usefixtures("eager_fits")
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, monkeypatch):
    def poison(self, drawn):
        return tf.where(self.step >= 4, float("nan"), 0.0)

    monkeypatch.setattr(hn.Hypernetwork, "extra_loss", poison)
    with pytest.raises(TrainingDivergedError, match="nan at step 5") as error:
        run(tmp_path, 9, validate_every=100)
    assert "\n" not in str(error.value)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 4


@pytest.mark.usefixtures("eager_fits")
def test_weights_that_are_not_finite_are_never_kept(tmp_path, monkeypatch):
    real = hn.Hypernetwork.train_step

    def poisoned(self, data):
        logs = real(self, data)
        kernel = self.extractor.mlp.last.kernel
        kernel.assign(tf.where(self.step == 4, float("nan"), kernel))
        return logs

    monkeypatch.setattr(hn.Hypernetwork, "train_step", poisoned)
    with pytest.raises(TrainingDivergedError, match="weight stopped being finite at step 4"):
        run(tmp_path, 4, validate_every=100)
    assert Checkpoints(tmp_path / "checkpoints").latest_step() == 2
