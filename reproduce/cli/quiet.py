"""What TensorFlow writes to stderr while it loads is held back, so that errors are one line."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator


def load_tensorflow_quietly() -> None:
    """Load TensorFlow and let it look for GPUs, whose memory it takes bit by bit, quietly.

    Its native code writes notes about CPUs and missing GPUs that no log level stops.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # A study shares a GPU with the runs that it starts, which inherit this.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    with _held_back():
        import tensorflow

        tensorflow.config.list_physical_devices()


@contextlib.contextmanager
def _held_back() -> Iterator[None]:
    """Hold stderr back, and show what it holds if an error is raised."""
    with tempfile.TemporaryFile() as held:
        stderr = os.dup(2)
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
