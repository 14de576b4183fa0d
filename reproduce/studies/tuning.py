"""The learning rate and the batch of a method, chosen on validation images by trials."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import keras
from scipy.stats import qmc

import hypernet_tf as hn
from reproduce.configs import METHODS, RunConfig
from reproduce.runs.command import DivergedError
from reproduce.runs.folder import folder_name
from reproduce.studies import experiment, trials
from reproduce.studies.study import Progress

OBJECTIVE = "negative_log_likelihood"
RATE_FACTOR = 8.0  # trials multiply the preset's learning rate by 1/8 to 8
IMAGES_PER_NETWORK = (32, 64, 128)
NETWORKS_PER_STEP = (8, 16, 32)  # for methods that train any number of networks in a step
MOST_IMAGES = 1_280  # of all networks in a step: at small costs, larger ones are too few steps
ADAM_RATE_LEFT = 0.01
MOST_NETWORKS = 20  # of the ensemble that a trial evaluates

Choice = dict[str, Any]
"""Name of a setting that is tuned -> its value."""


@dataclasses.dataclass(frozen=True)
class Tuning:
    """What the trials of a method found.

    Attributes:
        seed: Seed of the trials.
        chosen: The best choice.
        trials: All choices that were tried, each with its objective on the validation images, which
            is None if training diverged.
    """

    seed: int
    chosen: Choice
    trials: list[Choice]


def preset_choice(row: RunConfig) -> Choice:
    """The choice that a preset makes.

    Args:
        row: Row of the preset.
    """
    names = ["learning_rate"]
    if not METHODS[row.method].learns_match:  # images teach it nothing
        names.append("images_per_network")
    if "networks_per_step" in METHODS[row.method].flags:
        names.append("networks_per_step")
    choice = {name: getattr(row, name) for name in names}
    return choice | {"learning_rate": trials.rounded(row.learning_rate)}


def candidates(row: RunConfig, count: int, num_images: int | None = None) -> list[Choice]:
    """The choices that are tried: the preset's, then the points of a Halton sequence.

    The sequence spreads any number of points evenly over the logarithm of the rate, the images and
    the networks. It is the same for all methods, each of which leaves out steps of more images than
    `MOST_IMAGES` and than the preset's, or than there are; more trials go on with the same
    sequence.

    Args:
        row: Row of the method's preset.
        count: Number of trials.
        num_images: Number of training images; None for enough.
    """
    first = preset_choice(row)
    choices = [first]
    for u, v, w in qmc.Halton(3, scramble=False).random(64 * count + 1)[1:]:
        if len(choices) == count:
            break
        point = {
            "learning_rate": trials.rounded(row.learning_rate * RATE_FACTOR ** (2 * u - 1), 2),
            "images_per_network": IMAGES_PER_NETWORK[int(v * len(IMAGES_PER_NETWORK))],
            "networks_per_step": NETWORKS_PER_STEP[int(w * len(NETWORKS_PER_STEP))],
        }
        choice = {name: point[name] for name in first}
        networks = choice.get("networks_per_step", row.networks_per_step)
        most = max(MOST_IMAGES, row.images_per_step)
        images = choice.get("images_per_network", row.images_per_network)
        step = images if METHODS[row.method].shares_images else networks * images
        fits = networks * images <= most and (num_images is None or step <= num_images)
        if fits and choice not in choices:
            choices.append(choice)
    return choices[:count]


def configured(row: RunConfig, choice: Choice) -> RunConfig:
    """The configuration of a choice, except its number of steps.

    The learning rate of Adam falls to a hundredth over the run, along a cosine. SGD keeps the
    preset's schedule: chains and Langevin dynamics are defined by a constant rate.

    Args:
        row: Row of the method's preset.
        choice: Choice of the settings that are tuned.
    """
    config = row.with_step_of(
        networks_per_step=choice.get("networks_per_step", row.networks_per_step),
        images_per_network=choice.get("images_per_network", row.images_per_network),
    )
    config = dataclasses.replace(config, learning_rate=float(choice["learning_rate"]))
    if row.optimizer != "adam":
        return config
    return dataclasses.replace(
        config,
        learning_rate_left=ADAM_RATE_LEFT,
        learning_rate_schedule="cosine",
        restart_every=0,
    )


def seeds_of_trials(folder: pathlib.Path) -> list[int]:
    """The seeds with which trials were begun.

    Args:
        folder: Folder of the trials of all methods.
    """
    names = [path.name for path in folder.glob("*/seed=*-tuner")]
    return sorted({int(name.removeprefix("seed=").removesuffix("-tuner")) for name in names})


def passes_left(
    config_of: Callable[[Choice], RunConfig], choices: list[Choice], folder: pathlib.Path
) -> int:
    """Number of image passes of the trials that have not ended; see `tune`.

    Args:
        config_of: Function choice -> configuration of a run.
        choices: The choices to try.
        folder: Folder of the trials.
    """
    configs = [_trial_config(config_of(choice)) for choice in choices]
    ended = trials.ended_settings(_folder_of_state(folder, configs[0].seed))
    return sum(
        config.image_passes
        for config, choice in zip(configs, choices, strict=True)
        if choice not in ended
    )


def _folder_of_state(folder: pathlib.Path, seed: int) -> pathlib.Path:
    return folder / f"seed={seed}-tuner"


def _folder_of(folder: pathlib.Path, config: RunConfig, choice: Choice) -> pathlib.Path:
    return folder / folder_name(f"seed={config.seed}", choice, dict.fromkeys(choice))


def tune(
    config_of: Callable[[Choice], RunConfig],
    choices: list[Choice],
    folder: pathlib.Path,
    load: Callable[[], hn.data.Dataset],
    progress: Progress,
    *,
    passes_after: int,
) -> Tuning:
    """Run the trials that are left, and choose the best.

    Args:
        config_of: Function choice -> configuration of a run.
        choices: The choices to try.
        folder: Folder of the trials, named after the method: a run folder for each, and Keras
            Tuner's state.
        load: Function that loads the data set.
        progress: Clock of the study.
        passes_after: Number of image passes of all that the study runs after these trials.

    Raises:
        DivergedError: The training of every trial diverged.
        RunError: A folder holds something else.
    """
    configs = [_trial_config(config_of(choice)) for choice in choices]
    seed = configs[0].seed

    def train(choice: Choice) -> dict[str, float]:
        number = choices.index(choice)
        left = passes_after + passes_left(config_of, choices, folder)
        print(
            f"trial {number + 1} of {len(choices)} of {folder.name}: {trials.text_of(choice)}; "
            f"{progress.text(left)}",
            flush=True,
        )
        keras.backend.clear_session()  # of the previous trial
        where = _folder_of(folder, configs[number], choice)
        try:
            return {OBJECTIVE: experiment.trial(configs[number], load(), where)[OBJECTIVE]}
        finally:
            progress.add(configs[number].image_passes)

    ended = trials.search(
        train,
        functools.partial(trials.ListOracle, choices),
        OBJECTIVE,
        _folder_of_state(folder, seed),
        seed=seed,
        is_worker=False,
    )
    values = [
        next(
            trial.score if trial.status == "COMPLETED" else None
            for trial in ended
            if trials.values_of(trial) == choice
        )
        for choice in choices
    ]
    best = min((value for value in values if value is not None), default=None)
    if best is None:
        raise DivergedError(f"no trial in {folder} came to its end: training diverged")
    tried = [choice | {OBJECTIVE: value} for choice, value in zip(choices, values, strict=True)]
    return Tuning(seed, choices[values.index(best)], tried)


def _trial_config(config: RunConfig) -> RunConfig:
    """A run that is validated once, at its end, by a small ensemble."""
    available = METHODS[config.method].num_available(config) or MOST_NETWORKS
    return dataclasses.replace(
        config,
        num_networks=min(config.num_networks, available, MOST_NETWORKS),
        validate_every=config.steps,
        checkpoint_every=-(-config.steps // 10),
    )
