"""Flags of a run, and what the command of an experiment does with them."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from absl import flags

import hypernet_tf as hn
from reproduce.cli import analysis_flags as _analysis_flags
from reproduce.cli import device_flags as _device_flags
from reproduce.cli import flags as _flags
from reproduce.configs.methods import DIVERSITY, LAM, METHODS
from reproduce.runs import folder as _run
from reproduce.runs.experiment import Config, run

flags.DEFINE_enum(
    "method",
    "hypernetwork",
    list(METHODS),
    "Who makes the weights. "
    + "; ".join(f"{name}: {what}" for name, what in METHODS.items())
    + ".",
)
flags.DEFINE_enum(
    "diversity",
    "weights",
    list(DIVERSITY),
    "For --method=hypernetwork: in what its networks are to differ. "
    + "; ".join(f"{name}: {what}" for name, what in DIVERSITY.items())
    + ".",
)
flags.DEFINE_string(
    "match",
    None,
    "For --method=noise: the folder of a finished run. The noise is made as strong as it takes for "
    "networks to be as far from their nearest neighbours as that run's.",
)
# Flags that describe a training; with none of them, analyses are those of a finished run.
_TRAINING = (
    "dataset",
    "method",
    "diversity",
    "match",
    "lam",
    "steps",
    "seed",
    "preset",
    "precision",
)
FLAG_MODULES = (_flags, _analysis_flags, _device_flags)


class Experiment(NamedTuple):
    """An experiment with a command of its own.

    Attributes:
        name: of its run folders.
        defaults: the configuration of (method, preset, steps or None for the preset's).
        flags: names of its own flags that describe a training.
        datasets: that fit its targets.
    """

    name: str
    defaults: Callable[[str, str, int | None], Config]
    flags: tuple[str, ...] = ()
    datasets: tuple[str, ...] = hn.data.NAMES


def config_from_flags(experiment: Experiment) -> Config:
    """The configuration that the flags ask for; says on stdout which data set `auto` became.

    Raises:
        UsageError: a flag that has no part in the method.
    """
    values = _flags.FLAGS
    brought = experiment.defaults(values.method, values.preset, values.steps)
    parts = {
        "lam": values.method == "hypernetwork",
        "diversity": values.method == "hypernetwork",
        "match": values.method == "noise",
        "num_networks": brought.num_networks > 1,
    }
    for name, has_part in parts.items():
        if values[name].present and not has_part:
            raise _run.UsageError(f"--{name} has no part in --method={values.method}: drop it")
    if parts["match"] and not values.match:
        raise _run.UsageError(
            "--method=noise needs --match, the folder of a finished run to be as far apart as"
        )
    given = {n: values[n].value for n in ("num_networks", "match", "precision", "diversity")}
    if parts["lam"]:
        usual = values["lam"].using_default_value
        given["lam"] = LAM[values.diversity] if usual else values.lam
    return dataclasses.replace(
        brought,
        dataset=_flags.dataset(experiment.datasets),
        seed=values.seed,
        **{k: v for k, v in given.items() if v is not None},
    )


def default_folder(experiment: Experiment, config: Config) -> pathlib.Path:
    """Named after method and preset, not after the numbers that these bring along."""
    usual = experiment.defaults(config.method, config.preset, None).steps
    brought = experiment.defaults(config.method, config.preset, config.steps)
    plain = dataclasses.replace(brought, method=Config.method, preset=Config.preset, steps=usual)
    named = dataclasses.replace(config, match=pathlib.Path(config.match).name)  # no slashes
    return _run.default_folder(experiment.name, named, plain)


def main(experiment: Experiment) -> None:
    """What the command of an experiment does."""
    values = _flags.FLAGS
    analyses = _analysis_flags.requested()
    training = _TRAINING + experiment.flags
    trains = not (analyses and values.run_dir and not any(values[n].present for n in training))
    if trains:
        config = config_from_flags(experiment)
        folder = (
            pathlib.Path(values.run_dir) if values.run_dir else default_folder(experiment, config)
        )
        if config.match:
            config = dataclasses.replace(config, match=os.path.relpath(config.match, folder))
    else:
        folder = pathlib.Path(values.run_dir)
        config, _ = _run.finished(folder, Config)
        _device_flags.refuse("the analysis of a finished run")
    settings = _analysis_flags.settings(trains=trains)
    execution = _device_flags.execution()
    metrics = run(
        config, folder, values.data_dir, analyses=analyses, settings=settings, execution=execution
    )
    if not metrics:
        print("this worker has trained along; the chief reports")
        return
    networks, ensemble = metrics["networks"], metrics["ensemble"]
    print(
        f"{networks['num_networks']} networks: mean {networks['member_accuracy']:.2%}; "
        f"majority vote {ensemble['majority_vote_accuracy']:.2%}, "
        f"mean probability {ensemble['mean_probability_accuracy']:.2%}, most confident "
        f"{ensemble['most_confident_accuracy']:.2%}\nreport: {folder / 'report.html'}"
    )
