"""One network that stands for an ensemble: the mean of its weights, or a student of its answers.

Takes a finished run, samples an ensemble and prints, on the test images: the mean of the networks,
the ensemble, the average of their weights after gauge fixing (Polyak-Ruppert; also with the filters
of each network in one order), and networks distilled from the ensemble's answers on the training
images: from new weights, and from the average. If the run changed its images at random, students
learn from changed images, too. Writes distillation.json and distillation.md into the run folder.
Without --num_networks it takes as many as the run's ensemble has.

  python -m reproduce.distillation --run_dir=runs/mnist
  python -m reproduce.distillation --run_dir=runs/cifar --epochs=20 --nosoft_targets
"""

from __future__ import annotations

import math
import pathlib
import sys
import time
from typing import Any

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

import keras
import tensorflow as tf
from absl import flags

import hypernet_tf as hn
from hypernet_tf.metrics import MEASURES
from reproduce.cli import analysis_flags, device_flags, run_flags, shared_flags
from reproduce.reports.tables import markdown_table
from reproduce.runs import folder as folders
from reproduce.runs.folder import UsageError
from reproduce.runs.match import finished_run, finished_sampler
from reproduce.studies import experiment

# Of the flags of runs only these mean something here.
SHARED_FLAGS = ("data_dir", "run_dir", "num_networks", "learning_rate", "seed", "extension")
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)
flags.DEFINE_integer("epochs", 30, "How often the student sees each training image.", lower_bound=1)
flags.DEFINE_bool(
    "soft_targets",
    True,
    "Whether the student learns the ensemble's mean probabilities; --nosoft_targets: its majority "
    "votes.",
)
flags.DEFINE_float(
    "temperature", 1.0, "Temperature at which the student learns mean probabilities; above 0."
)
flags.register_validator(
    "temperature", lambda value: 0 < value < math.inf, "a finite number above 0"
)

BATCH = 128
LEARNING_RATE = 1e-3
_SHOWN = ("accuracy", "negative_log_likelihood")


def run(
    folder: pathlib.Path,
    *,
    num_networks: int | None = None,
    epochs: int = 30,
    soft_targets: bool = True,
    temperature: float = 1.0,
    learning_rate: float = LEARNING_RATE,
    seed: int = 0,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Distil the networks of a finished run.

    Args:
        folder: Run folder.
        num_networks: Number of networks that are averaged and teach; None for as many as the run's
            ensemble has.
        epochs: Number of epochs of the students.
        soft_targets: Whether students learn mean probabilities rather than votes.
        temperature: Temperature, see `hypernet_tf.distill`.
        learning_rate: Learning rate of Adam in the first step; it falls to a hundredth as a cosine.
        seed: Seed of the students; the ensemble is that of the run.
        data_dir: Folder of data sets, see `hypernet_tf.data.load`.

    Returns:
        The contents of distillation.json.

    Raises:
        RunError: There is no finished run, or it has fewer networks.
    """
    config = finished_run(folder)
    dataset = experiment.load(config, data_dir)
    keras.config.set_dtype_policy(config.precision)
    sampler = finished_sampler(folder, config)
    count = num_networks or config.num_networks
    available = sampler.num_available
    if count < 2:
        raise UsageError("Cannot distil 1 network: choose a run of at least 2.")
    if available is not None and count > available:
        raise UsageError(f"Cannot distil {count} networks: this sampler holds {available}.")
    x, test = dataset.train.x, dataset.test
    ensemble = sampler.sample(count, seed=1)
    result = ensemble.evaluate(test.x, test.y, verbose=1)
    networks: dict[str, dict[str, float]] = {
        "mean of the networks": {
            "accuracy": float(result.member_accuracy.mean()),
            "negative_log_likelihood": float(result.member_negative_log_likelihood.mean()),
        },
        "ensemble, majority vote": {"accuracy": result.majority_vote_accuracy},
        "ensemble, mean probability": {
            "accuracy": result.mean_probability_accuracy,
            "negative_log_likelihood": result.negative_log_likelihood,
        },
    }

    def judge(name: str, network: hn.Ensemble) -> None:
        one = network.evaluate(test.x, test.y)
        networks[name] = {
            "accuracy": float(one.member_accuracy[0]),
            "negative_log_likelihood": float(one.member_negative_log_likelihood[0]),
        }

    epsilon = sampler.gauge_epsilon
    images = sampler.batch_norm_data  # as the networks' statistics have them
    average = ensemble.polyak_average(images, gauge=hn.Gauge(sampler.target, epsilon=epsilon))
    judge("average of the weights", average)
    sorting = hn.Gauge(sampler.target, permutation=True, epsilon=epsilon)
    judge("average, filters sorted", ensemble.polyak_average(images, gauge=sorting))
    start = time.monotonic()
    steps = epochs * math.ceil(len(x) / BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, steps, alpha=0.01)
    for name, student in (("distilled", None), ("distilled, from the average", average)):
        print(f"training: {name}", flush=True)
        network = hn.distill(
            ensemble,
            x,
            soft_targets=soft_targets,
            student=student,
            temperature=temperature,
            epochs=epochs,
            batch_size=BATCH,
            optimizer=keras.optimizers.Adam(schedule),
            augment=experiment.augmentation(config),
            seed=seed,
            verbose=1 if sys.stderr.isatty() else 0,
        )
        judge(name, hn.Ensemble.from_keras(sampler.target, network))
    metrics = {
        "num_networks": count,
        "epochs": epochs,
        "soft_targets": soft_targets,
        "temperature": temperature,
        "learning_rate": learning_rate,
        "augment": config.augment,
        "seed": seed,
        "steps": config.steps,
        "seconds": round(time.monotonic() - start, 1),
        "networks": networks,
    }
    folders.write_json(folder / "distillation.json", metrics)
    folders.write_text(folder / "distillation.md", text_table(networks) + "\n")
    return metrics


def text_table(networks: dict[str, dict[str, float]]) -> str:
    """The table in Markdown, which a terminal shows as well.

    Args:
        networks: Name of a network or ensemble -> accuracy, and negative log-likelihood if it has
            one.
    """
    measures = [MEASURES["member_accuracy"], MEASURES["negative_log_likelihood"]]
    header = ["", "accuracy (%)", "NLL (nats)"]
    rows = [
        [name, *(m.text(one.get(key)) for m, key in zip(measures, _SHOWN, strict=True))]
        for name, one in networks.items()
    ]
    return markdown_table(header, rows)


def main() -> None:
    """Run `python -m reproduce.distillation`."""
    values = command.FLAGS
    others = (run_flags, device_flags, analysis_flags)
    shared_flags.accept_only(SHARED_FLAGS, "distillation", others=others)
    if not values.run_dir:
        raise UsageError("--run_dir names the finished run whose networks are distilled: give it")
    if not values.soft_targets and values.temperature != 1:
        raise UsageError("--temperature is not used by --nosoft_targets: remove it")
    keras.utils.set_random_seed(values.seed)
    tf.config.experimental.enable_op_determinism()
    folder = pathlib.Path(values.run_dir)
    finished_run(folder)  # before a lock makes the folder
    with folders.locked(folder):
        metrics = run(
            folder,
            num_networks=values.num_networks,
            epochs=values.epochs,
            soft_targets=values.soft_targets,
            temperature=values.temperature,
            learning_rate=values.learning_rate or LEARNING_RATE,
            seed=values.seed,
            data_dir=values.data_dir,
        )
    print(text_table(metrics["networks"]))


if __name__ == "__main__":
    command.FLAGS["run_dir"].help = "The folder of the finished run whose networks are distilled."
    command.FLAGS["seed"].help = "Seed of the students; the networks are those of the run."
    command.FLAGS[
        "learning_rate"
    ].help = f"Learning rate of the students. Default: {LEARNING_RATE:g}."
    command.FLAGS["num_networks"].help = "How many networks teach. Default: the run's ensemble."
    command.run(main)
