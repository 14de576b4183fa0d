"""N weight sets at once against the oracle: a loop of `stateless_call` over networks."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from target_models import (
    CASES,
    CONVOLUTIONS,
    B,
    N,
    assert_close,
    functional,
    loop,
    networks_differ,
    one_line_error,
    ops_graph,
    some_inputs,
    some_weights,
)

import hypernet_tf as hn

layers = keras.layers


def with_gradients(run, weights):
    """Outputs, new state, and the gradient of a random linear function of the outputs."""
    with tf.GradientTape() as tape:
        tape.watch(weights.trainable)
        outputs, state = run()
        rng = np.random.default_rng(5)
        total = sum(
            tf.reduce_sum(tf.cast(out, tf.float32) * rng.normal(size=out.shape).astype("float32"))
            for out in keras.tree.flatten(outputs)
        )
    return outputs, state, tape.gradient(total, weights.trainable)


# Shared inputs and training; the second pair is slow.
MODES = [[(True, False), (False, True)], [(True, True), (False, False)]]


# CPUs run convolutions unrolled unless they are told otherwise.
FAST_GROUPED = ("conv_2d_groups", "conv_then_dense", "residual")


@pytest.mark.parametrize("modes", [MODES[0], pytest.param(MODES[1], marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("case", "convolutions"),
    # A grouped convolution of the model itself runs in the same way in both settings.
    [(case, "unrolled") for case in CASES if case != "conv_2d_groups"]
    + [
        (case, "grouped")
        if case in FAST_GROUPED
        else pytest.param(case, "grouped", marks=pytest.mark.slow)
        for case in CONVOLUTIONS
    ],
)
def test_run_equals_the_loop(case, convolutions, modes):
    """Outputs, new state and gradients, for different and shared inputs, in both modes."""
    model = CASES[case]()
    target = hn.Target(model, convolutions=convolutions)
    weights = some_weights(target, model)
    # bfloat16 has 8 bits of mantissa: a sum in another order moves the last one.
    tolerance = 2e-2 if case == "mixed_precision" else 1e-5
    for shared, training in modes:
        x = some_inputs(model, *([B] if shared else [N, B]))
        runs = {
            "loop": functools.partial(loop, model, weights, x, shared=shared, training=training),
            "target": functools.partial(target.run, weights, x, training=training),
        }
        outputs, state, gradients = with_gradients(runs["loop"], weights)
        try:
            actual = with_gradients(runs["target"], weights)
        except tf.errors.InvalidArgumentError as error:
            half = case == "mixed_precision" and convolutions == "grouped"
            if half and "grouped convolutions are not supported on CPU" in str(error):
                pytest.skip("no gradients of grouped convolutions in bfloat16 on this processor")
            raise
        where = f"{shared=}, {training=}"
        assert networks_differ(keras.tree.flatten(outputs)[-1:]), where
        assert networks_differ(gradients), where
        assert_close(actual, (outputs, state, gradients), tolerance, where)


def test_run_equals_the_loop_for_an_unknown_batch_size():
    """As in a data set whose last batch is short."""
    model = CASES["conv_then_dense"]()
    for convolutions in ("unrolled", "grouped"):
        target = hn.Target(model, convolutions=convolutions)
        weights = some_weights(target, model)
        for batch in ([None], [N, None]):
            x = some_inputs(model, *batch[:-1], B)
            spec = tf.TensorSpec([*batch, 6, 6, 1])
            run = tf.function(lambda x, t=target, w=weights: t(w, x), input_signature=[spec])
            assert_close(run(x), loop(model, weights, x, shared=len(batch) == 1, training=False)[0])


FAST_UNKNOWN = ("dense", "conv_then_dense")


@pytest.mark.parametrize(
    "case", [c if c in FAST_UNKNOWN else pytest.param(c, marks=pytest.mark.slow) for c in CASES]
)
def test_run_equals_the_loop_for_an_unknown_number_of_networks(case):
    """Outputs, new state and gradients in a graph that knows neither N nor B."""
    model = CASES[case]()
    target = hn.Target(model)
    weights = some_weights(target, model)
    tolerance = 2e-2 if case == "mixed_precision" else 1e-5
    fast = case in FAST_UNKNOWN
    for shared, training in [(False, True)] if fast else [(False, True), (True, False)]:
        x = some_inputs(model, *([B] if shared else [N, B]))

        def unknown(tensor, axes):
            return tf.TensorSpec([*[None] * axes, *tensor.shape[axes:]], tensor.dtype)

        specs = (
            tf.nest.map_structure(lambda t: unknown(t, 1), weights),
            tf.nest.map_structure(lambda t, n=1 if shared else 2: unknown(t, n), x),
        )
        graph = tf.function(
            functools.partial(target.run, training=training), specs, autograph=False
        )
        oracle = functools.partial(loop, model, weights, x, shared=shared, training=training)
        results = []
        for run in (functools.partial(graph, weights, x), oracle):
            outputs, state, gradients = with_gradients(run, weights)
            # As one vector, because some of them are zero up to the rounding of the others.
            theta = tf.concat([tf.reshape(g, [N, -1]) for g in gradients], 1)
            results.append((outputs, state, theta))
        assert_close(*results, tolerance, f"{shared=}, {training=}")


@pytest.mark.parametrize("convolutions", ["unrolled", "grouped"])
def test_new_values_do_not_retrace(convolutions):
    model = CASES["conv_then_dense"]()
    target = hn.Target(model, convolutions=convolutions)
    traces = []

    @tf.function
    def run(theta, x):
        traces.append(1)
        return target(target.unflatten(theta), x, training=True)

    x = some_inputs(model, B)
    rng = np.random.default_rng(0)
    thetas = [tf.constant(rng.normal(size=[N, target.weight_count]), tf.float32) for _ in range(3)]
    results = [run(theta, x + float(i)) for i, theta in enumerate(thetas)]
    assert networks_differ(results)
    assert len(traces) == 1


def test_inputs_are_cast_as_keras_casts_them():
    model = functional((4,), ops_graph)
    target = hn.Target(model)
    weights = some_weights(target, model)
    for x in (np.arange(8, dtype="uint8").reshape(2, 4), np.ones((2, 4)), [[1, 2, 3, 4]]):
        x = x if isinstance(x, np.ndarray) else tf.constant(x)
        expected = loop(model, weights, tf.cast(x, tf.float32), shared=True, training=False)[0]
        assert_close(target(weights, x), expected)


def test_a_dict_of_inputs_is_read_by_name():
    b, a = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    model = keras.Model([b, a], layers.Dense(2)(b) - a[:, :2])
    target = hn.Target(model)
    weights = some_weights(target, model)
    x = {"a": tf.zeros([B, 3]), "b": tf.ones([B, 3]), "unused": tf.ones([B])}
    assert_close(target(weights, x), target(weights, [x["b"], x["a"]]))
    assert not np.allclose(target(weights, x), target(weights, [x["a"], x["b"]]))
    with one_line_error("Inputs are missing", "a. Given are b; a data set of dictionaries"):
        target(weights, {"b": x["b"]})


def test_data_sets_that_do_not_know_their_shape_say_what_to_do():
    target = hn.Target(CASES["conv_2d"]())
    with pytest.raises(ValueError, match=r"does not know the shape of its inputs: give from_gene"):
        target.check_inputs(tf.TensorSpec(None))


def test_inputs_that_do_not_fit_raise():
    model = CASES["conv_2d"]()
    target = hn.Target(model)
    weights = some_weights(target, model)
    with one_line_error("[B, 6, 6, 2]", "[N, B, 6, 6, 2]", "(4, 6, 6, 3)"):
        target(weights, tf.zeros([B, 6, 6, 3]))
    with one_line_error("[B, 6, 6, 2]", "(6, 6, 2)"):
        target(weights, tf.zeros([6, 6, 2]))
    with one_line_error("Cannot run 3 networks on inputs for 2 networks"):
        target(weights, tf.zeros([2, B, 6, 6, 2]))
    with one_line_error("takes 1 inputs, but 2 were given"):
        target(weights, [tf.zeros([B, 6, 6, 2])] * 2)
