"""Data order, checkpoints, records, resume."""

import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_training_runs import DATASET, digits, make, run, same_state
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

import hypernet_tf as hn
from hypernet_tf.training import callbacks
from hypernet_tf.training.checkpoints import CheckpointError, Checkpoints
from hypernet_tf.training.stream import batch_indices, batches


class TestStream:
    @settings(deadline=None, derandomize=True, max_examples=20)
    @given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31 - 1))
    def test_every_epoch_uses_each_example_once(self, size, batch_size, seed):
        batch_size = min(size, batch_size)
        steps = -(-3 * size // batch_size)
        order = np.concatenate(
            [
                batch_indices(tf.constant(s), size=size, batch_size=batch_size, seed=seed)
                for s in range(steps)
            ]
        )
        for epoch in range(3):
            part = order[epoch * size : (epoch + 1) * size]
            assert sorted(part) == list(range(size))

    def test_epochs_and_seeds_differ(self):
        def order(seed, step):
            index = batch_indices(tf.constant(step), size=50, batch_size=50, seed=seed)
            return index.numpy().tolist()

        assert order(0, 0) != order(0, 1) != order(1, 1)
        assert order(0, 0) != list(range(50))

    def test_it_starts_where_it_is_told(self):
        split = digits(20)
        whole = batches(split, batch_size=6, seed=3).take(9)
        rest = batches(split, batch_size=6, seed=3, first_step=5).take(4)
        for (x, y), (x_late, y_late) in zip(list(whole)[5:], rest, strict=True):
            np.testing.assert_array_equal(x, x_late)
            np.testing.assert_array_equal(y, y_late)

    def test_images_and_labels_stay_together(self):
        split = digits(20)
        x, y = next(iter(batches(split, batch_size=20, seed=0)))
        assert x.dtype == tf.float32
        assert x.shape == (20, 6, 6, 1)
        rows = x.numpy().mean((2, 3))[:, ::2].argmax(1)  # the bright row
        np.testing.assert_array_equal(rows, y)
        assert x.numpy().max() <= 1

    def test_a_batch_larger_than_the_data_is_refused(self):
        with pytest.raises(ValueError, match="only 20 to train on"):
            batches(digits(20), batch_size=21, seed=0)


class TestCheckpoints:
    def test_the_newest_two_are_kept(self, tmp_path):
        checkpoints = Checkpoints(tmp_path / "checkpoints")
        model = make()
        assert checkpoints.latest_step() is None
        for step in (2, 10, 100):
            model.step.assign(step)
            checkpoints.save(model, step, {"history": [step]})
        assert sorted(p.name for p in checkpoints.folder.iterdir()) == [
            "step-00000010",
            "step-00000100",
        ]
        loaded, record = checkpoints.load()
        assert record == {"history": [100]}
        assert checkpoints.latest_step() == int(loaded.step.numpy()) == 100

    def test_what_a_kill_left_is_removed(self, tmp_path):
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save(make(), 2, {})
        shutil.copytree(tmp_path / "step-00000002", tmp_path / ".step-00000004.part")
        again = Checkpoints(tmp_path)
        assert again.latest_step() == 2
        assert [p.name for p in tmp_path.iterdir()] == ["step-00000002"]

    @pytest.mark.parametrize("damage", ["cut", "flip", "missing", "record", "empty"])
    def test_a_damaged_one_is_named(self, tmp_path, damage):
        checkpoints = Checkpoints(tmp_path)
        checkpoints.save(make(), 2, {})
        checkpoints.save(make(), 4, {})
        file = tmp_path / "step-00000004" / "model.keras"
        content = bytearray(file.read_bytes())
        if damage == "cut":
            file.write_bytes(content[: len(content) // 2])
        elif damage == "flip":
            content[len(content) // 2] ^= 1
            file.write_bytes(content)
        elif damage == "missing":
            file.unlink()
        else:
            text = "[]" if damage == "record" else ""
            (tmp_path / "step-00000004" / "checkpoint.json").write_text(text)
        with pytest.raises(CheckpointError, match="step-00000004 is damaged") as error:
            checkpoints.load()
        assert "\n" not in str(error.value)
        shutil.rmtree(tmp_path / "step-00000004")  # as the message says
        assert checkpoints.load()[1] == {}


@pytest.fixture(scope="module")
def four_steps(tmp_path_factory):
    """A run of four steps: its folder, what it returned, how often a step was traced."""
    folder = tmp_path_factory.mktemp("runs") / "four"
    traces = []
    real = hn.Hypernetwork.train_step

    def counted(self, data):
        traces.append(1)
        return real(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hn.Hypernetwork, "train_step", counted)
        return folder, *run(folder, 4), len(traces)


class TestRun:
    def test_resumed_equals_uninterrupted(self, four_steps, tmp_path):
        whole, record = run(tmp_path / "whole", 7)
        shutil.copytree(four_steps[0], tmp_path / "parts")
        resumed, resumed_record = run(tmp_path / "parts", 7)
        assert int(whole.step.numpy()) == 7
        same_state(whole, resumed)
        assert record["history"] == resumed_record["history"]
        assert [entry["step"] for entry in record["history"]] == [2, 4, 6, 7]
        assert [e["step"] for e in record["history"] if "validation" in e] == [4, 7]

    def test_a_finished_run_is_only_loaded(self, four_steps):
        folder, first, *_ = four_steps
        before = (folder / "checkpoints" / "step-00000004" / "model.keras").stat()
        second, record = run(folder, 4)
        same_state(first, second)
        assert (folder / "checkpoints" / "step-00000004" / "model.keras").stat() == before
        assert record["history"][-1]["step"] == 4

    def test_it_learns_and_records(self, tmp_path):
        hyper, record = run(tmp_path, 160, validate_every=80, checkpoint_every=80)
        first, last = record["history"]
        assert last["accuracy_loss"] < first["accuracy_loss"]
        assert last["validation"]["majority_vote_accuracy"] > 0.8
        assert len(last["validation"]["member_accuracies"]) == 5
        expected = hyper.sample(5, seed=0).evaluate(DATASET.validation.x, DATASET.validation.y)
        assert last["validation"]["member_accuracies"] == expected.member_accuracy.tolist()
        assert np.isfinite(last["validation"]["entropy"])
        assert (last["lam"], last["learning_rate"]) == (50.0, pytest.approx(0.01))
        assert record["seconds"] > 0
        json.dumps(record)

    def test_a_loss_that_is_no_number_stops_the_run(self, tmp_path, monkeypatch):
        def poison(self, drawn):
            return tf.where(self.step >= 4, float("nan"), 0.0)

        monkeypatch.setattr(hn.Hypernetwork, "own_loss", poison)
        with pytest.raises(callbacks.TrainingDivergedError, match="nan at step 5") as error:
            run(tmp_path, 9, validate_every=100)
        assert "\n" not in str(error.value)
        assert Checkpoints(tmp_path / "checkpoints").latest_step() == 4

    def test_weights_that_are_no_numbers_are_never_kept(self, tmp_path, monkeypatch):
        real = hn.Hypernetwork.train_step

        def poisoned(self, data):
            logs = real(self, data)
            kernel = self.extractor.mlp.last.kernel
            kernel.assign(tf.where(self.step == 4, float("nan"), kernel))
            return logs

        monkeypatch.setattr(hn.Hypernetwork, "train_step", poisoned)
        with pytest.raises(
            callbacks.TrainingDivergedError, match="weight stopped being finite at step 4"
        ):
            run(tmp_path, 4, validate_every=100)
        assert Checkpoints(tmp_path / "checkpoints").latest_step() == 2

    def test_the_training_step_is_traced_once(self, four_steps):
        assert 1 <= four_steps[-1] <= 2  # Keras makes the metrics' variables in a first trace


KILLED = textwrap.dedent(
    """
    import importlib.util, pathlib, sys
    import tensorflow as tf

    spec = importlib.util.spec_from_file_location("training_tests", sys.argv[1])
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    tf.config.experimental.enable_op_determinism()
    tests.run(pathlib.Path(sys.argv[2]), int(sys.argv[3]), checkpoint_every=1, validate_every=1000)
    """
)


def test_killed_at_any_moment_it_ends_bit_for_bit_alike(tmp_path):
    """SIGKILL while a checkpoint is written, and again between two of them.

    The process that was killed first is continued by another one, that one by this process, which
    also does the run that nothing interrupts.
    """
    steps = 12
    tf.config.experimental.enable_op_determinism()

    def here(folder):
        run(folder, steps, checkpoint_every=1, validate_every=1000)

    def start(folder):
        command = [sys.executable, "-c", KILLED, inspect.getfile(run), str(folder), str(steps)]
        return subprocess.Popen(command, env=os.environ)

    here(tmp_path / "whole")
    folder = tmp_path / "killed" / "checkpoints"
    kills = 0
    for wanted in (".step-00000003.part", "step-00000008"):
        process = start(tmp_path / "killed")
        deadline = time.monotonic() + 120
        while process.poll() is None and not (folder / wanted).exists():
            assert time.monotonic() < deadline
            time.sleep(0.001)  # its core is for the others
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.wait()
        left = sorted(p.name for p in folder.glob("step-*"))
        assert len(left) <= 3  # two, and one more while the oldest is on its way out
    assert kills >= 1
    here(tmp_path / "killed")
    one, record = Checkpoints(tmp_path / "whole" / "checkpoints").load()
    other, other_record = Checkpoints(folder).load()
    assert int(other.step.numpy()) == steps
    same_state(one, other)
    assert record["history"] == other_record["history"]
    events = EventAccumulator(str(tmp_path / "killed" / "tensorboard"), {"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("training/loss")] == list(range(1, steps + 1))
