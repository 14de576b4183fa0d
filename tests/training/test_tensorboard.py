"""What TensorBoard shows of a run, read over HTTP and in a browser."""

import contextlib
import http.client
import io
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import matplotlib.image
import numpy as np
import pytest
from small_training_runs import DATASET, run

from hypernet_tf import plots
from hypernet_tf.analysis.filters import layer_pictures
from hypernet_tf.metrics.accuracy import confusion
from hypernet_tf.metrics.measures import MEASURES
from hypernet_tf.training.tensorboard import TensorBoardWriter

SETTINGS = {"checkpoint_every": 2, "method": "hypernetwork", "lam": 50.0}


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Two runs; the first lost its last checkpoint and was continued with more steps."""
    folder = tmp_path_factory.mktemp("runs")
    first = folder / "first"
    run(first, 6, hparams=SETTINGS | {"seed": 0, "steps": 6})
    shutil.rmtree(first / "checkpoints" / "step-00000006")
    hyper, record = run(first, 8, hparams=SETTINGS | {"seed": 0, "steps": 8})
    # The second run is written without training, which takes most of the time.
    writer = TensorBoardWriter(
        folder / "second" / "tensorboard",
        classes=DATASET.classes,
        hparams=SETTINGS | {"seed": 1, "steps": 4},
    )
    writer.start(0)
    writer.record(4, record["history"][1], steps_per_second=1.0)
    ensemble = hyper.sample(5, seed=1)
    writer.finish(ensemble, ensemble.evaluate(DATASET.validation.x, DATASET.validation.y))
    return folder, hyper, record


class Server:
    """TensorBoard over a folder, in its own process."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        options = {"logdir": folder, "host": "127.0.0.1", "port": port, "load_fast": "false"}
        command = [sys.executable, "-m", "tensorboard.main"]
        command += [f"--{name}={value}" for name, value in options.items()]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(self.runs()) < 2:
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)

    def runs(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.json("runs")
        return []

    def get(self, route, body=None, **query):
        address = f"{self.url}/data/{route}?{urllib.parse.urlencode(query)}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def json(self, route, body=None, **query):
        return json.loads(self.get(route, body, **query))

    def plugin(self, route, **query):
        return self.json(f"plugin/{route}", **query)


@pytest.fixture(scope="module")
def server(logs):
    server = Server(logs[0])
    yield server
    server.process.terminate()
    server.process.wait(timeout=30)


FIRST, SECOND = "first/tensorboard", "second/tensorboard"


@pytest.mark.slow
class TestOverHTTP:
    def test_curves_are_the_history_and_no_step_is_doubled(self, server, logs):
        _, _, record = logs
        assert server.json("runs") == [FIRST, SECOND]
        tags = server.plugin("scalars/tags")[FIRST]
        last = record["history"][-1]["validation"]
        validation = [name for name, value in last.items() if value is not None]
        validation.remove("member_accuracies")
        assert {"member_accuracy", "majority_vote_accuracy", "entropy"} <= set(validation)
        training = ["loss", "accuracy_loss", "diversity_loss", "accuracy", "lam", "learning_rate"]
        expected = {f"training/{name}": (None, name) for name in training}
        expected |= {f"validation/{name}": ("validation", name) for name in validation}
        assert set(tags) == {*expected, "training/steps_per_second"}
        for tag, shown in tags.items():
            description = MEASURES[tag.rpartition("/")[2]].description
            assert bool(shown["description"]) == bool(description)
            assert description.split(",")[0] in shown["description"]
        for tag, (part, name) in expected.items():
            points = server.plugin("scalars/scalars", run=FIRST, tag=tag)
            entries = [entry for entry in record["history"] if part is None or part in entry]
            assert [step for _, step, _ in points] == [entry["step"] for entry in entries]
            values = [(entry[part] if part else entry)[name] for entry in entries]
            np.testing.assert_allclose([value for *_, value in points], values, rtol=1e-6)
        speeds = server.plugin("scalars/scalars", run=FIRST, tag="training/steps_per_second")
        assert [step for _, step, _ in speeds] == [2, 4, 6, 8]
        assert all(0 < value < 1e4 for *_, value in speeds)

    def test_histograms(self, server, logs):
        _, hyper, record = logs
        tags = set(server.plugin("histograms/tags")[FIRST])
        layers = ["weights/layer_1_Conv2D", "weights/layer_2_Dense"]
        assert tags == {"validation/member_accuracies", *layers}
        rows = hyper.target.rows(hyper.sample(5, seed=0).weights.trainable)
        last = record["history"][-1]["validation"]["member_accuracies"]
        for tag, values in (
            ("validation/member_accuracies", np.array(last)),
            *((tag, tensor.numpy()) for tag, tensor in zip(layers, rows, strict=True)),
        ):
            points = server.plugin("histograms/histograms", run=FIRST, tag=tag)
            assert [step for _, step, _ in points] == [4, 8]
            buckets = np.array(points[-1][2])  # [[from, to, count], ...]
            assert buckets[:, 2].sum() == values.size
            assert buckets[0, 0] == pytest.approx(values.min(), rel=1e-6)
            assert buckets[-1, 1] == pytest.approx(values.max(), rel=1e-6)

    def test_pictures(self, server, logs):
        _, hyper, _ = logs
        tags = set(server.plugin("images/tags")[FIRST])
        assert tags == {
            "filters/layer_1_Conv2D",
            "filters/layer_2_Dense",
            "validation/confusion",
        }
        pictures = {}
        for tag in tags:
            points = server.plugin("images/images", run=FIRST, tag=tag, sample=0)
            assert [point["step"] for point in points] == [4, 8]
            query = dict(urllib.parse.parse_qsl(points[-1]["query"]))
            png = server.get("plugin/images/individualImage", **query)
            assert png.startswith(b"\x89PNG")
            pictures[tag] = matplotlib.image.imread(io.BytesIO(png))
        # The pictures are those of these networks.
        ensemble, split = hyper.sample(5, seed=0), DATASET.validation
        counts = confusion(ensemble.predict(split.x).argmax(-1), split.y, 3)
        tables = {layer.layer: layer.pictures for layer in layer_pictures(ensemble, 8)}
        title = "5 networks' mean probability, step 8"
        figures = {
            "validation/confusion": plots.confusion(counts, "abc", title),
            "filters/layer_1_Conv2D": plots.filter_table(
                tables[1], "layer 1 (Conv2D), step 8: first filters, first input channel"
            ),
            "filters/layer_2_Dense": plots.filter_table(
                tables[2], "layer 2 (Dense), step 8: first neurons, first input channel", "neuron"
            ),
        }
        for tag, figure in figures.items():
            file = io.BytesIO()
            figure.savefig(file, dpi=100)
            file.seek(0)
            expected = matplotlib.image.imread(file)[..., :3]
            assert expected.shape[1] == 700
            np.testing.assert_array_equal(pictures[tag], expected)

    def test_settings_as_text_and_as_a_table_of_runs(self, server, logs):
        _, _, record = logs
        tags = server.plugin("text/tags")
        assert tags == {FIRST: ["configuration"], SECOND: ["configuration"]}
        (text,) = server.plugin("text/text", run=FIRST, tag="configuration")
        for name, value in (SETTINGS | {"seed": 0, "steps": 8}).items():
            row = f"<td>{name}</td>\n<td><code>{value}</code></td>"
            assert row in text["text"]
        experiment = server.plugin("hparams/experiment", body={})
        names = [info["name"] for info in experiment["hparamInfos"]]
        assert names == ["lam", "method", "seed", "steps", "checkpoint_every"]
        titles = [info["displayName"] for info in experiment["metricInfos"]]
        metrics = [info["name"] for info in experiment["metricInfos"]]
        keys = [metric["tag"].removeprefix("validation/") for metric in metrics]
        assert titles == [MEASURES[key].title for key in keys]
        assert [m["tag"] for m in metrics] == [
            "validation/member_accuracy",
            "validation/majority_vote_accuracy",
            "validation/negative_log_likelihood",
            "validation/expected_calibration_error",
            "validation/disagreement",
            "validation/entropy",
        ]
        table = server.plugin(
            "hparams/session_groups",
            body={
                "allowedStatuses": ["STATUS_SUCCESS", "STATUS_UNKNOWN"],
                "colParams": [{"metric": m} for m in metrics],
                "sliceSize": 10,
            },
        )
        rows = {group["name"]: group for group in table["sessionGroups"]}
        assert set(rows) == {FIRST, SECOND}
        assert rows[FIRST]["hparams"] == SETTINGS | {"seed": 0, "steps": 8}
        assert rows[SECOND]["hparams"] == SETTINGS | {"seed": 1, "steps": 4}
        last = record["history"][-1]["validation"]
        for value in rows[FIRST]["metricValues"]:
            expected = last[value["name"]["tag"].removeprefix("validation/")]
            assert value["value"] == pytest.approx(expected, rel=1e-6)
        assert len(rows[FIRST]["metricValues"]) == 6
        (session,) = rows[FIRST]["sessions"]
        assert session["status"] == "STATUS_SUCCESS"

    def test_projector_keeps_distances_and_shows_accuracies(self, server, logs):
        _, hyper, record = logs
        assert set(server.plugin("projector/runs")) == {FIRST, SECOND}
        (embedding,) = server.plugin("projector/info", run=FIRST)["embeddings"]
        name = embedding["tensorName"]
        assert name == "all 177 weights of 5 networks"
        raw = server.get("plugin/projector/tensor", run=FIRST, name=name)
        points = np.frombuffer(raw, np.float32).reshape(5, 4)
        theta = hyper.sample(5, seed=0).theta()

        def distances(vectors):
            return np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)

        np.testing.assert_allclose(distances(points), distances(theta), rtol=1e-5, atol=1e-5)
        labels = server.get("plugin/projector/metadata", run=FIRST, name=name).decode()
        accuracies = record["history"][-1]["validation"]["member_accuracies"]
        assert labels.splitlines() == ["accuracy\tnetwork"] + [
            f"{accuracy:.4f}\t{number}" for number, accuracy in enumerate(accuracies, 1)
        ]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="Chromium is not installed")
def test_in_a_browser(server, tmp_path):
    """The page shows cards of both runs, with their pictures."""
    flags = ["headless", "no-sandbox", "disable-gpu", "no-first-run", "disable-sync"]
    flags += ["disable-background-networking", "disable-component-update", "disable-quic"]
    flags += ["window-size=1200,900", f"screenshot={tmp_path / 'page.png'}", "dump-dom"]
    wanted = urllib.parse.quote("layer_1|training/loss", safe="")
    page = f"{server.url}/?tagFilter={wanted}#timeseries"
    texts = {"filters/layer_1_Conv2D", "training/loss", FIRST, SECOND}
    # Time in the page is virtual, and may run ahead of a busy server.
    for milliseconds in (10_000, 60_000, 300_000):
        timing = [f"user-data-dir={tmp_path / str(milliseconds)}"]
        timing += [f"virtual-time-budget={milliseconds}"]
        command = ["chromium", *(f"--{flag}" for flag in flags + timing), page]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        missing = {text for text in texts if text not in done.stdout}
        picture = matplotlib.image.imread(tmp_path / "page.png")[..., :3]
        assert picture.shape == (900, 1200, 3)
        pixels = (255 * picture[::2, ::2]).round().astype(int).reshape(-1, 3)
        colours = {tuple(map(int, pixel)) for pixel in pixels}
        # The bar at the top, and the gaps between pictures of filters.
        missing |= {(0xF5, 0x7C, 0x00), (0x7F, 0xB2, 0xE5)} - colours
        if not missing:
            break
    assert not missing
    assert len(colours) > 50
