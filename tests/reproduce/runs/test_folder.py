"""The run folder: whose it is, who writes in it, how files get there."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest
from matplotlib.figure import Figure
from small_experiments import TINY, modification_times

from reproduce.configs import RunConfig
from reproduce.runs import folder as folders
from reproduce.runs.folder import RunError

METRICS = {"steps": 2, "analyses": {}}


@pytest.fixture
def finished(tmp_path):
    """The folder of a finished run, as far as this module knows one."""
    folder = tmp_path / "run"
    folders.write_json(folder / "config.json", dataclasses.asdict(TINY))
    folders.write_json(folder / "metrics.json", METRICS)
    return folder


def edit(path, **changes):
    """Change values of a JSON file; None removes one."""
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


class TestWhoseFolderItIs:
    def test_a_run_continues_in_its_folder(self, finished):
        assert folders.check(finished, TINY) == 2
        assert folders.check(finished, dataclasses.replace(TINY, steps=9)) == 2

    def test_a_free_folder(self, tmp_path):
        (tmp_path / "locked").mkdir()
        (tmp_path / "locked" / ".lock").touch()
        for name in ("missing", "locked"):
            assert folders.check(tmp_path / name, TINY) == 0
        assert not (tmp_path / "missing").exists()

    @pytest.mark.parametrize(
        ("field", "value"),
        [("lam", 7.0), ("seed", 5), ("dataset", "fashion_mnist"), ("experiment", "cifar")],
    )
    def test_another_configuration(self, finished, field, value):
        before = modification_times(finished)
        with pytest.raises(RunError, match=f"has {field}=.*, not {value}: choose") as error:
            folders.check(finished, dataclasses.replace(TINY, **{field: value}))
        assert "\n" not in str(error.value)
        assert modification_times(finished) == before

    def test_fewer_steps(self, finished):
        with pytest.raises(RunError, match="goes to 2 steps, not 1: ask for more steps"):
            folders.check(finished, dataclasses.replace(TINY, steps=1))

    def test_more_steps_that_were_never_trained_bind_nothing(self, finished):
        """As of a run whose --steps was mistyped and that was stopped at once."""
        (finished / "checkpoints" / "step-00000002").mkdir(parents=True)
        edit(finished / "config.json", steps=99)
        assert folders.check(finished, TINY) == 2
        assert folders.saved_steps(finished) == 99
        with folders.occupy(finished, TINY):
            pass
        assert folders.finished(finished, RunConfig) == (TINY, METRICS)
        (finished / "checkpoints" / "step-00000003").mkdir()
        edit(finished / "config.json", steps=99)
        with pytest.raises(RunError, match="goes to 99 steps, not 2"):
            folders.check(finished, TINY)

    def test_a_configuration_of_which_nothing_was_trained_binds_nothing(self, finished):
        (finished / "metrics.json").unlink()
        (finished / "tensorboard").mkdir()
        other = dataclasses.replace(TINY, lam=7.0, steps=1)
        assert folders.check(finished, other) == 0
        (finished / "checkpoints").mkdir()
        with pytest.raises(RunError, match="has lam"):
            folders.check(finished, other)
        (finished / "checkpoints").rmdir()
        (finished / "config.json").write_text('{"of": "another program"}')
        with pytest.raises(RunError, match="was written by another version or experiment"):
            folders.check(finished, other)

    def test_a_folder_of_something_else(self, tmp_path):
        (tmp_path / "letter.txt").write_text("dear")
        with pytest.raises(RunError, match="is not empty and not a run folder"):
            folders.check(tmp_path, TINY)
        with pytest.raises(RunError, match="is a file: choose another --run_dir"):
            folders.check(tmp_path / "letter.txt", TINY)
        assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]

    @pytest.mark.parametrize(
        "old",
        [
            # Written before experiments were stated, and before fields had their present names.
            {"experiment": None, "target": None},
            {"experiment": None, "target": None, "num_networks": None, "networks": 200},
        ],
    )
    def test_a_folder_of_an_older_version(self, finished, old):
        edit(finished / "config.json", **old)
        words = "was written by another version or experiment, it has no 'experiment': choose"
        for use in (
            lambda: folders.check(finished, TINY),
            lambda: folders.finished(finished, RunConfig),
        ):
            with pytest.raises(RunError, match=words) as error:
                use()
            assert "\n" not in str(error.value)

    def test_a_field_that_is_not_known(self, finished):
        edit(finished / "config.json", networks=200)
        with pytest.raises(RunError, match="has networks=200, not None: choose another"):
            folders.check(finished, TINY)
        with pytest.raises(RunError, match="is of another version or experiment: train it again"):
            folders.finished(finished, RunConfig)

    def test_a_missing_field_has_its_default(self, finished):
        edit(finished / "config.json", precision=None, augment=None)
        assert folders.check(finished, TINY) == 2
        assert folders.finished(finished, RunConfig) == (TINY, METRICS)

    @pytest.mark.parametrize("text", ["{", "[]", '{"steps": "two"}', '{"lam": "much"}'])
    def test_a_damaged_configuration(self, finished, text):
        (finished / "config.json").write_text(text)
        with pytest.raises(RunError, match=r"config\.json is damaged: choose another"):
            folders.check(finished, TINY)


class TestMetrics:
    def test_a_finished_run(self, finished):
        assert folders.read_metrics(finished) == METRICS
        assert folders.finished(finished, RunConfig) == (TINY, METRICS)

    def test_no_finished_run(self, finished, tmp_path):
        for folder in (tmp_path / "nothing", tmp_path, finished / "config.json"):
            with pytest.raises(RunError, match=r"there is no finished run in .*: train it first"):
                folders.read_metrics(folder)

    @pytest.mark.parametrize(
        "text", ["{", "[]", "{}", '{"steps": "2"}', '{"steps": 2, "analyses": []}']
    )
    def test_damaged_metrics(self, finished, text):
        (finished / "metrics.json").write_text(text)
        with pytest.raises(RunError, match=r"metrics\.json is damaged: delete it"):
            folders.read_metrics(finished)
        with pytest.raises(RunError, match=r"metrics\.json is damaged: delete it"):
            folders.check(finished, TINY)
        (finished / "metrics.json").unlink()
        assert folders.check(finished, TINY) == 0  # it is evaluated again

    def test_a_study(self, finished):
        edit(finished / "metrics.json", study="comparison")
        with pytest.raises(RunError, match="holds a comparison: name one of the runs in it"):
            folders.read_metrics(finished)

    def test_a_run_that_was_continued_and_stopped(self, finished):
        edit(finished / "config.json", steps=3_000)
        with pytest.raises(RunError, match="has done 2 of its 3000 steps: finish it first"):
            folders.finished(finished, RunConfig)


class TestLock:
    def test_a_second_process_waits_outside(self, tmp_path):
        folder = tmp_path / "run"
        with (
            folders.occupy(folder, TINY),
            pytest.raises(folders.OccupiedError, match="another process is running in"),
            folders.occupy(folder, TINY),
        ):
            pass
        with folders.occupy(folder, TINY):  # free again
            assert json.loads((folder / "config.json").read_text()) == dataclasses.asdict(TINY)

    def test_a_folder_that_cannot_be_made(self):
        with (
            pytest.raises(RunError, match=r"^the run folder /dev/null/run [^\n]*$"),
            folders.occupy(pathlib.Path("/dev/null/run"), TINY),
        ):
            pass

    def test_the_folder_is_checked_under_the_lock(self, finished):
        with (
            pytest.raises(RunError, match="has seed=0, not 1"),
            folders.occupy(finished, dataclasses.replace(TINY, seed=1)),
        ):
            pass
        assert json.loads((finished / "config.json").read_text())["seed"] == 0


class TestFiles:
    def test_numbers_that_are_not_finite_become_null(self, tmp_path):
        path = tmp_path / "new" / "numbers.json"
        numbers = {"a": [np.float32(1.5), float("nan")], "b": {"c": (np.inf, np.int64(2))}}
        folders.write_json(path, numbers)
        assert json.loads(path.read_text()) == {"a": [1.5, None], "b": {"c": [None, 2]}}

    def test_a_failure_leaves_the_old_file_and_nothing_else(self, tmp_path):
        path = tmp_path / "page.html"
        folders.write_text(path, "old")

        def fail(aside):
            aside.write_text("half")
            raise OSError(28, "No space left on device")

        with pytest.raises(RunError, match=r"page\.html cannot be written: No space left"):
            folders.write(path, fail)
        assert path.read_text() == "old"
        assert [one.name for one in tmp_path.iterdir()] == ["page.html"]

    def test_a_figure_and_its_numbers(self, tmp_path):
        figure = Figure()
        figure.subplots().plot([1, 2])
        folders.write_figure(tmp_path, "curve", figure, {"values": np.arange(3)})
        figures = tmp_path / "figures"
        assert (figures / "curve.png").read_bytes()[:4] == b"\x89PNG"
        assert (figures / "curve.pdf").read_bytes()[:4] == b"%PDF"
        with np.load(figures / "curve.npz") as arrays:
            assert arrays["values"].tolist() == [0, 1, 2]

    def test_names(self):
        settings = {"dataset": "mnist_5k", "lam": 1e5, "seed": 0}
        defaults = {"dataset": "mnist", "lam": 1e3, "seed": 0}
        name = folders.folder_name("mnist", settings, defaults)
        assert name == "mnist-dataset=mnist_5k-lam=100000"
        assert folders.folder_name("mnist", defaults, defaults) == "mnist"

    def test_the_name_of_part_of_a_data_set_is_a_name_of_a_file(self):
        for dataset, name in (
            ("cifar10:5-9", "cifar-dataset=cifar10@5-9"),
            ("mnist:0,3,7", "cifar-dataset=mnist@0+3+7"),
            ("mnist:5000", "cifar-dataset=mnist@5000"),
        ):
            assert folders.folder_name("cifar", {"dataset": dataset}, {"dataset": ""}) == name


def test_what_a_killed_process_left_is_nothing(tmp_path):
    for name in (".lock", ".config.123.part.json", ".study.9.part.json", ".step-1.part"):
        (tmp_path / name).write_text("")
    assert folders.contents(tmp_path) == set()
    assert folders.check(tmp_path, TINY) == 0
    (tmp_path / "part.json").write_text("")
    assert folders.contents(tmp_path) == {"part.json"}
