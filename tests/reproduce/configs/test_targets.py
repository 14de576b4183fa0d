"""The table of targets, and targets that are added to it."""

import dataclasses
import json

import keras
import pytest
from small_experiments import command_line, python
from target_models import Scale

import hypernet_tf as hn
from reproduce import compare, sweep
from reproduce.cli import run_flags
from reproduce.configs import (
    EXPERIMENTS,
    TARGETS,
    TargetOption,
    build_sampler,
    preset,
    register_target,
)
from reproduce.configs.targets import (
    build_target,
    datasets_help,
    experiment_of,
    targets_help,
    targets_of,
)
from reproduce.runs.folder import UsageError

EXTENSION = """
import keras
from reproduce.configs import TargetOption, register_target

def make(shape, classes):
    layers = keras.layers
    return keras.Sequential([keras.Input(shape), layers.Flatten(), layers.Dense(classes)])

register_target(TargetOption("linear", "one layer", "mnist", make, (28, 28, 1)))
"""


@pytest.fixture
def known_targets():
    """Targets that a test registers are forgotten."""
    known = dict(TARGETS)
    yield
    TARGETS.clear()
    TARGETS.update(known)


def small(shape, classes):
    pool = keras.layers.GlobalAveragePooling2D()
    return keras.Sequential([keras.Input(shape), pool, keras.layers.Dense(classes)])


def option(**changes):
    mine = TargetOption("mine", "what it is", "cifar", small, (32, 32, 3))
    return dataclasses.replace(mine, **changes)


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_is_a_model_of_its_images(name):
    target = TARGETS[name]
    model = target.make(target.image_shape, 7)
    assert (model.input_shape[1:], model.output_shape[1:]) == (target.image_shape, (7,))


@pytest.mark.usefixtures("known_targets")
def test_l2_reaches_all_weights_or_is_an_error():
    def make(shape, classes):
        model = small(shape, classes)
        model.add(Scale())
        return model

    register_target(option())
    assert all(one.l2 == 5e-5 for one in build_target("mine", 3, l2=1e-4).regularizers)
    assert build_target("resnet32", 3).regularizers.count(None) > 0
    assert None not in build_target("resnet32", 3, l2=1e-4).regularizers
    register_target(option(name="other", make=make))
    with pytest.raises(ValueError, match=r"^a layer of the target 'other' takes no regularizer"):
        build_target("other", 3, l2=1e-4)


def test_every_experiment_has_a_target():
    assert {name: targets_of(name)[0] for name in EXPERIMENTS} == {
        "mnist": "mnist",
        "cifar": "lenet",
    }


def test_a_data_set_is_trained_on_by_the_first_target_that_it_fits():
    assert {name: experiment_of(name) for name in hn.data.names_for()} == {
        name: "mnist" if name in hn.data.names_for((28, 28, 1)) else "cifar"
        for name in hn.data.names_for()
    }
    assert all(name in datasets_help() for name in hn.data.names_for())
    large = hn.data.DatasetOption("large", lambda root: None, (64, 64, 3), num_classes=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(hn.data.DATASETS, "large", large)
        with pytest.raises(hn.data.DataError, match="No experiment trains on the images of large"):
            experiment_of("large")


@pytest.mark.usefixtures("known_targets", "few_digits")
class TestRegistration:
    def test_one_entry_makes_a_target(self):
        entry = register_target(option())
        assert TARGETS["mine"] is entry
        assert targets_of("cifar")[-1] == "mine"
        assert "mine" not in targets_of("mnist")
        assert "mine: what it is" in targets_help()
        config = preset("cifar", "hypernetwork", "quick", target="mine", dataset="mnist_5k")
        lenet = preset("cifar", "hypernetwork", "quick", dataset="mnist_5k")
        assert config == dataclasses.replace(lenet, target="mine")
        sampler = build_sampler(config, num_data=100, classes=4)
        assert isinstance(sampler, hn.Hypernetwork)
        assert sampler.target.weight_count == 3 * 4 + 4

    @pytest.mark.parametrize("method", ["sgd", "hypernetwork", "deep_ensemble"])
    def test_it_takes_the_presets_of_what_it_is_like(self, method):
        register_target(option(like="resnet32"))
        config = preset("cifar", method, "quick", target="mine")
        resnet = preset("cifar", method, "quick", target="resnet32")
        assert config == dataclasses.replace(resnet, target="mine")

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"name": "lenet"}, "Cannot register the target 'lenet' twice"),
            ({"experiment": "imagenet"}, "the experiment 'imagenet': choose from mnist, cifar"),
            ({"like": "mnist"}, "like 'mnist': choose from lenet, lenet_normalized, resnet32"),
        ],
    )
    def test_an_entry_that_does_not_fit(self, changes, words):
        known = dict(TARGETS)
        with pytest.raises(ValueError, match=words) as error:
            register_target(option(**changes))
        assert "\n" not in str(error.value)
        assert known == TARGETS

    def test_commands_take_it(self):
        register_target(option())
        with command_line("--target=mine", "--dataset=mnist_5k", "--preset=quick"):
            assert run_flags.config_from_flags("cifar").target == "mine"
            study = compare.from_flags()
            assert {run.config.experiment for run in study.runs()} == {"cifar"}
            assert {run.config.target for run in study.runs()} == {"mine"}
            assert study.passes == preset("cifar", "hypernetwork", "quick").image_passes
            assert study.title().endswith(", mine")
            assert "target=mine" in str(study.default_folder())
            trial = sweep.from_flags().config
            assert (trial.experiment, trial.target) == ("cifar", "mine")
            with pytest.raises(UsageError, match="no target 'mine': choose from mnist"):
                run_flags.config_from_flags("mnist")


@pytest.mark.slow
def test_a_run_of_an_extensions_target(tmp_path):
    (tmp_path / "mine.py").write_text(EXTENSION)
    words = ("--extension=mine.py", "--target=linear", "--dataset=mnist_5k", "--preset=quick")
    python("-m", "reproduce.mnist", *words, "--steps=20", "--run_dir=run", cwd=tmp_path)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["run"]["target_weights"] == 7_850
    unknown = python(*("-m", "reproduce.mnist", "--run_dir=run", "--analyses=paths"), cwd=tmp_path)
    assert unknown.returncode == 1
    assert "is of the target 'linear', which is not known: name its module" in unknown.stderr


DATA_EXTENSION = """
import numpy as np
import hypernet_tf as hn

def read(root):
    labels = np.arange(1_200) % 2
    images = np.random.default_rng(0).integers(0, 128, (1_200, 8, 8, 3))
    images += 127 * labels[:, None, None, None]
    split = hn.data.Split(images.astype("uint8"), labels)
    parts = split[:1_000], split[1_000:1_100], split[1_100:]
    return hn.data.Dataset("read", "drawn", ("dark", "bright"), *parts)

hn.data.register_dataset(hn.data.DatasetOption("brightness", read, (8, 8, 3), num_classes=2))
"""


@pytest.mark.slow
def test_a_run_on_an_extensions_data_set(tmp_path):
    (tmp_path / "mine.py").write_text(DATA_EXTENSION)
    words = ("--extension=mine.py", "--dataset=brightness", "--method=sgd", "--preset=quick")
    python("-m", "reproduce.cifar", *words, "--steps=30", "--run_dir=run", cwd=tmp_path)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["dataset"]["train"] == 1_000
    assert metrics["networks"]["member_accuracy"] > 0.9
    unknown = python(*("-m", "reproduce.mnist", *words[1:]), cwd=tmp_path)
    assert unknown.returncode == 2
    assert "Unknown data set 'brightness'" in unknown.stderr
