"""The run of `--match`: its networks, which a method learns or a noise control is matched to."""

from __future__ import annotations

import os
import pathlib

import numpy as np

import hypernet_tf as hn
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce.configs import METHODS, TARGETS, RunConfig
from reproduce.configs.methods import DIVERSITY
from reproduce.runs import folder as folders

# Networks that are learned of a sampler without a limit.
LEARNED_NETWORKS = 1_000


def finished_run(folder: pathlib.Path) -> RunConfig:
    """The configuration of a finished run, whose method, target, data set and diversity are known.

    Args:
        folder: Run folder.

    Raises:
        RunError: There is no finished run, or its method, target, data set or diversity is that of
            an extension.
    """
    config, _ = folders.finished(folder, RunConfig)
    data_set, *_ = config.dataset.partition(":")
    for kind, name, known in (
        ("method", config.method, METHODS),
        ("target", config.target, TARGETS),
        ("data set", data_set, hn.data.DATASETS),
        ("diversity", config.diversity, DIVERSITY),
    ):
        if name not in known:
            raise folders.RunError(
                f"the run in {folder} is of the {kind} '{name}', which is not known: name its "
                "module with --extension"
            )
    return config


def finished_sampler(folder: pathlib.Path, config: RunConfig) -> hn.WeightSampler:
    """The sampler of a finished run, as it was evaluated.

    Args:
        folder: Run folder.
        config: Configuration of the run.

    Raises:
        RunError: The last checkpoint is gone.
        CheckpointError: It is damaged, or of another version.
    """
    is_matched = config.match and not METHODS[config.method].learns_match
    checkpoints = Checkpoints(folder / ("matched" if is_matched else "checkpoints"))
    newest = checkpoints.latest_step()
    if newest != config.steps:
        there = "there is none" if newest is None else f"the newest is of step {newest:,}"
        raise folders.RunError(
            f"the checkpoint of step {config.steps:,} is not in {checkpoints.folder} ({there}): "
            f"delete {folder / 'metrics.json'} and train again with the same command"
        )
    return checkpoints.load()[0]


def ensemble_to_match(folder: pathlib.Path, config: RunConfig) -> hn.Ensemble:
    """The networks of the run of `--match`: all that a method learns, or as many as it samples.

    Args:
        folder: Run folder of the method.
        config: Configuration of the method; `match` is a path from its folder.

    Raises:
        RunError: There is no such run, it has too few networks, another data set or target, or
            other networks than those that the method began to learn.
    """
    other_folder = pathlib.Path(os.path.relpath(folder / config.match))
    other = finished_run(other_folder)
    if other.dataset != config.dataset:
        raise folders.RunError(
            f"the run in {other_folder} is on {other.dataset}, not {config.dataset}"
        )
    if other.target != config.target:
        raise folders.RunError(
            f"the networks of the run in {other_folder} are of the target {other.target}, not "
            f"{config.target}: name another run"
        )
    sampler = finished_sampler(other_folder, other)
    if METHODS[config.method].learns_match:
        count = sampler.num_available or LEARNED_NETWORKS
        if count < config.networks_per_step:
            raise folders.RunError(
                f"cannot learn the {count} networks in {other_folder}: name a run with at least "
                f"{config.networks_per_step}"
            )
        ensemble = sampler.sample(count)
        _check_unchanged(folder, ensemble, other_folder)
        return ensemble
    count = sampler.at_most(config.num_networks)
    if count < 2:
        raise folders.RunError(
            f"the run in {other_folder} has one network, and so no distances to match"
        )
    return sampler.sample(count, seed=1)


def _check_unchanged(
    folder: pathlib.Path, ensemble: hn.Ensemble, other_folder: pathlib.Path
) -> None:
    """Check that a training in the folder, if there is one, began to learn these networks."""
    checkpoints = Checkpoints(folder / "checkpoints")
    if checkpoints.latest_step() is None:
        return
    learner, _ = checkpoints.load()
    if not np.allclose(learner.centre, ensemble.theta().mean(0), atol=1e-5):
        raise folders.RunError(
            f"the run in {other_folder} has other networks than those that {folder} began to "
            "learn: choose another --run_dir"
        )


def match(control: hn.NoiseControl, ensemble: hn.Ensemble, folder: pathlib.Path) -> None:
    """Set the scale of the noise, and keep the control beside the checkpoints of its training.

    Training that goes on later starts from those checkpoints: its validations evaluate the network
    itself.

    Raises:
        RunError: No noise makes networks as far apart.
    """
    try:
        control.match(ensemble)
    except ValueError as error:
        raise folders.RunError(f"the noise cannot be matched: {error}") from error
    Checkpoints(folder / "matched", keep=1).save(control, int(control.step.numpy()), {})
