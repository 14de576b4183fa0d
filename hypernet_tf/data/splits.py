"""What a data set is: images and labels in three splits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

VALIDATION_IMAGES = 5_000  # split off the end of the training images


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and their labels.

    Args:
        images: uint8 [M, H, W, C], pixels from 0 to 255.
        labels: int64 [M], the index of each image's class; -1 where it has none.

    Example:
        >>> split = Split(np.full([2, 28, 28, 1], 255, np.uint8), np.array([3, 7]))
        >>> len(split), split.x.max().item(), split.y.tolist()
        (2, 1.0, [3, 7])
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

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
    """A data set in three splits, and where it came from. One to test on has only a `test` split.

    Args:
        name: The data set's own name, never `auto`.
        source: One line: where the images came from.
        classes: The name of each class, in the order of the labels.
        train: Images to train on; validation: to choose settings by; test: to report on.
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
        empty = Split(test.images[:0], test.labels[:0])
        return cls(name, source, classes, empty, empty, test)

    def summary(self) -> dict[str, Any]:
        """Name, source and the number of images of each split, ready for a JSON file."""
        sizes = {part: len(getattr(self, part)) for part in ("train", "validation", "test")}
        return {"name": self.name, "source": self.source, **sizes}
