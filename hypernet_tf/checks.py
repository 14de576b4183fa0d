"""Checks of what users give: counts, numbers, sizes and choices."""

from __future__ import annotations

import numbers
from typing import Any, get_args


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, NumPy's included."""
    return isinstance(value, numbers.Integral)


def is_number(value: Any) -> bool:
    """Whether a value is a real number, NumPy's included."""
    return isinstance(value, numbers.Real)


def check_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number as an int, checked.

    Args:
        name: Name of the argument, for the error.
        value: What the user gave.
        least: The smallest number allowed.

    Raises:
        ValueError: It is not a whole number, or smaller.
    """
    if not is_whole(value) or value < least:
        raise ValueError(f"{name} is {value!r}: give a whole number, at least {least}.")
    return int(value)


def check_number(name: str, value: Any, *, above_zero: bool = True) -> None:
    """Check that a value is a finite number.

    Args:
        name: Name of the argument, for the error.
        value: What the user gave.
        above_zero: Whether it must be above 0; otherwise 0 is allowed.

    Raises:
        ValueError: It is not a number, negative or not finite.
    """
    if not is_number(value) or not 0 <= value < float("inf") or (above_zero and value == 0):
        wanted = "above 0" if above_zero else "that is not negative"
        raise ValueError(f"{name} is {value!r}: give a finite number {wanted}.")


def check_choice(name: str, value: Any, kind: Any) -> None:
    """Check that a value is one of those of a `Literal` type.

    Args:
        name: Name of the argument, for the error.
        value: What the user gave.
        kind: The type.

    Raises:
        ValueError: It is another one.
    """
    known = get_args(kind)
    if value not in known:
        raise ValueError(f"Unknown {name}={value!r}: choose {' or '.join(map(repr, known))}.")


def check_sizes(name: str, value: Any) -> tuple[int, ...]:
    """Numbers of hidden units, checked.

    Args:
        name: Name of the argument, for the error.
        value: What the user gave.

    Raises:
        ValueError: It is not a list of whole numbers above 0.
    """
    if not isinstance(value, list | tuple) or not all(is_whole(n) and n > 0 for n in value):
        raise ValueError(f"{name} is {value!r}: give a list of sizes, such as (100, 100).")
    return tuple(map(int, value))


def per_layer(name: str, value: Any, layers: list[str], *, same: bool) -> list:
    """The values of an argument for each layer.

    Args:
        name: Name of the argument, for the error.
        value: What the user gave.
        layers: Names of the layers.
        same: Whether all layers have this value, rather than one each of a list.

    Raises:
        ValueError: It is not a list, or has other than one entry for each layer.
    """
    if not same and not isinstance(value, list | tuple):
        raise ValueError(f"{name} is {value!r}: give whole numbers, or a list for each layer.")
    values = [value] * len(layers) if same else list(value)
    if len(values) != len(layers):
        raise ValueError(
            f"{name} has {len(values)} entries: give one for each of the {len(layers)} weighted "
            f"layers {', '.join(layers)}."
        )
    return values


def check_sizes_per_layer(name: str, value: Any, layers: list[str]) -> list[tuple[int, ...]]:
    """Numbers of hidden units for each layer, checked: one list for all, or a list of lists.

    Args:
        name: Name of the argument, for the error.
        value: What the user gave.
        layers: Names of the layers.

    Raises:
        ValueError: It is neither, or has other than one list for each layer.
    """
    nested = isinstance(value, list | tuple) and not all(map(is_whole, value))
    return [check_sizes(name, sizes) for sizes in per_layer(name, value, layers, same=not nested)]


def check_fixed(sampler: Any, options: dict[str, Any], **values: Any) -> None:
    """Take options that a kind of sampler sets itself out of those that the user gave.

    Args:
        sampler: The sampler.
        options: What the user gave, by name.
        values: What the sampler sets, by name.

    Raises:
        TypeError: The user gave one another value.
    """
    for name, value in values.items():
        given = options.pop(name, value)
        if (list(given) if isinstance(given, tuple) else given) != value:
            raise TypeError(f"{type(sampler).__name__} sets {name}={value!r} itself: leave it out.")
