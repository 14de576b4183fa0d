"""The accuracy-diversity frontier: the MNIST experiment with many lams, searched by Keras Tuner.

  python -m reproduce.sweep                                    the grid: lam 10, 100, ..., 100,000
  python -m reproduce.sweep --lams=1e2,1e3,1e4 --preset=quick  these three, two minutes each
  python -m reproduce.sweep --search=bayesian --lam_min=1e2 --lam_max=1e5 --trials=10
  python -m reproduce.sweep --search=bayesian --objective=negative_log_likelihood

Each trial is an ordinary run of `reproduce.mnist` in its own folder below the sweep's, and can be
analysed like any other; `tensorboard --logdir` of the sweep's folder shows all of them. Trials are
chosen by what their ensemble does on the validation images. Table, figure (figures/frontier.png),
metrics.json and report.html show the test images; metrics.json ends with the command that runs the
best trial again.

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
import time
from typing import Any

import keras
from absl import flags

import hypernet_tf as hn
from hypernet_tf.training.devices import Execution
from hypernet_tf.training.tuning import DIRECTIONS
from reproduce import mnist
from reproduce.cli import analysis_flags as _analysis_flags
from reproduce.cli import device_flags as _device_flags
from reproduce.cli import experiment_flags as _experiment_flags
from reproduce.cli import flags as _flags
from reproduce.runs import folder as _run
from reproduce.studies import frontier as _frontier
from reproduce.studies import trials as _trials
from reproduce.studies import workers as _workers
from reproduce.studies.sweep_folder import Sweep, check, default_folder, trial_folder

# Of the shared flags only these mean something here.
SHARED_FLAGS = ("dataset", "data_dir", "run_dir", "preset", "steps", "seed", "num_networks")
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)
flags.adopt_module_key_flags(_device_flags)
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
flags.DEFINE_integer("trials", 10, "For --search=bayesian: how many trials in all.", lower_bound=1)
flags.DEFINE_enum(
    "objective",
    "ensemble_accuracy",
    list(_frontier.OBJECTIVES),
    "What is best, on the validation images. ensemble_accuracy is that of the majority vote, "
    "member_accuracy the mean over networks.",
)

_PARTS = {"grid": ("lams",), "bayesian": ("lam_min", "lam_max", "trials")}


def from_flags() -> Sweep:
    """The sweep that the flags ask for; says on stdout which data set `auto` became.

    Raises:
        UsageError: flags that do not fit each other, or lams that are none.
    """
    values = _flags.FLAGS
    _flags.accept_only(SHARED_FLAGS, "a sweep", others=(_experiment_flags, _analysis_flags))
    for search, names in _PARTS.items():
        for name in names:
            if search != values.search and values[name].present:
                raise _run.UsageError(f"--{name} has no part in --search={values.search}: drop it")
    if values.search == "grid":
        return Sweep(mnist.config_from_flags(), "grid", values.objective, _lams(values.lams))
    low, high = (_trials.rounded(values[name].value) for name in ("lam_min", "lam_max"))
    if not 0 < low < high < math.inf:
        raise _run.UsageError(f"--lam_min and --lam_max are 0 < min < max, not {low:g}, {high:g}")
    config = mnist.config_from_flags()
    return Sweep(
        config, "bayesian", values.objective, lam_min=low, lam_max=high, trials=values.trials
    )


def _lams(texts: list[str]) -> tuple[float, ...]:
    try:
        lams = [_trials.rounded(float(text)) for text in texts]
    except ValueError as error:
        raise _run.UsageError(f"--lams are numbers, separated by commas: {error}") from error
    if not lams or not all(0 < lam < math.inf for lam in lams):
        raise _run.UsageError("--lams are finite numbers above 0, at least one")
    if len(set(lams)) < len(lams):
        raise _run.UsageError("--lams names a lam twice (six digits of each count)")
    return tuple(lams)


def run(
    sweep: Sweep,
    folder: pathlib.Path,
    data_dir: str | None = None,
    part: _workers.Part | None = None,
    execution: Execution | None = None,
) -> dict[str, Any] | None:
    """Run the trials that are left and write the frontier.

    Args:
        sweep: what to search.
        folder: of the sweep, and of its trials.
        data_dir: see `hypernet_tf.data.load`.
        part: of this process in a search that several share.
        execution: on what, and how, the training steps of a trial are run.

    Returns:
        What metrics.json holds; None for a worker, whose chief writes it.

    Raises:
        RunError, DataError, CheckpointError: each with its one line.
    """
    check(folder, sweep)
    if part is None or not part.is_chief:
        hn.data.load(sweep.config.dataset, data_dir)  # what is missing is said before a trial
    find = functools.partial(_search, sweep, folder, data_dir, execution)
    if part is not None and not part.is_chief:
        _workers.wait_for_chief(part)
        if not (folder / "sweep.json").exists():
            raise _run.RunError(f"the chief works in another folder, not in {folder.resolve()}")
        check(folder, sweep)
        with _workers.chief_may_go(part):
            find(is_worker=True)
        return None
    if part is not None:
        _workers.check_address(part)
    with _run.locked(folder):
        check(folder, sweep)
        _run.write_json(folder / "sweep.json", sweep.record())
        if part is not None:
            print(f"chief: trials are handed out at {part.address}", flush=True)
        return _write(sweep, folder, data_dir, find(is_worker=False))


def _search(
    sweep: Sweep,
    folder: pathlib.Path,
    data_dir: str | None,
    execution: Execution | None,
    *,
    is_worker: bool,
) -> list[Any]:
    def train(lam: float) -> dict[str, float]:
        print(f"trial: lam {lam:g}", flush=True)
        where = trial_folder(folder, lam)
        _wait_until_free(where)
        keras.backend.clear_session()  # the trial before is over
        config = dataclasses.replace(sweep.config, lam=lam)
        metrics = mnist.run(config, where, data_dir, execution=execution)
        return {
            name: metrics["validation"][ours]
            for name, ours in _frontier.OBJECTIVES.items()
            if ours in metrics["validation"]
        }

    if sweep.search == "grid":
        oracle = functools.partial(_trials.ListOracle, sweep.lams)
    else:
        oracle = functools.partial(
            _trials.BayesianOracle, sweep.lam_min, sweep.lam_max, max_trials=sweep.trials
        )
    return _trials.search(
        train,
        oracle,
        sweep.objective,
        folder / "tuner",
        seed=sweep.config.seed,
        is_worker=is_worker,
    )


def _wait_until_free(folder: pathlib.Path) -> None:
    """A chief that was restarted hands out again what a worker of before is still running."""
    while True:
        try:
            with _run.locked(folder):
                return
        except _run.OccupiedError:
            time.sleep(1)


def _write(
    sweep: Sweep, folder: pathlib.Path, data_dir: str | None, trials: list[Any]
) -> dict[str, Any]:
    """The frontier of the trials that came to their end."""
    done = sorted({_trials.lam_of(one) for one in trials if one.status == "COMPLETED"})
    failed = sorted({_trials.lam_of(one) for one in trials if one.status == "FAILED"})
    if not done:
        raise _run.RunError(f"no trial in {folder} came to its end: training diverged")
    found = []
    for lam in done:
        where = trial_folder(folder, lam)
        _run.check(where, dataclasses.replace(sweep.config, lam=lam))
        try:
            one = _frontier.trial(lam, where.name, _run.read_metrics(where), sweep.objective)
        except (KeyError, TypeError) as error:
            raise _run.damaged(where / "metrics.json") from error
        found.append(one)
    sign = 1 if DIRECTIONS[sweep.objective] == "max" else -1
    best = max(range(len(found)), key=lambda place: sign * found[place]["objective"])
    config = dataclasses.replace(sweep.config, lam=done[best])
    again = folder.with_name(f"{folder.name}-best")
    metrics = {
        "experiment": "sweep",
        "search": sweep.search,
        "objective": sweep.objective,
        "config": dataclasses.asdict(config),
        "trials": found,
        "failed": failed,
        "best": found[best],
        "command": _frontier.command(config, again, data_dir),
    }
    figure, arrays = _frontier.figure(found, best)
    _run.write_figure(folder, "frontier", figure, arrays)
    _run.write_json(folder / "metrics.json", metrics)
    table = _frontier.text_table(metrics)
    _run.write(folder / "table.md", lambda aside: aside.write_text(table + "\n"))
    text = _frontier.page(metrics, config, folder / "figures" / "frontier.png")
    _run.write(folder / "report.html", lambda aside: aside.write_text(text))
    return metrics


def main() -> None:
    """What `python -m reproduce.sweep` does."""
    part = _workers.part()
    sweep, values = from_flags(), _flags.FLAGS
    folder = pathlib.Path(values.run_dir) if values.run_dir else default_folder(sweep)
    execution = _device_flags.execution()
    if execution.workers > 1:
        raise _run.UsageError("a trial runs on one machine: unset TF_CONFIG")
    metrics = run(sweep, folder, values.data_dir, part, execution)
    if metrics is None:
        print("no trial is left; the chief writes the frontier")
        return
    print(_frontier.text_table(metrics))
    for lam in metrics["failed"]:
        print(f"lam {lam:g} is not in the table: its training diverged")
    print(
        f"best: lam {metrics['best']['lam']:g}, {metrics['objective']} "
        f"{metrics['best']['objective']:.4g} on the validation images\n"
        f"again: {metrics['command']}\nreport: {folder / 'report.html'}"
    )


if __name__ == "__main__":
    _flags.run(main)
