"""Finished and analysed runs, which tests of the experiments share.

TensorFlow is imported where it is needed, see tests/conftest.py.
"""

import dataclasses
import shutil

import pytest


@pytest.fixture
def as_bent(monkeypatch):
    """Training goes on with the sampler of `bent_run`."""
    import analysed_runs

    from reproduce.runs import experiment

    monkeypatch.setattr(experiment, "build_sampler", analysed_runs.bent)


@pytest.fixture(scope="session")
def bent_run(tmp_path_factory, with_few_digits, undrawn):
    """The folder of a finished run of a sampler for which no analysis was written."""
    import analysed_runs

    from reproduce.runs import experiment

    folder = tmp_path_factory.mktemp("runs") / "generated"
    not_drawn = {"accuracy_histogram", "training_curves"}
    with pytest.MonkeyPatch.context() as patch, with_few_digits(), undrawn(not_drawn):
        patch.setattr(experiment, "build_sampler", analysed_runs.bent)
        experiment.run(analysed_runs.TINY, folder)
    return folder


@pytest.fixture(scope="session")
def analyse(bent_run, tmp_path_factory, with_few_digits, undrawn):
    """A function that analyses a copy of `bent_run`: names -> folder, contents of metrics.json."""
    import analysed_runs

    from reproduce.runs import experiment

    def function(*names, not_drawn=(), **settings):
        folder = shutil.copytree(bent_run, tmp_path_factory.mktemp("runs") / "analysed")
        checkpoint = folder / "checkpoints" / "step-00000060" / "model.keras"
        before = checkpoint.stat().st_mtime_ns
        with with_few_digits(), undrawn(not_drawn):
            settings = analysed_runs.SMALL | settings
            metrics = experiment.run(analysed_runs.TINY, folder, analyses=names, settings=settings)
        assert checkpoint.stat().st_mtime_ns == before  # nothing was trained
        return folder, metrics

    return function


@pytest.fixture(scope="session")
def analysed(analyse):
    """A run with several analyses whose figures are not drawn: folder, contents of metrics.json."""
    return analyse("ensembles", "paths", "adversarial", "uncertainty", not_drawn=None)


@pytest.fixture(scope="session")
def single(tmp_path_factory, with_few_digits, undrawn):
    """A finished run of one network with all analyses of one network: folder, metrics."""
    import analysed_runs

    from reproduce.configs import preset
    from reproduce.runs import experiment

    folder = tmp_path_factory.mktemp("runs") / "single"
    config = dataclasses.replace(
        preset("mnist", "sgd", "quick"),
        dataset="mnist_5k",
        steps=30,
        images_per_network=20,
        validate_every=30,
        checkpoint_every=30,
    )
    with with_few_digits(), undrawn():
        metrics = experiment.run(config, folder, analyses=["all"], settings=analysed_runs.ALONE)
    return folder, metrics


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, with_few_digits, undrawn):
    """A function config -> folder of its finished run, which is run once and not drawn."""
    from reproduce.runs import experiment

    finished = {}

    def function(config):
        if config not in finished:
            folder = tmp_path_factory.mktemp("runs") / f"{config.method}-seed={config.seed}"
            with with_few_digits(), undrawn():
                experiment.run(config, folder)
            finished[config] = folder
        return finished[config]

    return function
