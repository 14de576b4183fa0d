"""Checkpoints: which are kept, and damage."""

import pathlib
import shutil

import pytest
from small_training_runs import make

import hypernet_tf as hn
from hypernet_tf.training.checkpoints import CheckpointError, Checkpoints


def test_the_newest_two_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    model = make()
    assert checkpoints.latest_step() is None
    for step in (2, 10, 100):
        model.step.assign(step)
        checkpoints.save(model, step, {"history": [step]})
    assert sorted(p.name for p in checkpoints.folder.iterdir()) == [
        "step-00000010",
        "step-00000100",
    ]
    loaded, record = checkpoints.load()
    assert record == {"history": [100]}
    assert checkpoints.latest_step() == int(loaded.step.numpy()) == 100


def test_the_newest_has_the_greatest_number_of_steps(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (98_000_000, 99_000_000, 100_000_000):
        (tmp_path / f"step-{step:08d}").mkdir()
    assert checkpoints.latest_step() == 100_000_000


def test_what_a_kill_left_is_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make(), 2, {})
    shutil.copytree(tmp_path / "step-00000002", tmp_path / ".step-00000004.part")
    (tmp_path / ".git").mkdir()  # not of checkpoints
    again = Checkpoints(tmp_path)  # a reader leaves what another process may be writing
    assert again.latest_step() == 2
    assert len(list(tmp_path.iterdir())) == 3
    again.save(make(), 6, {})
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == [".git", "step-00000002", "step-00000006"]


def test_a_folder_put_aside_is_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make(), 2, {})
    shutil.copytree(tmp_path / "step-00000002", tmp_path / "step-00000004-damaged")
    assert checkpoints.latest_step() == 2
    assert checkpoints.load()[1] == {}


@pytest.mark.parametrize("kind", [TypeError, KeyError])
def test_one_of_another_version_is_one_line(kind, tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(make(), 2, {})

    def from_config(config):
        raise kind("an argument that is not known\nin several lines. Full object config: {...}")

    monkeypatch.setattr(hn.Hypernetwork, "from_config", from_config)
    with pytest.raises(CheckpointError) as error:
        checkpoints.load()
    assert "cannot be loaded" in str(error.value)
    assert "if it is of another version of the package" in str(error.value)
    assert "\n" not in str(error.value) and "object config" not in str(error.value)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of two checkpoints."""
    folder = tmp_path_factory.mktemp("runs") / "checkpoints"
    for step in (2, 4):
        Checkpoints(folder).save(make(), step, {})
    return folder


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "record", "empty"])
def test_a_damaged_one_is_named(saved, tmp_path, damage):
    folder = shutil.copytree(saved, tmp_path / "checkpoints")
    checkpoints = Checkpoints(folder)
    file = folder / "step-00000004" / "model.keras"
    content = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "missing":
        file.unlink()
    else:
        text = "[]" if damage == "record" else ""
        (folder / "step-00000004" / "checkpoint.json").write_text(text)
    with pytest.raises(CheckpointError, match="step-00000004 is damaged") as error:
        checkpoints.load()
    assert "\n" not in str(error.value)
    shutil.rmtree(folder / "step-00000004")  # as the message says
    assert checkpoints.load()[1] == {}


def test_one_that_cannot_be_read_is_not_called_damaged(saved, monkeypatch):
    def read(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(pathlib.Path, "read_text", read)
    with pytest.raises(CheckpointError, match=r"step-00000004 cannot be read: Permission denied$"):
        Checkpoints(saved).load()
