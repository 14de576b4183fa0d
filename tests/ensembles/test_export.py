"""An exported ensemble returns what the ensemble returns, without this package too."""

import json
import os
import pathlib
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_ensembles import CLASSIFIERS, EXAMPLES, ensemble_of, normalised, one_line
from small_samplers import classifier

import hypernet_tf as hn

layers = keras.layers
GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "guides" / "serving.md"


def answers(folder, **inputs):
    """What the signature of a SavedModel returns, as arrays."""
    loaded = tf.saved_model.load(folder)
    results = loaded.signatures["serving_default"](**inputs)
    return {name: tensor.numpy() for name, tensor in results.items()}


def expected_answers(ensemble, x):
    """The same, computed by the ensemble."""
    if ensemble.target.classes is None:
        outputs = ensemble.outputs(x)
        return {"mean": ensemble.predict(x), "standard_deviation": outputs.std(0)}
    return {"probabilities": ensemble.predict(x)} | ensemble.uncertainty(x).scores


def assert_same(actual, expected, constant=()):
    assert actual.keys() == expected.keys()
    for name, values in expected.items():
        assert actual[name].shape == values.shape, name
        assert (len(np.unique(values)) == 1) == (name in constant), name
        np.testing.assert_allclose(actual[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("kind", ["logits", "one sigmoid", "values"])
def test_the_signature_returns_what_the_ensemble_returns(kind, cases, x, tmp_path):
    ensemble = cases[kind].ensemble
    if kind == "logits":
        ensemble = hn.Ensemble(ensemble.target, ensemble.weights, temperature=1.7)
    ensemble.export(tmp_path / "1")
    assert_same(answers(tmp_path / "1", inputs=tf.constant(x)), expected_answers(ensemble, x))


def test_several_inputs_and_outputs(tmp_path):
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    hidden = layers.Dense(4, activation="relu")(layers.Concatenate()([left, right]))
    ensemble = ensemble_of(keras.Model([left, right], [layers.Dense(2)(hidden), hidden]))
    ensemble.export(tmp_path / "1")
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(7, size)).astype("float32") for size in (3, 2)]
    result = answers(tmp_path / "1", right=tf.constant(x[1]), left=tf.constant(x[0]))
    expected = {}
    for index, outputs in enumerate(ensemble.outputs(x)):
        expected[f"mean_{index}"] = outputs.mean(0)
        expected[f"standard_deviation_{index}"] = outputs.std(0)
    assert_same(result, expected)


@pytest.mark.slow
def test_batch_norm_needs_statistics_first(x, tmp_path):
    ensemble = ensemble_of(normalised(), "logits")
    with pytest.raises(ValueError) as error:
        ensemble.export(tmp_path / "1")
    assert "update_batch_norm" in one_line(error)
    updated = ensemble.update_batch_norm(x)
    updated.export(tmp_path / "1")
    assert_same(answers(tmp_path / "1", inputs=tf.constant(x)), expected_answers(updated, x))


def test_a_sampler_exports_the_networks_that_it_samples(blobs, tmp_path):
    x, _ = blobs
    sampler = hn.Hypernetwork(
        hn.Target(keras.Sequential([keras.Input((2,)), layers.Dense(3)]), outputs="logits"),
        latent_dim=4,
    )
    sampler.export(tmp_path / "1", num_networks=5, seed=3)
    expected = expected_answers(sampler.sample(5, seed=3), x)
    # Untrained networks are nearly alike, and choose the same classes.
    actual = answers(tmp_path / "1", inputs=tf.constant(x))
    assert_same(actual, expected, constant=["variation_ratio"])


# ---- without this package -----------------------------------------------------------------

SCRIPT = """
import sys
sys.modules["hypernet_tf"] = None  # importing it raises an error
import numpy as np, tensorflow as tf
folder = sys.argv[1]
x = np.load(folder + "/x.npy")
results = {}
for kind in sys.argv[2:]:
    loaded = tf.saved_model.load(folder + "/" + kind)
    for name, tensor in loaded.signatures["serving_default"](inputs=tf.constant(x)).items():
        results[kind + "|" + name] = tensor.numpy()
loaded = tf.saved_model.load(folder + "/member")
results["member"] = loaded.serve(tf.constant(x)).numpy()
interpreter = tf.lite.Interpreter(folder + "/member.tflite")
(given,), (returned,) = interpreter.get_input_details(), interpreter.get_output_details()
interpreter.resize_tensor_input(given["index"], x.shape)
interpreter.allocate_tensors()
interpreter.set_tensor(given["index"], x)
interpreter.invoke()
results["litert"] = interpreter.get_tensor(returned["index"])
np.savez(folder + "/results.npz", **results)
"""


@pytest.mark.slow
def test_a_fresh_process_without_this_package_returns_the_same(cases, x, tmp_path):
    kinds = [*CLASSIFIERS, "values"]
    for kind in kinds:
        cases[kind].ensemble.export(tmp_path / kind)
    member = cases["logits"].ensemble[1].to_keras()
    member.export(tmp_path / "member", verbose=False)
    member.export(tmp_path / "member.tflite", format="litert", verbose=False)
    np.save(tmp_path / "x.npy", x)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), *kinds],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "results.npz") as saved:
        results = {name: saved[name] for name in saved.files}
    for kind in kinds:
        names = [name for name in results if name.startswith(kind + "|")]
        actual = {name.partition("|")[2]: results[name] for name in names}
        assert_same(actual, expected_answers(cases[kind].ensemble, x))
    expected = cases["logits"].loop[1]
    assert expected.shape == (EXAMPLES, 4)
    for name in ("member", "litert"):
        np.testing.assert_allclose(results[name], expected, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_a_member_as_onnx(cases, x, tmp_path):
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    member = cases["logits"].ensemble[1].to_keras()
    member.export(tmp_path / "member.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "member.onnx")
    (given,) = session.get_inputs()
    (outputs,) = session.run(None, {given.name: x})
    np.testing.assert_allclose(outputs, cases["logits"].loop[1], rtol=1e-4, atol=1e-5)


# ---- the guide ----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_request_of_the_guide(tmp_path):
    """The guide's export, and its request as TensorFlow Serving hands it to the signature."""
    text = GUIDE.read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    # In a process of its own, as users run it: its numbers must not depend on what ran before.
    code += '\nhyper.sample(20, seed=0).save("networks")\n'
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    (url, body) = re.search(r"curl .*?(http://\S+).*?-d '(.*?)'", text, re.DOTALL).groups()
    name = re.fullmatch(r"http://localhost:8501/v1/models/(\w+):predict", url).group(1)
    x = np.array(json.loads(body)["instances"], "float32")
    served = answers(tmp_path / "models" / name / "1", inputs=tf.constant(x))
    expected = expected_answers(hn.Ensemble.load(tmp_path / "networks"), x)
    assert_same(served, expected, constant=["variation_ratio"])  # all networks agree
    response = json.loads(re.search(r"```json\n(.*?)```", text, re.DOTALL).group(1))
    assert len(response["predictions"]) == len(x)
    for index, prediction in enumerate(response["predictions"]):
        assert served.keys() == prediction.keys()
        # Training sets the differences of the logits, and not their level, which is the energy: it
        # differs from processor to processor.
        for key in served.keys() - {"energy"}:
            np.testing.assert_allclose(
                prediction[key], served[key][index], atol=0.02, err_msg=f"the guide prints {key}"
            )


@pytest.mark.parametrize("kind", ["strings", "text"])
def test_tables_of_words_are_exported(kind, tmp_path):
    if kind == "strings":
        lookup = layers.StringLookup(vocabulary=["a", "b"])
        x = np.array([["a"], ["b"], ["c"]])
    else:
        lookup = layers.TextVectorization(output_sequence_length=2)
        lookup.adapt(["a b", "a c"])
        x = np.array([["a b"], ["c"], ["d a"]])
    words = keras.Input((1,), dtype="string")
    hidden = layers.Flatten()(layers.Embedding(6, 2)(lookup(words)))
    ensemble = ensemble_of(keras.Model(words, layers.Dense(2)(hidden)))
    ensemble.export(tmp_path / "1")
    serve = tf.saved_model.load(tmp_path / "1").signatures["serving_default"]
    x = tf.constant(x)
    np.testing.assert_allclose(serve(inputs=x)["mean"], ensemble.predict(x), rtol=1e-5)


def test_an_export_replaces_a_saved_model_whole_or_not_at_all(blobs, tmp_path, monkeypatch):
    target = hn.Target(classifier(), outputs="logits")
    samplers = (hn.DeepEnsemble(target, num_networks=2, seed=seed) for seed in (0, 1))
    first, second = (sampler.sample(2) for sampler in samplers)
    folder = tmp_path / "1"
    first.export(folder)
    (folder / "left over").write_text("of another version")

    def broken(self, path, **kwargs):
        (pathlib.Path(path) / "variables").mkdir(parents=True)
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(type(keras.export.ExportArchive()), "write_out", broken)
        with pytest.raises(OSError, match="no space left"):
            second.export(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    x = blobs[0][:5]
    served = tf.saved_model.load(str(folder))
    np.testing.assert_allclose(served.serve(x)["probabilities"], first.predict(x), rtol=1e-5)
    second.export(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["1"]
    assert not (folder / "left over").exists()
    served = tf.saved_model.load(str(folder))
    np.testing.assert_allclose(served.serve(x)["probabilities"], second.predict(x), rtol=1e-5)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("all")
    with pytest.raises(FileExistsError, match="is not empty and no SavedModel: choose another"):
        first.export(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter").exists()
