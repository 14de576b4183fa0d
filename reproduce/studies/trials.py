"""The trials of a sweep as Keras Tuner runs them: who proposes lam, and what a trial is."""

from __future__ import annotations

import itertools
import math
import pathlib
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras_tuner
from sklearn.exceptions import ConvergenceWarning

from hypernet_tf.training.callbacks import TrainingDivergedError
from hypernet_tf.training.tuning import objective
from reproduce.runs.folder import RunError


def rounded(value: float, digits: int = 6) -> float:
    """A lam of so many significant digits, all of which a folder's name and a command show."""
    return float(f"{value:.{digits}g}")


def lam_of(trial: Any) -> float:
    """The lam of a trial, which Keras Tuner's messages carry in single precision."""
    return rounded(trial.hyperparameters.values["lam"])


class _Resumable:
    """Mends what an oracle reads back of an earlier search; stands before an `Oracle`."""

    def set_state(self, state):
        """The saved state in the space of today, with no trial lost.

        A kill between Keras Tuner's two files leaves a trial that has begun and is not on the list
        of those to be tried again.
        """
        known = {*state["ongoing_trials"].values(), *state["retry_queue"]}
        lost = [name for name, trial in self.trials.items() if trial.status == "RUNNING"]
        super().set_state(  # type: ignore[misc]
            state
            | {
                "retry_queue": state["retry_queue"] + [name for name in lost if name not in known],
                "hyperparameters": self.hyperparameters.get_config(),
            }
        )

    def _tried(self) -> set[float]:
        return {lam_of(trial) for trial in self.trials.values()}

    trials: dict[str, Any]
    hyperparameters: Any


class ListOracle(_Resumable, keras_tuner.Oracle):
    """Tries listed lams in their order; a longer list goes on where a shorter one ended.

    Keras Tuner's own grid walks from one value to the next and knows those of its first day only.

    Args:
        lams: the list.
        **kwargs: see `keras_tuner.Oracle`.
    """

    def __init__(self, lams: Sequence[float], **kwargs: Any):
        space = keras_tuner.HyperParameters()
        space.Choice("lam", list(lams))
        super().__init__(hyperparameters=space, **kwargs)
        self.lams = lams

    def populate_space(self, trial_id):
        """The next lam; when none is left, workers wait until all trials have ended."""
        tried = self._tried()
        for lam in self.lams:
            if lam not in tried:
                return {"status": "RUNNING", "values": {"lam": lam}}
        return {"status": "IDLE" if self.ongoing_trials else "STOPPED", "values": None}


class BayesianOracle(_Resumable, keras_tuner.oracles.BayesianOptimizationOracle):
    """Keras Tuner's Gaussian process over log lam, three significant digits, none tried twice.

    Args:
        low: the least lam.
        high: the greatest.
        **kwargs: see `keras_tuner.oracles.BayesianOptimizationOracle`.
    """

    def __init__(self, low: float, high: float, **kwargs: Any):
        space = keras_tuner.HyperParameters()
        space.Float("lam", low, high, sampling="log")
        super().__init__(hyperparameters=space, **kwargs)
        self.low, self.high = low, high

    def populate_space(self, trial_id):
        """What the process proposes; of a lam that was tried, the middle of the widest gap."""
        with warnings.catch_warnings():
            # Few trials leave its length scale at a bound, which is no news to a user.
            warnings.simplefilter("ignore", ConvergenceWarning)
            answer = super().populate_space(trial_id)
        if answer["values"]:
            lam = self._clipped(answer["values"]["lam"])
            tried = self._tried()
            if lam in tried:
                ends = sorted({self.low, self.high} | tried)
                below, above = max(itertools.pairwise(ends), key=lambda gap: gap[1] / gap[0])
                lam = self._clipped(math.sqrt(below * above))
            answer["values"] = {"lam": lam}
        return answer

    def _clipped(self, lam: float) -> float:
        return min(max(rounded(lam, 3), self.low), self.high)


class Trials(keras_tuner.Tuner):
    """Runs a function for each trial.

    Args:
        train: lam -> the metrics of a trial.
        **kwargs: see `keras_tuner.Tuner`.
    """

    def __init__(self, train: Callable[[float], dict[str, float]], **kwargs: Any):
        super().__init__(**kwargs)
        self.train = train

    def pre_create_trial(self):
        """Ask the chief a few times a second: a worker that waits asks without end."""
        time.sleep(0.2)

    def run_trial(self, trial, **kwargs):
        """Run it; one that diverged has failed, and any other error ends the search."""
        try:
            found = self.train(lam_of(trial))
        except TrainingDivergedError as error:
            print(f"lam {lam_of(trial):g}: {error}", flush=True)
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Exception as error:
            raise keras_tuner.errors.FatalError(str(error)) from error
        # Infinity and NaN are null in a file of metrics.
        found = {k: v for k, v in found.items() if v is not None and math.isfinite(v)}
        if self.oracle.objective.name not in found:
            raise keras_tuner.errors.FailedTrialError("its objective is no finite number")
        return found


def search(
    train: Callable[[float], dict[str, float]],
    make_oracle: Callable[..., keras_tuner.Oracle],
    name: str,
    folder: pathlib.Path,
    *,
    seed: int,
    is_worker: bool,
) -> list[Any]:
    """Run the trials that are left.

    Args:
        train: lam -> the metrics of a trial.
        make_oracle: an oracle, given `objective`, `seed` and `max_consecutive_failed_trials`.
        name: of the objective.
        folder: where Keras Tuner keeps its state.
        seed: of the search.
        is_worker: whether the state is another process's.

    Returns:
        All trials, the older ones of the folder included; none for a worker.

    Raises:
        RunError: the state is damaged, or an error of a trial.
    """
    oracle = make_oracle(
        objective=objective(name),
        seed=seed + 1,  # of 0 Keras Tuner makes a random one
        max_consecutive_failed_trials=None,  # no end to them: each is another lam
    )
    try:
        tuner = Trials(train, oracle=oracle, directory=folder.parent, project_name=folder.name)
        # By itself Keras Tuner reads the state only where a process of the same name left it.
        if not is_worker and (folder / "oracle.json").exists():
            oracle.reload()
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise RunError(
            f"Keras Tuner's state in {folder} is damaged: delete it and run the same command "
            "again; finished runs are not run again"
        ) from error
    try:
        tuner.search(verbose=0)
    except keras_tuner.errors.FatalError as error:
        raise error.__cause__ or error from None
    return [] if is_worker else list(oracle.trials.values())
