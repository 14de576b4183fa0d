"""The published results, one module each: `python -m reproduce.<experiment> --help`."""

import contextlib
import os
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what TensorFlow writes to stderr while it loads, so that errors are one line.

    Its native code writes notes about CPUs and missing GPUs that no log level stops. They are shown
    if loading fails.
    """
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


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
with _quiet():
    import tensorflow

    tensorflow.config.list_physical_devices()  # looks for GPUs, and says so
