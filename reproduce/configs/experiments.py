"""The experiments: on which data sets."""

from __future__ import annotations

import dataclasses

import hypernet_tf as hn


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment with a command of its own.

    Attributes:
        name: Name of the experiment, of its command and of its run folders.
        datasets: Names of the data sets that fit its targets, whole or in part.
        dataset: Name of the default data set.
        augmented: Names of the data sets whose training images are augmented.
        watch_test: Whether each validation also evaluates the test images, for tables that print
            the best of a run.
    """

    name: str
    datasets: tuple[str, ...]
    dataset: str
    augmented: tuple[str, ...] = ()
    watch_test: bool = False


EXPERIMENTS = {
    "mnist": Experiment(name="mnist", datasets=hn.data.NAMES, dataset="auto"),
    "cifar": Experiment(
        name="cifar",
        datasets=hn.data.NAMES + hn.data.COLOUR_NAMES,
        dataset="cifar10",
        augmented=hn.data.COLOUR_NAMES,
        watch_test=True,
    ),
}
