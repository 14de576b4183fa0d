"""Performing analyses in a run folder: which, in what order, what is done already, what is kept."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

from reproduce.analyses.analyses import ANALYSES
from reproduce.analyses.subject import Subject
from reproduce.runs import folder as _run
from reproduce.runs.folder import UsageError


def names_of(asked: Sequence[str]) -> list[str]:
    """The analyses asked for, in the order of the experiment.

    Args:
        asked: names, or "all".

    Raises:
        UsageError: one of them is unknown.
    """
    unknown = [name for name in asked if name not in (*ANALYSES, "all")]
    if unknown:
        raise UsageError(
            f"there is no analysis '{unknown[0]}': the analyses are {', '.join(ANALYSES)}, or all"
        )
    return [name for name in ANALYSES if name in asked or "all" in asked]


def possible(asked: Sequence[str], size: int | None) -> list[str]:
    """The analyses asked for that a sampler has networks enough for.

    Args:
        asked: names, or "all": of all analyses, those that cannot be are said and left out.
        size: how many networks the sampler has; None where there is no end to them.

    Raises:
        UsageError: one of them is unknown, or one that is named needs more networks.
    """
    names = names_of(asked)
    short = [name for name in names if size is not None and ANALYSES[name].needs > size]
    for name in short:
        line = (
            f"the analysis '{name}' needs at least {ANALYSES[name].needs} networks, and this "
            f"sampler has {size}"
        )
        if name in asked:
            raise UsageError(f"{line}: leave it out")
        print(f"left out: {line}")
    return [name for name in names if name not in short]


def perform(
    names: Sequence[str], subject: Subject, folder: pathlib.Path, metrics: dict[str, Any]
) -> None:
    """Perform analyses; what was done before with the same settings is not done again.

    Args:
        names: analyses.
        subject: what is analysed.
        folder: the run folder: figures/ gets a png, a pdf for print, and an npz with the numbers.
        metrics: of the run; gets an entry under "analyses" for each, and is written after each.
    """
    done = metrics.setdefault("analyses", {})
    for place, name in enumerate(names, 1):
        settings = settings_of(name, subject)
        if name in done and done[name]["settings"] == settings and not done[name].get("left_out"):
            continue
        print(f"analysis {place} of {len(names)}: {name}")
        # From here on the old figures may be gone, and with them what was said of them.
        (folder / "report.html").unlink(missing_ok=True)
        if done.pop(name, None):
            _run.write_json(folder / "metrics.json", metrics)
        start = time.monotonic()
        result = ANALYSES[name].run(subject)
        for title, drawing in result.drawings.items():
            _run.write_figure(folder, title, drawing.figure, drawing.arrays)
        done[name] = result.metrics | {
            "settings": settings,
            "figures": list(result.drawings),
            "seconds": round(time.monotonic() - start, 1),
        }
        _run.write_json(folder / "metrics.json", metrics)


def settings_of(name: str, subject: Subject) -> dict[str, Any]:
    """What an analysis's result depends on, but for the run's configuration."""
    everything = dataclasses.asdict(subject.settings)
    settings = {field: everything[field] for field in ANALYSES[name].uses}
    return settings | {"steps": int(subject.sampler.step.numpy())}
