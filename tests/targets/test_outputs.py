"""What the outputs of a target mean."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from target_models import CASES, functional, one_line_error, sequential

import hypernet_tf as hn

layers = keras.layers


@pytest.mark.parametrize(
    ("build", "outputs", "classes"),
    [
        (lambda: sequential((4,), layers.Dense(3)), "values", None),
        (lambda: sequential((4,), layers.Dense(3, activation="softmax")), "probabilities", 3),
        (lambda: sequential((4,), layers.Dense(3), layers.Softmax()), "probabilities", 3),
        (
            lambda: functional((4,), lambda x: keras.ops.softmax(layers.Dense(3)(x))),
            "probabilities",
            3,
        ),
        (
            lambda: sequential(
                (4,),
                layers.Dense(3, activation="softmax"),
                layers.Activation("linear", dtype="float32"),
                layers.Identity(),
            ),
            "probabilities",
            3,
        ),
        (
            lambda: functional((4,), lambda x: keras.ops.softmax(layers.Dense(3)(x), axis=0)),
            "values",
            None,
        ),
        (
            lambda: functional((4,), lambda x: keras.ops.sigmoid(layers.Dense(3)(x))),
            "label_probabilities",
            2,
        ),
        (lambda: sequential((4,), layers.Dense(1, activation="sigmoid")), "probabilities", 2),
        (lambda: sequential((4,), layers.Dense(2, activation="sigmoid")), "label_probabilities", 2),
        (
            lambda: functional((4, 4, 1), layers.Conv2D(2, 1, activation="sigmoid")),
            "label_probabilities",
            2,
        ),
        (
            lambda: functional(
                (4,), lambda x: [layers.Dense(1)(x), layers.Dense(3, activation="softmax")(x)]
            ),
            "values",
            None,
        ),
    ],
    ids=[
        "linear",
        "softmax",
        "softmax_layer",
        "softmax_operation",
        "linear_after_softmax",
        "softmax_over_examples",
        "sigmoid_operation",
        "sigmoid",
        "sigmoids",
        "sigmoid_maps",
        "two_outputs",
    ],
)
def test_outputs_are_inferred_from_the_last_layer(build, outputs, classes):
    target = hn.Target(build())
    assert (target.outputs, target.classes) == (outputs, classes)


def test_logits_become_probabilities():
    logits = hn.Target(sequential((4,), layers.Dense(3)), outputs="logits")
    np.testing.assert_allclose(logits.activate(tf.zeros([2, 3])), np.full([2, 3], 1 / 3), rtol=1e-6)
    single = hn.Target(sequential((4,), layers.Dense(1)), outputs="logits")
    assert (logits.classes, single.classes) == (3, 2)
    np.testing.assert_allclose(single.activate(tf.zeros([2, 1])), np.full([2, 1], 0.5), rtol=1e-6)
    labels = hn.Target(sequential((4,), layers.Dense(3)), outputs="label_logits")
    assert (labels.classes, labels.choices_shape, logits.choices_shape) == (2, (3,), ())
    np.testing.assert_allclose(labels.activate(tf.zeros([2, 3])), np.full([2, 3], 0.5), rtol=1e-6)
    np.testing.assert_allclose(
        labels.log_probabilities(tf.constant([[0.0, 2.0, -2.0]]))[..., 1],
        tf.math.log_sigmoid([[0.0, 2.0, -2.0]]),
        rtol=1e-6,
    )
    values = hn.Target(sequential((4,), layers.Dense(3)))
    np.testing.assert_array_equal(values.activate(tf.ones([2, 3])), np.ones([2, 3]))


def test_what_a_layer_of_ones_own_does_with_an_activation_is_not_known():
    class Residual(layers.Layer):
        activation = staticmethod(keras.activations.softmax)

        def call(self, x):
            return x + self.activation(x)

    with keras.saving.custom_object_scope({"Residual": Residual}):
        model = keras.Sequential([keras.Input((2,)), layers.Dense(3), Residual()])
        target = hn.Target(model)
    assert target.outputs == "values"
    assert hn.Gauge(target).softmax_biases == []


def test_a_layer_of_one_of_keras_kinds_ends_in_its_activation():
    @keras.saving.register_keras_serializable(package="tests")
    class NormDense(layers.Dense):
        def call(self, x):
            return self.activation(x @ (self.kernel / 2))

    model = keras.Sequential([keras.Input((2,)), NormDense(3, activation="softmax")])
    assert hn.Target(model).outputs == "probabilities"
    with pytest.raises(ValueError, match="softmax"):
        hn.Target(model, outputs="logits")


def test_several_outputs_have_no_classes_to_ask_for():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(2, activation="softmax")(inputs) for _ in range(2)])
    with one_line_error("a vote needs a target with one output: use predict()"):
        hn.Target(model).require_choices("a vote")


@pytest.mark.parametrize(
    ("case", "outputs", "words"),
    [
        ("dense_softmax", "logits", ["ends in a softmax or sigmoid", "'probabilities'"]),
        ("sigmoid", "logits", ["ends in a softmax or sigmoid", "'probabilities'"]),
        ("sigmoids", "label_logits", ["ends in a sigmoid", "'label_probabilities'"]),
        ("sigmoid", "label_probabilities", ["at least 2 labels", "use outputs='logits'"]),
        ("one_softmax", None, ["softmax over one column", "use a sigmoid"]),
        ("one_number", "label_logits", ["needs an axis of classes", "use outputs='values'"]),
        ("one_number", "logits", ["needs an axis of classes", "use outputs='values'"]),
        ("one_number", "probabilities", ["needs an axis of classes", "use outputs='values'"]),
    ],
)
def test_outputs_that_the_model_does_not_have_raise(case, outputs, words):
    models = {
        "sigmoid": lambda: sequential((4,), layers.Dense(1, activation="sigmoid")),
        "sigmoids": lambda: sequential((4,), layers.Dense(2, activation="sigmoid")),
        "one_softmax": lambda: sequential((4,), layers.Dense(1, activation="softmax")),
        "one_number": lambda: sequential((4,), layers.Dense(1), layers.Reshape(())),
    }
    model = (models | CASES)[case]()
    with one_line_error(*words):
        hn.Target(model, outputs=outputs)


@pytest.mark.parametrize("units", [1, 3])
def test_the_activation_inside_a_recurrence_says_nothing_of_its_outputs(units):
    for last in (
        layers.LSTM(units, activation="sigmoid"),
        layers.SimpleRNN(units, activation="softmax"),
    ):
        assert hn.Target(sequential((5, 2), last)).outputs == "values"
    target = hn.Target(
        sequential((5, 2), layers.SimpleRNN(3, activation="softmax")), outputs="probabilities"
    )
    assert target.with_logits is target
