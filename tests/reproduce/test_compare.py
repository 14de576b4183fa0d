"""Methods side by side."""

import dataclasses
import itertools
import json
import shutil
import signal
import time

import numpy as np
import pytest
from absl import flags
from scipy.stats import kendalltau, rankdata, spearmanr
from small_experiments import (
    command_line,
    modification_times,
    python,
    run_in_process,
    small_presets,
    start,
)

import hypernet_tf as hn
from hypernet_tf.training.checkpoints import Checkpoints
from reproduce import compare
from reproduce.analyses import ANALYSES
from reproduce.cli.run_flags import config_from_flags
from reproduce.compare import Comparison, rank_correlation
from reproduce.configs.methods import METHODS, methods_of, preset
from reproduce.runs import folder as folders
from reproduce.runs.command import DivergedError
from reproduce.runs.command import command_line as run_command_line
from reproduce.runs.folder import RunError, UsageError
from reproduce.studies import experiment, tuning
from reproduce.studies import study as studies
from reproduce.studies.study import Number
from reproduce.studies.tuning import Tuning


class TestFlags:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (
                ["--methods=sgd,gan"],
                "there is no method 'gan': choose from hypernetwork, mixture, mnf",
            ),
            (["--methods=sgd,sgd"], "--methods names a method twice: name each once"),
            (["--methods="], "--methods is empty: name at least one"),
            (["--methods=sgd,noise"], "noise needs the networks of hypernetwork: add hypernetwork"),
            (["--methods=sgd,apd"], "apd needs the networks of sgld: add sgld to --methods"),
            (["--methods=noise_by_layer"], "noise_by_layer needs the networks of hypernetwork"),
            (["--steps=9"], "a comparison has no --steps"),
            (["--method=sgd"], "a comparison has no --method\\. "),
            (["--devices=2"], "a comparison has no --devices\\. "),
            (["--analyses=heat"], "there is no analysis 'heat'"),
            (["--path_images=9"], "--path_images is not used by the analyses asked for"),
        ],
    )
    def test_flags_that_do_not_fit(self, arguments, words):
        with (
            command_line("--dataset=mnist_5k", *arguments),
            pytest.raises(UsageError, match=words) as error,
        ):
            compare.from_flags()
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("seeds", ["1,x", "0,00", ""])
    def test_seeds_that_are_no_seeds(self, seeds):
        with (
            pytest.raises(flags.Error, match="the seeds are different numbers"),
            command_line(f"--seeds={seeds}"),
        ):
            pass

    def test_a_comparison(self):
        with command_line("--dataset=mnist_5k", "--preset=quick", "--seeds=2,0"):
            study = compare.from_flags()
        assert study.methods == tuple(methods_of("mnist"))
        assert (study.seeds, study.passes, study.num_trials) == ((0, 2), 1_024_000, 8)
        folder = study.default_folder()
        assert str(folder) == "runs/compare-dataset=mnist_5k-preset=quick"
        runs = study.runs()
        assert len(runs) == 2 * len(study.methods)
        for run in runs:
            assert run.folder == f"{run.entry}-seed={run.config.seed}"
            more = run.config.steps * run.config.passes_per_step - study.passes
            assert 0 <= more < run.config.passes_per_step
            other = METHODS[run.entry].matches
            match = f"../{other}-seed={run.config.seed}" if other else ""
            assert run.config.match == match

    def test_all_methods_are_those_that_have_the_preset(self):
        with command_line("--dataset=mnist_5k", "--preset=fast"):
            study = compare.from_flags()
        assert study.methods == ("hypernetwork", "mixture")
        assert study.default_folder().name == "compare-dataset=mnist_5k-preset=fast"

    def test_further_analyses_and_their_settings(self):
        words = ("--dataset=mnist_5k", "--methods=sgd", "--analyses=attacks", "--ood=noise")
        with command_line(*words):
            study = compare.from_flags()
        assert set(study.analyses) == {"uncertainty", "out_of_distribution", "attacks"}
        assert study.settings == {"ood": ["noise"]}

    def test_a_setting_that_does_not_fit_is_found_before_the_trials(self, tmp_path):
        with command_line("--dataset=mnist_5k", "--methods=deep_ensemble", "--ood=mnist"):
            study = compare.from_flags()
        with pytest.raises(UsageError, match="--ood=mnist is in distribution"):
            study.execute(tmp_path / "compare")
        assert not (tmp_path / "compare").exists()

    def test_what_cannot_go_on_has_another_folder(self):
        def folder(*arguments):
            with command_line("--dataset=mnist_5k", "--preset=quick", *arguments):
                return compare.from_flags().default_folder().name

        tuned = "compare-dataset=mnist_5k-preset=quick"
        assert folder("--trials=3") == folder("--methods=sgd", "--seeds=1") == tuned
        assert folder("--passes=9000") == f"{tuned}-passes=9000"
        assert folder("--trials=0", "--passes=9000") == f"{tuned}-tuned=False"

    def test_the_paper_is_the_default(self):
        with command_line("--dataset=mnist_5k"):
            study = compare.from_flags()
        assert (study.preset, study.passes, study.seeds) == ("paper", 13_312_000, (0, 1, 2))


class TestClaims:
    METHODS = ("hypernetwork", "mixture", "mnf", "bhn", "deep_ensemble", "noise", "sgd")

    def numbers(self, areas):
        """Numbers of methods that are the more diverse, the later they are."""

        def row(values):
            return {
                name: Number(value, None, [value])
                for name, value in zip(self.METHODS, values, strict=True)
            }

        return {
            "disagreement": row([0.1, 0.2, 0.3, 0.4, 0.5, 0.9, None]),
            "ood_noise_entropy_auroc": row([*areas, 0.0, 0.5]),
            "ood_noise_mutual_information_auroc": row([0.6, 0.7, 0.8, 0.9, 1.0, 0.0, None]),
            "ood_noise_variance_auroc": row([None] * 7),
        }

    @pytest.mark.parametrize(
        ("areas", "correlation"),
        [([0.6, 0.7, 0.8, 0.9, 1.0], 1.0), ([1.0, 0.9, 0.8, 0.7, 0.6], -1.0)],
    )
    def test_the_rank_correlation_over_methods_that_learn_from_images(self, areas, correlation):
        [claim] = compare.claims_of(self.numbers(areas))
        assert claim["holds"] == (correlation > 0)
        assert claim["rank_correlations"] == {
            "entropy": {"noise": pytest.approx(correlation)},
            "mutual_information": {"noise": pytest.approx(1)},
        }
        study = Comparison("mnist", "mnist_5k", "quick", 8, self.METHODS, (0,))
        text = "\n".join(study.paragraphs({"left_out": [], "claims": [claim]}))
        assert "Claims of HyperGAN's paper:" in text
        assert "over the 5 methods with several networks that do not start from" in text
        assert f"by entropy noise {correlation:.2f} (p = " in text
        assert "; by mutual information noise 1.00 (p = " in text

    def test_a_correlation_that_chance_may_give_decides_nothing(self):
        [claim] = compare.claims_of(self.numbers([0.6, 0.9, 0.7, 0.8, 1.0]))
        assert claim["rank_correlations"]["entropy"]["noise"] == pytest.approx(0.7)
        assert "noise 0.70 (p = 0.12)" in claim["numbers"]
        assert claim["holds"] is None

    def test_neither_does_one_of_the_other_sign(self):
        """-0.8 of five methods: 8 of 120 orders have that or less."""
        [claim] = compare.claims_of(self.numbers([0.9, 1.0, 0.7, 0.8, 0.6]))
        assert claim["rank_correlations"]["entropy"]["noise"] == pytest.approx(-0.8)
        assert "noise -0.80 (p = 0.067)" in claim["numbers"]
        assert claim["holds"] is None

    def test_where_all_detect_alike_there_is_no_correlation(self):
        [claim] = compare.claims_of(self.numbers([1.0] * 5))
        assert claim["rank_correlations"].keys() == {"mutual_information"}

    def test_few_methods_have_no_correlation(self):
        numbers = self.numbers([0.6, 0.7, 0.8, 0.9, 1.0])
        few = {
            key: {name: row[name] for name in (*self.METHODS[:4], "noise")}
            for key, row in numbers.items()
        }
        assert compare.claims_of(few) == []

    def test_a_data_set_that_one_method_lacks_has_no_correlation(self):
        [claim] = compare.claims_of(self.numbers([0.6, None, 0.8, 0.9, 1.0]))
        assert claim["rank_correlations"].keys() == {"mutual_information"}


@pytest.fixture(scope="session")
def compare_two(load_once, undrawn):
    """A function folder, passes -> two seeds of an ensemble, compared; a single network beside."""

    def load(name, data_dir=None):
        if name in ("fashion_mnist", "notmnist"):
            raise hn.data.DataError("not on every machine")
        whole = load_once(name, data_dir)
        parts = {
            part: hn.data.Split(split.images[:100], split.labels[:100])
            for part, split in (("validation", whole.validation), ("test", whole.test))
        }
        return dataclasses.replace(whole, **parts)

    def function(folder, passes):
        study = Comparison("mnist", "mnist_5k", "quick", passes, ("deep_ensemble",), (0, 1))
        wider = dataclasses.replace(study, methods=("deep_ensemble", "sgd"))
        with undrawn(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(hn.data, "load", load)
            folders.write_json(folder / "study.json", study.record())
            for run in wider.runs():
                if run.folder != "sgd-seed=1":
                    experiment.run(run.config, folder / run.folder, analyses=study.analyses)
            return study, folder, study.execute(folder)

    return function


@pytest.fixture(scope="class")  # the presets are small for this class only
def compared(tmp_path_factory, compare_two, eagerly):
    with small_presets("deep_ensemble", "sgd"):
        with eagerly():
            made = compare_two(tmp_path_factory.mktemp("runs") / "compare", 8)
        yield made


@pytest.fixture(scope="module")
def compared_presets(tmp_path_factory, compare_two):
    return compare_two(tmp_path_factory.mktemp("runs") / "compare", 1_000)


class TestTuned:
    """What the runs of a comparison are after its tuning."""

    STUDY = Comparison(
        *(
            "mnist",
            "mnist_5k",
            "quick",
            100_000,
            ("hypernetwork", "sgd", "sgd_chains", "noise"),
            (0, 3),
        ),
        num_trials=2,
    )
    CHOSEN = {  # noqa: RUF012
        "hypernetwork": {
            "learning_rate": 5e-4,
            "images_per_network": 32,
            "networks_per_step": 16,
        },
        "sgd": {"learning_rate": 2e-3, "images_per_network": 64},
        "sgd_chains": {"learning_rate": 0.1, "images_per_network": 32},  # the preset's
    }

    def tuned(self, values=(0.5, 0.25)):
        tunings = {
            name: Tuning(0, chosen, [chosen | {tuning.OBJECTIVE: value} for value in values])
            for name, chosen in self.CHOSEN.items()
        }
        return dataclasses.replace(self.STUDY, tunings=tunings)

    def test_runs_have_what_was_chosen(self):
        configs = {(run.entry, run.config.seed): run.config for run in self.tuned().runs()}
        assert len(configs) == 8
        for (method, _), config in configs.items():
            chosen = self.CHOSEN["sgd" if method == "noise" else method]
            assert {name: getattr(config, name) for name in chosen} == chosen
            assert 0 <= config.image_passes - 100_000 < config.passes_per_step
        for method in ("hypernetwork", "sgd", "noise"):
            config = configs[method, 3]
            assert config.decay_per_step**config.steps == pytest.approx(0.01)
        assert configs["sgd_chains", 0].decay_per_step == 1.0

    @pytest.mark.parametrize("target", ["lenet_normalized", "resnet32"])
    def test_noise_is_around_a_network_that_is_trained_as_the_single_one(self, target):
        row, noise = (preset("cifar", name, "paper", target=target) for name in ("sgd", "noise"))
        assert dataclasses.replace(row, method="noise", num_networks=10) == noise

    def test_a_rate_rises_in_the_same_part_of_a_shorter_training(self):
        study = dataclasses.replace(
            self.STUDY, target="lenet_normalized", dataset="cifar10", preset="paper", num_trials=0
        )
        row = preset("cifar", "sgd", "paper", target="lenet_normalized")
        configs = {run.entry: run.config for run in study.runs()}
        steps = -(-100_000 // 128)
        assert configs["sgd"].warmup_steps == row.warmup_steps * steps // row.steps == 20
        choice = {"learning_rate": 0.01, "images_per_network": 32}
        tuned = dataclasses.replace(study, num_trials=1)._config("sgd", 0, choice)
        assert (tuned.steps, tuned.warmup_steps) == (3_125, 20 * 4)

    def test_folders_are_named_after_what_was_chosen(self):
        runs = {run.entry: run for run in self.tuned().runs() if run.config.seed == 3}
        hypernetwork = "hypernetwork-learning_rate=0.0005-networks_per_step=16-seed=3"
        assert {run.folder for run in runs.values()} == {
            hypernetwork,
            "sgd-learning_rate=0.002-images_per_network=64-seed=3",
            "noise-learning_rate=0.002-images_per_network=64-of-"
            + hypernetwork,  # its networks have the distances of that run's
            "sgd_chains-seed=3",
        }
        assert runs["noise"].config.match == f"../{hypernetwork}"

    def test_a_run_is_another_one_where_other_networks_are_matched(self):
        folders_of = {
            run.folder
            for study in (self.STUDY, self.tuned())
            for run in study.runs()
            if run.entry == "noise" and run.config.seed == 3
        }
        assert "noise-seed=3" in folders_of and len(folders_of) == 2

    def test_what_matches_a_run_that_diverged_is_left_out(self, monkeypatch, tmp_path, capsys):
        study = dataclasses.replace(self.STUDY, num_trials=0, seeds=(0,))
        started = []

        def run_child(arguments, what):
            started.append(what)
            if what == "hypernetwork-seed=0":
                raise DivergedError("the training diverged")

        monkeypatch.setattr(studies, "run_child", run_child)
        with pytest.raises(
            RunError, match=r"^training diverged: hypernetwork-seed=0, noise-seed=0;"
        ):
            study.execute(tmp_path / "compare")
        assert started == ["hypernetwork-seed=0", "sgd-seed=0", "sgd_chains-seed=0"]
        assert "noise-seed=0: there are no networks of hypernetwork" in capsys.readouterr().out

    def test_a_method_whose_trials_all_diverged_ends_nothing_but_itself(
        self, monkeypatch, tmp_path
    ):
        tuned = []

        def tune(config_of, choices, folder, load, progress, *, passes_after):
            tuned.append(folder.name)
            if folder.name == "hypernetwork":
                raise DivergedError("no trial came to its end")
            return Tuning(0, choices[0], [choices[0] | {tuning.OBJECTIVE: 0.5}])

        monkeypatch.setattr(tuning, "tune", tune)
        with pytest.raises(DivergedError, match="in all trials of hypernetwork: the same command"):
            self.STUDY.execute(tmp_path / "compare")
        assert tuned == ["hypernetwork", "sgd", "sgd_chains"]

    def test_a_data_set_that_is_missing_is_noticed_before_the_trials(self, tmp_path):
        study = dataclasses.replace(self.STUDY, settings={"ood": ["notmnist", "noise"]})
        with pytest.raises(hn.data.DataError, match="notmnist"):
            study.execute(tmp_path / "compare", data_dir=str(tmp_path))
        assert not (tmp_path / "compare").exists()

    def test_the_command_of_a_run_has_what_was_chosen(self, tmp_path):
        for run in self.tuned().runs():
            _, _, *words = run_command_line(run.config, tmp_path / run.folder)
            with command_line(*words):
                config = config_from_flags("mnist")
            if config.match:
                config = dataclasses.replace(config, match=run.config.match)
            assert config == run.config

    def test_the_page_says_how_and_what_is_doubtful(self):
        text = "\n".join(self.tuned((None, 0.25)).paragraphs({"left_out": ["notmnist"]}))
        assert "chosen in 2 trials with seed 0 at the same cost" in text
        assert "noise trains the same network as sgd: it has its choice." in text
        assert "Trials of sgd_chains whose training diverged: 1." in text
        assert "not available, so that their detection is missing for all or some" in text
        assert "that was tried" not in text  # all trials had one learning rate
        text = "\n".join(self.STUDY.paragraphs({"left_out": []}))
        assert "not available" not in text

    def test_the_page_names_a_rate_at_the_end_of_what_was_tried(self):
        rates = (1e-3, 4e-3, 2e-3)
        tried = [{"learning_rate": rate, tuning.OBJECTIVE: 1.0} for rate in rates]
        for rate, end in zip(rates, ("least", "greatest", None), strict=True):
            tuned = Tuning(0, {"learning_rate": rate, "images_per_network": 64}, tried)
            study = dataclasses.replace(self.STUDY, tunings={"sgd": tuned})
            text = "\n".join(study.paragraphs({"left_out": []}))
            assert (f"of sgd is the {end} that was tried" in text) == (end is not None)


@pytest.fixture(scope="class")  # the presets are small for this class only
def tuned(tmp_path_factory, with_few_digits, undrawn):
    """A comparison of a small single network, tuned in two trials."""
    folder = tmp_path_factory.mktemp("runs") / "compare"
    study = Comparison("mnist", "mnist_5k", "quick", 8, ("sgd",), (0,), num_trials=2)
    with small_presets("sgd"), undrawn(), with_few_digits(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "run_child", run_in_process)
        yield study, folder, study.execute(folder)


@pytest.mark.slow
class TestTuning:
    def test_table_page_and_file_name_what_was_chosen(self, tuned):
        _, folder, metrics = tuned
        assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
        of_sgd = metrics["tunings"]["sgd"]
        assert [one["images_per_network"] for one in of_sgd["trials"]] == [4, 64]
        best = min(of_sgd["trials"], key=lambda one: one["negative_log_likelihood"])
        chosen = of_sgd["chosen"]
        assert best == chosen | {"negative_log_likelihood": best["negative_log_likelihood"]}
        numbers = {key: values["sgd"]["mean"] for key, values in metrics["numbers"].items()}
        assert {name: numbers[name] for name in chosen} == chosen
        assert (numbers["trials"], numbers["networks_per_step"]) == (2, 1)
        [run] = (path.parent for path in folder.glob("*/config.json"))
        config = folders.read_metrics(run)["config"]
        assert {name: config[name] for name in chosen} == chosen
        assert config["learning_rate_left"] == 0.01
        table = (folder / "table.md").read_text()
        assert f"| images of a network in a step | {chosen['images_per_network']} |" in table
        assert "| trials, of which it is the best | 2 |" in table
        assert "chosen in 2 trials with seed 0" in (folder / "report.html").read_text()

    def test_trials_evaluate_nothing_but_the_validation_images(self, tuned):
        _, folder, metrics = tuned
        for trial in metrics["tunings"]["sgd"]["trials"]:
            rate, images = trial["learning_rate"], trial["images_per_network"]
            run = folder / f"tuning/sgd/seed=0-learning_rate={rate:g}-images_per_network={images}"
            sampler, record = Checkpoints(run / "checkpoints").load()
            assert int(sampler.step.numpy()) == -(-8 // images)
            [validation] = [e["validation"] for e in record["history"] if "validation" in e]
            measured = validation["negative_log_likelihood"]
            assert measured == pytest.approx(trial["negative_log_likelihood"])
            names = {path.name for path in run.iterdir()}
            assert names == {".lock", "config.json", "checkpoints", "tensorboard"}
            with pytest.raises(RunError, match="no finished run"):
                folders.read_metrics(run)

    def test_again_nothing_is_run(self, tuned, capsys):
        study, folder, metrics = tuned
        before = {
            path: time for path, time in modification_times(folder).items() if "seed=" in f"{path}"
        }
        assert study.execute(folder) == metrics
        after = modification_times(folder)
        assert {path: after[path] for path in before} == before
        said = capsys.readouterr().out
        assert "is complete" in said
        assert "trial " not in said

    def test_more_passes_are_another_comparison(self, tuned):
        study, folder, _ = tuned
        with pytest.raises(RunError, match="has passes=8, not 1024: choose another --run_dir"):
            dataclasses.replace(study, passes=1024).execute(folder)
        with pytest.raises(RunError, match="has tuned=True, not False: choose another --run_dir"):
            dataclasses.replace(study, num_trials=0).execute(folder)


@pytest.mark.slow
def test_trials_of_a_method_that_learns_networks(tmp_path, with_few_digits, undrawn):
    study = Comparison("mnist", "mnist_5k", "quick", 160, ("sgld", "apd"), (0,), num_trials=1)
    with (
        small_presets("sgld", "apd"),
        undrawn(),
        with_few_digits(),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(studies, "run_child", run_in_process)
        metrics = study.execute(tmp_path / "compare")
    assert metrics["tunings"].keys() == {"sgld", "apd"}
    assert metrics["tunings"]["apd"]["chosen"].keys() == {"learning_rate"}
    votes = metrics["numbers"]["majority_vote_accuracy"]
    assert all(len(votes[method]["values"]) == 1 for method in study.methods)
    assert [metrics["numbers"]["trials"][method]["mean"] for method in study.methods] == [1, 1]
    page = (tmp_path / "compare" / "report.html").read_text()
    assert "apd learns the networks of sgld, not from images" in page


class TestComparison:
    def test_the_table_is_that_of_the_runs(self, compared):
        study, folder, metrics = compared
        runs = [folders.read_metrics(folder / run.folder) for run in study.runs()]
        numbers = {key: values["deep_ensemble"] for key, values in metrics["numbers"].items()}
        votes = [run["ensemble"]["majority_vote_accuracy"] for run in runs]
        vote = numbers["majority_vote_accuracy"]
        assert vote["values"] == votes
        assert vote["mean"] == pytest.approx(np.mean(votes))
        assert vote["std"] == pytest.approx(np.std(votes, ddof=1))
        assert numbers["image_passes"]["mean"] == 8
        area = runs[0]["analyses"]["out_of_distribution"]["sets"]["glyphs"]["entropy"]["auroc"]
        assert numbers["ood_glyphs_entropy_auroc"]["values"][0] == area
        assert not any(key.startswith("ood_fashion") for key in numbers)
        for key in ("train_seconds", "sample_seconds", "peak_memory_mib"):
            assert numbers[key]["mean"] > 0
        assert numbers["entropy"]["mean"] is None  # of samplers without a latent space
        saved = json.loads((folder / "metrics.json").read_text())
        assert saved["numbers"] == json.loads(json.dumps(metrics["numbers"]))
        page = (folder / "report.html").read_text()
        assert page.count("data:image/png;base64,") == 1
        text = f"{100 * np.mean(votes):.2f} ± {100 * np.std(votes, ddof=1):.2g}"
        assert text in page
        header, _, *table = (folder / "table.md").read_text().splitlines()
        assert header.replace(" ", "") == "||deep_ensemble|"
        assert len(table) == len(numbers)
        assert f"| accuracy of the majority vote (%) | {text} |" in table
        with np.load(folder / "figures" / "comparison.npz") as arrays:
            drawn = arrays["Errors on the test images, majority vote, mean"]
        np.testing.assert_allclose(drawn, 100 - 100 * np.mean(votes))

    def test_what_is_finished_is_not_run_again(self, compared, tmp_path, capfd, quick_pictures):
        study, folder, _ = compared
        folder = shutil.copytree(folder, tmp_path / "compare")
        before = {p: p.stat().st_mtime_ns for p in folder.glob("*-seed=*/**/*")}
        study = dataclasses.replace(study, methods=("deep_ensemble", "sgd"), seeds=(0,))
        numbers = study.execute(folder)["numbers"]
        assert {p: p.stat().st_mtime_ns for p in before} == before
        said = capfd.readouterr().out
        assert "run 2 of 2: sgd-seed=0: is complete" in said
        assert "not in this table: deep_ensemble-seed=1" in said
        assert numbers["num_networks"]["sgd"] == {"mean": 1.0, "std": None, "values": [1]}
        assert numbers["disagreement"]["sgd"]["mean"] is None
        fewer = dataclasses.replace(study, passes=4)
        with pytest.raises(RunError, match="goes to 2 steps, not 1: ask for more steps"):
            fewer.execute(folder)

    def test_analyses_with_other_settings_are_done_again(self, compared, tmp_path):
        study, folder, _ = compared
        folder = shutil.copytree(folder, tmp_path / "compare")
        run = study.runs()[0]
        assert study.is_complete(folder, run)
        metrics = folders.read_metrics(folder / run.folder)
        metrics["analyses"]["out_of_distribution"]["settings"]["ood"] = ["glyphs"]
        folders.write_json(folder / run.folder / "metrics.json", metrics)
        assert not study.is_complete(folder, run)

    @pytest.mark.slow
    def test_a_run_that_fails_ends_it_in_one_line(self, tmp_path, capfd):
        study = Comparison("mnist", "mnist_5k", "quick", 256, ("sgd",), (0,))
        with pytest.raises(RunError, match=r"^sgd-seed=0 failed$"):
            study.execute(tmp_path / "compare", data_dir=str(tmp_path / "nowhere"))
        said = capfd.readouterr().err.strip().splitlines()
        assert len(said) == 1
        assert "data_dir cannot be read" in said[0]

    def test_the_folder_of_something_else(self, compared, tmp_path):
        study, folder, _ = compared
        with pytest.raises(RunError, match="folder of a single run: choose another"):
            study.execute(folder / "deep_ensemble-seed=0")
        (tmp_path / "report.html").write_text("mine")
        with pytest.raises(RunError, match="is not empty and no comparison"):
            study.execute(tmp_path)
        assert (tmp_path / "report.html").read_text() == "mine"
        with pytest.raises(RunError, match="holds a comparison: name one of the runs in it"):
            folders.read_metrics(folder)
        other = dataclasses.replace(study, dataset="fashion_mnist")
        with pytest.raises(RunError, match="has dataset=mnist_5k, not fashion_mnist"):
            other.execute(folder)

    def test_too_few_passes_are_an_error_before_anything_is_trained(self, tmp_path):
        study = Comparison("mnist", "mnist_5k", "quick", 1_000, ("deep_ensemble", "sgld"), (0,))
        with pytest.raises(UsageError, match="1,280 image passes sgld has 10 networks"):
            study.execute(tmp_path / "compare")
        assert not (tmp_path / "compare").exists()

    def test_a_damaged_run_is_one_line(self, compared, tmp_path):
        study, folder, _ = compared
        folder = shutil.copytree(folder, tmp_path / "compare")
        path = folder / "deep_ensemble-seed=1" / "metrics.json"
        metrics = json.loads(path.read_text())
        del metrics["run"]["steps"]
        path.write_text(json.dumps(metrics))
        before = modification_times(folder)
        words = r"deep_ensemble-seed=1/metrics\.json is damaged: it lacks 'steps'"
        with pytest.raises(RunError, match=words):
            study.execute(folder)
        after = modification_times(folder)
        assert {path.name for path in after if after[path] != before[path]} == {"study.json"}


@pytest.mark.slow
class TestCommand:
    def test_the_command_runs_what_is_new_and_nothing_else(self, compared_presets, tmp_path):
        _, folder, _ = compared_presets
        folder = shutil.copytree(folder, tmp_path / "runs" / "compare")
        before = {p: p.stat().st_mtime_ns for p in folder.glob("*-seed=*/**/*")}
        done = python(
            *("-m", "reproduce.compare", "--run_dir=runs/compare", "--dataset=mnist_5k"),
            *("--preset=quick", "--passes=1000", "--seeds=0", "--trials=0"),
            "--methods=deep_ensemble,sgd,sgd_chains",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        assert "run 3 of 3: sgd_chains-seed=0: 4 steps" in done.stdout
        assert "| deep_ensemble | sgd | sgd_chains |" in done.stdout
        assert {p: p.stat().st_mtime_ns for p in before} == before
        metrics = folders.read_metrics(folder / "sgd_chains-seed=0")
        basic = {name for name, analysis in ANALYSES.items() if analysis.basic}
        assert set(metrics["analyses"]) == basic | set(Comparison.analyses)
        assert metrics["run"]["image_passes"] == 4 * 320
        # The first runs left out a data set that was not available.
        numbers = json.loads((folder / "metrics.json").read_text())["numbers"]
        for key, values in numbers.items():
            if key.startswith("ood_fashion_mnist"):
                assert values["sgd"]["mean"] is None

    def test_further_analyses_join_the_table(self, compared_presets, tmp_path):
        _, folder, _ = compared_presets
        folder = shutil.copytree(folder, tmp_path / "compare")
        done = python(
            *("-m", "reproduce.compare", "--run_dir=compare", "--dataset=mnist_5k"),
            *("--preset=quick", "--passes=1000", "--seeds=0", "--trials=0"),
            *("--methods=deep_ensemble,sgd", "--ood=noise", "--analyses=attacks"),
            *("--attack_images=200", "--attack_sizes=0.1", "--attack_steps=2"),
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stderr
        metrics = folders.read_metrics(folder / "deep_ensemble-seed=0")
        assert metrics["analyses"]["attacks"]["settings"]["attack_sizes"] == [0.1]
        assert list(metrics["analyses"]["out_of_distribution"]["sets"]) == ["noise"]
        [misled] = metrics["analyses"]["attacks"]["systems"]["ensemble_pgd"]["judge_misled"]
        table = json.loads((folder / "metrics.json").read_text())["numbers"]
        numbers = table["attacks_ensemble_pgd_judge_misled"]
        assert numbers["deep_ensemble"]["values"] == [misled]
        assert numbers["sgd"]["values"] == [None]  # one network has no uncertainty
        assert not any(key.startswith("attacks_resampled") for key in table)  # a finite sampler


@pytest.mark.slow
def test_a_comparison_that_is_killed_ends_as_an_undisturbed_one(tmp_path):
    """Killed in the middle of a trial, and once more in the middle of a run."""
    words = ("--dataset=mnist_5k", "--preset=quick", "--passes=6400", "--seeds=0", "--trials=2")
    command = (
        "-m",
        "reproduce.compare",
        *words,
        "--methods=deep_ensemble,sgd",
        "--run_dir=compare",
    )
    results = []
    kills = (
        ("tuning/sgd/*64/checkpoints/step-*", signal.SIGKILL),
        ("sgd*-seed=0/checkpoints/step-*", signal.SIGTERM),  # which ends the run's process too
    )
    for name, interruptions in (("undisturbed", ()), ("killed", kills)):
        (tmp_path / name).mkdir()
        folder = tmp_path / name / "compare"
        for pattern, number in interruptions:
            process = start(*command, cwd=tmp_path / name)
            while process.poll() is None and not list(folder.glob(pattern)):
                time.sleep(0.01)
            assert process.poll() is None, process.communicate()[1][-2000:]
            process.send_signal(number)
            process.communicate()
            assert not (folder / "metrics.json").exists()
        done = python(*command, cwd=tmp_path / name, timeout=900)
        assert done.returncode == 0, done.stderr[-2000:]
        results.append((json.loads((folder / "metrics.json").read_text()), done.stdout))
    (metrics, said), (again, said_again) = results
    assert again["tunings"] == metrics["tunings"]
    timed = ("train_seconds", "sample_seconds", "peak_memory_mib")
    for key, values in metrics["numbers"].items():
        if key not in timed:
            assert again["numbers"][key] == values, key
    assert said.count("trial ") == 4
    assert "trial " not in said_again  # all trials were finished
    assert "deep_ensemble" in said_again
    assert said_again.count("is complete") == 1


class TestRankCorrelation:
    def test_it_is_that_of_the_ranks(self):
        one, other = [3.0, 1.0, 2.0, 9.0, 4.0], np.array([30.0, 12.0, 11.0, 80.0, 41.0])
        correlation, chance = rank_correlation(one, other)
        ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
        assert correlation == pytest.approx(np.corrcoef(*ranks)[0, 1])
        assert 0 < chance < 0.1
        assert np.sign(correlation) == np.sign(kendalltau(one, other).statistic)
        reverse, of_reverse = rank_correlation(one, -other)
        assert reverse == pytest.approx(-correlation)
        # Of the 120 orders, 5 have a correlation of 0.9 or more, and 5 of -0.9 or less.
        assert (chance, of_reverse) == pytest.approx((5 / 120, 5 / 120))

    @pytest.mark.parametrize("other", [range(6), [1, 2, 0, 4, 3, 5], [0, 0, 1, 2, 1, 3]])
    def test_few_numbers_have_an_exact_probability(self, other):
        one = np.arange(6)
        orders = [
            np.corrcoef(order, rankdata(other))[0, 1] for order in itertools.permutations(one)
        ]
        correlation, chance = rank_correlation(one, other)
        assert correlation > 0
        assert chance == pytest.approx(np.mean(np.array(orders) > correlation - 1e-9))

    def test_many_numbers_have_nearly_the_asymptotic_probability(self):
        one = np.arange(30.0)
        other = one + 20 * np.random.default_rng(1).normal(size=30)
        asymptotic = spearmanr(one, other, alternative="greater").pvalue
        assert rank_correlation(one, other)[1] == pytest.approx(asymptotic, abs=0.01)

    def test_a_constant_series_has_none(self):
        assert rank_correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
        assert rank_correlation([1.0, 2.0, 3.0], np.ones(3)) is None


@pytest.mark.parametrize("name", ["KERASTUNER_ORACLE_IP", "KERASTUNER_TUNER_ID"])
def test_variables_of_a_sweep_in_several_processes_are_one_line(monkeypatch, name):
    monkeypatch.setenv(name, "chief")
    with (
        command_line("--dataset=mnist_5k", "--methods=sgd"),
        pytest.raises(UsageError, match=f"^a comparison tunes in one process: unset {name}$"),
    ):
        compare.from_flags()
