"""What is analysed: a sampler, its data set and the settings; and what analyses share."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from tqdm import tqdm

import hypernet_tf as hn
from reproduce.analyses.base import Limits, Setting
from reproduce.runs.folder import UsageError

# Predictions (one network on one image) that take about eight minutes on two cores.
MOST_PREDICTIONS = 8_000_000


def _num_networks(value: int, limits: Limits) -> int:
    if limits.num_available is not None and value > limits.num_available:
        raise UsageError(
            f"Cannot sample {value} networks: this sampler holds {limits.num_available}."
        )
    return value


def _ensembles(value: int | None, limits: Limits) -> int:
    if limits.num_available is not None:
        if (value or 1) > 1:
            raise UsageError(
                f"Cannot sample {value} ensembles: this sampler holds one, of "
                f"{limits.num_available} networks. Remove --ensembles."
            )
        return 1
    affordable = MOST_PREDICTIONS // (limits.num_networks * limits.num_images)
    return value or min(20, max(2, affordable))


NUM_NETWORKS = Setting(
    "num_networks", 200, "Number of networks of an ensemble.", lower_bound=2, resolve=_num_networks
)
ENSEMBLES = Setting(
    "ensembles",
    None,
    "Number of ensembles to compare. Default: 20, or fewer (at least 2) if 20 need more than about "
    "eight minutes on two cores; the report says how many.",
    lower_bound=2,
    resolve=_ensembles,
    basic=1,
)


class Subject:
    """A sampler, its data set and the resolved settings; ensembles are evaluated only once.

    Attributes:
        sampler: Sampler whose networks are analysed.
        dataset: Data set on which the sampler was trained.
        test: Test images of the data set.
        settings: Name of a setting -> resolved value.
        data_dir: Folder of other data sets, see `hypernet_tf.data.load`.
    """

    def __init__(
        self,
        sampler: hn.WeightSampler,
        dataset: hn.data.Dataset,
        settings: Mapping[str, Any],
        data_dir: str | None = None,
    ):
        self.sampler = sampler
        self.dataset = dataset
        self.test = dataset.test
        self.settings = settings
        self.data_dir = data_dir
        self._evaluations: dict[int, hn.Evaluation] = {}

    def restricted_to(self, settings: Iterable[Setting]) -> Subject:
        """The same subject with these settings only.

        An analysis cannot read a setting that it does not name, and so its result depends on those
        that it names. Evaluations are shared.

        Args:
            settings: Settings to keep.
        """
        restricted = copy.copy(self)
        restricted.settings = {setting.name: self.settings[setting.name] for setting in settings}
        return restricted

    def ensemble(self, number: int = 0) -> hn.Ensemble:
        """An ensemble of the run.

        Args:
            number: Number of the ensemble: 0, 1, ...
        """
        return self.sampler.sample(self.settings[NUM_NETWORKS.name], seed=1 + number)

    def evaluation(self, number: int = 0) -> hn.Evaluation:
        """The evaluation of an ensemble on the test images; it is computed once.

        Args:
            number: Number of the ensemble: 0, 1, ...
        """
        if number not in self._evaluations:
            ensemble = self.ensemble(number)
            self._evaluations[number] = ensemble.evaluate(self.test.x, self.test.y, verbose=1)
        return self._evaluations[number]

    def evaluations(self) -> list[hn.Evaluation]:
        """The evaluations of all ensembles."""
        numbers = range(self.settings[ENSEMBLES.name])
        return [self.evaluation(number) for number in tqdm(numbers, "ensembles", leave=False)]
