"""Progress bars of trainings."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress_bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """A progress bar that writes a line every 30 seconds where it is not shown on a terminal.

    A log file keeps every line.

    Args:
        iterable: What is counted; None to call `update`.
        options: Options of `tqdm`.

    Example:
        >>> with progress_bar(total=steps, desc="training", unit="step") as bar: ...
    """
    return tqdm(iterable, mininterval=0.5 if sys.stderr.isatty() else 30.0, **options)
