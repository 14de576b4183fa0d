"""What goes wrong with data, said in one line."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator


class DataError(ValueError):
    """A data set that cannot be had; the message is one line that says what to do."""


@contextlib.contextmanager
def guard(problem: str) -> Iterator[None]:
    """Turns any error into the one line of a DataError, and keeps TFDS off the terminal."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    except DataError:
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{problem} ({why})") from error
    finally:
        logging.disable(disabled)
