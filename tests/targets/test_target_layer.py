"""`TargetLayer` in a user's model: weights that depend on the inputs, one network per example."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from target_models import CASES, assert_close, one_line_error, sequential

import hypernet_tf as hn

layers = keras.layers


def conditional(target, *, several=False):
    """A Keras model: condition -> Dense -> theta -> networks, each on its own examples."""
    shape = target.input_shape
    condition = keras.Input((2,))
    x = keras.Input((None, *shape) if several else shape)
    theta = layers.Dense(target.weight_count, name="theta")(condition)
    outputs = hn.TargetLayer(target, examples="one_each", name="networks")((theta, x))
    return keras.Model([condition, x], outputs)


def conditions_and_inputs(target, count, *batch):
    rng = np.random.default_rng(0)
    shapes = [(count, 2), (count, *batch, *target.input_shape)]
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


def one_at_a_time(model, target, condition, x):
    """The oracle: a Keras model of each network, on its examples."""
    theta = model.get_layer("theta")(condition)
    outputs = []
    for n in range(len(condition)):
        network = target.to_keras(target.unflatten(theta[n : n + 1]))
        examples = x[n] if x.ndim > len(target.input_shape) + 1 else x[n : n + 1]
        outputs.append(network(examples).numpy())
    return outputs


@pytest.mark.slow
@pytest.mark.parametrize("case", ["dense", "conv_then_dense"])
def test_each_example_has_its_own_network(case):
    target = hn.Target(CASES[case]())
    model = conditional(target)
    assert model.output_shape == (None, 3)
    condition, x = conditions_and_inputs(target, 5)
    expected = np.concatenate(one_at_a_time(model, target, condition, x))
    assert len(np.unique(expected, axis=0)) == 5
    predicted = model.predict([condition, x], batch_size=3, verbose=0)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)
    # The first axis of theta and of the inputs is known outside of a graph.
    np.testing.assert_allclose(model([condition, x]), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_each_network_has_several_examples():
    target = hn.Target(CASES["dense"]())
    model = conditional(target, several=True)
    condition, x = conditions_and_inputs(target, 3, 4)
    expected = np.stack(one_at_a_time(model, target, condition, x))
    predicted = model.predict([condition, x], verbose=0)
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)


def test_it_trains_and_survives_saving(tmp_path):
    """y = a·x_1 + b·x_2 for the condition (a, b), which no single network computes."""
    target = hn.Target(sequential((2,), layers.Dense(1)))
    model = conditional(target)
    rng = np.random.default_rng(0)
    condition, x = rng.normal(size=(2, 256, 2)).astype("float32")
    y = (condition * x).sum(-1, keepdims=True)
    model.compile(keras.optimizers.Adam(0.05), "mse")
    history = model.fit([condition, x], y, batch_size=60, epochs=12, verbose=0).history["loss"]
    assert history[-1] < 1e-2 < 1 < history[0]
    new = rng.normal(size=(2, 50, 2)).astype("float32")  # other conditions, another batch
    predicted = model.predict(list(new), verbose=0)
    np.testing.assert_allclose(predicted, new.prod(0).sum(-1, keepdims=True), atol=0.3)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("networks").examples == "one_each"
    np.testing.assert_array_equal(loaded.predict(list(new), verbose=0), predicted)


@pytest.mark.slow
def test_theta_is_a_list_of_weights_in_one_vector():
    target = hn.Target(CASES["frozen"]())
    theta = tf.random.stateless_normal([3, target.weight_count], [0, 1])
    x = tf.random.stateless_normal([3, 4], [0, 2])
    for options in ({}, {"examples": "one_each"}):
        layer = hn.TargetLayer(target, **options)
        outputs = layer((theta, x))
        assert_close(layer((target.unflatten(theta).trainable, x)), outputs)
    shared = hn.TargetLayer(target)((theta, x))
    assert shared.shape == (3, 3, 2)
    assert_close(outputs, tf.stack([shared[n, n] for n in range(3)]))


@pytest.mark.slow
def test_shared_examples_of_networks_whose_number_is_unknown():
    target = hn.Target(CASES["dense"]())
    theta, x = keras.Input((target.weight_count,)), keras.Input(batch_shape=(4, 4))
    model = keras.Model([theta, x], hn.TargetLayer(target)((theta, x)))
    values = [tf.random.stateless_normal([3, target.weight_count], [0, 1]), tf.ones([4, 4])]
    graph = tf.function(
        model, input_signature=[[tf.TensorSpec([None, v.shape[1]]) for v in values]]
    )
    assert_close(graph(values), target(target.unflatten(values[0]), values[1]))


def test_its_loss_is_the_penalty_of_the_weights():
    dense = layers.Dense(2, kernel_regularizer="l2", bias_regularizer="l1")
    target = hn.Target(keras.Sequential([keras.Input((4,)), dense]))
    model = conditional(target)
    x = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")
    inputs, y = [x[:, :2], x[:, 2:]], x[:, :2]
    model.compile("sgd", "mse")
    mse = np.mean((model.predict(inputs, verbose=0) - y) ** 2)
    theta = model.get_layer("theta")(inputs[0])
    penalty = float(target.regularization(target.unflatten(theta).trainable))
    assert penalty > 0
    np.testing.assert_allclose(model.evaluate(inputs, y, verbose=0), mse + penalty, rtol=1e-5)


def test_padded_steps_do_not_count_in_a_loss():
    tokens = keras.Input((5,), dtype="int32")
    embedded = layers.Embedding(7, 3, mask_zero=True)(tokens)
    target = hn.Target(keras.Model(tokens, layers.Dense(2)(embedded)))
    theta = keras.Input((target.weight_count,))
    outputs = hn.TargetLayer(target, examples="one_each")((theta, tokens))
    model = keras.Model([theta, tokens], outputs)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(4, target.weight_count)).astype("float32")
    x = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0], [4, 5, 6, 1, 0], [2, 2, 2, 2, 2]])
    y = rng.integers(2, size=(4, 5))
    log_p = keras.ops.log_softmax(model.predict([weights, x], verbose=0))
    losses = -np.take_along_axis(np.asarray(log_p), y[..., None], -1)[..., 0]
    loss = model.evaluate([weights, x], y, verbose=0)
    assert loss == pytest.approx(losses[x != 0].mean(), rel=1e-5)


def test_mistakes_raise_in_one_line():
    model = CASES["dense"]()
    target = hn.Target(model)
    with one_line_error("Unknown examples='each'", "'shared' or 'one_each'"):
        hn.TargetLayer(target, examples="each")
    with one_line_error("Batch normalisation has no statistics", "or freeze it"):
        hn.TargetLayer(sequential((4,), layers.Dense(3), layers.BatchNormalization()))
    layer = hn.TargetLayer(model, examples="one_each")
    with pytest.raises(
        ValueError, match=rf"theta has shape \(3, 7\).*\[N, {target.weight_count}\]"
    ):
        layer((tf.ones([3, 7]), tf.ones([3, 4])))
    theta = tf.ones([3, target.weight_count])
    with pytest.raises(ValueError, match="Cannot run 3 networks on inputs for 2 networks"):
        layer((theta, tf.ones([2, 4])))
    specs = [tf.TensorSpec([None, t]) for t in (target.weight_count, 4)]
    graph = tf.function(lambda theta, x: layer((theta, x)), specs, autograph=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="one batch of inputs for each"):
        graph(theta, tf.ones([2, 4]))


@pytest.mark.slow
def test_weights_that_depend_on_the_input_itself():
    """The networks have two inputs, given by name, and two outputs."""
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    hidden = layers.Dense(2)(layers.Add()([a, b]))
    target = hn.Target(keras.Model({"a": a, "b": b}, [hidden, layers.Dense(1)(hidden)]))
    x = keras.Input((3,))
    theta = layers.Dense(target.weight_count, name="theta")(x)
    layer = hn.TargetLayer(target, examples="one_each")
    model = keras.Model(x, layer((theta, {"b": x, "a": x})))
    values = np.random.default_rng(0).normal(size=(2, 3)).astype("float32")
    results = model.predict(values, verbose=0)
    assert [result.shape for result in results] == [(2, 2), (2, 1)]
    for n, row in enumerate(values):
        network = target.to_keras(target.unflatten(model.get_layer("theta")(values)[n : n + 1]))
        for result, expected in zip(
            results, network({"a": row[None], "b": row[None]}), strict=True
        ):
            np.testing.assert_allclose(result[n : n + 1], expected, rtol=1e-5, atol=1e-6)
