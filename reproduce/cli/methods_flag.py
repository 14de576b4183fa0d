"""The flag of commands that compare methods."""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from reproduce.runs.folder import UsageError

flags.DEFINE_list(
    "methods",
    ["all"],
    "Methods to compare, separated by commas. all: those of this command, or in a comparison all "
    "that have the preset.",
)


def methods(known: Sequence[str], all_methods: Sequence[str] | None = None) -> tuple[str, ...]:
    """The methods that the flag names, in the order of the experiment.

    Args:
        known: Names of the methods that may be named.
        all_methods: What "all" stands for; None for all that may be named.

    Raises:
        UsageError: No method, an unknown one, or one named twice.
    """
    flag = flags.FLAGS["methods"]
    if not flag.value:
        raise UsageError("--methods is empty: name at least one")
    if flag.value == ["all"]:
        return tuple(known if all_methods is None else all_methods)
    names = flag.value
    for name in names:
        if name not in known:
            raise UsageError(f"there is no method '{name}': choose from {', '.join(known)}")
    if len(set(names)) < len(names):
        raise UsageError("--methods names a method twice: name each once")
    return tuple(name for name in known if name in names)
