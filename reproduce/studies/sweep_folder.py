"""What a sweep is, and whose folder its folder is."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from reproduce import mnist
from reproduce.runs import folder as _run


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What is searched.

    Attributes:
        config: of every trial, but for its lam.
        search: "grid" or "bayesian".
        objective: what is best, on the validation images.
        lams: of a grid.
        lam_min: of a Bayesian search, as are the next two.
        lam_max: its greatest lam.
        trials: how many in all.
    """

    config: mnist.Config
    search: str = "grid"
    objective: str = "ensemble_accuracy"
    lams: tuple[float, ...] = ()
    lam_min: float = 0.0
    lam_max: float = 0.0
    trials: int = 0

    def record(self) -> dict[str, Any]:
        """What must not change while a sweep goes on in its folder."""
        fixed = {"search": self.search, **dataclasses.asdict(self.config)}
        if self.search == "bayesian":  # whose trials depend on these
            fixed |= {"objective": self.objective, "lam_min": self.lam_min, "lam_max": self.lam_max}
        return {name: value for name, value in fixed.items() if name not in ("lam", "match")}


def default_folder(sweep: Sweep) -> pathlib.Path:
    """Named after what differs from the defaults; lams and trials go on in the same folder."""
    usual = Sweep(mnist.defaults("hypernetwork", sweep.config.preset), sweep.search)
    usual = dataclasses.replace(usual, lam_min=1e1, lam_max=1e5)
    plain = usual.record() | {"dataset": "mnist", "preset": "paper", "search": "grid"}
    parts = [
        f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in sweep.record().items()
        if value != plain[name]
    ]
    return pathlib.Path("runs", "-".join(["sweep", *parts]))


def trial_folder(folder: pathlib.Path, lam: float) -> pathlib.Path:
    """The run folder of a trial."""
    return folder / f"lam={lam:g}"


def check(folder: pathlib.Path, sweep: Sweep) -> None:
    """Whether a folder is free for a sweep, or holds this one.

    Raises:
        RunError: something else is in it.
    """
    path = folder / "sweep.json"
    try:
        if folder.exists() and not folder.is_dir():
            raise _run.RunError(f"the folder {folder} is a file: choose another --run_dir")
        there = {one.name for one in folder.iterdir()} - {".lock"} if folder.exists() else set()
        saved = json.loads(path.read_text()) if path.name in there else None
    except OSError as error:
        raise _run.RunError(f"{folder} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _run.RunError(f"{path} is damaged: choose another --run_dir") from error
    if "config.json" in there:
        raise _run.RunError(f"{folder} is the folder of a single run: choose another --run_dir")
    if there and saved is None:
        raise _run.RunError(f"{folder} is not empty and no sweep: choose another --run_dir")
    if saved is None:
        return
    if not isinstance(saved, dict):
        raise _run.RunError(f"{path} is damaged: choose another --run_dir")
    for name, ours in sweep.record().items():
        if saved.get(name, ours) != ours:  # a field that an older sweep did not know
            raise _run.RunError(
                f"the sweep in {folder} has {name}={saved[name]}, not {ours}: choose "
                "another --run_dir"
            )
