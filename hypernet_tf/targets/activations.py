"""What is known about each activation function of Keras.

Adding an activation function is one row of `ACTIVATIONS`. A function that is not listed is
supported too: it runs network by network, and the channels that it changes keep their gauge.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class ActivationTraits:
    """What is known about an activation function.

    Attributes:
        homogeneous: Whether f(s·x) = s·f(x) for all s > 0, number by number.
        elementwise: Whether it treats each number by itself, and all numbers alike.
        per_example: Whether it treats each example of a batch by itself.
    """

    homogeneous: bool = False
    elementwise: bool = False
    per_example: bool = False


_HOMOGENEOUS = ActivationTraits(homogeneous=True, elementwise=True, per_example=True)
_ELEMENTWISE = ActivationTraits(elementwise=True, per_example=True)
_PER_EXAMPLE = ActivationTraits(per_example=True)

# By the names under which `keras.activations.get` knows the functions.
ACTIVATIONS: dict[str, ActivationTraits] = {
    "linear": _HOMOGENEOUS,
    "relu": _HOMOGENEOUS,
    "leaky_relu": _HOMOGENEOUS,
    "celu": _ELEMENTWISE,
    "elu": _ELEMENTWISE,
    "exponential": _ELEMENTWISE,
    "gelu": _ELEMENTWISE,
    "hard_shrink": _ELEMENTWISE,
    "hard_sigmoid": _ELEMENTWISE,
    "hard_silu": _ELEMENTWISE,
    "hard_tanh": _ELEMENTWISE,
    "log_sigmoid": _ELEMENTWISE,
    "mish": _ELEMENTWISE,
    "relu6": _ELEMENTWISE,
    "selu": _ELEMENTWISE,
    "sigmoid": _ELEMENTWISE,
    "silu": _ELEMENTWISE,
    "soft_shrink": _ELEMENTWISE,
    "softplus": _ELEMENTWISE,
    "softsign": _ELEMENTWISE,
    "sparse_plus": _ELEMENTWISE,
    "sparse_sigmoid": _ELEMENTWISE,
    "squareplus": _ELEMENTWISE,
    "tanh": _ELEMENTWISE,
    "tanh_shrink": _ELEMENTWISE,
    "glu": _PER_EXAMPLE,
    "log_softmax": _PER_EXAMPLE,
    "softmax": _PER_EXAMPLE,
    "sparsemax": _PER_EXAMPLE,
}

_BY_FUNCTION = {keras.activations.get(name): traits for name, traits in ACTIVATIONS.items()}


def activation_traits(activation: Any) -> ActivationTraits:
    """What is known about an activation: nothing unless it is one of Keras's own functions.

    Args:
        activation: A function, or a layer that is used as one.
    """
    for function, traits in _BY_FUNCTION.items():
        if function is activation:
            return traits
    return ActivationTraits()
