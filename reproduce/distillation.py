r"""One network that stands for an ensemble: the mean of its weights, or a student of its answers.

Takes a finished run, samples an ensemble and prints, on the test images: the mean of the networks,
the ensemble, the average of their weights after gauge fixing (Polyak-Ruppert; also with the filters
of each network in one order), and networks distilled from the ensemble's answers on the training
images: from new weights, and from the average. If the run changed its images at random, students
learn from changed images, too. Writes distillation.json, distillation.md and
figures/distillation.png, how students learned, into the run folder.
Without --num_networks it takes as many as the run's ensemble has. The average of independent
networks is no better than chance: for a deep ensemble --nofrom_average leaves out its student.

  python -m reproduce.distillation --run_dir=runs/mnist
  python -m reproduce.distillation --run_dir=runs/cifar --epochs=20 --nosoft_targets
  python -m reproduce.distillation --run_dir=runs/cifar --epochs=200 --optimizer=sgd \
      --momentum=0.9 --learning_rate=0.02 --warmup_steps=2000
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from typing import Any

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.metrics import MEASURES
from hypernet_tf.training.callbacks import TrainingDivergedError
from hypernet_tf.training.progress import progress_bar
from reproduce.cli import analysis_flags, device_flags, run_flags, shared_flags
from reproduce.configs.methods import build_optimizer
from reproduce.reports.summary import late_gain
from reproduce.reports.tables import markdown_table
from reproduce.runs import folder as folders
from reproduce.runs.folder import UsageError
from reproduce.runs.match import finished_run, finished_sampler
from reproduce.studies import experiment

# Of the flags of runs only these mean something here.
STUDENT_FLAGS = ("learning_rate", "warmup_steps", "optimizer", "momentum", "seed")
SHARED_FLAGS = ("data_dir", "run_dir", "num_networks", "extension", *STUDENT_FLAGS)
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
flags.DEFINE_bool(
    "from_average",
    True,
    "Whether a second student starts from the average of the weights.",
)
flags.register_validator(
    "temperature", lambda value: 0 < value < math.inf, "a finite number above 0"
)

BATCH = 128
_AT_ONCE = 500  # validation images
# How students are trained, unless flags say otherwise.
TRAINING: dict[str, Any] = {
    **{"optimizer": "adam", "momentum": 0.0, "learning_rate": 1e-3, "warmup_steps": 0},
    **{"learning_rate_schedule": "cosine", "learning_rate_left": 0.01, "restart_every": 0},
    "seed": 0,
}
# Key of a network's number -> its measure, and the head of its column.
_COLUMNS = {
    "accuracy": (MEASURES["member_accuracy"], "accuracy (%)"),
    "negative_log_likelihood": (MEASURES["negative_log_likelihood"], "NLL (nats)"),
    "late_gain": (MEASURES["late_gain"], "gained in the last quarter (points)"),
}


class _Recorder(keras.callbacks.Callback):
    """Shows the progress of a student, and records each epoch.

    An entry of its `history` has the keys that `hypernet_tf.training.callbacks.Recorder` gives
    them.

    Args:
        validation: Validation images.
        bar: Progress bar.
    """

    def __init__(self, validation: hn.data.Split, bar: tqdm):
        super().__init__()
        self.validation = validation
        self.bar = bar
        self.history: list[dict[str, Any]] = []

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise TrainingDivergedError(
                f"the loss of '{self.bar.desc}' is not finite in epoch {epoch + 1}: use a smaller "
                "--learning_rate"
            )
        x = self.validation.x
        parts = [
            self.model.predict_on_batch(x[i : i + _AT_ONCE]) for i in range(0, len(x), _AT_ONCE)
        ]
        accuracy = float(np.mean(np.concatenate(parts).argmax(-1) == self.validation.y))
        step = (epoch + 1) * self.params["steps"]
        entry = {"step": step, "loss": logs["loss"], "validation": {"member_accuracy": accuracy}}
        self.history.append(entry)
        self.bar.set_postfix(loss=f"{logs['loss']:.4g}", accuracy=f"{accuracy:.4g}", refresh=False)
        self.bar.update()


def run(
    folder: pathlib.Path,
    settings: dict[str, Any],
    *,
    num_networks: int | None = None,
    epochs: int = 30,
    soft_targets: bool = True,
    temperature: float = 1.0,
    from_average: bool = True,
    data_dir: str | None = None,
) -> dict[str, Any]:
    """Distil the networks of a finished run.

    Args:
        folder: Run folder.
        settings: Settings of the students' training that are not those of `TRAINING`.
        num_networks: Number of networks that are averaged and teach; None for as many as the run's
            ensemble has.
        epochs: Number of epochs of the students.
        soft_targets: Whether students learn mean probabilities rather than votes.
        temperature: Temperature, see `hypernet_tf.distill`.
        from_average: Whether a second student starts from the average of the weights.
        data_dir: Folder of data sets, see `hypernet_tf.data.load`.

    Returns:
        The contents of distillation.json.

    Raises:
        RunError: There is no finished run, or it has fewer networks.
    """
    config = finished_run(folder)
    dataset = experiment.load(config, data_dir)
    settings = TRAINING | settings
    steps = epochs * math.ceil(len(dataset.train.x) / BATCH)
    training = dataclasses.replace(config, **settings, steps=steps)
    run_flags.check_schedule(training)
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
    networks: dict[str, dict[str, float | None]] = {
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
    students = {"distilled": None, "distilled, from the average": average}
    if not from_average:
        del students["distilled, from the average"]
    histories: dict[str, list[dict[str, Any]]] = {}
    metrics = {
        "num_networks": count,
        "epochs": epochs,
        "soft_targets": soft_targets,
        "temperature": temperature,
        **{name: settings[name] for name in STUDENT_FLAGS},
        "augment": config.augment,
        "steps": config.steps,
        "networks": networks,
        "histories": histories,
    }
    for name, student in students.items():
        with progress_bar(total=epochs, desc=name, unit="epoch") as bar:
            recorder = _Recorder(dataset.validation, bar)
            network = hn.distill(
                ensemble,
                x,
                soft_targets=soft_targets,
                student=student,
                temperature=temperature,
                epochs=epochs,
                batch_size=BATCH,
                optimizer=build_optimizer(training, training.learning_rate),
                augment=experiment.augmentation(config),
                callbacks=[recorder],
                seed=training.seed,
            )
        judge(name, hn.Ensemble.from_keras(sampler.target, network))
        networks[name]["late_gain"] = late_gain(recorder.history)
        histories[name] = recorder.history
        metrics["seconds"] = round(time.monotonic() - start, 1)
        _write(folder, metrics)
    return metrics


def _write(folder: pathlib.Path, metrics: dict[str, Any]) -> None:
    """Write the numbers, the table and the figure of the students that are finished."""
    panels = curves(metrics["histories"])
    arrays = {
        f"{panel['title']}, {name}": np.array(curve)
        for panel in panels
        for name, curve in panel["curves"].items()
    }
    folders.write_figure(folder, "distillation", plots.training_curves(panels), arrays)
    folders.write_json(folder / "distillation.json", metrics)
    folders.write_text(folder / "distillation.md", text_table(metrics["networks"]) + "\n")


def curves(histories: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The trainings of students as panels of `plots.training_curves`.

    Args:
        histories: Name of a student -> entries of its epochs.
    """
    panels = [
        (
            "Accuracy on the validation images",
            "%",
            lambda e: 100 * e["validation"]["member_accuracy"],
        ),
        ("Loss on the training images", "nats", lambda e: e["loss"]),
    ]
    return [
        {
            "title": title,
            "unit": unit,
            "curves": {
                name: ([entry["step"] for entry in history], [value(entry) for entry in history])
                for name, history in histories.items()
            },
        }
        for title, unit, value in panels
    ]


def text_table(networks: dict[str, dict[str, float | None]]) -> str:
    """The table in Markdown, which a terminal shows as well.

    Args:
        networks: Name of a network or ensemble -> its accuracy and, where it has one, negative
            log-likelihood and "late_gain", which is that of students on validation images.
    """
    rows = [
        [name, *(measure.text(one.get(key)) for key, (measure, _) in _COLUMNS.items())]
        for name, one in networks.items()
    ]
    return markdown_table(["", *(head for _, head in _COLUMNS.values())], rows)


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
        try:
            metrics = run(
                folder,
                {name: values[name].value for name in STUDENT_FLAGS if values[name].present},
                num_networks=values.num_networks,
                epochs=values.epochs,
                soft_targets=values.soft_targets,
                temperature=values.temperature,
                from_average=values.from_average,
                data_dir=values.data_dir,
            )
        except KeyboardInterrupt as stop:
            raise KeyboardInterrupt(
                "stopped; the student in training is lost, one that was finished is in "
                f"{folder / 'distillation.json'}"
            ) from stop
    print(text_table(metrics["networks"]))


if __name__ == "__main__":
    command.FLAGS["run_dir"].help = "The folder of the finished run whose networks are distilled."
    command.FLAGS["num_networks"].help = "How many networks teach. Default: the run's ensemble."
    of_students = {
        "seed": "Seed of the students; the networks are those of the run.",
        "learning_rate": "Learning rate of the students in the first step, or after "
        "--warmup_steps; it falls to a hundredth along a cosine. Default: "
        f"{TRAINING['learning_rate']:g}.",
        "optimizer": "Optimizer of the students; state --learning_rate too, whose size depends on "
        "it. Default: adam.",
        "momentum": "Momentum of --optimizer=sgd. Default: 0.",
        "warmup_steps": "Number of first steps in which the learning rate rises from 0. Default: "
        "0.",
    }
    for flag, text in of_students.items():
        command.FLAGS[flag].help = text
    command.run(main)
