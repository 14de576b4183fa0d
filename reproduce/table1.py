"""Table 1 of the paper: generated networks beside networks trained by SGD, LeNet and ResNet-32.

Trains every column of the paper's table in a process of its own, ten networks each (twelve of the
mixture, three of each hypernetwork), and prints their mean accuracy and that of their majority
vote: at the end of the training, and the best of it and of all validations, which is what the paper
prints. The best is chosen on the test images themselves, so it is too high.

  python -m reproduce.table1                                    CIFAR-10, LeNet
  python -m reproduce.table1 --target=resnet32
  python -m reproduce.table1 --dataset=fashion_mnist --preset=quick
  python -m reproduce.table1 --columns=sgd,hypernetwork-weights

Without --lam it is 1e3, and 1e4 for the entropy of the outputs. The same command again goes on
where it stopped, and trains nothing that is finished.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from absl import flags

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.metrics import MEASURES
from hypernet_tf.metrics.measures import main_measures
from reproduce.analyses import Drawing
from reproduce.cli import analysis_flags, device_flags, run_flags, shared_flags
from reproduce.configs import METHODS, TARGETS, RunConfig, preset, published
from reproduce.configs.methods import DIVERSITY, lam_of, methods_of, presets_of
from reproduce.reports import history
from reproduce.runs.folder import UsageError
from reproduce.studies.study import (
    Column,
    Numbers,
    RunResult,
    Study,
    StudyRun,
    and_main_measures,
    claim_paragraphs,
)

_USUAL_IMAGES = 45_000  # for training, of CIFAR-10


class ColumnOf(NamedTuple):
    """What a column of the table is.

    Attributes:
        method: Name of its method.
        diversity: What its networks are to differ in; "" for what the preset says.
        help: What it is, in the words of the table.
        recipe: Name of the preset whose settings it has, at the image passes of the table's own
            preset; "" for the table's preset itself.
    """

    method: str
    diversity: str
    help: str
    recipe: str = ""


# Columns of the published table, and others beside them; methods and diversities that are not here
# have columns by their names.
COLUMNS = (
    *("sgd", "sgd_chains", "sgd_snapshots"),
    *("hypernetwork-none", "hypernetwork-weights", "hypernetwork-outputs"),
    *("hypernetwork-paper", "hypernetwork-fast", "mixture", "deep_ensemble", "hypergan"),
)
_RECIPES = ("paper", "fast")  # presets whose settings hypernetwork-NAME has
# Of the shared flags only these mean something here.
SHARED_FLAGS = (
    *("dataset", "target", "data_dir", "run_dir", "preset", "steps", "seed", "lam", "extension"),
)
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)
flags.adopt_module_key_flags(analysis_flags)
flags.DEFINE_list(
    "columns",
    None,
    f"Some of {', '.join(COLUMNS)}, or methods of `reproduce.cifar` that need no --match. Default: "
    "those named here that have this preset and differ with it; for ResNet-32 without hypergan, a "
    "step of which takes the memory of thousands of images, and without mixture, which has no "
    "preset for it.",
)


def known_columns() -> list[str]:
    """The names of all columns: those above, and methods by their names.

    The hypernetwork has columns of its own, and methods that learn or match the networks of another
    run need its folder, which a table does not have.
    """
    others = [name for name in methods_of("cifar") if not METHODS[name].matches]
    others.remove("hypernetwork")
    of_diversity = [f"hypernetwork-{name}" for name in DIVERSITY]
    return list(dict.fromkeys([*COLUMNS, *of_diversity, *others]))


def column_of(name: str) -> ColumnOf:
    """What a column is.

    Args:
        name: Name of a column, or of a method.
    """
    if name in METHODS:
        return ColumnOf(name, "", METHODS[name].help)
    method, _, variant = name.partition("-")
    if variant in _RECIPES:
        return ColumnOf(method, "", f"recipe of the preset {variant}", variant)
    option = DIVERSITY[variant]
    return ColumnOf(method, variant, option.title or option.help)


@dataclasses.dataclass(frozen=True)
class Table1(Study):
    """Generated and trained networks of one target, ten each.

    Attributes:
        columns_shown: Names of the columns of the published table, which are rows here.
        dataset: Name of the data set.
        target: Name of the target.
        preset: Name of a preset that all columns have.
        seed: Seed of the runs.
        lam: Factor on the accuracy loss; None for the default of each diversity term.
        steps: Number of training steps; None for the preset's.
    """

    columns_shown: tuple[str, ...]
    dataset: str
    target: str
    preset: str
    seed: int = 0
    lam: float | None = None
    steps: int | None = None

    command: ClassVar[str] = "table1"
    noun: ClassVar[str] = "table"
    published_header: ClassVar[tuple[str, ...]] = ("published mean (%)", "published vote (%)")

    def runs(self) -> list[StudyRun]:
        """One run for each column."""
        return [StudyRun(c, c, self.config(c)) for c in self.columns_shown]

    def config(self, column: str) -> RunConfig:
        """The configuration of a column's run."""
        method, named, _, recipe = column_of(column)
        where: dict[str, Any] = {"target": self.target, "dataset": self.dataset}
        config = preset("cifar", method, self.preset, **where, steps=self.steps)
        if recipe:
            passes = preset("cifar", method, recipe, **where).passes_per_step
            steps = max(1, config.image_passes // passes)
            config = preset("cifar", method, recipe, **where, steps=steps)
        diversity, lam = named or config.diversity, config.lam
        if "lam" in METHODS[method].flags:
            lam = lam_of(config, diversity) if self.lam is None else self.lam
        return dataclasses.replace(config, diversity=diversity, seed=self.seed, lam=lam)

    def default_columns(self) -> list[str]:
        """The named columns, without a recipe that is that of another column with this preset."""
        named = [
            name
            for name in COLUMNS
            if self.preset in presets_of("cifar", column_of(name).method)
            and (_is_lenet(self.target) or name not in ("mixture", "hypergan"))
        ]
        trained: dict[RunConfig, str] = {}
        for name in named:
            trained.setdefault(dataclasses.replace(self.config(name), preset=self.preset), name)
        return list(trained.values())

    def fixed_settings(self) -> dict[str, Any]:
        """More columns go on in the same folder."""
        names = ("dataset", "target", "preset", "seed", "lam")
        return {name: getattr(self, name) for name in names}

    def default_settings(self) -> dict[str, Any]:
        """LeNet on CIFAR-10."""
        return Table1((), "cifar10", "lenet", "paper").fixed_settings()

    def columns(self, results: Sequence[RunResult]) -> list[str | Column]:
        """Accuracies at the end and at best, quality, diversity and cost."""
        shown: list[str | Column] = [
            "member_accuracy",
            Column(MEASURES["majority_vote_accuracy"], _vote),
            Column(MEASURES["best_member_accuracy"], lambda one: _best(one, "member_accuracy")),
            Column(
                MEASURES["best_majority_vote_accuracy"],
                lambda one: _best(one, "majority_vote_accuracy"),
            ),
            *("negative_log_likelihood", "expected_calibration_error", "disagreement", "entropy"),
            Column(MEASURES["late_gain"], lambda one: one.metrics["late_gain"]),
            *("image_passes", "train_seconds"),
        ]
        return and_main_measures(shown)

    def label(self, entry: str, metrics: Mapping[str, Any]) -> str:
        """The column's name and what it is."""
        return f"{entry}: {column_of(entry).help}"

    def published(self, entry: str) -> list[str]:
        """The published mean and vote, where target and data set are the paper's."""
        values = self._published_table().get(entry, (None, None))
        return ["" if v is None else f"{v:.2f}" for v in values]

    def title(self) -> str:
        """The heading of the page."""
        return f"Table 1: {self.target} on {hn.data.title(self.dataset)}"

    def paragraphs(self, metrics: Mapping[str, Any]) -> list[str]:
        """What the accuracies are, and what the published numbers are."""
        copies = [
            f"The numbers of this project are from {hn.data.title(self.dataset)}, lossy copies of "
            "the images; the published numbers are from the original."
        ]
        counts = {entry: self.config(entry).num_networks for entry in self.columns_shown}
        others = ", ".join(f"{entry}: {count}" for entry, count in counts.items() if count != 10)
        changed = [
            *([] if self.preset == "paper" else [f"the preset {self.preset}"]),
            *([f"{self.steps:,} steps"] if self.steps else []),
            *([f"lam {self.lam:g}"] if self.lam else []),
        ]
        settings = [
            f"Published numbers are those of CIFAR-10 after full trainings; these have "
            f"{', '.join(changed) or 'the preset paper'}. For the published column with entropy it "
            "is not clear which entropy was meant."
        ]
        return [
            "Accuracies on the test images in percent, of ten networks "
            + (f"({others}) " if others else "")
            + "and of their majority vote: at the end of the training, and the best of it and of "
            "all validations, chosen on the test images themselves, as the paper prints it.",
            *(settings if self._published_table() else ()),
            *(copies if self._published_table() and self._dataset_name != "cifar10" else ()),
            "Whether a training has flattened: what its networks gained in its last quarter. Where "
            "the learning rate falls to nearly 0, a small gain does not say that a longer training "
            "would bring nothing.",
            *(
                [
                    "Each column is one training with one seed. The errors below are those of the "
                    "test images alone: other seeds may differ by more."
                ]
                if metrics.get("claims")
                else []
            ),
            *claim_paragraphs(metrics.get("claims", [])),
        ]

    def summary(
        self,
        results: Sequence[RunResult],
        numbers: Numbers,
        folder: pathlib.Path,
        data_dir: str | None,
    ) -> dict[str, Any]:
        """The validations of each column, and the paper's claims."""
        curves = {
            result.run.entry: history.against_cost(
                folder / result.run.folder, result.run.config.passes_per_step
            )
            for result in results
        }
        num_images = results[0].metrics["dataset"]["test"]
        return {"curves": curves, "claims": claims_of(numbers, self.target, num_images)}

    def figures(self, numbers: Numbers, metrics: Mapping[str, Any]) -> list[Drawing]:
        """Mean and vote of every column beside what else tells an ensemble; learning curves."""
        curves = metrics["curves"]
        single = [entry for entry in curves if self.config(entry).num_networks == 1]
        return [self._measures(numbers), history.learning_curves(curves, single)]

    def _measures(self, numbers: Numbers) -> Drawing:
        entries, published_table = self.columns_shown, self._published_table()

        def series(values: Mapping[str, float | None], factor: float = 1.0) -> tuple:
            drawn = factor * np.array([values[entry] for entry in entries], float)
            return drawn, np.full(len(entries), np.nan)

        def measured(key: str) -> tuple:
            means = {entry: number.mean for entry, number in numbers[key].items()}
            return series(means, MEASURES[key].factor)

        accuracies = {
            "mean": measured("member_accuracy"),
            "vote": measured("majority_vote_accuracy"),
        }
        for index, name in enumerate(("published mean", "published vote")):
            values = {entry: published_table.get(entry, (None, None))[index] for entry in entries}
            if any(values.values()):
                accuracies[name] = series(values)
        panels: list[dict[str, Any]] = [
            {"title": "Accuracy, test images", "unit": "%", "series": accuracies}
        ]
        short = {  # short enough for half of the figure
            "negative_log_likelihood": "Negative log-likelihood",
            "expected_calibration_error": "Calibration error",
            "disagreement": "Disagreement",
        }
        for key in main_measures():
            if key in ("member_accuracy", "majority_vote_accuracy"):
                continue
            title = short.get(key, MEASURES[key].title.capitalize())
            unit = MEASURES[key].unit
            panels.append({"title": title, "unit": unit, "series": {title: measured(key)}})
        figure = plots.comparison(entries, [panel | {"log": False} for panel in panels])
        arrays = {name: values for panel in panels for name, (values, _) in panel["series"].items()}
        names = {"columns": np.array(entries)}
        caption = "At the end of the training; published numbers are the best of a training"
        return Drawing("columns", caption, figure, names | arrays)

    @property
    def _dataset_name(self) -> str:
        """The data set's name; some classes, or fewer training images than usual, are another."""
        selection = hn.data.Selection.parse(self.dataset)
        few = selection.num_train is not None and selection.num_train < _USUAL_IMAGES
        return self.dataset if selection.classes or few else selection.name

    def _published_table(self) -> Mapping[str, tuple[float | None, float | None]]:
        """The published numbers where target and data set are the paper's."""
        option = hn.data.DATASETS.get(self._dataset_name)  # of all classes and usual images
        fits = option is not None and option.original == "cifar10"
        return published.TABLE_1.get(self.target, {}) if fits else {}


# The pattern of the published table, for each column with entropy: a claim, which needs another
# column; the two numbers that it compares, of which the first is to be higher: key, column ("" for
# the column with entropy).
CLAIMS = (
    (
        "ten independent chains vote better",
        (("majority_vote_accuracy", "sgd_chains"), ("majority_vote_accuracy", "")),
    ),
    (
        "entropy lowers the mean",
        (("member_accuracy", "hypernetwork-none"), ("member_accuracy", "")),
    ),
    (
        "entropy raises the vote",
        (("majority_vote_accuracy", ""), ("majority_vote_accuracy", "hypernetwork-none")),
    ),
)
# For ResNet-32 the published order is the other one.
LENET_CLAIMS = (
    (
        "the vote is better than the single network",
        (("majority_vote_accuracy", ""), ("member_accuracy", "sgd")),
    ),
)


def _is_lenet(target: str) -> bool:
    """Whether a target is LeNet or takes its presets."""
    return "lenet" in (target, TARGETS[target].like)


def claims_of(numbers: Numbers, target: str, num_images: int) -> list[dict[str, Any]]:
    """Each claim, whether it holds, and the numbers behind it, as far as columns were trained.

    A difference of less than two standard errors decides nothing. The errors are those of two
    samples of test images; the images are the same, so that this is on the careful side.

    Args:
        numbers: The numbers of the table.
        target: Name of the target.
        num_images: Number of test images.
    """
    claims = []
    of_target = CLAIMS + (LENET_CLAIMS if _is_lenet(target) else ())
    for entry in ("hypernetwork-weights", "hypernetwork-outputs"):
        for claim, compared in of_target:
            both = [numbers[key].get(column or entry) for key, column in compared]
            values = [one.mean for one in both if one and one.mean is not None]
            if len(values) < len(compared):
                continue
            higher, lower = values
            error = 2 * math.sqrt(sum(value * (1 - value) for value in values) / num_images)
            passes = [numbers["image_passes"][column or entry].mean or 0 for _, column in compared]
            claims.append(
                {
                    "claim": f"{entry}: {claim}",
                    "holds": higher > lower if abs(higher - lower) > error else None,
                    "numbers": f"{higher:.2%} after {passes[0]:,.0f} image passes, and {lower:.2%} "
                    f"after {passes[1]:,.0f}; two standard errors of the difference are "
                    f"{100 * error:.2f} points for {num_images:,} test images.",
                }
            )
    return claims


def _is_ensemble(result: RunResult) -> bool:
    return result.metrics["networks"]["num_networks"] > 1


def _vote(result: RunResult) -> float | None:
    value = result.rows["majority_vote_accuracy"].value
    return value if _is_ensemble(result) else None


def _best(result: RunResult, key: str) -> float | None:
    """The best of the end and of all validations, whose networks are others than the last."""
    value = max(result.rows[key].value or 0.0, result.metrics["best_on_test"][key])
    return value if _is_ensemble(result) or key == "member_accuracy" else None


def from_flags() -> Table1:
    """The table that the flags ask for.

    Raises:
        UsageError: Unknown columns, or flags that mean nothing here.
    """
    values = command.FLAGS
    shared_flags.accept_only(SHARED_FLAGS, "the table", others=(run_flags, device_flags))
    target = run_flags.target("cifar")
    table = Table1(
        (),
        shared_flags.dataset(TARGETS[target].image_shape),
        target,
        values.preset,
        values.seed,
        values.lam,
        values.steps,
    )
    known = known_columns()
    columns = table.default_columns() if values.columns is None else values.columns
    for name in columns:
        if name not in known:
            raise UsageError(f"there is no column '{name}': choose from {', '.join(known)}")
        run_flags.check_preset("cifar", column_of(name).method, values.preset)
    if len(set(columns)) < len(columns):
        raise UsageError("--columns names a column twice: name each once")
    if table.lam is not None and not any(
        "lam" in METHODS[column_of(name).method].flags for name in columns
    ):
        raise UsageError("no column that was chosen has --lam: remove it")
    if not columns:
        raise UsageError("--columns is empty: name at least one")
    shown = tuple(name for name in known if name in columns)
    return dataclasses.replace(table, columns_shown=shown, **analysis_flags.of_study())


def main() -> None:
    """Run `python -m reproduce.table1`."""
    command.run_study(from_flags())


if __name__ == "__main__":
    run_flags.use_data_of("cifar")
    command.run(main)
