"""Scales are fixed: the same function, one representative, also behind sums and norms."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from gauge_checks import assert_a_gauge, functional, norm, relu, sequential
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import Graph, new_input, some_steps, some_weights
from small_samplers import LOGITS

import hypernet_tf as hn

layers = keras.layers
RANDOM_GRAPHS = settings(max_examples=4, deadline=None, derandomize=True)
MANY_RANDOM_GRAPHS = settings(max_examples=40, deadline=None, derandomize=True)


# ---- random graphs ------------------------------------------------------------------------

ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "sigmoid", "softmax", "relu6")
HOMOGENEOUS = ("linear", "relu", "leaky_relu")
STEPS = (
    *(f"weighted_{name}" for name in ACTIVATIONS),
    *(f"depthwise_{name}" for name in ("relu", "tanh")),
    *("relu", "relu_max", "leaky", "tanh", "softmax", "max_pool", "average_pool", "pad"),
    *("dropout", "flatten", "global_pool", "product", "twice", "ops", "reshape"),
)


def build(shape, steps, ending):
    """A target of the steps that fit, and the names of the layers whose scale is free.

    `candidate` is the layer whose channels have a free scale so far: a weighted layer that reads
    them makes it one of the free layers; a layer that is not homogeneous discards it.
    """
    x = inputs = new_input(shape)
    free, candidate = [], None
    for index, step in enumerate(steps):
        kind, _, activation = step.partition("_")
        image = len(x.shape) == 4
        name = f"layer{index}"
        passes = {
            "relu": layers.ReLU(negative_slope=0.1),
            "leaky": layers.LeakyReLU(),
            "dropout": layers.Dropout(0.4),
            "flatten": layers.Flatten(),
        }
        if image:
            passes |= {
                "max_pool": layers.MaxPooling2D(2, padding="same"),
                "average_pool": layers.AveragePooling2D(2, padding="same"),
                "pad": layers.ZeroPadding2D(1),
                "global_pool": layers.GlobalMaxPooling2D(),
            }
        stops = {
            "relu_max": layers.ReLU(max_value=6.0),
            "tanh": layers.Activation("tanh"),
            "softmax": layers.Softmax(),
        }
        width = x.shape[-1]
        if kind in ("weighted", "depthwise"):
            if not image:
                layer = layers.Dense(3, activation=activation, name=name)
            elif kind == "depthwise":
                layer = layers.DepthwiseConv2D(
                    2, padding="same", depth_multiplier=2, activation=activation, name=name
                )
            else:
                layer = layers.Conv2D(3, 2, padding="same", activation=activation, name=name)
            x = layer(x)
            free += [candidate] if candidate else []
            candidate = name if activation in HOMOGENEOUS else None
        elif step in passes:
            x = passes[step](x)
        elif step in stops:
            x, candidate = stops[step](x), None
        elif step in ("product", "twice"):
            if image:
                layer = layers.Conv2D(width, 2, padding="same", activation="relu")
            else:
                layer = layers.Dense(width, activation="relu")
            x = layers.Multiply()([x, layer(x)]) if step == "product" else layer(layer(x))
            candidate = None
        elif step == "ops":
            x, candidate = x * 0.5, None
        elif step == "reshape":
            x, candidate = layers.Reshape(x.shape[1:])(x), None
    if len(x.shape) == 4:
        x = layers.Flatten()(x)
    x = layers.Dense(3, activation="softmax" if ending == "probabilities" else None)(x)
    free += [candidate] if candidate else []
    return hn.Target(keras.Model(inputs, x), outputs=ending), free


CONVOLUTIONAL = {
    "steps": st.lists(st.sampled_from(STEPS), min_size=2, max_size=7),
    "ending": st.sampled_from(("logits", "probabilities", "values")),
}
HOMOGENEOUS_THROUGHOUT = {
    "hidden": st.lists(st.sampled_from(["relu", "leaky_relu", "linear"]), min_size=1, max_size=4),
    "between": st.sampled_from(["dropout", "leaky", "flatten", "relu"]),
}
WITH_SUMS_AND_NORMS = {"steps": some_steps, "softmax_kernel": st.booleans()}


@RANDOM_GRAPHS
@given(**CONVOLUTIONAL)
def test_random_convolutional_graphs(steps, ending):
    target, free = build((3, 4, 2), steps, ending)
    gauge = assert_a_gauge(target, free)
    assert bool(gauge.softmax_biases) == (ending != "values")


@RANDOM_GRAPHS
@given(**HOMOGENEOUS_THROUGHOUT)
def test_random_graphs_that_are_homogeneous_throughout(hidden, between):
    steps = [step for name in hidden for step in (f"weighted_{name}", between)]
    target, free = build((2, 3, 2), steps, "logits")
    assert len(free) == len(hidden)
    assert_a_gauge(target, free)


@RANDOM_GRAPHS
@given(**WITH_SUMS_AND_NORMS)
def test_random_graphs_with_sums_and_norms(steps, softmax_kernel):
    graph = Graph(steps)
    gauge = assert_a_gauge(graph.target, graph.led, 1e-7, softmax_kernel=softmax_kernel)
    assert bool(gauge.softmax_kernels) == softmax_kernel
    theta = graph.target.flatten(some_weights(graph.target))
    with tf.GradientTape() as tape:
        tape.watch(theta)
        fixed = gauge(graph.target.unflatten(theta))
        total = tf.reduce_sum(tf.sin(graph.target.flatten(fixed)))
    assert np.isfinite(tape.gradient(total, theta)).all()


@pytest.mark.slow
@MANY_RANDOM_GRAPHS
@given(**CONVOLUTIONAL)
def test_many_random_convolutional_graphs(steps, ending):
    test_random_convolutional_graphs.hypothesis.inner_test(steps, ending)


@pytest.mark.slow
@MANY_RANDOM_GRAPHS
@given(**HOMOGENEOUS_THROUGHOUT)
def test_many_random_graphs_that_are_homogeneous_throughout(hidden, between):
    test_random_graphs_that_are_homogeneous_throughout.hypothesis.inner_test(hidden, between)


@pytest.mark.slow
@MANY_RANDOM_GRAPHS
@given(**WITH_SUMS_AND_NORMS)
def test_many_random_graphs_with_sums_and_norms(steps, softmax_kernel):
    test_random_graphs_with_sums_and_norms.hypothesis.inner_test(steps, softmax_kernel)


# ---- batch normalisation ------------------------------------------------------------------


def test_norm_takes_away_the_scale_and_bias_before_it():
    model = sequential((3,), layers.Dense(4, name="before"), norm(name="norm"), layers.Dense(2))
    target = hn.Target(model, outputs="values")
    gauge = assert_a_gauge(target, ["before", "norm"], 1e-7)
    weights = some_weights(target)
    fixed = gauge(weights)
    kernel, bias, *_ = weights.trainable
    scale = np.sqrt(np.sum(kernel**2, 1) / 4)
    mean, variance = weights.state
    np.testing.assert_allclose(fixed.state[0], (mean - bias) / scale)
    np.testing.assert_allclose(fixed.state[1], variance / scale**2)


NORMS = {
    "after_relu": (lambda: [relu(name="a"), norm(name="b")], ["a", "b"]),
    "no_beta": (lambda: [relu(name="a"), norm(center=False, name="b")], ["a", "b"]),
    "no_gamma": (lambda: [relu(name="a"), norm(scale=False)], ["a"]),
    "neither": (lambda: [relu(name="a"), norm(scale=False, center=False)], ["a"]),
    "flattened": (lambda: [norm(name="a"), layers.Flatten(), norm(name="b")], ["a", "b"]),
    "no_bias": (lambda: [layers.Dense(3, use_bias=False, name="a"), norm(name="b")], ["a", "b"]),
}


@pytest.mark.parametrize("case", NORMS)
def test_norms(case):
    steps, led = NORMS[case]
    target = hn.Target(sequential((3, 2), *steps(), layers.Dense(2)))
    gauge = assert_a_gauge(target, led, 1e-7)
    assert all(step.shift is None for step in gauge.steps)


def test_a_bias_that_others_read_too_is_no_shift():
    def graph(x):
        hidden = layers.Dense(3, name="hidden")(x)
        return layers.Dense(2)(norm(name="norm")(hidden) + hidden)

    gauge = assert_a_gauge(hn.Target(functional((3,), graph)), ["hidden"], 1e-7)
    assert all(step.shift is None for step in gauge.steps)


class TestEpsilonOfNorms:
    """Channels of almost no variance, which Keras's epsilon of 1e-3 makes almost zero."""

    @pytest.fixture(autouse=True)
    def float32(self, float64):
        keras.config.set_dtype_policy("float32")

    def target(self):
        def graph(x):
            for filters in (4, 5):
                x = layers.Conv2D(filters, 3)(x)
                x = layers.ReLU()(layers.BatchNormalization()(x))
            return layers.Dense(3)(layers.GlobalAveragePooling2D()(x))

        return hn.Target(functional((8, 8, 2), graph), outputs="logits")

    def test_the_gauge_changes_no_output(self):
        target = self.target()
        theta = tf.random.stateless_normal([3, target.weight_count], [1, 2], stddev=0.02)
        x = np.random.default_rng(0).normal(size=(40, 8, 8, 2)).astype("float32")
        ensemble = hn.Ensemble(target, target.unflatten(theta)).update_batch_norm(x)
        variances = [ensemble.weights.state[index] for index, _ in target.statistics[1::2]]
        assert min(float(tf.reduce_min(v)) for v in variances) < 1e-3
        before = ensemble.outputs(x)
        fixed = hn.Gauge(target, epsilon=0.0)(ensemble.weights)
        after = hn.Ensemble(target, fixed, batch_norm_updated=True).outputs(x)
        np.testing.assert_allclose(
            after - after.mean(-1, keepdims=True),
            before - before.mean(-1, keepdims=True),
            atol=1e-5 * np.abs(before).max(),
        )
        anew = hn.Ensemble(target, fixed).update_batch_norm(x).outputs(x)
        # Epsilon does matter here: statistics that are computed anew give other outputs.
        assert np.abs(anew - after).max() > 0.01 * np.abs(before).max()

    def test_networks_trained_outside_the_gauge_keep_their_outputs(self):
        x = np.random.default_rng(0).normal(size=(40, 8, 8, 2)).astype("float32")
        samples = []
        for gauge in (False, True):
            keras.utils.set_random_seed(0)
            sampler = hn.DeepEnsemble(self.target(), num_networks=2, gauge=gauge)
            sampler.compile(loss=LOGITS)
            for variable in sampler.trainable_variables:
                variable.assign(0.1 * variable)
            sampler.batch_norm_data = x
            samples.append(sampler.sample(2))
        raw, fixed = (ensemble.outputs(x) for ensemble in samples)
        centred = [outputs - outputs.mean(-1, keepdims=True) for outputs in (raw, fixed)]
        np.testing.assert_allclose(*centred, atol=1e-5 * np.abs(raw).max())
        assert np.abs(samples[0].theta() - samples[1].theta()).max() > 0.1
