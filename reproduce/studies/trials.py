"""Trials in Keras Tuner: oracles that propose settings, and the search."""

from __future__ import annotations

import contextlib
import itertools
import math
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial
from sklearn.exceptions import ConvergenceWarning

from hypernet_tf.ensembles.ensemble import NotFiniteError
from hypernet_tf.training.callbacks import TrainingDivergedError
from hypernet_tf.training.tuning import objective
from reproduce.runs.folder import RunError


def rounded(value: float, digits: int = 6) -> float:
    """Round a number to significant digits, which a folder's name and a command show.

    Args:
        value: The number.
        digits: Number of significant digits.
    """
    return float(f"{value:.{digits}g}")


def values_of(trial: Any) -> dict[str, Any]:
    """The settings of a trial, rounded because Keras Tuner's messages have single precision.

    Args:
        trial: Trial of Keras Tuner.
    """
    return {
        name: rounded(value) if isinstance(value, float) else value
        for name, value in trial.hyperparameters.values.items()
    }


def ended_settings(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Settings of the trials that have ended, diverged ones too, as far as the state is readable.

    Args:
        folder: Folder of Keras Tuner's state, see `search`.
    """
    ended = []
    for path in sorted(folder.glob("trial_*/trial.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            trial = Trial.load(str(path))
            if trial.status in ("COMPLETED", "FAILED"):
                ended.append(values_of(trial))
    return ended


def text_of(values: Mapping[str, Any]) -> str:
    """Settings in one line.

    Args:
        values: Name of a setting -> value.
    """
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


class _Resumable:
    """Repairs the state that an oracle reloads; a base class to list before `Oracle`."""

    trials: dict[str, Any]
    hyperparameters: Any
    _retry_queue: list[str]

    def set_state(self, state):
        """Load a saved state into the present search space, without losing a trial.

        A process that is killed between the writing of Keras Tuner's two files leaves a trial that
        has the status RUNNING and is in no queue. It is queued again.

        Args:
            state: State that `get_state` returned.
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

    def _tried(self) -> list[dict[str, Any]]:
        return [values_of(trial) for trial in self.trials.values()]


class ListOracle(_Resumable, keras_tuner.Oracle):
    """Tries a list of settings in order; a longer list continues a search over a shorter one.

    Keras Tuner's `GridSearchOracle` does not support values that are added after its start.

    Args:
        candidates: Name of a setting -> value, for each trial, all with the same names; floats have
            at most six significant digits.
        **kwargs: Arguments of `keras_tuner.Oracle`.
    """

    def __init__(self, candidates: Sequence[Mapping[str, Any]], **kwargs: Any):
        space = keras_tuner.HyperParameters()
        for name in candidates[0]:
            space.Choice(name, list(dict.fromkeys(one[name] for one in candidates)))
        super().__init__(hyperparameters=space, **kwargs)
        self.candidates = candidates

    def create_trial(self, tuner_id):
        """As Keras Tuner's, which would run again what a search over other settings left behind.

        Args:
            tuner_id: Name of the process that asks.
        """
        wanted = [dict(values) for values in self.candidates]
        self._retry_queue = [
            name for name in self._retry_queue if values_of(self.trials[name]) in wanted
        ]
        return super().create_trial(tuner_id)

    def populate_space(self, trial_id):
        """Propose the next settings; if none are left, workers wait until all trials have ended.

        Args:
            trial_id: Name of the new trial.
        """
        tried = self._tried()
        for values in self.candidates:
            if values not in tried:
                return {"status": "RUNNING", "values": dict(values)}
        return {"status": "IDLE" if self.ongoing_trials else "STOPPED", "values": None}


class BayesianOracle(_Resumable, keras_tuner.oracles.BayesianOptimizationOracle):
    """Proposes lams by a Gaussian process over log lam, each only once, with three digits.

    Args:
        low: Least lam.
        high: Greatest lam.
        **kwargs: Arguments of `keras_tuner.oracles.BayesianOptimizationOracle`.
    """

    def __init__(self, low: float, high: float, **kwargs: Any):
        space = keras_tuner.HyperParameters()
        space.Float("lam", low, high, sampling="log")
        super().__init__(hyperparameters=space, **kwargs)
        self.low, self.high = low, high

    def populate_space(self, trial_id):
        """Propose the process's lam, or the middle of the widest gap if that lam was tried.

        Args:
            trial_id: Name of the new trial.
        """
        with warnings.catch_warnings():
            # With few trials the fitted length scale is at its bound, which is harmless.
            warnings.simplefilter("ignore", ConvergenceWarning)
            answer = super().populate_space(trial_id)
        if answer["values"]:
            lam = self._clipped(answer["values"]["lam"])
            tried = {values["lam"] for values in self._tried()}
            if lam in tried:
                ends = sorted({self.low, self.high} | tried)
                below, above = max(itertools.pairwise(ends), key=lambda gap: gap[1] / gap[0])
                lam = self._clipped(math.sqrt(below * above))
            answer["values"] = {"lam": lam}
        return answer

    def _clipped(self, lam: float) -> float:
        return min(max(rounded(lam, 3), self.low), self.high)


class Trials(keras_tuner.Tuner):
    """Calls a function for each trial.

    Args:
        train: Function of the settings by name -> metrics of the trial.
        **kwargs: Arguments of `keras_tuner.Tuner`.
    """

    def __init__(self, train: Callable[[dict[str, Any]], dict[str, float]], **kwargs: Any):
        super().__init__(**kwargs)
        self.train = train

    def pre_create_trial(self):
        """Wait before each question to the chief, which an idle worker repeats without a pause."""
        time.sleep(0.2)

    def run_trial(self, trial, **kwargs):
        """Run a trial; it fails if training diverges, and any other error ends the search.

        Args:
            trial: Trial of Keras Tuner.
            **kwargs: Not used.
        """
        try:
            metrics = self.train(values_of(trial))
        except (TrainingDivergedError, NotFiniteError) as error:
            print(f"{text_of(values_of(trial))}: {error}", flush=True)
            raise keras_tuner.errors.FailedTrialError(str(error)) from error
        except Exception as error:
            raise keras_tuner.errors.FatalError(str(error)) from error
        # Infinity and NaN are null in metrics.json.
        metrics = {k: v for k, v in metrics.items() if v is not None and math.isfinite(v)}
        if self.oracle.objective.name not in metrics:
            text = f"{self.oracle.objective.name} is not a finite number"
            print(f"{text_of(values_of(trial))}: {text}", flush=True)
            raise keras_tuner.errors.FailedTrialError(text)
        return metrics


def search(
    train: Callable[[dict[str, Any]], dict[str, float]],
    make_oracle: Callable[..., keras_tuner.Oracle],
    name: str,
    folder: pathlib.Path,
    *,
    seed: int,
    is_worker: bool,
) -> list[Any]:
    """Run the trials that are not done yet.

    Args:
        train: Function of the settings by name -> metrics of the trial.
        make_oracle: Function that makes an oracle from the arguments `objective`, `seed` and
            `max_consecutive_failed_trials`.
        name: Key of the measure that is the objective.
        folder: Folder of Keras Tuner's state.
        seed: Seed of the search.
        is_worker: Whether the oracle is in another process, the chief.

    Returns:
        All trials, including those of earlier searches in this folder; [] for a worker.

    Raises:
        RunError: The state is damaged.
        Exception: The error of a trial, except that its training diverged.
    """
    oracle = make_oracle(
        objective=objective(name),
        seed=seed + 1,  # Keras Tuner replaces 0 by a random seed
        max_consecutive_failed_trials=None,  # failures do not end the search: settings differ
    )
    try:
        with contextlib.redirect_stdout(None):  # "Reloading Tuner from ..."
            tuner = Trials(train, oracle=oracle, directory=folder.parent, project_name=folder.name)
        # Keras Tuner itself reloads the state only in a process of the same name.
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
