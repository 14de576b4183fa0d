"""Trained samplers that come with the package."""

from __future__ import annotations

import hashlib
import json
import pathlib
from typing import Literal

import keras

from hypernet_tf.checks import check_choice
from hypernet_tf.samplers.hypernetwork.hypernetwork import Hypernetwork

Name = Literal["mnist"]

_FOLDER = pathlib.Path(__file__).parent


def load_pretrained(name: Name = "mnist") -> Hypernetwork:
    """A trained hypernetwork, in a second: sample from it, or train it further.

    `mnist` is the default hypernetwork for the papers' MNIST target, trained for 2,000 steps on
    55,000 images with the preset `fast` of `reproduce.mnist`. It is not compiled. All digits of
    `hn.data.load("mnist_5k")` are among MNIST's training images: evaluate it on the test images of
    `hn.data.load("mnist")`.

    Args:
        name: Name of a file in the package.

    Raises:
        ValueError: The name is unknown, or the file is missing or damaged.

    Example:
        >>> ensemble = load_pretrained("mnist").sample(1_000)
        >>> ensemble.predict(images)                           # [M, 28, 28, 1], pixels in [0, 1]

    Reference: the file is made by `python -m hypernet_tf.pretrained` (see BUILD.md).
    """
    check_choice("name", name, Name)
    path = _FOLDER / f"{name}.keras"
    try:
        digest = json.loads(path.with_suffix(".json").read_text())["sha256"]
        whole = hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except (OSError, ValueError, KeyError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is missing or damaged: install the package again.")
    return keras.saving.load_model(path)
