"""The targets of the experiments, each with the hypernetwork that is published for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

import hypernet_tf as hn


class TargetKind(NamedTuple):
    """A target of the experiments.

    Attributes:
        make: Function (image shape, number of classes) -> Keras model.
        hypernetwork: Arguments of the `Hypernetwork` that is published for it.
        initializers: Initializers of single networks, by the name of the variable; see
            `DeepEnsemble`.
        image_shape: Shape of the images that it takes.
        hypergan: Arguments of the `HyperGAN` for it, where they are not the defaults.
    """

    make: Callable[[tuple[int, int, int], int], keras.Model]
    hypernetwork: dict[str, Any]
    initializers: dict[str, Any]
    image_shape: tuple[int, int, int]
    hypergan: dict[str, Any]


_COLOUR = (32, 32, 3)
_COLOUR_HYPERGAN = {"generator_activation": "relu"}
# The sizes of LeNet's generators are published; those of ResNet-32 are inferred from their numbers
# of parameters, which they come near to. The sizes of z and of the extractor are not known: these
# give its published number of parameters, 107,200 for LeNet and 2,935,200 for ResNet-32. The
# initialization is our choice; see docs/results/recipes.md.
_LENET: dict[str, Any] = {
    "latent_dim": 108,
    "latent_distribution": "normal",
    "code_dim": 8,
    "extractor_hidden": (80, 80),
    "generator_hidden": (400, 400),
    "whole_layers": (-2, -1),
    "initialization": "model",
    "gauge_epsilon": 1e-16,
}
_RESNET32: dict[str, Any] = {
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
}

TARGETS = {
    "mnist": TargetKind(
        lambda shape, classes: hn.zoo.mnist(classes),
        {
            "latent_dim": 300,
            "code_dim": 15,
            "extractor_hidden": (300, 300),
            "generator_hidden": [(40, 40), (100, 100), (100, 100), (60, 60)],
            "initialization": "published",
        },
        # Initializers of the single network that the paper compares with.
        {
            "kernel": keras.initializers.TruncatedNormal(stddev=0.1),
            "bias": keras.initializers.Constant(0.1),
        },
        (28, 28, 1),
        {},
    ),
    "lenet": TargetKind(hn.zoo.lenet, _LENET, {}, _COLOUR, _COLOUR_HYPERGAN),
    "lenet_normalized": TargetKind(
        lambda shape, classes: hn.zoo.lenet(shape, classes, normalize=True),
        _LENET,
        {},
        _COLOUR,
        _COLOUR_HYPERGAN,
    ),
    "resnet32": TargetKind(hn.zoo.resnet32, _RESNET32, {}, _COLOUR, _COLOUR_HYPERGAN),
    "resnet32_b": TargetKind(
        lambda shape, classes: hn.zoo.resnet32(shape, classes, shortcuts="B"),
        _RESNET32,
        {},
        _COLOUR,
        _COLOUR_HYPERGAN,
    ),
}
