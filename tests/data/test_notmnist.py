"""`notmnist` from two idx files."""

import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from data_cases import data_error, gzipped_idx, listing

from hypernet_tf import data

IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 28, 28), np.uint8)
LETTERS = np.arange(12, dtype=np.uint8) % 10


def write(folder, images=PIXELS, labels=LETTERS):
    folder.mkdir(exist_ok=True)
    (folder / IMAGES).write_bytes(gzipped_idx(images))
    (folder / LABELS).write_bytes(gzipped_idx(labels))


def check(dataset):
    assert dataset.summary() == {
        "name": "notmnist",
        "source": "two idx files of 12 letters",
        "train": 0,
        "validation": 0,
        "test": 12,
    }
    assert dataset.classes == tuple("ABCDEFGHIJ")
    assert dataset.test.images.dtype == np.uint8 and dataset.test.labels.dtype == np.int64
    np.testing.assert_array_equal(dataset.test.images, PIXELS[..., None])
    assert dataset.test.labels.tolist() == [*range(10), 0, 1]


def test_notmnist_is_read_from_its_folder(tmp_path, monkeypatch):
    write(tmp_path / "notmnist")
    before = listing(tmp_path)
    check(data.load("notmnist", tmp_path))
    check(data.load("notmnist", tmp_path / "notmnist"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    check(data.load("notmnist"))
    assert listing(tmp_path) == before
    assert not data.DATASETS["notmnist"].trains


def test_files_of_another_folder_are_not_notmnist(tmp_path):
    write(tmp_path)
    with data_error("notmnist is not available", IMAGES, tmp_path / "notmnist"):
        data.load("notmnist", tmp_path)


def test_a_missing_file_is_named(tmp_path):
    write(tmp_path / "notmnist")
    (tmp_path / "notmnist" / LABELS).unlink()
    with data_error(f"put {LABELS} into {tmp_path / 'notmnist'}"):
        data.load("notmnist", tmp_path)


@pytest.mark.parametrize(
    ("images", "labels", "file", "why"),
    [
        (PIXELS[:, :20], LETTERS, IMAGES, "wrong shape [12, 20, 28]"),
        (PIXELS[:0], LETTERS[:0], IMAGES, "wrong shape [0, 28, 28]"),
        (PIXELS, PIXELS, LABELS, "wrong magic number"),
        (PIXELS, LETTERS[:11], LABELS, "11 labels for 12 images"),
        (PIXELS, LETTERS + 1, LABELS, "label 10, but the letters are 0 to 9"),
    ],
)
def test_files_that_hold_something_else_are_errors(images, labels, file, why, tmp_path):
    write(tmp_path / "notmnist", images, labels)
    with data_error(tmp_path / "notmnist" / file, why, "replace"):
        data.load("notmnist", tmp_path)


@pytest.mark.parametrize("file", [IMAGES, LABELS])
@pytest.mark.parametrize(
    ("harm", "why"),
    [(lambda raw: raw[:-9], "truncated"), (lambda raw: b"an image", "incorrect header")],
)
def test_a_damaged_file_is_named(file, harm, why, tmp_path):
    write(tmp_path / "notmnist")
    path = tmp_path / "notmnist" / file
    path.write_bytes(harm(path.read_bytes()))
    with data_error(f"{path} is not a file of notmnist: replace it", why):
        data.load("notmnist", tmp_path)


@pytest.mark.slow
@pytest.mark.skipif("HYPERNET_TF_DATA" not in os.environ, reason="HYPERNET_TF_DATA is not set")
def test_notmnist_is_what_the_real_files_hold():
    root = Path(os.environ["HYPERNET_TF_DATA"])
    dataset = data.load("notmnist", root)
    with gzip.open(root / "notmnist" / IMAGES) as stream:
        pixels = np.frombuffer(stream.read()[16:], np.uint8)
    np.testing.assert_array_equal(dataset.test.images.ravel(), pixels)
    assert np.bincount(dataset.test.labels).tolist() == [1_000] * 10
