"""One network in place of an ensemble: the numbers, the table, what cannot be distilled."""

import json
import shutil

import keras
import numpy as np
import pytest
from small_experiments import command_line, modification_times, tiny

import hypernet_tf as hn
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
    assert metrics["learning_rate"] == 2e-3
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
        assert options["augment"] is not None  # the run's images changed at random
        log_p = keras.ops.convert_to_numpy(keras.ops.log_softmax(student(test.x)))
        assert networks[name] == {
            "accuracy": pytest.approx(np.mean(log_p.argmax(1) == test.y)),
            "negative_log_likelihood": pytest.approx(-log_p[range(80), test.y].mean(), 1e-4),
        }
    assert [options["student"] is None for options, _ in students] == [True, False]
    text = (folder / "distillation.md").read_text()
    assert text == distillation.text_table(networks) + "\n"
    assert f"| ensemble, majority vote | {100 * vote:.2f} |  |" in text


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
    ],
)
def test_what_cannot_be_distilled_is_one_line_and_writes_nothing(
    tiny_run, tmp_path, words, message
):
    shutil.copytree(tiny_run(tiny("sgd")), tmp_path / "sgd")
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
