"""Errors of data sets, in one line."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator


class DataError(ValueError):
    """A data set is not available; the message is one line that says what to do."""


@contextlib.contextmanager
def guard(problem: str) -> Iterator[None]:
    """Turn errors, except a lack of memory, into one line, and keep TFDS off the terminal.

    Args:
        problem: Beginning of the line; the error's own text follows in brackets.

    Raises:
        DataError: The block raised an error.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    except (DataError, MemoryError):
        raise
    except Exception as error:
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"{problem} ({why})") from error
    finally:
        logging.disable(disabled)
