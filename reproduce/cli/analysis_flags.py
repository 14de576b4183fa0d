"""Flags of the analyses: --analyses, and one flag for each setting of an analysis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from absl import flags

from reproduce.analyses import ANALYSES, Setting, perform
from reproduce.analyses.subject import NUM_NETWORKS
from reproduce.runs.folder import UsageError

FLAGS = flags.FLAGS

flags.DEFINE_list(
    "analyses",
    None,
    "Analyses of the networks, separated by commas, or all. "
    + "; ".join(f"{name}: {analysis.title}" for name, analysis in ANALYSES.items())
    + ". Analyses that are done already with the same settings are not done again.",
)


def _define(setting: Setting, names: list[str]) -> None:
    """Define the flag of a setting.

    Args:
        setting: The setting.
        names: Names of the analyses that have it.
    """
    text = f"{setting.help} Used by: {', '.join(names)}."
    if setting.kind == "boolean":
        flags.DEFINE_bool(setting.name, setting.default, text)
    elif setting.kind == "list":
        flags.DEFINE_list(setting.name, list(setting.default), text)
    else:
        flags.DEFINE_integer(setting.name, setting.default, text, lower_bound=setting.lower_bound)


SETTINGS: list[Setting] = []
"""Settings with a flag of their own."""


def define_flags() -> None:
    """Define the flags of all settings that have none yet, those of extensions included."""
    for setting in perform.settings_of(list(ANALYSES)):
        # --num_networks is a flag of every run, and defined with those.
        if setting is not NUM_NETWORKS and setting not in SETTINGS:
            SETTINGS.append(setting)
            _define(setting, [name for name, a in ANALYSES.items() if setting in a.settings])


define_flags()


def requested() -> list[str]:
    """The names that --analyses holds.

    Raises:
        UsageError: A name is unknown, or --analyses is empty.
    """
    if FLAGS["analyses"].present and not FLAGS.analyses:
        raise UsageError(f"--analyses is empty: name some of {', '.join(ANALYSES)}, or all")
    names = list(FLAGS.analyses or [])
    perform.names_of(names)
    return names


def settings(names: Sequence[str], *, trains: bool) -> dict[str, Any]:
    """The settings that the command line gives, by name.

    Args:
        names: Names of the analyses that are performed.
        trains: Whether the command trains a sampler, which uses --num_networks as well.

    Raises:
        UsageError: A flag is given that none of the requested analyses uses.
    """
    used = perform.settings_of(names)
    for setting in SETTINGS if trains else (*SETTINGS, NUM_NETWORKS):
        if FLAGS[setting.name].present and setting not in used:
            raise UsageError(f"--{setting.name} is not used by the analyses asked for: remove it.")
    given = [s for s in (*SETTINGS, NUM_NETWORKS) if FLAGS[s.name].present]
    return {setting.name: FLAGS[setting.name].value for setting in given}


def of_study(always: Sequence[str] = ()) -> dict[str, Any]:
    """The analyses of a study's runs and their settings, as arguments of a `Study`.

    Args:
        always: Names of analyses that every run has.

    Raises:
        UsageError: As for `requested` and `settings`.
    """
    names = tuple(perform.names_of([*always, *requested()]))
    return {"analyses": names, "settings": settings(names, trains=True)}
