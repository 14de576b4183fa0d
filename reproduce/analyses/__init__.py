"""Sampler-agnostic analyses: each is one class in one file of this folder.

A file that is added here is imported by itself; its analysis and its flags exist from then on.
"""

import importlib
import pkgutil

from reproduce.analyses.base import (
    ANALYSES,
    Analysis,
    Drawing,
    Findings,
    Limits,
    Row,
    Setting,
    at_most_available,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "ANALYSES",
    "Analysis",
    "Drawing",
    "Findings",
    "Limits",
    "Row",
    "Setting",
    "at_most_available",
]
