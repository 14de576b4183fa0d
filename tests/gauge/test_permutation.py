"""Sorted filters compute the same function, and every order is sorted into the same one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from small_graphs import Graph, N, answers, assert_same, new_input, some_steps, some_weights

import hypernet_tf as hn
from hypernet_tf.gauge.permutation import Permutation, lexicographic_order

layers = keras.layers
PAD_CHANNELS = ((0, 0), (0, 0), (0, 0), (1, 1))


def shuffled(permutation, weights):
    """The same weights with each group of channels in another order, on all its axes."""
    rng = np.random.default_rng(3)
    orders = [
        np.stack([rng.permutation(len(group)) for _ in range(N)]) for group in permutation.groups
    ]
    tensors = {True: list(weights.trainable), False: list(weights.state)}
    for axis, positions in permutation.axes:
        index = np.tile(np.arange(len(axis.ids)), (N, 1))
        for number, group in positions.items():
            for n in range(N):
                index[n, group] = group[orders[number][n]]
        moved = [
            np.take(tensors[axis.trainable][axis.index][n], index[n], axis.axis - 1)
            for n in range(N)
        ]
        tensors[axis.trainable][axis.index] = tf.constant(np.stack(moved))
    return hn.WeightSet(tensors[True], tensors[False])


def assert_sorted(target, sizes, tolerance=1e-7):
    """Check the sizes of the groups, that the function stays, and that all orders become one."""
    gauge = hn.Gauge(target, epsilon=0.0, permutation=True)
    permutation = Permutation(target)
    assert sorted(len(group) for group in permutation.groups) == sorted(sizes)
    weights = some_weights(target)
    fixed = gauge(weights)
    assert_same(answers(target, fixed), answers(target, weights), tolerance)
    for number in range(len(sizes)):
        axis, positions = next(
            (axis, positions)
            for axis, positions in permutation.axes
            if axis.rows is not None and number in positions
        )
        rows = axis.rows.rows([fixed.trainable[slot.index] for slot in axis.rows.slots])
        rows = tf.gather(rows, positions[number][:, 0], axis=1).numpy()
        for network_rows in rows:
            order = np.lexsort(network_rows.T[::-1])
            np.testing.assert_array_equal(order, np.arange(len(network_rows)))
    again = gauge(fixed)
    other = shuffled(permutation, weights)
    assert_same(answers(target, other), answers(target, weights), tolerance)
    for same in (again, gauge(other)):
        assert_same(same.trainable, fixed.trainable, tolerance)
        assert_same(same.state, fixed.state, tolerance)
    if sizes:
        pairs = zip(other.trainable, weights.trainable, strict=True)
        assert max(np.abs(a - b).max() for a, b in pairs) > 0.1
    return gauge


@settings(max_examples=4, deadline=None, derandomize=True)
@given(steps=some_steps)
def test_random_graphs(steps):
    target = Graph(steps).target
    assert_sorted(target, [len(group) for group in Permutation(target).groups])


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(steps=some_steps)
def test_many_random_graphs(steps):
    test_random_graphs.hypothesis.inner_test(steps)


def stack(shape, *steps):
    return keras.Sequential([new_input(shape), *steps])


def conv(filters, **kwargs):
    return layers.Conv2D(filters, 2, padding="same", **kwargs)


def norm():
    return layers.BatchNormalization(epsilon=1e-12)


def residual(shortcut):
    """A residual network of two widths, 3 and 5, whose shortcut pads or projects."""
    x = inputs = new_input((4, 4, 2))
    x = layers.ReLU()(norm()(conv(3)(x)))
    for width, strides in ((3, 1), (5, 2), (5, 1)):
        hidden = layers.ReLU()(norm()(conv(4, strides=strides)(x)))
        hidden = norm()(conv(width)(hidden))
        if width > x.shape[-1] and shortcut == "padded":
            x = layers.AveragePooling2D(1, strides=2)(x)
            x = keras.ops.pad(x, PAD_CHANNELS)
        elif width > x.shape[-1]:
            x = layers.Conv2D(width, 1, strides=2, use_bias=False)(x)
        x = layers.ReLU()(x + hidden)
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def concatenated():
    x = new_input((3, 3, 2))
    both = layers.Concatenate()([conv(3, activation="relu")(x), conv(4, activation="tanh")(x)])
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(both)))


def twice_and_padded():
    """A sum of the channels k, l, k, l and 0, a, b, 0: swapping k and l does not swap a and b."""
    x = new_input((3, 3, 2))
    hidden = conv(2, activation="relu")(x)
    total = keras.ops.pad(conv(2)(x), PAD_CHANNELS) + layers.Concatenate()([hidden, hidden])
    return keras.Model(x, layers.Dense(2)(layers.Flatten()(total)))


CASES = {
    "twice_and_padded": (twice_and_padded, []),
    "flatten": (
        lambda: stack(
            (4, 4, 2),
            conv(3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(5, activation="leaky_relu"),
            layers.Dense(3),
        ),
        [3, 5],
    ),
    "any_elementwise_activation": (
        lambda: stack(
            (4,), layers.Dense(3, "tanh"), layers.Dense(4), layers.ELU(), layers.Dense(2)
        ),
        [3, 4],
    ),
    "norms": (lambda: stack((3, 3, 2), conv(4), norm(), conv(3), layers.Flatten(), norm()), [4]),
    "projected": (lambda: residual("projected"), [3, 4, 4, 4, 5]),
    # Three of the five channels are the first three; padding adds the other two.
    "padded": (lambda: residual("padded"), [3, 4, 4, 4, 2]),
    "concatenated": (concatenated, [3, 4]),
    "depthwise": (
        lambda: stack(
            (4, 4, 2),
            conv(3, activation="relu"),
            layers.DepthwiseConv2D(2, depth_multiplier=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(2),
        ),
        [3],
    ),
    "transposed": (
        lambda: stack(
            (2, 2, 2),
            layers.Conv2DTranspose(3, 2, activation="relu"),
            layers.Conv2DTranspose(4, 2, activation="relu"),
            layers.GlobalMaxPooling2D(),
            layers.Dense(2),
        ),
        [3, 4],
    ),
    "softmax": (lambda: stack((4,), layers.Dense(3, "softmax"), layers.Dense(2)), []),
    "frozen_reader": (
        lambda: stack((4,), layers.Dense(3, "relu"), layers.Dense(2, trainable=False)),
        [],
    ),
    "output": (lambda: stack((4,), layers.Dense(3, "relu")), []),
}


@pytest.mark.parametrize("case", CASES)
def test_groups(case):
    model, sizes = CASES[case]
    assert_sorted(hn.Target(model()), sizes)


def test_hidden_neurons_moved_by_hand():
    target = hn.Target(stack((4,), layers.Dense(3, "relu"), layers.Dense(2)), outputs="logits")
    kernel, bias, reader, last = some_weights(target).trainable
    order = [2, 0, 1]
    moved = [tf.gather(kernel, order, axis=2), tf.gather(bias, order, axis=1)]
    moved += [tf.gather(reader, order, axis=1), last]
    gauge = hn.Gauge(target, permutation=True)
    fixed = gauge(hn.WeightSet([kernel, bias, reader, last], []))
    assert_same(gauge(hn.WeightSet(moved, [])).trainable, fixed.trainable)
    assert (np.diff(fixed.trainable[0][:, 0]) > 0).all()


def test_lexicographic_order_of_equal_elements():
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 2, size=[4, 9, 5]).astype("float32")
    rows[0, 3:7] = rows[0, 3]
    expected = [np.lexsort(network_rows.T[::-1]) for network_rows in rows]
    np.testing.assert_array_equal(lexicographic_order(tf.constant(rows)), expected)


def test_gradients_go_where_the_filters_went():
    """The gradient of a weighted sum over all sorted weights, inside a compiled function."""
    target = hn.Target(residual("padded"), outputs="logits")
    gauge = hn.Gauge(target, epsilon=0.0, permutation=True)
    permutation = gauge._fix_permutation
    weights = some_weights(target)
    factors = [np.random.default_rng(5).normal(size=w.shape) for w in weights.trainable]

    @tf.function(autograph=False)
    def gradients(trainable):
        with tf.GradientTape() as tape:
            tape.watch(trainable)
            moved = list(trainable)
            permutation(moved, list(weights.state))
            total = sum(tf.reduce_sum(f * w) for f, w in zip(factors, moved, strict=True))
        return total, tape.gradient(total, trainable)

    total, actual = gradients(weights.trainable)
    # The sum is linear in the weights while their order stays.
    again = sum(float(tf.reduce_sum(g * w)) for g, w in zip(actual, weights.trainable, strict=True))
    np.testing.assert_allclose(again, total, rtol=1e-9)
    for gradient, factor in zip(actual, factors, strict=True):
        np.testing.assert_array_equal(np.sort(gradient, None), np.sort(factor, None))
