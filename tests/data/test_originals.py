"""`fashion_mnist` from its original idx files."""

import contextlib
import gzip
import hashlib
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from data_cases import DEBIAN, IDX_FILES, PARTS, data_error, listing, needs_debian, rows

from hypernet_tf import data
from hypernet_tf.data import originals


@contextlib.contextmanager
def recorded_connections():
    """Refuse connections of Python's sockets, and collect their addresses."""
    wanted = []

    def refuse(*args, **kwargs):
        wanted.append(args)
        raise OSError("no network in tests")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.setattr(socket.socket, "connect", refuse)
        yield wanted


@pytest.fixture(scope="module")
def fashion(tmp_path_factory):
    """fashion_mnist from Debian's files by TFDS's own builder, without a connection."""
    folder = tmp_path_factory.mktemp("fashion")
    with recorded_connections() as wanted:
        start = time.monotonic()
        dataset = data.load("fashion_mnist", folder)
        seconds = time.monotonic() - start
        assert wanted == []
        # The recorder does record: a probe is seen.
        assert not data._is_reachable("http://server.invalid/file")
        assert len(wanted) == 1
    return folder, dataset, seconds


def read_idx(file):
    """The simplest reader: all bytes after a header of known length."""
    with gzip.open(DEBIAN / file) as stream:
        body = np.frombuffer(stream.read(), np.uint8)
    return body[16:].reshape(-1, 28, 28, 1) if "idx3" in file else body[8:]


@needs_debian
@pytest.mark.slow
def test_fashion_mnist_is_prepared_from_debians_files(fashion):
    folder, dataset, seconds = fashion
    assert dataset.summary() == {
        "name": "fashion_mnist",
        "source": "TensorFlow Datasets fashion_mnist 3.0.1",
        "train": 55_000,
        "validation": 5_000,
        "test": 10_000,
    }
    assert len(dataset.classes) == 10 and dataset.classes[9] == "Ankle boot"
    assert seconds < 60
    assert [path.name for path in folder.iterdir()] == ["fashion_mnist"]


@needs_debian
@pytest.mark.slow
def test_fashion_mnist_is_what_the_idx_files_hold(fashion):
    _, dataset, _ = fashion
    train, validation, test = (getattr(dataset, part) for part in PARTS)
    expected = rows(read_idx("train-images-idx3-ubyte.gz"), read_idx("train-labels-idx1-ubyte.gz"))
    loaded = rows(train.images, train.labels) + rows(validation.images, validation.labels)
    assert len(expected) == 60_000 and sorted(loaded) == sorted(expected)
    expected = rows(read_idx("t10k-images-idx3-ubyte.gz"), read_idx("t10k-labels-idx1-ubyte.gz"))
    assert len(expected) == 10_000
    assert sorted(rows(test.images, test.labels)) == sorted(expected)


@needs_debian
@pytest.mark.slow
def test_prepared_fashion_mnist_comes_before_idx_files(fashion, offline, tmp_path, monkeypatch):
    folder, dataset, _ = fashion
    (tmp_path / "fashion_mnist").symlink_to(folder / "fashion_mnist")
    (tmp_path / IDX_FILES[0]).write_bytes(b"no idx file")
    monkeypatch.setattr(data, "TFDS_SPLITS", ("train[:20]", "train[-5000:-4980]", "test[:20]"))
    again = data.load("fashion_mnist", tmp_path)
    for part in PARTS:
        few, all_ = getattr(again, part), getattr(dataset, part)
        np.testing.assert_array_equal(few.images, all_.images[:20])
        np.testing.assert_array_equal(few.labels, all_.labels[:20])


@needs_debian
@pytest.mark.parametrize("sub_folder", [".", "fashion-mnist"])
@pytest.mark.parametrize("header", ["stripped", "named"])
def test_idx_files_are_found_and_their_headers_restored(
    sub_folder, header, tmp_path, offline, monkeypatch
):
    """With any name and time in the gzip header, TFDS is given files with its checksums."""
    import tensorflow_datasets as tfds

    given = {}

    def look(self, *, download_config, **kwargs):
        for path in Path(download_config.manual_dir).iterdir():
            given[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        assert not download_config.try_download_gcs
        assert Path(download_config.manual_dir).parent == offline  # which checks that it goes
        raise RuntimeError("seen enough")

    folder = tmp_path / sub_folder
    folder.mkdir(exist_ok=True)
    for file in IDX_FILES:
        raw = (DEBIAN / file).read_bytes()
        if header == "named":
            raw = raw[:3] + b"\x08" + raw[4:10] + b"another name\0" + raw[10:]
        (folder / file).write_bytes(raw)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", look)
    with data_error("seen enough"):
        data.load("fashion_mnist", tmp_path)
    registered = tfds.builder_cls("fashion_mnist").url_infos.values()
    assert given == {info.filename: info.checksum for info in registered}


MAGIC = {file: 0x803 if "idx3" in file else 0x801 for file in IDX_FILES}


def idx(file, *, magic=None, missing=0):
    """A small idx file, zipped: three images of 28 x 28, or three labels."""
    shape = (3, 28, 28) if "idx3" in file else (3,)
    header = np.array([magic or MAGIC[file], *shape], ">u4").tobytes()
    return gzip.compress(header + bytes(int(np.prod(shape)) - missing))


def corrupted(file):
    raw = bytearray(idx(file))
    raw[-5] ^= 1  # in the checksum at the end
    return bytes(raw)


FAULTS = {
    "truncated": (lambda file: idx(file)[:-20], "(truncated)"),
    "without all of its end": (lambda file: idx(file)[:-3], "(truncated)"),
    "empty": (lambda file: b"", "(truncated)"),
    "empty inside": (lambda file: gzip.compress(b""), "magic number 0x00000000"),
    "not gzip": (lambda file: b"some other bytes", "incorrect header"),
    "corrupted": (corrupted, "incorrect data check"),
    "of the other kind": (lambda file: idx(file, magic=0x801 ^ 0x803 ^ MAGIC[file]), "magic"),
    "one byte short": (lambda file: idx(file, missing=1), "wrong length"),
    "one byte long": (lambda file: idx(file, missing=-1), "wrong length"),
    "another data set": (idx, "wrong checksum"),
}


def check_error_of_idx(file, fault, folder, data_dir, capfd):
    """Check that the error names a bad file, and that nothing is written."""
    (folder / file).unlink(missing_ok=True)
    content, why = FAULTS[fault]
    (folder / file).write_bytes(content(file))
    before = sorted(data_dir.rglob("*"))
    with data_error(folder / file, why, "replace it"):
        data.load("fashion_mnist", data_dir)
    assert sorted(data_dir.rglob("*")) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_idx_file_is_an_error(fault, tmp_path, offline, capfd):
    check_error_of_idx(IDX_FILES[0], fault, tmp_path, tmp_path, capfd)


@needs_debian
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", [IDX_FILES[1], IDX_FILES[3]])
def test_one_bad_file_among_good_ones_is_an_error(file, fault, tmp_path, offline, capfd):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for good in IDX_FILES:
        (folder / good).symlink_to(DEBIAN / good)
    check_error_of_idx(file, fault, folder, tmp_path, capfd)


@needs_debian
def test_missing_idx_file_is_named(tmp_path, offline):
    for file in IDX_FILES[:2]:
        (tmp_path / file).symlink_to(DEBIAN / file)
    with data_error(tmp_path / IDX_FILES[2], "No such file"):
        data.load("fashion_mnist", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(IDX_FILES[:2])


@needs_debian
def test_preparation_that_breaks_leaves_nothing(tmp_path, offline, monkeypatch, capfd):
    """A full disk in the middle of TFDS's own work."""
    import tensorflow_datasets as tfds

    def examples(self, num_examples, **kwargs):
        for number in range(50):
            yield number, {"image": np.zeros([28, 28, 1], np.uint8), "label": 0}
        assert list(tmp_path.rglob("*incomplete*"))  # something is there to be left behind
        raise OSError(28, "No space left on device")

    builder_class = tfds.builder_cls("fashion_mnist")
    monkeypatch.setattr(builder_class, "_generate_examples", examples)
    monkeypatch.setattr(originals, "DEBIAN_FASHION_MNIST", DEBIAN)
    with data_error("cannot prepare", tmp_path / "fashion_mnist", "No space left on device"):
        data.load("fashion_mnist", tmp_path)
    assert listing(tmp_path) == {}
    assert "Generating" not in capfd.readouterr().err
