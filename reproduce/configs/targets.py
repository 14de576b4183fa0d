"""The targets of the experiments, each with the hypernetwork that is published for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras

import hypernet_tf as hn
from reproduce.configs.experiments import EXPERIMENTS


@dataclasses.dataclass(frozen=True)
class TargetOption:
    """A target of the experiments.

    Attributes:
        name: Value of `--target`.
        help: What it is, in the words of `--help`.
        experiment: Name of the experiment whose command trains it.
        make: Function (image shape, number of classes) -> Keras model that returns logits.
        image_shape: Shape of the images that it takes; smaller ones are padded, and grey ones
            become colour images where it takes those.
        like: Name of the target whose presets it takes where methods have none for it; "" for the
            experiment's first target.
        hypernetwork: Arguments of the `Hypernetwork` that is published for it.
        initializers: Initializers of single networks, by the name of the variable; see
            `DeepEnsemble`.
        hypergan: Arguments of the `HyperGAN` for it, where they are not the defaults.
    """

    name: str
    help: str
    experiment: str
    make: Callable[[tuple[int, int, int], int], keras.Model]
    image_shape: tuple[int, int, int]
    like: str = ""
    hypernetwork: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    initializers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    hypergan: Mapping[str, Any] = dataclasses.field(default_factory=dict)


TARGETS: dict[str, TargetOption] = {}


def register_target(target: TargetOption) -> TargetOption:
    """Make a target available to the commands of its experiment, to comparisons and sweeps.

    Args:
        target: The target.

    Raises:
        ValueError: Another target has its name, or it names an unknown experiment, or in `like` no
            target of its experiment.
    """
    if target.name in TARGETS:
        raise ValueError(f"Cannot register the target '{target.name}' twice: choose another name")
    if target.experiment not in EXPERIMENTS:
        raise ValueError(
            f"The target '{target.name}' is for the experiment '{target.experiment}': choose from "
            f"{', '.join(EXPERIMENTS)}"
        )
    if target.like and target.like not in targets_of(target.experiment):
        raise ValueError(
            f"The target '{target.name}' is like '{target.like}': choose from "
            f"{', '.join(targets_of(target.experiment))}"
        )
    TARGETS[target.name] = target
    return target


def targets_of(experiment: str) -> list[str]:
    """Names of the targets of an experiment, its default first.

    Args:
        experiment: Name of the experiment.
    """
    return [name for name, target in TARGETS.items() if target.experiment == experiment]


def build_target(name: str, classes: int, *, l2: float = 0.0) -> hn.Target:
    """The target of a run, which returns logits.

    Args:
        name: Name of the target.
        classes: Number of classes.
        l2: Factor of L2 in the gradient of the weights: a network's loss gets l2 / 2 times the sum
            of its squared weights.

    Raises:
        ValueError: A layer takes no regularizer, and `l2` is not 0.
    """
    kind = TARGETS[name]
    model = kind.make(kind.image_shape, classes)
    if l2:
        for layer in model._flatten_layers():
            for key in [key for key in vars(layer) if key.endswith("_regularizer")]:
                if "activity" not in key:
                    setattr(layer, key, keras.regularizers.L2(l2 / 2))
    target = hn.Target(model, outputs="logits")
    if l2 and None in target.regularizers:
        raise ValueError(f"a layer of the target '{name}' takes no regularizer: train without l2")
    return target


def experiment_of(dataset: str) -> str:
    """The experiment whose first target takes the images of a data set: the first such one.

    Args:
        dataset: Name of a data set for training, or of a part of it.

    Raises:
        DataError: The name is unknown, or no experiment has such images.
    """
    name = hn.data.Selection.parse(dataset).name
    for experiment in EXPERIMENTS:
        if name in hn.data.names_for(TARGETS[targets_of(experiment)[0]].image_shape):
            return experiment
    raise hn.data.DataError(
        f"No experiment trains on the images of {name}: choose another data set"
    )


def datasets_help() -> str:
    """The help of `--dataset`: all data sets on which networks can be trained."""
    return (
        f"One of {', '.join(hn.data.names_for())}, as far as the networks take its images. auto is "
        "full mnist where it is prepared or can be downloaded, otherwise mnist_5k, 5,000 real "
        "digits that need no download. NAME:0-4 and NAME:0,3,7 are some of its classes, NAME:5000 "
        "are 5,000 of its training images; above their number, the others are taken from the "
        "validation images."
    )


def targets_help() -> str:
    """The help of `--target`: all targets and what they are."""
    options = "; ".join(f"{name}: {target.help}" for name, target in TARGETS.items())
    return f"The network whose weights are generated. {options}. Default: the command's first."


register_target(
    TargetOption(
        name="mnist",
        help="the paper's network for digits, 20,018 weights",
        experiment="mnist",
        make=lambda shape, classes: hn.zoo.mnist(classes),
        image_shape=(28, 28, 1),
        hypernetwork={
            "latent_dim": 300,
            "code_dim": 15,
            "extractor_hidden": (300, 300),
            "generator_hidden": [(40, 40), (100, 100), (100, 100), (60, 60)],
            "initialization": "published",
        },
        # Initializers of the single network that the paper compares with.
        initializers={
            "kernel": keras.initializers.TruncatedNormal(stddev=0.1),
            "bias": keras.initializers.Constant(0.1),
        },
    )
)

# The sizes of LeNet's generators are published; those of ResNet-32 are inferred from their numbers
# of parameters, which they come near to. The sizes of z and of the extractor are not known: these
# give its published number of parameters, 107,200 for LeNet and 2,935,200 for ResNet-32. The
# initialization is our choice; see docs/results/recipes.md.
_LENET = register_target(
    TargetOption(
        name="lenet",
        help="LeNet, 62,006 weights",
        experiment="cifar",
        make=hn.zoo.lenet,
        image_shape=(32, 32, 3),
        hypernetwork={
            "latent_dim": 108,
            "latent_distribution": "normal",
            "code_dim": 8,
            "extractor_hidden": (80, 80),
            "generator_hidden": (400, 400),
            "whole_layers": (-2, -1),
            "initialization": "model",
            "gauge_epsilon": 1e-16,
        },
        hypergan={"generator_activation": "relu"},
    )
)
register_target(
    dataclasses.replace(
        _LENET,
        name="lenet_normalized",
        help="LeNet behind a normalisation of the colours",
        make=lambda shape, classes: hn.zoo.lenet(shape, classes, normalize=True),
        like="lenet",
    )
)
_RESNET32 = register_target(
    dataclasses.replace(
        _LENET,
        name="resnet32",
        help="ResNet-32 with shortcuts that have no weights, 465,290 weights",
        make=hn.zoo.resnet32,
        hypernetwork={
            "latent_dim": 388,
            "latent_distribution": "normal",
            "code_dim": 8,
            "extractor_hidden": (300, 300),
            "generator_hidden": (800, 800),
            "whole_layers": (-1,),
            "share_generators": True,
            "residual": True,
            "initialization": "model",
            "gauge_epsilon": 1e-16,
        },
    )
)
register_target(
    dataclasses.replace(
        _RESNET32,
        name="resnet32_b",
        help="ResNet-32 with convolutions as shortcuts",
        make=lambda shape, classes: hn.zoo.resnet32(shape, classes, shortcuts="B"),
        like="resnet32",
    )
)
