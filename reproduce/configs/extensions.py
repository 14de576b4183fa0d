"""Modules of a user's that register methods or analyses before a command reads its flags."""

from __future__ import annotations

import importlib
import itertools
import pathlib
import sys
from collections.abc import Sequence

_LOADED: list[str] = []


class ExtensionError(Exception):
    """A module that cannot be loaded or used; the message is one line that says what to do."""


def load_extensions(arguments: Sequence[str]) -> None:
    """Import the modules that the command line names, once each.

    Args:
        arguments: The command line; `--extension=my_sampler,other.py` names modules or files, and
            so does `--extension my_sampler,other.py`.

    Raises:
        ExtensionError: One cannot be imported.
    """
    for argument, following in itertools.pairwise([*arguments, ""]):
        name, equals, value = argument.lstrip("-").partition("=")
        if name != "extension" or not argument.startswith("-"):
            continue
        value = value if equals else following
        for extension in filter(None, map(str.strip, value.split(","))):
            if extension not in _LOADED:
                _import(extension)
                _LOADED.append(extension)


def loaded_extensions() -> list[str]:
    """The modules that were loaded, which a child process loads as well."""
    return list(_LOADED)


def _import(extension: str) -> None:
    path = pathlib.Path(extension).expanduser()
    if path.suffix == ".py" and not path.is_file():
        raise ExtensionError(f"cannot load --extension={extension}: there is no such file")
    folder = str(path.parent.resolve() if path.suffix == ".py" else pathlib.Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)  # where a script of the user's stands
    try:
        module = importlib.import_module(path.stem if path.suffix == ".py" else extension)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ExtensionError(f"cannot load --extension={extension}: {reason}") from error
    file = pathlib.Path(getattr(module, "__file__", None) or "")
    if path.suffix == ".py" and not (file.is_file() and file.samefile(path)):
        raise ExtensionError(
            f"cannot load --extension={extension}: another module has the name '{path.stem}': "
            "rename the file"
        )
