"""A noise control is matched after training: which networks to, and where the outcome is kept."""

from __future__ import annotations

import pathlib
from typing import Any

import hypernet_tf as hn
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce.runs import folder as _run


def finished_sampler(folder: pathlib.Path, config: Any) -> hn.WeightSampler:
    """The sampler of a finished run, as it was evaluated.

    Args:
        folder: the run folder.
        config: the run's `reproduce.mnist.Config`.
    """
    return Checkpoints(folder / ("matched" if config.match else "checkpoints")).load()[0]


def ensemble_to_match(folder: pathlib.Path, config: Any) -> hn.Ensemble:
    """The networks that a noise control is to be as far apart as.

    Args:
        folder: the run folder of the control.
        config: its configuration; `match` is a path from its folder.

    Raises:
        RunError: there is no such run, or it has one network, or is of another data set.
    """
    place = _run.relative_to(folder / config.match)
    other, _ = _run.finished(place, type(config))
    if other.dataset != config.dataset:
        raise _run.RunError(f"the run in {place} is on {other.dataset}, not {config.dataset}")
    sampler = finished_sampler(place, other)
    count = min(config.num_networks, sampler.num_available or config.num_networks)
    if count < 2:
        raise _run.RunError(f"the run in {place} has one network, and so no distances to match")
    return sampler.sample(count, seed=1)


def match(control: hn.NoiseControl, ensemble: hn.Ensemble, folder: pathlib.Path) -> None:
    """Set the noise's scale, and keep the control beside the checkpoints of its training.

    Training that goes on later starts from those: its validations are of the network itself.

    Raises:
        RunError: no noise makes networks as far apart.
    """
    try:
        control.match(ensemble)
    except ValueError as error:
        raise _run.RunError(f"the noise cannot be matched: {error}") from error
    Checkpoints(folder / "matched", keep=1).save(control, int(control.step.numpy()), {})
