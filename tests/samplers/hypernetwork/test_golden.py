"""One forward and backward pass of the published program, matched at every stage.

The golden file holds float32 values of the published program at a small size, its bias gauge
corrected to the mean. Bound, from the file's own description: max|a - b| <= 1e-4 · max|b| per
tensor.
"""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf.diversity import kozachenko_leonenko_entropy, nearest_neighbour_distances

GOLDEN = pathlib.Path(__file__).parents[2] / "golden" / "mnist_hypernetwork_small.npz"


def close(ours, golden):
    ours, golden = np.asarray(ours, np.float64), np.asarray(golden, np.float64)
    assert ours.shape == golden.shape
    assert np.abs(ours - golden).max() <= 1e-4 * np.abs(golden).max()


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def hyper(golden):
    layers = keras.layers
    target = hn.Target(
        keras.Sequential(
            [
                keras.Input((12, 12, 1)),
                layers.Conv2D(4, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(2, padding="same"),
                layers.Conv2D(3, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(2, padding="same"),
                layers.Flatten(),
                layers.Dense(5, activation="relu"),
                layers.Dense(10),
            ]
        ),
        outputs="logits",
    )
    model = hn.Hypernetwork(
        target,
        latent_dim=7,
        code_dim=[4, 5, 3, 6],
        extractor_hidden=(12, 10),
        generator_hidden=[(8, 7), (9, 8), (6, 7), (8, 6)],
        num_networks=6,
        initialization="published",
        lam=float(golden["lam"]),
    )
    for name, variable in named_variables(model).items():
        variable.assign(golden[f"variable/{name}"])
    return model


def named_variables(model):
    names = {}
    mlps = {"extractor": model.extractor.mlp}
    mlps |= {f"weight_generator{i + 1}": g for i, g in enumerate(model.generators)}
    for net, mlp in mlps.items():
        for place, (dense, _, norm) in enumerate(mlp.blocks, 1):
            names[f"{net}/layer{place}_weights"] = dense.kernel
            names[f"{net}/layer{place}_scale"] = norm.gamma
            names[f"{net}/layer{place}_offset"] = norm.beta
        names[f"{net}/layer{len(mlp.blocks) + 1}_weights"] = mlp.last.kernel
    return names


def test_the_file_names_every_variable(hyper, golden):
    ours = named_variables(hyper)
    assert {f"variable/{name}" for name in ours} == {k for k in golden if k.startswith("variable/")}
    assert len(ours) == len(hyper.trainable_variables)


def run(hyper, golden):
    """Every stage of one step, and the gradients of its loss."""
    with tf.GradientTape() as tape:
        drawn = hyper.generate(tf.constant(golden["z"]), training=True)
        weights = hyper.gauge(hn.WeightSet(drawn.trainable, []))
        logits = hyper.target(weights, golden["x"], training=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        accuracy_loss = loss(golden["labels"], logits)
        theta = hyper.target.flatten(weights)
        entropy = kozachenko_leonenko_entropy(theta, 7, distance="l1", epsilon=1e-8)
        total = golden["lam"].astype("float32") * accuracy_loss - entropy
    variables = named_variables(hyper)
    gradients = dict(zip(variables, tape.gradient(total, list(variables.values())), strict=True))
    return drawn, weights, logits, theta, accuracy_loss, entropy, total, gradients


def test_every_stage_matches(hyper, golden):
    drawn, weights, logits, theta, accuracy_loss, entropy, total, _ = run(hyper, golden)
    for place, codes in enumerate(drawn.codes, 1):
        close(tf.squeeze(codes, 1) if place == 4 else codes, golden[f"codes/{place}"])
    names = [f"{kind}{place}" for place in range(1, 5) for kind in ("kernel", "bias")]
    for name, generated, gauged in zip(names, drawn.trainable, weights.trainable, strict=True):
        shape = golden[f"generated/{name}"].shape  # the file keeps a dense kernel's pixels apart
        close(tf.reshape(generated, shape), golden[f"generated/{name}"])
        close(tf.reshape(gauged, shape), golden[f"gauged/{name}"])
    close(logits, golden["logits"])
    close(nearest_neighbour_distances(theta, distance="l1"), golden["nearest_l1"])
    close(accuracy_loss, golden["accuracy_loss"])
    close(entropy, golden["entropy"])
    close(total, golden["loss"])


def test_gradients_match(hyper, golden):
    gradients = run(hyper, golden)[-1]
    for name, gradient in gradients.items():
        close(gradient, golden[f"gradient/{name}"])


def test_the_training_step_computes_this_loss(hyper, golden, monkeypatch):
    """`train_step` puts the stages together as the file does; only z is handed in."""
    monkeypatch.setattr(hyper, "latent_vectors", lambda seed, count: tf.constant(golden["z"]))
    hyper.compile(
        optimizer=keras.optimizers.SGD(0.0),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        run_eagerly=True,
    )
    x = golden["x"].reshape(-1, 12, 12, 1)
    logs = hyper.train_on_batch(x, golden["labels"].reshape(-1), return_dict=True)
    close(logs["loss"], golden["loss"])
    close(logs["accuracy_loss"], golden["accuracy_loss"])
    close(logs["diversity_loss"], -golden["entropy"])
