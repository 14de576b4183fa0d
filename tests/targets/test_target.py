"""A target: its state, networks as Keras models, and what it is saved as."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from target_models import (
    CASES,
    B,
    N,
    assert_close,
    assert_equal,
    frozen,
    networks_differ,
    one_line_error,
    sequential,
    some_inputs,
    some_weights,
    with_initial_state,
)

import hypernet_tf as hn

layers = keras.layers


# ---- randomness and statistics ------------------------------------------------------------


def test_networks_of_equal_weights_drop_different_units():
    target = hn.Target(CASES["dropout"]())
    x = tf.ones([B, 9])

    def run(seed, training=True):
        weights = target.unflatten(tf.ones([N, target.weight_count]))
        return target(
            hn.WeightSet(weights.trainable, target.initial_state(N, seed)), x, training=training
        )

    first = run((0, 1))
    assert networks_differ([first])
    assert not np.array_equal(first, run((0, 2)))
    np.testing.assert_array_equal(first, run((0, 1)))
    assert not networks_differ([run((0, 1), training=False)])


def test_two_dropout_layers_of_a_network_differ():
    first, second = hn.Target(CASES["dropout"]()).initial_state(1, (0, 1))
    assert not np.array_equal(first, second)


def test_batch_statistics_are_used_outside_training_too():
    norm = layers.BatchNormalization(epsilon=0.0)
    target = hn.Target(sequential((3,), layers.Dense(2), norm, layers.Dropout(0.5)))
    model = target.to_keras(target.unflatten(tf.ones([1, target.weight_count])))
    weights = some_weights(target, model)
    x = some_inputs(model, 16)
    outputs, state = target.run(weights, x, batch_statistics=True)
    gamma, beta = weights.trainable[2:]
    normalised = (outputs - beta[:, None]) / gamma[:, None]
    np.testing.assert_allclose(tf.reduce_mean(normalised, 1), np.zeros([N, 2]), atol=1e-5)
    np.testing.assert_allclose(tf.math.reduce_std(normalised, 1), np.ones([N, 2]), rtol=1e-4)
    assert not np.allclose(state[0], weights.state[0])
    assert not np.allclose(outputs, target(weights, x))


def test_momentum_is_what_a_run_keeps_of_the_statistics():
    once = hn.Target(CASES["batch_norm"]())
    assert once.statistics == [(0, 0.7), (1, 0.7)]
    both = hn.Target(CASES["layer_called_twice"]())
    assert both.statistics == [(0, 0.99**2), (1, 0.99**2)]
    assert hn.Target(CASES["batch_norm_frozen"]()).statistics == []
    model = CASES["layer_called_twice"]()
    weights = both.unflatten(tf.zeros([1, both.weight_count]))
    x = some_inputs(model, B)

    def state_after(start):
        state = [tf.fill(s.shape, start) for s in weights.state]
        return both.run(hn.WeightSet(weights.trainable, state), x, training=True)[1]

    for a, b in zip(state_after(100.0), state_after(0.0), strict=True):
        np.testing.assert_allclose(a - b, np.full(a.shape, 100 * 0.99**2), rtol=1e-4)


# ---- the user's model ---------------------------------------------------------------------


@pytest.mark.parametrize("case", ["nested_called_twice", "layer_called_twice", "conv_then_dense"])
def test_the_users_model_is_not_changed(case):
    model = CASES[case]()
    x = some_inputs(model, B)
    before, weights = model(x), model.get_weights()
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    target = hn.Target(model)
    target.to_keras(with_initial_state(target, model))
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    if case == "conv_then_dense":
        assert [layer.output.shape[-1] for layer in model.layers] == [2, 2, 8, 3]
        assert keras.Model(model.inputs, model.layers[1].output)(x).shape == (B, 2, 2, 2)
    assert_equal(model.get_weights(), weights)
    np.testing.assert_array_equal(model(x), before)
    assert not {id(v) for v in target._template.variables} & {id(v) for v in model.variables}


def test_later_changes_of_the_users_model_have_no_effect():
    model = CASES["frozen"]()
    target = hn.Target(model)
    weights = target.unflatten(tf.ones([2, target.weight_count]))
    x = some_inputs(model, B)
    before = target(weights, x)
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    np.testing.assert_array_equal(target(weights, x), before)


def test_a_frozen_layer_keeps_its_values():
    model = CASES["frozen"]()
    kernel, bias = model.layers[0].get_weights()
    target = hn.Target(model)
    assert [layer.name for layer in target.layers] == [model.layers[1].name]
    assert target.weight_count == 3 * 2 + 2
    weights = target.unflatten(tf.eye(8)[:3])
    x = some_inputs(model, B)
    hidden = np.maximum(np.asarray(x) @ kernel + bias, 0)
    expected = np.zeros([3, B, 2])
    expected[0, :, 0], expected[1, :, 1], expected[2, :, 0] = (
        hidden[:, 0],
        hidden[:, 0],
        hidden[:, 1],
    )
    np.testing.assert_allclose(target(weights, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_frozen_layer_of_layers_keeps_its_values(when, tmp_path):
    inputs = keras.Input((3, 4))
    attention = layers.MultiHeadAttention(2, 2, trainable=when == "after")
    hidden = layers.GlobalAveragePooling1D()(attention(inputs, inputs))
    attention.trainable = False
    model = keras.Model(inputs, layers.Dense(2)(hidden))
    target = hn.Target(model)
    assert target.weight_count == 4 * 2 + 2
    x = some_inputs(model, B)
    one = target.unflatten(tf.concat([tf.reshape(w, [1, -1]) for w in model.weights[-2:]], -1))
    np.testing.assert_allclose(target(one, x)[0], model(x), rtol=1e-5, atol=1e-6)
    sampler = hn.DeepEnsemble(model, num_networks=2)
    sampler.compile("adam", "mse")
    sampler.save(tmp_path / "sampler.keras")
    loaded = keras.saving.load_model(tmp_path / "sampler.keras")
    expected = sampler.sample(2).outputs(x)
    np.testing.assert_allclose(loaded.sample(2).outputs(x), expected, rtol=1e-5, atol=1e-6)


def test_a_compiled_model_is_a_target_without_its_training():
    model = CASES["batch_norm_frozen"]()
    model.compile("adam", loss=lambda y, p: keras.ops.mean((y - p) ** 2), metrics=["mae"])
    model.fit(np.ones((8, 3)), np.ones((8, 2)), verbose=0)
    target = hn.Target(model)
    assert not target._template.compiled
    assert len(target.unflatten(tf.ones([1, target.weight_count])).state) == 4
    assert target.weight_count == 3 * 3 + 3 + 3 * 2 + 2


# ---- one network as a Keras model ---------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    [
        "conv_then_dense",
        "batch_norm",
        "normalization_nested",
        "frozen",
        "two_inputs_two_outputs",
        "custom",
    ],
)
def test_to_keras_is_that_network(case):
    model = CASES[case]()
    target = hn.Target(model)
    weights = some_weights(target, model)
    x = some_inputs(model, B)
    outputs = target(weights, x)
    singles = [hn.WeightSet(*([t[n : n + 1] for t in part] for part in weights)) for n in range(N)]
    networks = [target.to_keras(single) for single in singles]
    for n, network in enumerate(networks):
        assert type(network) is type(model)
        expected = keras.tree.map_structure(lambda t, n=n: t[n].numpy(), outputs)
        predicted = keras.tree.map_structure(np.asarray, network(x))
        assert_close(predicted, expected)
    given = keras.tree.map_structure(np.asarray, x)
    assert_close(network.predict(given, verbose=0), expected)
    changed = [np.zeros_like(w) for w in networks[0].get_weights()]
    networks[0].set_weights(changed)
    assert_close(target(weights, x), outputs)
    assert any(w.any() for w in networks[1].get_weights())
    with one_line_error(f"Cannot make one Keras model of {N} networks"):
        target.to_keras(weights)


# ---- serialisation ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    ["conv_then_dense", "two_inputs_two_outputs", "nested_called_twice", "normalization", "custom"],
)
def test_a_target_survives_its_config(case):
    model = CASES[case]()
    target = hn.Target(model, outputs="values", convolutions="unrolled")
    config = keras.saving.serialize_keras_object(target)
    first = keras.saving.deserialize_keras_object(config)
    again = keras.saving.deserialize_keras_object(config)  # the config is not changed
    weights = some_weights(target, model)
    x = some_inputs(model, B)
    for copy in (first, again):
        assert copy.get_config() == target.get_config()
        assert (copy.name, copy.outputs, copy.layers) == (target.name, "values", target.layers)
        assert_close(copy(weights, x), target(weights, x))
    own_config = target.get_config()
    assert hn.Target.from_config(own_config).weight_count == target.weight_count
    assert "model" in own_config


def in_a_keras_model(model):
    """A Keras model that computes three networks' outputs from theta."""
    target = hn.Target(model)
    inputs = [keras.Input(batch_shape=(N, *v.shape)) for v in model.trainable_variables]
    images = keras.Input(model.input_shape[1:])
    outer = keras.Model([*inputs, images], hn.TargetLayer(target)((inputs, images)))
    return target, outer


def test_target_layer_in_a_keras_model(tmp_path):
    model = CASES["frozen"]()
    target, outer = in_a_keras_model(model)
    weights = some_weights(target, model)
    weights = weights._replace(state=target.initial_state(N))
    x = some_inputs(model, B)
    assert outer.weights == []
    assert_close(outer([*weights.trainable, x]), target(weights, x))
    outer.save(tmp_path / "outer.keras")
    loaded = keras.saving.load_model(tmp_path / "outer.keras")
    assert_close(loaded([*weights.trainable, x]), target(weights, x))


def test_target_layer_called_directly_and_its_config():
    model = CASES["dropout"]()
    target = hn.Target(model)
    weights = with_initial_state(target, model)
    x = some_inputs(model, B)
    layer = hn.TargetLayer(target, name="networks")
    assert layer.weights == []
    assert_close(layer((weights.trainable, x)), target(weights, x))
    trained = layer((weights.trainable, x), training=True)
    assert not np.allclose(trained, target(weights, x))
    assert_close(trained, target(weights, x, training=True))
    config = keras.saving.serialize_keras_object(layer)
    for _ in range(2):
        copy = keras.saving.deserialize_keras_object(config)
        assert copy.name == "networks"
        assert_close(copy((weights.trainable, x), training=True), trained)


# ---- other targets from one ---------------------------------------------------------------


def test_with_outputs_shares_the_model_and_leaves_the_target_alone():
    model = CASES["dense"]()
    target = hn.Target(model)
    logits = target.with_outputs("logits")
    assert (target.outputs, target.classes) == ("values", None)
    assert (logits.outputs, logits.classes) == ("logits", 3)
    assert logits.plan is target.plan and logits.layers is target.layers
    assert logits.get_config() == target.get_config() | {"outputs": "logits"}
    weights = some_weights(target, model)
    x = some_inputs(model, B)
    assert_equal([logits(weights, x)], [target(weights, x)])
    assert (hn.Gauge(target).softmax_biases, hn.Gauge(logits).softmax_biases) == ([], [3])
    assert logits.with_outputs("values").classes is None


def test_with_outputs_raises_for_outputs_that_the_model_cannot_have():
    target = hn.Target(CASES["dense_softmax"]())
    with one_line_error("ends in a softmax", "not 'logits'"):
        target.with_outputs("logits")
    with one_line_error(
        "Unknown outputs='classes'", "'logits' or 'probabilities' or 'label_logits'"
    ):
        target.with_outputs("classes")


@pytest.mark.parametrize("case", ["batch_norm", "nested_called_twice", "batch_norm_frozen"])
def test_with_batch_norm_takes_the_same_weights_and_leaves_the_target_alone(case):
    model = CASES[case]()
    target = hn.Target(model, outputs="values", convolutions="grouped")
    synchronized = target.with_batch_norm(synchronized=True)
    for one, expected in ((target, False), (synchronized, True)):
        norms = [op for op in one.plan.operations if isinstance(op, layers.BatchNormalization)]
        assert norms and all(norm.synchronized == expected for norm in norms)
    weights = some_weights(target, model)
    x = some_inputs(model, N, B)
    for training in (False, True):  # on one device both compute the same
        outputs, state = target.run(weights, x, training=training)
        assert_close(synchronized.run(weights, x, training=training), (outputs, state))
    assert synchronized.layers == target.layers and synchronized.statistics == target.statistics
    assert synchronized.with_batch_norm(synchronized=True) is synchronized
    back = synchronized.with_batch_norm(synchronized=False)
    assert back.get_config() == target.get_config()


def test_with_batch_norm_of_a_model_without_any_is_the_target():
    target = hn.Target(CASES["dense"]())
    assert target.with_batch_norm(synchronized=True) is target


# ---- errors -------------------------------------------------------------------------------


def test_unknown_options_raise():
    model = CASES["dense"]()
    with one_line_error("Unknown outputs='foo'", "'logits' or 'probabilities' or 'label_logits'"):
        hn.Target(model, outputs="foo")
    with one_line_error("Unknown convolutions='foo'", "'auto' or 'unrolled' or 'grouped'"):
        hn.Target(model, convolutions="foo")


def test_weights_of_another_number_are_one_line():
    target = hn.Target(sequential((4,), layers.Dense(3), layers.Dropout(0.5)))
    for shape in ([2, 16], [15]):
        with one_line_error(f"theta has the shape {shape}: give [networks, 15]"):
            target.unflatten(tf.zeros(shape))
    weights = target.unflatten(tf.zeros([2, 15]))
    with one_line_error("has 2 weights and 0 states, and the target 2 and 1: use target.unflat"):
        target(hn.WeightSet(weights.trainable, []), tf.zeros([5, 4]))


class Block(layers.Layer):
    """A layer of the user's own with batch normalisation inside it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = layers.BatchNormalization()

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, training=False):
        return self.norm(x, training=training)


@pytest.mark.parametrize(
    ("shape", "layer", "words"),
    [
        (
            (4,),
            lambda: layers.Dense(3, activity_regularizer="l2", name="busy"),
            ["'busy' has an activity_regularizer", "remove it"],
        ),
        (
            (4,),
            lambda: layers.Dense(3, kernel_constraint="non_neg"),
            ["has a constraint, which generated weights do not meet: remove it"],
        ),
        ((4, 4, 2), Block, ["'block' has batch normalisation inside it"]),
        (
            (3, 4, 2),
            lambda: layers.TimeDistributed(layers.BatchNormalization()),
            ["has batch normalisation inside it"],
        ),
        ((4,), lambda: layers.BatchNormalization(renorm=True), ["has renorm=True", "renorm=False"]),
        (
            (4,),
            lambda: layers.SpectralNormalization(layers.Dense(3), name="norm"),
            ["'norm' changes its weights as it trains", "use the layer inside it"],
        ),
        ((4,), layers.ReLU, ["no trainable weights"]),
        ((4,), lambda: frozen(layers.Dense(3)), ["no trainable weights"]),
    ],
    ids=[
        "activity_regularizer",
        "constraint",
        "norm_inside",
        "wrapped_norm",
        "renorm",
        "spectral_norm",
        "no_weights",
        "all_frozen",
    ],
)
def test_layers_that_cannot_be_generated_raise(shape, layer, words):
    model = sequential(shape, layer())
    with one_line_error(*words):
        hn.Target(model)


class Penalised(layers.Dense):
    """A layer whose configuration leaves out its regularizer."""

    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs | {"kernel_regularizer": "l2"})

    def get_config(self):
        return super().get_config() | {"kernel_regularizer": None}

    @classmethod
    def from_config(cls, config):
        return layers.Dense(**config)


class Unknown(keras.regularizers.Regularizer):
    """A regularizer that is not registered."""

    def __call__(self, x):
        return tf.reduce_sum(x)

    def get_config(self):
        return {}


def test_a_regularizer_that_keras_does_not_know_is_an_error():
    with one_line_error("does not know one of its regularizers", "register_keras_serializable"):
        hn.Target(sequential((4,), layers.Dense(3, kernel_regularizer=Unknown())))


def test_a_regularizer_that_a_copy_loses_is_an_error():
    with one_line_error("does not state its regularizer", "kernel_regularizer="):
        hn.Target(sequential((4,), Penalised(3)))


def test_regularization_is_the_mean_penalty_over_networks():
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            layers.SeparableConv2D(3, 3, depthwise_regularizer="l1", pointwise_regularizer="l2"),
            layers.BatchNormalization(gamma_regularizer=keras.regularizers.L1L2(0.1, 0.2)),
            frozen(layers.Conv2D(2, 1, kernel_regularizer="l2")),
            layers.Flatten(),
            layers.Dense(4, kernel_regularizer=keras.regularizers.OrthogonalRegularizer()),
        ]
    )
    target = hn.Target(model)
    theta = tf.random.stateless_normal([3, target.weight_count], [0, 0])
    ensemble = hn.Ensemble(target, target.unflatten(theta))
    ensemble = ensemble.update_batch_norm(np.ones([2, 6, 6, 2], np.float32))
    losses = [float(sum(network.to_keras().losses)) for network in ensemble]
    penalty = float(target.regularization(ensemble.weights.trainable))
    np.testing.assert_allclose(penalty, np.mean(losses), rtol=1e-5)
    plain = hn.Target(keras.Sequential([keras.Input((4,)), layers.Dense(3)]))
    assert float(plain.regularization(plain.unflatten(tf.ones([2, 15])).trainable)) == 0.0


def test_statistics_inside_a_layer_without_weights_are_an_error_unless_frozen():
    norm = layers.BatchNormalization(center=False, scale=False)
    model = sequential((3, 4), layers.TimeDistributed(norm), layers.Dense(2))
    with one_line_error("has batch normalisation inside it"):
        hn.Target(model)
    norm.trainable = False
    assert hn.Target(model).weight_count == 10
