"""A noise control is matched after training: to which networks, and where the result is kept."""

from __future__ import annotations

import pathlib

import hypernet_tf as hn
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce.configs import RunConfig
from reproduce.runs import folder as folders


def finished_sampler(folder: pathlib.Path, config: RunConfig) -> hn.WeightSampler:
    """The sampler of a finished run, as it was evaluated.

    Args:
        folder: Run folder.
        config: Configuration of the run.
    """
    return Checkpoints(folder / ("matched" if config.match else "checkpoints")).load()[0]


def ensemble_to_match(folder: pathlib.Path, config: RunConfig) -> hn.Ensemble:
    """The networks whose distances a noise control is to have.

    Args:
        folder: Run folder of the control.
        config: Configuration of the control; `match` is a path from its folder.

    Raises:
        RunError: There is no such run, or it has one network, or another data set.
    """
    other_folder = folders.relative_to_here(folder / config.match)
    other, _ = folders.finished(other_folder, RunConfig)
    if other.dataset != config.dataset:
        raise folders.RunError(
            f"the run in {other_folder} is on {other.dataset}, not {config.dataset}"
        )
    sampler = finished_sampler(other_folder, other)
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
