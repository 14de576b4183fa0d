"""Flags of a run, and what the command of an experiment does with them."""

from __future__ import annotations

import dataclasses
import os
import pathlib

from absl import flags

from reproduce.analyses import perform
from reproduce.cli import analysis_flags, device_flags, shared_flags
from reproduce.cli.shared_flags import LARGEST, SMALLEST
from reproduce.configs import EXPERIMENTS, METHODS, RunConfig, preset
from reproduce.configs.methods import (
    ABLATIONS,
    DIVERSITY,
    METHOD_FLAGS,
    OPTIMIZERS,
    SCHEDULES,
    diversity_help,
    lam_of,
    methods_help,
    methods_of,
    methods_with,
    presets_of,
)
from reproduce.configs.run_config import FLAG_FIELDS
from reproduce.configs.targets import TARGETS, targets_help, targets_of
from reproduce.runs import folder as folders
from reproduce.runs.folder import UsageError
from reproduce.runs.match import finished_run
from reproduce.studies.experiment import run

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "method",
    "hypernetwork",
    methods_help(),
)
flags.DEFINE_string(
    "diversity",
    "weights",
    diversity_help(),
)
flags.DEFINE_string("target", None, targets_help())
flags.DEFINE_enum(
    "ablation",
    "nothing",
    list(ABLATIONS),
    "For --method=hypergan: what it goes without. Without the mixer, the codes of the layers are "
    "independent draws of their prior.",
)
flags.DEFINE_string(
    "match",
    None,
    "For --method=noise, noise_by_layer and apd: the folder of a finished run. The noise is scaled "
    "until networks are as far from their nearest neighbours as those of that run; apd learns the "
    "distribution of that run's networks.",
)
flags.DEFINE_float(
    "learning_rate",
    None,
    "Learning rate of the first step, or after --warmup_steps. Default: the preset's.",
)
flags.DEFINE_float(
    "learning_rate_left",
    None,
    "Fraction of the learning rate that is left after the last step; the rate does not restart. "
    "Default: the preset's.",
)
flags.DEFINE_enum(
    "learning_rate_schedule",
    None,
    [*SCHEDULES],
    "How the learning rate falls, without restarts. Default: the preset's.",
)
flags.DEFINE_integer(
    "warmup_steps",
    None,
    "Number of first steps in which the learning rate rises from 0, before it falls along a "
    "cosine. Default: the preset's.",
    lower_bound=0,
)
flags.DEFINE_integer(
    "networks_per_step",
    None,
    f"{methods_with('networks_per_step')}: N, the number of networks in a training step. Default: "
    "the preset's.",
    lower_bound=2,
)
flags.DEFINE_integer(
    "hypernetworks",
    None,
    f"{methods_with('hypernetworks')}: the number of hypernetworks, each of which has as many "
    "networks in a training step as with the preset. Default: the preset's.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "images_per_network",
    None,
    "B, the number of images of each network in a training step. Default: the preset's. "
    "Validations, checkpoints and snapshots stay as many images apart, and a learning rate that "
    "rises does so for as many.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "crop_margin",
    None,
    "Largest shift of a training image in pixels, for data sets whose images are changed at random "
    "(such as CIFAR). He et al. (2016) take 4. Default: the preset's.",
    lower_bound=0,
    upper_bound=31,  # of 32: something of the image stays
)
flags.DEFINE_enum(
    "optimizer",
    None,
    [*OPTIMIZERS],
    f"{methods_with('optimizer')}. Default: the preset's; state --learning_rate too, whose size "
    "depends on it.",
)
flags.DEFINE_float(
    "momentum",
    None,
    f"{methods_with('momentum')}: momentum of --optimizer=sgd. Default: the preset's.",
)
flags.DEFINE_float(
    "l2",
    None,
    f"{methods_with('l2')}: each network's loss gets l2 / 2 times the sum of its squared weights, "
    "before --lam multiplies it. This is often called weight decay; He et al. (2016) take 1e-4. "
    "That of HyperGAN's generators, in its preset paper, stays. Default: the preset's.",
)
flags.register_validator(
    "learning_rate",
    lambda value: value is None or SMALLEST <= value < LARGEST,
    f"the learning rate is a number from {SMALLEST:g} to {LARGEST:g}",
)
flags.register_validator(
    "learning_rate_left",
    lambda value: value is None or 0 <= value <= 1,  # NaN is neither
    "the fraction that is left is from 0 to 1",
)
flags.register_validator(
    "momentum", lambda value: value is None or 0 <= value < 1, "momentum is from 0 to below 1"
)
flags.register_validator(
    "l2", lambda value: value is None or 0 <= value < LARGEST, f"l2 is from 0 to {LARGEST:g}"
)
FLAG_MODULES = (shared_flags, analysis_flags, device_flags)


def target(experiment: str | None = None) -> str:
    """The target that is asked for.

    Args:
        experiment: Name of the experiment whose targets are possible; None for all targets, by
            default that of MNIST.

    Raises:
        UsageError: There is no such target.
    """
    names = list(TARGETS) if experiment is None else targets_of(experiment)
    if FLAGS.target is None:
        return names[0]
    if FLAGS.target not in names:
        raise UsageError(f"there is no target '{FLAGS.target}': choose from {', '.join(names)}")
    return FLAGS.target


def use_data_of(experiment: str) -> None:
    """Make an experiment's data set the default of `--dataset`.

    Args:
        experiment: Name of the experiment.
    """
    FLAGS.set_default("dataset", EXPERIMENTS[experiment].dataset)


def check_preset(experiment: str, method: str, name: str) -> None:
    """Check that a method has a preset.

    Args:
        experiment: Name of the experiment.
        method: Name of the method.
        name: Name of the preset.

    Raises:
        UsageError: The method has no such preset.
    """
    known = presets_of(experiment, method)
    if name not in known:
        raise UsageError(
            f"the method {method} has no preset '{name}': choose from {', '.join(known)}"
        )


def config_from_flags(experiment: str) -> RunConfig:
    """The configuration that the flags ask for; says on stdout which data set `auto` became.

    Args:
        experiment: Name of the experiment.

    Raises:
        UsageError: An unknown method, or a flag that the method does not have.
    """
    names = methods_of(experiment)
    if FLAGS.method not in names:
        raise UsageError(f"there is no method '{FLAGS.method}': choose from {', '.join(names)}")
    if FLAGS.diversity not in DIVERSITY:
        raise UsageError(
            f"there is no diversity '{FLAGS.diversity}': choose from {', '.join(DIVERSITY)}"
        )
    method = METHODS[FLAGS.method]
    for name in METHOD_FLAGS:
        if FLAGS[name].present and name not in method.flags:
            raise UsageError(f"--{name} is not used by --method={method.name}: remove it")
    if "match" in method.flags and not FLAGS.match:
        raise UsageError(
            f"--method={method.name} needs --match, the folder of a finished run "
            + (
                "whose networks it learns"
                if method.learns_match
                else "whose distances its networks are to have"
            )
        )
    check_preset(experiment, method.name, FLAGS.preset)
    name = target(experiment)
    config = preset(
        experiment,
        FLAGS.method,
        FLAGS.preset,
        target=name,
        dataset=shared_flags.dataset(TARGETS[name].image_shape),
        steps=FLAGS.steps,
    )
    if FLAGS["num_networks"].present and config.num_networks == 1:
        raise UsageError(
            f"--num_networks is not used by --method={method.name}, which is one network: remove it"
        )
    step = {name: FLAGS[name].value for name in ("networks_per_step", "images_per_network")}
    if FLAGS.hypernetworks is not None:
        of_each = config.networks_per_step // config.hypernetworks
        step["networks_per_step"] = of_each * FLAGS.hypernetworks
    if any(step.values()):
        config = config.with_step_of(**{k: v or getattr(config, k) for k, v in step.items()})
    of_row = {"dataset", "method", "preset", "target", *step}
    given = {n: FLAGS[n].value for n in FLAG_FIELDS if FLAGS[n].present and n not in of_row}
    diversity = given.get("diversity", config.diversity)
    if "lam" in method.flags and "lam" not in given and diversity != config.diversity:
        given["lam"] = lam_of(config, diversity)
    if {"learning_rate_left", "learning_rate_schedule"} & given.keys():
        given["restart_every"] = 0
    if given.get("learning_rate_schedule") == "exponential":
        given.setdefault("warmup_steps", 0)
        falls_to_zero = config.learning_rate_schedule == "cosine" and not config.learning_rate_left
        if falls_to_zero and "learning_rate_left" not in given:
            raise UsageError(
                "--learning_rate_schedule=exponential needs --learning_rate_left, the fraction "
                "that is left: add it"
            )
    config = dataclasses.replace(config, **given)
    check_schedule(config)
    if FLAGS["crop_margin"].present and not config.augment:
        raise UsageError(
            f"--crop_margin is not used with --dataset={config.dataset}, whose images are not "
            "changed: remove it"
        )
    return config


def check_schedule(config: RunConfig) -> None:
    """Check that optimizer and schedule use the flags that were given for them.

    Args:
        config: Configuration of the training.

    Raises:
        UsageError: A flag has no meaning with the others, or the rate rises for too many steps.
    """
    if FLAGS.learning_rate_left == 0 and config.learning_rate_schedule != "cosine":
        raise UsageError(
            "--learning_rate_left=0 needs --learning_rate_schedule=cosine: a factor does not lead "
            "to 0"
        )
    if FLAGS["momentum"].present and config.optimizer != "sgd":
        raise UsageError("--momentum needs --optimizer=sgd: add it")
    if config.warmup_steps:
        if config.learning_rate_schedule != "cosine" or config.restart_every:
            raise UsageError("--warmup_steps needs --learning_rate_schedule=cosine: add it")
        if config.warmup_steps >= config.steps:
            raise UsageError(
                f"--warmup_steps={config.warmup_steps} is not below the {config.steps:,} steps of "
                "the training: choose fewer"
            )


def default_folder(config: RunConfig) -> pathlib.Path:
    """Named after what differs from the preset, which method and preset themselves stand for.

    Args:
        config: Configuration of the run.
    """
    experiment = EXPERIMENTS[config.experiment]
    plain = preset(
        config.experiment, config.method, config.preset, target=config.target, steps=config.steps
    )
    others = set(METHOD_FLAGS) - set(METHODS[config.method].flags)  # follow from its own
    names = [name for name in (*FLAG_FIELDS, "restart_every") if name not in others]
    settings = {name: getattr(config, name) for name in names}
    if config.match:
        settings["match"] = pathlib.Path(config.match).name  # no slashes
    defaults = {name: getattr(plain, name) for name in names}
    defaults |= {
        "method": "hypernetwork",
        "preset": "paper",
        "target": targets_of(experiment.name)[0],
        "dataset": "mnist" if experiment.dataset == "auto" else experiment.dataset,
    }
    return pathlib.Path("runs", folders.folder_name(config.experiment, settings, defaults))


def main(experiment: str) -> None:
    """Run the command of an experiment.

    Args:
        experiment: Name of the experiment.
    """
    analyses = analysis_flags.requested()
    # Flags that describe a training; without any of them, analyses are those of a finished run.
    training = {"steps", *FLAG_FIELDS} - {"num_networks", "jit_compile"}
    described = any(FLAGS[name].present for name in training)
    trains = described or not (analyses and FLAGS.run_dir)
    if trains:
        config = config_from_flags(experiment)
        folder = pathlib.Path(FLAGS.run_dir) if FLAGS.run_dir else default_folder(config)
        if config.match:
            config = dataclasses.replace(config, match=os.path.relpath(config.match, folder))
    else:
        folder = pathlib.Path(FLAGS.run_dir)
        config = finished_run(folder)
        device_flags.refuse("the analysis of a finished run")
    settings = analysis_flags.settings(perform.names_of(analyses), trains=trains)
    execution = device_flags.execution(config.jit_compile)
    metrics = run(
        config, folder, FLAGS.data_dir, analyses=analyses, settings=settings, execution=execution
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
