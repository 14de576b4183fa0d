"""`load` and `resolve`: prepared data, no network, fallbacks, the arguments of users."""

import http.server
import logging
import os
import shutil
import socket
import threading
import time

import numpy as np
import pytest
from data_cases import PARTS, data_error, listing

from hypernet_tf import data
from hypernet_tf.data import prepared


def test_prepared_mnist_is_split_and_needs_no_server(prepared_mnist, monkeypatch):
    monkeypatch.setattr(prepared, "_is_reachable", lambda url: pytest.fail("asked a server"))
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
    monkeypatch.setattr(prepared, "_is_reachable", lambda url: pytest.fail("asked a server"))
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
def test_damaged_files_are_errors(harm, why, prepared_mnist, tmp_path, offline, capsys, caplog):
    shutil.copytree(prepared_mnist / "mnist", tmp_path / "mnist")
    harm(tmp_path / "mnist" / "3.0.1")
    before = listing(tmp_path)
    with data_error(tmp_path, why):
        data.load("mnist", tmp_path)
    assert listing(tmp_path) == before
    assert capsys.readouterr() == ("", "") and not caplog.records


def test_damaged_folder_is_named_where_a_server_answers(prepared_mnist, tmp_path, monkeypatch):
    """TFDS takes a folder that exists for a prepared one, and downloads nothing."""
    monkeypatch.setattr(prepared, "_is_reachable", lambda url: True)
    shutil.copytree(prepared_mnist / "mnist", tmp_path / "mnist")
    no_info(tmp_path / "mnist" / "3.0.1")
    with data_error(tmp_path / "mnist" / "3.0.1", "cannot be read: remove it"):
        data.load("mnist", tmp_path)


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
    monkeypatch.setattr(prepared, "_is_reachable", lambda url: asked.append(url) or True)
    assert data.resolve("auto", tmp_path) == ("mnist", None)
    assert len(asked) == 1 and asked[0].endswith("-ubyte.gz")


@pytest.mark.parametrize(
    ("name", "advice"), [("mnist", "mnist_5k"), ("fashion_mnist", "dataset-fashion-mnist")]
)
def test_without_network_one_line_says_what_to_do(name, advice, tmp_path, offline, capsys, caplog):
    with data_error(f"{name} is neither prepared under {tmp_path}", advice, "data_dir"):
        data.load(name, tmp_path)
    assert listing(tmp_path) == {}
    assert capsys.readouterr() == ("", "") and not caplog.records


def test_without_network_the_answer_comes_soon(tmp_path):
    """The real probe, under 10 s."""
    import tensorflow_datasets as tfds

    if prepared._is_reachable(next(iter(tfds.builder_cls("mnist").url_infos))):
        pytest.skip("this machine has a network")
    start = time.monotonic()
    with data_error("mnist is neither prepared"):
        data.load("mnist", tmp_path)
    assert time.monotonic() - start < 10
    assert listing(tmp_path) == {}


def test_probe_does_not_wait_for_a_name_server(monkeypatch):
    release = threading.Event()
    monkeypatch.setattr(prepared, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(30) and [])
    start = time.monotonic()
    reachable = prepared._is_reachable("http://server.invalid/file")
    seconds = time.monotonic() - start
    release.set()
    assert not reachable
    assert 0.2 <= seconds < 2


@pytest.mark.parametrize(("status", "reachable"), [(200, True), (403, False), (404, False)])
def test_probe_needs_an_answer_that_has_the_file(status, reachable, monkeypatch):
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
            assert prepared._is_reachable(f"http://127.0.0.1:{server.server_port}/") is reachable
        finally:
            server.shutdown()
            thread.join()


def test_download_that_breaks_leaves_nothing(tmp_path, offline, monkeypatch, capfd):
    import requests

    def get(self, url, **kwargs):
        raise requests.ConnectionError("the line\nis dead")

    monkeypatch.setattr(prepared, "_is_reachable", lambda url: True)
    monkeypatch.setattr(requests.Session, "get", get)
    with data_error("cannot prepare", tmp_path / "mnist", "the line is dead", "try again"):
        data.load("mnist", tmp_path)
    assert listing(tmp_path) == {}
    assert capfd.readouterr() == ("", "")


def test_another_process_may_prepare_the_data(prepared_mnist, tmp_path, offline, monkeypatch):
    import tensorflow_datasets as tfds

    def overtaken(self, **kwargs):
        shutil.copytree(prepared_mnist / "mnist", tmp_path / "mnist")
        raise OSError("Directory not empty")

    monkeypatch.setattr(prepared, "_is_reachable", lambda url: True)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", overtaken)
    assert len(data.load("mnist", tmp_path).test) == 30


@pytest.mark.parametrize("name", ["", "MNIST", "mnist5k", "cifar", "auto "])
def test_an_unknown_name_is_an_error_with_all_names(name):
    for ask in (data.load, data.resolve):
        with data_error(repr(name), "auto, mnist, mnist_5k, fashion_mnist, cifar10", "glyphs"):
            ask(name)


@pytest.mark.parametrize("name", ("auto", *data.DATASETS))
def test_every_name_except_auto_stands_for_itself(name, tmp_path, offline):
    resolved, notice = data.resolve(name, tmp_path)
    assert resolved == ("mnist_5k" if name == "auto" else name)
    assert (notice is None) == (name != "auto")


@pytest.mark.parametrize("name", ("auto", *data.DATASETS))
def test_data_dir_must_be_a_folder(name, tmp_path, offline):
    file = tmp_path / "file"
    file.touch()
    for data_dir, why in ((tmp_path / "missing", "No such file"), (str(file), "Not a directory")):
        for ask in (data.load, data.resolve):
            with data_error(data_dir, why, "data_dir"):
                ask(name, data_dir)
    assert listing(tmp_path) == {"file": b""}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_data_dir_must_be_readable(tmp_path):
    tmp_path.chmod(0)
    try:
        with data_error(tmp_path, "Permission denied"):
            data.load("mnist_5k", tmp_path)
    finally:
        tmp_path.chmod(0o700)
