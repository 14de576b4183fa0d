"""How weights split into filters, and which layers make the same channels."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from target_models import (
    CASES,
    assert_equal,
    functional,
    one_line_error,
    sequential,
    some_weights,
)

import hypernet_tf as hn

layers = keras.layers


def test_a_row_is_the_kernel_slice_then_the_bias():
    target = hn.Target(
        sequential((2, 3, 2), layers.Conv2D(2, (2, 3)), layers.Flatten(), layers.Dense(2))
    )
    conv, dense = target.layers
    assert (conv.filters, conv.row_size, conv.size) == (2, 13, 26)
    assert (dense.filters, dense.row_size, dense.size) == (2, 3, 6)
    rows = tf.reshape(tf.range(26.0), [1, 2, 13])
    kernel, bias = conv.assemble(rows)
    # Filter f, at height h, width w and input channel c, holds number 13 f + (h·3 + w)·2 + c.
    assert kernel[0, 0, 0, 0, 0] == 0 and kernel[0, 0, 0, 1, 0] == 1
    assert kernel[0, 0, 1, 0, 0] == 2 and kernel[0, 1, 0, 0, 0] == 6
    assert kernel[0, 1, 2, 1, 1] == 13 + 11
    np.testing.assert_array_equal(bias, [[12, 25]])
    kernel, bias = dense.assemble(tf.constant([[[1.0, 2, 3], [4, 5, 6]]]))
    np.testing.assert_array_equal(kernel, [[[1, 4], [2, 5]]])
    np.testing.assert_array_equal(bias, [[3, 6]])


def test_a_whole_layer_as_one_row_is_the_kernel_then_the_bias():
    target = hn.Target(
        sequential((2, 3, 2), layers.Conv2D(2, (2, 3)), layers.Flatten(), layers.Dense(2))
    )
    kernel, bias = target.layers[0].assemble(tf.reshape(tf.range(26.0), [1, 1, 26]))
    np.testing.assert_array_equal(kernel[0], np.arange(24).reshape(2, 3, 2, 2))
    np.testing.assert_array_equal(bias, [[24, 25]])
    with one_line_error(target.layers[1].name, "[N, 2, 3]", "[N, 1, 6]", "(1, 3, 2)"):
        target.layers[1].assemble(tf.zeros([1, 3, 2]))


@pytest.mark.parametrize(
    ("layer", "shape", "filters", "row_size"),
    [
        (layers.Dense(3), (4,), 3, 5),
        (layers.Dense(3, use_bias=False), (4,), 3, 4),
        (layers.Conv1D(3, 2), (4, 2), 3, 5),
        (layers.Conv2D(4, 3, groups=2), (4, 4, 2), 4, 10),
        (layers.Conv3D(2, 2), (2, 2, 2, 3), 2, 25),
        (layers.Conv2DTranspose(3, 2), (4, 4, 2), 3, 9),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (4, 4, 3), 6, 10),
        (layers.BatchNormalization(), (4,), 4, 2),
        (layers.BatchNormalization(scale=False), (4,), 4, 1),
        (layers.LayerNormalization(), (4,), 4, 2),
        (layers.LayerNormalization(axis=(1, 2)), (4, 3), 1, 24),
        (layers.RMSNormalization(), (4, 3), 3, 1),
        (layers.Embedding(6, 3), (4,), 6, 3),
        (layers.PReLU(), (4, 3), 1, 12),
        (layers.LSTM(2), (4, 3), 1, 48),
        (layers.SeparableConv2D(3, 3), (4, 4, 2), 1, 27),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_filters_of_each_kind_of_layer(layer, shape, filters, row_size):
    target = hn.Target(sequential(shape, type(layer).from_config(layer.get_config())))
    (described,) = target.layers
    assert (described.filters, described.row_size) == (filters, row_size)
    assert target.weight_count == filters * row_size


def test_depthwise_filters_count_channels_then_multiplier():
    target = hn.Target(sequential((2, 2, 2), layers.DepthwiseConv2D(1, depth_multiplier=2)))
    kernel, bias = target.layers[0].assemble(tf.reshape(tf.range(8.0), [1, 4, 2]))
    np.testing.assert_array_equal(kernel[0, 0, 0], [[0, 2], [4, 6]])
    np.testing.assert_array_equal(bias, [[1, 3, 5, 7]])


# Kind of layer -> shape of one example, and the layer, of filters f, kernel size k, channels c.
WEIGHTED = {
    "dense": lambda f, k, c, bias: ((c,), layers.Dense(f, use_bias=bias)),
    "conv_1d": lambda f, k, c, bias: ((3, c), layers.Conv1D(f, k, use_bias=bias)),
    "conv_2d": lambda f, k, c, bias: ((2, 3, c), layers.Conv2D(f, k, use_bias=bias)),
    "conv_3d": lambda f, k, c, bias: ((2, 2, 3, c), layers.Conv3D(f, k, use_bias=bias)),
    "transpose": lambda f, k, c, bias: ((2, 3, c), layers.Conv2DTranspose(f, k, use_bias=bias)),
    "depthwise": lambda f, k, c, bias: (
        (2, 3, c),
        layers.DepthwiseConv2D(k, depth_multiplier=f, use_bias=bias),
    ),
    "separable": lambda f, k, c, bias: ((3, c), layers.SeparableConv1D(f, k, use_bias=bias)),
    "batch_norm": lambda f, k, c, bias: ((k, c), layers.BatchNormalization(center=bias)),
    "gru": lambda f, k, c, bias: ((k, c), layers.GRU(f, use_bias=bias)),
}


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(sorted(WEIGHTED)),
    filters=st.integers(1, 4),
    kernel=st.integers(1, 2),
    channels=st.integers(1, 3),
    bias=st.booleans(),
    num_networks=st.integers(1, 3),
)
def test_assemble_rows_flatten_and_unflatten_are_inverse(
    kind, filters, kernel, channels, bias, num_networks
):
    model = sequential(*WEIGHTED[kind](filters, kernel, channels, bias))
    target = hn.Target(model)
    assert target.weight_count == sum(np.prod(v.shape) for v in model.trainable_variables)
    weights = some_weights(target, model, num_networks)
    rows = target.rows(weights.trainable)
    assert [r.shape for r in rows] == [(num_networks, x.filters, x.row_size) for x in target.layers]
    assert_equal(target.assemble(rows), weights.trainable)
    whole = [tf.concat([tf.reshape(t, [num_networks, -1]) for t in weights.trainable], 1)[:, None]]
    assert_equal(target.assemble(whole), weights.trainable)
    theta = target.flatten(weights)
    assert theta.shape == (num_networks, target.weight_count)
    assert_equal([theta], [whole[0][:, 0]])
    assert_equal(target.unflatten(theta).trainable, weights.trainable)


def test_weights_of_the_mnist_target():
    model = hn.zoo.mnist()
    target = hn.Target(model)
    assert target.weight_count == model.count_params() == 20_018
    assert [layer.size for layer in target.layers] == [832, 12_816, 6_280, 90]
    assert [layer.filters for layer in target.layers] == [32, 16, 8, 10]
    assert target.input_shape == (28, 28, 1)


def test_layers_called_twice_are_generated_once():
    target = hn.Target(CASES["nested_called_twice"]())
    assert [layer.size for layer in target.layers] == [12, 6]
    assert target.weight_count == 18


# ---- units --------------------------------------------------------------------------------


def norm(name="norm", **kwargs):
    return layers.BatchNormalization(name=name, **kwargs)


def conv(filters=3, name="conv", **kwargs):
    return layers.Conv2D(filters, 2, padding="same", name=name, **kwargs)


def units(build, shape=(4, 4, 2)):
    """The names of the layers in each unit of the model that `build` makes from its input."""
    images = keras.Input(shape)
    target = hn.Target(keras.Model(images, build(images)))
    assert {x.name for u in target.units for x in u} == {x.name for x in target.layers}
    for unit in target.units:
        assert len({layer.filters for layer in unit}) == 1
    return [tuple(layer.name for layer in unit) for unit in target.units]


def twice(layer):
    return lambda x: layers.Add()([layer(x), layer(layers.ReLU()(x))])


def read_by_two(x):
    y = norm()(conv()(x))
    return layers.Add()([layers.ReLU()(y), conv(name="next")(y)])


def read_beside_the_norm(x):
    y = conv()(x)
    return layers.Add()([norm()(y), y])


def output_beside_the_norm(x):
    y = conv()(x)
    return [norm()(y), y]


def norm_of_two_layers(x):
    both = norm()
    return both(conv(name="next")(both(conv()(x))))


def nested(x):
    inner = keras.Sequential([keras.Input((4, 4, 2)), conv()])
    outer = keras.Sequential([keras.Input((4, 4, 3)), norm(), conv(4, name="next")])
    return norm(name="last")(outer(inner(x)))


def residual(x):
    y = norm()(conv(2)(x))
    y = norm(name="norm2")(conv(2, name="conv2")(layers.ReLU()(y)))
    return layers.Dense(3, name="dense")(layers.GlobalAveragePooling2D()(layers.Add()([x, y])))


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda x: norm()(conv()(x)), [("conv", "norm")]),
        (lambda x: norm(scale=False)(conv(use_bias=False)(x)), [("conv", "norm")]),
        (lambda x: norm()(layers.Dense(3, name="dense")(x)), [("dense", "norm")]),
        (
            lambda x: norm()(layers.DepthwiseConv2D(2, depth_multiplier=2, name="deep")(x)),
            [("deep", "norm")],
        ),
        (residual, [("conv", "norm"), ("conv2", "norm2"), ("dense",)]),
        (nested, [("conv", "norm"), ("next", "last")]),
        (read_by_two, [("conv", "norm"), ("next",)]),
        (
            lambda x: norm(axis=1)(conv(data_format="channels_first")(x)),
            [("conv", "norm")],
        ),
        # Columns, or vocabulary rows, are not the channels of a normalisation.
        (
            lambda x: norm()(conv(2, data_format="channels_first")(x)),
            [("conv",), ("norm",)],
        ),
        (
            lambda x: norm()(layers.Embedding(6, 6, name="words")(layers.Flatten()(x))),
            [("words",), ("norm",)],
        ),
        # A normalisation without generated weights is in no unit.
        (lambda x: norm(scale=False, center=False)(conv()(x)), [("conv",)]),
        (lambda x: norm(trainable=False)(conv()(x)), [("conv",)]),
        (lambda x: norm()(conv(trainable=False)(x)), [("norm",)]),
        (lambda x: norm()(x), [("norm",)]),
        # A layer between them, or a second reader, separates them.
        (lambda x: norm()(layers.ReLU()(conv()(x))), [("conv",), ("norm",)]),
        (lambda x: norm(name="norm2")(norm()(conv()(x))), [("conv", "norm"), ("norm2",)]),
        (lambda x: layers.LayerNormalization(name="norm")(conv()(x)), [("conv",), ("norm",)]),
        (read_beside_the_norm, [("conv",), ("norm",)]),
        (output_beside_the_norm, [("conv",), ("norm",)]),
        # A layer that is called twice makes channels twice.
        (lambda x: norm()(twice(conv())(x)), [("conv",), ("norm",)]),
        (lambda x: twice(norm())(conv()(x)), [("conv",), ("norm",)]),
        (norm_of_two_layers, [("conv",), ("norm",), ("next",)]),
        # A layer whose weights do not split into filters has one filter.
        (
            lambda x: norm()(
                layers.EinsumDense("bhwi,io->bhwo", (None, None, 3), name="einsum")(x)
            ),
            [("einsum",), ("norm",)],
        ),
    ],
)
def test_units(build, expected):
    assert units(build) == expected


# ---- initializers -------------------------------------------------------------------------


def test_initializers_are_found_whatever_their_layer_calls_them():
    model = functional(
        (8, 8, 2),
        lambda x: layers.LSTM(3)(
            layers.Reshape((9, 4))(
                layers.SeparableConv2D(4, 2, strides=2)(layers.DepthwiseConv2D(3)(x))
            )
        ),
    )
    target = hn.Target(model, outputs="values")
    names = [(slot.name, slot) for layer in target.layers for slot in layer.slots]
    kinds = {name: type(slot.initializer).__name__ for name, slot in names if name != "bias"}
    assert kinds == {
        "kernel": "GlorotUniform",
        "depthwise_kernel": "GlorotUniform",
        "pointwise_kernel": "GlorotUniform",
        "recurrent_kernel": "Orthogonal",
    }
    ensemble = hn.DeepEnsemble(target, num_networks=3, gauge=False).sample(3)
    for name, slot in names:
        apart = np.std(ensemble.weights.trainable[slot.index], 0).max()
        assert (apart > 0.05) == (name != "bias")
    forget = ensemble.weights.trainable[-1][0].numpy()
    np.testing.assert_array_equal(forget, np.repeat([0.0, 1.0, 0.0, 0.0], 3))


def test_where_a_layer_states_no_initializer_it_returns_the_models_value():
    class Scale(layers.Layer):
        def build(self, shape):
            self.factor = self.add_weight(shape=(shape[-1],), initializer="normal", name="f")

        def call(self, x):
            return x * self.factor

    model = keras.Sequential([keras.Input((4,)), Scale()])
    ((slot,),) = (layer.slots for layer in hn.Target(model).layers)
    np.testing.assert_array_equal(slot.initializer((4,)), model.layers[0].factor)


def test_the_bias_of_an_lstm_starts_as_keras_draws_it_whatever_the_model_has_learned():
    model = keras.Sequential([keras.Input((5, 2)), keras.layers.LSTM(3)])
    model.layers[0].set_weights([w + 1.0 for w in model.layers[0].get_weights()])
    (layer,) = hn.Target(model).layers
    (bias,) = [slot for slot in layer.slots if slot.name == "bias"]
    np.testing.assert_array_equal(bias.initializer(bias.shape), [0] * 3 + [1] * 3 + [0] * 6)


def test_one_weight_has_the_spread_of_its_initializer():
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    (slot,) = hn.Target(model).layers[0].slots
    mean, deviation = slot.moments()  # Glorot's uniform distribution on [-sqrt(3), sqrt(3)]
    assert abs(mean) < 0.6
    assert deviation == pytest.approx(1.0, rel=0.3)
