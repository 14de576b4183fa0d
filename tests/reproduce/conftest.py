"""Finished and analysed runs, which tests of the experiments share.

TensorFlow is imported where it is needed, see tests/conftest.py.
"""

import dataclasses
import fcntl
import hashlib
import os
import shutil

import pytest


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """A function name, make -> the folder that `make(folder)` wrote, once for all processes."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # the folder of a worker is in the folder of all
        shared = shared.parent

    def function(name, make):
        place = shared / "once" / name
        place.parent.mkdir(exist_ok=True)
        with place.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not place.exists():
                aside = place.with_suffix(".part")
                shutil.rmtree(aside, ignore_errors=True)  # of a process that failed
                aside.mkdir()
                make(aside / name)
                aside.rename(place)
        return place / name

    return function


@pytest.fixture
def as_bent(monkeypatch):
    """Training goes on with the sampler of `bent_run`."""
    import analysed_runs

    from reproduce.studies import experiment

    monkeypatch.setattr(experiment, "build_sampler", analysed_runs.bent)
    monkeypatch.setattr(experiment, "check_step", lambda *_: None)  # its networks share images


@pytest.fixture(scope="session")
def bent_run(once, with_few_digits, undrawn):
    """The folder of a finished run of a sampler for which no analysis was written."""
    import analysed_runs

    from reproduce.studies import experiment

    def make(folder):
        not_drawn = {"accuracy_histogram", "training_curves"}
        with pytest.MonkeyPatch.context() as patch, with_few_digits(), undrawn(not_drawn):
            patch.setattr(experiment, "build_sampler", analysed_runs.bent)
            patch.setattr(experiment, "check_step", lambda *_: None)  # its networks share images
            experiment.run(analysed_runs.TINY, folder)

    return once("generated", make)


@pytest.fixture(scope="session")
def analyse(bent_run, tmp_path_factory, with_few_digits, undrawn):
    """A function that analyses a copy of `bent_run`: names -> folder, contents of metrics.json."""
    import analysed_runs

    from reproduce.studies import experiment

    def function(*names, not_drawn=(), **settings):
        folder = shutil.copytree(bent_run, tmp_path_factory.mktemp("runs") / "analysed")
        checkpoint = folder / "checkpoints" / "step-00000060" / "model.keras"
        before = checkpoint.stat().st_mtime_ns
        with with_few_digits(), undrawn(not_drawn), pytest.MonkeyPatch.context() as patch:
            # The sampler of the same file, whose graphs are traced already.
            patch.setattr(
                experiment, "finished_sampler", lambda folder, _: analysed_runs.sampler_of(folder)
            )
            settings = analysed_runs.SMALL | settings
            metrics = experiment.run(analysed_runs.TINY, folder, analyses=names, settings=settings)
        assert checkpoint.stat().st_mtime_ns == before  # nothing was trained
        return folder, metrics

    return function


@pytest.fixture(scope="session")
def analysed(once, analyse):
    """A run with several analyses: folder, contents of metrics.json."""
    from reproduce.runs import folder as folders

    names = ("ensembles", "paths", "adversarial", "uncertainty")
    folder = once("analysed", lambda aside: analyse(*names)[0].rename(aside))
    return folder, folders.read_metrics(folder)


@pytest.fixture(scope="session")
def single(once, with_few_digits, undrawn, eagerly):
    """A finished run of one network with all analyses of one network: folder, metrics."""
    import analysed_runs

    from reproduce.configs import preset
    from reproduce.runs import folder as folders
    from reproduce.studies import experiment

    config = dataclasses.replace(
        preset("mnist", "sgd", "quick"),
        dataset="mnist_5k",
        steps=30,
        images_per_network=20,
        validate_every=30,
        checkpoint_every=30,
    )

    def make(folder):
        with with_few_digits(), undrawn(), eagerly():
            experiment.run(config, folder, analyses=["all"], settings=analysed_runs.ALONE)

    folder = once("single", make)
    return folder, folders.read_metrics(folder)


@pytest.fixture(scope="session")
def tiny_run(once, with_few_digits, undrawn, eagerly):
    """A function config -> folder of its finished run, which is run once and not drawn."""
    from reproduce.studies import experiment

    def function(config):
        def make(folder):
            with with_few_digits(), undrawn(), eagerly():
                experiment.run(config, folder)

        digest = hashlib.sha256(repr(config).encode()).hexdigest()[:8]
        return once(f"{config.method}-seed={config.seed}-{digest}", make)

    return function
