"""A data set: images and labels in three splits."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

import numpy as np

VALIDATION_IMAGES = 5_000  # split off the end of the training images


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Args:
        images: Images uint8 [M, H, W, C], pixels from 0 to 255.
        labels: Labels int64 [M], the index of each image's class; -1 without classes.

    Example:
        >>> split = Split(np.full([2, 28, 28, 1], 255, np.uint8), np.array([3, 7]))
        >>> len(split), split.x.max().item(), split[1:].y.tolist()
        (2, 1.0, [7])
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: slice | np.ndarray) -> Split:
        """Some of the images: a slice, or an array of indices.

        Raises:
            TypeError: The index is a single number.
        """
        if isinstance(index, numbers.Integral):
            raise TypeError(f"A split has no image {index} alone: use split[{index}:{index + 1}].")
        return Split(self.images[index], self.labels[index])

    @property
    def x(self) -> np.ndarray:
        """Images as float32 [M, H, W, C] in [0, 1] (pixels/255), computed at each access."""
        return np.divide(self.images, 255, dtype=np.float32)

    @property
    def y(self) -> np.ndarray:
        """Labels, int64 [M]."""
        return self.labels


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in three splits, and its source. One that is only for tests has one split.

    Args:
        name: Name of the data set, never `auto`.
        source: Source of the images, one line.
        classes: Name of each class, in the order of the labels.
        train: Images for training.
        validation: Images for the choice of settings.
        test: Images for reported results.
    """

    name: str
    source: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split

    @classmethod
    def to_test(cls, name: str, source: str, classes: tuple[str, ...], test: Split) -> Dataset:
        """A data set whose train and validation splits are empty."""
        empty = test[:0]
        return cls(name, source, classes, empty, empty, test)

    def summary(self) -> dict[str, Any]:
        """Name, source and the number of images of each split, for a JSON file."""
        sizes = {part: len(getattr(self, part)) for part in ("train", "validation", "test")}
        return {"name": self.name, "source": self.source, **sizes}
