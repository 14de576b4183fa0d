"""Names of data sets, of some of their classes, and of some of their training images."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence

import numpy as np

from hypernet_tf.data.errors import DataError
from hypernet_tf.data.registry import DatasetOption, option_of
from hypernet_tf.data.splits import Dataset, Split

FEWEST_VALIDATION_IMAGES = 500  # that stay where training takes some of them


@dataclasses.dataclass(frozen=True)
class Selection:
    """A data set, some of its classes, or some of its training images.

    Its text is `NAME`, `NAME:CLASSES` or `NAME:COUNT`. `CLASSES` are numbers and ranges of classes,
    as in `mnist:0-4` and `mnist:0,3,7`. `COUNT` is one number that no class has, as in
    `mnist:5000`: the number of training images. If the data set has fewer for training, the others
    are taken from the validation images. `str` gives the shortest text: that of `mnist:0,1,2` is
    `mnist:0-2`, and that of all classes is the name.

    Args:
        name: Name of the data set, a key of `DATASETS`, or `auto`.
        classes: Numbers of the classes, increasing; () for all.
        num_train: Number of training images; None for all.

    Example:
        >>> selection = Selection.parse("cifar10:5-9")
        >>> selection.name, selection.classes, str(selection.others())
        ('cifar10', (5, 6, 7, 8, 9), 'cifar10:0-4')
        >>> Selection.parse("mnist:5000")
        Selection(name='mnist', classes=(), num_train=5000)
    """

    name: str
    classes: tuple[int, ...] = ()
    num_train: int | None = None

    @staticmethod
    def join(parts: Sequence[str]) -> list[str]:
        """Texts of selections that were divided at commas: `mnist:0,3,7` is one.

        Args:
            parts: What stands between the commas.

        Example:
            >>> Selection.join("mnist:0,3,7,glyphs".split(","))
            ['mnist:0,3,7', 'glyphs']
        """
        joined: list[str] = []
        for part in parts:
            if joined and part[:1].isdigit():
                joined[-1] += f",{part}"
            else:
                joined.append(part)
        return joined

    @classmethod
    def parse(cls, text: str) -> Selection:
        """The selection that a text stands for.

        Args:
            text: `NAME`, `NAME:CLASSES` or `NAME:COUNT`.

        Raises:
            DataError: The name or a class is unknown, or the text has another form.
        """
        name, colon, part = text.partition(":")
        option = option_of(name)
        if not colon:
            return cls(name)
        if not re.fullmatch(r"\d{1,9}(-\d{1,9})?(,\d{1,9}(-\d{1,9})?)*", part, re.ASCII):
            raise DataError(
                f"Cannot read {text!r}: give classes, as {name}:0-4 or {name}:0,3,7, or a number "
                f"of training images, as {name}:5000."
            )
        total = option.num_classes
        if part.isdigit() and int(part) >= total:
            if not option.trains:
                raise DataError(
                    f"Cannot select training images: {name} has none. Its classes are 0 to "
                    f"{total - 1}."
                )
            return cls(name, num_train=int(part))
        chosen: set[int] = set()
        for item in part.split(","):
            first, _, last = item.partition("-")
            start, end = int(first), int(last or first)
            if end >= total or start > end:
                raise DataError(
                    f"Unknown classes {item!r} of {name}: its classes are 0 to {total - 1}."
                )
            chosen.update(range(start, end + 1))
        return cls(name, tuple(sorted(chosen)) if len(chosen) < total else ())

    def __str__(self) -> str:
        part = self.num_train or _ranges(self.classes)
        return f"{self.name}:{part}" if part else self.name

    @property
    def option(self) -> DatasetOption:
        """The entry of the whole data set."""
        return option_of(self.name)

    def others(self) -> Selection | None:
        """The other classes of the data set; None if all are selected."""
        if not self.classes:
            return None
        others = set(range(self.option.num_classes)).difference(self.classes)
        return Selection(self.name, tuple(sorted(others)))

    def apply(self, dataset: Dataset) -> Dataset:
        """The selected part of the whole data set.

        Classes keep their names and are numbered from 0. Training images are chosen at random with
        seed 0, each class in proportion. A number above that of the training images takes all, and
        the first of the validation images. Test images stay.

        Args:
            dataset: The whole data set.

        Raises:
            DataError: Too few images are left for validation, or there are not so many.
        """
        if self.classes:
            return dataclasses.replace(
                dataset,
                name=str(self),
                classes=tuple(dataset.classes[k] for k in self.classes),
                train=self._of_classes(dataset.train),
                validation=self._of_classes(dataset.validation),
                test=self._of_classes(dataset.test),
            )
        if self.num_train is None:
            return dataset
        train, validation = dataset.train, dataset.validation
        moved = max(0, self.num_train - len(train))
        most = len(train) + max(0, len(validation) - FEWEST_VALIDATION_IMAGES)
        if self.num_train > most:
            raise DataError(
                f"Cannot select {self.num_train:,} training images: {self.name} has {most:,} "
                "beside those for validation. Ask for fewer."
            )
        if moved:
            pairs = ((train.images, validation.images), (train.labels, validation.labels))
            train = Split(*(np.concatenate([first, more[:moved]]) for first, more in pairs))
            validation = validation[moved:]
        else:
            train = train[stratified(train.labels, self.num_train, seed=0)]
        return dataclasses.replace(dataset, name=str(self), train=train, validation=validation)

    def _of_classes(self, split: Split) -> Split:
        chosen = np.isin(split.labels, self.classes)
        return Split(split.images[chosen], np.searchsorted(self.classes, split.labels[chosen]))


def title(name: str) -> str:
    """What a table or figure calls a data set.

    Args:
        name: Name as for `load`; another one, such as that of a data set of your own, stays.

    Example:
        >>> title("cifar10_jpeg:0-4"), title("mnist:5000"), title("noise")
        ('CIFAR-10 (JPEG), classes 0-4', 'mnist, 5,000 training images', 'noise')
    """
    try:
        selection = Selection.parse(name)
    except DataError:
        return name
    text = selection.option.title or selection.name
    if selection.num_train:
        return f"{text}, {selection.num_train:,} training images"
    return f"{text}, classes {_ranges(selection.classes)}" if selection.classes else text


def stratified(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Choose examples at random, of each class in proportion.

    Args:
        labels: Labels [M].
        count: Number of examples, at most M.
        seed: Seed of the choice.

    Returns:
        Increasing indices [count].
    """
    from sklearn.utils import resample  # takes time to load

    everything = np.arange(len(labels))
    if count == 0:
        return everything[:0]  # which `resample` cannot choose
    return np.sort(
        resample(everything, replace=False, n_samples=count, stratify=labels, random_state=seed)
    )


def _ranges(numbers: tuple[int, ...]) -> str:
    """Increasing numbers, neighbours as a range: "0-4,7"."""
    runs = itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0])
    ends = [[number for _, number in run] for _, run in runs]
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in ends)
