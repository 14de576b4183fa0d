"""A run of any experiment: train, evaluate, analyse, and write the run folder."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.training.augmentation import flip_and_crop
from hypernet_tf.training.checkpoints import Checkpoints
from hypernet_tf.training.devices import Execution
from hypernet_tf.training.run import train
from reproduce.analyses import ANALYSES, Limits, perform
from reproduce.analyses.subject import NUM_NETWORKS, Subject
from reproduce.configs import EXPERIMENTS, METHODS, TARGETS, RunConfig, build_sampler
from reproduce.configs.targets import build_target
from reproduce.reports import history, run_page
from reproduce.reports.summary import (
    add_missing_measures,
    missing_measures,
    seconds_to_sample,
    summarise,
)
from reproduce.runs import folder as folders
from reproduce.runs.match import ensemble_to_match, finished_sampler, match
from reproduce.runs.memory import peak_memory, reset_peak_memory


def load(config: RunConfig, data_dir: str | None) -> hn.data.Dataset:
    """The data set, as images of the shape that the target takes.

    Raises:
        DataError: It is not available, or does not fit the target.
    """
    dataset = hn.data.load(config.dataset, data_dir)
    return hn.data.pad_to(dataset, TARGETS[config.target].image_shape)


def check_step(
    config: RunConfig,
    dataset: hn.data.Dataset,
    advice: str = "choose a smaller --images_per_network",
) -> None:
    """Check that a training step has enough images, and that the target takes its L2.

    Args:
        config: Configuration of the run.
        dataset: The configured data set, see `load`.
        advice: What to do otherwise.

    Raises:
        UsageError: It takes more than there are, or a layer takes no regularizer.
    """
    shares = METHODS[config.method].shares_images
    images = config.images_per_network if shares else config.images_per_step
    if images > len(dataset.train):
        raise folders.UsageError(
            f"a step of {config.method} takes {images:,} images, and {dataset.name} has "
            f"{len(dataset.train):,} for training: {advice}"
        )
    if config.l2:
        try:
            build_target(config.target, len(dataset.classes), l2=config.l2)
        except ValueError as error:
            raise folders.UsageError(f"{config.method}: {error}") from error


def augmentation(config: RunConfig) -> Callable[..., tf.Tensor] | None:
    """What changes training images at random, as the entry of the data set says."""
    if not config.augment:
        return None
    mirrors = hn.data.Selection.parse(config.dataset).option.augment == "shift_and_mirror"
    return functools.partial(flip_and_crop, margin=config.crop_margin, flip=mirrors)


def run(
    config: RunConfig,
    folder: pathlib.Path,
    data_dir: str | None = None,
    *,
    analyses: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
    execution: Execution | None = None,
) -> dict:
    """Train, evaluate, analyse, and write the run folder; what is done already is not done again.

    Args:
        config: Configuration of the run.
        folder: Run folder.
        data_dir: Folder of data sets, see `hypernet_tf.data.load`.
        analyses: Names of analyses, or "all".
        settings: Name of a setting of an analysis -> value, where it is not the default.
        execution: Devices on which training steps run, and how.

    Returns:
        The contents of metrics.json; {} in a worker that is not the chief, which only trains along.

    Raises:
        DataError, RunError, CheckpointError, DeviceError, TrainingDivergedError, WorkerLostError:
            Each with its one line.
    """
    execution = execution or Execution()
    if not execution.chief:
        # Where the chief's folder is seen from here; of a finished run the chief trains nothing.
        if folders.check(folder, config) == config.steps:
            return {}
        dataset = load(config, data_dir)  # before seeding: TFDS draws names of temporary folders
        _prepare(config)
        learned = ensemble_to_match(folder, config) if METHODS[config.method].learns_match else None
        trained(config, dataset, folder, execution, learned)
        return {}
    finished = folders.check(folder, config) == config.steps
    metrics = folders.read_metrics(folder) if finished else {}
    if finished and not set(run_page.GROUPS) <= metrics.keys():
        raise folders.damaged(folder / "metrics.json")
    if unknown := metrics.get("analyses", {}).keys() - ANALYSES.keys():
        raise folders.RunError(
            f"the run in {folder} has the analysis '{min(unknown)}', which is not known: name its "
            "module with --extension"
        )
    page = folder / "report.html"
    lacks = finished and missing_measures(metrics)  # of extensions, or a newer version's
    if finished and not analyses and not lacks and page.exists():
        if folders.saved_steps(folder) != config.steps:  # of more, which were never trained
            with folders.occupy(folder, config):
                pass
        print(f"complete: {page}")
        return metrics
    if not finished and (folder / "metrics.json").exists():
        _check_checkpoint(folder)
    # Errors in what is asked for are raised before anything is trained.
    dataset = load(config, data_dir)
    available = METHODS[config.method].num_available(config)
    names = perform.possible(analyses, available)
    matched = ensemble_to_match(folder, config) if config.match and not finished else None
    values = {"num_networks": config.num_networks} | dict(settings or {})
    shape = dataset.test.images.shape[1:]
    limits = Limits(values["num_networks"], available, len(dataset.test), shape, dataset.name)
    resolved = perform.resolved_settings(names, values, limits)
    if not finished:
        perform.load(names, settings or {}, data_dir)
        check_step(config, dataset)
    with folders.occupy(folder, config):
        # What another process did since then, and has finished with.
        if (folders.check(folder, config) == config.steps) != finished:
            raise folders.OccupiedError(
                f"another process has just finished the run in {folder}: run the same command again"
            )
        if finished:
            metrics = folders.read_metrics(folder)
        _prepare(config)
        if finished:
            sampler = finished_sampler(folder, config)
            subject = Subject(sampler, dataset, resolved, data_dir)
            if lacks:
                evaluated = {NUM_NETWORKS.name: metrics["networks"]["num_networks"]}
                add_missing_measures(metrics, Subject(sampler, dataset, evaluated, data_dir))
                page.unlink(missing_ok=True)  # it goes with the numbers
                folders.write_json(folder / "metrics.json", metrics)
        else:
            learns = METHODS[config.method].learns_match
            before = Checkpoints(folder / "checkpoints").latest_step() or 0
            reset_peak_memory()  # other trainings of this process, as in a sweep
            sampler, record = trained(
                config, dataset, folder, execution, matched if learns else None
            )
            peak = peak_memory()
            if matched is not None and not learns:
                match(sampler, matched, folder)
            # Remove results of a previous, shorter run.
            for old in ("metrics.json", "distillation.json", "distillation.md", page.name):
                (folder / old).unlink(missing_ok=True)
            shutil.rmtree(folder / "figures", ignore_errors=True)
            subject = Subject(sampler, dataset, resolved, data_dir)
            start = time.monotonic()
            metrics = summarise(config, dataset, subject, record["history"])
            metrics["seconds"] = {
                "train_seconds": round(record["seconds"], 1),
                "evaluate_seconds": round(time.monotonic() - start, 1),
                "sample_seconds": seconds_to_sample(sampler, resolved["num_networks"]),
            }
            trains = record["history"][-1]["step"] > before
            metrics["run"]["peak_memory_mib"] = round(peak) if trains else None
            folders.write_figure(
                folder,
                "training_curves",
                plots.training_curves(history.panels(record["history"])),
                history.arrays(record["history"]),
            )
        done = metrics.setdefault("analyses", {})
        wanted = [
            name
            for name, analysis in ANALYSES.items()
            if name in names or (analysis.basic and name not in done)
        ]
        perform.perform(wanted, subject, folder, metrics)
        lam = f", lam {config.lam:g}" if "lam" in METHODS[config.method].flags else ""
        target = "" if config.target == "mnist" else f"{config.target}, "
        title = f"{target}{config.method} on {hn.data.title(dataset.name)}{lam}"
        text = run_page.page(title, [run_page.Run(folder.name, folder, metrics)])
        folders.write_text(page, text)  # last: the run is complete
    return metrics


def _check_checkpoint(folder: pathlib.Path) -> None:
    """Check that a finished run can go on from a checkpoint."""
    if Checkpoints(folder / "checkpoints").latest_step() is None:
        raise folders.RunError(
            f"the run in {folder} was finished, and its checkpoints are gone: delete "
            f"{folder / 'metrics.json'} to train anew"
        )


def trial(config: RunConfig, dataset: hn.data.Dataset, folder: pathlib.Path) -> dict[str, Any]:
    """Train, and evaluate nothing but the validation images.

    Args:
        config: Configuration of the run.
        dataset: The configured data set, see `load`.
        folder: Run folder. A run that was killed goes on, and one that is finished is not repeated.

    Returns:
        The numbers of the last validation, by the keys of their measures.

    Raises:
        RunError, CheckpointError, TrainingDivergedError: Each with its one line.
    """
    check_step(config, dataset)
    with folders.occupy(folder, config):
        _prepare(config)
        learns = METHODS[config.method].learns_match
        learned = ensemble_to_match(folder, config) if learns else None
        _, record = trained(config, dataset, folder, Execution(), learned)
    return record["history"][-1]["validation"]


def _prepare(config: RunConfig) -> None:
    """Set Keras's global seed, from which initial weights come, and make reruns exactly equal."""
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    tf.config.experimental.enable_op_determinism()


def trained(
    config: RunConfig,
    dataset: hn.data.Dataset,
    folder: pathlib.Path,
    execution: Execution,
    learned: hn.Ensemble | None = None,
) -> tuple[hn.WeightSampler, dict]:
    """The configured sampler after its training, and the record of the training.

    Args:
        config: Configuration of the run.
        dataset: Data set on which to train.
        folder: Run folder.
        execution: Devices on which training steps run, and how.
        learned: Networks that the sampler learns, for methods that learn those of `--match`.
    """

    def make() -> hn.WeightSampler:
        sampler = build_sampler(config, len(dataset.train), len(dataset.classes))
        if learned is not None:
            sampler.learn_from(learned)
        return sampler

    return train(
        make,
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
        watch_test=EXPERIMENTS[config.experiment].watch_test,
    )
