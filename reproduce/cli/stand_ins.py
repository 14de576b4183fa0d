"""Stand-ins for packages that take seconds to load, and of which `--help` needs nothing.

The text of `--help` is made of names, defaults and sentences. The modules that hold them import
TensorFlow for other purposes; with stand-ins in its place they load in half a second instead of
five.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any

PACKAGES = ("tensorflow", "keras", "keras_tuner", "matplotlib", "scipy", "sklearn")


class StandIn(types.ModuleType):
    """A module, function, class or value that only has to be there.

    Its attributes and entries and what it returns are stand-ins, too. A class that it decorates
    stays as it is, and a class that derives from it derives from `object`.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return StandIn(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What a function, a class or a decorator returns."""
        is_decorator = len(args) == 1 and not kwargs and isinstance(args[0], type)
        return args[0] if is_decorator else StandIn(self.__name__)

    def __getitem__(self, key: Any) -> Any:
        """An entry of a list, or a type with parameters."""
        return self

    def __mro_entries__(self, bases: tuple) -> tuple:
        """The base classes in its place: none."""
        return ()

    def __or__(self, other: Any) -> Any:
        """A union of types."""
        return self

    __ror__ = __or__


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds stand-ins for the packages and their modules."""

    def find_spec(self, fullname, path, target=None):
        """The specification of a module; None if it belongs to another package."""
        if fullname.partition(".")[0] in PACKAGES:
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec):
        """The stand-in."""
        return StandIn(spec.name)

    def exec_module(self, module):
        """Nothing: it has no code."""


def install() -> None:
    """Import stand-ins in place of the packages, from now on and in this whole process."""
    sys.meta_path.insert(0, _Finder())
    backend: Any = importlib.import_module("keras.backend")
    backend.backend = lambda: "tensorflow"  # which `import hypernet_tf` checks
