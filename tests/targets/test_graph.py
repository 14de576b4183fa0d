"""The plan of a model: its calls, nested models included, and which models have one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from target_models import CASES, OwnCall, functional, one_line_error, sequential

import hypernet_tf as hn
from hypernet_tf.targets.graph import copied, record

layers = keras.layers


def test_plan_enters_nested_models():
    plan = record(CASES["nested_called_twice"]())
    kinds = [type(call.operation).__name__ for call in plan.calls]
    assert kinds == ["Dense", "BatchNormalization", "Dense", "BatchNormalization", "Add"]
    first, second, add = plan.calls[0], plan.calls[2], plan.calls[-1]
    assert first.operation is second.operation and plan.num_calls(first.operation) == 2
    assert first.inputs == [plan.inputs]
    assert second.inputs == [plan.calls[1].outputs]
    assert add.inputs == [plan.calls[3].outputs, plan.inputs]
    assert plan.outputs == add.outputs
    assert plan.maker(add.outputs) is add and plan.maker(plan.inputs) is None
    assert [type(operation).__name__ for operation in plan.operations] == [
        "Dense",
        "BatchNormalization",
        "Add",
    ]


@pytest.mark.parametrize(
    ("lookup", "words"),
    [
        (layers.IntegerLookup, np.array([[10], [20], [70]])),
        (layers.StringLookup, np.array([["a"], ["b"], ["z"]])),
        (lambda: layers.TextVectorization(output_sequence_length=2), np.array([["a b"], ["b z"]])),
    ],
)
def test_a_lookup_keeps_what_it_was_adapted_to(lookup, words):
    lookup = lookup()
    lookup.adapt(words[:-1])
    dtype = "int64" if words.dtype.kind == "i" else "string"
    inputs = keras.Input(words.shape[1:], dtype=dtype)
    hidden = layers.Embedding(lookup.vocabulary_size(), 4)(lookup(inputs))
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(hidden)))
    target = hn.Target(model)
    weights = hn.WeightSet([v.value[None] for v in model.trainable_variables], [])
    tensor = tf.constant(words)
    np.testing.assert_allclose(target(weights, tensor)[0], model(tensor), rtol=1e-5)


def test_an_operation_may_return_a_named_tuple():
    inputs = keras.Input((5,))
    values, _ = keras.ops.top_k(layers.Dense(4)(inputs), 2)
    model = keras.Model(inputs, values)
    x = np.random.default_rng(0).normal(size=(3, 5)).astype("float32")
    weights = hn.WeightSet([v.value[None] for v in model.trainable_variables], [])
    np.testing.assert_allclose(hn.Target(model)(weights, x)[0], model(x), rtol=1e-5)


def test_plan_keeps_structures_arguments_and_shapes():
    plan = record(CASES["two_inputs_two_outputs"]())
    assert list(plan.inputs) == ["left", "right"] and list(plan.outputs) == ["sum", "joined"]
    assert plan.shapes[plan.inputs["right"]] == (2, 3)
    assert plan.shapes[plan.outputs["joined"]] == (8,)
    calls = {type(call.operation).__name__: call for call in record(CASES["attention"]()).calls}
    attention = calls["MultiHeadAttention"]
    assert attention.kwargs["return_attention_scores"] is True
    assert len(attention.inputs) == 2 and len(attention.outputs) == 2
    (call, *_) = record(CASES["dense_unknown_length"]()).calls
    assert record(CASES["dense_unknown_length"]()).shapes[call.outputs] == (None, 4)


def test_the_mode_of_the_model_overrides_the_mode_in_the_graph():
    plan = record(CASES["nested_in_inference"]())
    assert all("training" not in call.kwargs for call in plan.calls)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


class WithoutConfig(layers.Layer):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, inputs):
        return inputs * self.factor


def doubled(x):
    return 2 * x


def called(model):
    """A subclassed model that has an input, because it was called on one."""
    model(keras.Input((3,)))
    return model


def single_weight_frozen():
    model = sequential((4,), layers.Dense(3), layers.Dense(2))
    model.layers[0].bias.trainable = False
    return model


def shared_inside_and_outside():
    dense = layers.Dense(3)
    nested = functional((3,), dense)
    return functional((3,), lambda x: dense(nested(x)))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: layers.Dense(3), ["A target is a Keras model, not Dense"]),
        (Subclassed, ["'subclassed' has no graph", "keras.Input"]),
        (lambda: called(Subclassed()), ["subclassed", "no graph"]),
        (OwnCall, ["'own_call' has no graph"]),
        (
            lambda: keras.Sequential([layers.Dense(3)], name="bare"),
            ["'bare' has no graph", "starts with keras.Input"],
        ),
        (
            lambda: sequential((4,), WithoutConfig(2.0), layers.Dense(3)),
            ["cannot be copied", "get_config"],
        ),
        (
            lambda: sequential((4,), layers.Dense(3, activation=doubled)),
            ["cannot be copied: Keras does not know 'doubled'", "register_keras_serializable()"],
        ),
        (
            lambda: sequential((4,), layers.Lambda(lambda x: 2.0 * x), layers.Dense(3)),
            ["cannot be copied", "Lambda"],
        ),
        (single_weight_frozen, ["other weights", "freeze whole layers"]),
        (shared_inside_and_outside, ["other weights", "share weights"]),
    ],
    ids=[
        "no_model",
        "subclassed",
        "subclassed_called",
        "own_call",
        "unbuilt",
        "no_config",
        "unregistered",
        "lambda",
        "single_weight_frozen",
        "shared_inside_and_outside",
    ],
)
def test_models_that_cannot_be_targets_raise(build, words):
    model = build()
    with one_line_error(*words):
        hn.Target(model)


@pytest.mark.parametrize("before", [None, layers.Rescaling(0.1)])
def test_a_nested_model_of_floats_is_given_integers(before):
    nested = functional((8, 8, 3), layers.Conv2D(2, 3))
    steps = nested if before is None else lambda x: nested(before(x))
    model = functional((8, 8, 3), steps, dtype="uint8")
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    ensemble = hn.Ensemble.from_keras(hn.Target(model), model)
    np.testing.assert_allclose(ensemble.outputs(x)[0], model(x), rtol=1e-5, atol=1e-4)


def test_a_nested_model_may_begin_with_an_embedding():
    """Keras gives it an input of floats, to which it casts the tokens."""
    nested = keras.Sequential([layers.Embedding(1_000, 4), layers.GlobalAveragePooling1D()])
    inputs = [keras.Input((5,), dtype="int32") for _ in range(2)]
    model = keras.Model(inputs, layers.Dense(2)(layers.Add()([nested(one) for one in inputs])))
    x = list(np.random.default_rng(0).integers(0, 1_000, (2, 3, 5), np.int32))
    ensemble = hn.Ensemble.from_keras(hn.Target(model), model)
    np.testing.assert_allclose(ensemble.outputs(x)[0], model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (keras.layers.TextVectorization, ["a b", "a c"]),
        (keras.layers.StringLookup, [["a", "b"], ["a", "c"]]),
        (keras.layers.IntegerLookup, [[1, 2], [1, 3]]),
    ],
)
def test_weights_of_words_are_copied(kind, words):
    lookup = kind(output_mode="tf_idf")
    lookup.adapt(words)
    dtype = "int64" if kind is keras.layers.IntegerLookup else "string"
    inputs = keras.Input((1,) if kind is keras.layers.TextVectorization else (2,), dtype=dtype)
    model = keras.Model(inputs, keras.layers.Dense(1)(lookup(inputs)))
    x = tf.constant(np.reshape(words, (2, -1)))
    np.testing.assert_allclose(copied(model)(x), model(x), rtol=1e-6)


def equals_the_model(model, x):
    """The target with the model's own weights computes what the model does."""
    target = hn.Target(model)
    answers = hn.Ensemble.from_keras(target, model).outputs(x)
    np.testing.assert_allclose(answers[0], model(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "activation", [keras.ops.gelu, lambda x: keras.ops.leaky_relu(x, 0.01)], ids=["gelu", "leaky"]
)
def test_a_function_with_the_name_of_an_activation_is_an_error(activation):
    """Keras would find its own activation of that name, which is another function."""
    if activation is not keras.ops.gelu:
        activation.__name__ = "leaky_relu"
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, activation=activation)])
    with pytest.raises(ValueError, match="has the name of one of Keras's") as error:
        hn.Target(model)
    assert "\n" not in str(error.value)
    wrapped = keras.Sequential(
        [keras.Input((5, 3)), layers.TimeDistributed(layers.Dense(2, activation=activation))]
    )
    with pytest.raises(ValueError, match="has the name of one of Keras's"):
        hn.Target(wrapped)


@pytest.mark.parametrize("activation", ["gelu", keras.ops.relu, tf.nn.relu, keras.ops.tanh])
def test_a_function_that_computes_what_keras_has_of_its_name_is_copied(activation):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, activation=activation)])
    equals_the_model(model, np.random.default_rng(0).normal(size=(5, 3)).astype("float32"))


def test_a_nested_model_casts_whole_numbers():
    """200 times 100 is more than a byte holds."""
    inputs = keras.Input((3,), dtype="int32")
    inner = keras.Model(inputs, keras.ops.cast(inputs * 100, "float32"))
    x = keras.Input((3,), dtype="uint8")
    equals_the_model(keras.Model(x, layers.Dense(2)(inner(x))), np.full((2, 3), 200, np.uint8))


def test_layers_of_a_model_may_be_in_another_order_than_its_calls():
    class Reversed(keras.Model):
        def __init__(self):
            self.last, self.first = layers.Dense(3), layers.Dense(3)
            x = keras.Input((3,))
            super().__init__(x, self.last(keras.ops.relu(self.first(x))))

    model = Reversed()
    assert [v.shape for v in model.variables] == [(3, 3), (3,)] * 2
    equals_the_model(model, np.random.default_rng(0).normal(size=(5, 3)).astype("float32"))


def test_a_normalisation_inside_a_layer_keeps_what_it_was_adapted_to():
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(50, 10, size=(100, 3)))
    model = keras.Sequential(
        [keras.Input((5, 3)), layers.TimeDistributed(norm), layers.LSTM(4), layers.Dense(1)]
    )
    x = np.random.default_rng(1).normal(50, 10, size=(6, 5, 3)).astype("float32")
    equals_the_model(model, x)


def test_a_nested_model_casts_what_it_is_given():
    """300 in half precision, whose square is more than half precision holds."""
    inputs = keras.Input((3,))
    inner = keras.Model(inputs, inputs * inputs)
    x = keras.Input((3,))
    half = layers.Dense(3, dtype="mixed_float16", kernel_initializer="ones")
    equals_the_model(keras.Model(x, inner(half(x))), np.full((2, 3), 100, np.float32))


def test_an_activation_that_is_a_layer_has_the_mode_of_the_call():
    @keras.saving.register_keras_serializable(package="tests")
    class Twice(layers.Layer):
        def call(self, x, training=None):
            return 2 * x if training else x

    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, activation=Twice())])
    target = hn.Target(model)
    weights, x = hn.Ensemble.from_keras(target, model).weights, np.ones((4, 3), np.float32)
    once, twice = (target.run(weights, x, training=mode)[0] for mode in (False, True))
    np.testing.assert_allclose(twice, 2 * once.numpy(), rtol=1e-6)


def test_a_softmax_over_a_batch_is_that_of_each_network():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(1), layers.Reshape(()), layers.Softmax()]
    )
    target = hn.Target(model, outputs="values")
    theta = np.random.default_rng(0).normal(size=(4, target.weight_count))
    weights = target.unflatten(theta.astype("float32"))
    outputs = target(weights, np.random.default_rng(1).normal(size=(6, 3)).astype("float32"))
    np.testing.assert_allclose(outputs.numpy().sum(-1), 1, rtol=1e-5)


def softmax(x):
    return keras.ops.softmax(x, axis=1)


def relu(x):
    return keras.ops.clip(x, 0, 6)


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Activation(softmax),  # over time: on the last axis it would be 1
        lambda: layers.Dense(8, activation=relu),  # equal up to 6
        lambda: layers.Lambda(softmax),
    ],
    ids=["another axis", "far from 0", "lambda"],
)
def test_a_function_that_is_nearly_the_one_of_its_name_is_an_error(layer):
    model = keras.Sequential([keras.Input((5, 1)), layer(), layers.Dense(2)])
    with pytest.raises(ValueError, match="has the name of one of Keras's"):
        hn.Target(model)


@pytest.mark.parametrize("kind", ["einsum", "add"])
def test_an_operation_on_a_variable_of_a_layer_is_an_error(kind):
    """Generated weights could not replace it: all networks would have the model's own."""
    tokens = keras.Input((4,), dtype="int32")
    embedding = layers.Embedding(7, 3)
    hidden = layers.GlobalAveragePooling1D()(embedding(tokens))
    if kind == "einsum":
        outputs = keras.ops.einsum("bd,vd->bv", hidden, embedding.embeddings)
    else:
        dense = layers.Dense(3)
        outputs = keras.ops.add(dense(hidden), dense.bias)
    with pytest.raises(ValueError, match="itself, which generated weights cannot replace") as error:
        hn.Target(keras.Model(tokens, outputs))
    assert "\n" not in str(error.value)


@keras.saving.register_keras_serializable(package="tests")
class Block(layers.Layer):
    """Attention, and layers that it keeps in an inner model and in a list."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 4)
        self.dense = layers.Dense(6, activation="relu")
        self.inner = keras.Sequential([layers.Dense(6, activation="tanh"), layers.Dense(6)])
        self.more = [layers.Dense(6), layers.Dense(6)]

    def build(self, shape):
        self.attention.build(shape, shape)
        for one in (self.dense, self.inner, *self.more):
            one.build(shape)

    def call(self, x):
        x = self.inner(self.dense(x + self.attention(x, x)))
        for one in self.more:
            x = one(x)
        return x


def test_layers_inside_a_layer_start_in_each_network_from_weights_of_its_own():
    model = keras.Sequential([keras.Input((3, 6)), Block(), layers.RNN([layers.LSTMCell(4)] * 1)])
    sampler = hn.DeepEnsemble(model, num_networks=2, gauge=False)
    kernels = 0
    for one in sampler.sample(2).weights.trainable:
        first, second = one.numpy()
        if first.ndim > 1 and first.any():  # biases are vectors, or zero
            kernels += 1
            assert np.abs(first - second).max() > 1e-3
    assert kernels == 4 + 1 + 2 + 2 + 2  # attention, Dense, inner, more, LSTM


def test_a_vocabulary_that_was_set_later_is_that_of_the_copy():
    lookup = layers.StringLookup(vocabulary=["a", "b"])
    lookup.set_vocabulary(["c", "d"])
    inputs = keras.Input((1,), dtype="string")
    outputs = layers.Dense(2)(layers.Flatten()(layers.Embedding(4, 3)(lookup(inputs))))
    model = keras.Model(inputs, outputs)
    x = tf.constant([["c"], ["d"], ["a"]])
    answers = hn.Ensemble.from_keras(hn.Target(model), model).outputs(x)
    np.testing.assert_allclose(answers[0], model(x), rtol=1e-5)
