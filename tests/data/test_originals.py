"""`mnist` and `fashion_mnist` from their original idx files."""

import contextlib
import gzip
import hashlib
import os
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from data_cases import (
    DEBIAN,
    IDX_FILES,
    PARTS,
    data_error,
    gzipped_idx,
    listing,
    needs_debian,
    register,
    rows,
)

from hypernet_tf import data
from hypernet_tf.data import originals, prepared


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
        assert not prepared._is_reachable("http://server.invalid/file")
        assert len(wanted) == 1
    return folder, dataset, seconds


def read_idx(path):
    """The simplest reader: all bytes after a header of known length."""
    with gzip.open(path) as stream:
        body = np.frombuffer(stream.read(), np.uint8)
    return body[16:].reshape(-1, 28, 28, 1) if "idx3" in path.name else body[8:]


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
    expected = rows(
        read_idx(DEBIAN / "train-images-idx3-ubyte.gz"),
        read_idx(DEBIAN / "train-labels-idx1-ubyte.gz"),
    )
    loaded = rows(train.images, train.labels) + rows(validation.images, validation.labels)
    assert len(expected) == 60_000 and sorted(loaded) == sorted(expected)
    expected = rows(
        read_idx(DEBIAN / "t10k-images-idx3-ubyte.gz"),
        read_idx(DEBIAN / "t10k-labels-idx1-ubyte.gz"),
    )
    assert len(expected) == 10_000
    assert sorted(rows(test.images, test.labels)) == sorted(expected)


@needs_debian
@pytest.mark.slow
def test_prepared_fashion_mnist_comes_before_idx_files(fashion, offline, tmp_path, monkeypatch):
    folder, dataset, _ = fashion
    (tmp_path / "fashion_mnist").symlink_to(folder / "fashion_mnist")
    (tmp_path / IDX_FILES[0]).write_bytes(b"no idx file")
    monkeypatch.setattr(prepared, "TFDS_SPLITS", ("train[:20]", "train[-5000:-4980]", "test[:20]"))
    again = data.load("fashion_mnist", tmp_path)
    for part in PARTS:
        few, all_ = getattr(again, part), getattr(dataset, part)
        np.testing.assert_array_equal(few.images, all_.images[:20])
        np.testing.assert_array_equal(few.labels, all_.labels[:20])


@needs_debian
@pytest.mark.parametrize(("sub_folder", "header"), [(".", "stripped"), ("fashion-mnist", "named")])
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
        assert Path(download_config.manual_dir).parent == tmp_path
        raise RuntimeError("seen enough")

    folder = tmp_path / sub_folder
    folder.mkdir(exist_ok=True)
    another, killed = (tmp_path / f".hypernet_tf-fashion_mnist-{name}" for name in ("a", "b"))
    for temporary in (another, killed):
        temporary.mkdir()
    os.utime(killed, (0, 0))
    for file in IDX_FILES:
        raw = (DEBIAN / file).read_bytes()
        if header == "named":
            raw = raw[:3] + b"\x08" + raw[4:10] + b"another name\0" + raw[10:]
        (folder / file).write_bytes(raw)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", look)
    with data_error("seen enough"):
        data.load("fashion_mnist", tmp_path)
    assert list(tmp_path.glob(".hypernet_tf-*")) == [another]  # which a killed process left is gone
    registered = tfds.builder_cls("fashion_mnist").url_infos.values()
    assert given == {info.filename: info.checksum for info in registered}


MAGIC = {file: 0x803 if "idx3" in file else 0x801 for file in IDX_FILES}


def idx(file, **faults):
    """A small idx file, zipped: three images of 28 x 28, or three labels."""
    return gzipped_idx(np.zeros((3, 28, 28) if "idx3" in file else 3, np.uint8), **faults)


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


def test_a_file_that_is_huge_inside_is_an_error(monkeypatch):
    monkeypatch.setattr(data.idx, "_LARGEST", 10)
    with pytest.raises(ValueError, match="more than 10 bytes"):
        data.idx.decode(gzip.compress(bytes(100)), 3)


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
@pytest.mark.parametrize(
    ("file", "fault"),
    [*((IDX_FILES[1], fault) for fault in FAULTS), (IDX_FILES[3], next(iter(FAULTS)))],
)
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


def write_small_mnist(folder, patch):
    """Four small idx files, which TFDS then takes for the original ones."""
    folder.mkdir(exist_ok=True)
    for file in IDX_FILES:
        (folder / file).write_bytes(idx(file))
    register(patch, "mnist", folder)


@pytest.fixture
def handed_over(monkeypatch):
    """TFDS prepares nothing; where it would, and which files it is given."""
    import tensorflow_datasets as tfds

    seen = {}

    def look(self, *, download_config, **kwargs):
        seen["folder"] = Path(self.data_dir).parents[1]
        seen["files"] = {
            path.name: path.resolve().parent for path in Path(download_config.manual_dir).iterdir()
        }
        raise RuntimeError("seen enough")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", look)
    return seen


@pytest.mark.parametrize(
    ("files", "data_dir"),
    [("mnist", "."), ("mnist", "mnist"), ("data/mnist", "data")],
)
def test_mnist_is_found_in_a_folder_of_its_name(
    files, data_dir, tmp_path, offline, monkeypatch, handed_over
):
    (tmp_path / files).mkdir(parents=True)
    write_small_mnist(tmp_path / files, monkeypatch)
    assert data.resolve("auto", tmp_path / data_dir) == ("mnist", None)
    with data_error("cannot prepare", "seen enough"):
        data.load("mnist", tmp_path / data_dir)
    assert handed_over["folder"] == tmp_path / data_dir
    assert handed_over["files"] == dict.fromkeys(IDX_FILES, tmp_path / files)


def test_the_name_of_the_folder_tells_mnist_from_fashion_mnist(tmp_path, offline, monkeypatch):
    write_small_mnist(tmp_path, monkeypatch)
    with data_error("mnist is neither prepared", "four files in a folder named mnist"):
        data.load("mnist", tmp_path)
    with data_error(tmp_path / IDX_FILES[0], "not the original file of fashion_mnist"):
        data.load("fashion_mnist", tmp_path)
    for name in ("mnist", "notmnist"):
        write_small_mnist(tmp_path / name, monkeypatch)
        with data_error("fashion_mnist is neither prepared"):
            data.load("fashion_mnist", tmp_path / name)


def test_a_bad_file_of_mnist_is_named(tmp_path, offline, monkeypatch, capfd):
    folder = tmp_path / "mnist"
    write_small_mnist(folder, monkeypatch)
    path = folder / IDX_FILES[2]
    path.write_bytes(path.read_bytes()[:-1])
    before = listing(tmp_path)
    with data_error(f"{path} is not the original file of mnist: replace it", "wrong length"):
        data.load("mnist", tmp_path)
    path.unlink()
    with data_error(path, "No such file"):
        data.load("mnist", tmp_path)
    assert listing(tmp_path) == {k: v for k, v in before.items() if IDX_FILES[2] not in k}
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def read_only(tmp_path):
    """A folder that nobody may write, root included."""
    folder = tmp_path / "read_only"
    (folder / "mnist").mkdir(parents=True)
    yield folder
    for path in (folder, folder / "mnist"):
        path.chmod(0o755)


def test_a_folder_that_cannot_be_written_keeps_its_files_only(
    read_only, tmp_path, offline, monkeypatch, handed_over
):
    """TFDS then prepares in its own folder."""
    write_small_mnist(read_only / "mnist", monkeypatch)
    for path in (read_only / "mnist", read_only):
        path.chmod(0o555)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "own"))
    with data_error("cannot prepare", tmp_path / "own", "seen enough"):
        data.load("mnist", read_only)
    assert handed_over["folder"] == tmp_path / "own"
    assert handed_over["files"] == dict.fromkeys(IDX_FILES, read_only / "mnist")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["read_only"]


@pytest.mark.slow
def test_what_tfds_has_prepared_in_its_own_folder_serves_a_folder_that_cannot_be_written(
    read_only, prepared_mnist, offline, monkeypatch
):
    monkeypatch.setenv("TFDS_DATA_DIR", str(prepared_mnist))
    with data_error(f"mnist is neither prepared under {read_only}"):
        data.load("mnist", read_only)
    for path in (read_only / "mnist", read_only):
        path.chmod(0o555)
    assert data.resolve("auto", read_only) == ("mnist", None)
    assert len(data.load("mnist", read_only).test) == 30


@pytest.mark.slow
@pytest.mark.skipif("HYPERNET_TF_DATA" not in os.environ, reason="HYPERNET_TF_DATA is not set")
def test_mnist_is_prepared_from_its_real_files(read_only, tmp_path, offline, monkeypatch):
    """All 70,000 images, from a folder that cannot be written."""
    files = read_only / "mnist"
    for file in IDX_FILES:
        shutil.copy(Path(os.environ["HYPERNET_TF_DATA"], "mnist", file), files)
    before = listing(read_only)
    for path in (files, read_only):
        path.chmod(0o555)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "own"))
    dataset = data.load("mnist", read_only)
    assert listing(read_only) == before
    assert [path.name for path in (tmp_path / "own").iterdir()] == ["mnist"]
    assert dataset.source == "TensorFlow Datasets mnist 3.0.1"
    assert [len(getattr(dataset, part)) for part in PARTS] == [55_000, 5_000, 10_000]
    loaded = [rows(getattr(dataset, part).images, getattr(dataset, part).labels) for part in PARTS]
    for part, found in (("train", loaded[0] + loaded[1]), ("t10k", loaded[2])):
        images = read_idx(files / f"{part}-images-idx3-ubyte.gz")
        labels = read_idx(files / f"{part}-labels-idx1-ubyte.gz")
        assert sorted(found) == sorted(rows(images, labels))
