"""Data sets that TensorFlow Datasets (TFDS) prepares, from a download or from original files."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from hypernet_tf.data import originals
from hypernet_tf.data.errors import DataError, guard
from hypernet_tf.data.splits import VALIDATION_IMAGES, Dataset, Split

_SCRATCH = ".hypernet_tf-"  # prefix of temporary folders
_ABANDONED = 86_400.0  # seconds after which a temporary folder is not in use
PROBE_SECONDS = 3.0  # in which a server has to answer, name look-up included
# Training, validation, test.
TFDS_SPLITS = (f"train[:-{VALIDATION_IMAGES}]", f"train[-{VALIDATION_IMAGES}:]", "test")


def read_prepared(
    root: Path,
    *,
    name: str,
    remedy: str,
    read_files: Callable[[Any, Path], Dataset] | None = None,
) -> Dataset:
    """A data set as TFDS has prepared it; it is prepared first where that is possible.

    Args:
        root: Folder of data sets.
        name: Its name in TFDS.
        remedy: What to do where it is not available.
        read_files: Function (builder, folder of original files) -> data set, which reads original
            files in place of TFDS.

    Raises:
        DataError: It is not available. Nothing half-written is left behind.
    """
    import tensorflow_datasets as tfds

    builder, prepared, folder = _locate(name, root)
    if not prepared:
        if read_files is not None and folder is not None:
            return read_files(builder, folder)
        if folder is None and (missing := _missing(builder, root)):
            raise DataError(f"{missing}: {remedy}")
        _prepare(builder, folder)
        builder, _ = _find_builder(name, Path(builder.data_dir).parents[1])
    with guard(f"{builder.data_dir} cannot be read: remove it if damaged"):
        parts = tfds.as_numpy(builder.as_dataset(split=list(TFDS_SPLITS), batch_size=-1))
    source = f"TensorFlow Datasets {name} {builder.version}"
    classes = tuple(builder.info.features["label"].names)
    return Dataset(name, source, classes, *(Split(part["image"], part["label"]) for part in parts))


def why_missing(name: str, root: Path) -> str | None:
    """Why a data set is not available; None if it is, or can be prepared.

    Args:
        name: Its name in TFDS.
        root: Folder of data sets.
    """
    builder, prepared, folder = _locate(name, root)
    return None if prepared or folder else _missing(builder, root)


def root_of(data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder of data sets: `data_dir`, or TFDS's own.

    Args:
        data_dir: A folder; None for TFDS's own.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(data_dir or default).expanduser()


def _locate(name: str, root: Path) -> tuple[Any, bool, Path | None]:
    """Where TFDS has a data set or can prepare it.

    Returns:
        The builder, whether the data set is prepared, and if not the folder of its original files,
        or None if there is none. The builder is that of TFDS's own folder if the data set is not
        prepared in `root` and `root` cannot be written.
    """
    builder, prepared = _find_builder(name, root)
    folder = None if prepared else originals.find(builder)
    if not prepared and not _is_writable(Path(builder.data_dir)):
        builder, prepared = _find_builder(name, root_of(None))
        folder = folder or originals.find(builder)
    return builder, prepared, folder


def _is_writable(path: Path) -> bool:
    """Whether a path may be made. A folder that is read-only for everybody is so for root, too."""
    folder = next(parent for parent in path.parents if parent.exists())
    return os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)


def _find_builder(name: str, root: Path) -> tuple[Any, bool]:
    """The builder of a data set in TFDS, and whether the data set is prepared in a folder."""
    import tensorflow_datasets as tfds

    with guard(f"{name} in {root} cannot be read: remove it if damaged"):
        builder = tfds.builder(name, data_dir=root)
        return builder, builder.is_prepared()


def _prepare(builder: Any, folder: Path | None) -> None:
    """Let TFDS prepare a data set, from its original files in a folder or the internet."""
    import tensorflow_datasets as tfds

    target = Path(builder.data_dir)
    try:
        # Downloads go to a temporary folder too, so that a broken one leaves nothing behind; it is
        # on the disk of the data sets, since some are too large for that of temporary files.
        root = next(parent for parent in target.parents if parent.exists())
        for left in root.glob(f"{_SCRATCH}{builder.name}-*"):
            with contextlib.suppress(OSError):  # another process removes it too
                # That of a process which was killed, rather than of one that is preparing.
                if time.time() - left.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(left, ignore_errors=True)
        with (
            guard(f"cannot prepare {target}: try again or give another data_dir"),
            tempfile.TemporaryDirectory(prefix=f"{_SCRATCH}{builder.name}-", dir=root) as scratch,
        ):
            if folder is not None:
                originals.hand_over(builder, folder, Path(scratch))
            config = tfds.download.DownloadConfig(manual_dir=scratch, try_download_gcs=False)
            builder.download_and_prepare(download_dir=f"{scratch}/tfds", download_config=config)
    except DataError:
        with contextlib.suppress(OSError):  # not empty
            target.parent.rmdir()
        if not _find_builder(builder.name, target.parents[1])[1]:
            raise  # otherwise another process has prepared it


def _missing(builder: Any, root: Path) -> str | None:
    """Why a data set that is not prepared cannot be downloaded; None if it can."""
    if _is_reachable(next(iter(builder.url_infos))):
        return None
    return (
        f"{builder.name} is neither prepared under {root} nor downloadable (no internet connection)"
    )


def _is_reachable(url: str) -> bool:
    """Whether `url` exists, answered within `PROBE_SECONDS`; TFDS would try for minutes."""
    answers = []

    def ask() -> None:
        # An answer such as a proxy's 403 is an exception too.
        request = Request(url, method="HEAD")
        with contextlib.suppress(Exception), urlopen(request, timeout=PROBE_SECONDS) as answer:
            answers.append(answer.status)

    # The name look-up has no time-out of its own, so it runs in a thread that is left behind.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers)
