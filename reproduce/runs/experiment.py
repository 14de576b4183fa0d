"""A run of any experiment: train, evaluate, analyse, and write the run folder."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import resource
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.training.augmentation import flip_and_crop
from hypernet_tf.training.devices import Execution
from hypernet_tf.training.run import train
from reproduce.reports import history as _history
from reproduce.analyses import perform as _perform
from reproduce.runs import folder as _run
from reproduce.reports import run_page as _run_page
from reproduce.analyses import ANALYSES, Limits
from reproduce.runs.match import ensemble_to_match, finished_sampler, match
from reproduce.configs.methods import build
from reproduce.analyses.subject import Subject
from reproduce.runs.summary import seconds_to_sample, summarise
from reproduce.configs.targets import TARGETS

# Analyses that every run has.
BASIC = tuple(name for name, analysis in ANALYSES.items() if analysis.basic)
BATCH_NORM_IMAGES = 1_000


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Defaults are the published values of the hypernetwork.

    Attributes:
        num_networks: of the evaluated ensemble.
        momentum: above 0 for SGD with momentum instead of Adam.
        augment: whether training images are shifted and, but for digits, mirrored.
        match: the run whose distances a noise control has, as a path from the control's own run
            folder; "" for other methods.
    """

    dataset: str = "mnist"
    method: str = "hypernetwork"
    lam: float = 1e3
    steps: int = 13_000
    seed: int = 0
    num_networks: int = 200
    preset: str = "paper"
    networks_per_step: int = 32
    images_per_network: int = 32
    learning_rate: float = 3e-4
    learning_rate_decay: float = 0.99998
    validate_every: int = 1_000
    checkpoint_every: int = 250
    match: str = ""
    precision: str = "float32"
    target: str = "mnist"
    diversity: str = "weights"
    momentum: float = 0.0
    snapshot_every: int = 100
    augment: bool = False

    @property
    def experiment(self) -> str:
        """To which experiment the run belongs."""
        return "mnist" if self.target == "mnist" else "cifar"

    @property
    def passes_per_step(self) -> int:
        """Images that go through a target network, forth and back, in a training step."""
        return self.networks_per_step * self.images_per_network


def load(config: Config, data_dir: str | None) -> hn.data.Dataset:
    """The data set, as images of the shape that the target takes.

    Raises:
        DataError: it cannot be had, or does not fit the target.
    """
    dataset = hn.data.load(config.dataset, data_dir)
    return hn.data.pad_to(dataset, TARGETS[config.target].image_shape)


def batch_norm_images(dataset: hn.data.Dataset) -> np.ndarray:
    """Training images for batch norm's moving statistics: few, since every ensemble sees them."""
    return dataset.train.x[:BATCH_NORM_IMAGES]


def augmentation(config: Config) -> Callable[..., tf.Tensor] | None:
    """What changes training images at random; digits in a mirror are other ones, or none."""
    if not config.augment:
        return None
    return functools.partial(flip_and_crop, flip=config.dataset != "svhn_cropped")


def run(
    config: Config,
    folder: pathlib.Path,
    data_dir: str | None = None,
    *,
    analyses: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    execution: Execution | None = None,
) -> dict:
    """Train, evaluate, analyse, and write the run folder; what is done already is not done again.

    Args:
        config: the run's.
        folder: the run folder.
        data_dir: see `hypernet_tf.data.load`.
        analyses: names, or "all".
        settings: Name of a setting of an analysis -> value, where it is not the default.
        execution: on what, and how, training steps are run.

    Returns:
        What metrics.json holds; nothing in a worker that is not the chief, which only trains along.

    Raises:
        DataError, RunError, CheckpointError, DeviceError, TrainingDivergedError, WorkerLostError:
            each with its one line.
    """
    execution = execution or Execution()
    if not execution.chief:
        _prepare(config)
        trained(config, load(config, data_dir), folder, execution)
        return {}
    finished = _run.check(folder, config) == config.steps
    metrics = _run.read_metrics(folder) if finished else {}
    if finished and not {"run", "networks", "ensemble", "diversity", "seconds"} <= metrics.keys():
        raise _run.damaged(folder / "metrics.json")
    page = folder / "report.html"
    if finished and not analyses and page.exists():
        print(f"complete: {page}")
        return metrics
    # What cannot be had is said before anything is trained.
    dataset = load(config, data_dir)
    size = build(config, num_data=1).num_available_after(config.steps)
    names = _perform.possible(analyses, size)
    matched = ensemble_to_match(folder, config) if config.match and not finished else None
    values = {"num_networks": config.num_networks} | dict(settings or {})
    channels = dataset.test.images.shape[-1]
    limits = Limits(values["num_networks"], size, len(dataset.test), channels, dataset.name)
    resolved = _perform.resolved_settings(names, values, limits)
    with _run.occupy(folder, config):
        _prepare(config)
        if finished:
            sampler = finished_sampler(folder, config)
            sampler.batch_norm_data = batch_norm_images(dataset)
            subject = Subject(sampler, dataset, resolved, data_dir)
        else:
            sampler, record = trained(config, dataset, folder, execution)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if matched is not None:
                match(sampler, matched, folder)
            # What is there from fewer steps is not this run's.
            for old in (folder / "metrics.json", page):
                old.unlink(missing_ok=True)
            shutil.rmtree(folder / "figures", ignore_errors=True)
            subject = Subject(sampler, dataset, resolved, data_dir)
            start = time.monotonic()
            metrics = summarise(config, dataset, subject, record["history"])
            metrics["seconds"] = {
                "train_seconds": round(record["seconds"], 1),
                "evaluate_seconds": round(time.monotonic() - start, 1),
                "sample_seconds": seconds_to_sample(sampler, resolved["num_networks"]),
            }
            metrics["run"]["peak_memory_mib"] = round(peak)
            _run.write_figure(
                folder,
                "training_curves",
                plots.training_curves(_history.panels(record["history"])),
                _history.arrays(record["history"]),
            )
        done = metrics.setdefault("analyses", {})
        asked = [n for n in ANALYSES if n in names or (n in BASIC and n not in done)]
        _perform.perform(asked, subject, folder, metrics)
        lam = f", lam {config.lam:g}" if config.method == "hypernetwork" else ""
        target = "" if config.target == Config.target else f"{config.target}, "
        title = f"{target}{config.method} on {dataset.name}{lam}"
        text = _run_page.page(title, [_run_page.Run(folder.name, folder, metrics)])
        _run.write(page, lambda aside: aside.write_text(text))  # last: the run is complete
    return metrics


def _prepare(config: Config) -> None:
    """Initial weights come from Keras's global seed, and reruns are the same to the last bit."""
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    tf.config.experimental.enable_op_determinism()


def trained(
    config: Config, dataset: hn.data.Dataset, folder: pathlib.Path, execution: Execution
) -> tuple[hn.WeightSampler, dict]:
    """The configured sampler after its training, and the record of that."""
    return train(
        lambda: build(config, len(dataset.train), len(dataset.classes)),
        dataset,
        folder,
        steps=config.steps,
        images=config.images_per_network,
        num_networks=config.num_networks,
        validate_every=config.validate_every,
        checkpoint_every=config.checkpoint_every,
        seed=config.seed,
        execution=execution,
        hparams=dataclasses.asdict(config),
        augment=augmentation(config),
        batch_norm_data=batch_norm_images(dataset),
        watch_test=config.experiment == "cifar",
    )
