"""The MNIST experiment: a hypernetwork that generates a classifier's 20,018 weights.

Trains the hypernetwork of Deutsch, Nijkamp, Yang (2019), samples an ensemble, evaluates it on the
test images and writes a run folder with figures, metrics.json and report.html.

  python -m reproduce.mnist --lam=1e3                          the paper's run, 13,000 steps
  python -m reproduce.mnist --preset=quick                     a few minutes on two cores
  python -m reproduce.mnist --dataset=fashion_mnist --steps=4000

The same command again goes on where the run stopped; a higher --steps continues a finished one.
TensorBoard shows it: tensorboard --logdir runs
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from absl import flags

import hypernet_tf as hn
from hypernet_tf.training.callbacks import ensemble_entropy
from hypernet_tf.training.run import train
from reproduce import _flags, _mnist_figures, _report, _run, published

flags.adopt_module_key_flags(_flags)


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Defaults are the published values; `networks` is the evaluated ensemble's size."""

    dataset: str = "mnist"
    lam: float = 1e3
    steps: int = 13_000
    seed: int = 0
    networks: int = 200
    preset: str = "paper"
    networks_per_step: int = 32
    images_per_network: int = 32
    learning_rate: float = 3e-4
    learning_rate_decay: float = 0.99998
    validate_every: int = 1_000
    checkpoint_every: int = 250


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},
    "quick": {
        "steps": 600,
        "networks": 50,
        "learning_rate": 1e-3,
        "validate_every": 200,
        "checkpoint_every": 100,
    },
}


def config_from_flags() -> Config:
    """The configuration that the flags ask for; says on stdout which data set `auto` became."""
    values = _flags.FLAGS
    dataset, notice = hn.data.resolve(values.dataset, values.data_dir)
    if notice:
        print(notice)
    given = {"steps": values.steps, "networks": values.networks}
    return dataclasses.replace(
        Config(dataset=dataset, lam=values.lam, seed=values.seed, preset=values.preset),
        **PRESETS[values.preset] | {k: v for k, v in given.items() if v is not None},
    )


def build(config: Config) -> hn.Hypernetwork:
    """The published hypernetwork (633,640 trainable parameters) for the MNIST target, compiled."""
    hyper = hn.Hypernetwork(
        hn.Target(hn.zoo.mnist(), outputs="logits"),
        latent_dim=300,
        code_dim=15,
        extractor_hidden=(300, 300),
        generator_hidden=[(40, 40), (100, 100), (100, 100), (60, 60)],
        networks=config.networks_per_step,
        lam=config.lam,
        seed=config.seed,
    )
    hyper.compile(
        optimizer=keras.optimizers.Adam(
            keras.optimizers.schedules.ExponentialDecay(
                config.learning_rate, 1, config.learning_rate_decay
            ),
            epsilon=1e-8,
        ),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return hyper


def run(config: Config, folder: pathlib.Path, data_dir: str | None = None) -> dict:
    """Train, evaluate and write the run folder.

    Returns:
        What metrics.json holds.

    Raises:
        DataError, RunError, CheckpointError, TrainingDivergedError: each with its one line.
    """
    fields = dataclasses.asdict(config)
    if _run.check(folder, fields) == config.steps:
        print(f"complete: {folder / 'report.html'}")
        return json.loads((folder / "metrics.json").read_text())
    dataset = hn.data.load(config.dataset, data_dir)
    with _run.occupy(folder, fields):
        # Initial weights come from Keras's global seed, and reruns are the same to the last bit.
        keras.utils.set_random_seed(config.seed)
        tf.config.experimental.enable_op_determinism()
        hyper, record = train(
            lambda: build(config),
            dataset,
            folder,
            steps=config.steps,
            images=config.images_per_network,
            networks=config.networks,
            validate_every=config.validate_every,
            checkpoint_every=config.checkpoint_every,
            seed=config.seed,
        )
        start = time.monotonic()
        ensemble = hyper.sample(config.networks, seed=1)
        result = ensemble.evaluate(dataset.test.x, dataset.test.y, verbose=1)
        assert isinstance(result, hn.Evaluation)
        metrics = summarise(config, dataset, hyper, ensemble, result)
        metrics["seconds"] = {
            "train": round(record["seconds"], 1),
            "evaluate": round(time.monotonic() - start, 1),
        }
        figures = _mnist_figures.draw(ensemble, result, record["history"], len(dataset.test))
        for name, figure in figures.items():
            _run.write(folder / "figures" / f"{name}.png", figure.savefig)
        page = report(metrics, folder)
        _run.write(folder / "report.html", lambda aside: aside.write_text(page))
        _run.write_json(folder / "metrics.json", metrics)  # last: it says that the run is complete
    return metrics


def summarise(
    config: Config,
    dataset: hn.data.Dataset,
    hyper: hn.Hypernetwork,
    ensemble: hn.Ensemble,
    result: hn.Evaluation,
) -> dict:
    """What metrics.json holds, but for the seconds."""
    accuracy = result.member_accuracy
    return {
        "experiment": "mnist",
        "method": "hypernetwork",
        "dataset": dataset.summary(),
        "config": dataclasses.asdict(config),
        "steps": int(hyper.step.numpy()),
        "seconds": {},
        "target_weights": hyper.target.weight_count,
        "parameters": sum(int(np.prod(v.shape)) for v in hyper.trainable_variables),
        "networks": {
            "count": len(ensemble),
            "accuracy_mean": float(accuracy.mean()),
            "accuracy_std": float(accuracy.std(ddof=1)),
            "accuracy_min": float(accuracy.min()),
            "accuracy_max": float(accuracy.max()),
            "negative_log_likelihood_mean": float(result.member_negative_log_likelihood.mean()),
        },
        "ensemble": {
            "majority_vote_accuracy": result.majority_vote_accuracy,
            "mean_probability_accuracy": result.mean_probability_accuracy,
            "most_confident_accuracy": result.most_confident_accuracy,
            "negative_log_likelihood": result.negative_log_likelihood,
            "expected_calibration_error": result.expected_calibration_error,
            "brier_score": result.brier_score,
        },
        "diversity": {
            "entropy": ensemble_entropy(ensemble, hyper),
            "disagreement": result.disagreement,
        },
    }


def report(metrics: dict, folder: pathlib.Path) -> str:
    """report.html of a run."""
    networks, ensemble = metrics["networks"], metrics["ensemble"]
    measured = {
        "weights of the target": metrics["target_weights"],
        "trainable parameters": metrics["parameters"],
        "mean accuracy of the networks (%)": 100 * networks["accuracy_mean"],
        "standard deviation of their accuracies (points)": 100 * networks["accuracy_std"],
        "lowest accuracy (%)": 100 * networks["accuracy_min"],
        "highest accuracy (%)": 100 * networks["accuracy_max"],
        "accuracy of the majority vote (%)": 100 * ensemble["majority_vote_accuracy"],
        "accuracy of the mean probability (%)": 100 * ensemble["mean_probability_accuracy"],
        "accuracy of the most confident network (%)": 100 * ensemble["most_confident_accuracy"],
        "mean negative log-likelihood of the networks (nats)": networks[
            "negative_log_likelihood_mean"
        ],
        "negative log-likelihood of the ensemble (nats)": ensemble["negative_log_likelihood"],
        "expected calibration error, 15 bins": ensemble["expected_calibration_error"],
        "Brier score": ensemble["brier_score"],
        "entropy of the networks' weights (nats)": metrics["diversity"]["entropy"],
        "disagreement of two networks (share of images)": metrics["diversity"]["disagreement"],
    }

    def number(value: float | None) -> str:
        if value is None:
            return "not available"
        return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"

    rows = [
        [name, number(value), number(published.MNIST[name]) if name in published.MNIST else ""]
        for name, value in measured.items()
    ]
    data, seconds = metrics["dataset"], metrics["seconds"]
    return _report.page(
        f"Hypernetwork on {data['name']}, lam {metrics['config']['lam']:g}",
        [
            f"{networks['count']} networks sampled from a hypernetwork after {metrics['steps']:,} "
            f"training steps, evaluated on {data['test']:,} test images of {data['name']} "
            f"({data['source']}; trained on {data['train']:,}, "
            f"validated on {data['validation']:,}).",
            f"Training took {seconds['train']:,} s, evaluation {seconds['evaluate']:,} s.",
            "Published numbers are those of MNIST; they are comparable only where the data set is "
            "mnist and the preset is paper.",
        ],
        [_report.table(["", "measured", "published"], rows)],
        {
            "Accuracies of the networks on the test images, and of their ensemble": folder
            / "figures"
            / "accuracy_histogram.png",
            "Training": folder / "figures" / "training_curves.png",
            "The same filter in 25 networks": folder / "figures" / "filters.png",
        },
        json.dumps(metrics["config"], indent=2),
    )


def main() -> None:
    """What `python -m reproduce.mnist` does."""
    config = config_from_flags()
    values = _flags.FLAGS
    folder = (
        pathlib.Path(values.run_dir)
        if values.run_dir
        else _run.default_folder("mnist", config, defaults(config.preset))
    )
    metrics = run(config, folder, values.data_dir)
    networks, ensemble = metrics["networks"], metrics["ensemble"]
    print(
        f"{networks['count']} networks: mean {networks['accuracy_mean']:.2%} "
        f"± {networks['accuracy_std']:.2%}; "
        f"majority vote {ensemble['majority_vote_accuracy']:.2%}, "
        f"mean probability {ensemble['mean_probability_accuracy']:.2%}, most confident "
        f"{ensemble['most_confident_accuracy']:.2%}\nreport: {folder / 'report.html'}"
    )


def defaults(preset: str) -> Config:
    """What a folder's name is compared with: a preset's own numbers are not in it, its name is."""
    return dataclasses.replace(Config(), **PRESETS[preset])


if __name__ == "__main__":
    _flags.run(main)
