"""The classification of HyperGAN's paper: ensembles of 1, 5, 10 and 100 networks, in one table.

HyperGAN beside the hypernetwork, MC dropout, MNFG and a deep ensemble, on MNIST, 5,000 images of
it, five classes of CIFAR-10, and all of CIFAR-10 (Ratzlaff & Fuxin 2019).

  python -m reproduce.classification                           the paper's data sets
  python -m reproduce.classification --preset=quick            5,000 digits; about five minutes
  python -m reproduce.classification --datasets=mnist,cifar10_jpeg:0-4 --seeds=0,1,2

Each data set, method and seed is a run of `reproduce.mnist` or `reproduce.cifar` in a folder below
the study's, and can be analysed like any other. A repeated or widened study runs nothing that is
finished. A sampler that holds fewer networks has empty cells.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from absl import flags

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

import hypernet_tf as hn
from reproduce.analyses.ensemble_sizes import SIZES
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
from reproduce.configs.targets import experiment_of
from reproduce.runs.folder import UsageError, folder_name
from reproduce.studies.study import Column, RunResult, Study, StudyRun

# Of the shared flags only these mean something here.
SHARED_FLAGS = ("data_dir", "run_dir", "preset", "extension")
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)
flags.adopt_module_key_flags(methods_flag)
flags.adopt_module_key_flags(seeds_flag)
flags.adopt_module_key_flags(analysis_flags)
flags.DEFINE_list(
    "datasets",
    [],
    "Data sets to train on, separated by commas. Default: mnist, mnist:5000, cifar10:0-4 and "
    "cifar10; mnist_5k for --preset=quick.",
)

DATASETS = {"paper": ("mnist", "mnist:5000", "cifar10:0-4", "cifar10"), "quick": ("mnist_5k",)}
METHODS_SHOWN = ("hypergan", "hypernetwork", "mc_dropout", "mnf", "deep_ensemble")
QUICK_PASSES = 256_000


@dataclasses.dataclass(frozen=True)
class Classification(Study):
    """Methods on several data sets, as ensembles of several sizes.

    Attributes:
        datasets: Names of the data sets.
        methods: Names of the methods.
        preset: "paper", the methods' own, or "quick", in which all train at the same cost.
        seeds: Seeds, one run each.
    """

    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    preset: str
    seeds: tuple[int, ...]

    command: ClassVar[str] = "classification"
    noun: ClassVar[str] = "study of classification"
    shown_analyses: ClassVar[tuple[str, ...]] = ("ensemble_sizes",)
    analyses: tuple[str, ...] = dataclasses.field(default=shown_analyses, kw_only=True)

    def runs(self) -> list[StudyRun]:
        """One run for each seed, data set and method."""
        return [
            StudyRun(
                f"{dataset} {method}",
                f"{folder_name(method, {'dataset': dataset}, {'dataset': ''})}-seed={seed}",
                self.config(dataset, method, seed),
            )
            for seed in self.seeds
            for dataset in self.datasets
            for method in self.methods
        ]

    def config(self, dataset: str, method: str, seed: int) -> RunConfig:
        """The configuration of a run.

        Args:
            dataset: Name of the data set.
            method: Name of the method.
            seed: Seed of the run.
        """
        config = preset(experiment_of(dataset), method, self.preset, dataset=dataset)
        if self.preset == "quick":
            steps = -(-QUICK_PASSES // config.passes_per_step)
            config = preset(config.experiment, method, "quick", dataset=dataset, steps=steps)
        return dataclasses.replace(config, seed=seed)

    def fixed_settings(self) -> dict[str, Any]:
        """More data sets, methods or seeds go on in the same folder."""
        return {"preset": self.preset}

    def default_settings(self) -> dict[str, Any]:
        """The long trainings."""
        return {"preset": "paper"}

    def columns(self, results: Sequence[RunResult]) -> list[str | Column]:
        """Cost, and accuracy and likelihood of each size."""
        return [
            *("image_passes", "train_seconds"),
            *(f"ensemble_sizes_{size}_negative_log_likelihood" for size in SIZES.default),
            *(f"ensemble_sizes_{size}_accuracy" for size in SIZES.default),
        ]

    def label(self, entry: str, metrics: Mapping[str, Any]) -> str:
        """The data set and the method."""
        dataset, method = entry.split(" ")
        return f"{hn.data.title(dataset)}: {method}"

    def title(self) -> str:
        """The heading of the page."""
        return "Classification by ensembles of several sizes"

    def paragraphs(self, metrics: Mapping[str, Any]) -> list[str]:
        """What was trained, and what the numbers are."""
        costs = {
            "paper": "Each method trained as its preset says, so that costs differ.",
            "quick": f"Each method trained for {QUICK_PASSES:,} image passes (an image forward "
            "and backward through one target network) or the next whole step. Presets were not "
            "tuned alike: the hypernetwork's was found for short trainings.",
        }
        return [
            f"{costs[self.preset]} Seeds {', '.join(map(str, self.seeds))}; numbers are mean ± "
            "standard deviation over seeds.",
            "Accuracies and likelihoods are those of the mean probability on the test images. The "
            "networks of the largest ensemble are divided into ensembles of each smaller size, "
            "and numbers are means over these. A cell is empty where a sampler holds fewer "
            "networks; published numbers are not available to this project.",
        ]


def from_flags() -> Classification:
    """The study that the flags ask for.

    Raises:
        UsageError: A data set or a method is unknown or named twice, or has no such preset.
    """
    values = command.FLAGS
    shared_flags.accept_only(
        SHARED_FLAGS, "a study of classification", others=(run_flags, device_flags)
    )
    if values.preset not in DATASETS:
        raise UsageError(f"a study of classification has no preset '{values.preset}': choose quick")
    others = [name for name in methods_of("mnist") if not METHODS[name].matches]
    methods = methods_flag.methods([*dict.fromkeys([*METHODS_SHOWN, *others])], METHODS_SHOWN)
    known = hn.data.names_for()[1:]
    if command.FLAGS["datasets"].present and not values.datasets:
        raise UsageError("--datasets is empty: name at least one")
    datasets = []
    for name in hn.data.Selection.join(values.datasets or DATASETS[values.preset]):
        if name.partition(":")[0] not in known:
            raise UsageError(f"there is no data set '{name}': --datasets takes {', '.join(known)}")
        if len(hn.data.Selection.parse(name).classes) == 1:
            raise UsageError(f"a network needs at least 2 classes: --datasets={name} is one")
        datasets.append(hn.data.resolve(name, values.data_dir)[0])
    if len(set(datasets)) < len(datasets):
        raise UsageError("--datasets names a data set twice: name each once")
    for dataset in datasets:
        for method in methods:
            run_flags.check_preset(experiment_of(dataset), method, values.preset)
    if values[SIZES.name].present:
        sizes = ", ".join(map(str, SIZES.default))
        raise UsageError(f"the table has ensembles of {sizes} networks: remove --{SIZES.name}")
    seeds = tuple(sorted(map(int, values.seeds)))
    analyses = analysis_flags.of_study(Classification.shown_analyses)
    return Classification(tuple(datasets), methods, values.preset, seeds, **analyses)


def main() -> None:
    """Run `python -m reproduce.classification`."""
    command.run_study(from_flags())


if __name__ == "__main__":
    command.FLAGS.set_default("seeds", ["0"])  # three take three times as long
    command.run(main)
