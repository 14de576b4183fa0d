"""Methods side by side: same target, same images, same cost of training and tuning, one table.

  python -m reproduce.compare --dataset=mnist_5k --preset=quick
  python -m reproduce.compare --dataset=fashion_mnist --methods=hypernetwork,noise,sgd
  python -m reproduce.compare --extension=my_sampler --methods=mine,sgd --dataset=mnist_5k
  python -m reproduce.compare --target=lenet --dataset=cifar10 --preset=quick --methods=bhn,sgd

First each method is tuned: --trials runs with the first seed, at the compared cost, choose its
learning rate and its batch by the negative log-likelihood of the ensemble on the validation images.
All methods get equally many trials: the preset, then factors on the learning rate and batches from
one sequence, without those that are too large for the method. --trials=0 takes the presets as they
are.

Each method and seed is a run of `reproduce.mnist`, or of the experiment of --target, in a folder
below the comparison's, and can be analysed like any other; the trials are in its folder `tuning`. A
repeated or widened comparison runs nothing that is finished, and goes on with a run or a trial that
was killed. A training with the preset `quick` takes one to four minutes on two cores with the
target of MNIST; a method has one for each trial and seed.

Every run has the analyses of uncertainty and of other data sets, which --ood names. --analyses adds
others, whose main numbers join the table: --analyses=attacks.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from absl import flags
from numpy.typing import ArrayLike

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.metrics import MEASURES, SCORES, Measure
from hypernet_tf.metrics.measures import main_measures
from reproduce.analyses import Drawing
from reproduce.cli import (
    analysis_flags,
    device_flags,
    methods_flag,
    run_flags,
    seeds_flag,
    shared_flags,
    trials_flag,
)
from reproduce.configs import METHODS, TARGETS, RunConfig, preset
from reproduce.configs.methods import methods_of, presets_of
from reproduce.runs.command import DivergedError
from reproduce.runs.folder import RunError, UsageError, folder_name
from reproduce.studies import experiment, tuning, workers
from reproduce.studies.study import (
    Column,
    Numbers,
    Progress,
    RunResult,
    Study,
    StudyRun,
    and_main_measures,
    claim_paragraphs,
    value_of,
)
from reproduce.studies.tuning import Choice, Tuning

# Of the shared flags only these mean something here.
SHARED_FLAGS = ("dataset", "target", "data_dir", "run_dir", "preset", "extension")
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)
flags.adopt_module_key_flags(methods_flag)
flags.adopt_module_key_flags(seeds_flag)
flags.adopt_module_key_flags(trials_flag)
flags.adopt_module_key_flags(analysis_flags)
flags.DEFINE_integer(
    "passes",
    None,
    "The cost of a training: how many images go through one target network, forward and backward. "
    "Default: the cost of the hypernetwork's preset, for MNIST 13,312,000, and 512,000 for "
    "--preset=fast; 1,024,000 for MNIST with --preset=quick.",
    lower_bound=1,
)

TRIALS = 8
LEAST_METHODS = 5  # of a rank correlation
ANALYSES_OF_ALL = ("uncertainty", "out_of_distribution")


@dataclasses.dataclass(frozen=True)
class Comparison(Study):
    """Methods trained on the same images at the same cost.

    Attributes:
        target: Name of the target.
        dataset: Name of the data set.
        preset: Name of a preset that all methods have.
        passes: Number of image passes of a training.
        methods: Names of the methods.
        seeds: Seeds, one run each.
        num_trials: Number of trials in which each method is tuned; 0 takes the presets.
        tunings: Name of a method -> what its trials found; known after the tuning.
    """

    target: str
    dataset: str
    preset: str
    passes: int
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    num_trials: int = 0
    tunings: Mapping[str, Tuning] = dataclasses.field(default_factory=dict)

    command: ClassVar[str] = "compare"
    noun: ClassVar[str] = "comparison"
    analyses: tuple[str, ...] = dataclasses.field(default=ANALYSES_OF_ALL, kw_only=True)
    entries_are_columns: ClassVar[bool] = True
    shown_analyses: ClassVar[tuple[str, ...]] = ANALYSES_OF_ALL

    def runs(self) -> list[StudyRun]:
        """One run for each seed and method."""
        return [
            StudyRun(method, self._run_folder(method, seed), self._config(method, seed))
            for seed in self.seeds
            for method in self.methods
        ]

    def _row(self, method: str) -> RunConfig:
        experiment = TARGETS[self.target].experiment
        return preset(experiment, method, self.preset, target=self.target, dataset=self.dataset)

    def _tuned(self, method: str) -> str:
        """The method whose trials tune a method."""
        return METHODS[method].tuned_as or method

    def _choice(self, method: str) -> Choice:
        """What was chosen for a method; before that, the preset's choice."""
        name = self._tuned(method)
        if name in self.tunings:
            return self.tunings[name].chosen
        return tuning.preset_choice(self._row(method))

    def _run_folder(self, method: str, seed: int) -> str:
        """Named after what was chosen, so that other choices have other folders."""
        return f"{self._chosen(method)}{self._of_match(method)}-seed={seed}"

    def _chosen(self, method: str) -> str:
        """The method, and what was chosen for it where that is not the preset's."""
        preset_choice = tuning.preset_choice(self._row(method))
        return folder_name(method, self._choice(method), preset_choice)

    def _of_match(self, method: str) -> str:
        """What was chosen for the run whose networks a method takes, as an end of a name."""
        other = METHODS[method].matches
        chosen = self._chosen(other) if other else ""
        return f"-of-{chosen}" if chosen != other else ""

    def _config(self, method: str, seed: int, choice: Choice | None = None) -> RunConfig:
        """The preset with a choice, trained for as many whole steps as the passes take.

        Args:
            method: Name of the method.
            seed: Seed of the run.
            choice: Choice of a trial; None for a run of the comparison.
        """
        row = self._row(method)
        config = row.with_steps(-(-self.passes // row.passes_per_step))
        if self.num_trials:
            config = tuning.configured(config, choice or self._choice(method))
        other = METHODS[method].matches
        runs = "../../.." if choice else ".."  # a trial is in tuning/METHOD
        match = f"{runs}/{self._run_folder(other, seed)}" if other else ""
        steps = -(-self.passes // config.passes_per_step)
        return dataclasses.replace(config, seed=seed, match=match, steps=steps)

    def fixed_settings(self) -> dict[str, Any]:
        """More methods, seeds or trials go on in the same folder; more passes only without tuning.

        A learning rate that was chosen for some passes, and falls over them, does not fit others.
        """
        names = ("target", "dataset", "preset")
        fixed = {name: getattr(self, name) for name in names} | {"tuned": self.num_trials > 0}
        return fixed | ({"passes": self.passes} if self.num_trials else {})

    def default_settings(self) -> dict[str, Any]:
        """The target and the whole of MNIST, with trials."""
        passes = usual_passes(self.target, self.preset)
        named = {"target": "mnist", "dataset": "mnist", "preset": "paper"}
        return named | {"tuned": True, "passes": passes}

    def prepared(
        self, folder: pathlib.Path, data_dir: str | None, progress: Progress
    ) -> Comparison:
        """The comparison with the choices of its trials, which are run if they are missing.

        Raises:
            DivergedError: The training of all trials of a method diverged; the other methods are
                tuned before.
        """
        if not self.num_trials:
            return self
        names = list(dict.fromkeys(map(self._tuned, self.methods)))
        names.sort(key=lambda name: METHODS[name].learns_match)
        load = functools.cache(functools.partial(experiment.load, self._row(names[0]), data_dir))
        # A wider comparison goes on with the trials that there are.
        earlier = tuning.seeds_of_trials(folder / "tuning")
        first_seed, tuned = min(earlier or self.seeds), self
        num_images = None  # without trials that are left, the data set need not be there
        if any(tuning.passes_left(*self._trials(one, first_seed, folder, None)) for one in names):
            for name in self.methods:
                advice = "leave it out with --methods, or take a larger data set"
                experiment.check_step(self._row(name), load(), advice)
            num_images = len(load().train)
        diverged = []
        for number, name in enumerate(names):
            left = {
                one: tuning.passes_left(*tuned._trials(one, first_seed, folder, num_images))
                for one in names[number:]
            }
            after = sum(left.values()) - left[name] + tuned._passes_of_runs(folder)
            if METHODS[name].learns_match:  # its trials learn the networks of a finished run
                learned = (METHODS[name].matches,)
                first = dataclasses.replace(tuned, methods=learned, seeds=(first_seed,))
                after -= first._passes_of_runs(folder)
                first.run_missing(folder, data_dir, progress, after + left[name])
            try:
                chosen_by_trials = tuning.tune(
                    *tuned._trials(name, first_seed, folder, num_images),
                    load,
                    progress,
                    passes_after=after,
                )
            except DivergedError:
                diverged.append(name)
                continue
            tuned = dataclasses.replace(tuned, tunings={**tuned.tunings, name: chosen_by_trials})
        if diverged:
            raise DivergedError(
                f"training diverged in all trials of {', '.join(diverged)}: the same command "
                "without what takes their choice makes the table of the others"
            )
        tuned.check(folder)
        return tuned

    def _trials(
        self, method: str, seed: int, folder: pathlib.Path, num_images: int | None
    ) -> tuple[Callable[[Choice], RunConfig], list[Choice], pathlib.Path]:
        """The configuration of a choice, the choices of a method's trials, and their folder."""
        return (
            functools.partial(self._config, method, seed),
            tuning.candidates(self._row(method), self.num_trials, num_images),
            folder / "tuning" / f"{method}{self._of_match(method)}",
        )

    def _passes_of_runs(self, folder: pathlib.Path) -> int:
        """Number of image passes of the runs that are not complete, as far as is known."""

        def is_complete(run: StudyRun) -> bool:
            try:
                return self.is_complete(folder, run)
            except RunError:  # said where it is run
                return False

        return sum(run.config.image_passes for run in self.runs() if not is_complete(run))

    def columns(self, results: Sequence[RunResult]) -> list[str | Column]:
        """Cost, quality, calibration and diversity, and how well unknown images are detected."""
        ood = {key: row.measure for one in results for key, row in one.rows.items() if _is_ood(key)}
        shown: list[str | Column] = [
            *_CHOICE_COLUMNS,
            *([Column(_TRIALS, self._number_of_trials)] if self.num_trials else []),
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
            *(Column(measure, functools.partial(value_of, key)) for key, measure in ood.items()),
        ]
        return and_main_measures(shown)

    def _number_of_trials(self, result: RunResult) -> float:
        return len(self.tunings[self._tuned(result.run.config.method)].trials)

    def title(self) -> str:
        """The heading of the page."""
        target = "" if self.target == "mnist" else f", {self.target}"
        return f"Methods side by side on {hn.data.title(self.dataset)}{target}"

    def paragraphs(self, metrics: Mapping[str, Any]) -> list[str]:
        """What was trained, and what the numbers compare."""
        return [
            f"Each method trained the same target on the same images, for {self.passes:,} image "
            "passes (an image forward and backward through one target network) or the next whole "
            f"step; seeds {', '.join(map(str, self.seeds))}. Numbers are mean ± standard deviation "
            "over seeds. An ensemble of N networks that share a budget gives each 1/N of it. "
            "Votes, likelihoods and detection gain from more networks, and methods have "
            "other numbers of them.",
            "Entropy is that of the gauged weights of samplers with a latent space, and grows with "
            "the dimension of that space: it compares seeds, not methods. The distance to the "
            "nearest of ten networks compares methods.",
            *self._tuning_paragraphs(),
            *(
                f"{method} learns the networks of {METHODS[method].matches}, not from images: its "
                "passes leave out those of that training"
                + (", and its trials choose the rate alone." if self.num_trials else ".")
                for method in self.methods
                if METHODS[method].learns_match
            ),
            *self._left_out_paragraphs(metrics),
            *claim_paragraphs(metrics.get("claims", []), "HyperGAN's paper"),
        ]

    def _tuning_paragraphs(self) -> list[str]:
        if not self.num_trials:
            return [
                "Learning rates and batches are those of the presets, which were not tuned alike: "
                "those of the hypernetwork's fast and quick were searched for short trainings, "
                "others were not."
            ]
        factors = [
            trial["learning_rate"] / self._row(method).learning_rate
            for method, tuned in self.tunings.items()
            for trial in tuned.trials
        ] or [1.0]
        images, networks = (
            ", ".join(map(str, sizes))
            for sizes in (tuning.IMAGES_PER_NETWORK, tuning.NETWORKS_PER_STEP)
        )
        seeds = ", ".join(sorted({str(tuned.seed) for tuned in self.tunings.values()}))
        paragraphs = [
            f"The learning rate and the batch of each method were chosen in {self.num_trials} "
            f"trials with seed {seeds} at the same cost, by the negative log-likelihood "
            f"of an ensemble of at most {tuning.MOST_NETWORKS} networks on the validation images. "
            "The trials did not use the test images; some presets, from which they start, were "
            "chosen with them. The first trial is the preset. The others multiply its learning "
            f"rate by {min(factors):.2g} to {max(factors):.2g}, not all methods by all of these, "
            f"with {images} images for "
            f"each network and, where their number is free, {networks} networks in a step, in all "
            f"at most {tuning.MOST_IMAGES:,} images or as many as the preset. All methods take "
            "their trials from one sequence of factors and batches, and leave out those that are "
            "too large for them. Methods that train by Adam let it fall to "
            f"{tuning.ADAM_RATE_LEFT:.0%} over the run; the others keep the schedule that defines "
            "them. metrics.json lists all trials."
        ]
        for method in self.methods:
            if (name := self._tuned(method)) != method:
                paragraphs.append(f"{method} trains the same network as {name}: it has its choice.")
        for name, tuned in self.tunings.items():
            diverged = sum(trial[tuning.OBJECTIVE] is None for trial in tuned.trials)
            if diverged:
                paragraphs.append(f"Trials of {name} whose training diverged: {diverged}.")
            rates = [trial["learning_rate"] for trial in tuned.trials]
            rate = tuned.chosen["learning_rate"]
            if min(rates) < max(rates) and rate in (min(rates), max(rates)):
                end = "least" if rate == min(rates) else "greatest"
                paragraphs.append(
                    f"The learning rate of {name} is the {end} that was tried: a better one may "
                    "lie beyond."
                )
        return paragraphs

    def _left_out_paragraphs(self, metrics: Mapping[str, Any]) -> list[str]:
        if not metrics["left_out"]:
            return []
        return [
            "Data sets that were not available, so that their detection is missing for all or some "
            f"methods: {', '.join(metrics['left_out'])}."
        ]

    def summary(
        self,
        results: Sequence[RunResult],
        numbers: Numbers,
        folder: pathlib.Path,
        data_dir: str | None,
    ) -> dict[str, Any]:
        """The data sets of the detection that were not available, and a claim of HyperGAN's."""
        left_out = [name for one in results for name in _left_out(one)]
        return {"left_out": list(dict.fromkeys(left_out)), "claims": claims_of(numbers)}

    def figures(self, numbers: Numbers, metrics: Mapping[str, Any]) -> list[Drawing]:
        """The main numbers of each method, and how well it detects unknown images."""
        panels = [*_PANELS]
        drawn_keys = {key for panel in panels for key in panel.series}
        for key in main_measures():
            if key not in drawn_keys:
                measure = MEASURES[key]
                title = measure.title.capitalize()
                panels.append(
                    _Panel(title, measure.unit, {key: measure.title}, factor=measure.factor)
                )
        for score in _OOD_SCORES:
            labels = {
                key: hn.data.title(_data_set_and_score(key)[0])
                for key in numbers
                if _is_ood(key, score)
            }
            title = f"OOD detection by {SCORES[score].name}"
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
        figure = plots.comparison(list(self.methods), drawn)
        return [Drawing("comparison", caption, figure, arrays)]


_OOD_SCORES = ("entropy", "mutual_information")


def _is_ood(key: str, *scores: str) -> bool:
    """Whether a row is the area under the ROC curve of a data set and one of the scores."""
    # The name of a score may end with that of another one.
    ends = [score for score in SCORES if key.endswith(f"_{score}_auroc")]
    return key.startswith("ood_") and max(ends, key=len, default="") in (scores or _OOD_SCORES)


def _left_out(result: RunResult) -> list[str]:
    return result.metrics["analyses"]["out_of_distribution"]["left_out"]


def rank_correlation(one: ArrayLike, other: ArrayLike) -> tuple[float, float] | None:
    """Spearman's rank correlation, and the probability by chance of it or one further from 0.

    Further in its own direction: a greater one if it is positive, otherwise a smaller one.

    The probability is that of random orders: all of them for few numbers, 9,999 for more.

    Args:
        one: Numbers [n].
        other: Numbers [n].

    Returns:
        None if one of them is constant, so that there is no correlation.
    """
    from scipy.stats import PermutationMethod, pearsonr, rankdata  # slow to import

    if not (np.ptp(one) and np.ptp(other)):
        return None
    orders = PermutationMethod(n_resamples=9_999, rng=0)  # seven numbers have fewer: exact
    ranks = rankdata(one), rankdata(other)
    direction: Any = "greater" if np.corrcoef(*ranks)[0, 1] > 0 else "less"
    result = pearsonr(*ranks, alternative=direction, method=orders)
    return float(result.statistic), float(result.pvalue)


def claims_of(numbers: Numbers) -> list[dict[str, Any]]:
    """HyperGAN's claim that diverse ensembles detect more, by rank correlations over methods.

    Methods that start from the networks of another one are left out: noise around a network is
    diverse and wrong.

    Args:
        numbers: The numbers of the table.

    Returns:
        The claim, the correlations, and whether it holds: True where chance gives each of them in
        less than one of twenty cases, False where it gives one of the other sign as seldom,
        otherwise None. Nothing where fewer than `LEAST_METHODS` methods have several networks, or
        all detect alike.
    """
    disagreement = {
        method: number.mean
        for method, number in numbers["disagreement"].items()
        if number.mean is not None and not METHODS[method].matches
    }
    correlations: dict[str, dict[str, float]] = {}
    texts: dict[str, list[str]] = {}
    answers: list[bool | None] = []
    for key in filter(_is_ood, numbers):
        measured = (numbers[key][name].mean for name in disagreement)
        areas = [area for area in measured if area is not None]
        if len(areas) < max(LEAST_METHODS, len(disagreement)):
            continue
        data_set, score = _data_set_and_score(key)
        name = hn.data.title(data_set)
        if (result := rank_correlation([*disagreement.values()], areas)) is None:
            continue
        correlation, chance = result
        correlations.setdefault(score, {})[name] = correlation
        texts.setdefault(score, []).append(f"{name} {correlation:.2f} (p = {chance:.2g})")
        answers.append(correlation > 0 if chance < 0.05 else None)
    if not correlations:
        return []
    by_score = (f"by {SCORES[key].name} {', '.join(text)}" for key, text in texts.items())
    return [
        {
            "claim": "the more diverse an ensemble, the better it detects unknown images, of every "
            "data set and by each score",
            "holds": False if False in answers else None if None in answers else True,
            "numbers": "Rank correlation of the disagreement of two networks and the area under "
            f"ROC, over the {len(disagreement)} methods with several networks that do not start "
            f"from those of another method, and its one-sided p-value: {'; '.join(by_score)}.",
            "rank_correlations": correlations,
        }
    ]


def _data_set_and_score(key: str) -> tuple[str, str]:
    """The data set and the score of a row that `_is_ood`."""
    [score] = (score for score in _OOD_SCORES if _is_ood(key, score))
    return key.removeprefix("ood_").removesuffix(f"_{score}_auroc"), score


_TRIALS = Measure("trials", "trials, of which it is the best", "study", format="{:,.0f}")
_CHOICE_COLUMNS = (
    Column(
        Measure("learning_rate", "learning rate of the first step", "study", format="{:.2g}"),
        lambda one: one.run.config.learning_rate,
    ),
    Column(
        Measure("images_per_network", "images of a network in a step", "study", format="{:,.0f}"),
        lambda one: one.run.config.images_per_network,
    ),
    Column(
        Measure("networks_per_step", "networks in a step", "study", format="{:,.0f}"),
        lambda one: one.run.config.networks_per_step,
    ),
)


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


def usual_passes(target: str, name: str) -> int:
    """The image passes of a training without `--passes`.

    Args:
        target: Name of the target.
        name: Name of the preset.
    """
    experiment = TARGETS[target].experiment
    if (experiment, name) == ("mnist", "quick"):
        return 1_024_000  # that of the preset before it had the recipe of `fast`
    return preset(experiment, "hypernetwork", name, target=target).image_passes


def from_flags() -> Comparison:
    """The comparison that the flags ask for; says on stdout which data set `auto` became.

    Raises:
        UsageError: No method, an unknown one, one named twice, or noise without what it matches.
    """
    values = command.FLAGS
    shared_flags.accept_only(SHARED_FLAGS, "a comparison", others=(run_flags, device_flags))
    workers.refuse()
    target = run_flags.target()
    experiment = TARGETS[target].experiment
    run_flags.use_data_of(experiment)
    known = methods_of(experiment)
    with_preset = [name for name in known if values.preset in presets_of(experiment, name)]
    methods = methods_flag.methods(known, with_preset)
    for name in methods:
        run_flags.check_preset(experiment, name, values.preset)
        other = METHODS[name].matches
        if other and other not in methods:
            raise UsageError(f"{name} needs the networks of {other}: add {other} to --methods")
    return Comparison(
        target,
        shared_flags.dataset(TARGETS[target].image_shape),
        values.preset,
        values.passes or usual_passes(target, values.preset),
        methods,
        tuple(sorted(map(int, values.seeds))),
        TRIALS if values.trials is None else values.trials,
        **analysis_flags.of_study(ANALYSES_OF_ALL),
    )


def main() -> None:
    """Run `python -m reproduce.compare`."""
    command.run_study(from_flags())


if __name__ == "__main__":
    command.run(main)
