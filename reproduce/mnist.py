"""The MNIST experiments: networks whose 20,018 weights are generated, and everything asked of them.

Trains the hypernetwork of Deutsch, Nijkamp, Yang (2019), or the single network beside it, samples
an ensemble, evaluates it on the test images and writes a run folder with figures (and the numbers
behind each), metrics.json and report.html.

  python -m reproduce.mnist --lam=1e3                          the paper's run, 13,000 steps
  python -m reproduce.mnist --lam=1e3 --analyses=all           the same with all its figures
  python -m reproduce.mnist --preset=quick                     a few minutes on two cores
  python -m reproduce.mnist --dataset=fashion_mnist --steps=4000
  python -m reproduce.mnist --method=sgd                       the single network
  python -m reproduce.mnist --run_dir=runs/mnist --analyses=paths,adversarial
                                                               a finished run: without training

The same command again goes on where the run stopped; a higher --steps continues a finished one.
`python -m reproduce.report RUN...` sets runs side by side. TensorBoard shows them:
tensorboard --logdir runs
"""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import time
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf
from absl import flags

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.training.callbacks import ensemble_entropy
from hypernet_tf.training.checkpoints import Checkpoints
from hypernet_tf.training.run import train
from reproduce import _analysis_flags, _flags, _mnist_history, _mnist_report, _perform, _run
from reproduce._analyses import ANALYSES
from reproduce._mnist_methods import METHODS, PRESETS, build
from reproduce._subject import Settings, Subject

for _module in (_flags, _analysis_flags):
    flags.adopt_module_key_flags(_module)
flags.DEFINE_enum(
    "method",
    "hypernetwork",
    METHODS,
    "Who makes the weights. hypernetwork: generated from a random vector. sgd: one network, "
    "trained in the ordinary way.",
)
# The figures of a run that asks for no analyses.
BASIC = ("accuracies", "filters")


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Defaults are the published values; `networks` is the evaluated ensemble's size."""

    dataset: str = "mnist"
    method: str = "hypernetwork"
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


def config_from_flags() -> Config:
    """The configuration that the flags ask for; says on stdout which data set `auto` became.

    Raises:
        UsageError: a flag that has no part in the method.
    """
    values = _flags.FLAGS
    if values.method != "hypernetwork":
        for name in ("lam", "networks"):
            if values[name].present:
                raise _run.UsageError(f"--{name} has no part in --method={values.method}: drop it")
    dataset, notice = hn.data.resolve(values.dataset, values.data_dir)
    if notice:
        print(notice)
    given = {"steps": values.steps, "networks": values.networks}
    return dataclasses.replace(
        defaults(values.method, values.preset),
        dataset=dataset,
        lam=values.lam,
        seed=values.seed,
        **{k: v for k, v in given.items() if v is not None},
    )


def defaults(method: str, preset: str) -> Config:
    """A method's and preset's configuration."""
    return dataclasses.replace(Config(), method=method, preset=preset, **PRESETS[method, preset])


def default_folder(config: Config) -> pathlib.Path:
    """Named after method and preset, not after the numbers that these bring along."""
    brought = defaults(config.method, config.preset)
    plain = dataclasses.replace(brought, method=Config.method, preset=Config.preset)
    return _run.default_folder("mnist", config, plain)


def run(
    config: Config,
    folder: pathlib.Path,
    data_dir: str | None = None,
    *,
    analyses: Sequence[str] = (),
    settings: Settings | None = None,
) -> dict:
    """Train, evaluate, analyse, and write the run folder; what is done already is not done again.

    Args:
        config: the run's.
        folder: the run folder.
        data_dir: see `hypernet_tf.data.load`.
        analyses: names, or "all".
        settings: how much of everything the analyses take.

    Returns:
        What metrics.json holds.

    Raises:
        DataError, RunError, CheckpointError, TrainingDivergedError: each with its one line.
    """
    finished = _run.check(folder, config) == config.steps
    metrics = _run.read_metrics(folder) if finished else {}
    page = folder / "report.html"
    if finished and not analyses and page.exists():
        print(f"complete: {page}")
        return metrics
    # What cannot be had is said before anything is trained.
    size = build(config).size
    names = _perform.possible(analyses, size)
    dataset = hn.data.load(config.dataset, data_dir)
    settings = settings or Settings(networks=config.networks)
    if not {"accuracies", "ensembles"} & set(names):
        settings = dataclasses.replace(settings, ensembles=1)
    settings = settings.resolved(size, len(dataset.test))
    with _run.occupy(folder, config):
        # Initial weights come from Keras's global seed, and reruns are the same to the last bit.
        keras.utils.set_random_seed(config.seed)
        tf.config.experimental.enable_op_determinism()
        if finished:
            sampler, _ = Checkpoints(folder / "checkpoints").load()
            subject = Subject(sampler, dataset, settings)
        else:
            sampler, record = _trained(config, dataset, folder)
            # What is there from fewer steps is not this run's.
            for old in (folder / "metrics.json", page):
                old.unlink(missing_ok=True)
            shutil.rmtree(folder / "figures", ignore_errors=True)
            subject = Subject(sampler, dataset, settings)
            start = time.monotonic()
            metrics = summarise(config, dataset, subject)
            metrics["seconds"] = {
                "train": round(record["seconds"], 1),
                "evaluate": round(time.monotonic() - start, 1),
            }
            _run.write_figure(
                folder,
                "training_curves",
                plots.training_curves(_mnist_history.panels(record["history"])),
                _mnist_history.arrays(record["history"]),
            )
        done = metrics.setdefault("analyses", {})
        asked = [n for n in ANALYSES if n in names or (n in BASIC and n not in done)]
        _perform.perform(asked, subject, folder, metrics)
        lam = f", lam {config.lam:g}" if config.method == "hypernetwork" else ""
        title = f"{config.method} on {dataset.name}{lam}"
        text = _mnist_report.page(title, [_mnist_report.Run(folder.name, folder, metrics)])
        _run.write(page, lambda aside: aside.write_text(text))  # last: the run is complete
    return metrics


def _trained(
    config: Config, dataset: hn.data.Dataset, folder: pathlib.Path
) -> tuple[hn.WeightSampler, dict]:
    return train(
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


def summarise(config: Config, dataset: hn.data.Dataset, subject: Subject) -> dict:
    """What metrics.json holds of training and of one ensemble, but for the seconds."""
    sampler, ensemble, result = subject.sampler, subject.ensemble(), subject.evaluation()
    accuracy, several = result.member_accuracy, len(ensemble) > 1
    return {
        "experiment": "mnist",
        "method": config.method,
        "dataset": dataset.summary(),
        "config": dataclasses.asdict(config),
        "steps": int(sampler.step.numpy()),
        "seconds": {},
        "target_weights": sampler.target.weight_count,
        "parameters": sum(int(np.prod(v.shape)) for v in sampler.trainable_variables),
        "networks": {
            "count": len(ensemble),
            "accuracy_mean": float(accuracy.mean()),
            "accuracy_std": float(accuracy.std(ddof=1)) if several else None,
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
            "entropy": ensemble_entropy(ensemble, sampler),
            "disagreement": result.disagreement if several else None,
        },
    }


def main() -> None:
    """What `python -m reproduce.mnist` does."""
    values = _flags.FLAGS
    analyses = _analysis_flags.asked()
    training = ("dataset", "method", "lam", "steps", "seed", "preset")
    trains = not (analyses and values.run_dir and not any(values[n].present for n in training))
    if trains:
        config = config_from_flags()
        folder = pathlib.Path(values.run_dir) if values.run_dir else default_folder(config)
    else:
        folder = pathlib.Path(values.run_dir)
        config, _ = _run.finished(folder, Config)
    settings = _analysis_flags.settings(config.networks, trains=trains)
    metrics = run(config, folder, values.data_dir, analyses=analyses, settings=settings)
    networks, ensemble = metrics["networks"], metrics["ensemble"]
    print(
        f"{networks['count']} networks: mean {networks['accuracy_mean']:.2%}; "
        f"majority vote {ensemble['majority_vote_accuracy']:.2%}, "
        f"mean probability {ensemble['mean_probability_accuracy']:.2%}, most confident "
        f"{ensemble['most_confident_accuracy']:.2%}\nreport: {folder / 'report.html'}"
    )


if __name__ == "__main__":
    _flags.run(main)
