"""Fixing the gauge leaves the function alone, and gives one weight set of all equal ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import Graph, N, answers, assert_same, new_input, some_steps, some_weights

import hypernet_tf as hn
from hypernet_tf.gauge import channels

layers = keras.layers
RANDOM_GRAPHS = settings(max_examples=12, deadline=None, derandomize=True)


# ---- helpers ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def float64():
    """Layers compute with 53 bits, so that equal means equal to 1e-9."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def sequential(shape, *steps):
    return keras.Sequential([new_input(shape), *steps])


def functional(shape, graph):
    inputs = new_input(shape)
    return keras.Model(inputs, graph(inputs))


def first_filters(gauge):
    """For each layer with generated weights which filters are the first to have their scale."""
    seen, first = {0}, {}
    for step in gauge.steps:
        new = [own not in seen and not seen.add(own) for own in step.makes.tolist()]
        if any(new):
            first[step.layer.name] = np.array(new)
    return first


def fixed_layers(gauge):
    first = first_filters(gauge)
    assert all(new.all() for new in first.values())
    return list(first)


def rescaled(gauge, weights):
    """The same functions from other weights: all of a scale times s, its readers over s."""
    rng = np.random.default_rng(2)
    trainable, state = list(weights.trainable), list(weights.state)
    dtype = trainable[0].dtype.as_numpy_dtype
    size = 2 + max((own for s in gauge.steps for own in (*s.reads, *s.makes)), default=0)
    table = np.exp(rng.normal(size=[N, size])).astype(dtype)
    table[:, [0, -1]] = 1.0  # held, and zero

    def times(tensor, factors, view, axis):
        shape = [N, *(len(factors[0]) if place == axis else 1 for place in range(len(view)))]
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
    if gauge.softmax_bias is not None:
        trainable[gauge.softmax_bias] += rng.normal(size=[N, 1]).astype(dtype)
    if gauge.softmax_kernel is not None:
        kernel = trainable[gauge.softmax_kernel]
        trainable[gauge.softmax_kernel] += rng.normal(size=[*kernel.shape[:-1], 1]).astype(dtype)
    return hn.WeightSet(trainable, state)


def moved(before, after):
    pairs = enumerate(zip(before, after, strict=True))
    return {index for index, (a, b) in pairs if not np.array_equal(a, b)}


def touched(gauge):
    """The variables that the gauge may change: trainable ones, and state."""
    trainable, state = {gauge.softmax_bias, gauge.softmax_kernel} - {None}, set()
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
    """Everything that makes fixing a gauge: function, constraints, one representative.

    Args:
        expected: layers of which all filters are the first of their scale, or layer -> how many
            are.
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
    assert_same(answers(target, fixed), answers(target, weights), tolerance)
    for name, new in first.items():
        rows = rows_of[name].rows([fixed.trainable[s.index] for s in rows_of[name].slots])
        mean_square = tf.reduce_mean(rows**2, -1).numpy()[:, new]
        np.testing.assert_allclose(mean_square, np.ones(mean_square.shape), rtol=tolerance)
    for index in {gauge.softmax_bias, gauge.softmax_kernel} - {None}:
        total = tf.reduce_sum(fixed.trainable[index], -1)
        np.testing.assert_allclose(total, np.zeros(total.shape), atol=tolerance)
    for step in gauge.steps:
        if step.shift is not None:
            np.testing.assert_array_equal(fixed.trainable[step.shift], 0)
    again = gauge(fixed)
    assert_same(again.trainable, fixed.trainable, tolerance)
    assert_same(again.state, fixed.state, tolerance)
    equal = rescaled(gauge, weights)
    assert_same(answers(target, equal), answers(target, weights), tolerance)
    assert moved(weights.trainable, equal.trainable) == changed[0]
    assert_same(gauge(equal).trainable, fixed.trainable, tolerance)
    assert_same(gauge(equal).state, fixed.state, tolerance)
    return gauge


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
    """A model of the steps that fit, and the names of the layers whose scale is free.

    `open_` is the layer whose channels have a free scale so far; a weighted layer that reads them
    closes it, and anything that is not homogeneous loses it.
    """
    x = inputs = new_input(shape)
    free, open_ = [], None
    for place, step in enumerate(steps):
        kind, _, activation = step.partition("_")
        image = len(x.shape) == 4
        name = f"layer{place}"
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
            free += [open_] if open_ else []
            open_ = name if activation in HOMOGENEOUS else None
        elif step in passes:
            x = passes[step](x)
        elif step in stops:
            x, open_ = stops[step](x), None
        elif step in ("product", "twice"):
            if image:
                layer = layers.Conv2D(width, 2, padding="same", activation="relu")
            else:
                layer = layers.Dense(width, activation="relu")
            x = layers.Multiply()([x, layer(x)]) if step == "product" else layer(layer(x))
            open_ = None
        elif step == "ops":
            x, open_ = x * 0.5, None
        elif step == "reshape":
            x, open_ = layers.Reshape(x.shape[1:])(x), None
    if len(x.shape) == 4:
        x = layers.Flatten()(x)
    x = layers.Dense(3, activation="softmax" if ending == "probabilities" else None)(x)
    free += [open_] if open_ else []
    return hn.Target(keras.Model(inputs, x), outputs=ending), free


@RANDOM_GRAPHS
@given(
    steps=st.lists(st.sampled_from(STEPS), min_size=2, max_size=7),
    ending=st.sampled_from(("logits", "probabilities", "values")),
)
def test_random_convolutional_graphs(steps, ending):
    target, free = build((3, 4, 2), steps, ending)
    gauge = assert_a_gauge(target, free)
    assert (gauge.softmax_bias is None) == (ending == "values")


@RANDOM_GRAPHS
@given(
    hidden=st.lists(st.sampled_from(["relu", "leaky_relu", "linear"]), min_size=1, max_size=4),
    between=st.sampled_from(["dropout", "leaky", "flatten", "relu"]),
)
def test_random_graphs_that_are_homogeneous_throughout(hidden, between):
    steps = [step for name in hidden for step in (f"weighted_{name}", between)]
    target, free = build((2, 3, 2), steps, "logits")
    assert len(free) == len(hidden)
    assert_a_gauge(target, free)


@RANDOM_GRAPHS
@given(steps=some_steps, softmax_kernel=st.booleans())
def test_random_graphs_with_sums_and_norms(steps, softmax_kernel):
    graph = Graph(steps)
    gauge = assert_a_gauge(graph.target, graph.led, 1e-7, softmax_kernel=softmax_kernel)
    assert (gauge.softmax_kernel is not None) == softmax_kernel
    theta = graph.target.flatten(some_weights(graph.target))
    with tf.GradientTape() as tape:
        tape.watch(theta)
        fixed = gauge(graph.target.unflatten(theta))
        total = tf.reduce_sum(tf.sin(graph.target.flatten(fixed)))
    assert np.isfinite(tape.gradient(total, theta)).all()


# ---- which layers are fixed ---------------------------------------------------------------


def test_the_mnist_target():
    with_logits = hn.Target(hn.zoo.mnist(), outputs="logits")
    gauge = hn.Gauge(with_logits)
    assert fixed_layers(gauge) == [layer.name for layer in with_logits.layers[:3]]
    first, second, third = (step.makes.tolist() for step in gauge.steps[:3])
    reads = [(step.layer.slots[0].index, step.axis, step.reads.tolist()) for step in gauge.steps]
    assert reads == [(0, 3, [0]), (2, 3, first), (4, 1, 49 * second), (6, 1, third)]
    assert gauge.softmax_bias == 7
    as_values = hn.Gauge(hn.Target(hn.zoo.mnist(), outputs="values"))
    assert len(as_values.steps) == 4 and as_values.softmax_bias is None


PASSED = {
    layers.LeakyReLU: lambda: (1, layers.LeakyReLU()),
    layers.Dropout: lambda: (1, layers.Dropout(0.3)),
    layers.SpatialDropout1D: lambda: (1, layers.SpatialDropout1D(0.3)),
    layers.SpatialDropout2D: lambda: (2, layers.SpatialDropout2D(0.3)),
    layers.SpatialDropout3D: lambda: (3, layers.SpatialDropout3D(0.3)),
    **{
        kind: lambda kind=kind, rank=rank: (rank, kind(2))
        for pair in ("MaxPooling{}D", "AveragePooling{}D", "UpSampling{}D")
        for rank in (1, 2, 3)
        for kind in [getattr(layers, pair.format(rank))]
    },
    **{
        kind: lambda kind=kind, rank=rank: (rank, kind(keepdims=True))
        for pair in ("GlobalMaxPooling{}D", "GlobalAveragePooling{}D")
        for rank in (1, 2, 3)
        for kind in [getattr(layers, pair.format(rank))]
    },
    **{
        kind: lambda kind=kind, rank=rank: (rank, kind(1))
        for pair in ("ZeroPadding{}D", "Cropping{}D")
        for rank in (1, 2, 3)
        for kind in [getattr(layers, pair.format(rank))]
    },
    layers.ReLU: lambda: (1, layers.ReLU()),
    layers.Activation: lambda: (1, layers.Activation("relu")),
    layers.Flatten: lambda: (2, layers.Flatten()),
    layers.Reshape: lambda: (2, layers.Reshape((-1,))),
    layers.Identity: lambda: (1, layers.Identity()),
    keras.ops.relu: lambda: (1, keras.ops.relu),
    keras.activations.relu: lambda: (1, keras.activations.relu),
}


def test_every_layer_that_passes_a_scale_has_a_case():
    assert set(channels.HOMOGENEOUS) < set(PASSED)


@pytest.mark.parametrize("kind", PASSED, ids=lambda kind: kind.__name__)
def test_a_scale_passes(kind):
    rank, step = PASSED[kind]()
    tolerance = 1e-9
    if kind in (layers.MaxPooling3D, layers.AveragePooling3D):  # in TensorFlow float32 only
        keras.config.set_dtype_policy("float32")
        step, tolerance = kind(2), 1e-5
    before, after = layers.Dense(2, name="before"), layers.Dense(2)
    target = hn.Target(functional((3,) * rank + (2,), lambda x: after(step(before(x)))))
    assert_a_gauge(target, ["before"], tolerance)


WEIGHTED = {
    layers.Dense: ((4,), lambda **kwargs: layers.Dense(3, **kwargs)),
    layers.Conv1D: ((4, 2), lambda **kwargs: layers.Conv1D(3, 2, **kwargs)),
    layers.Conv2D: ((3, 4, 2), lambda **kwargs: layers.Conv2D(3, 2, **kwargs)),
    layers.Conv3D: ((3, 3, 4, 2), lambda **kwargs: layers.Conv3D(3, 2, **kwargs)),
    layers.Conv1DTranspose: ((3, 2), lambda **kwargs: layers.Conv1DTranspose(3, 2, **kwargs)),
    layers.Conv2DTranspose: ((2, 3, 2), lambda **kwargs: layers.Conv2DTranspose(3, 2, **kwargs)),
    layers.Conv3DTranspose: (
        (2, 2, 2, 2),
        lambda **kwargs: layers.Conv3DTranspose(3, 2, **kwargs),
    ),
    layers.DepthwiseConv1D: (
        (4, 2),
        lambda **kwargs: layers.DepthwiseConv1D(2, depth_multiplier=2, **kwargs),
    ),
    layers.DepthwiseConv2D: (
        (3, 4, 2),
        lambda **kwargs: layers.DepthwiseConv2D(2, depth_multiplier=2, **kwargs),
    ),
}


def test_every_weighted_layer_has_a_case():
    assert set(channels.WEIGHTED) == set(WEIGHTED)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("kind", WEIGHTED, ids=lambda kind: kind.__name__)
def test_a_layer_makes_and_reads_channels(kind, bias):
    shape, make = WEIGHTED[kind]
    target = hn.Target(
        sequential(
            shape,
            make(activation="relu", use_bias=bias, name="first"),
            make(activation="leaky_relu", use_bias=bias, name="second"),
            layers.Flatten(),
            layers.Dense(2),
        )
    )
    assert_a_gauge(target, ["first", "second"])


def called_twice():
    dense = layers.Dense(3, activation="relu", name="shared")
    return functional((3,), lambda x: layers.Dense(2)(dense(dense(x))))


def read_by_a_layer_called_twice():
    dense = layers.Dense(2, name="shared")

    def graph(x):
        first, second = layers.Dense(3, activation="relu")(x), layers.Dense(3)(x)
        return layers.Add()([dense(first), dense(second)])

    return functional((3,), graph)


def frozen(layer):
    layer.trainable = False
    return layer


class Doubled(layers.Dense):
    """Not a Dense to the gauge: its call may be anything."""

    def call(self, inputs, training=None):
        return 2.0 * super().call(inputs, training=training)


def norm(**kwargs):
    """Batch normalisation that takes a scale away, but for 1e-12."""
    return layers.BatchNormalization(epsilon=1e-12, **kwargs)


def relu(units=3, **kwargs):
    return layers.Dense(units, activation="relu", **kwargs)


LEFT_ALONE = {
    "tanh_activation": lambda: sequential(
        (4,), layers.Dense(3, activation="tanh"), layers.Dense(2)
    ),
    "tanh_layer": lambda: sequential((4,), relu(), layers.Activation("tanh"), layers.Dense(2)),
    "relu_with_a_ceiling": lambda: sequential(
        (4,), layers.Dense(3), layers.ReLU(max_value=6.0), layers.Dense(2)
    ),
    "relu_with_a_threshold": lambda: sequential(
        (4,), layers.Dense(3), layers.ReLU(threshold=1.0), layers.Dense(2)
    ),
    "elu": lambda: sequential((4,), layers.Dense(3), layers.ELU(), layers.Dense(2)),
    "prelu": lambda: sequential((4,), layers.Dense(3), layers.PReLU(), layers.Dense(2)),
    "noise": lambda: sequential((4,), relu(), layers.GaussianNoise(0.1), layers.Dense(2)),
    "permuted": lambda: sequential((3, 3), relu(), layers.Permute((2, 1)), layers.Dense(2)),
    "product": lambda: functional(
        (4,), lambda x: layers.Dense(2)(layers.Multiply()([h := relu()(x), h]))
    ),
    "norm_of_another_axis": lambda: sequential(
        (4, 3), relu(), layers.BatchNormalization(axis=1), layers.Dense(2)
    ),
    "frozen_norm": lambda: sequential(
        (4,), relu(), frozen(layers.BatchNormalization()), layers.Dense(2)
    ),
    "renorm": lambda: sequential(
        (4,), relu(), layers.BatchNormalization(renorm=True), layers.Dense(2)
    ),
    "norm_called_twice": lambda: functional(
        (4,), lambda x: layers.Dense(2)((norm := layers.BatchNormalization())(norm(relu()(x))))
    ),
    "layer_norm": lambda: sequential((4,), relu(), layers.LayerNormalization(), layers.Dense(2)),
    "channels_mixed_by_reshape": lambda: sequential(
        (4, 4), relu(2), layers.Reshape((2, 4)), layers.Dense(2)
    ),
    "groups_made": lambda: sequential(
        (3, 3, 2),
        layers.Conv2D(2, 2, groups=2, activation="relu"),
        layers.Flatten(),
        layers.Dense(2),
    ),
    "groups_read": lambda: sequential((3, 3, 2), relu(2), layers.Conv2D(2, 2, groups=2)),
    "recurrent": lambda: sequential((3, 2), relu(), layers.SimpleRNN(2)),
    "frozen_reader": lambda: sequential((4,), relu(), frozen(layers.Dense(2))),
    "frozen_maker": lambda: sequential((4,), frozen(relu()), layers.Dense(2)),
    "subclass_reads": lambda: sequential((4,), relu(), Doubled(2)),
    "subclass_makes": lambda: sequential((4,), Doubled(3), layers.Dense(2)),
    "called_twice": called_twice,
    "read_by_a_layer_called_twice": read_by_a_layer_called_twice,
    "sum_with_the_input": lambda: functional((3,), lambda x: layers.Dense(2)(relu()(x) + x)),
    "sum_with_one_column": lambda: functional(
        (3,), lambda x: layers.Dense(2)(relu()(x) + relu(1)(x))
    ),
    "sum_of_other_ranks": lambda: functional(
        (3, 3), lambda x: layers.Dense(2)(relu()(x) + layers.GlobalMaxPooling1D()(relu()(x)))
    ),
    "operation": lambda: functional((3,), lambda x: layers.Dense(2)(relu()(x) + 1.0)),
    "no_reader": lambda: sequential((4,), relu()),
    "an_output_too": lambda: functional((3,), lambda x: (h := relu()(x), layers.Dense(2)(h))),
    "an_output_after_pooling": lambda: functional(
        (4, 3), lambda x: (layers.GlobalMaxPooling1D()(h := relu()(x)), layers.Dense(2)(h))
    ),
}


@pytest.mark.parametrize("case", LEFT_ALONE)
def test_a_scale_that_is_not_free_is_left_alone(case):
    target = hn.Target(LEFT_ALONE[case](), outputs="values")
    weights = some_weights(target)
    gauge = hn.Gauge(target, epsilon=0.0)
    assert gauge.steps == () and gauge.softmax_bias is None
    for ours, theirs in zip(gauge(weights).trainable, weights.trainable, strict=True):
        assert ours is theirs


def test_channels_first_is_left_alone():
    steps = [layers.Conv2D(3, 2, activation="relu", data_format="channels_first") for _ in "ab"]
    assert hn.Gauge(hn.Target(sequential((2, 4, 4), *steps))).steps == ()


def test_channels_with_two_readers():
    def graph(x):
        hidden = layers.Conv1D(3, 2, activation="relu", name="hidden")(x)
        flat = layers.Dense(2, name="flat")(layers.Flatten()(hidden))
        pooled = layers.Dense(2, name="pooled")(layers.GlobalAveragePooling1D()(hidden))
        return layers.Subtract()([flat, pooled])

    target = hn.Target(functional((4, 2), graph))
    gauge = assert_a_gauge(target, ["hidden"])
    assert [len(step.reads) for step in gauge.steps] == [2, 9, 3]


def test_one_reader_that_is_not_weighted_holds_the_channels():
    def graph(x):
        hidden = relu(name="hidden")(x)
        return layers.Concatenate()([layers.Dense(2)(hidden), layers.Activation("tanh")(hidden)])

    assert hn.Gauge(hn.Target(functional((4,), graph))).steps == ()


def test_dense_on_sequences_then_flatten():
    target = hn.Target(
        sequential(
            (3, 2),
            relu(name="a"),
            relu(name="b"),
            layers.Flatten(),
            layers.Flatten(),
            layers.Dense(2),
        )
    )
    gauge = assert_a_gauge(target, ["a", "b"])
    assert gauge.steps[2].reads.tolist() == 3 * gauge.steps[1].makes.tolist()


def test_nested_models_are_seen_through():
    nested = sequential((3,), layers.ReLU(), layers.Dense(2, name="inner"), layers.LeakyReLU())
    target = hn.Target(sequential((3,), layers.Dense(3, name="outer"), nested, layers.Dense(2)))
    assert_a_gauge(target, ["outer", "inner"])


def test_nested_models_called_twice_are_left_alone():
    nested = sequential((3,), relu(), relu())
    steps = (nested, layers.ReLU(), layers.Dense(3), nested, relu(name="after"), layers.Dense(2))

    def graph(x):
        for step in steps:
            x = step(x)
        return x

    assert_a_gauge(hn.Target(functional((3,), graph)), ["after"])


# ---- sums and batch normalisation ----------------------------------------------------------

MERGED = {
    **{kind.__name__: lambda pair, kind=kind: kind()(pair) for kind in channels.MERGES},
    "pixels": lambda pair: layers.Concatenate(axis=1)(pair),
    "+": lambda pair: pair[0] + pair[1],
    "-": lambda pair: pair[0] - pair[1],
    "maximum": lambda pair: keras.ops.maximum(*pair),
    "minimum": lambda pair: keras.ops.minimum(*pair),
}


@pytest.mark.parametrize("merge", MERGED)
def test_merged_channels_share_a_scale(merge):
    def graph(x):
        pair = [relu(name="first")(x), relu(name="second")(x)]
        return layers.Dense(2)(MERGED[merge](pair))

    gauge = assert_a_gauge(hn.Target(functional((4, 2), graph)), ["first"])
    first, second, reader = gauge.steps
    assert first.makes.tolist() == second.makes.tolist() == reader.reads.tolist()


def test_channels_added_to_themselves():
    model = functional((4,), lambda x: layers.Dense(2)((h := relu(name="hidden")(x)) + h))
    assert_a_gauge(hn.Target(model), ["hidden"])


def test_zeros_tie_nothing():
    """A channel that padding adds takes the scale of what is added to it, held or not."""

    def graph(x):
        narrow = layers.Conv2D(1, 1, name="narrow")(x)
        pad = layers.ZeroPadding2D(((0, 0), (1, 1)), data_format="channels_first")
        wide = layers.Concatenate()([layers.Conv2D(2, 1, name="wide")(x), x])
        return layers.Conv2D(2, 1)(layers.ReLU()(pad(narrow) + wide))

    gauge = assert_a_gauge(hn.Target(functional((2, 2, 1), graph)), ["wide"])
    free = {step.layer.name: (step.makes > 0).tolist() for step in gauge.steps}
    assert free["wide"] == [True, True] and free["narrow"] == [True]


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


@pytest.mark.parametrize("kind", [tf.Variable, np.array])
def test_variables_and_arrays_are_not_changed(kind):
    target = hn.Target(sequential((3,), layers.Dense(4), norm(), layers.Dense(2)), outputs="logits")
    weights = some_weights(target)
    given = hn.WeightSet(*([kind(w) for w in own] for own in weights))
    gauge = hn.Gauge(target, softmax_kernel=True, permutation=True)
    fixed = gauge(given)
    for ours, theirs in zip(fixed, gauge(weights), strict=True):
        assert_same(ours, theirs, 0.0)
        assert all(tf.is_tensor(own) for own in ours)
    for ours, theirs in zip(given, weights, strict=True):
        assert_same(ours, theirs, 0.0)


def test_a_bias_that_others_read_too_is_no_shift():
    def graph(x):
        hidden = layers.Dense(3, name="hidden")(x)
        return layers.Dense(2)(norm(name="norm")(hidden) + hidden)

    gauge = assert_a_gauge(hn.Target(functional((3,), graph)), ["hidden"], 1e-7)
    assert all(step.shift is None for step in gauge.steps)


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


# ---- the softmax --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "outputs", "found"),
    [
        ([lambda: layers.Dense(3)], "logits", True),
        ([lambda: layers.Dense(3), lambda: layers.Activation("linear")], "logits", True),
        ([lambda: layers.Dense(3, activation="softmax")], "probabilities", True),
        ([lambda: layers.Dense(3), lambda: layers.Softmax()], "probabilities", True),
        ([lambda: layers.Dense(3), lambda: layers.Activation("softmax")], "probabilities", True),
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
def test_the_bias_of_a_softmax(steps, outputs, found):
    target = hn.Target(sequential((4,), *[step() for step in steps]), outputs=outputs)
    gauge = hn.Gauge(target, epsilon=0.0)
    assert (gauge.softmax_bias is not None) == found
    if not found:
        weights = some_weights(target)
        last = [v for v in gauge(weights).trainable]
        assert_same(last[-1:], weights.trainable[-1:], 0.0)
    assert_same(answers(target, gauge(some_weights(target))), answers(target, some_weights(target)))


@pytest.mark.parametrize("made", [lambda y: y, lambda y: [y], lambda y: {"y": y}])
def test_an_output_is_one_however_it_is_returned(made):
    def ending(x):
        return made(layers.Softmax()(layers.Flatten()(layers.Conv2D(5, 1)(x))))

    target = hn.Target(functional((1, 1, 4), ending))
    weights = some_weights(target)
    gauge = hn.Gauge(target, epsilon=0.0, softmax_kernel=True)
    assert (gauge.softmax_kernel, gauge.softmax_bias) == (0, 1)
    x = np.random.default_rng(0).normal(size=(3, 1, 1, 4))
    before, after = (keras.tree.flatten(target(w, x))[0] for w in (weights, gauge(weights)))
    np.testing.assert_allclose(after, before, rtol=1e-6)


def test_a_softmax_over_another_axis_is_not_one_of_classes():
    target = hn.Target(sequential((6, 5), layers.Dense(4), layers.Softmax(axis=1)))
    assert (target.outputs, target.classes) == ("values", None)
    gauge = hn.Gauge(target, softmax_kernel=True)
    assert (gauge.softmax_kernel, gauge.softmax_bias) == (None, None)


@pytest.mark.parametrize(
    ("kind", "permutation"),
    [
        *((kind, False) for kind in channels.MERGES if kind is not layers.Subtract),
        (layers.Multiply, True),
        (layers.Concatenate, False),
    ],
)
def test_a_constant_in_a_merge_holds_what_is_merged_with_it(kind, permutation):
    constant = np.arange(1.0, 5.0).reshape(1, 4).repeat(5, 0)

    def graph(x):
        dense = [layers.Dense(4, activation="relu")(x) for _ in range(2)]
        return layers.Dense(3)(kind()([*dense, constant]))

    target = hn.Target(functional((6,), graph))
    gauge = hn.Gauge(target, epsilon=0.0, permutation=permutation)
    weights, x = some_weights(target), np.random.default_rng(0).normal(size=(5, 6))
    np.testing.assert_allclose(target(gauge(weights), x), target(weights, x), rtol=1e-6)


def test_a_softmax_per_pixel():
    target = hn.Target(sequential((3, 3, 1), layers.Conv2D(3, 2)), outputs="logits")
    assert assert_a_gauge(target, []).softmax_bias == 1


def test_no_softmax_where_there_are_two_outputs():
    model = functional((4,), lambda x: [layers.Dense(3)(x), layers.Dense(3)(x)])
    assert hn.Gauge(hn.Target(model, outputs="logits")).softmax_bias is None


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
    """For weights of order one it is invisible; below 1e-4 it is what counts."""
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


def test_negative_epsilon_is_refused():
    with pytest.raises(ValueError, match="epsilon is not negative, not -1e-08") as caught:
        hn.Gauge(hn.Target(sequential((4,), layers.Dense(3))), epsilon=-1e-8)
    assert "\n" not in str(caught.value)


def test_gradients_pass_through_the_gauge():
    """Along a free scale nothing changes: the gradient has no part in that direction."""
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
