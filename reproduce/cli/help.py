"""`--help`: what a command does, and its flags in groups, those that most people use first."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

WORDS = ("--help", "-help", "-h", "-?")


def is_asked(arguments: Sequence[str]) -> bool:
    """Whether a command line asks for help."""
    return any(word in arguments for word in WORDS)


# The groups of flags; what no group names is part of the training.
GROUPS = {
    "Most used": (
        *("method", "methods", "lam", "lams", "preset", "dataset", "analyses", "run_dir"),
        *("seeds", "trials"),
    ),
    "Data": ("data_dir", "extension"),
    "Training": (),
    "Evaluation and analyses": ("num_networks",),
    "Devices and speed": (),
}
_GROUP_OF_MODULE = {
    "reproduce.cli.analysis_flags": "Evaluation and analyses",
    "reproduce.cli.device_flags": "Devices and speed",
}


def grouped_flags() -> dict[str, list[flags.Flag]]:
    """The flags of the command that runs, by group; groups without a flag are left out."""
    key_flags = {flag.name: flag for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])}
    groups: dict[str, list[flags.Flag]] = {
        title: [key_flags.pop(name) for name in names if name in key_flags]
        for title, names in GROUPS.items()
    }
    for name, flag in sorted(key_flags.items()):
        module = flags.FLAGS.find_module_defining_flag(name)
        groups[_GROUP_OF_MODULE.get(module, "Training")].append(flag)
    return {title: members for title, members in groups.items() if members}


def help_text() -> str:
    """What `--help` prints: the docstring of the command, and its flags."""
    lines = [(sys.modules["__main__"].__doc__ or "").strip()]
    for title, members in grouped_flags().items():
        lines += ["", f"{title}:"]
        for flag in members:
            negation = "[no]" if flag.boolean else ""
            lines.append(f"  --{negation}{flag.name}")
            details = [flag.help]
            if flag.default not in (None, [], ""):
                details.append(f"Default: {flag.default_as_str.strip(chr(39))}.")
            lines.append(flags.text_wrap(" ".join(details), indent="      ", firstline_indent=None))
    return "\n".join(lines)
