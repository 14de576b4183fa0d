"""The experiments, one for each command."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment with a command of its own.

    Attributes:
        name: Name of the experiment, of its command and of its run folders.
        dataset: Name of the default data set.
        watch_test: Whether each validation also evaluates the test images, for tables that print
            the best of a run.
    """

    name: str
    dataset: str
    watch_test: bool = False


EXPERIMENTS = {
    "mnist": Experiment(name="mnist", dataset="auto"),
    "cifar": Experiment(name="cifar", dataset="cifar10", watch_test=True),
}
