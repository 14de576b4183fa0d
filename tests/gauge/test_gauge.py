"""Fixing the gauge leaves the function alone; the softmax, and the published numbers."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gauge_checks import (
    assert_a_gauge,
    fixed_layers,
    functional,
    norm,
    relu,
    rescaled,
    sequential,
)
from small_graphs import Graph, N, answers, assert_same, some_weights
from target_models import frozen

import hypernet_tf as hn

layers = keras.layers


def test_the_mnist_target():
    with_logits = hn.Target(hn.zoo.mnist(), outputs="logits")
    gauge = hn.Gauge(with_logits)
    assert fixed_layers(gauge) == [layer.name for layer in with_logits.layers[:3]]
    first, second, third = (step.makes.tolist() for step in gauge.steps[:3])
    reads = [(step.layer.slots[0].index, step.axis, step.reads.tolist()) for step in gauge.steps]
    assert reads == [(0, 3, [0]), (2, 3, first), (4, 1, 49 * second), (6, 1, third)]
    assert gauge.softmax_biases == [7]
    as_values = hn.Gauge(hn.Target(hn.zoo.mnist(), outputs="values"))
    assert len(as_values.steps) == 4 and as_values.softmax_biases == []


@pytest.mark.parametrize("kind", [tf.Variable, np.array])
def test_variables_and_arrays_are_not_changed(kind):
    target = hn.Target(sequential((3,), layers.Dense(4), norm(), layers.Dense(2)), outputs="logits")
    weights = some_weights(target)
    converted = hn.WeightSet(*([kind(w) for w in part] for part in weights))
    gauge = hn.Gauge(target, softmax_kernel=True, permutation=True)
    fixed = gauge(converted)
    for actual, expected in zip(fixed, gauge(weights), strict=True):
        assert_same(actual, expected, 0.0)
        assert all(tf.is_tensor(tensor) for tensor in actual)
    for actual, expected in zip(converted, weights, strict=True):
        assert_same(actual, expected, 0.0)


@pytest.mark.slow
def test_a_training_step_in_float32():
    """Half the channels held, sums and norms: finite gradients within a compiled function."""
    keras.config.set_dtype_policy("float32")
    target = Graph(["conv_tanh", "concat", "padded"]).target
    gauge = hn.Gauge(target, softmax_kernel=True, permutation=True)
    theta = target.flatten(some_weights(target))
    x = np.random.default_rng(1).normal(size=[5, 4, 4, 2]).astype("float32")

    @tf.function(autograph=False)
    def step(theta):
        with tf.GradientTape() as tape:
            tape.watch(theta)
            fixed = gauge(target.unflatten(theta))
            outputs = target(fixed, x, training=True)
            total = tf.reduce_sum(outputs**2) + tf.reduce_sum(target.flatten(fixed) ** 2)
        return fixed, tape.gradient(total, theta)

    fixed, gradient = step(theta)
    assert_same(fixed.trainable, gauge(target.unflatten(theta)).trainable, 1e-5)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_gradients_pass_through_the_gauge():
    """Along a free scale nothing changes: the gradient is zero in that direction."""
    target = hn.Target(sequential((4,), relu(), layers.Dense(2)))
    gauge = hn.Gauge(target, epsilon=0.0)
    weights = some_weights(target)
    with tf.GradientTape() as tape:
        tape.watch(weights.trainable)
        fixed = gauge(weights)
        total = tf.reduce_sum(tf.sin(target.flatten(fixed)))
    kernel, bias, reader, _ = weights.trainable
    by_kernel, by_bias, by_reader, _ = tape.gradient(total, weights.trainable)
    along = (
        tf.reduce_sum(kernel * by_kernel, 1) + bias * by_bias - tf.reduce_sum(reader * by_reader, 2)
    )
    assert np.abs(by_kernel).max() > 0.01
    np.testing.assert_allclose(along, np.zeros([N, 3]), atol=1e-12)


# ---- the softmax --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "outputs", "has_symmetry"),
    [
        ([lambda: layers.Dense(3)], "logits", True),
        ([lambda: layers.Dense(3), lambda: layers.Activation("linear")], "logits", True),
        ([lambda: layers.Dense(3, activation="softmax")], "probabilities", True),
        ([lambda: layers.Dense(3), lambda: layers.Softmax()], "probabilities", True),
        ([lambda: layers.Dense(3), lambda: layers.Activation("softmax")], "probabilities", True),
        ([lambda: layers.Dense(3, activation="log_softmax")], "logits", True),
        ([lambda: layers.Dense(3)], "values", False),
        ([lambda: layers.Dense(3, activation="softmax")], "values", False),
        ([lambda: layers.Dense(3, use_bias=False)], "logits", False),
        ([lambda: layers.Dense(1)], "logits", False),
        ([lambda: layers.Dense(1, activation="sigmoid")], "probabilities", False),
        ([lambda: layers.Dense(3, activation="relu")], "logits", False),
        ([lambda: layers.Dense(3), norm], "logits", False),
        ([lambda: layers.Dense(3)], "probabilities", False),  # without a softmax it would change
        ([lambda: layers.Dense(3), lambda: frozen(layers.Dense(3))], "logits", False),
        (
            [lambda: layers.Dense(3), lambda: frozen(layers.Dense(3, activation="softmax"))],
            "probabilities",
            False,
        ),
    ],
)
def test_the_bias_of_a_softmax(steps, outputs, has_symmetry):
    target = hn.Target(sequential((4,), *[step() for step in steps]), outputs=outputs)
    gauge = hn.Gauge(target, epsilon=0.0)
    assert bool(gauge.softmax_biases) == has_symmetry
    if not has_symmetry:
        weights = some_weights(target)
        assert_same(gauge(weights).trainable[-1:], weights.trainable[-1:], 0.0)
    assert_same(answers(target, gauge(some_weights(target))), answers(target, some_weights(target)))


def test_a_normalisation_of_another_precision(float64):
    another = norm(name="norm", dtype="float32")
    target = hn.Target(sequential((4,), layers.Dense(8, "relu"), another, layers.Dense(3)))
    assert_a_gauge(target, ["dense", "norm"], 1e-4)


@pytest.mark.parametrize("end", [[], [layers.Softmax]], ids=["logits", "softmax"])
def test_the_bias_of_a_softmax_behind_a_layer_that_returns_its_input(end):
    steps = layers.Dense(3), layers.Identity(dtype="float32"), *(make() for make in end)
    target = hn.Target(sequential((4,), *steps), outputs=None if end else "logits")
    assert hn.Gauge(target).softmax_biases == [1]


def test_the_bias_of_a_softmax_that_is_an_operation():
    target = hn.Target(functional((4,), lambda x: keras.ops.softmax(layers.Dense(3)(x))))
    assert hn.Gauge(target, epsilon=0.0).softmax_biases == [1]
    weights = some_weights(target)
    gauge = hn.Gauge(target, epsilon=0.0)
    assert_same(answers(target, gauge(weights)), answers(target, weights))


@pytest.mark.parametrize("structured", [lambda y: y, lambda y: [y], lambda y: {"y": y}])
def test_one_output_may_be_structured(structured):
    def ending(x):
        return structured(layers.Softmax()(layers.Flatten()(layers.Conv2D(5, 1)(x))))

    target = hn.Target(functional((1, 1, 4), ending))
    weights = some_weights(target)
    gauge = hn.Gauge(target, epsilon=0.0, softmax_kernel=True)
    assert (gauge.softmax_kernels, gauge.softmax_biases) == ([0], [1])
    x = np.random.default_rng(0).normal(size=(3, 1, 1, 4))
    before, after = (keras.tree.flatten(target(w, x))[0] for w in (weights, gauge(weights)))
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_a_softmax_over_another_axis_is_no_softmax_of_classes():
    target = hn.Target(sequential((6, 5), layers.Dense(4), layers.Softmax(axis=1)))
    assert (target.outputs, target.classes) == ("values", None)
    gauge = hn.Gauge(target, softmax_kernel=True)
    assert (gauge.softmax_kernels, gauge.softmax_biases) == ([], [])


def test_a_softmax_per_pixel():
    target = hn.Target(sequential((3, 3, 1), layers.Conv2D(3, 2)), outputs="logits")
    assert assert_a_gauge(target, []).softmax_biases == [1]


def test_the_bias_of_a_softmax_may_be_left_alone():
    target = hn.Target(sequential((4,), relu(), layers.Dense(3)), outputs="logits")
    gauge, weights = hn.Gauge(target, softmax=False), some_weights(target)
    assert gauge.softmax_biases == []
    assert_same(gauge(weights).trainable[-1:], weights.trainable[-1:], 0.0)


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_each_of_several_outputs_has_a_softmax(outputs):
    end = "softmax" if outputs == "probabilities" else None
    graph = lambda x: [layers.Dense(3, end)(x), layers.Dense(5, end)(relu()(x))]  # noqa: E731
    target = hn.Target(functional((4,), graph), outputs=outputs)
    gauge, weights = hn.Gauge(target, epsilon=0.0, softmax_kernel=True), some_weights(target)
    assert len(gauge.softmax_biases) == len(gauge.softmax_kernels) == 2
    fixed, moved = gauge(weights), rescaled(gauge, weights)
    for index in gauge.softmax_biases:
        assert not np.allclose(moved.trainable[index], weights.trainable[index])
    assert_same(gauge(moved).trainable, fixed.trainable, 1e-9)
    x = np.random.default_rng(0).normal(size=(5, 4))
    shown = target.activate if outputs == "logits" else tf.identity
    before, after = ([shown(y) for y in target(w, x)] for w in (weights, fixed))
    assert_same(after, before, 1e-9)


def test_logits_that_another_output_reads_keep_their_mean():
    def graph(x):
        logits = layers.Dense(3)(x)
        return [layers.Softmax()(logits), layers.Dense(4, "softmax")(logits)]

    target = hn.Target(functional((4,), graph))
    gauge, weights = hn.Gauge(target, epsilon=0.0), some_weights(target)
    assert gauge.softmax_biases == [3]
    x = np.random.default_rng(0).normal(size=(5, 4))
    assert_same(target(gauge(weights), x), target(weights, x), 1e-9)


# ---- the numbers --------------------------------------------------------------------------


def published(weights, pixels, channels, epsilon):
    """The published program's arithmetic for conv (relu), flatten, dense (relu), dense."""
    k1, b1, k2, b2, k3, b3 = (w.copy() for w in weights)

    def scale_of(kernel, bias):
        rows = np.concatenate([kernel.reshape(N, -1, kernel.shape[-1]), bias[:, None]], 1)
        return np.sqrt(np.mean(rows**2, 1) + epsilon)

    s = scale_of(k1, b1)
    k1, b1 = k1 / (s[:, None, None] + epsilon), b1 / (s + epsilon)
    k2 = (k2.reshape(N, pixels, channels, -1) * s[:, None, :, None]).reshape(k2.shape)
    s = scale_of(k2, b2)
    k2, b2 = k2 / (s[:, None] + epsilon), b2 / (s + epsilon)
    k3 = k3 * s[:, :, None]
    return k1, b1, k2, b2, k3, b3 - b3.mean(-1, keepdims=True)


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-8, 0.0])
def test_epsilon_is_added_twice_as_published(size):
    """For weights of order one it is invisible; below 1e-4 it dominates."""
    target = hn.Target(
        sequential(
            (4, 2),
            layers.Conv1D(3, 2, activation="relu"),
            layers.Flatten(),
            relu(4),
            layers.Dense(3),
        ),
        outputs="logits",
    )
    weights = some_weights(target)
    weights = weights._replace(trainable=[size * w for w in weights.trainable])
    fixed = hn.Gauge(target)(weights)  # 1e-8 is the default
    assert all(np.isfinite(w).all() for w in fixed.trainable)
    expected = published([w.numpy() for w in weights.trainable], 3, 3, 1e-8)
    assert_same(fixed.trainable, expected, 1e-12)
    exact = published([w.numpy() for w in weights.trainable], 3, 3, 0.0) if size else expected
    visible = not np.allclose(fixed.trainable[0], exact[0], rtol=1e-6)
    assert visible == (0.0 < size < 1.0)


def test_a_negative_epsilon_raises():
    with pytest.raises(ValueError, match="epsilon is -1e-08: give a number from 0") as caught:
        hn.Gauge(hn.Target(sequential((4,), layers.Dense(3))), epsilon=-1e-8)
    assert "\n" not in str(caught.value)


def test_a_bias_before_a_normalisation_of_masked_steps_stays():
    """Its mean is of the steps that count, and is not shifted along with the bias."""
    model = keras.Sequential(
        [
            keras.Input((6,), dtype="int32"),
            layers.Embedding(9, 4, mask_zero=True),
            layers.Dense(5),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling1D(),
            layers.Dense(3),
        ]
    )
    target = hn.Target(model, outputs="values")
    weights = some_weights(target)
    x = np.random.default_rng(0).integers(0, 9, (8, 6))
    x[:, 4:] = 0
    (before, _), (after, _) = (target.run(w, x) for w in (weights, hn.Gauge(target)(weights)))
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)


def test_an_epsilon_that_is_no_number_is_an_error():
    for epsilon in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"epsilon is {epsilon}: give a number from 0"):
            hn.Gauge(hn.Target(hn.zoo.mnist()), epsilon=epsilon)
