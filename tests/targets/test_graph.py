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
        "lambda",
        "single_weight_frozen",
        "shared_inside_and_outside",
    ],
)
def test_models_that_cannot_be_targets_raise(build, words):
    model = build()
    with one_line_error(*words):
        hn.Target(model)


def test_integers_for_a_nested_model_of_floats_raise():
    nested = functional((8, 8, 3), layers.Conv2D(2, 3))
    with one_line_error("takes float32 and is given uint8: put a layer before it that casts"):
        hn.Target(functional((8, 8, 3), nested, dtype="uint8"))
    rescaled = functional((8, 8, 3), lambda x: nested(layers.Rescaling(0.1)(x)), dtype="uint8")
    target = hn.Target(rescaled)
    x = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    ensemble = hn.Ensemble.from_keras(target, rescaled)
    np.testing.assert_allclose(ensemble.outputs(x)[0], rescaled(x), rtol=1e-5, atol=1e-5)


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
