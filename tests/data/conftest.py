"""Data sets without a network: the embedded digits, and files of TFDS."""

import tempfile
from pathlib import Path

import numpy as np
import pytest

from hypernet_tf.data import originals, prepared


@pytest.fixture
def offline(monkeypatch, tmp_path_factory):
    """No server answers, nothing is installed, and no temporary file is left behind."""
    monkeypatch.setattr(prepared, "_is_reachable", lambda url: False)
    monkeypatch.setattr(originals, "DEBIAN_FASHION_MNIST", Path("/nowhere"))
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield scratch
    assert not list(scratch.rglob("*hypernet_tf-*"))


@pytest.fixture(scope="session")
def mnist_5k(load_once):
    return load_once("mnist_5k", None)


@pytest.fixture(scope="session")
def prepared_mnist(tmp_path_factory):
    """Files of TFDS's mnist with 5,040 + 30 images, each of which shows its own number.

    TFDS writes them, so that the tests read real files. `tfds.testing.mock_data` prepares nothing,
    and both of its splits are the same random images.
    """
    import tensorflow_datasets as tfds

    def examples(count, first):
        for number in range(first, first + count):
            image = np.zeros([28, 28, 1], np.uint8)
            image[0, :2, 0] = divmod(number, 256)
            yield number, {"image": image, "label": number % 10}

    folder = tmp_path_factory.mktemp("prepared")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="mnist",
        version="3.0.1",
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(28, 28, 1)),
                "label": tfds.features.ClassLabel(num_classes=10),
            }
        ),
        split_datasets={"train": examples(5_040, 0), "test": examples(30, 6_000)},
        data_dir=folder,
        disable_shuffling=True,
    )
    return folder
