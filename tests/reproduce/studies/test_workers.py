"""Chief and workers: their environment, a search in several processes, a kill in a trial."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from reproduce.runs.folder import RunError, UsageError
from reproduce.studies import workers

VARIABLES = ("KERASTUNER_TUNER_ID", "KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")


class TestEnvironment:
    @pytest.fixture(autouse=True)
    def unset(self, monkeypatch):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)

    def set(self, monkeypatch, *values):
        for name, value in zip(VARIABLES, values, strict=True):
            if value is not None:
                monkeypatch.setenv(name, value)

    def test_a_process_alone(self):
        assert workers.part() is None

    @pytest.mark.parametrize(("name", "is_chief"), [("chief", True), ("tuner0", False)])
    def test_a_part(self, name, is_chief, monkeypatch):
        self.set(monkeypatch, name, "127.0.0.1", "8000")
        part = workers.part()
        assert part == workers.Part(name, "127.0.0.1", 8000)
        assert part.is_chief == is_chief
        assert part.address == "127.0.0.1:8000"

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            (("chief", "127.0.0.1", None), "go together: set KERASTUNER_ORACLE_PORT as well"),
            ((None, "127.0.0.1", "8000"), "go together: set KERASTUNER_TUNER_ID as well"),
            (("a/b", "127.0.0.1", "8000"), "KERASTUNER_TUNER_ID=a/b is not a name"),
            (("tuner0", "127.0.0.1", "port"), "KERASTUNER_ORACLE_PORT=port is not a port"),
            (("tuner0", "127.0.0.1", "65536"), "KERASTUNER_ORACLE_PORT=65536 is not a port"),
            (("tuner0", "127.0.0.1", "0"), "KERASTUNER_ORACLE_PORT=0 is not a port"),
        ],
    )
    def test_variables_that_do_not_fit(self, values, words, monkeypatch):
        self.set(monkeypatch, *values)
        with pytest.raises(UsageError, match=words):
            workers.part()


def test_a_worker_without_a_chief_and_a_chief_without_a_port():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        part = workers.Part("chief", *other.getsockname())
        with pytest.raises(RunError, match=r"there is no chief at 127\.0\.0\.1"):
            workers.wait_for_chief(part, seconds=0)
        other.listen()
        with pytest.raises(RunError, match=r"chief cannot listen at .*in use"):
            workers.check_address(part)
        workers.wait_for_chief(part, seconds=0)


# The command on eighty digits, with few networks in a step and nothing drawn. Two workers begin
# their first trials together, however long each takes to start.
SMALL = """
import dataclasses, functools, os, pathlib, time
from matplotlib.figure import Figure
import hypernet_tf as hn
from reproduce import sweep
from reproduce.cli import command
from reproduce.configs import METHODS
from reproduce.studies import experiment
real = hn.data.load
@functools.cache
def load(name, data_dir=None):
    whole = real(name, data_dir)
    part = hn.data.Split(whole.train.images[:80], whole.train.labels[:80])
    return dataclasses.replace(whole, train=part, validation=part, test=part)
hn.data.load = load
sizes = dict(num_networks=2, networks_per_step=2, images_per_network=4, checkpoint_every=1)
method = METHODS["hypernetwork"]
rows = tuple(dataclasses.replace(row, **sizes) for row in method.presets)
METHODS["hypernetwork"] = dataclasses.replace(method, presets=rows)
Figure.savefig = lambda self, path: path.write_bytes(b"a picture")
run = experiment.run
def together(*arguments, **options):
    pathlib.Path("at-work-" + os.environ["KERASTUNER_TUNER_ID"]).touch()
    while len(list(pathlib.Path().glob("at-work-*"))) < 2:
        time.sleep(0.1)
    return run(*arguments, **options)
if "KERASTUNER_TUNER_ID" in os.environ:
    experiment.run = together
command.run(sweep.main)
"""


def start(folder, *arguments, **environment):
    """`python -m reproduce.sweep` with a small preset, as a process."""
    flags = ["--dataset=mnist_5k", "--preset=quick", "--run_dir=sweep", *arguments]
    return subprocess.Popen(
        [sys.executable, "-c", SMALL, *flags],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def trials(output):
    """The lams that a process announced."""
    return re.findall(r"^trial: lam (\S+)$", output, re.M)


@pytest.mark.slow
def test_a_chief_and_two_workers_share_the_trials(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    flags = ("--lams=1,10", "--steps=1")
    processes = {
        name: start(tmp_path, *flags, KERASTUNER_TUNER_ID=name, **address)
        for name in ("chief", "tuner0", "tuner1")
    }
    said = {}
    try:
        for name in ("tuner0", "tuner1", "chief"):  # who would wait for workers that failed
            said[name] = processes[name].communicate(timeout=200)
            assert processes[name].returncode == 0, said[name][1][-2000:]
    finally:
        for process in processes.values():
            process.kill()
    ran = {name: trials(out) for name, (out, _) in said.items()}
    assert not ran["chief"]
    assert sorted([ran["tuner0"], ran["tuner1"]]) == [["1"], ["10"]]
    assert "report: sweep/report.html" in said["chief"][0]
    metrics = json.loads((tmp_path / "sweep" / "metrics.json").read_text())
    assert [one["lam"] for one in metrics["trials"]] == [1, 10]


@pytest.mark.slow
def test_a_trial_that_was_killed_goes_on(tmp_path):
    flags = ("--lams=1,10", "--steps=60")
    killed = start(tmp_path, *flags)
    checkpoints = tmp_path / "sweep" / "lam=10" / "checkpoints"
    while killed.poll() is None and not list(checkpoints.glob("step-*")):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    done = max(int(path.name.removeprefix("step-")) for path in checkpoints.glob("step-*"))
    assert 0 < done < 60
    finished = tmp_path / "sweep" / "lam=1" / "metrics.json"
    before = finished.stat().st_mtime_ns
    again = start(tmp_path, *flags)
    said, errors = again.communicate(timeout=200)
    assert again.returncode == 0, errors[-2000:]
    assert trials(said) == ["10"]
    # The progress bar starts where the last whole checkpoint stands.
    assert re.search(r"training: .*?\| (\d+)/60 \[", errors)[1] == str(done)
    assert finished.stat().st_mtime_ns == before
    metrics = json.loads((tmp_path / "sweep" / "metrics.json").read_text())
    assert [one["lam"] for one in metrics["trials"]] == [1, 10]
