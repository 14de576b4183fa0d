"""What the parts of HyperGAN are for: the whole, without discriminator, without mixer.

  python -m reproduce.hypergan --dataset=mnist_5k --preset=quick --seeds=0,1,2

Each variant and seed is a run of `reproduce.mnist` in a folder below the study's, and can be
analysed like any other. A repeated or widened study runs nothing that is finished. The page says
for each claim of the paper (Ratzlaff & Fuxin 2019) whether it holds here.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from absl import flags

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.metrics import Measure
from reproduce.analyses import Drawing
from reproduce.cli import analysis_flags, device_flags, run_flags, seeds_flag, shared_flags
from reproduce.configs import TARGETS, RunConfig, preset
from reproduce.configs.methods import ABLATIONS
from reproduce.reports import history
from reproduce.studies.study import (
    Column,
    Number,
    Numbers,
    RunResult,
    Study,
    StudyRun,
    and_main_measures,
    claim_paragraphs,
)

# Of the shared flags only these mean something here.
SHARED_FLAGS = ("dataset", "data_dir", "run_dir", "preset", "steps", "extension")
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)
flags.adopt_module_key_flags(seeds_flag)
flags.adopt_module_key_flags(analysis_flags)

VARIANTS = {
    name: "the whole HyperGAN" if name == "nothing" else f"without {name}" for name in ABLATIONS
}
# Curves that the figure shows, see `_curves`: title, unit.
CURVES = {
    "member_accuracy": ("Accuracy of the networks, validation", "%"),
    "vote_gain": ("Vote above the networks, validation", "points"),
    "norm_spread": ("Spread of the networks' L2 norms", "standard deviation / mean"),
}
# Accuracy "stays" within a point; diversity "collapses" to less than half.
STAYS, COLLAPSES = 0.01, 0.5


@dataclasses.dataclass(frozen=True)
class Ablations(Study):
    """HyperGAN and its ablations, trained on the same images at the same cost.

    Attributes:
        config: Configuration of a run of the whole HyperGAN.
        seeds: Seeds, one run each.
    """

    config: RunConfig
    seeds: tuple[int, ...]

    command: ClassVar[str] = "hypergan"
    noun: ClassVar[str] = "study of ablations"
    entries_are_columns: ClassVar[bool] = True

    def runs(self) -> list[StudyRun]:
        """One run for each seed and variant."""
        return [
            StudyRun(
                name, f"without={name}-seed={seed}",
                dataclasses.replace(self.config, ablation=name, seed=seed),
            )
            for seed in self.seeds
            for name in VARIANTS
        ]  # fmt: skip

    def fixed_settings(self) -> dict[str, Any]:
        """More steps or seeds go on in the same folder."""
        return {"dataset": self.config.dataset, "preset": self.config.preset}

    def default_settings(self) -> dict[str, Any]:
        """The whole of MNIST."""
        return {"dataset": "mnist", "preset": "paper"}

    def columns(self, results: Sequence[RunResult]) -> list[str | Column]:
        """Quality, gain of the ensemble, and diversity."""
        gain = Measure(
            "vote_gain", "majority vote above the networks", "study", unit="points", format="{:.2f}"
        )
        shown: list[str | Column] = [
            *("steps", "parameters", "num_networks"),
            *("member_accuracy", "member_accuracy_std", "majority_vote_accuracy"),
            Column(gain, _vote_gain),
            *("negative_log_likelihood", "disagreement", "nearest_neighbour_distance"),
        ]
        return and_main_measures(shown)

    def label(self, entry: str, metrics: Mapping[str, Any]) -> str:
        """What a variant is called."""
        return VARIANTS[entry]

    def title(self) -> str:
        """The heading of the page."""
        return f"HyperGAN and its ablations on {hn.data.title(self.config.dataset)}"

    def summary(
        self,
        results: Sequence[RunResult],
        numbers: Numbers,
        folder: pathlib.Path,
        data_dir: str | None,
    ) -> dict[str, Any]:
        """The curves of each variant, means over seeds, and the paper's claims."""
        curves: dict[str, dict[str, list]] = {}
        spreads: dict[str, tuple[Number, Number]] = {}
        for entry in VARIANTS:
            runs = [
                _curves(folder / result.run.folder)
                for result in results
                if result.run.entry == entry
            ]
            curves[entry] = _mean_curves(runs)
            first, last = (
                Number.over_seeds([float(run["norm_spread"][place]) for run in runs])
                for place in (0, -1)
            )
            spreads[entry] = first, last
        return {"curves": curves, "claims": _claims(numbers, spreads)}

    def paragraphs(self, metrics: Mapping[str, Any]) -> list[str]:
        """What was trained, and which claims hold."""
        config = self.config
        return [
            f"Each variant trained {config.networks_per_step} networks per step on the same "
            f"{config.images_per_network} images, for {config.steps:,} steps; seeds "
            f"{', '.join(map(str, self.seeds))}. Numbers are mean ± standard deviation over seeds. "
            "Without the mixer, the codes of the layers are independent draws of the prior.",
            "Diversity along training is the standard deviation over the mean of the L2 norms of "
            "100 networks, before their gauge is fixed. Disagreement is that of two networks on "
            "the test images.",
            *claim_paragraphs(metrics["claims"]),
        ]

    def figures(self, numbers: Numbers, metrics: Mapping[str, Any]) -> list[Drawing]:
        """Accuracy, gain and diversity along training."""
        panels: list[dict[str, Any]] = []
        arrays: dict[str, np.ndarray] = {}
        for key, (title, unit) in CURVES.items():
            drawn = {}
            for entry, name in VARIANTS.items():
                curves = metrics["curves"][entry]
                drawn[name] = curves[f"{key}, step"], curves[key]
                arrays |= {f"{name}, {key}": np.array(drawn[name])}
            panels.append({"title": title, "unit": unit, "curves": drawn})
        return [Drawing("ablations", "Means over seeds", plots.training_curves(panels), arrays)]


def _mean_curves(runs: Sequence[Mapping[str, np.ndarray]]) -> dict[str, list]:
    """Means over runs at the steps that all of them have: a run that went on has one more."""
    curves: dict[str, list] = {}
    for key in CURVES:
        steps = functools.reduce(np.intersect1d, [run[f"{key}, step"] for run in runs])
        values = [run[key][np.isin(run[f"{key}, step"], steps)] for run in runs]
        curves |= {key: np.mean(values, 0).tolist(), f"{key}, step": steps.tolist()}
    return curves


def _vote_gain(result: RunResult) -> float:
    values = [result.rows[f"{key}_accuracy"].value for key in ("majority_vote", "member")]
    return values[0] - values[1]  # type: ignore[operator]


def _curves(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """The curves of a run: values of each key of `CURVES`, and their steps."""
    numbers = history.read(folder)
    steps = numbers["member_accuracy, step"]
    gain = numbers["majority_vote_accuracy"] - numbers["member_accuracy"]
    return numbers | {"vote_gain": gain, "vote_gain, step": steps}


def _is_lower(
    number: Number, whole: Number, factor: float = 1.0, shift: float = 0.0
) -> bool | None:
    """Whether a number is below `factor` · whole - `shift`.

    None within two standard errors of the seeds; a single seed has no error.
    """
    assert number.mean is not None and whole.mean is not None  # these are always defined
    difference = number.mean - factor * whole.mean + shift
    if number.std is not None and whole.std is not None:
        error = math.hypot(number.std, factor * whole.std) / math.sqrt(len(number.values))
        if abs(difference) < 2 * error:
            return None
    return difference < 0


def _all(*answers: bool | None) -> bool | None:
    """Whether all hold: False if one does not, else None if one is not decided."""
    return False if False in answers else None if None in answers else True


def _claims(numbers: Numbers, spreads: Mapping[str, tuple[Number, Number]]) -> list[dict[str, Any]]:
    """The paper's claims on the ablations, whether each holds, and the numbers behind it.

    Args:
        numbers: The numbers of the table.
        spreads: Variant -> spread of the norms in the first and in the last record.
    """

    def last(key: str, entry: str) -> float:
        return numbers[key][entry].mean  # type: ignore[return-value]

    def compared(entry: str) -> str:
        ends = (spreads[name][1].mean for name in ("nothing", entry))
        return (
            "Spread of norms {:.3f} with all parts, {:.3f} ".format(*ends)
            + f"{VARIANTS[entry]}; disagreement {last('disagreement', 'nothing'):.2%} and "
            f"{last('disagreement', entry):.2%}; accuracy of the networks "
            f"{last('member_accuracy', 'nothing'):.2%} and {last('member_accuracy', entry):.2%}."
        )

    def less_diverse(entry: str, factor: float = 1.0) -> bool | None:
        disagreement, whole = numbers["disagreement"], spreads["nothing"][1]
        return _all(
            _is_lower(spreads[entry][1], whole, factor),
            _is_lower(disagreement[entry], disagreement["nothing"], factor),
        )

    accuracy = numbers["member_accuracy"]
    falls = _is_lower(accuracy["mixer"], accuracy["nothing"], shift=STAYS)
    first_spread, last_spread = spreads["nothing"]
    return [
        {
            "claim": "without the discriminator diversity falls",
            "holds": less_diverse("discriminator"),
            "numbers": compared("discriminator"),
        },
        {
            "claim": "without the mixer accuracy stays and diversity collapses",
            "holds": _all(None if falls is None else not falls, less_diverse("mixer", COLLAPSES)),
            "numbers": f"{compared('mixer')} Accuracy stays where it loses less than "
            f"{100 * STAYS:g} point; diversity collapses where both fall below {COLLAPSES:.0%}.",
        },
        {
            "claim": "diversity falls as training goes on",
            "holds": _is_lower(last_spread, first_spread),
            "numbers": f"Spread of norms {first_spread.mean:.3f} in the first record of the whole "
            f"HyperGAN, {last_spread.mean:.3f} in the last.",
        },
    ]


def from_flags() -> Ablations:
    """The study that the flags ask for; says on stdout which data set `auto` became."""
    values = command.FLAGS
    shared_flags.accept_only(SHARED_FLAGS, "a study of ablations", others=(run_flags, device_flags))
    run_flags.check_preset("mnist", "hypergan", values.preset)
    config = preset(
        "mnist",
        "hypergan",
        values.preset,
        dataset=shared_flags.dataset(TARGETS["mnist"].image_shape),
        steps=values.steps,
    )
    seeds = tuple(sorted(map(int, values.seeds)))
    return Ablations(config, seeds, **analysis_flags.of_study())


def main() -> None:
    """Run `python -m reproduce.hypergan`."""
    command.run_study(from_flags())


if __name__ == "__main__":
    command.run(main)
