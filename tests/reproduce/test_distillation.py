"""One network in place of an ensemble: the numbers, the table, what cannot be distilled."""

import json
import shutil

import keras
import numpy as np
import pytest
from small_experiments import command_line, modification_times, tiny

import hypernet_tf as hn
from hypernet_tf.training.callbacks import TrainingDivergedError
from reproduce import distillation
from reproduce.configs import RunConfig
from reproduce.runs import folder as folders
from reproduce.runs.folder import RunError
from reproduce.runs.match import finished_sampler
from reproduce.studies import experiment

pytestmark = pytest.mark.usefixtures("few_digits", "eager_fits")


@pytest.fixture(scope="module")
def lenet_run(tiny_run):
    sizes = {"num_networks": 2, "networks_per_step": 2, "images_per_network": 4}
    return tiny_run(tiny("deep_ensemble", "cifar", augment=True, **sizes))


def test_the_numbers_are_those_of_the_networks(lenet_run, tmp_path, monkeypatch):
    folder = shutil.copytree(lenet_run, tmp_path / "run")
    students, real = [], hn.distill

    def distill(*arguments, **options):
        students.append((options, real(*arguments, **options)))
        return students[-1][1]

    monkeypatch.setattr(hn, "distill", distill)
    with command_line(
        f"--run_dir={folder}", "--epochs=1", "--temperature=2", "--learning_rate=2e-3"
    ):
        distillation.main()
    metrics = json.loads((folder / "distillation.json").read_text())
    config, run = folders.finished(folder, RunConfig)
    assert metrics["num_networks"] == config.num_networks == 2
    assert (metrics["epochs"], metrics["temperature"], metrics["soft_targets"]) == (1, 2.0, True)
    assert metrics["augment"]
    assert (metrics["learning_rate"], metrics["optimizer"]) == (2e-3, "adam")
    networks = metrics["networks"]
    vote = run["ensemble"]["majority_vote_accuracy"]
    assert networks["mean of the networks"] == {
        "accuracy": run["networks"]["member_accuracy"],
        "negative_log_likelihood": run["networks"]["member_negative_log_likelihood"],
    }
    assert networks["ensemble, majority vote"] == {"accuracy": vote}
    assert networks["ensemble, mean probability"] == {
        "accuracy": run["ensemble"]["mean_probability_accuracy"],
        "negative_log_likelihood": run["ensemble"]["negative_log_likelihood"],
    }
    sampler, dataset = finished_sampler(folder, config), experiment.load(config, None)
    ensemble, test = sampler.sample(2, seed=1), dataset.test
    for name, options in (
        ("average of the weights", {}),
        ("average, filters sorted", {"permutation": True}),
    ):
        gauge = hn.Gauge(sampler.target, epsilon=sampler.gauge_epsilon, **options)
        average = ensemble.polyak_average(gauge=gauge).evaluate(test.x, test.y)
        assert networks[name] == {
            "accuracy": average.member_accuracy[0],
            "negative_log_likelihood": pytest.approx(average.negative_log_likelihood, rel=1e-6),
        }
    names = ("distilled", "distilled, from the average")
    for name, (options, student) in zip(names, students, strict=True):
        assert (options["epochs"], options["temperature"]) == (1, 2.0)
        assert options["optimizer"].get_config()["learning_rate"]["config"][
            "initial_learning_rate"
        ] == pytest.approx(2e-3)
        assert isinstance(options["optimizer"], keras.optimizers.Adam)
        assert options["augment"] is not None  # the run's images changed at random
        log_p = keras.ops.convert_to_numpy(keras.ops.log_softmax(student(test.x)))
        assert networks[name] == {
            "accuracy": pytest.approx(np.mean(log_p.argmax(1) == test.y)),
            "negative_log_likelihood": pytest.approx(-log_p[range(80), test.y].mean(), 1e-4),
            "late_gain": None,  # of a single epoch
        }
    assert [options["student"] is None for options, _ in students] == [True, False]
    text = (folder / "distillation.md").read_text()
    assert text == distillation.text_table(networks) + "\n"
    assert f"| ensemble, majority vote | {100 * vote:.2f} |  |  |" in text


def test_flags_choose_the_training_of_students(lenet_run, tmp_path, monkeypatch):
    folder = shutil.copytree(lenet_run, tmp_path / "run")
    optimizers, students, real = [], [], hn.distill

    def distill(*arguments, **options):
        optimizers.append(options["optimizer"])
        students.append(real(*arguments, **options))
        return students[-1]

    monkeypatch.setattr(hn, "distill", distill)
    words = ["--optimizer=sgd", "--momentum=0.5", "--learning_rate=0.02", "--warmup_steps=1"]
    with command_line(f"--run_dir={folder}", "--epochs=4", "--nofrom_average", *words):
        distillation.main()
    (optimizer,) = optimizers
    assert isinstance(optimizer, keras.optimizers.SGD)
    assert optimizer.momentum == 0.5
    schedule = optimizer.get_config()["learning_rate"]
    rates = [float(keras.optimizers.schedules.deserialize(schedule)(step)) for step in (0, 1, 4)]
    assert rates == pytest.approx([0, 0.02, 0.0002])  # 4 steps of at most 128 images
    metrics = json.loads((folder / "distillation.json").read_text())
    assert metrics["momentum"] == 0.5
    assert metrics["warmup_steps"] == 1
    assert "distilled, from the average" not in metrics["networks"]
    history = metrics["histories"]["distilled"]
    assert [entry["step"] for entry in history] == [1, 2, 3, 4]
    accuracies = [entry["validation"]["member_accuracy"] for entry in history]
    assert metrics["networks"]["distilled"]["late_gain"] == accuracies[3] - accuracies[2]
    validation = experiment.load(folders.finished(folder, RunConfig)[0], None).validation
    assert accuracies[3] == np.mean(students[0](validation.x).numpy().argmax(1) == validation.y)
    with np.load(folder / "figures" / "distillation.npz") as arrays:
        steps, values = arrays["Accuracy on the validation images, distilled"]
        assert (steps.tolist(), values.tolist()) == ([1, 2, 3, 4], [100 * a for a in accuracies])
    assert (folder / "figures" / "distillation.png").exists()


def test_a_student_that_diverges_or_is_stopped_leaves_the_one_before(
    lenet_run, tmp_path, monkeypatch
):
    folder = shutil.copytree(lenet_run, tmp_path / "run")
    with (
        command_line(
            f"--run_dir={folder}", "--epochs=2", "--optimizer=sgd", "--learning_rate=1e30"
        ),
        pytest.raises(
            TrainingDivergedError, match=r"the loss of 'distilled' .* in epoch [12]: use"
        ),
    ):
        distillation.main()
    assert not (folder / "distillation.json").exists()
    real = hn.distill

    def distill(*arguments, **options):
        if options["student"] is not None:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(hn, "distill", distill)
    with (
        command_line(f"--run_dir={folder}", "--epochs=1"),
        pytest.raises(KeyboardInterrupt, match=r"one that was finished is in .*distillation\.json"),
    ):
        distillation.main()
    metrics = json.loads((folder / "distillation.json").read_text())
    assert list(metrics["histories"]) == ["distilled"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--run_dir={0}/nothing"], r"there is no finished run in .*nothing: train it"),
        ([], "--run_dir names the finished run .*: give it"),
        (["--run_dir={0}/table"], "holds a table: name one of the runs in it"),
        (["--run_dir={0}/sgd"], "Cannot distil 1 network: choose a run of at least 2"),
        (["--run_dir={0}/sgd", "--num_networks=2"], "Cannot distil 2 networks: .* holds 1"),
        (["--run_dir={0}/sgd", "--steps=3"], r"distillation has no --steps\. "),
        (["--run_dir={0}/sgd", "--devices=2"], r"distillation has no --devices\. "),
        (["--run_dir={0}/sgd", "--analyses=paths"], r"distillation has no --analyses\. "),
        (["--run_dir={0}/sgd", "--ood=noise"], r"distillation has no --ood\. "),
        (
            ["--run_dir={0}/sgd", "--nosoft_targets", "--temperature=2"],
            "--temperature is not used by --nosoft_targets: remove it",
        ),
        (
            ["--run_dir={0}/two", "--momentum=0.5"],
            "--momentum needs --optimizer=sgd: add it",
        ),
        (
            ["--run_dir={0}/two", "--epochs=2", "--warmup_steps=2"],
            "--warmup_steps=2 is not below the 2 steps of the training: choose fewer",
        ),
    ],
)
def test_what_cannot_be_distilled_is_one_line_and_writes_nothing(
    tiny_run, lenet_run, tmp_path, words, message
):
    shutil.copytree(tiny_run(tiny("sgd")), tmp_path / "sgd")
    shutil.copytree(lenet_run, tmp_path / "two")
    folders.write_json(tmp_path / "table" / "metrics.json", {"study": "table"})
    before = modification_times(tmp_path)
    with (
        command_line(*(word.format(tmp_path) for word in words)),
        pytest.raises(RunError, match=message) as error,
    ):
        distillation.main()
    assert "\n" not in str(error.value)
    assert modification_times(tmp_path) == before
    assert not (tmp_path / "nothing").exists()
