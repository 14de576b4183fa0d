"""The table of layer traits, and how users add to it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from target_models import (
    CASES,
    B,
    N,
    Scale,
    assert_close,
    functional,
    loop,
    one_line_error,
    sequential,
    some_inputs,
    some_weights,
)

import hypernet_tf as hn
from hypernet_tf.targets import layers as table
from hypernet_tf.targets import rules
from hypernet_tf.targets.activations import ACTIVATIONS, activation_traits
from hypernet_tf.targets.graph import record
from hypernet_tf.targets.layers import rule_for, traits_of

layers = keras.layers


@pytest.fixture(autouse=True)
def traits_table(monkeypatch):
    """A copy of the table, so that what a test registers is gone after it."""
    monkeypatch.setattr(table, "TRAITS", dict(table.TRAITS))
    return table.TRAITS


# ---- the tables ---------------------------------------------------------------------------


def test_every_kind_of_layer_in_the_table_is_run_by_a_case(traits_table):
    operations = [operation for build in CASES.values() for operation in record(build()).operations]
    assert set(traits_table) <= {type(operation) for operation in operations}


def test_no_row_contradicts_itself(traits_table):
    for traits in traits_table.values():
        traits.check()


@pytest.mark.parametrize(
    ("layer", "trait", "expected"),
    [
        (layers.ReLU(negative_slope=0.1), "homogeneous", True),
        (layers.ReLU(max_value=6.0), "homogeneous", False),
        (layers.ReLU(max_value=6.0), "elementwise", True),
        (layers.Activation("leaky_relu"), "homogeneous", True),
        (layers.Activation("tanh"), "homogeneous", False),
        (layers.Activation("softmax"), "elementwise", False),
        (layers.Activation("softmax"), "per_example", True),
        (layers.Softmax(axis=(1, 2)), "per_example", True),
        (layers.Softmax(axis=0), "per_example", False),
        (layers.MaxPooling2D(data_format="channels_first"), "homogeneous", False),
        (layers.Dense(3, activation="relu"), "homogeneous", True),
        (layers.Dense(3, activation="tanh"), "homogeneous", False),
        (layers.Conv2D(4, 2), "kernel", hn.KernelAxes(filters=-1, inputs=-2)),
        (layers.Conv2D(4, 2, groups=2), "kernel", hn.KernelAxes(filters=-1, inputs=None)),
        (layers.Conv1DTranspose(4, 2), "kernel", hn.KernelAxes(filters=-2, inputs=-1)),
        (layers.PReLU(), "homogeneous", False),
    ],
)
def test_traits_of_a_layer_follow_its_configuration(layer, trait, expected):
    assert getattr(traits_of(layer), trait) == expected


def test_every_activation_function_of_keras_is_in_the_table():
    functions = {f for f in vars(keras.activations).values() if callable(f)}
    functions -= {getattr(keras.activations, name) for name in ("get", "serialize", "deserialize")}
    functions.remove(keras.activations.threshold)  # takes arguments, so it is not an activation
    assert functions == {keras.activations.get(name) for name in ACTIVATIONS}
    assert activation_traits(lambda x: x) == activation_traits(layers.ReLU()) is not None


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_function_has_the_traits_that_the_table_states(name):
    function, traits = keras.activations.get(name), ACTIVATIONS[name]
    x = np.random.default_rng(0).normal(size=(3, 4))

    def f(x):
        return np.asarray(function(tf.constant(x)))

    assert traits.per_example
    np.testing.assert_allclose(f(x), np.concatenate([f(x[:1]), f(x[1:])]), rtol=1e-6)
    if traits.elementwise:
        one_by_one = [[f(x[i : i + 1, j : j + 1])[0, 0] for j in range(4)] for i in range(3)]
        np.testing.assert_allclose(f(x), one_by_one, rtol=1e-6)
    assert np.allclose(f(30.0 * x), 30.0 * f(x)) == traits.homogeneous


# ---- registering a rule -------------------------------------------------------------------


def test_a_registered_rule_is_used_and_agrees():
    model = CASES["custom"]()
    target = hn.Target(model)
    weights = some_weights(target, model)
    x = some_inputs(model, B)
    expected = [target.run(weights, x, training=training) for training in (False, True)]
    modes = []

    def scale(run, call, args, kwargs):
        modes.append(run.training)
        if run.training:
            return hn.per_network(run, call, args, kwargs)
        (factor,) = run.weights(call.operation)
        calls = run.value(call.operation.calls)
        (value,) = args
        return hn.Value(run.num_networks, stacked=value.stacked * (factor * calls)[:, None, None])

    assert hn.register_layer(Scale, rule=scale) is Scale
    actual = [target.run(weights, x, training=training) for training in (False, True)]
    assert modes == [False, True]
    assert_close(actual, expected)


def test_a_layer_that_treats_examples_by_itself_runs_once_for_all_networks():
    shapes = []

    @hn.register_layer(per_example=True)
    class Doubled(layers.Layer):
        def call(self, x):
            shapes.append(x.shape[0])
            return 2.0 * x

    model = sequential((4,), layers.Dense(3), Doubled(), layers.Dense(2))
    target = hn.Target(model)
    weights = some_weights(target, model)
    x = some_inputs(model, B)
    shapes.clear()
    outputs = target(weights, x)
    assert shapes == [N * B]
    assert_close(outputs, loop(model, weights, x, shared=True, training=False)[0])


def test_a_layer_with_weights_runs_network_by_network_though_it_is_per_example():
    hn.register_layer(Scale, per_example=True)
    model = CASES["custom"]()
    target = hn.Target(model)
    weights = some_weights(target, model)
    x = some_inputs(model, B)
    for training in (False, True):
        actual = target.run(weights, x, training=training)
        assert_close(actual, loop(model, weights, x, shared=True, training=training))


def test_a_subclass_inherits_no_traits():
    class Shifted(layers.Dense):
        def call(self, inputs, training=None):
            return super().call(inputs, training=training) + 1.0

    model = sequential((4,), Shifted(3), layers.Dense(2))
    target = hn.Target(model)
    assert traits_of(Shifted(3)) == table.LayerTraits(per_example=False)
    assert rule_for(Shifted(3)) is rules.per_network
    assert [layer.filters for layer in target.layers] == [1, 2]
    weights = some_weights(target, model)
    x = some_inputs(model, B)
    assert_close(target(weights, x), loop(model, weights, x, shared=True, training=False)[0])


# ---- registering a kernel -----------------------------------------------------------------


class Projection(layers.Layer):
    """A dense layer whose kernel is transposed: [units, inputs]."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.matrix = self.add_weight(name="matrix", shape=(self.units, shape[-1]))
        self.offset = self.add_weight(name="offset", shape=(self.units,))

    def call(self, x):
        return x @ keras.ops.transpose(self.matrix) + self.offset

    def get_config(self):
        return super().get_config() | {"units": self.units}


def test_a_registered_kernel_splits_into_filters():
    def filters():
        return [(layer.filters, layer.row_size) for layer in hn.Target(model).layers]

    model = sequential((4,), Projection(3), layers.Dense(2))
    assert filters() == [(1, 15), (2, 4)]
    hn.register_layer(Projection, kernel=hn.KernelAxes(filters=0, inputs=1, name="matrix"))
    assert filters() == [(3, 5), (2, 4)]
    (matrix, offset) = hn.Target(model).layers[0].assemble(tf.reshape(tf.range(15.0), [1, 3, 5]))
    np.testing.assert_array_equal(matrix[0], [[0, 1, 2, 3], [5, 6, 7, 8], [10, 11, 12, 13]])
    np.testing.assert_array_equal(offset[0], [4, 9, 14])


def test_a_kernel_whose_other_weights_do_not_fit_is_one_filter():
    hn.register_layer(Projection, kernel=hn.KernelAxes(filters=1, inputs=0, name="matrix"))
    (layer, _) = hn.Target(sequential((4,), Projection(3), layers.Dense(2))).layers
    assert (layer.filters, layer.row_size) == (1, 15)


def test_registered_vectors_have_one_entry_per_filter():
    @hn.register_layer(vectors=True)
    class Affine(layers.Layer):
        def build(self, shape):
            self.gain = self.add_weight(name="gain", shape=(shape[-1],))
            self.offset = self.add_weight(name="offset", shape=(shape[-1],))

        def call(self, x):
            return x * self.gain + self.offset

    (layer,) = hn.Target(sequential((5,), Affine())).layers
    assert (layer.filters, layer.row_size) == (5, 2)


# ---- registering ----------------------------------------------------------------------------


def test_traits_stay_unless_they_are_given_again():
    hn.register_layer(Scale, homogeneous=True, per_example=False)
    hn.register_layer(Scale, homogeneous=False, vectors=True)
    traits = traits_of(Scale())
    assert (traits.homogeneous, traits.per_example, traits.vectors) == (False, False, True)
    hn.register_layer(layers.BatchNormalization, rule=rules.per_network)
    assert traits_of(layers.BatchNormalization()).vectors


def test_a_trait_may_be_a_function_of_the_layer():
    hn.register_layer(Scale, homogeneous=lambda layer: layer.name == "plain")
    assert traits_of(Scale(name="plain")).homogeneous
    assert not traits_of(Scale(name="other")).homogeneous


@pytest.mark.parametrize(
    ("traits", "words"),
    [
        ({"kernel": hn.KernelAxes(), "vectors": True}, ["`kernel`", "`vectors`"]),
        ({"kernel": hn.KernelAxes(), "merges": True, "homogeneous": True}, ["`kernel`"]),
        ({"elementwise": True, "per_example": False}, ["`per_example=False`"]),
        ({"elementwise": True, "channels": lambda call, ids, shapes: ids[0]}, ["`channels`"]),
        ({"rule": hn.per_network, "per_example": True}, ["`rule`", "`per_example=True`"]),
        ({"merges": True}, ["homogeneous or elementwise", "`merges`"]),
    ],
)
def test_contradictory_traits_raise_and_declare_nothing(traits, words, traits_table):
    with one_line_error("Contradictory traits", "drop", *words):
        hn.register_layer(Scale, **traits)
    assert Scale not in traits_table
    with one_line_error("Contradictory traits"):  # one after the other, too
        for name, trait in traits.items():
            hn.register_layer(Scale, **{name: trait})


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ({"filters": -1, "inputs": -1}, ["axis -1 cannot count both filters and inputs"]),
        ({"filters": -2, "inputs": -1, "depthwise": True}, ["on axis 0, right after its inputs"]),
    ],
)
def test_contradictory_kernel_axes_raise(axes, words):
    with one_line_error("Contradictory kernel axes", *words):
        hn.KernelAxes(**axes)


def test_only_classes_can_be_registered():
    with pytest.raises(TypeError, match="takes a class of layers, not 'Dense': pass the class"):
        hn.register_layer("Dense", homogeneous=True)


def test_operations_are_recognised_wherever_they_come_from():
    """As `keras.ops` functions, as operators, and from a loaded model."""
    model = functional((4,), lambda x: keras.ops.relu(layers.Dense(3)(x) + layers.Dense(3)(x)))
    for same in (model, keras.Model.from_config(model.get_config())):
        *_, add, relu = record(same).operations
        assert traits_of(add).merges and traits_of(add).homogeneous
        assert traits_of(relu).homogeneous and traits_of(relu).elementwise


def test_a_rule_that_returns_a_tensor_raises():
    class Doubled(layers.Layer):
        def call(self, x):
            return 2 * x

    hn.register_layer(Doubled, rule=lambda run, call, args, kwargs: 2 * args[0].stacked)
    target = hn.Target(keras.Sequential([keras.Input((2,)), layers.Dense(3), Doubled()]))
    weights = target.unflatten(tf.ones([2, target.weight_count]))
    with pytest.raises(TypeError, match="The rule of Doubled must return a Value, not Eager"):
        target(weights, tf.ones([4, 2]))


class Penalised(layers.Layer):
    def call(self, x):
        self.add_loss(tf.reduce_sum(x**2))
        return x


def test_a_loss_of_a_layer_is_not_dropped_silently():
    target = hn.Target(keras.Sequential([keras.Input((2,)), layers.Dense(3), Penalised()]))
    weights = target.unflatten(tf.ones([2, target.weight_count]))
    assert target(weights, tf.ones([4, 2])).shape == (2, 4, 3)  # a loss matters in training only
    with pytest.raises(ValueError, match="Layer 'penalised' calls add_loss, which"):
        target(weights, tf.ones([4, 2]), training=True)


def test_a_normalisation_of_images_leaves_out_what_a_mask_does():
    inputs, valid = keras.Input((4, 4, 2)), keras.Input((4, 4), dtype="bool")
    values = layers.BatchNormalization()(layers.Conv2D(3, 1)(inputs), mask=valid)
    model = keras.Model([inputs, valid], values)
    target = hn.Target(model)
    weights = some_weights(target, model)
    rng = np.random.default_rng(0)
    x = [tf.constant(rng.normal(size=(B, 4, 4, 2)), tf.float32), rng.random((B, 4, 4)) < 0.5]
    actual = target.run(weights, x, training=True)
    assert_close(actual, loop(model, weights, x, shared=True, training=True))


@pytest.mark.parametrize("between", [layers.Identity, lambda: layers.Dropout(0.5)])
def test_attention_to_shared_inputs_has_the_mask_in_every_network(between):
    """Keras takes the mask off the inputs of an attention."""
    inputs = keras.Input((6, 2))
    x = between()(layers.Masking()(inputs))
    x = layers.MultiHeadAttention(2, 4)(x, x)
    model = keras.Model(inputs, layers.Dense(1)(layers.GlobalAveragePooling1D()(x)))
    target = hn.Target(model)
    x = np.random.default_rng(0).normal(size=(3, 6, 2)).astype("float32")
    x[:, 3:] = 0.0
    weights = some_weights(target, model)
    each = target(weights, np.stack([x] * N))
    np.testing.assert_allclose(target(weights, x), each, rtol=1e-5, atol=1e-6)


@keras.saving.register_keras_serializable(package="tests")
class GlobalNoise(layers.Layer):
    def call(self, x, training=None):
        return x + keras.random.normal(keras.ops.shape(x)) if training else x


@pytest.mark.parametrize("first", [False, True])
def test_noise_of_the_global_seed_is_an_error(first):
    """All networks and steps would have the same."""
    noise, dense = GlobalNoise(name="noise"), layers.Dense(3)
    model = sequential((4,), *([noise, dense] if first else [dense, noise]))
    target = hn.Target(model)
    weights, x = some_weights(target, model), np.ones([2, 4], "float32")
    target(weights, x)
    with one_line_error("'noise' changes a variable that is not its own", "SeedGenerator"):
        target(weights, x, training=True)


@pytest.mark.filterwarnings("ignore:Layer 'functional.*' .* was passed an input with a mask")
def test_a_mask_that_a_nested_model_is_given_is_an_error():
    inputs, valid = keras.Input((6, 2)), keras.Input((6,), dtype="bool")
    steps = keras.Input((6, 2))
    nested = keras.Model(steps, layers.LSTM(3)(steps))
    with one_line_error("is given a mask that its inputs do not have"):
        hn.Target(keras.Model([inputs, valid], nested(inputs, mask=valid)))
