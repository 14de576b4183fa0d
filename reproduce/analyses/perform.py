"""Performing analyses in a run folder: which ones, in which order, and what is done already."""

from __future__ import annotations

import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from reproduce.analyses.base import ANALYSES, Limits, Setting
from reproduce.analyses.subject import NUM_NETWORKS, Subject
from reproduce.runs import folder as folders
from reproduce.runs.folder import UsageError


def names_of(requested: Sequence[str]) -> list[str]:
    """The names of the requested analyses, in the order of the analyses.

    Args:
        requested: Names, or "all".

    Raises:
        UsageError: A name is unknown.
    """
    unknown = [name for name in requested if name not in (*ANALYSES, "all")]
    if unknown:
        raise UsageError(
            f"there is no analysis '{unknown[0]}': the analyses are {', '.join(ANALYSES)}, or all"
        )
    return [name for name in ANALYSES if name in requested or "all" in requested]


def possible(requested: Sequence[str], num_available: int | None) -> list[str]:
    """The names of the requested analyses for which a sampler holds enough networks.

    Args:
        requested: Names; or "all", from which impossible analyses are left out with a notice.
        num_available: Number of networks that the sampler holds; None if it makes any number.

    Raises:
        UsageError: A name is unknown, or an analysis that is named needs more networks.
    """
    names = names_of(requested)
    impossible = [
        name
        for name in names
        if num_available is not None and ANALYSES[name].min_networks > num_available
    ]
    for name in impossible:
        reason = (
            f"the analysis '{name}' needs at least {ANALYSES[name].min_networks} networks, and "
            f"this sampler holds {num_available}"
        )
        if name in requested:
            raise UsageError(f"{reason}: leave it out")
        print(f"left out: {reason}")
    return [name for name in names if name not in impossible]


def settings_of(names: Sequence[str]) -> list[Setting]:
    """The settings of analyses, each once.

    Args:
        names: Names of analyses.
    """
    return list(dict.fromkeys(setting for name in names for setting in ANALYSES[name].settings))


def load(names: Sequence[str], values: Mapping[str, Any], data_dir: str | None) -> None:
    """Load what settings name, so that what is not available is noticed before a training.

    Args:
        names: Names of analyses.
        values: Name of a setting -> value, where a user gives it.
        data_dir: Folder of data sets, see `hypernet_tf.data.load`.

    Raises:
        DataError: Something is not available.
    """
    for setting in settings_of(names):
        if setting.load and values.get(setting.name):
            setting.load(values[setting.name], data_dir)


def resolved_settings(
    names: Sequence[str], values: Mapping[str, Any], limits: Limits
) -> dict[str, Any]:
    """The values of all settings that the analyses of a run need.

    Args:
        names: Names of the requested analyses. Those that every run has are added.
        values: Name of a setting -> value, where it is not the default. Settings that no requested
            analysis has are ignored.
        limits: What the settings depend on; its `num_networks` is the value of that setting.

    Raises:
        UsageError: A value does not fit the sampler or the data set.
    """
    requested = settings_of(names)
    every = settings_of([*names, *(name for name, a in ANALYSES.items() if a.basic)])
    settings: dict[str, Any] = {
        NUM_NETWORKS.name: NUM_NETWORKS.resolve(limits.num_networks, limits)
    }
    for setting in every:
        if setting is NUM_NETWORKS:
            continue
        value = setting.default
        if setting in requested:
            value = values.get(setting.name, value)
        elif setting.basic is not None:
            value = setting.basic
        value = setting.resolve(value, limits)
        # As metrics.json holds it, so that a result is found again.
        settings[setting.name] = list(value) if isinstance(value, tuple) else value
    return settings


def is_current(name: str, metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether metrics.json holds an analysis of the run's steps with these settings.

    Args:
        name: Name of the analysis.
        metrics: Contents of metrics.json.
        settings: Resolved settings.
    """
    entry = metrics.get("analyses", {}).get(name)
    return bool(entry and entry["settings"] == _recorded(name, settings, metrics["steps"]))


def is_done(name: str, metrics: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether an analysis is current and left out no data set.

    Data sets that were left out may be available by now.

    Args:
        name: Name of the analysis.
        metrics: Contents of metrics.json.
        settings: Resolved settings.
    """
    return is_current(name, metrics, settings) and not metrics["analyses"][name].get("left_out")


def perform(
    names: Sequence[str], subject: Subject, folder: pathlib.Path, metrics: dict[str, Any]
) -> None:
    """Perform analyses, except those that are done already with the same settings.

    Args:
        names: Names of the analyses.
        subject: Sampler, data set and resolved settings.
        folder: Run folder; its figures/ gets a png, a pdf for print and an npz with the arrays.
        metrics: Contents of the run's metrics.json. It gets an entry under "analyses" for each
            analysis, and is written after each.
    """
    entries = metrics.setdefault("analyses", {})
    for number, name in enumerate(names, 1):
        if is_done(name, metrics, subject.settings):
            continue
        print(f"analysis {number} of {len(names)}: {name}")
        analysis = ANALYSES[name]
        start = time.monotonic()
        numbers, figures = analysis.compute(subject.restricted_to(analysis.settings))
        others = {"training_curves"}.union(
            *(entry["figures"] for other, entry in entries.items() if other != name)
        )
        if taken := sorted(others & figures.keys()):
            raise folders.RunError(
                f"the analysis '{name}' makes a figure '{taken[0]}', which is another one of this "
                "run: rename it"
            )
        # The figures are replaced from here on: remove the report and the numbers that go with
        # them.
        (folder / "report.html").unlink(missing_ok=True)
        if entries.pop(name, None):
            folders.write_json(folder / "metrics.json", metrics)
        for figure_name, arrays in figures.items():
            figure = analysis.figure(figure_name, arrays, numbers)
            folders.write_figure(folder, figure_name, figure, arrays)
        entries[name] = numbers | {
            "settings": _recorded(name, subject.settings, metrics["steps"]),
            "figures": list(figures),
            "seconds": round(time.monotonic() - start, 1),
        }
        folders.write_json(folder / "metrics.json", metrics)


def _recorded(name: str, settings: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """What the result of an analysis depends on, besides the run's configuration."""
    values = {setting.name: settings[setting.name] for setting in ANALYSES[name].settings}
    return values | {"steps": steps}
