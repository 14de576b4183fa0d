"""Which channels have a free scale: what passes it, what makes and reads it, what holds it."""

import keras
import numpy as np
import pytest
from gauge_checks import assert_a_gauge, functional, relu, sequential
from small_graphs import answers, assert_same, some_weights
from target_models import frozen

import hypernet_tf as hn
from hypernet_tf.gauge.permutation import Permutation
from hypernet_tf.targets import layers as table
from hypernet_tf.targets.layers import TRAITS

layers = keras.layers


# ---- layers that pass a scale -------------------------------------------------------------

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
    keras.ops.leaky_relu: lambda: (1, keras.ops.leaky_relu),
    keras.ops.pad: lambda: (1, lambda x: keras.ops.pad(x, ((0, 0), (1, 0), (1, 1)))),
    keras.activations.relu: lambda: (1, keras.activations.relu),
}


def test_every_layer_that_passes_a_scale_has_a_case():
    kinds = {
        kind
        for kind, traits in TRAITS.items()
        if (traits.homogeneous or traits.channels) and not traits.merges and not traits.kernel
    }
    layer_kinds = {kind for kind in kinds if issubclass(kind, layers.Layer)}
    assert layer_kinds == {kind for kind in PASSED if isinstance(kind, type)}
    operations = [op for make in PASSED.values() for op in operations_of(*make())]
    assert kinds <= {type(op) for op in operations}


def operations_of(rank, step):
    return functional((3,) * rank + (2,), step).operations


IN_FLOAT32 = (layers.MaxPooling3D, layers.AveragePooling3D)  # TensorFlow has no others


@pytest.mark.parametrize(
    ("rank", "dtype"), [(1, "float64"), (2, "float64"), (3, "float64"), (3, "float32")]
)
def test_a_scale_passes(rank, dtype):
    """Each kind in a branch of its own, between two dense layers."""
    keras.config.set_dtype_policy(dtype)
    cases = [(kind, *make()) for kind, make in PASSED.items()]
    steps = [
        step
        for kind, its_rank, step in cases
        if its_rank == rank and (kind in IN_FLOAT32) == (dtype == "float32")
    ]
    names = [f"before_{number}" for number in range(len(steps))]
    assert names

    def graph(x):
        before = [layers.Dense(2, name=name)(x) for name in names]
        return [layers.Dense(2)(step(y)) for step, y in zip(steps, before, strict=True)]

    target = hn.Target(functional((3,) * rank + (2,), graph))
    assert_a_gauge(target, names, 1e-9 if dtype == "float64" else 1e-5)


# ---- layers that make and read channels ---------------------------------------------------

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
    makers = {
        kind for kind, traits in TRAITS.items() if traits.kernel and kind.__name__ != "Embedding"
    }
    assert makers == set(WEIGHTED)


# One layer without a bias is as another.
_NO_BIAS = (layers.Dense, layers.Conv2D, layers.DepthwiseConv2D)


@pytest.mark.parametrize(
    ("kind", "bias"),
    [
        pytest.param(
            *(kind, bias),
            id=f"{kind.__name__}-{'bias' if bias else 'no_bias'}",
            marks=[] if bias or kind in _NO_BIAS else pytest.mark.slow,
        )
        for kind in WEIGHTED
        for bias in (True, False)
    ],
)
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


def test_channels_with_two_readers():
    def graph(x):
        hidden = layers.Conv1D(3, 2, activation="relu", name="hidden")(x)
        flat = layers.Dense(2, name="flat")(layers.Flatten()(hidden))
        pooled = layers.Dense(2, name="pooled")(layers.GlobalAveragePooling1D()(hidden))
        return layers.Subtract()([flat, pooled])

    target = hn.Target(functional((4, 2), graph))
    gauge = assert_a_gauge(target, ["hidden"])
    assert [len(step.reads) for step in gauge.steps] == [2, 9, 3]


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


# ---- channels that are held ---------------------------------------------------------------


def called_twice():
    dense = layers.Dense(3, activation="relu", name="shared")
    return functional((3,), lambda x: layers.Dense(2)(dense(dense(x))))


def read_by_a_layer_called_twice():
    dense = layers.Dense(2, name="shared")

    def graph(x):
        first, second = layers.Dense(3, activation="relu")(x), layers.Dense(3)(x)
        return layers.Add()([dense(first), dense(second)])

    return functional((3,), graph)


class Doubled(layers.Dense):
    """No Dense to the gauge, because its call may be anything."""

    def call(self, inputs, training=None):
        return 2.0 * super().call(inputs, training=training)


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
        (4,), relu(), frozen(layers.BatchNormalization(renorm=True)), layers.Dense(2)
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
    assert gauge.steps == () and gauge.softmax_biases == []
    for fixed, weight in zip(gauge(weights).trainable, weights.trainable, strict=True):
        assert fixed is weight


def test_channels_first_is_left_alone():
    steps = [layers.Conv2D(3, 2, activation="relu", data_format="channels_first") for _ in "ab"]
    assert hn.Gauge(hn.Target(sequential((2, 4, 4), *steps))).steps == ()


def test_one_reader_that_is_not_weighted_holds_the_channels():
    def graph(x):
        hidden = relu(name="hidden")(x)
        return layers.Concatenate()([layers.Dense(2)(hidden), layers.Activation("tanh")(hidden)])

    assert hn.Gauge(hn.Target(functional((4,), graph))).steps == ()


def test_nested_models_called_twice_are_left_alone():
    nested = sequential((3,), relu(), relu())
    steps = (nested, layers.ReLU(), layers.Dense(3), nested, relu(name="after"), layers.Dense(2))

    def graph(x):
        for step in steps:
            x = step(x)
        return x

    assert_a_gauge(hn.Target(functional((3,), graph)), ["after"])


# ---- channels that are tied ---------------------------------------------------------------

MERGES = (layers.Add, layers.Subtract, layers.Average, layers.Maximum, layers.Minimum)
MERGED = {
    **{kind.__name__: lambda pair, kind=kind: kind()(pair) for kind in MERGES},
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
    """A channel that padding adds has the scale of what is added to it, held or free."""

    def graph(x):
        narrow = layers.Conv2D(1, 1, name="narrow")(x)
        padded = keras.ops.pad(narrow, ((0, 0), (0, 0), (0, 0), (1, 1)))
        wide = layers.Concatenate()([layers.Conv2D(2, 1, name="wide")(x), x])
        return layers.Conv2D(2, 1)(layers.ReLU()(padded + wide))

    gauge = assert_a_gauge(hn.Target(functional((2, 2, 1), graph)), ["wide"])
    free = {step.layer.name: (step.makes > 0).tolist() for step in gauge.steps}
    assert free["wide"] == [True, True] and free["narrow"] == [True]


@pytest.mark.parametrize(
    ("kind", "permutation"),
    [
        *((kind, False) for kind in MERGES if kind is not layers.Subtract),
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


# ---- layers that users declare ------------------------------------------------------------


@pytest.fixture
def traits_table(monkeypatch):
    """A copy of the table, so that what a test registers is gone after it."""
    monkeypatch.setattr(table, "TRAITS", dict(TRAITS))


class ScaledLeakyReLU(layers.Layer):
    """Twice a leaky ReLU: f(s·x) = s·f(x) for s > 0."""

    def call(self, x):
        return 2.0 * keras.ops.maximum(x, 0.1 * x)


class RootMeanSquarePooling(layers.Layer):
    """The root mean square of each channel's pixels, which is homogeneous but not linear."""

    def call(self, x):
        return keras.ops.sqrt(keras.ops.mean(x**2, axis=(1, 2)))


@pytest.mark.usefixtures("traits_table")
@pytest.mark.parametrize("kind", [ScaledLeakyReLU, RootMeanSquarePooling])
def test_a_scale_passes_a_registered_homogeneous_layer(kind):
    target = hn.Target(
        sequential(
            (4, 4, 2),
            layers.Conv2D(3, 2, name="before"),
            kind(),
            layers.Flatten(),
            relu(name="after"),
            layers.Dense(2),
        )
    )
    assert_a_gauge(target, ["after"])  # the layer holds the channels that it reads
    hn.register_layer(kind, homogeneous=True)
    gauge = assert_a_gauge(target, ["before", "after"])
    before, after = gauge.steps[:2]
    assert set(after.reads) == set(before.makes) and (before.makes > 0).all()
    assert sorted(map(len, Permutation(target).groups)) == [3, 3]


@pytest.mark.usefixtures("traits_table")
def test_orders_pass_a_registered_elementwise_layer():
    class Softclip(layers.Layer):
        def call(self, x):
            return x / (1.0 + x**2)

    target = hn.Target(sequential((4,), layers.Dense(5), Softclip(), layers.Dense(2)))
    assert Permutation(target).groups == []
    hn.register_layer(Softclip, elementwise=True)
    assert [len(group) for group in Permutation(target).groups] == [5]
    assert_a_gauge(target, [])  # but no scale passes
    weights = some_weights(target)
    fixed = hn.Gauge(target, permutation=True)(weights)
    assert_same(answers(target, fixed), answers(target, weights))
    assert (np.diff(fixed.trainable[0][:, 0]) > 0).all()


class Projection(layers.Layer):
    """A dense layer and a ReLU, whose kernel is transposed: [units, inputs]."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(self.units, shape[-1]))
        self.bias = self.add_weight(name="bias", shape=(self.units,))

    def call(self, x):
        return keras.ops.relu(x @ keras.ops.transpose(self.kernel) + self.bias)

    def get_config(self):
        return super().get_config() | {"units": self.units}


@pytest.mark.usefixtures("traits_table")
def test_a_registered_weighted_layer_makes_and_reads_channels():
    model = sequential(
        (4,),
        relu(name="before"),
        Projection(5, name="projection"),
        relu(name="after"),
        layers.Dense(2),
    )
    assert_a_gauge(hn.Target(model), ["after"])
    hn.register_layer(Projection, kernel=hn.KernelAxes(filters=0, inputs=1), homogeneous=True)
    target = hn.Target(model)
    assert [layer.filters for layer in target.layers] == [3, 5, 3, 2]
    gauge = assert_a_gauge(target, ["before", "projection", "after"])
    assert [step.axis for step in gauge.steps] == [1, 2, 1, 1]
    assert sorted(map(len, Permutation(target).groups)) == [3, 3, 5]


@pytest.mark.usefixtures("traits_table")
def test_a_registered_layer_merges_its_inputs():
    @hn.register_layer(merges=True, homogeneous=True)
    class Difference(layers.Layer):
        def call(self, pair):
            return pair[0] - 0.5 * pair[1]

    def graph(x):
        pair = [relu(name="first")(x), relu(name="second")(x)]
        return layers.Dense(2)(Difference()(pair))

    assert_a_gauge(hn.Target(functional((4,), graph)), ["first"])


@pytest.mark.usefixtures("traits_table")
def test_a_registered_layer_moves_channels():
    class Reversed(layers.Layer):
        def call(self, x):
            return x[..., ::-1]

    model = sequential((4,), relu(name="before"), Reversed(), layers.Dense(2))
    hn.register_layer(Reversed, channels=lambda call, ids, shapes: ids[0][::-1])
    gauge = assert_a_gauge(hn.Target(model), ["before"])
    made, read = gauge.steps[0].makes, gauge.steps[1].reads
    assert read.tolist() == made.tolist()[::-1]


@pytest.mark.usefixtures("traits_table")
def test_a_declared_layer_that_breaks_its_promise_raises():
    @hn.register_layer(homogeneous=True)
    class Halved(layers.Layer):
        def call(self, x):
            return x[..., ::2]

    target = hn.Target(sequential((4,), relu(4), Halved(name="halved"), layers.Dense(2)))
    with pytest.raises(ValueError, match=r"'halved' returns \[2\] for 4 channels: its traits"):
        hn.Gauge(target)


@pytest.mark.usefixtures("traits_table")
def test_a_subclass_of_a_declared_layer_is_left_alone():
    class Shifted(ScaledLeakyReLU):
        def call(self, x):
            return 1.0 + super().call(x)

    hn.register_layer(ScaledLeakyReLU, homogeneous=True)
    target = hn.Target(sequential((4,), layers.Dense(3), Shifted(), layers.Dense(2)))
    assert hn.Gauge(target).steps == ()
