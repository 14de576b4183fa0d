"""One network that stands for an ensemble: the mean of its weights, or a student of its answers.

Takes a finished run, samples an ensemble and prints, on the test images: the mean of the networks,
the ensemble, the average of their weights after gauge fixing (Polyak-Ruppert; also with the filters
of each network in one order), and networks distilled from the ensemble's answers on the training
images: from new weights, and from the average. Writes distillation.json and distillation.md into
the run folder. Without --num_networks it takes as many as the run's ensemble has.

  python -m reproduce.distillation --run_dir=runs/mnist
  python -m reproduce.distillation --run_dir=runs/cifar --num_networks=100 --epochs=20 --teacher=votes
"""

from __future__ import annotations

import math
import pathlib
import sys
import time
from typing import Any

import keras
import tensorflow as tf
from absl import flags

import hypernet_tf as hn
from reproduce.cli import device_flags as _device_flags
from reproduce.cli import experiment_flags as _experiment_flags
from reproduce.cli import flags as _flags
from reproduce.runs import experiment as _experiment
from reproduce.runs import folder as _run
from reproduce.runs.match import finished_sampler

# Of the shared flags only these mean something here.
SHARED_FLAGS = ("data_dir", "run_dir", "num_networks", "seed")
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)
flags.DEFINE_integer("epochs", 10, "How often the student sees each training image.", lower_bound=1)
flags.DEFINE_enum(
    "teacher", "mean", ["mean", "votes"], "What it learns: mean probabilities, or majority votes."
)
flags.DEFINE_float("temperature", 1.0, "At which the student learns mean probabilities; above 0.")
flags.register_validator(
    "temperature", lambda value: 0 < value < math.inf, "a finite number above 0"
)

_HEADER = ("", "accuracy (%)", "NLL (nats)")


def run(
    folder: pathlib.Path,
    *,
    num_networks: int | None = None,
    epochs: int = 10,
    teacher: str = "mean",
    temperature: float = 1.0,
    seed: int = 0,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Distil the networks of a finished run.

    Args:
        folder: the run folder.
        num_networks: how many are averaged and teach; None for those of the run's ensemble.
        epochs: of the students.
        teacher: "mean" or "votes".
        temperature: see `hypernet_tf.distill`.
        seed: of the students; the ensemble is that of the run.
        data_dir: see `hypernet_tf.data.load`.

    Returns:
        What distillation.json holds.

    Raises:
        RunError: there is no finished run, or it has fewer networks.
    """
    config, _ = _run.finished(folder, _experiment.Config)
    dataset = _experiment.load(config, data_dir)
    sampler = finished_sampler(folder, config)
    sampler.batch_norm_data = _experiment.batch_norm_images(dataset)
    count = num_networks or config.num_networks
    if count < 2 or (sampler.num_available is not None and count > sampler.num_available):
        raise _run.UsageError(
            f"{count} network(s) of {sampler.num_available or 'any number'} are not to be distilled: "
            "take at least 2, and not more than there are"
        )
    x, test = dataset.train.x, dataset.test
    ensemble = sampler.sample(count, seed=1)
    found: dict[str, dict[str, float]] = {}
    result = ensemble.evaluate(test.x, test.y, verbose=1)
    assert isinstance(result, hn.Evaluation)
    found["mean of the networks"] = {
        "accuracy": float(result.member_accuracy.mean()),
        "negative_log_likelihood": float(result.member_negative_log_likelihood.mean()),
    }
    found["ensemble, majority vote"] = {"accuracy": result.majority_vote_accuracy}
    found["ensemble, mean probability"] = {
        "accuracy": result.mean_probability_accuracy,
        "negative_log_likelihood": result.negative_log_likelihood,
    }

    def judge(name: str, network: hn.Ensemble) -> None:
        one = network.evaluate(test.x, test.y)
        assert isinstance(one, hn.Evaluation)
        found[name] = {
            "accuracy": float(one.member_accuracy[0]),
            "negative_log_likelihood": float(one.member_negative_log_likelihood[0]),
        }

    epsilon = sampler.gauge_epsilon
    average = ensemble.polyak_average(x, gauge=hn.Gauge(sampler.target, epsilon=epsilon))
    judge("average of the weights", average)
    ordered = hn.Gauge(sampler.target, permutation=True, epsilon=epsilon)
    judge("average, filters in one order", ensemble.polyak_average(x, gauge=ordered))
    start = time.monotonic()
    for name, student in (("distilled", None), ("distilled, from the average", average)):
        print(f"training: {name}", flush=True)
        network = hn.distill(
            ensemble,
            x,
            soft_targets=teacher == "mean",
            student=student,
            temperature=temperature,
            epochs=epochs,
            seed=seed,
            verbose=1 if sys.stderr.isatty() else 0,
        )
        judge(name, hn.Ensemble.from_keras(sampler.target, network))
    metrics = {
        "num_networks": count,
        "epochs": epochs,
        "teacher": teacher,
        "temperature": temperature,
        "seed": seed,
        "steps": config.steps,
        "seconds": round(time.monotonic() - start, 1),
        "found": found,
    }
    _run.write_json(folder / "distillation.json", metrics)
    text = text_table(found)
    _run.write(folder / "distillation.md", lambda aside: aside.write_text(text + "\n"))
    return metrics


def text_table(found: dict[str, dict[str, float]]) -> str:
    """The table in Markdown, which a terminal shows as well."""
    rows = [
        (
            name,
            f"{100 * one['accuracy']:.2f}",
            f"{one['negative_log_likelihood']:.3f}" if "negative_log_likelihood" in one else "",
        )
        for name, one in found.items()
    ]
    lines = [_HEADER, ("---", "---:", "---:"), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """What `python -m reproduce.distillation` does."""
    values = _flags.FLAGS
    _flags.accept_only(SHARED_FLAGS, "distillation", others=(_experiment_flags, _device_flags))
    if not values.run_dir:
        raise _run.UsageError("--run_dir names the finished run whose networks are distilled")
    if values.teacher == "votes" and values.temperature != 1:
        raise _run.UsageError("--temperature has no part in --teacher=votes: drop it")
    keras.utils.set_random_seed(values.seed)
    tf.config.experimental.enable_op_determinism()
    folder = pathlib.Path(values.run_dir)
    _run.finished(folder, _experiment.Config)  # before a lock makes the folder
    with _run.locked(folder):
        metrics = run(
            folder,
            num_networks=values.num_networks,
            epochs=values.epochs,
            teacher=values.teacher,
            temperature=values.temperature,
            seed=values.seed,
            data_dir=values.data_dir,
        )
    print(text_table(metrics["found"]))


if __name__ == "__main__":
    _flags.run(main)
