"""Saved ensembles: equal after loading, safe to load, and never half written."""

import copy
import io
import json
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_ensembles import convolutional, ensemble_of, one_line

import hypernet_tf as hn

layers = keras.layers


def test_a_loaded_ensemble_equals_the_saved_one(case, x, tmp_path):
    path = tmp_path / "an ensemble"  # no suffix is added
    case.ensemble.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["an ensemble"]
    loaded = hn.Ensemble.load(path)
    assert loaded.target.outputs == case.ensemble.target.outputs
    np.testing.assert_array_equal(loaded.theta(), case.ensemble.theta())
    np.testing.assert_array_equal(loaded.outputs(x), case.ensemble.outputs(x))
    with np.load(path, allow_pickle=False) as file:
        arrays = [file[name] for name in file.files]  # pickled ones raise
    assert len(arrays) == 1 + len(case.ensemble.weights.trainable)


def test_a_link_goes_on_leading_to_the_file(x, tmp_path):
    ensemble = ensemble_of(convolutional(layers.Dense(3)), "logits")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.npz").symlink_to(tmp_path / "folder" / "e.npz")
    ensemble.save(tmp_path / "link.npz")
    assert (tmp_path / "link.npz").is_symlink()
    loaded = hn.Ensemble.load(tmp_path / "folder" / "e.npz")
    np.testing.assert_array_equal(loaded.theta(), ensemble.theta())


def test_frozen_layers_and_seeds_are_saved(x, tmp_path):
    model = convolutional(layers.Dropout(0.5), layers.Dense(6), layers.Dense(3))
    model.layers[-2].trainable = False
    ensemble = ensemble_of(model, "logits")
    ensemble.save(tmp_path / "e.npz")
    loaded = hn.Ensemble.load(tmp_path / "e.npz")
    assert len(loaded.weights.state) == 3
    for restored, original in zip(loaded.weights.state, ensemble.weights.state, strict=True):
        assert restored.dtype == original.dtype
        np.testing.assert_array_equal(restored, original)
    np.testing.assert_array_equal(loaded.outputs(x), ensemble.outputs(x))
    # New networks of the loaded target have the same frozen layer.
    weights = loaded.target.unflatten(tf.constant(ensemble.theta()))
    np.testing.assert_array_equal(loaded.target(weights, x), ensemble.outputs(x))


def test_copies_and_other_processes_get_the_same_networks(cases, x):
    ensemble = cases["logits"].ensemble
    other = pickle.loads(pickle.dumps(ensemble))
    np.testing.assert_array_equal(other.predict(x), ensemble.predict(x))
    assert copy.deepcopy({"ensemble": ensemble})["ensemble"] is ensemble


@pytest.fixture
def saved(cases, tmp_path):
    path = tmp_path / "e.npz"
    cases["logits"].ensemble.save(path)
    return path


def test_a_damaged_file_raises(saved):
    whole = saved.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    cut = [whole[: round(len(whole) * share)] for share in (0.0, 0.001, 0.3, 0.9, 0.999)]
    for damaged in (*cut, bytes(flipped), whole[10:]):
        saved.write_bytes(damaged)
        with pytest.raises(ValueError) as error:
            hn.Ensemble.load(saved)
        assert "e.npz is not a saved ensemble, or is damaged: " in one_line(error)


def test_a_file_of_another_kind_raises(saved):
    def written(save, *args, **kwargs):
        buffer = io.BytesIO()
        save(buffer, *args, **kwargs)
        return buffer.getvalue()

    def config(value):
        return np.frombuffer(json.dumps(value).encode(), np.uint8)

    foreign = [
        b"a text\nof two lines\n",
        written(np.save, np.ones(3)),
        written(np.savez, a=np.ones(3)),
        written(np.savez, config=np.ones(3)),
        written(np.savez, config=config([])),
        written(np.savez, config=config({})),
        written(np.savez, config=config({"target": None})),
        written(np.savez, config=np.array([{"target": 1}], dtype=object)),  # a pickle
    ]
    dense = keras.saving.serialize_keras_object(layers.Dense(1))
    foreign.append(written(np.savez, config=config({"target": dense})))
    for content in foreign:
        saved.write_bytes(content)
        with pytest.raises(ValueError) as error:
            hn.Ensemble.load(saved)
        assert "e.npz is not a saved ensemble" in one_line(error)


def test_a_missing_file_raises(tmp_path):
    with pytest.raises(FileNotFoundError):
        hn.Ensemble.load(tmp_path / "e.npz")
    with pytest.raises(IsADirectoryError):
        hn.Ensemble.load(tmp_path)


@pytest.mark.parametrize("failure", (OSError("no space left"), KeyboardInterrupt()))
def test_an_unfinished_write_keeps_the_earlier_file(cases, saved, monkeypatch, failure):
    before = saved.read_bytes()

    def half(file, **arrays):
        file.write(b"half of it")
        raise failure

    monkeypatch.setattr(np, "savez", half)
    for path in (saved, saved.with_name("new.npz")):
        with pytest.raises(type(failure)):
            cases["softmax"].ensemble.save(path)
        assert [p.name for p in saved.parent.iterdir()] == ["e.npz"]
        assert saved.read_bytes() == before


def test_a_replaced_file_has_ordinary_permissions(cases, saved):
    ordinary = saved.with_name("ordinary")
    ordinary.write_text("")
    cases["softmax"].ensemble.save(saved)
    assert hn.Ensemble.load(saved).target.outputs == "probabilities"
    assert saved.stat().st_mode == ordinary.stat().st_mode


def with_layer(path, config):
    """Replace the configuration of the saved target's Flatten layer."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    record = json.loads(arrays["config"].tobytes())
    places = record["target"]["config"]["model"]["config"]["layers"]
    (index,) = [i for i, layer in enumerate(places) if layer["class_name"] == "Flatten"]
    places[index] = config
    arrays["config"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    np.savez(path, **arrays)


def test_loading_executes_nothing(saved, tmp_path):
    """No code of a Lambda layer, no class of another module, no pickle."""
    marker = tmp_path / "executed"
    evil = layers.Lambda(lambda x, path=str(marker): open(path, "w").close() or x)
    with_layer(saved, keras.saving.serialize_keras_object(evil))
    with pytest.raises(ValueError, match=r"Lambda.*disallowed"):
        hn.Ensemble.load(saved)
    command = {
        "module": "subprocess",
        "class_name": "Popen",
        "config": {"args": ["touch", str(marker)]},
        "registered_name": None,
    }
    record = np.frombuffer(json.dumps({"target": command}).encode(), np.uint8)
    np.savez(saved, config=record)
    with pytest.raises((TypeError, ValueError)):
        hn.Ensemble.load(saved)

    class Pickle:
        def __reduce__(self):
            return marker.touch, ()

    np.savez(saved, config=np.array([Pickle()]))
    with pytest.raises(ValueError, match=r"not a saved ensemble"):
        hn.Ensemble.load(saved)
    assert not marker.exists()
    evil(np.ones(1))  # code that runs leaves its mark
    assert marker.exists()


def test_a_missing_folder_is_not_made(cases, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        cases["logits"].ensemble.save(tmp_path / "missing" / "e.npz")
    assert str(error.value) == (
        f"Cannot save to {tmp_path}/missing/e.npz: there is no folder {tmp_path}/missing."
    )
    assert not list(tmp_path.iterdir())


class Unregistered(layers.Layer):
    def call(self, x):
        return 2 * x


def test_a_layer_that_is_not_registered_is_named(tmp_path):
    path = tmp_path / "e.npz"
    ensemble = ensemble_of(convolutional(layers.Dense(3), Unregistered()), "logits")
    ensemble.save(path)
    with pytest.raises(ValueError) as error:
        hn.Ensemble.load(path)
    assert one_line(error).startswith("Cannot load the target: 'Unregistered' is not registered.")
    with keras.saving.custom_object_scope({"Unregistered": Unregistered}):
        loaded = hn.Ensemble.load(path)
    np.testing.assert_array_equal(loaded.theta(), ensemble.theta())
    sampler = hn.DeepEnsemble(ensemble.target, num_networks=2)
    sampler.save(tmp_path / "s.keras")
    with pytest.raises(ValueError, match="Cannot load the target: 'Unregistered'"):
        keras.saving.load_model(tmp_path / "s.keras")


def test_a_file_of_another_version_is_one_line(saved, monkeypatch):
    def deserialize(config):
        raise TypeError("Target.__init__() got an unexpected argument\nconfig={...}")

    monkeypatch.setattr(keras.saving, "deserialize_keras_object", deserialize)
    with pytest.raises(ValueError, match="was written by another version of hypernet_tf") as error:
        hn.Ensemble.load(saved)
    assert "\n" not in str(error.value)
