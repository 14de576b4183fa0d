"""Methods side by side."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from absl import flags
from small_experiments import command_line, modification_times, python

import hypernet_tf as hn
from reproduce import compare
from reproduce.analyses import ANALYSES
from reproduce.compare import Comparison
from reproduce.configs.methods import methods_of
from reproduce.runs import experiment
from reproduce.runs import folder as folders
from reproduce.runs.folder import RunError, UsageError


class TestFlags:
    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--methods=sgd,gan"], "there is no method 'gan': choose from hypernetwork, mnf"),
            (["--methods=sgd,sgd"], "--methods names a method twice: name each once"),
            (["--methods="], "--methods is empty: name at least one"),
            (["--methods=sgd,noise"], "as far apart as the hypernetwork: add it"),
            (["--steps=9"], "a comparison has no --steps"),
            (["--method=sgd"], "a comparison has no --method\\. "),
            (["--devices=2"], "a comparison has no --devices\\. "),
            (["--analyses=all"], "a comparison has no --analyses\\. "),
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
        assert (study.seeds, study.passes) == ((0, 2), 1_024_000)
        folder = compare.default_folder(study)
        assert str(folder) == "runs/compare-dataset=mnist_5k-preset=quick"
        runs = study.runs()
        assert len(runs) == 2 * len(study.methods)
        for run in runs:
            assert run.folder == f"{run.entry}-seed={run.config.seed}"
            more = run.config.steps * run.config.passes_per_step - study.passes
            assert 0 <= more < run.config.passes_per_step
            match = f"../hypernetwork-seed={run.config.seed}" if "noise" in run.entry else ""
            assert run.config.match == match

    def test_the_paper_is_the_default(self):
        with command_line("--dataset=mnist_5k"):
            study = compare.from_flags()
        assert (study.preset, study.passes, study.seeds) == ("paper", 13_312_000, (0, 1, 2))


@pytest.fixture(scope="module")
def compared(tmp_path_factory, load_once, undrawn):
    """Two seeds of an ensemble, compared; and a run of the single network."""
    folder = tmp_path_factory.mktemp("runs") / "compare"
    study = Comparison("mnist_5k", "quick", 1_000, ("deep_ensemble",), (0, 1))
    wider = dataclasses.replace(study, methods=("deep_ensemble", "sgd"))

    def load(name, data_dir=None):
        if name == "fashion_mnist":
            raise hn.data.DataError("not on every machine")
        whole = load_once(name, data_dir)
        few = hn.data.Split(whole.test.images[:100], whole.test.labels[:100])
        return dataclasses.replace(whole, validation=few, test=few)

    with undrawn(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(hn.data, "load", load)
        folders.write_json(folder / "study.json", study.record())
        for run in wider.runs():
            if run.folder != "sgd-seed=1":
                experiment.run(run.config, folder / run.folder, analyses=study.analyses)
        return study, folder, study.execute(folder)


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
        assert numbers["image_passes"]["mean"] == 1_000
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
        fewer = dataclasses.replace(study, passes=500)
        with pytest.raises(RunError, match="goes to 4 steps, not 2: ask for more steps"):
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
    def test_the_command_runs_what_is_new_and_nothing_else(self, compared, tmp_path):
        _, folder, _ = compared
        folder = shutil.copytree(folder, tmp_path / "runs" / "compare")
        before = {p: p.stat().st_mtime_ns for p in folder.glob("*-seed=*/**/*")}
        done = python(
            *("-m", "reproduce.compare", "--run_dir=runs/compare", "--dataset=mnist_5k"),
            *("--preset=quick", "--passes=1000", "--seeds=0"),
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

    def test_a_run_that_fails_ends_it_in_one_line(self, tmp_path, capfd):
        study = Comparison("mnist_5k", "quick", 256, ("sgd",), (0,))
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
        study = Comparison("mnist_5k", "quick", 1_000, ("deep_ensemble", "sgld"), (0,))
        with pytest.raises(UsageError, match="1,280 image passes sgld has 10 networks"):
            study.execute(tmp_path / "compare")
        assert not (tmp_path / "compare").exists()

    def test_a_damaged_run_is_one_line(self, compared, tmp_path):
        study, folder, _ = compared
        folder = shutil.copytree(folder, tmp_path / "compare")
        path = folder / "deep_ensemble-seed=1" / "metrics.json"
        metrics = json.loads(path.read_text())
        del metrics["networks"]["member_accuracy"]
        path.write_text(json.dumps(metrics))
        before = modification_times(folder)
        words = r"deep_ensemble-seed=1/metrics\.json is damaged: it lacks 'member_accuracy'"
        with pytest.raises(RunError, match=words):
            study.execute(folder)
        after = modification_times(folder)
        assert {path.name for path in after if after[path] != before[path]} == {"study.json"}
