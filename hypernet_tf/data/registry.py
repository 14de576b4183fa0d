"""The one table of data sets that have a name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from hypernet_tf.data.errors import DataError
from hypernet_tf.data.splits import Dataset

AUTO = "auto"  # mnist or, where that is not available, mnist_5k


@dataclasses.dataclass(frozen=True)
class DatasetOption:
    """A data set with a name, for `load` and the commands.

    Attributes:
        name: Its name.
        read: Function (folder of data sets) -> all images. It raises a `DataError` where they are
            not available.
        image_shape: Shape of the images [height, width, channels].
        num_classes: Number of classes, at least 2.
        title: What tables and figures call it; "" for the name.
        trains: Whether it has images for training. If not, it tests networks on what they do not
            know.
        augment: How the commands change training images at random: "" for not at all, "shift" by a
            few pixels, "shift_and_mirror" where left and right mean the same.
        copy_of: Name of the data set whose images it has, some of them or changed; "" for none.
        ood: Names of the data sets that are out of distribution for networks trained on this one,
            without `--ood`.
    """

    name: str
    read: Callable[[Path], Dataset]
    image_shape: tuple[int, int, int]
    num_classes: int
    title: str = ""
    trains: bool = True
    augment: Literal["", "shift", "shift_and_mirror"] = ""
    copy_of: str = ""
    ood: tuple[str, ...] = ("glyphs", "noise")

    @property
    def original(self) -> str:
        """Name of the data set whose images it has: its own, if it is not a copy."""
        return self.copy_of or self.name


DATASETS: dict[str, DatasetOption] = {}


def register_dataset(option: DatasetOption) -> DatasetOption:
    """Make a data set available by its name, to `load` and to the commands.

    Args:
        option: The data set.

    Raises:
        ValueError: The name is taken or cannot be a name, or there are fewer than 2 classes.

    Example:
        >>> flowers = DatasetOption(
        ...     "flowers",
        ...     read=lambda root: from_folder(root / "flowers", (32, 32, 3)),
        ...     image_shape=(32, 32, 3),
        ...     num_classes=5,
        ...     augment="shift_and_mirror",
        ... )
        >>> register_dataset(flowers)  # doctest: +SKIP
    """
    if option.name in (AUTO, "noise", *DATASETS):
        raise ValueError(f"Cannot register the data set '{option.name}' twice: choose another name")
    if not re.fullmatch(r"[A-Za-z][\w-]*", option.name, re.ASCII):
        raise ValueError(
            f"Cannot register a data set named '{option.name}': use letters, digits, - and _, and "
            "begin with a letter"
        )
    if option.num_classes < 2:
        raise ValueError(
            f"Cannot register the data set '{option.name}' with num_classes={option.num_classes}: "
            "give at least 2"
        )
    DATASETS[option.name] = option
    return option


def option_of(name: str) -> DatasetOption:
    """The entry of a data set; that of mnist for `auto`.

    Args:
        name: Its name.

    Raises:
        DataError: There is no such data set.
    """
    key = "mnist" if name == AUTO else name
    if key not in DATASETS:
        raise DataError(
            f"Unknown data set {name!r}: choose one of {', '.join((AUTO, *DATASETS))}, "
            "or register one (register_dataset)."
        )
    return DATASETS[key]


def fits(images: tuple[int, ...], networks: tuple[int, ...]) -> bool:
    """Whether `pad_to` makes images of one shape into images of another.

    Args:
        images: Shape of the images [height, width, channels].
        networks: Shape of the networks' images. Smaller images are padded, and grey ones become
            colour images.
    """
    return images[0] <= networks[0] and images[1] <= networks[1] and images[2] in (1, networks[2])


def names_for(image_shape: tuple[int, int, int] | None = None) -> tuple[str, ...]:
    """Names of the data sets on which networks can be trained, `auto` first where it fits.

    Args:
        image_shape: Shape of the networks' images [height, width, channels]; None for all data
            sets. Smaller images are padded, and grey ones become colour images.

    Example:
        >>> names_for((28, 28, 1))
        ('auto', 'mnist', 'mnist_5k', 'fashion_mnist')
    """
    fitting = [
        name
        for name, option in DATASETS.items()
        if option.trains and (image_shape is None or fits(option.image_shape, image_shape))
    ]
    return (*([AUTO] if "mnist" in fitting else ()), *fitting)
