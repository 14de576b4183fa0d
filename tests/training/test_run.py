"""Runs: resumed, finished, killed."""

import dataclasses
import inspect
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import keras
import pytest
import tensorflow as tf
from small_training_runs import DATASET, make, run, same_state
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

import hypernet_tf as hn
from hypernet_tf.data import Split
from hypernet_tf.training.callbacks import HaltOnNaN, TrainingStoppedError
from hypernet_tf.training.checkpoints import CheckpointError, Checkpoints
from hypernet_tf.training.devices import Execution
from hypernet_tf.training.run import train


@pytest.fixture(autouse=True)
def deterministic():
    """Two trainings are equal bit for bit, as in the commands."""
    tf.config.experimental.enable_op_determinism()


@pytest.fixture(scope="module")
def four_steps(tmp_path_factory):
    """A run of four steps: its folder, what it returned, how often a step was traced."""
    tf.config.experimental.enable_op_determinism()
    folder = tmp_path_factory.mktemp("runs") / "four"
    traces = []
    real = hn.Hypernetwork.train_step

    def counted(self, data):
        traces.append(1)
        return real(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hn.Hypernetwork, "train_step", counted)
        return folder, *run(folder, 4, watch_test=True), len(traces)


@pytest.mark.slow
def test_resumed_equals_uninterrupted(four_steps, tmp_path):
    whole, record = run(tmp_path / "whole", 7, watch_test=True)
    shutil.copytree(four_steps[0], tmp_path / "parts")
    resumed, resumed_record = run(tmp_path / "parts", 7, watch_test=True)
    assert int(whole.step.numpy()) == 7
    same_state(whole, resumed)
    assert record["history"] == resumed_record["history"]
    assert [entry["step"] for entry in record["history"]] == [2, 4, 6, 7]
    assert [e["step"] for e in record["history"] if "validation" in e] == [4, 7]


def test_a_finished_run_is_only_loaded(four_steps):
    folder, first, *_ = four_steps
    before = (folder / "checkpoints" / "step-00000004" / "model.keras").stat()
    second, record = run(folder, 4)
    same_state(first, second)
    assert (folder / "checkpoints" / "step-00000004" / "model.keras").stat() == before
    assert record["history"][-1]["step"] == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"seed": 8}, "seed"), ({"images": 3}, "images per network"), ({}, "images")],
)
def test_a_run_goes_on_with_what_it_began_with(changes, words, four_steps, tmp_path):
    folder = shutil.copytree(four_steps[0], tmp_path / "four")
    labels = DATASET.validation.labels[::-1]
    validation = Split(DATASET.validation.images, labels if not changes else labels[::-1])
    dataset = dataclasses.replace(DATASET, validation=validation)
    with pytest.raises(CheckpointError, match=f"began with other {words}: continue") as error:
        run(folder, 7, dataset=dataset, **changes)
    assert "\n" not in str(error.value)


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(four_steps, tmp_path, monkeypatch):
    def stop(self, logs=None):
        raise KeyboardInterrupt

    shutil.copytree(four_steps[0], tmp_path / "four")
    monkeypatch.setattr(HaltOnNaN, "on_train_begin", stop)
    for name, message in (
        (
            "four",
            "stopped at step 4; the checkpoint of step 4 is kept: "
            "run the same command again to go on",
        ),
        (
            "new",
            "stopped at step 0, before the first checkpoint: "
            "run the same command again to start anew",
        ),
    ):
        with pytest.raises(TrainingStoppedError) as error:
            run(tmp_path / name, 7)
        assert str(error.value) == message
        assert isinstance(error.value, KeyboardInterrupt)


def test_the_training_step_is_traced_once(four_steps):
    assert four_steps[-1] == 1


def test_watched_images_are_those_of_the_test(four_steps):
    _, sampler, record, _ = four_steps
    entry = record["history"][-1]
    expected = sampler.sample(5, seed=0).evaluate(DATASET.test.x, DATASET.test.y)
    assert entry["test"]["member_accuracies"] == expected.member_accuracy.tolist()
    assert entry["test"]["negative_log_likelihood"] == expected.negative_log_likelihood
    assert entry["test"] != entry["validation"]


@pytest.mark.usefixtures("eager_fits", "quick_pictures")
def test_a_run_goes_on_bit_for_bit_after_a_kill(tmp_path):
    """A checkpoint of which a kill left a half is made again, and events are not repeated."""
    options = {"checkpoint_every": 2, "validate_every": 4}
    whole, record = run(tmp_path / "whole", 6, **options)
    run(tmp_path / "parts", 4, **options)
    folder = tmp_path / "parts" / "checkpoints"
    shutil.copytree(folder / "step-00000004", folder / ".step-00000006.part")
    (folder / ".step-00000006.part" / "model.keras").write_bytes(b"half")
    resumed, resumed_record = run(tmp_path / "parts", 6, **options)
    same_state(whole, resumed)
    assert record["history"] == resumed_record["history"]
    assert [entry["step"] for entry in record["history"]] == [2, 4, 6]
    events = EventAccumulator(str(tmp_path / "parts" / "tensorboard"), {"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("training/loss")] == [2, 4, 6]


@pytest.mark.usefixtures("quick_pictures")
def test_several_steps_in_one_execution_change_nothing(four_steps, tmp_path):
    """An execution ends where a checkpoint is written."""
    _, one, record, _ = four_steps
    execution = Execution(steps_per_execution=3)
    repeated, other = run(tmp_path, 4, watch_test=True, execution=execution)
    same_state(one, repeated)
    for ours, theirs in zip(record["history"], other["history"], strict=True):
        assert (ours["step"], ours["loss"]) == (theirs["step"], theirs["loss"])


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


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param((".step-00000003.part",), id="once", marks=pytest.mark.slow),
        pytest.param((".step-00000003.part", "step-00000008"), id="twice", marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment_it_ends_bit_for_bit_alike(moments, tmp_path):
    """SIGKILL while a checkpoint is written, and again between two of them.

    A process that was killed is continued by the next one, the last by this process, which also
    does the run that nothing interrupts.
    """
    steps = 12 if len(moments) > 1 else 6

    def here(folder):
        run(folder, steps, checkpoint_every=1, validate_every=1000)

    def start(folder):
        command = [sys.executable, "-c", KILLED, inspect.getfile(run), str(folder), str(steps)]
        return subprocess.Popen(command, env=os.environ)

    here(tmp_path / "whole")
    folder = tmp_path / "killed" / "checkpoints"
    kills = 0
    for wanted in moments:
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


def compiled_with(optimizer):
    sampler = make()
    sampler.compile(optimizer, sampler.loss)
    return sampler


@pytest.mark.usefixtures("eager_fits", "quick_pictures")
def test_optimizers_of_groups_and_averages(tmp_path):
    options = {"steps": 2, "images": 4, "num_networks": 4, "validate_every": 2}
    options |= {"checkpoint_every": 2, "seed": 0, "verbose": False}
    groups = keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.25))
    several = keras.optimizers.MultiOptimizer(groups)
    _, record = train(lambda: compiled_with(several), DATASET, tmp_path / "groups", **options)
    assert record["history"][-1]["learning_rate"] == 0.25
    average = keras.optimizers.SGD(0.25, use_ema=True)
    with pytest.raises(ValueError, match="has no effect in a run: compile without it"):
        train(lambda: compiled_with(average), DATASET, tmp_path / "average", **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, r"^steps is 0: give a whole number, at least 1\.$"),
        ({"validate_every": 0}, r"^validate_every is 0: give a whole number, at least 1\.$"),
        ({"num_networks": 2.5}, r"^num_networks is 2\.5: give a whole number, at least 1\.$"),
        ({"validation": DATASET.test.images[:0]}, r"^There are no images for validation"),
    ],
)
def test_what_cannot_be_validated_is_noticed_before_training(options, message, tmp_path):
    images = options.pop("validation", DATASET.validation.images)
    validation = Split(images, DATASET.validation.labels[: len(images)])
    dataset = dataclasses.replace(DATASET, validation=validation)
    options = {"steps": 2, "images": 4, "num_networks": 4, "validate_every": 2} | options
    with pytest.raises(ValueError, match=message):
        train(make, dataset, tmp_path, checkpoint_every=2, seed=0, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("eager_fits", "quick_pictures")
def test_a_new_run_prepares_its_sampler_and_a_resumed_one_does_not(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        hn.Hypernetwork, "initialize", lambda self, x=None, *, verbose=0: seen.append(x)
    )
    run(tmp_path, 1)
    run(tmp_path, 2)
    (x,) = seen
    label = {image.tobytes(): y for image, y in zip(DATASET.train.x, DATASET.train.y, strict=True)}
    assert sorted(map(bytes, x)) == sorted(label)
    # Images may be sorted by class, unlike those that a sampler starts from.
    assert [label[bytes(image)] for image in x] != DATASET.train.y.tolist()
