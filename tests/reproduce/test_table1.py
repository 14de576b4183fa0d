"""Table 1 of the paper: its columns, its numbers, the published ones beside them."""

import dataclasses
import json
import shutil

import pytest
from small_experiments import command_line, modification_times, run_in_process, small_presets

from reproduce import table1
from reproduce.configs import METHODS, preset, published
from reproduce.configs.methods import DIVERSITY, lam_of
from reproduce.runs import folder as folders
from reproduce.runs.folder import RunError, UsageError
from reproduce.studies import study as studies
from reproduce.studies.study import Number
from reproduce.table1 import Table1

pytestmark = pytest.mark.usefixtures("few_digits")

TABLE = Table1(("sgd", "hypernetwork-none"), "mnist_5k", "lenet", "quick", lam=7.0, steps=2)


@pytest.fixture(scope="module")
def small():
    """The presets take a few images; runs are done in this process."""
    with small_presets("hypernetwork", "sgd"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(studies, "run_child", run_in_process)
        yield


@pytest.fixture(scope="module")
def table(small, few_digits, undrawn, tmp_path_factory):
    """A table of two columns."""
    folder = tmp_path_factory.mktemp("runs") / "table1"
    with undrawn():
        return folder, TABLE.execute(folder)


def numbers_of(table):
    """The numbers of a study with these means and votes."""
    return {
        key: {entry: Number(pair[index], None, [pair[index]]) for entry, pair in table.items()}
        for index, key in enumerate(("member_accuracy", "majority_vote_accuracy"))
    } | {"image_passes": {entry: Number(1_000, None, [1_000]) for entry in table}}


@pytest.mark.slow
class TestTable:
    def test_its_numbers_are_those_of_the_runs(self, table):
        folder, metrics = table
        numbers = metrics["numbers"]
        for column in TABLE.columns_shown:
            run = folders.read_metrics(folder / column)
            assert json.loads((folder / column / "config.json").read_text()) == (
                dataclasses.asdict(TABLE.config(column))
            )
            is_ensemble = column != "sgd"
            best, vote = run["best_on_test"], run["ensemble"]["majority_vote_accuracy"]
            mean = run["networks"]["member_accuracy"]
            best_vote = max(best["majority_vote_accuracy"], vote)
            assert {key: values[column]["mean"] for key, values in numbers.items()} == {
                "member_accuracy": mean,
                "majority_vote_accuracy": vote if is_ensemble else None,
                "best_member_accuracy": max(best["member_accuracy"], mean),
                "best_majority_vote_accuracy": best_vote if is_ensemble else None,
                "negative_log_likelihood": run["ensemble"]["negative_log_likelihood"],
                "expected_calibration_error": run["ensemble"]["expected_calibration_error"],
                "disagreement": run["diversity"]["disagreement"],
                "late_gain": run["late_gain"],
                "entropy": run["diversity"]["entropy"],
                "image_passes": run["run"]["image_passes"],
                "train_seconds": run["seconds"]["train_seconds"],
            }
        assert TABLE.config("hypernetwork-none").lam == 7.0 == run["config"]["lam"]
        assert run["config"]["diversity"] == "none"
        saved = json.loads((folder / "metrics.json").read_text())
        assert saved == json.loads(json.dumps(metrics))

    def test_it_is_shown(self, table):
        folder, metrics = table
        numbers = metrics["numbers"]
        header, _, *rows = (folder / "table.md").read_text().splitlines()
        cells = [[cell.strip() for cell in row[1:-1].split("|")] for row in (header, *rows)]
        shown = dict(zip(cells[0], cells[2], strict=True))
        assert shown[""] == "hypernetwork-none: no entropy"
        mean = numbers["member_accuracy"]["hypernetwork-none"]["mean"]
        vote = numbers["best_majority_vote_accuracy"]["hypernetwork-none"]["mean"]
        assert shown["accuracy of the networks, mean (%)"] == f"{100 * mean:.2f}"
        assert shown["best accuracy of the majority vote (%)"] == f"{100 * vote:.2f}"
        assert shown["published mean (%)"] == ""  # these are digits
        assert cells[1][2] == ""  # one network has no vote
        assert "hypernetwork-none: no entropy" in (folder / "report.html").read_text()
        for name in ("columns", "learning"):
            assert (folder / "figures" / f"{name}.png").exists()

    def test_published_numbers_stand_beside_those_of_cifar10(self):
        of_cifar = dataclasses.replace(TABLE, dataset="cifar10")
        assert of_cifar.published("hypernetwork-none") == ["76.26", "76.47"]
        assert of_cifar.published("sgd") == ["77.36", ""]
        assert of_cifar.published("deep_ensemble") == ["", ""]
        assert TABLE.published("sgd") == ["", ""]
        half = dataclasses.replace(TABLE, dataset="cifar10:0-4")
        assert half.published("sgd") == ["", ""]
        few = dataclasses.replace(TABLE, dataset="cifar10:1000")
        assert few.published("sgd") == ["", ""]
        more = dataclasses.replace(TABLE, dataset="cifar10_jpeg:49000")
        assert more.published("sgd") == ["77.36", ""]
        copies = dataclasses.replace(TABLE, dataset="cifar10_jpeg")
        assert copies.published("sgd") == ["77.36", ""]
        assert copies.title() == "Table 1: lenet on CIFAR-10 (JPEG)"
        assert "lossy copies" in " ".join(copies.paragraphs({}))
        assert "lossy" not in " ".join(of_cifar.paragraphs({}))
        for target in published.TABLE_1:
            assert published.TABLE_1[target].keys() <= {*table1.COLUMNS}

    def test_what_is_finished_is_not_trained_again(self, table, capsys, quick_pictures):
        folder, metrics = table
        before = {c: modification_times(folder / c) for c in TABLE.columns_shown}
        assert TABLE.execute(folder) == metrics
        assert capsys.readouterr().out.count("is complete") == 2
        assert {c: modification_times(folder / c) for c in TABLE.columns_shown} == before

    def test_a_damaged_run_is_one_line(self, table, tmp_path):
        folder = shutil.copytree(table[0], tmp_path / "table1")
        path = folder / "sgd" / "metrics.json"
        metrics = json.loads(path.read_text())
        del metrics["best_on_test"]
        path.write_text(json.dumps(metrics))
        words = r"sgd/metrics\.json has no best_member_accuracy: delete it"
        with pytest.raises(RunError, match=words) as error:
            TABLE.execute(folder)
        assert "\n" not in str(error.value)
        (folder / "sgd" / "config.json").write_text("{")
        with pytest.raises(RunError, match=r"sgd/config\.json is damaged"):
            TABLE.execute(folder)

    def test_the_folder_of_something_else(self, table):
        folder, _ = table
        with pytest.raises(RunError, match="folder of a single run: choose another"):
            TABLE.execute(folder / "sgd")
        with pytest.raises(RunError, match="seed=0, not 1: choose another"):
            dataclasses.replace(TABLE, seed=1).execute(folder)
        with pytest.raises(RunError, match="holds a table: name one of the runs in it"):
            folders.read_metrics(folder)


class TestColumns:
    def test_each_kind_of_diversity_has_a_lam_of_its_own(self):
        columns = ("hypernetwork-outputs", "hypernetwork-weights", "hypernetwork-none")
        for given, lams in ((None, [1e4, 1e3, 1e3]), (7.0, [7.0] * 3)):
            one = Table1(columns, "cifar10", "lenet", "paper", lam=given)
            assert [one.config(column).lam for column in columns] == lams

    def test_a_preset_may_have_a_lam_of_its_own(self):
        config = dataclasses.replace(preset("cifar", "hypernetwork", "quick"), lam=10.0)
        assert [lam_of(config, name) for name in DIVERSITY] == [10.0, 1e4, 10.0]

    def test_other_methods_do_not_use_lam(self):
        one = Table1(("sgd",), "cifar10", "lenet", "paper", lam=7.0)
        assert one.config("sgd").lam == 1.0

    def test_the_recipe_has_the_passes_of_the_other_hypernetworks(self):
        for name, column, steps in (("paper", "fast", 160_000), ("quick", "paper", 3_000)):
            table = Table1((), "cifar10_jpeg", "lenet", name)
            recipe = table.config(f"hypernetwork-{column}")
            assert (recipe.steps, recipe.lam) == (steps, 1e3)
            assert recipe.image_passes == table.config("hypernetwork-weights").image_passes
        short = dataclasses.replace(table, steps=2)
        assert short.config("hypernetwork-paper").steps == 1

    def test_a_method_of_the_table_of_methods_is_a_column(self):
        one = Table1(("mnf",), "cifar10", "resnet32", "paper")
        assert one.config("mnf").method == "mnf"
        assert one.label("mnf", {}) == f"mnf: {METHODS['mnf'].help}"


class TestClaims:
    @pytest.mark.parametrize(("target", "number"), [("lenet", 8), ("resnet32", 6)])
    def test_the_published_numbers_have_the_published_pattern(self, target, number):
        table = {
            entry: [None if value is None else value / 100 for value in pair]
            for entry, pair in published.TABLE_1[target].items()
        }
        claims = table1.claims_of(numbers_of(table), target, 10_000)
        assert len(claims) == number
        votes = [claim for claim in claims if "better than the single" in claim["claim"]]
        assert all(claim["holds"] for claim in claims if claim not in votes)
        compared = (
            "78.21% after 1,000 image passes, and 77.36% after 1,000; two standard errors of the "
            "difference are 1.18 points for 10,000 test images."
        )
        assert [c["numbers"] for c in votes] == ([compared] * 2 if target == "lenet" else [])
        assert {claim["holds"] for claim in votes} <= {None}  # 0.85 points

    def test_without_entropy_to_compare_there_is_less_to_say(self):
        table = {"sgd": (0.8, None), "hypernetwork-weights": (0.7, 0.75)}
        (claim,) = table1.claims_of(numbers_of(table), "lenet", 1_000)
        assert claim["holds"] is False
        (claim,) = table1.claims_of(numbers_of(table), "lenet", 100)
        assert claim["holds"] is None


class TestFlags:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--columns=sgd,gan", "there is no column 'gan': choose from sgd, sgd_chains"),
            ("--columns=hypernetwork", "there is no column 'hypernetwork': choose from"),
            ("--columns=noise", "there is no column 'noise': choose from"),
            ("--columns=", "--columns is empty: name at least one"),
            ("--columns=sgd,sgd", "--columns names a column twice: name each once"),
            ("--columns=sgd --lam=5", "no column that was chosen has --lam: remove it"),
            ("--columns=sgd --preset=fast", "the method sgd has no preset 'fast': choose from"),
            ("--method=sgd", "the table has no --method\\. "),
            ("--num_networks=4", "the table has no --num_networks\\. "),
            ("--devices=2", "the table has no --devices\\. "),
            ("--analyses=pca", "there is no analysis 'pca': the analyses are"),
            ("--ensembles=4", "--ensembles is not used by the analyses asked for: remove it"),
        ],
    )
    def test_flags_that_do_not_fit(self, words, message):
        with (
            command_line("--dataset=mnist_5k", *words.split()),
            pytest.raises(UsageError, match=message) as error,
        ):
            table1.from_flags()
        assert "\n" not in str(error.value)

    def test_flags_and_folder(self):
        with command_line(
            "--dataset=mnist_5k",
            "--columns=hypernetwork-none,sgd",
            "--lam=7",
            "--steps=2",
            "--preset=quick",
        ):
            study = table1.from_flags()
        assert study == TABLE
        folder = "runs/table1-dataset=mnist_5k-preset=quick-lam=7"
        assert str(study.default_folder()) == folder

    @pytest.mark.parametrize(
        ("target", "preset", "missing"),
        [
            ("lenet", "paper", {"hypernetwork-paper"}),
            ("lenet", "quick", {"hypernetwork-fast"}),
            ("resnet32", "paper", {"hypernetwork-paper", "mixture", "hypergan"}),
            ("resnet32", "quick", {"hypernetwork-fast", "mixture", "hypergan"}),
            (
                "lenet",
                "fast",
                {
                    "sgd",
                    "sgd_chains",
                    "sgd_snapshots",
                    "mixture",
                    "deep_ensemble",
                    "hypergan",
                    "hypernetwork-fast",
                },
            ),
        ],
    )
    def test_by_default_no_two_columns_are_one_training(self, target, preset, missing):
        with command_line("--dataset=mnist_5k", f"--target={target}", f"--preset={preset}"):
            columns = table1.from_flags().columns_shown
        assert columns == tuple(name for name in table1.COLUMNS if name not in missing)

    def test_all_columns_and_methods_are_known(self):
        with command_line("--dataset=mnist_5k", "--columns=mnf,sgd,deep_ensemble"):
            study = table1.from_flags()
        assert study.columns_shown == ("sgd", "deep_ensemble", "mnf")
        assert study.lam is None
