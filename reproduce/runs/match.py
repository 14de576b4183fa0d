"""The run of `--match`: its networks, which a method learns or a noise control is matched to."""

from __future__ import annotations

import pathlib

import hypernet_tf as hn
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce.configs import METHODS, RunConfig
from reproduce.runs import folder as folders

# Networks that are learned of a sampler without a limit.
LEARNED_NETWORKS = 1_000


def finished_sampler(folder: pathlib.Path, config: RunConfig) -> hn.WeightSampler:
    """The sampler of a finished run, as it was evaluated.

    Args:
        folder: Run folder.
        config: Configuration of the run.
    """
    is_matched = config.match and not METHODS[config.method].learns_match
    return Checkpoints(folder / ("matched" if is_matched else "checkpoints")).load()[0]


def ensemble_to_match(folder: pathlib.Path, config: RunConfig) -> hn.Ensemble:
    """The networks of the run of `--match`: all that a method learns, or as many as it samples.

    Args:
        folder: Run folder of the method.
        config: Configuration of the method; `match` is a path from its folder.

    Raises:
        RunError: There is no such run, it has too few networks, or another data set or target.
    """
    other_folder = folders.relative_to_here(folder / config.match)
    other, _ = folders.finished(other_folder, RunConfig)
    if other.dataset != config.dataset:
        raise folders.RunError(
            f"the run in {other_folder} is on {other.dataset}, not {config.dataset}"
        )
    sampler = finished_sampler(other_folder, other)
    if METHODS[config.method].learns_match:
        count = sampler.num_available or LEARNED_NETWORKS
        if count < config.networks_per_step or other.target != config.target:
            raise folders.RunError(
                f"cannot learn the {count} networks of {other.target} in {other_folder}: name a "
                f"run with at least {config.networks_per_step} networks of {config.target}"
            )
        return sampler.sample(count)
    count = min(config.num_networks, sampler.num_available or config.num_networks)
    if count < 2:
        raise folders.RunError(
            f"the run in {other_folder} has one network, and so no distances to match"
        )
    return sampler.sample(count, seed=1)


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
