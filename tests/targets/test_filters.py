"""Which layers make the same channels: a layer and the batch normalisation right behind it."""

import keras
import pytest

import hypernet_tf as hn

layers = keras.layers


def norm(name="norm", **kwargs):
    return layers.BatchNormalization(name=name, **kwargs)


def conv(filters=3, name="conv", **kwargs):
    return layers.Conv2D(filters, 2, padding="same", name=name, **kwargs)


def units(build, shape=(4, 4, 2)):
    """The names of the layers, unit by unit, of the model that `build` makes of its input."""
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
        # Without weights it is no part of anything.
        (lambda x: norm(scale=False, center=False)(conv()(x)), [("conv",)]),
        (lambda x: norm(trainable=False)(conv()(x)), [("conv",)]),
        (lambda x: norm()(conv(trainable=False)(x)), [("norm",)]),
        (lambda x: norm()(x), [("norm",)]),
        # What stands between them, or reads beside, parts them.
        (lambda x: norm()(layers.ReLU()(conv()(x))), [("conv",), ("norm",)]),
        (lambda x: norm(name="norm2")(norm()(conv()(x))), [("conv", "norm"), ("norm2",)]),
        (lambda x: layers.LayerNormalization(name="norm")(conv()(x)), [("conv",), ("norm",)]),
        (read_beside_the_norm, [("conv",), ("norm",)]),
        (output_beside_the_norm, [("conv",), ("norm",)]),
        # What is called twice is of several channels.
        (lambda x: norm()(twice(conv())(x)), [("conv",), ("norm",)]),
        (lambda x: twice(norm())(conv()(x)), [("conv",), ("norm",)]),
        (norm_of_two_layers, [("conv",), ("norm",), ("next",)]),
        # A layer whose weights do not split into filters has one filter.
        (
            lambda x: norm()(layers.EinsumDense("bhwi,io->bhwo", (None, None, 3), name="own")(x)),
            [("own",), ("norm",)],
        ),
    ],
)
def test_units(build, expected):
    assert units(build) == expected
