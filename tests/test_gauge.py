"""Fixing the gauge leaves the function alone, and gives one weight set of all equal ones."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import hypernet_tf as hn
from hypernet_tf.targets import gauge as gauge_module

layers = keras.layers
N, B = 2, 3
RANDOM_GRAPHS = settings(max_examples=20, deadline=None, derandomize=True)


# ---- helpers ------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def float64():
    """Layers compute with 53 bits, so that equal means equal to 1e-9."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(before)


def new_input(shape):
    return keras.Input(shape, dtype=keras.config.dtype_policy().name)


def sequential(shape, *steps):
    return keras.Sequential([new_input(shape), *steps])


def functional(shape, graph):
    inputs = new_input(shape)
    return keras.Model(inputs, graph(inputs))


def some_weights(target, seed=0):
    """Weights of order one, and a state that differs from the start's."""
    rng = np.random.default_rng(seed)
    dtype = keras.config.dtype_policy().name
    like = target.unflatten(tf.zeros([N, target.weight_count], dtype))
    trainable = [tf.constant(rng.normal(size=w.shape) + 0.1, dtype) for w in like.trainable]
    state = [s + rng.random(s.shape) if s.dtype.is_floating else s for s in like.state]
    return hn.WeightSet(trainable, state)


def some_inputs(target):
    return tf.constant(np.random.default_rng(1).normal(size=[N, B, *target.input_shape]))


def answers(target, weights):
    """The function that a weight set stands for: logits up to a constant, in both modes."""
    x = some_inputs(target)
    results = []
    for training in (False, True):
        for outputs in keras.tree.flatten(target(weights, x, training=training)):
            if target.outputs == "logits":
                outputs -= tf.reduce_mean(outputs, -1, keepdims=True)
            results.append(outputs)
    return results


def assert_same(ours, theirs, tolerance=1e-9):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max(initial=0))


def fixed_layers(gauge):
    return [layer.name for group in gauge.scales for layer in group.producers]


def times(tensor, factors, view, axis):
    """A weight tensor whose channels, on an axis of its view, are multiplied by factors [N, C]."""
    shape = [N, *(size if place == axis else 1 for place, size in enumerate(view))]
    return tf.reshape(tf.reshape(tensor, [N, *view]) * factors.reshape(shape), tensor.shape)


def rescaled(gauge, weights):
    """The same functions from other weights: each free filter times s, its consumers over s."""
    rng = np.random.default_rng(2)
    trainable = list(weights.trainable)
    dtype = trainable[0].dtype.as_numpy_dtype
    for group in gauge.scales:
        (layer,) = group.producers
        factors = np.exp(rng.normal(size=[N, layer.filters])).astype(dtype)
        for slot in layer.slots:
            trainable[slot.index] = times(trainable[slot.index], factors, slot.split, slot.axis)
        for index, view, axis in group.consumers:
            trainable[index] = times(trainable[index], 1 / factors, view, axis)
    if gauge.softmax_bias is not None:
        trainable[gauge.softmax_bias] += rng.normal(size=[N, 1]).astype(dtype)
    return hn.WeightSet(trainable, weights.state)


def moved_variables(before, after):
    pairs = enumerate(zip(before.trainable, after.trainable, strict=True))
    return {index for index, (a, b) in pairs if not np.array_equal(a, b)}


def assert_a_gauge(target, expected, tolerance=1e-9):
    """Everything that makes fixing a gauge: function, constraints, one representative."""
    gauge = hn.Gauge(target, epsilon=0.0)
    assert fixed_layers(gauge) == expected
    weights = some_weights(target)
    fixed = gauge(weights)
    assert fixed.state is weights.state
    moved = moved_variables(weights, fixed)
    touched = {slot.index for g in gauge.scales for layer in g.producers for slot in layer.slots}
    touched |= {index for group in gauge.scales for index, _, _ in group.consumers}
    assert moved == touched | ({gauge.softmax_bias} - {None})
    assert_same(answers(target, fixed), answers(target, weights), tolerance)
    rows = dict(
        zip([layer.name for layer in target.layers], target.rows(fixed.trainable), strict=True)
    )
    for name in expected:
        mean_square = tf.reduce_mean(rows[name] ** 2, -1)
        np.testing.assert_allclose(mean_square, np.ones(mean_square.shape), rtol=tolerance)
    if gauge.softmax_bias is not None:
        bias = fixed.trainable[gauge.softmax_bias]
        np.testing.assert_allclose(tf.reduce_sum(bias, -1), np.zeros(N), atol=tolerance)
    assert_same(gauge(fixed).trainable, fixed.trainable, tolerance)
    equal = rescaled(gauge, weights)
    assert_same(answers(target, equal), answers(target, weights), tolerance)
    assert moved_variables(weights, equal) == moved
    assert_same(gauge(equal).trainable, fixed.trainable, tolerance)
    return gauge


# ---- random graphs ------------------------------------------------------------------------

ACTIVATIONS = ("linear", "relu", "leaky_relu", "tanh", "sigmoid", "softmax", "relu6")
HOMOGENEOUS = ("linear", "relu", "leaky_relu")
STEPS = (
    *(f"weighted_{name}" for name in ACTIVATIONS),
    *(f"depthwise_{name}" for name in ("relu", "tanh")),
    *("relu", "relu_max", "leaky", "tanh", "softmax", "max_pool", "average_pool", "pad"),
    *("dropout", "batch_norm", "flatten", "global_pool", "residual", "twice", "ops", "reshape"),
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
            "batch_norm": layers.BatchNormalization(),
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
        elif step in ("residual", "twice"):
            if image:
                layer = layers.Conv2D(width, 2, padding="same", activation="relu")
            else:
                layer = layers.Dense(width, activation="relu")
            x = layers.Add()([x, layer(x)]) if step == "residual" else layer(layer(x))
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


# ---- which layers are fixed ---------------------------------------------------------------


def test_the_mnist_target():
    with_logits = hn.Target(hn.zoo.mnist(), outputs="logits")
    gauge = hn.Gauge(with_logits)
    assert fixed_layers(gauge) == [layer.name for layer in with_logits.layers[:3]]
    assert [group.consumers for group in gauge.scales] == [
        [(2, (5, 5, 32, 16), 2)],
        [(4, (49, 16, 8), 1)],
        [(6, (1, 8, 10), 1)],
    ]
    assert gauge.softmax_bias == 7
    as_values = hn.Gauge(hn.Target(hn.zoo.mnist(), outputs="values"))
    assert len(as_values.scales) == 3 and as_values.softmax_bias is None


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
}


def test_every_layer_that_passes_a_scale_has_a_case():
    assert set(gauge_module._HOMOGENEOUS) < set(PASSED)


@pytest.mark.parametrize("kind", PASSED, ids=lambda kind: kind.__name__)
def test_a_scale_passes(kind):
    rank, step = PASSED[kind]()
    tolerance = 1e-9
    if kind in (layers.MaxPooling3D, layers.AveragePooling3D):  # in TensorFlow float32 only
        keras.config.set_dtype_policy("float32")
        step, tolerance = kind(2), 1e-5
    target = hn.Target(
        sequential((3,) * rank + (2,), layers.Dense(2, name="before"), step, layers.Dense(2))
    )
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
    assert set(gauge_module._WEIGHTED) == set(WEIGHTED)


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
    "added_to_itself": lambda: functional(
        (4,), lambda x: layers.Dense(2)(layers.Add()([h := relu()(x), h]))
    ),
    "batch_norm": lambda: sequential((4,), relu(), layers.BatchNormalization(), layers.Dense(2)),
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
    "residual": lambda: functional(
        (3,), lambda x: layers.Dense(2)(layers.Add()([relu()(x), relu()(x)]))
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
    assert gauge.scales == () and gauge.softmax_bias is None
    for ours, theirs in zip(gauge(weights).trainable, weights.trainable, strict=True):
        assert ours is theirs


def test_channels_first_is_left_alone():
    steps = [layers.Conv2D(3, 2, activation="relu", data_format="channels_first") for _ in "ab"]
    assert hn.Gauge(hn.Target(sequential((2, 4, 4), *steps))).scales == ()


def test_channels_with_two_readers():
    def graph(x):
        hidden = layers.Conv1D(3, 2, activation="relu", name="hidden")(x)
        flat = layers.Dense(2, name="flat")(layers.Flatten()(hidden))
        pooled = layers.Dense(2, name="pooled")(layers.GlobalAveragePooling1D()(hidden))
        return layers.Subtract()([flat, pooled])

    target = hn.Target(functional((4, 2), graph))
    gauge = assert_a_gauge(target, ["hidden"])
    assert sorted(view for _, view, _ in gauge.scales[0].consumers) == [(1, 3, 2), (3, 3, 2)]


def test_one_reader_that_is_not_weighted_holds_the_channels():
    def graph(x):
        hidden = relu(name="hidden")(x)
        return layers.Concatenate()([layers.Dense(2)(hidden), layers.Activation("tanh")(hidden)])

    assert hn.Gauge(hn.Target(functional((4,), graph))).scales == ()


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
    assert gauge.scales[1].consumers == [(4, (3, 3, 2), 1)]


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
        ([lambda: layers.Dense(3), lambda: layers.BatchNormalization()], "logits", False),
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
