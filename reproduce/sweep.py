"""The accuracy-diversity frontier: a hypernetwork with many lams, searched by Keras Tuner.

  python -m reproduce.sweep                                    the grid: lam 10, 100, ..., 100,000
  python -m reproduce.sweep --lams=1e2,1e3,1e4 --preset=quick  these three, two minutes each
  python -m reproduce.sweep --search=bayesian --lam_min=1e2 --lam_max=1e5 --trials=10
  python -m reproduce.sweep --search=bayesian --objective=negative_log_likelihood
  python -m reproduce.sweep --method=mixture --diversity=outputs
  python -m reproduce.sweep --target=lenet --dataset=cifar10 --preset=quick

Each trial is an ordinary run of `reproduce.mnist`, or of the experiment of --target, in its own
folder below the sweep's, and can be analysed like any other; `tensorboard --logdir` of the sweep's
folder shows all of them. Trials are chosen by what their ensemble does on the validation images.
Table, figure (figures/frontier.png), metrics.json and report.html show the test images;
metrics.json ends with the command that runs the best trial again.

The same command again goes on where the sweep stopped, in the middle of a trial as well, and runs
nothing that is finished. More --lams or a higher --trials go on in the same folder; other --steps
are another sweep.

Several processes share the trials by Keras Tuner's chief and workers. All run the same command, on
one machine or on several that see the same folder; the chief hands out the trials and writes the
frontier when the last worker is done:

  export KERASTUNER_ORACLE_IP=127.0.0.1 KERASTUNER_ORACLE_PORT=8000
  KERASTUNER_TUNER_ID=chief  python -m reproduce.sweep --preset=quick &
  KERASTUNER_TUNER_ID=tuner0 python -m reproduce.sweep --preset=quick &
  KERASTUNER_TUNER_ID=tuner1 python -m reproduce.sweep --preset=quick

The chief waits for its workers, and a worker up to an hour for its chief: start one that was killed
again, with its name, or stop all of them and repeat the commands, of fewer workers if you like.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

import keras
import numpy as np
from absl import flags

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.metrics import MEASURES
from hypernet_tf.metrics.measures import evaluation_measures, main_measures, of_weights
from hypernet_tf.training.devices import Execution
from hypernet_tf.training.tuning import objective as tuner_objective
from reproduce.analyses import Drawing
from reproduce.cli import analysis_flags, device_flags, run_flags, shared_flags, trials_flag
from reproduce.cli.shared_flags import LARGEST, SMALLEST
from reproduce.configs import METHODS, TARGETS, RunConfig, preset
from reproduce.runs import folder as folders
from reproduce.runs.command import command_line
from reproduce.runs.folder import RunError, UsageError
from reproduce.studies import experiment, trials, workers
from reproduce.studies.study import (
    Column,
    Numbers,
    RunResult,
    Study,
    StudyRun,
    and_main_measures,
)

# Of the shared flags only these mean something here.
SHARED_FLAGS = (
    *("dataset", "target", "method", "diversity", "data_dir", "run_dir", "preset", "steps", "seed"),
    *("num_networks", "extension"),
)
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)
flags.adopt_module_key_flags(device_flags)
flags.adopt_module_key_flags(trials_flag)
flags.adopt_module_key_flags(analysis_flags)
_OBJECTIVE = "majority_vote_accuracy"
flags.DEFINE_list(
    "lams", ["1e1", "1e2", "1e3", "1e4", "1e5"], "For --search=grid: the values of lam."
)
flags.DEFINE_enum(
    "search",
    "grid",
    ["grid", "bayesian"],
    "grid: each of --lams. bayesian: --trials values between --lam_min and --lam_max, each chosen "
    "after those before it by a Gaussian process over the logarithm of lam.",
)
flags.DEFINE_float("lam_min", 1e1, "For --search=bayesian: the least lam.")
flags.DEFINE_float("lam_max", 1e5, "For --search=bayesian: the greatest lam.")
flags.DEFINE_string(
    "objective",
    _OBJECTIVE,
    "The measure that decides what is best, of the networks that are validated: entropy, "
    f"{', '.join(main_measures())}, or another one; an unknown name is answered with all of them.",
)

_TRIALS = 10
_SEARCH_FLAGS = {"grid": ("lams",), "bayesian": ("lam_min", "lam_max", "trials")}


@dataclasses.dataclass(frozen=True)
class Sweep(Study):
    """The hypernetwork trained with several lams, in trials of Keras Tuner.

    Attributes:
        config: Configuration of every trial, except its lam.
        search: "grid" or "bayesian".
        objective: Key of the measure that decides what is best, on the validation images.
        lams: Values of lam of a grid.
        lam_min: Least lam of a Bayesian search.
        lam_max: Greatest lam of a Bayesian search.
        num_trials: Number of trials of a Bayesian search.
        done: Values of lam whose trials came to their end; known after the search.
        failed: Values of lam whose training diverged; known after the search.
    """

    config: RunConfig
    search: str = "grid"
    objective: str = _OBJECTIVE
    lams: tuple[float, ...] = ()
    lam_min: float = 0.0
    lam_max: float = 0.0
    num_trials: int = 0
    done: tuple[float, ...] = ()
    failed: tuple[float, ...] = ()

    command: ClassVar[str] = "sweep"
    noun: ClassVar[str] = "sweep"

    def run_of(self, lam: float) -> StudyRun:
        """The run of a trial."""
        config = dataclasses.replace(self.config, lam=lam)
        return StudyRun(f"{lam:g}", f"lam={lam:g}", config)

    def train(
        self,
        trial: StudyRun,
        folder: pathlib.Path,
        data_dir: str | None,
        execution: Execution | None,
    ) -> dict[str, Any]:
        """Train, evaluate and analyse a trial; returns the contents of its metrics.json.

        Args:
            trial: The run of the trial.
            folder: Folder of the sweep.
            data_dir: Folder of data sets, see `hypernet_tf.data.load`.
            execution: Devices on which training steps run, and how.
        """
        return experiment.run(
            trial.config,
            folder / trial.folder,
            data_dir,
            analyses=self.analyses,
            settings=self.settings,
            execution=execution,
        )

    def runs(self) -> list[StudyRun]:
        """The trials that came to their end, in the order of lam."""
        return [self.run_of(lam) for lam in self.done]

    def fixed_settings(self) -> dict[str, Any]:
        """More lams or trials go on in the same folder."""
        config = dataclasses.asdict(self.config)
        fixed = {"dataset": self.config.dataset, "search": self.search, **config}
        if self.search == "bayesian":  # whose trials depend on these
            fixed |= {"objective": self.objective, "lam_min": self.lam_min, "lam_max": self.lam_max}
        return {name: value for name, value in fixed.items() if name not in ("lam", "match")}

    def default_settings(self) -> dict[str, Any]:
        """A grid over the whole of MNIST."""
        config = self.config
        names, target = (config.experiment, config.method, config.preset), config.target
        plain = preset(*names, target=target, dataset=config.dataset)
        defaults = dataclasses.replace(
            self, config=plain, objective=_OBJECTIVE, lam_min=1e1, lam_max=1e5
        ).fixed_settings()
        named = {"target": "mnist", "method": "hypernetwork", "dataset": "mnist"}
        return defaults | named | {"preset": "paper", "search": "grid"}

    def columns(self, results: Sequence[RunResult]) -> list[str | Column]:
        """The trade of accuracy for diversity, and the objective."""
        objective = dataclasses.replace(
            MEASURES[self.objective],
            key="objective",
            title=f"{MEASURES[self.objective].title}, {self._validated}",
        )
        shown: list[str | Column] = [
            *("entropy", "member_accuracy", "majority_vote_accuracy", "mean_probability_accuracy"),
            *("negative_log_likelihood", "expected_calibration_error", "brier_score"),
            "disagreement",
            Column(objective, lambda one: one.metrics["validation"][self.objective]),
        ]
        return and_main_measures(shown)

    @property
    def _validated(self) -> str:
        """Of what the objective is; the entropy is of weights, drawn anew for the table."""
        is_of_weights = MEASURES[self.objective].kind == "weights"
        return "validated networks" if is_of_weights else "validation images"

    def summary(
        self,
        results: Sequence[RunResult],
        numbers: Numbers,
        folder: pathlib.Path,
        data_dir: str | None,
    ) -> dict[str, Any]:
        """The best trial, and the command that trains it again."""
        sign = 1 if MEASURES[self.objective].better == "higher" else -1
        values = numbers["objective"]
        named = folder if folder.name else folder.resolve()  # "." has no name
        again = named.with_name(f"{named.name}-best")

        def goodness(result: RunResult) -> float:
            mean = values[result.run.entry].mean
            return -math.inf if mean is None else sign * mean

        best = max(results, key=goodness)
        return {
            "trials": [
                {
                    "lam": one.run.config.lam,
                    "folder": one.run.folder,
                    "objective": values[one.run.entry].mean,
                    "validation": one.metrics["validation"],
                }
                for one in results
            ],
            "best": {
                "lam": best.run.config.lam,
                "folder": best.run.folder,
                "objective": values[best.run.entry].mean,
            },
            "config": dataclasses.asdict(best.run.config),
            "command_line": shlex.join(["python", *command_line(best.run.config, again, data_dir)]),
        }

    def label(self, entry: str, metrics: Mapping[str, Any]) -> str:
        """lam, and whether it is the best."""
        best = entry == f"{metrics['best']['lam']:g}"
        return f"lam {entry}" + (" (best)" if best else "")

    def title(self) -> str:
        """The heading of the page."""
        config = self.config
        named = [config.target] if config.target != "mnist" else []
        named += [config.method] if config.method != "hypernetwork" else []
        return ", ".join([f"Sweep over lam on {hn.data.title(config.dataset)}", *named])

    def paragraphs(self, metrics: Mapping[str, Any]) -> list[str]:
        """What was trained, how the best trial was chosen, how it is trained again."""
        best = metrics["best"]
        paragraphs = [
            f"Each trial trained the {self.config.method} with another lam, the weight of accuracy "
            f"against diversity, for {self.config.steps:,} steps. Accuracies, likelihoods and "
            f"calibration in table and figure are those of {self.config.num_networks} networks on "
            "the test images; entropy is that of the weights of these networks.",
            f"The best trial has the best {MEASURES[self.objective].title} ({self._validated}). No "
            "trial trained on the validation images, and the test images do not influence the "
            "choice. "
            f"It is lam {best['lam']:g}, in {best['folder']}. It is trained again by: "
            f"{metrics['command_line']}",
        ]
        if self.failed:
            lams = ", ".join(f"{lam:g}" for lam in self.failed)
            paragraphs.append(f"Not in the table, because training diverged: lam {lams}.")
        return paragraphs

    def figures(self, numbers: Numbers, metrics: Mapping[str, Any]) -> list[Drawing]:
        """The frontier: quality against entropy, a mark for each trial."""
        keys = ("entropy", "member_accuracy", "majority_vote_accuracy", "negative_log_likelihood")
        arrays = {"lam": np.array(self.done)}
        for key in keys:
            values = np.array([numbers[key][f"{lam:g}"].mean for lam in self.done], float)
            arrays[key] = MEASURES[key].factor * values
        panels = [
            {
                "title": MEASURES[key].title.capitalize(),
                "unit": MEASURES[key].unit,
                "log": MEASURES[key].unit == "nats",
                "values": arrays[key],
            }
            for key in keys[1:]
        ]
        best = self.done.index(metrics["best"]["lam"])
        caption = (
            "The accuracy-diversity frontier on the test images: a mark for each trial, its lam "
            "beside it, a ring around the best one; the grey line goes from lam to lam"
        )
        figure = plots.frontier(arrays["lam"], arrays["entropy"], panels, best=best)
        return [Drawing("frontier", caption, figure, arrays)]


def from_flags() -> Sweep:
    """The sweep that the flags ask for; says on stdout which data set `auto` became.

    Raises:
        UsageError: Flags that do not fit each other, or lams that are not numbers above 0.
    """
    values = command.FLAGS
    shared_flags.accept_only(SHARED_FLAGS, "a sweep", others=(run_flags,))
    try:
        tuner_objective(values.objective)
    except ValueError as error:
        raise UsageError(f"--objective: {error}") from error
    if MEASURES[values.objective] not in (*evaluation_measures("classification"), *of_weights()):
        raise UsageError(f"--objective={values.objective} is not for classes: choose another")
    for search, names in _SEARCH_FLAGS.items():
        for name in names:
            if search != values.search and values[name].present:
                raise UsageError(f"--{name} is not used by --search={values.search}: remove it")
    chosen = {"search": values.search, "objective": values.objective, **analysis_flags.of_study()}
    if values.search == "grid":
        lams = _lams(values.lams)
        return Sweep(_config(), lams=lams, **chosen)
    low, high = (trials.rounded(values[name].value) for name in ("lam_min", "lam_max"))
    if not SMALLEST <= low < high < LARGEST:
        raise UsageError(
            f"--lam_min and --lam_max are numbers from {SMALLEST:g} to {LARGEST:g}, the first of "
            f"them smaller, not {low:g}, {high:g}"
        )
    if values.trials == 0:
        raise UsageError("--trials=0 searches nothing: give at least 1")
    config = _config()
    num_trials = values.trials or _TRIALS
    return Sweep(config, lam_min=low, lam_max=high, num_trials=num_trials, **chosen)


def _config() -> RunConfig:
    """The configuration of a trial, except its lam, in the experiment of its target."""
    experiment = TARGETS[run_flags.target()].experiment
    run_flags.use_data_of(experiment)
    config = run_flags.config_from_flags(experiment)
    if "lam" not in METHODS[config.method].flags:
        raise UsageError(f"--method={config.method} has no lam: choose a hypernetwork or a mixture")
    return config


def _lams(texts: list[str]) -> tuple[float, ...]:
    try:
        lams = [trials.rounded(float(text)) for text in texts]
    except ValueError as error:
        raise UsageError(f"--lams are numbers, separated by commas: {error}") from error
    if not lams or not all(SMALLEST <= lam < LARGEST for lam in lams):
        raise UsageError(f"--lams are numbers from {SMALLEST:g} to {LARGEST:g}, at least one")
    if len(set(lams)) < len(lams):
        raise UsageError("--lams names a lam twice (six digits of each count)")
    return tuple(lams)


def run(
    sweep: Sweep,
    folder: pathlib.Path,
    data_dir: str | None = None,
    part: workers.Part | None = None,
    execution: Execution | None = None,
) -> dict[str, Any] | None:
    """Run the trials that are left and write the frontier.

    Args:
        sweep: What to search.
        folder: Folder of the sweep, and of its trials.
        data_dir: Folder of data sets, see `hypernet_tf.data.load`.
        part: Part of this process in a search that several processes share.
        execution: Devices on which the training steps of a trial run, and how.

    Returns:
        The contents of metrics.json; None for a worker, whose chief writes it.

    Raises:
        RunError, DataError, CheckpointError: Each with its one line.
    """
    sweep.check(folder)
    if part is None or not part.is_chief:
        hn.data.load(sweep.config.dataset, data_dir)  # an error comes before the first trial
    search = functools.partial(_search, sweep, folder, data_dir, execution)
    if part is not None and not part.is_chief:
        workers.wait_for_chief(part)
        if not (folder / "study.json").exists():
            raise RunError(f"the chief works in another folder, not in {folder.resolve()}")
        sweep.check(folder)
        with workers.chief_may_go(part):
            search(is_worker=True)
        return None
    if part is not None:
        workers.check_address(part)
    with folders.locked(folder):
        sweep.check(folder)
        folders.write_json(folder / "study.json", sweep.record())
        if part is not None:
            print(f"chief: trials are handed out at {part.address}", flush=True)
        return _finish(sweep, folder, data_dir, search(is_worker=False), execution)


def _search(
    sweep: Sweep,
    folder: pathlib.Path,
    data_dir: str | None,
    execution: Execution | None,
    *,
    is_worker: bool,
) -> list[Any]:
    def train(values: dict[str, Any]) -> dict[str, float]:
        lam = values["lam"]
        print(f"trial: lam {lam:g}", flush=True)
        trial = sweep.run_of(lam)
        _wait_until_free(folder / trial.folder)
        keras.backend.clear_session()  # of the previous trial
        return sweep.train(trial, folder, data_dir, execution)["validation"]

    if sweep.search == "grid":
        oracle = functools.partial(trials.ListOracle, [{"lam": lam} for lam in sweep.lams])
    else:
        oracle = functools.partial(
            trials.BayesianOracle, sweep.lam_min, sweep.lam_max, max_trials=sweep.num_trials
        )
    return trials.search(
        train,
        oracle,
        sweep.objective,
        folder / "tuner",
        seed=sweep.config.seed,
        is_worker=is_worker,
    )


def _wait_until_free(folder: pathlib.Path) -> None:
    """A restarted chief hands out a trial again that a worker may still be running."""
    while True:
        try:
            with folders.locked(folder):
                return
        except folders.OccupiedError:
            time.sleep(1)


def _finish(
    sweep: Sweep,
    folder: pathlib.Path,
    data_dir: str | None,
    ended: list[Any],
    execution: Execution | None,
) -> dict[str, Any]:
    """Write the frontier of the trials that came to their end."""

    def lams(status: str) -> tuple[float, ...]:
        these = {trials.values_of(one)["lam"] for one in ended if one.status == status}
        if sweep.search == "grid":  # a narrower one shows the lams that it names
            these &= {*sweep.lams}
        return tuple(sorted(these))

    sweep = dataclasses.replace(sweep, done=lams("COMPLETED"), failed=lams("FAILED"))
    if not sweep.done:
        raise RunError(f"no trial in {folder} came to its end: training diverged")
    sweep.check(folder)
    for trial in sweep.runs():  # results that were deleted, because they were damaged
        if not sweep.is_complete(folder, trial):
            sweep.train(trial, folder, data_dir, execution)
    return sweep.write(folder, data_dir)


def main() -> None:
    """Run `python -m reproduce.sweep`."""
    part = workers.part()
    sweep, values = from_flags(), command.FLAGS
    folder = pathlib.Path(values.run_dir) if values.run_dir else sweep.default_folder()
    execution = device_flags.execution(sweep.config.jit_compile)
    if execution.workers > 1:
        raise UsageError("a trial runs on one machine: unset TF_CONFIG")
    metrics = run(sweep, folder, values.data_dir, part, execution)
    if metrics is None:
        print("no trial is left; the chief writes the frontier")
        return
    print((folder / "table.md").read_text(encoding="utf-8").rstrip())
    for lam in metrics["failed"]:
        print(f"lam {lam:g} is not in the table: its training diverged")
    print(
        f"best: lam {metrics['best']['lam']:g}, {metrics['objective']} "
        f"{metrics['best']['objective']:.4g} ({sweep._validated})\n"
        f"again: {metrics['command_line']}\nreport: {folder / 'report.html'}"
    )


if __name__ == "__main__":
    command.run(main)
