"""Methods side by side: same target, same images, same cost of training, one table.

  python -m reproduce.compare --dataset=mnist_5k --preset=quick
  python -m reproduce.compare --dataset=fashion_mnist --methods=hypernetwork,noise,sgd
  python -m reproduce.compare --extension=my_sampler --methods=mine,sgd --dataset=mnist_5k

Each method and seed is a run of `reproduce.mnist` in a folder below the comparison's, and can be
analysed like any other. A repeated or widened comparison runs nothing that is finished, and goes on
with a run that was killed. All methods with the preset `quick` take about 20 minutes for each seed
on two cores.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

import hypernet_tf as hn
from hypernet_tf import plots
from reproduce.cli import (
    analysis_flags,
    device_flags,
    methods_flag,
    run_flags,
    seeds_flag,
    shared_flags,
)
from reproduce.configs import METHODS, RunConfig, preset
from reproduce.configs.methods import methods_of
from reproduce.runs.folder import UsageError, folder_name
from reproduce.studies.study import Column, Numbers, RunResult, Study, StudyRun

# Of the shared flags only these mean something here.
SHARED_FLAGS = ("dataset", "data_dir", "run_dir", "preset", "extension")
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)
flags.adopt_module_key_flags(methods_flag)
flags.adopt_module_key_flags(seeds_flag)
flags.DEFINE_integer(
    "passes",
    None,
    "The cost of a training: how many images go through one target network, forth and back. "
    "Default: the cost of the hypernetwork's published run, 13,312,000; 1,024,000 for "
    "--preset=quick.",
    lower_bound=1,
)

PASSES = {"paper": 13_312_000, "quick": 1_024_000}


@dataclasses.dataclass(frozen=True)
class Comparison(Study):
    """Methods trained on the same images at the same cost.

    Attributes:
        dataset: Name of the data set.
        preset: "paper" or "quick".
        passes: Number of image passes of a training.
        methods: Names of the methods.
        seeds: Seeds, one run each.
    """

    dataset: str
    preset: str
    passes: int
    methods: tuple[str, ...]
    seeds: tuple[int, ...]

    command: ClassVar[str] = "compare"
    noun: ClassVar[str] = "comparison"
    analyses: ClassVar[tuple[str, ...]] = ("uncertainty", "out_of_distribution")
    entries_are_columns: ClassVar[bool] = True

    def runs(self) -> list[StudyRun]:
        """One run for each seed and method."""
        return [
            StudyRun(method, f"{method}-seed={seed}", self._config(method, seed))
            for seed in self.seeds
            for method in self.methods
        ]

    def _config(self, method: str, seed: int) -> RunConfig:
        """The preset, trained for as many whole steps as the passes take."""
        config = preset("mnist", method, self.preset, dataset=self.dataset)
        other = METHODS[method].matches
        match = f"../{other}-seed={seed}" if other else ""
        steps = -(-self.passes // config.passes_per_step)
        return dataclasses.replace(config, seed=seed, steps=steps, match=match)

    def fixed_settings(self) -> dict[str, Any]:
        """More passes, methods or seeds go on in the same folder."""
        return {"dataset": self.dataset, "preset": self.preset}

    def columns(self, results: Sequence[RunResult]) -> list[str | Column]:
        """Cost, quality, calibration and diversity, and how well unknown images are detected."""
        ood = {key: row.measure for one in results for key, row in one.rows.items() if _is_ood(key)}
        return [
            *("image_passes", "steps", "parameters", "num_networks"),
            *("member_accuracy", "member_accuracy_std"),
            *("majority_vote_accuracy", "mean_probability_accuracy"),
            *("member_negative_log_likelihood", "negative_log_likelihood"),
            *("uncertainty_member_expected_calibration_error", "expected_calibration_error"),
            *("uncertainty_member_brier_score", "brier_score"),
            *("disagreement", "uncertainty_cka_of_log_probabilities"),
            *("uncertainty_mutual_information_correct", "uncertainty_mutual_information_wrong"),
            *("entropy", "nearest_neighbour_distance"),
            *("train_seconds", "sample_seconds", "peak_memory_mib"),
            *(Column(measure, functools.partial(_ood_value, key)) for key, measure in ood.items()),
        ]

    def title(self) -> str:
        """The heading of the page."""
        return f"Methods side by side on {hn.data.title(self.dataset)}"

    def paragraphs(self, metrics: Mapping[str, Any]) -> list[str]:
        """What was trained, and what the numbers compare."""
        return [
            f"Each method trained the same target on the same images, for {self.passes:,} image "
            "passes (an image forth and back through one target network) or the next whole step; "
            f"seeds {', '.join(map(str, self.seeds))}. Numbers are mean ± standard deviation over "
            "seeds. An ensemble of N networks that share a budget gives each of them 1/N of it.",
            "Entropy is minus the diversity term of samplers with a latent space, whose dimension "
            "it multiplies: it compares seeds, not methods. The distance to the nearest of ten "
            "networks compares methods.",
        ]

    def figure(
        self, numbers: Numbers, metrics: Mapping[str, Any]
    ) -> tuple[str, str, Figure, dict[str, np.ndarray]]:
        """The main numbers of each method, and how well it detects unknown images."""
        panels = [*_PANELS]
        for score in _OOD_SCORES:
            keys = [key for key in numbers if _is_ood(key, score)]
            labels = {
                key: hn.data.title(key.removeprefix("ood_").removesuffix(f"_{score}_auroc"))
                for key in keys
            }
            title = f"OOD detection by {score.replace('_', ' ')}"
            panels.append(_Panel(title, "area under ROC (%)", labels, factor=100.0))
        arrays: dict[str, np.ndarray] = {"methods": np.array(self.methods)}
        drawn = []
        for panel in panels:
            series = {}
            for key, label in panel.series.items():
                mean, std = (
                    np.array([getattr(numbers[key][m], name) for m in self.methods], float)
                    for name in ("mean", "std")
                )
                if np.isnan(mean).all():
                    continue
                shown = panel.factor * ((1 - mean) if panel.is_error else mean)
                series[label] = (shown, panel.factor * std)
                for name, values in zip(("mean", "std"), series[label], strict=True):
                    arrays[f"{panel.title}, {label}, {name}"] = values
            if series:
                drawn.append(
                    {"title": panel.title, "unit": panel.unit, "log": panel.log, "series": series}
                )
        caption = "Means and standard deviations over seeds"
        return "comparison", caption, plots.comparison(list(self.methods), drawn), arrays


_OOD_SCORES = ("entropy", "mutual_information")


def _is_ood(key: str, *scores: str) -> bool:
    """Whether a row is the area under the ROC curve of a data set and one of the scores."""
    ends = tuple(f"_{score}_auroc" for score in scores or _OOD_SCORES)
    return key.startswith("ood_") and key.endswith(ends)


def _ood_value(key: str, result: RunResult) -> float | None:
    """The value of such a row; None if the run left out the data set, which was not available."""
    return result.rows[key].value if key in result.rows else None


@dataclasses.dataclass(frozen=True)
class _Panel:
    """A panel of the figure.

    Attributes:
        title: Title of the panel.
        unit: Label of its axis.
        series: Key of a column -> its label.
        log: Whether the axis is logarithmic.
        is_error: Whether 1 minus the number is shown.
        factor: Factor on the numbers.
    """

    title: str
    unit: str
    series: Mapping[str, str]
    log: bool = False
    is_error: bool = False
    factor: float = 1.0


_PANELS = (
    _Panel(
        "Errors on the test images",
        "%",
        {"member_accuracy": "mean of the networks", "majority_vote_accuracy": "majority vote"},
        log=True,
        is_error=True,
        factor=100.0,
    ),
    _Panel(
        "Negative log-likelihood",
        "nats",
        {
            "member_negative_log_likelihood": "mean of the networks",
            "negative_log_likelihood": "ensemble",
        },
        log=True,
    ),
    _Panel(
        "Expected calibration error",
        "15 bins of equal width",
        {
            "uncertainty_member_expected_calibration_error": "mean of the networks",
            "expected_calibration_error": "ensemble",
        },
        log=True,
    ),
    _Panel(
        "Disagreement of two networks",
        "share of the test images",
        {"disagreement": "two networks"},
        log=True,
    ),
)


def from_flags() -> Comparison:
    """The comparison that the flags ask for; says on stdout which data set `auto` became.

    Raises:
        UsageError: No method, an unknown one, one named twice, or noise without what it matches.
    """
    values = command.FLAGS
    shared_flags.accept_only(
        SHARED_FLAGS, "a comparison", others=(run_flags, device_flags, analysis_flags)
    )
    methods = methods_flag.methods(methods_of("mnist"))
    for name in methods:
        other = METHODS[name].matches
        if other and other not in methods:
            raise UsageError(f"{name} needs the networks of {other}: add {other} to --methods")
    return Comparison(
        shared_flags.dataset(hn.data.NAMES),
        values.preset,
        values.passes or PASSES[values.preset],
        methods,
        tuple(sorted(map(int, values.seeds))),
    )


def default_folder(comparison: Comparison) -> pathlib.Path:
    """Named after data set and preset; more passes, methods or seeds go on in the same folder."""
    defaults = {"dataset": "mnist", "preset": "paper"}
    return pathlib.Path("runs", folder_name("compare", comparison.fixed_settings(), defaults))


def main() -> None:
    """Run `python -m reproduce.compare`."""
    comparison = from_flags()
    command.run_study(comparison, default_folder(comparison))


if __name__ == "__main__":
    command.run(main)
