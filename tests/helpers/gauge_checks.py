"""Everything that makes fixing a gauge, checked on one target; and the layers of small targets."""

import keras
import numpy as np
import tensorflow as tf
from small_graphs import N, answers, assert_same, new_input, some_weights

import hypernet_tf as hn

layers = keras.layers


def sequential(shape, *steps):
    return keras.Sequential([new_input(shape), *steps])


def functional(shape, graph):
    inputs = new_input(shape)
    return keras.Model(inputs, graph(inputs))


def norm(**kwargs):
    """Batch normalisation that takes a scale away, up to 1e-12."""
    return layers.BatchNormalization(epsilon=1e-12, **kwargs)


def relu(units=3, **kwargs):
    return layers.Dense(units, activation="relu", **kwargs)


def first_filters(gauge):
    """Name of a layer -> which of its filters are the first to have their scale."""
    seen, first = {0}, {}
    for step in gauge.steps:
        new = [channel not in seen and not seen.add(channel) for channel in step.makes.tolist()]
        if any(new):
            first[step.layer.name] = np.array(new)
    return first


def fixed_layers(gauge):
    """The layers of which all filters are the first to have their scale."""
    first = first_filters(gauge)
    assert all(new.all() for new in first.values())
    return list(first)


def rescaled(gauge, weights):
    """Other weights of the same functions: filters times s, their readers over s."""
    rng = np.random.default_rng(2)
    trainable, state = list(weights.trainable), list(weights.state)
    dtype = trainable[0].dtype.as_numpy_dtype
    size = 2 + max((c for s in gauge.steps for c in (*s.reads, *s.makes)), default=0)
    table = np.exp(rng.normal(size=[N, size])).astype(dtype)
    table[:, [0, -1]] = 1.0  # held, and zero

    def times(tensor, factors, view, axis):
        shape = [N, *(len(factors[0]) if a == axis else 1 for a in range(len(view)))]
        return tf.reshape(tf.reshape(tensor, [N, *view]) * factors.reshape(shape), tensor.shape)

    for step in gauge.steps:
        reads, makes = table[:, step.reads], table[:, step.makes]
        shift = rng.normal(size=[N, len(step.reads)]).astype(dtype)
        if step.statistics is None:
            kernel = step.layer.slots[0]
            view, axis = kernel.shape, step.axis - 1
            trainable[kernel.index] = times(trainable[kernel.index], 1 / reads, view, axis)
        else:
            mean, variance = step.statistics
            state[mean] *= reads
            state[variance] *= reads**2
            if step.shift is not None:
                trainable[step.shift] += shift
                state[mean] += shift
        for slot in step.layer.slots if step.layer else ():
            tensor = trainable[slot.index]
            trainable[slot.index] = times(tensor, makes, slot.split, slot.axis)
    for index in gauge.softmax_biases:
        trainable[index] += rng.normal(size=[N, 1]).astype(dtype)
    for index in gauge.softmax_kernels:
        kernel = trainable[index]
        trainable[index] += rng.normal(size=[*kernel.shape[:-1], 1]).astype(dtype)
    return hn.WeightSet(trainable, state)


def moved(before, after):
    """The indices of tensors that differ."""
    pairs = enumerate(zip(before, after, strict=True))
    return {index for index, (a, b) in pairs if not np.array_equal(a, b)}


def touched(gauge):
    """The variables that the gauge may change: trainable ones, and state."""
    trainable, state = {*gauge.softmax_biases, *gauge.softmax_kernels}, set()
    for step in gauge.steps:
        if (step.makes > 0).any():
            trainable |= {slot.index for slot in step.layer.slots}
        if step.statistics is None and (step.reads > 0).any():
            trainable.add(step.layer.slots[0].index)
        if step.shift is not None:
            trainable.add(step.shift)
        if step.statistics is not None and (step.reads > 0).any():
            state |= set(step.statistics)
    return trainable, state


def assert_a_gauge(target, expected, tolerance=1e-9, **options):
    """Check that the function stays, the constraints hold, and equal weights become the same.

    Args:
        target: The target.
        expected: The layers of which all filters are the first of their scale, or layer -> how many
            of its filters are.
        tolerance: Relative tolerance of all comparisons.
        **options: Arguments of the gauge.

    Returns:
        The gauge.
    """
    gauge = hn.Gauge(target, epsilon=0.0, **options)
    first = first_filters(gauge)
    rows_of = dict(zip([layer.name for layer in target.layers], target.layers, strict=True))
    if not isinstance(expected, dict):
        expected = {name: rows_of[name].filters for name in expected}
    assert {name: int(new.sum()) for name, new in first.items()} == expected
    weights = some_weights(target)
    fixed = gauge(weights)
    changed = moved(weights.trainable, fixed.trainable), moved(weights.state, fixed.state)
    assert changed == touched(gauge)
    given = answers(target, weights)
    assert_same(answers(target, fixed), given, tolerance)
    for name, new in first.items():
        rows = rows_of[name].rows([fixed.trainable[s.index] for s in rows_of[name].slots])
        mean_square = tf.reduce_mean(rows**2, -1).numpy()[:, new]
        np.testing.assert_allclose(mean_square, np.ones(mean_square.shape), rtol=tolerance)
    for index in (*gauge.softmax_biases, *gauge.softmax_kernels):
        total = tf.reduce_sum(fixed.trainable[index], -1)
        np.testing.assert_allclose(total, np.zeros(total.shape), atol=tolerance)
    for step in gauge.steps:
        if step.shift is not None:
            np.testing.assert_array_equal(fixed.trainable[step.shift], 0)
    again = gauge(fixed)
    assert_same(again.trainable, fixed.trainable, tolerance)
    assert_same(again.state, fixed.state, tolerance)
    equal = rescaled(gauge, weights)
    assert_same(answers(target, equal), given, tolerance)
    assert moved(weights.trainable, equal.trainable) == changed[0]
    back = gauge(equal)
    assert_same(back.trainable, fixed.trainable, tolerance)
    assert_same(back.state, fixed.state, tolerance)
    return gauge
