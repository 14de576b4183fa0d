"""The gauge: equal functions, one weight set for all its equals, and nothing else touched."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import hypernet_tf as hn

layers = keras.layers
N, B = 3, 4
RANDOM = settings(max_examples=15, deadline=None, derandomize=True)


# ---- random graphs ------------------------------------------------------------------------


class Builder:
    """Builds a model step by step, and knows in its own way which layers have a free scale.

    `pending` is the layer whose scale still travels with the channels of `x`: it turns out free
    when the next weighted layer reads them, and tied when anything but a homogeneous step does.
    """

    def __init__(self, shape):
        self.inputs = self.x = keras.Input(shape)
        self.pending, self.free = None, set()

    def weighted(self, layer):
        self.x = layer(self.x)
        if self.pending:
            self.free.add(self.pending.name)
        scales = (keras.activations.linear, keras.activations.relu, keras.activations.leaky_relu)
        self.pending = layer if layer.activation in scales else None

    def passes(self, layer):
        self.x = layer(self.x)

    def holds(self, step):
        self.x, self.pending = step(self.x), None

    def model(self):
        return keras.Model(self.inputs, self.x)


def relu_conv(channels, **more):
    return layers.Conv2D(channels, 3, padding="same", activation="relu", **more)


def residual(x):
    return layers.Add()([x, relu_conv(x.shape[-1])(x)])


def called_twice(x):
    layer = relu_conv(x.shape[-1]) if len(x.shape) == 4 else layers.Dense(x.shape[-1], "relu")
    return layer(layer(x))


ANYWHERE = {
    "relu": lambda b: b.passes(layers.ReLU()),
    "leaky": lambda b: b.passes(layers.LeakyReLU(0.2)),
    "leaky_activation": lambda b: b.passes(layers.Activation("leaky_relu")),
    "dropout": lambda b: b.passes(layers.Dropout(0.5)),
    "tanh": lambda b: b.holds(layers.Activation("tanh")),
    "relu6": lambda b: b.holds(layers.ReLU(max_value=6.0)),
    "batch_norm": lambda b: b.holds(layers.BatchNormalization()),
    "called_twice": lambda b: b.holds(called_twice),
}
ON_IMAGES = ANYWHERE | {
    "conv": lambda b: b.weighted(relu_conv(3)),
    "conv_linear": lambda b: b.weighted(layers.Conv2D(2, 2, strides=2, padding="same")),
    "conv_no_bias": lambda b: b.weighted(relu_conv(2, use_bias=False)),
    "conv_tanh": lambda b: b.weighted(layers.Conv2D(2, 2, padding="same", activation="tanh")),
    "depthwise": lambda b: b.weighted(
        layers.DepthwiseConv2D(2, depth_multiplier=2, padding="same", activation="leaky_relu")
    ),
    "transpose": lambda b: b.weighted(layers.Conv2DTranspose(3, 2, activation="relu")),
    "dense_on_pixels": lambda b: b.weighted(layers.Dense(3, activation="relu")),
    "max": lambda b: b.passes(layers.MaxPooling2D(2, padding="same")),
    "average": lambda b: b.passes(layers.AveragePooling2D(2, padding="same")),
    "spatial_dropout": lambda b: b.passes(layers.SpatialDropout2D(0.5)),
    "padding": lambda b: b.passes(layers.ZeroPadding2D(1)),
    "residual": lambda b: b.holds(residual),
}
ON_VECTORS = ANYWHERE | {
    "dense": lambda b: b.weighted(layers.Dense(4, activation="relu")),
    "dense_no_bias": lambda b: b.weighted(layers.Dense(3, activation="relu", use_bias=False)),
    "dense_tanh": lambda b: b.weighted(layers.Dense(3, activation="tanh")),
}
TO_VECTORS = {
    "flatten": lambda b: b.passes(layers.Flatten()),
    "global_max": lambda b: b.passes(layers.GlobalMaxPooling2D()),
    "global_average": lambda b: b.passes(layers.GlobalAveragePooling2D()),
}
GRAPHS = {
    "on_images": st.lists(st.sampled_from(sorted(ON_IMAGES)), min_size=1, max_size=5),
    "between": st.sampled_from(sorted(TO_VECTORS)),
    "on_vectors": st.lists(st.sampled_from(sorted(ON_VECTORS)), max_size=3),
    "outputs": st.sampled_from(["logits", "probabilities", "values"]),
    "seed": st.integers(0, 2**16),
}


def build(on_images, between, on_vectors, outputs):
    """A target, and the names of the layers whose scale is free."""
    builder = Builder((5, 5, 2))
    for step in on_images:
        ON_IMAGES[step](builder)
    TO_VECTORS[between](builder)
    for step in on_vectors:
        ON_VECTORS[step](builder)
    builder.weighted(layers.Dense(3, "softmax" if outputs == "probabilities" else None))
    return hn.Target(builder.model(), outputs=outputs), builder.free


# ---- helpers ------------------------------------------------------------------------------


def some_weights(target, seed=0, scale=1.0, count=N):
    """Weights of order one, different for each network; moving statistics too."""
    rng = np.random.default_rng(seed)
    theta = scale * rng.normal(size=[count, target.weight_count])
    weights = target.unflatten(tf.constant(theta, tf.float32))
    state = [
        s + rng.uniform(size=s.shape).astype("float32") if s.dtype == tf.float32 else s
        for s in weights.state
    ]
    return hn.WeightSet(weights.trainable, state)


def some_inputs(target, seed=0):
    rng = np.random.default_rng(seed)
    return tf.constant(rng.normal(size=[B, *target.input_shape]), tf.float32)


def assert_close(ours, expected, tolerance=2e-5):
    """Up to the rounding of float32 through a few layers, relative to the largest value."""
    for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


def assert_same_function(target, before, after, x):
    """Equal outputs; of logits, which are free up to one number, what the softmax sees."""
    outputs = [target(weights, x) for weights in (after, before)]
    if target.outputs == "logits":
        assert_close(*map(tf.nn.softmax, outputs))
        outputs = [out - tf.reduce_mean(out, -1, keepdims=True) for out in outputs]
    assert_close(*outputs)


def names(gauge):
    return [producer.name for group in gauge.scales for producer in group.producers]


def index_of(target, name, slot=0):
    (layer,) = (layer for layer in target.layers if layer.name == name)
    return layer.slots[slot].index


def changed(before, after):
    """Which variables the gauge changes."""
    return {
        i
        for i, (a, b) in enumerate(zip(before.trainable, after.trainable, strict=True))
        if not np.array_equal(a, b)
    }


def mean_squares(target, weights, name):
    (place,) = (i for i, layer in enumerate(target.layers) if layer.name == name)
    return np.mean(np.asarray(target.rows(weights.trainable)[place], np.float64) ** 2, -1)


def rescaled(group, weights, factor):
    """The equal weight set whose producer is `factor` [N, F] times as large."""
    trainable = list(weights.trainable)
    (layer,) = group.producers
    rows = layer.rows([trainable[s.index] for s in layer.slots]) * factor[:, :, None]
    for slot, tensor in zip(layer.slots, layer.assemble(rows), strict=True):
        trainable[slot.index] = tensor
    for index, view, axis in group.consumers:
        tensor = np.asarray(trainable[index]).reshape([len(factor), *view])
        tensor = np.moveaxis(tensor, axis + 1, -1)  # [N, ..., F]
        tensor = tensor / factor.reshape([len(factor), *[1] * (tensor.ndim - 2), -1])
        tensor = np.moveaxis(tensor, -1, axis + 1).reshape(trainable[index].shape)
        trainable[index] = tf.constant(tensor, tf.float32)
    return hn.WeightSet(trainable, weights.state)


# ---- random graphs: the properties --------------------------------------------------------


@RANDOM
@given(**GRAPHS)
def test_the_same_function_in_the_fixed_gauge(seed, **graph):
    target, free = build(**graph)
    gauge = hn.Gauge(target, epsilon=0.0)
    assert set(names(gauge)) == free
    weights = some_weights(target, seed)
    fixed = gauge(weights)
    assert_same_function(target, weights, fixed, some_inputs(target, seed))
    for name in free:
        np.testing.assert_allclose(mean_squares(target, fixed, name), 1.0, rtol=1e-5)
    if graph["outputs"] == "values":
        assert gauge.softmax_bias is None
    else:
        sums = tf.reduce_sum(fixed.trainable[gauge.softmax_bias], -1)
        np.testing.assert_allclose(sums, 0.0, atol=1e-5)
    assert_close(gauge(fixed).trainable, fixed.trainable)
    assert all(a is b for a, b in zip(fixed.state, weights.state, strict=True))


@RANDOM
@given(**GRAPHS)
def test_equal_weights_become_one(seed, **graph):
    target, _ = build(**graph)
    gauge = hn.Gauge(target, epsilon=0.0)
    weights, equal = some_weights(target, seed), some_weights(target, seed)
    rng = np.random.default_rng(seed)
    for group in gauge.scales:
        factor = np.exp(rng.normal(size=[N, group.producers[0].filters])).astype("float32")
        equal = rescaled(group, equal, factor)
    if gauge.softmax_bias is not None:
        shift = tf.constant(rng.normal(size=[N, 1]), tf.float32)
        equal.trainable[gauge.softmax_bias] += shift
    if gauge.scales or gauge.softmax_bias is not None:
        assert changed(weights, equal)
    assert_same_function(target, weights, equal, some_inputs(target, seed))
    assert_close(gauge(equal).trainable, gauge(weights).trainable)


# ---- which scales are free ----------------------------------------------------------------


def fixed_names(graph, shape=(4, 4, 2), outputs="values"):
    """The layers that are fixed in a model; its function is checked to stay what it was."""
    inputs = keras.Input(shape)
    target = hn.Target(keras.Model(inputs, graph(inputs)), outputs=outputs)
    gauge = hn.Gauge(target, epsilon=0.0)
    weights = some_weights(target)
    x = some_inputs(target)
    assert_close(target(gauge(weights), x), target(weights, x))
    moved = changed(weights, gauge(weights))
    expected = {s.index for group in gauge.scales for p in group.producers for s in p.slots}
    expected |= {index for group in gauge.scales for index, _, _ in group.consumers}
    assert moved == expected
    return names(gauge)


def conv(name, filters=2, **more):
    return layers.Conv2D(filters, 3, padding="same", name=name, **{"activation": "relu"} | more)


def test_mnist():
    target = hn.Target(hn.zoo.mnist(), outputs="logits")
    gauge = hn.Gauge(target, epsilon=0.0)
    assert names(gauge) == [layer.name for layer in target.layers[:3]]
    assert gauge.softmax_bias == 7
    weights = some_weights(target, scale=0.1)
    fixed = gauge(weights)
    assert_same_function(target, weights, fixed, some_inputs(target))
    assert changed(weights, fixed) == set(range(8))
    for layer in target.layers[:3]:
        np.testing.assert_allclose(mean_squares(target, fixed, layer.name), 1.0, rtol=1e-5)


def test_logits_known_as_values_keep_their_bias():
    target = hn.Target(hn.zoo.mnist(), outputs="values")
    gauge = hn.Gauge(target)
    assert len(gauge.scales) == 3 and gauge.softmax_bias is None
    weights = some_weights(target)
    assert 7 not in changed(weights, gauge(weights))


def test_a_regression_keeps_its_last_layer_s_bias():
    target = hn.Target(
        keras.Sequential(
            [keras.Input((2,)), layers.Dense(5, "relu", name="first"), layers.Dense(1)]
        )
    )
    gauge = hn.Gauge(target, epsilon=0.0)
    assert names(gauge) == ["first"] and gauge.softmax_bias is None
    weights = some_weights(target)
    assert changed(weights, gauge(weights)) == {0, 1, 2}


def test_one_logit_has_no_softmax():
    target = hn.Target(keras.Sequential([keras.Input((2,)), layers.Dense(1)]), outputs="logits")
    assert hn.Gauge(target).softmax_bias is None


@pytest.mark.parametrize(
    ("last", "outputs", "bias"),
    [
        ([layers.Dense, {}], "logits", 1),
        ([layers.Dense, {"activation": "softmax"}], "probabilities", 1),
        ([layers.Dense, {"activation": "softmax"}], "values", None),
        (
            [layers.Dense, {}],
            "probabilities",
            None,
        ),  # said to be so: nothing in the model proves it
        ([layers.Dense, {"activation": "relu"}], "logits", None),
        ([layers.Dense, {"use_bias": False}], "logits", None),
        ([layers.EinsumDense, {"equation": "bi,io->bo", "bias_axes": "o"}], "logits", None),
    ],
)
def test_softmax_bias(last, outputs, bias):
    kind, more = last
    size = {"output_shape": 3} if kind is layers.EinsumDense else {"units": 3}
    target = hn.Target(keras.Sequential([keras.Input((2,)), kind(**size, **more)]), outputs=outputs)
    assert hn.Gauge(target).softmax_bias == bias


@pytest.mark.parametrize("after", [layers.Softmax, lambda: layers.Activation("softmax")])
def test_softmax_bias_before_a_softmax_layer(after):
    steps = [keras.Input((2,)), layers.Dense(3), layers.Activation("linear"), after()]
    target = hn.Target(keras.Sequential(steps))
    gauge = hn.Gauge(target)
    assert target.outputs == "probabilities" and gauge.softmax_bias == 1
    weights = some_weights(target)
    x = some_inputs(target)
    assert_close(target(gauge(weights), x), target(weights, x))


@pytest.mark.parametrize(
    "between",
    [
        lambda x: layers.Activation("tanh")(x),
        lambda x: layers.ReLU(max_value=6.0)(x),
        lambda x: layers.ReLU(threshold=0.5)(x),
        lambda x: layers.ELU()(x),
        lambda x: layers.PReLU()(x),
        lambda x: layers.BatchNormalization()(x),
        lambda x: layers.GaussianNoise(0.1)(x),
        lambda x: layers.Permute((2, 3, 1))(x),
        lambda x: x + 1.0,
        lambda x: layers.Add()([x, x]),
    ],
    ids=["tanh", "relu6", "threshold", "elu", "prelu", "norm", "noise", "permute", "op", "add"],
)
def test_steps_that_tie_the_scale(between):
    assert fixed_names(lambda x: conv("b")(between(conv("a")(x)))) == []


@pytest.mark.parametrize(
    "between",
    [
        lambda x: x,
        lambda x: layers.ReLU(negative_slope=0.3)(x),
        lambda x: layers.MaxPooling2D(2)(layers.LeakyReLU()(x)),
        lambda x: layers.UpSampling2D(2, interpolation="bilinear")(x),
        lambda x: layers.Cropping2D(1)(layers.ZeroPadding2D(2)(x)),
    ],
    ids=["nothing", "leaky", "pooled", "larger", "padded"],
)
def test_steps_through_which_the_scale_passes(between):
    assert fixed_names(lambda x: conv("b")(between(conv("a")(x)))) == ["a"]


def test_flattened_pixels_share_their_channel_s_scale():
    def graph(x):
        return layers.Dense(3)(layers.Flatten()(layers.Dropout(0.5)(conv("a", 3)(x))))

    assert fixed_names(graph) == ["a"]


def test_two_consumers_both_take_the_scale():
    def graph(x):
        x = conv("a")(x)
        return layers.Concatenate()([conv("b")(x), layers.DepthwiseConv2D(3, padding="same")(x)])

    assert fixed_names(graph) == ["a"]


def test_one_bad_consumer_ties_the_scale():
    def graph(x):
        x = conv("a")(x)
        return layers.Concatenate()([conv("b")(x), layers.Activation("tanh")(x)])

    assert fixed_names(graph) == []


def test_channels_that_are_an_output_are_left_alone():
    def graph(x):
        features = layers.MaxPooling2D(2)(conv("a")(x))
        return [conv("c")(conv("b")(features)), features]

    assert fixed_names(graph) == ["b"]


def test_a_layer_called_twice_is_left_alone():
    def graph(x):
        both = conv("both")
        return conv("c")(conv("b")(both(both(conv("a")(x)))))

    assert fixed_names(graph) == ["b"]


def test_a_nested_model_called_twice_is_left_alone():
    inner = keras.Sequential([keras.Input((4, 4, 2)), conv("i"), conv("j")])
    assert fixed_names(lambda x: conv("c")(conv("b")(inner(inner(x))))) == ["b"]


def test_nested_models_are_entered():
    inner = keras.Sequential([keras.Input((4, 4, 2)), conv("i"), conv("j")])
    assert fixed_names(lambda x: conv("c")(inner(conv("a")(x)))) == ["a", "i", "j"]


def test_grouped_convolutions_are_left_alone():
    assert fixed_names(lambda x: conv("b", groups=2)(conv("a")(x))) == []
    assert fixed_names(lambda x: conv("d")(conv("c", groups=2)(x))) == []


def test_frozen_layers_are_left_alone():
    assert fixed_names(lambda x: conv("b", trainable=False)(conv("a")(x))) == []
    assert fixed_names(lambda x: conv("d")(conv("c", trainable=False)(x))) == []


def test_a_subclass_is_left_alone():
    @keras.saving.register_keras_serializable(package="test_gauge")
    class Squared(layers.Conv2D):
        def call(self, inputs):
            return super().call(inputs) ** 2

    squared = Squared(2, 3, padding="same", name="squared")
    assert fixed_names(lambda x: conv("c")(squared(conv("a")(x)))) == []


# ---- epsilon ------------------------------------------------------------------------------


def test_epsilon_is_not_negative():
    target = hn.Target(keras.Sequential([keras.Input((2,)), layers.Dense(3)]))
    with pytest.raises(ValueError, match="epsilon is not negative, not -1e-08") as caught:
        hn.Gauge(target, epsilon=-1e-8)
    assert "\n" not in str(caught.value)


def published_gauge(trainable, pixels, epsilon):
    """By hand, conv, conv, dense, dense: s = sqrt(ms + eps), / (s + eps), consumers times s."""
    k1, b1, k2, b2, k3, b3, k4, b4 = (np.asarray(t, np.float64) for t in trainable)
    count = len(k1)

    def scale(kernel, bias):
        filters = bias.shape[-1]
        rows = np.concatenate([kernel.reshape(count, -1, filters), bias[:, None]], 1)
        return np.sqrt(np.mean(rows**2, 1) + epsilon)

    s = scale(k1, b1)
    k1, b1 = k1 / (s + epsilon)[:, None, None, None], b1 / (s + epsilon)
    k2 = k2 * s[:, None, None, :, None]
    s = scale(k2, b2)
    k2, b2 = k2 / (s + epsilon)[:, None, None, None], b2 / (s + epsilon)
    k3 = (k3.reshape(count, pixels, s.shape[1], -1) * s[:, None, :, None]).reshape(k3.shape)
    s = scale(k3, b3)
    k3, b3 = k3 / (s + epsilon)[:, None], b3 / (s + epsilon)
    k4 = k4 * s[:, :, None]
    return [k1, b1, k2, b2, k3, b3, k4, b4 - b4.mean(-1, keepdims=True)]


@pytest.mark.parametrize("size", [1.0, 1e-2, 1e-4, 1e-6])
def test_epsilon_enters_as_in_the_published_program(size):
    target = hn.Target(
        keras.Sequential(
            [
                keras.Input((6, 6, 1)),
                layers.Conv2D(3, 3, padding="same", activation="relu"),
                layers.MaxPooling2D(2),
                layers.Conv2D(2, 3, padding="same", activation="relu"),
                layers.Flatten(),
                layers.Dense(4, activation="relu"),
                layers.Dense(3),
            ]
        ),
        outputs="logits",
    )
    weights = some_weights(target, scale=size)
    expected = published_gauge(weights.trainable, 9, 1e-8)
    assert_close(hn.Gauge(target)(weights).trainable, expected)
    exact = published_gauge(weights.trainable, 9, 0.0)
    # Where the mean square is near epsilon, the filters become visibly smaller than one.
    visible = not np.allclose(expected[0], exact[0], rtol=1e-2)
    assert visible == (size <= 1e-4)
