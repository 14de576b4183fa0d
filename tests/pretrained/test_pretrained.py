"""The trained samplers that come with the package."""

import json
import shutil

import numpy as np
import pytest

import hypernet_tf as hn
from hypernet_tf import pretrained


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
    with pytest.raises(ValueError, match=r"^There is no pretrained sampler 'cats': choose 'mnist'"):
        hn.load_pretrained("cats")


def test_a_damaged_file_is_an_error(tmp_path, monkeypatch):
    folder = shutil.copytree(pretrained._FOLDER, tmp_path / "pretrained")
    monkeypatch.setattr(pretrained, "_FOLDER", folder)
    with (folder / "mnist.keras").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match=r"mnist\.keras is missing or damaged: install"):
        hn.load_pretrained("mnist")
    (folder / "mnist.keras").unlink()
    with pytest.raises(ValueError, match=r"mnist\.keras is missing or damaged: install"):
        hn.load_pretrained("mnist")
