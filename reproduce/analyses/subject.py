"""What is analysed: a sampler, the test images, and how much of everything is wanted."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from tqdm import tqdm

import hypernet_tf as hn
from reproduce.runs.folder import UsageError

# One network on one image is one run. So many take two cores about eight minutes.
_RUNS = 8_000_000


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much of everything; the defaults are the published numbers, but for images (10,000).

    Attributes:
        num_networks: of an ensemble.
        ensembles: how many; None for 20, or fewer (at least 2) where these are too many runs.
        scatter_networks: samples of the scatter matrices.
        colour: whether their points show the networks' accuracy.
        pairs: paths between how many pairs of networks.
        points: networks on a path.
        path_images: on how many of the first test images their accuracy is taken.
        adversarial_images: how many of the first test images are attacked.
        adversarial_networks: of the ensemble that looks at an attacked image.
        clip: whether attacked images are clipped to the pixel range.
        outside: data sets that networks are to find strange, with commas between; "" for the usual.
    """

    num_networks: int = 200
    ensembles: int | None = None
    scatter_networks: int = 3_000
    colour: bool = False
    pairs: int = 10
    points: int = 40
    path_images: int = 2_000
    adversarial_images: int = 1_000
    adversarial_networks: int = 100
    clip: bool = False
    outside: str = ""

    def resolved(self, most: int | None, images: int) -> Settings:
        """The settings with every number known: what two cores, or a finite sampler, allow.

        Args:
            most: how many networks the sampler has; None where there is no end to them.
            images: how many test images there are.

        Raises:
            UsageError: more networks in an ensemble, or other ensembles, than a finite sampler has.
        """
        settings = dataclasses.replace(
            self,
            path_images=min(self.path_images, images),
            adversarial_images=min(self.adversarial_images, images),
        )
        if most is None:
            count = min(20, max(2, _RUNS // (self.num_networks * images)))
            return dataclasses.replace(settings, ensembles=self.ensembles or count)
        if self.num_networks > most or (self.ensembles or 1) > 1:
            raise UsageError(
                f"{self.ensembles or 1} ensemble(s) of {self.num_networks} networks are not to be had: "
                f"this sampler has {most} in all"
            )
        return dataclasses.replace(
            settings,
            ensembles=1,
            scatter_networks=min(self.scatter_networks, most),
            pairs=max(1, min(self.pairs, most // 2)),
            adversarial_networks=min(self.adversarial_networks, most) if most > 1 else 0,
        )


class Subject:
    """A sampler to be analysed, the settings (resolved), and what several analyses share."""

    def __init__(
        self,
        sampler: hn.WeightSampler,
        dataset: hn.data.Dataset,
        settings: Settings,
        data_dir: str | None = None,
    ):
        self.sampler = sampler
        self.dataset = dataset
        self.test = dataset.test
        self.settings = settings
        self.data_dir = data_dir
        self._evaluations: dict[int, hn.Evaluation] = {}

    def ensemble(self, number: int = 0) -> hn.Ensemble:
        """Ensemble number 0, 1, ... of the run."""
        return self.sampler.sample(self.settings.num_networks, seed=1 + number)

    def evaluation(self, number: int = 0) -> hn.Evaluation:
        """How that ensemble does on the test images; computed once."""
        if number not in self._evaluations:
            result = self.ensemble(number).evaluate(self.test.x, self.test.y, verbose=1)
            assert isinstance(result, hn.Evaluation)
            self._evaluations[number] = result
        return self._evaluations[number]

    def evaluations(self) -> list[hn.Evaluation]:
        """How all ensembles do."""
        numbers = range(self.settings.ensembles or 1)
        return [self.evaluation(k) for k in tqdm(numbers, "ensembles", leave=False)]


class Drawing(NamedTuple):
    """A figure and the numbers behind it."""

    figure: Figure
    arrays: dict[str, np.ndarray]


class Result(NamedTuple):
    """What an analysis found: for metrics.json, and by name its figures."""

    metrics: dict[str, Any]
    drawings: dict[str, Drawing]
