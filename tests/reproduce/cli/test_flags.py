"""Flags that several commands share, and those of a run."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.flags import IllegalFlagValueError
from small_experiments import command_line, modification_times, tiny

from reproduce import mnist
from reproduce.cli import device_flags, run_flags, shared_flags
from reproduce.cli.command import FLAGS
from reproduce.configs import METHODS, TARGETS, build_sampler
from reproduce.runs import folder as folders
from reproduce.runs.folder import RunError, UsageError

pytestmark = pytest.mark.usefixtures("few_digits")


class TestSharedFlags:
    def test_a_flag_that_means_nothing_here(self):
        with (
            command_line("--lam=3"),
            pytest.raises(UsageError, match=r"^a report has no --lam\. See --help for all flags"),
        ):
            shared_flags.accept_only(("seed",), "a report")

    def test_flags_of_other_modules(self):
        with command_line("--method=sgd", "--seed=3"):
            shared_flags.accept_only(("seed",), "a report")
            with pytest.raises(UsageError, match="a report has no --method"):
                shared_flags.accept_only(("seed",), "a report", others=(run_flags,))

    def test_auto_says_which_data_set_it_became(self, monkeypatch, capsys):
        monkeypatch.setattr(shared_flags, "resolve", lambda name, folder: ("mnist_5k", "a notice"))
        with command_line():
            assert shared_flags.dataset((28, 28, 1)) == "mnist_5k"
        assert capsys.readouterr().out == "a notice\n"

    def test_a_data_set_that_does_not_fit(self):
        with (
            command_line("--dataset=cifar10"),
            pytest.raises(UsageError, match="cifar10 does not fit the network: choose auto, mnist"),
        ):
            shared_flags.dataset((28, 28, 1))

    @pytest.mark.parametrize(
        ("value", "name"),
        [
            ("mnist_5k:4,3,0", "mnist_5k:0,3-4"),
            ("mnist_5k:1000", "mnist_5k:1000"),
            ("mnist_5k:0-9", "mnist_5k"),
        ],
    )
    def test_part_of_a_data_set(self, value, name):
        with command_line(f"--dataset={value}"):
            assert shared_flags.dataset((32, 32, 3)) == name

    @pytest.mark.parametrize(
        ("value", "words"),
        [
            ("cats:0-4", "Unknown data set 'cats': choose one of auto, mnist"),
            ("mnist:0-12", "Unknown classes '0-12' of mnist: its classes are 0 to 9"),
            ("mnist:x", "Cannot read 'mnist:x'"),
            ("mnist:7", "a network needs at least 2 classes"),
            ("notmnist", "notmnist has no training images: choose auto, mnist, mnist_5k"),
            ("glyphs:0-4", "glyphs has no training images: choose auto, mnist, mnist_5k"),
        ],
    )
    def test_a_data_set_that_networks_cannot_be_trained_on(self, value, words):
        with pytest.raises(IllegalFlagValueError, match=words), command_line():
            FLAGS.dataset = value


class TestDeviceFlags:
    def test_one_device_is_the_default(self):
        with command_line("--steps_per_execution=3"):
            execution = device_flags.execution(jit_compile=True)
        assert execution.strategy is None
        assert (execution.steps_per_execution, execution.jit_compile) == (3, True)

    def test_they_mean_nothing_where_nothing_is_trained(self):
        with command_line():
            device_flags.refuse("an analysis")
        with (
            command_line("--devices=2"),
            pytest.raises(UsageError, match="--devices is not used by an analysis: remove it"),
        ):
            device_flags.refuse("an analysis")


class TestTargetFlag:
    def test_help_lists_every_target(self):
        for name, target in TARGETS.items():
            assert f"{name}: {target.help}" in FLAGS["target"].help

    def test_the_first_target_of_the_experiment_is_the_default(self):
        with command_line():
            assert (run_flags.target("cifar"), run_flags.target()) == ("lenet", "mnist")
            assert run_flags.config_from_flags("mnist").target == "mnist"

    def test_a_target_of_another_experiment(self):
        with command_line("--target=resnet32"):
            assert (run_flags.target("cifar"), run_flags.target()) == ("resnet32", "resnet32")
            with pytest.raises(UsageError, match=r"no target 'resnet32': choose from mnist$"):
                run_flags.target("mnist")


class TestRunFlags:
    def test_help_lists_every_method(self):
        for name, method in METHODS.items():
            assert f"{name}: {method.help}" in FLAGS["method"].help

    def test_a_run_and_its_summary(self, monkeypatch, tmp_path, capsys, quick_pictures):
        calls = []

        def run(config, folder, data_dir, **options):
            calls.append((config, folder, options["analyses"], options["settings"]))
            accuracies = ("majority_vote", "mean_probability", "most_confident")
            return {
                "networks": {"num_networks": 5, "member_accuracy": 0.5},
                "ensemble": {f"{name}_accuracy": 0.625 for name in accuracies},
            }

        monkeypatch.setattr(run_flags, "run", run)
        flags = ("--dataset=mnist_5k", "--analyses=ensembles", "--ensembles=3")
        with command_line(*flags, f"--run_dir={tmp_path / 'run'}"):
            mnist.main()
        [(config, folder, analyses, settings)] = calls
        assert (config.experiment, folder) == ("mnist", tmp_path / "run")
        assert (analyses, settings) == (["ensembles"], {"ensembles": 3})
        assert capsys.readouterr().out.startswith(
            "5 networks: mean 50.00%; majority vote 62.50%, mean probability 62.50%"
        )

    @pytest.mark.parametrize(
        "flag", ["--learning_rate_left=0.5", "--learning_rate_schedule=cosine"]
    )
    def test_a_schedule_takes_the_place_of_restarts(self, flag):
        words = ("--method=hypergan", "--preset=paper", "--dataset=mnist_5k")
        with command_line(*words):
            assert run_flags.config_from_flags("mnist").restart_every == 5_500
        with command_line(*words, flag):
            assert run_flags.config_from_flags("mnist").restart_every == 0

    def test_a_rate_falls_to_0_along_a_cosine_only(self):
        words = ("--preset=paper", "--dataset=mnist_5k", "--learning_rate_left=0")
        with command_line(*words), pytest.raises(UsageError, match="needs --learning_rate_sch"):
            run_flags.config_from_flags("mnist")
        with command_line(*words, "--learning_rate_schedule=cosine"):
            assert run_flags.config_from_flags("mnist").learning_rate_left == 0

    def test_a_rate_rises_before_a_cosine_only(self):
        words = ("--preset=fast", "--dataset=mnist_5k", "--steps=100")
        with command_line(*words, "--warmup_steps=99"):
            config = run_flags.config_from_flags("mnist")
        assert (config.warmup_steps, config.learning_rate_schedule) == (99, "cosine")
        assert run_flags.default_folder(config).name.endswith("-warmup_steps=99")
        with command_line(*words, "--warmup_steps=100"), pytest.raises(UsageError, match=r"fewer$"):
            run_flags.config_from_flags("mnist")
        for method in ("hypernetwork", "hypergan"):  # exponential, and a cosine with restarts
            words = (f"--method={method}", "--preset=paper", "--dataset=mnist_5k")
            with (
                command_line(*words, "--warmup_steps=10"),
                pytest.raises(UsageError, match=r"^--warmup_steps needs --learning_rate_schedule"),
            ):
                run_flags.config_from_flags("mnist")
            with command_line(*words, "--warmup_steps=10", "--learning_rate_schedule=cosine"):
                assert run_flags.config_from_flags("mnist").warmup_steps == 10

    def test_the_rise_of_a_preset_goes_with_its_cosine(self):
        words = ("--method=sgd", "--preset=paper", "--target=lenet_normalized", "--dataset=cifar10")
        exponential = "--learning_rate_schedule=exponential"
        with command_line(*words, exponential, "--learning_rate_left=0.1"):
            config = run_flags.config_from_flags("cifar")
        assert (config.warmup_steps, config.learning_rate_left) == (0, 0.1)
        with (
            command_line(*words, exponential),
            pytest.raises(UsageError, match=r"=exponential needs --learning_rate_left"),
        ):
            run_flags.config_from_flags("cifar")

    @pytest.mark.parametrize(
        ("flag", "words"),
        [
            ("--learning_rate_left=nan", "the fraction that is left is from 0 to 1"),
            ("--learning_rate_left=1.5", "the fraction that is left is from 0 to 1"),
            ("--learning_rate=1e39", "the learning rate is a number from 1.2e-38"),
            ("--lam=1e39", "lam is a number from 1.2e-38"),
            ("--crop_margin=32", "31"),
            ("--l2=nan", "l2 is from 0 to"),
            ("--momentum=1", "momentum is from 0 to below 1"),
            ("--l2=-1e-4", "l2 is from 0 to"),
        ],
    )
    def test_numbers_out_of_their_range(self, flag, words):
        with pytest.raises(IllegalFlagValueError, match=words), command_line(flag):
            pass

    def test_a_diversity_that_is_not_known(self):
        words = "there is no diversity 'me': choose from weights, outputs, none"
        with command_line("--diversity=me"), pytest.raises(UsageError, match=words):
            run_flags.config_from_flags("mnist")

    def test_the_largest_shift_of_photographs(self):
        with command_line("--dataset=cifar10_jpeg", "--crop_margin=2"):
            config = run_flags.config_from_flags("cifar")
        assert (config.augment, config.crop_margin) == (True, 2)
        assert run_flags.default_folder(config).name.endswith("-crop_margin=2")
        words = ("--dataset=fashion_mnist", "--crop_margin=2")
        with command_line(*words), pytest.raises(UsageError, match=r"^--crop_margin is not used"):
            run_flags.config_from_flags("cifar")

    @pytest.mark.parametrize("method", ["sgd", "mixture", "hypergan"])
    def test_l2_of_each_networks_weights(self, method):
        with command_line("--dataset=cifar10_jpeg", f"--method={method}", "--l2=1e-4"):
            config = run_flags.config_from_flags("cifar")
        target = build_sampler(config, num_data=10).target
        theta = tf.random.stateless_normal([2, target.weight_count], [0, 0])
        penalty = float(target.regularization(target.unflatten(theta).trainable))
        np.testing.assert_allclose(penalty, 1e-4 / 2 * np.sum(theta.numpy() ** 2) / 2, rtol=1e-5)
        assert run_flags.default_folder(config).name.endswith("-l2=0.0001")
        words = ("--method=bhn", "--l2=1e-4")
        with command_line(*words), pytest.raises(UsageError, match=r"^--l2 is not used by"):
            run_flags.config_from_flags("mnist")

    def test_a_mixture_of_another_number_of_hypernetworks(self):
        with command_line("--method=mixture", "--preset=quick", "--hypernetworks=2"):
            config = run_flags.config_from_flags("mnist")
        sampler = build_sampler(config, num_data=10)
        assert (sampler.num_samplers, sampler.num_networks) == (2, config.networks_per_step)
        assert config.networks_per_step == 16
        name = run_flags.default_folder(dataclasses.replace(config, dataset="mnist")).name
        assert name.endswith("-hypernetworks=2") and "networks_per_step" not in name
        with command_line("--hypernetworks=2"), pytest.raises(UsageError, match="is not used by"):
            run_flags.config_from_flags("mnist")

    def test_the_optimizer_of_networks_trained_in_the_ordinary_way(self):
        words = ("--dataset=cifar10_jpeg", "--method=sgd", "--optimizer=sgd", "--momentum=0.9")
        with command_line(*words):
            config = run_flags.config_from_flags("cifar")
        optimizer = build_sampler(config, num_data=10).optimizer
        assert isinstance(optimizer, keras.optimizers.SGD) and optimizer.momentum == 0.9
        needed = pytest.raises(UsageError, match=r"^--momentum needs --optimizer=sgd: add it$")
        with command_line(*words[:2], "--momentum=0.9"), needed:
            run_flags.config_from_flags("cifar")

    def test_restarts_that_were_taken_away_have_a_folder_of_their_own(self):
        words = ("--method=hypergan", "--preset=paper", "--dataset=mnist_5k")
        folders_of = []
        for more in ((), ("--learning_rate_schedule=exponential",)):
            with command_line(*words, *more):
                folders_of.append(run_flags.default_folder(run_flags.config_from_flags("mnist")))
        assert len(set(folders_of)) == 2

    def test_the_match_of_a_run_is_a_path_from_its_folder(self, monkeypatch, tmp_path):
        calls = []
        monkeypatch.setattr(run_flags, "run", lambda config, *_, **__: calls.append(config) or {})
        folder = tmp_path / "noise"
        flags = ("--method=noise", f"--match={tmp_path / 'other'}", f"--run_dir={folder}")
        with command_line("--dataset=mnist_5k", *flags):
            mnist.main()
        assert calls[0].match == "../other"

    @pytest.mark.usefixtures("eager_fits")
    def test_a_finished_run_is_analysed_without_training(self, tiny_run, tmp_path, quick_pictures):
        folder = shutil.copytree(tiny_run(tiny("sgd")), tmp_path / "run")
        before = modification_times(folder / "checkpoints")
        with command_line(f"--run_dir={folder}", "--analyses=uncertainty"):
            mnist.main()
        assert "uncertainty" in folders.read_metrics(folder)["analyses"]
        assert modification_times(folder / "checkpoints") == before
        with (
            command_line(f"--run_dir={folder}", "--analyses=uncertainty", "--devices=2"),
            pytest.raises(UsageError, match="--devices is not used by the analysis of a finished"),
        ):
            mnist.main()

    def test_an_old_run_folder_is_one_line(self, tmp_path):
        old = dataclasses.asdict(tiny("sgd"))
        del old["experiment"], old["target"]
        folders.write_json(tmp_path / "config.json", old)
        folders.write_json(tmp_path / "metrics.json", {"steps": 2})
        for flags in (["--dataset=mnist_5k", "--method=sgd"], ["--analyses=paths"]):
            with (
                command_line(f"--run_dir={tmp_path}", *flags),
                pytest.raises(RunError, match="written by another version or experiment") as error,
            ):
                mnist.main()
            assert "\n" not in str(error.value)
