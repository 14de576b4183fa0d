"""The trained samplers that come with the package."""

import json
import shutil
import sys

import numpy as np
import pytest
import small_training_runs

import hypernet_tf as hn
from hypernet_tf import pretrained
from hypernet_tf.pretrained import __main__ as pretrained_command
from hypernet_tf.training.checkpoints import Checkpoints


@pytest.mark.usefixtures("eager_fits")
def test_a_thousand_good_networks_are_at_hand():
    hyper = hn.load_pretrained("mnist")
    assert hyper.sample(1_000).theta().shape == (1_000, 20_018)
    digits = hn.data.load("mnist_5k").test
    result = hyper.sample(20).evaluate(digits.x[:200], digits.y[:200])
    assert result.member_accuracy.min() > 0.95
    np.testing.assert_array_equal(hyper.sample(2).theta(), hyper.sample(2).theta())


def test_the_file_is_small_and_says_how_it_was_made():
    files = {path.name: path for path in pretrained._FOLDER.iterdir()}
    assert files["mnist.keras"].stat().st_size < 3e6
    config = json.loads(files["mnist.json"].read_text())["config"]
    assert (config["preset"], config["dataset"]) == ("fast", "mnist")


def test_an_unknown_name_is_an_error():
    with pytest.raises(ValueError, match=r"^Unknown name='cats': choose 'mnist'"):
        hn.load_pretrained("cats")


def test_a_damaged_file_is_an_error(tmp_path, monkeypatch):
    folder = shutil.copytree(pretrained._FOLDER, tmp_path / "pretrained")
    monkeypatch.setattr(pretrained, "_FOLDER", folder)
    with (folder / "mnist.keras").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"mnist\.keras is missing or damaged: install"):
        hn.load_pretrained("mnist")
    for file in ("mnist.keras", "mnist.json"):
        (folder / file).unlink()
        with pytest.raises(ValueError, match=r"mnist\.keras is missing or damaged: install"):
            hn.load_pretrained("mnist")
    (folder / "mnist.json").write_text("{")
    with pytest.raises(ValueError, match=r"mnist\.keras is missing or damaged: install"):
        hn.load_pretrained("mnist")


@pytest.mark.usefixtures("eager_fits")
def test_the_command_makes_both_files_of_a_finished_run(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    sampler = small_training_runs.make()
    Checkpoints(run / "checkpoints").save(sampler, 2, {})
    for name, steps in (("config", 2), ("metrics", 1)):
        (run / f"{name}.json").write_text(json.dumps({"steps": steps}))
    for module in (pretrained, pretrained_command):
        monkeypatch.setattr(module, "_FOLDER", tmp_path)
    monkeypatch.setattr(sys, "argv", ["pretrained", str(run), "mnist"])
    for _ in range(2):
        with pytest.raises(SystemExit):
            pretrained_command.main()
        assert "is not finished: repeat its command first" in capsys.readouterr().err
        (run / "metrics.json").unlink(missing_ok=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    (run / "metrics.json").write_text('{"steps": 2}')
    pretrained_command.main()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mnist.json", "mnist.keras", "run"]
    loaded = hn.load_pretrained("mnist")
    assert not loaded.compiled
    np.testing.assert_array_equal(loaded.sample(2).theta(), sampler.sample(2).theta())
