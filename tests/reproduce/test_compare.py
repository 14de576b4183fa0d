"""Methods side by side."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from absl import flags

import hypernet_tf as hn
from reproduce import compare, mnist
from reproduce.cli import device_flags as _device_flags
from reproduce.cli import experiment_flags as _experiment_flags
from reproduce.cli import flags as _flags
from reproduce.cli import seeds_flag as _seeds_flag
from reproduce.configs import methods as _methods
from reproduce.runs import experiment as _experiment
from reproduce.runs import folder as _run
from reproduce.studies import comparison as _comparison


class TestFlags:
    @pytest.fixture(autouse=True)
    def as_given(self):
        """Flags of a test are not those of the next."""
        yield
        for module in (compare, _experiment_flags, _device_flags, _flags, _seeds_flag):
            for flag in _flags.FLAGS.flags_by_module_dict()[module.__name__]:
                flag.unparse()

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--methods=sgd,gan"], "no method 'gan': there are hypernetwork, mnf"),
            (["--methods=sgd,sgd"], "--methods names at least one, and each once"),
            (["--methods="], "--methods names at least one"),
            (["--methods=sgd,noise"], "as far apart as the hypernetwork: add it"),
            (["--steps=9"], "a comparison has no --steps"),
            (["--method=sgd"], "a comparison has no --method "),
            (["--devices=2"], "a comparison has no --devices "),
        ],
    )
    def test_a_comparison_that_cannot_be(self, arguments, words):
        _flags.FLAGS(["compare", "--dataset=mnist_5k", *arguments])
        with pytest.raises(_run.UsageError, match=words):
            compare.from_flags()

    @pytest.mark.parametrize("seeds", ["1,x", "0,00", ""])
    def test_seeds_that_are_none(self, seeds):
        with pytest.raises(flags.Error, match="the seeds are different numbers"):
            _flags.FLAGS(["compare", f"--seeds={seeds}"])

    def test_a_comparison(self):
        _flags.FLAGS(["compare", "--dataset=mnist_5k", "--preset=quick", "--seeds=2,0"])
        asked = compare.from_flags()
        assert asked.methods == tuple(_methods.METHODS)
        assert (asked.seeds, asked.passes) == ((0, 2), 1_024_000)
        folder = compare.default_folder(asked)
        assert str(folder) == "runs/compare-dataset=mnist_5k-preset=quick"
        for method in asked.methods:
            config = compare.config_of(asked, method, 2)
            assert config.seed == 2
            short = config.steps * config.passes_per_step - asked.passes
            assert 0 <= short < config.passes_per_step
            assert bool(config.match) == (method == "noise")


@pytest.fixture(scope="module")
def compared(tmp_path_factory, load_once, undrawn):
    """Two seeds of an ensemble, set side by side; and a run of the single network."""
    folder = tmp_path_factory.mktemp("runs") / "compare"
    asked = compare.Comparison("mnist_5k", "quick", 1_000, ("deep_ensemble",), (0, 1))

    def load(name, data_dir=None):
        if name == "fashion_mnist":
            raise hn.data.DataError("not on every machine")
        whole = load_once(name, data_dir)
        few = hn.data.Split(whole.test.images[:100], whole.test.labels[:100])
        return dataclasses.replace(whole, validation=few, test=few)

    with undrawn(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(hn.data, "load", load)
        for method, seed in (("deep_ensemble", 0), ("deep_ensemble", 1), ("sgd", 0)):
            config = compare.config_of(asked, method, seed)
            place = compare.run_folder(folder, method, seed)
            mnist.run(config, place, analyses=compare.ANALYSED)
    return asked, folder, compare.run(asked, folder)


class TestComparison:
    def test_the_table_is_that_of_the_runs(self, compared):
        asked, folder, metrics = compared
        found = [
            _run.read_metrics(compare.run_folder(folder, "deep_ensemble", seed))
            for seed in asked.seeds
        ]
        votes = [100 * m["ensemble"]["majority_vote_accuracy"] for m in found]
        row = metrics["rows"]["accuracy of the majority vote (%)"]["deep_ensemble"]
        assert row["values"] == pytest.approx(votes)
        assert row["mean"] == pytest.approx(np.mean(votes))
        assert row["std"] == pytest.approx(np.std(votes, ddof=1))
        assert metrics["rows"]["image passes in training"]["deep_ensemble"]["mean"] == 1_000
        area = found[0]["analyses"]["out_of_distribution"]["sets"]["glyphs"]["entropy"]["auroc"]
        rows = metrics["rows"]
        assert rows["glyphs by entropy: area under ROC (%)"]["deep_ensemble"]["values"][0] == (
            pytest.approx(100 * area)
        )
        for name in ("training (s)", "sampling the networks (s)", "peak memory of training (MiB)"):
            assert rows[name]["deep_ensemble"]["mean"] > 0
        assert rows["entropy of the networks' weights (nats)"]["deep_ensemble"]["mean"] is None
        assert json.loads((folder / "metrics.json").read_text())["rows"] == rows
        page = (folder / "report.html").read_text()
        assert page.count("data:image/png;base64,") == 1
        assert f"{np.mean(votes):.4g} ± {np.std(votes, ddof=1):.2g}" in page
        table = (folder / "table.md").read_text().splitlines()
        assert re.sub(r"\s", "", table[0]) == "||deep_ensemble|"
        assert len(table) == 2 + len(rows)
        with np.load(folder / "figures" / "comparison.npz") as numbers:
            drawn = numbers["Errors on the test images, majority vote, mean"]
        np.testing.assert_allclose(drawn, 100 - np.mean(votes))

    def test_what_is_finished_is_not_run_again(self, compared, tmp_path, capfd):
        asked, folder, _ = compared
        folder = shutil.copytree(folder, tmp_path / "compare")
        before = {p: p.stat().st_mtime_ns for p in folder.glob("*-seed=*/**/*")}
        asked = dataclasses.replace(asked, methods=("deep_ensemble", "sgd"), seeds=(0,))
        rows = compare.run(asked, folder)["rows"]
        assert {p: p.stat().st_mtime_ns for p in before} == before
        said = capfd.readouterr().out
        assert "run 2 of 2: sgd, seed 0: is complete" in said
        assert "not in this table: deep_ensemble-seed=1" in said
        assert rows["networks"]["sgd"] == {"mean": 1.0, "std": None, "values": [1]}
        assert rows["disagreement of two networks (share of images)"]["sgd"]["mean"] is None
        fewer = dataclasses.replace(asked, passes=500)
        with pytest.raises(_run.RunError, match="goes to 4 steps, not 2: ask for more steps"):
            compare.run(fewer, folder)

    @pytest.mark.slow
    def test_the_command_runs_what_is_new_and_nothing_else(self, compared, tmp_path):
        _, folder, _ = compared
        folder = shutil.copytree(folder, tmp_path / "runs" / "compare")
        before = {p: p.stat().st_mtime_ns for p in folder.glob("*-seed=*/**/*")}
        command = [sys.executable, "-m", "reproduce.compare", "--run_dir=runs/compare"]
        wanted = ["--dataset=mnist_5k", "--preset=quick", "--passes=1000", "--seeds=0"]
        every = "--methods=deep_ensemble,sgd,sgd_chains"
        done = subprocess.run(
            [*command, *wanted, every], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "run 3 of 3: sgd_chains, seed 0: 4 steps" in done.stdout
        assert "| deep_ensemble | sgd | sgd_chains |" in done.stdout
        assert {p: p.stat().st_mtime_ns for p in before} == before
        metrics = _run.read_metrics(folder / "sgd_chains-seed=0")
        assert set(metrics["analyses"]) == {*_experiment.BASIC, *compare.ANALYSED}
        assert metrics["image_passes"] == 4 * 320

    def test_a_run_that_fails_ends_it_in_one_line(self, tmp_path, capfd):
        asked = compare.Comparison("mnist_5k", "quick", 256, ("sgd",), (0,))
        with pytest.raises(_run.RunError, match="sgd with seed 0 did not come to its end"):
            compare.run(asked, tmp_path / "compare", data_dir=str(tmp_path / "nowhere"))
        said = capfd.readouterr().err.strip().splitlines()
        assert "data_dir cannot be read" in said[-1]

    def test_the_folder_of_something_else_is_refused(self, compared, tmp_path):
        asked, folder, _ = compared
        with pytest.raises(_run.RunError, match="folder of a single run: choose another"):
            compare.run(asked, compare.run_folder(folder, "deep_ensemble", 0))
        (tmp_path / "other").mkdir()
        (tmp_path / "other" / "report.html").write_text("mine")
        with pytest.raises(_run.RunError, match="is not empty and no comparison"):
            compare.run(asked, tmp_path / "other")
        assert (tmp_path / "other" / "report.html").read_text() == "mine"
        with pytest.raises(_run.RunError, match="holds a comparison: name one of the runs in it"):
            _run.read_metrics(folder)
        (tmp_path / "file").write_text("")
        with pytest.raises(_run.RunError, match="is a file: choose another"):
            compare.run(asked, tmp_path / "file")
        with (
            _run.locked(folder),
            pytest.raises(_run.RunError, match="another process is running"),
        ):
            compare.run(asked, folder)

    def test_too_few_passes_are_refused_before_anything_is_trained(self, tmp_path):
        asked = compare.Comparison("mnist_5k", "quick", 1_000, ("deep_ensemble", "sgld"), (0,))
        with pytest.raises(_run.UsageError, match="1,000 image passes sgld has 10 networks"):
            compare.run(asked, tmp_path / "compare")
        assert not (tmp_path / "compare").exists()

    def test_analyses_with_other_settings_are_done_again(self, compared, tmp_path):
        asked, folder, _ = compared
        place = shutil.copytree(compare.run_folder(folder, "sgd", 0), tmp_path / "sgd-seed=0")
        config = compare.config_of(asked, "sgd", 0)
        assert compare._complete(place, config)
        metrics = _run.read_metrics(place)
        metrics["analyses"]["out_of_distribution"]["settings"]["ood"] = ["glyphs"]
        _run.write_json(place / "metrics.json", metrics)
        assert not compare._complete(place, config)

    def test_a_damaged_run_is_one_line(self, compared, tmp_path):
        asked, folder, _ = compared
        folder = shutil.copytree(folder, tmp_path / "compare")
        path = folder / "deep_ensemble-seed=1" / "metrics.json"
        metrics = json.loads(path.read_text())
        del metrics["networks"]["accuracy_mean"]
        path.write_text(json.dumps(metrics))
        with pytest.raises(_run.RunError, match="is damaged: 'accuracy_mean'"):
            compare.run(asked, folder)

    def test_a_number_that_a_seed_lacks_has_no_mean(self):
        assert _comparison._over_seeds([1.0, None])["mean"] is None
        assert _comparison._over_seeds([3.0]) == {"mean": 3.0, "std": None, "values": [3.0]}
