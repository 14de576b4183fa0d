"""Small runs of the experiments, a small study, and commands in this process or in another."""

import contextlib
import dataclasses
import os
import subprocess
import sys
from typing import ClassVar

import pytest
from absl.testing import flagsaver

from reproduce import cifar, mnist
from reproduce.cli.command import FLAGS
from reproduce.configs import METHODS, RunConfig, preset
from reproduce.studies.study import Study, StudyRun

TINY = RunConfig(
    "mnist",
    "hypernetwork",
    "paper",
    "mnist",
    dataset="mnist_5k",
    steps=2,
    num_networks=5,
    networks_per_step=3,
    images_per_network=4,
    learning_rate=3e-4,
    learning_rate_decay=0.99998,
    lam=1e3,
    validate_every=2,
    checkpoint_every=2,
)


def tiny(method, experiment="mnist", **changes):
    """The quick preset of a method, with two steps and as many images as few digits allow."""
    short = {"steps": 2, "validate_every": 2, "checkpoint_every": 2}
    config = preset(experiment, method, "quick", dataset="mnist_5k")
    config = dataclasses.replace(config, **short | changes)
    images = min(config.images_per_network, 80 // config.networks_per_step)
    return dataclasses.replace(config, images_per_network=images)


def tiny_of_study(method, seed=0):
    """A tiny run of a small study; an ensemble has three networks."""
    sizes = {"num_networks": 3, "networks_per_step": 3} if method == "deep_ensemble" else {}
    return tiny(method, seed=seed, **sizes)


@contextlib.contextmanager
def small_presets(*methods):
    """A context in which all presets of methods train two networks for two steps."""
    with pytest.MonkeyPatch.context() as patch:
        for name in methods:
            count = 1 if name == "sgd" else 2
            sizes = {"num_networks": count, "networks_per_step": count, "images_per_network": 4}
            sizes |= {"steps": 2, "validate_every": 1, "checkpoint_every": 2}
            rows = tuple(dataclasses.replace(row, **sizes) for row in METHODS[name].presets)
            patch.setitem(METHODS, name, dataclasses.replace(METHODS[name], presets=rows))
        yield


@contextlib.contextmanager
def command_line(*words):
    """A context in which the flags are those of a command line."""
    if not FLAGS.is_parsed():
        FLAGS(["command"])
    with flagsaver.flagsaver():
        FLAGS(["command", *words])
        yield


def run_in_process(arguments, what):
    """Take the place of `run_child`, without the time that a process needs to start."""
    option, module, *words = arguments
    assert option == "-m"
    with command_line(*words):
        {"reproduce.mnist": mnist, "reproduce.cifar": cifar}[module].main()


def python(*arguments, cwd, timeout=300, **variables):
    """Run Python in a process of its own, which finds the package that is tested."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def start(*arguments, cwd):
    """Start Python in a process of its own, which goes on while the test does."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def modification_times(folder):
    """Path -> time for all files below a folder, except locks."""
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@dataclasses.dataclass(frozen=True)
class SmallStudy(Study):
    """Tiny runs of methods side by side."""

    methods: tuple[str, ...]
    seeds: tuple[int, ...] = (0,)
    keys: tuple[str, ...] = ("member_accuracy", "disagreement", "steps")
    dataset: str = "mnist_5k"

    command: ClassVar[str] = "small"
    noun: ClassVar[str] = "small study"

    def runs(self):
        return [
            StudyRun(method, f"{method}-seed={seed}", tiny_of_study(method, seed))
            for method in self.methods
            for seed in self.seeds
        ]

    def columns(self, results):
        return list(self.keys)

    def fixed_settings(self):
        return {"dataset": self.dataset}

    def default_settings(self):
        return {"dataset": "mnist"}

    def title(self):
        return "Tiny runs"

    def paragraphs(self, metrics):
        return ["Two steps each."]
