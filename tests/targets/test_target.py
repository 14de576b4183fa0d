"""N weight sets at once against the oracle: a plain loop of `stateless_call` over networks."""

import contextlib
import functools
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import hypernet_tf as hn
from hypernet_tf.targets import execution as rules
from hypernet_tf.targets.graph import record

layers = keras.layers
N, B = 3, 4


# ---- the zoo ------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="test_targets")
class Scale(layers.Layer):
    """One factor for everything, with a multiplicative state that each training call doubles."""

    def build(self, shape):
        self.factor = self.add_weight(name="factor", shape=(), initializer="ones")
        self.calls = self.add_weight(
            name="calls", shape=(), initializer="ones", dtype="float32", trainable=False
        )

    def call(self, inputs, training=False):
        if training:
            self.calls.assign(self.calls * 2.0)
        return inputs * self.factor * self.calls


@keras.saving.register_keras_serializable(package="test_targets")
class Noisy(layers.Layer):
    """Its call takes no mode, but the dropout inside it needs one."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = layers.Dropout(0.5)

    def call(self, inputs):
        return self.dropout(inputs)


@keras.saving.register_keras_serializable(package="test_targets")
def centred(x):
    """An activation that mixes the examples of a batch."""
    return x - keras.ops.mean(x, axis=0, keepdims=True)


@keras.saving.register_keras_serializable(package="test_targets")
class OwnCall(keras.Model):
    """Functional in form, but its call is its own."""

    def __init__(self, width=3, **kwargs):
        inputs = keras.Input((width,))
        super().__init__(inputs, layers.Dense(width)(inputs), **kwargs)
        self.width = width

    def call(self, inputs, training=None):
        return 2.0 * super().call(inputs, training=training)

    def get_config(self):
        return {"width": self.width}


class Functional(keras.Model):
    """The documented way to name a Functional model."""

    def __init__(self):
        inputs = keras.Input((3,))
        super().__init__(inputs, layers.Dense(2)(inputs))


def sequential(shape, *steps, dtype=None):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *steps])


def functional(shape, graph, dtype=None):
    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, graph(inputs))


def frozen(layer):
    layer.trainable = False
    return layer


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(3.0, 2.0, [50, 4]))
    return layer


def low_rank():
    dense = layers.Dense(3)
    dense.build((None, 4))
    dense.enable_lora(2)
    return sequential((4,), dense)


def shared_nested():
    nested = sequential((3,), layers.Dense(3, activation="tanh"), layers.BatchNormalization())
    inputs = keras.Input((3,))
    return keras.Model(inputs, layers.Add()([nested(nested(inputs)), inputs]))


def nested_in_inference():
    part = keras.Input((3,))
    nested = keras.Model(part, layers.Dropout(0.5)(layers.Dense(3)(part)))
    return functional((3,), lambda x: nested(x, training=False))


def nested_by_name():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    nested = keras.Model([b, a], layers.Subtract()([a, layers.Dense(3)(b)]))
    x, y = keras.Input((3,)), keras.Input((3,))
    return keras.Model([x, y], nested({"a": x, "b": y}))


def two_inputs():
    inputs = {"left": keras.Input((3,), name="left"), "right": keras.Input((2, 3), name="right")}
    right = layers.LSTM(4)(inputs["right"])
    joined = layers.Concatenate()([layers.Dense(4)(inputs["left"]), right])
    return keras.Model(inputs, {"sum": layers.Dense(2)(joined), "joined": joined})


def attention(x):
    out, scores = layers.MultiHeadAttention(2, 3, dropout=0.3)(
        x, layers.Dense(4)(x), return_attention_scores=True
    )
    return [out, scores]


def lstm_states(x):
    out, *state = layers.LSTM(3, return_state=True, return_sequences=True)(x)
    return layers.LSTM(3)(out, initial_state=state)


def masked(after):
    """A mask that travels past `after`, to a layer that Keras hands it to at run time only."""

    def graph(tokens):
        x = after(layers.Embedding(5, 3, mask_zero=True)(tokens))
        return layers.LSTM(4)(x, training=True)

    return functional((6,), graph, dtype="int32")


def twice():
    dense = layers.Dense(3, activation="relu")
    norm = layers.BatchNormalization()
    return functional((3,), lambda x: norm(dense(norm(dense(x)))))


def residual(x):
    y = layers.Conv2D(2, 3, padding="same", activation="relu")(x)
    return layers.Add()([x, layers.Conv2D(2, 3, padding="same")(y)])


def ops_graph(x):
    y = layers.Dense(6)(x * 2 + 1)
    left, right = keras.ops.split(keras.ops.relu(y), 2, axis=-1)
    return left - keras.ops.mean(right, axis=0, keepdims=True)


def stack2d(*steps):
    """Steps on stacked images: a dense layer before and after them."""
    return sequential((6, 6, 2), layers.Dense(2), *steps, layers.Dense(2))


def stack1d(*steps):
    return sequential((6, 2), layers.Dense(2), *steps, layers.Dense(2))


def stack3d(*steps):
    return sequential((4, 4, 4, 1), layers.Dense(2), *steps, layers.Dense(2))


def bfloat16(*steps):
    policy = "mixed_bfloat16"
    return sequential(
        (6, 6, 1), *[type(s).from_config(s.get_config() | {"dtype": policy}) for s in steps]
    )


SAME = {"padding": "same"}
CASES = {
    # Dense
    "dense": lambda: sequential((4,), layers.Dense(5, activation="relu"), layers.Dense(3)),
    "dense_rank_3": lambda: sequential((5, 3), layers.Dense(4, activation="tanh"), layers.Dense(2)),
    "dense_rank_4": lambda: sequential((2, 3, 3), layers.Dense(4), layers.Dense(2)),
    "dense_softmax": lambda: sequential((4,), layers.Dense(3, activation="softmax")),
    "dense_softmax_rank_3": lambda: sequential((5, 4), layers.Dense(3, activation="softmax")),
    "dense_no_bias": lambda: sequential((4,), layers.Dense(3, use_bias=False), layers.Dense(2)),
    "dense_mixing_activation": lambda: sequential((4,), layers.Dense(3, activation=centred)),
    "dense_dropout_as_activation": lambda: sequential(
        (4,), layers.Dense(9, activation=layers.Dropout(0.5))
    ),
    "dense_by_keyword": lambda: functional((4,), lambda x: layers.Dense(3)(inputs=x)),
    "dense_low_rank": low_rank,
    "dense_unknown_length": lambda: sequential((None, 3), layers.Dense(4), layers.ReLU()),
    # Steps without weights
    "activations": lambda: sequential(
        (4,),
        layers.Dense(5),
        layers.Activation("gelu"),
        layers.ReLU(max_value=6.0),
        layers.Dense(5),
        layers.LeakyReLU(),
        layers.ELU(),
        layers.Rescaling(2.0, offset=1.0),
        layers.Softmax(),
    ),
    "activation_mixing": lambda: sequential((4,), layers.Dense(3), layers.Activation(centred)),
    "activation_by_keyword": lambda: functional(
        (4,), lambda x: layers.Activation("tanh")(inputs=layers.Dense(3)(x))
    ),
    "softmax_of_an_axis": lambda: sequential((4, 3), layers.Dense(3), layers.Softmax(axis=1)),
    "reshape": lambda: stack2d(layers.Reshape((4, -1)), layers.Permute((2, 1)), layers.Flatten()),
    "pool_1d": lambda: stack1d(layers.MaxPooling1D(2), layers.AveragePooling1D(2, **SAME)),
    "pool_2d": lambda: stack2d(layers.MaxPooling2D(2), layers.AveragePooling2D(2, **SAME)),
    "pool_3d": lambda: stack3d(layers.MaxPooling3D(2), layers.AveragePooling3D(2, **SAME)),
    "global_max_1d": lambda: stack1d(layers.GlobalMaxPooling1D()),
    "global_average_1d": lambda: stack1d(layers.GlobalAveragePooling1D()),
    "global_max_2d": lambda: stack2d(layers.GlobalMaxPooling2D()),
    "global_average_2d": lambda: stack2d(layers.GlobalAveragePooling2D(keepdims=True)),
    "resize_1d": lambda: stack1d(layers.ZeroPadding1D(1), layers.UpSampling1D(2)),
    "resize_2d": lambda: stack2d(
        layers.ZeroPadding2D(1),
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.Cropping2D(2),
    ),
    # Convolutions
    "conv_1d": lambda: sequential(
        (6, 2), layers.Conv1D(3, 3, activation="relu"), layers.Conv1D(2, 2)
    ),
    "conv_1d_causal": lambda: sequential(
        (6, 2), layers.Conv1D(3, 3, padding="causal", dilation_rate=2), layers.Conv1D(2, 2)
    ),
    "conv_2d": lambda: sequential(
        (6, 6, 2), layers.Conv2D(3, 3, activation="relu", **SAME), layers.Conv2D(2, (3, 2))
    ),
    "conv_2d_strides": lambda: sequential(
        (7, 7, 1), layers.Conv2D(2, 3, strides=2, **SAME), layers.Conv2D(2, 2, strides=(2, 1))
    ),
    "conv_2d_dilation": lambda: sequential(
        (7, 7, 1), layers.Conv2D(2, 2, dilation_rate=2), layers.Conv2D(2, 2, dilation_rate=(1, 2))
    ),
    "conv_2d_groups": lambda: sequential(
        (5, 5, 2), layers.Conv2D(4, 3, groups=2, **SAME), layers.Dense(2)
    ),
    "conv_2d_softmax_no_bias": lambda: sequential(
        (5, 5, 1), layers.Conv2D(3, 3, use_bias=False), layers.Conv2D(3, 2, activation="softmax")
    ),
    "conv_2d_unknown_size": lambda: sequential(
        (None, None, 1), layers.Conv2D(2, 3), layers.Conv2D(2, 3), layers.GlobalMaxPooling2D()
    ),
    "conv_2d_mixing_activation": lambda: sequential(
        (4, 4, 1), layers.Conv2D(2, 3, activation=centred)
    ),
    "conv_3d": lambda: sequential((4, 4, 4, 1), layers.Conv3D(2, 2, **SAME), layers.Conv3D(2, 2)),
    "conv_then_dense": lambda: sequential(
        (6, 6, 1),
        layers.Conv2D(2, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(3),
    ),
    "conv_2d_transpose": lambda: sequential(
        (3, 3, 2), layers.Conv2DTranspose(3, 3, strides=2), layers.Conv2DTranspose(1, 2, **SAME)
    ),
    "depthwise_1d": lambda: sequential((6, 2), layers.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise_2d": lambda: sequential((5, 5, 2), layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "separable_2d": lambda: sequential((5, 5, 2), layers.SeparableConv2D(3, 3, depth_multiplier=2)),
    "residual": lambda: functional((5, 5, 2), residual),
    # Normalisation
    "batch_norm": lambda: sequential(
        (5, 5, 1),
        layers.Conv2D(2, 3, use_bias=False),
        layers.BatchNormalization(momentum=0.7),
        layers.Conv2D(1, 2),
    ),
    "batch_norm_frozen": lambda: sequential(
        (3,), layers.Dense(3), frozen(layers.BatchNormalization()), layers.Dense(2)
    ),
    "layer_norm": lambda: sequential((5, 4), layers.Dense(3), layers.LayerNormalization()),
    "group_norm": lambda: sequential((5, 5, 4), layers.Dense(4), layers.GroupNormalization(2)),
    "normalization": lambda: sequential((4,), adapted(), layers.Dense(2)),
    "normalization_nested": lambda: sequential((4,), sequential((4,), adapted()), layers.Dense(2)),
    # Randomness
    "dropout": lambda: sequential((9,), layers.Dropout(0.5), layers.Dense(9), layers.Dropout(0.5)),
    "spatial_dropout": lambda: stack2d(layers.SpatialDropout2D(0.5)),
    "noise": lambda: sequential((9,), layers.GaussianNoise(0.5), layers.Dense(9)),
    # Sequences
    "embedding_lstm_mask": lambda: sequential(
        (6,), layers.Embedding(5, 3, mask_zero=True), layers.LSTM(4), dtype="int32"
    ),
    "mask_past_dense": lambda: masked(layers.Dense(3, activation="tanh")),
    "mask_past_activation": lambda: masked(layers.Activation("tanh")),
    "mask_past_dropout": lambda: masked(layers.Dropout(0.3)),
    "masking": lambda: sequential(
        (6, 2), layers.Masking(0.0), layers.Dense(3), layers.GlobalAveragePooling1D()
    ),
    "bidirectional": lambda: sequential(
        (6, 2), layers.Bidirectional(layers.GRU(3)), layers.Dense(2)
    ),
    "lstm_states": lambda: functional((5, 2), lstm_states),
    "attention": lambda: functional((4, 4), attention),
    "time_distributed": lambda: sequential((3, 4), layers.TimeDistributed(layers.Dense(2))),
    # Others
    "prelu": lambda: sequential((4, 4, 2), layers.Conv2D(2, 3), layers.PReLU(shared_axes=[1, 2])),
    "ops": lambda: functional((4,), ops_graph),
    "custom": lambda: sequential((4,), layers.Dense(3), Scale(), layers.Dense(2)),
    "custom_with_dropout_inside": lambda: sequential((9,), layers.Dense(9), Noisy()),
    "frozen": lambda: sequential((4,), frozen(layers.Dense(3, activation="relu")), layers.Dense(2)),
    "frozen_model": lambda: sequential(
        (4,), frozen(sequential((4,), layers.Dense(3))), layers.Dense(2)
    ),
    "mixed_precision": lambda: bfloat16(
        layers.Conv2D(2, 3), layers.PReLU(), layers.Flatten(), layers.Dense(3, activation="tanh")
    ),
    # Graphs
    "two_inputs_two_outputs": two_inputs,
    "nested_sequential": lambda: sequential(
        (4,), sequential((4,), layers.Dense(3), layers.ReLU()), layers.Dense(2)
    ),
    "nested_functional": lambda: sequential(
        (5, 5, 2), functional((5, 5, 2), residual), layers.Flatten()
    ),
    "nested_called_twice": shared_nested,
    "nested_in_inference": nested_in_inference,
    "nested_by_name": nested_by_name,
    "nested_own_call": lambda: sequential((3,), OwnCall(), layers.Dense(2)),
    "functional_subclass": Functional,
    "layer_called_twice": twice,
    "input_as_output": lambda: functional((3,), lambda x: [x, layers.Dense(2)(x)]),
}
CONVOLUTIONS = [
    name for name in CASES if name.startswith(("conv_1d", "conv_2d", "conv_3d", "conv_then"))
] + ["residual", "batch_norm", "nested_functional", "mixed_precision"]


# ---- helpers ------------------------------------------------------------------------------


def some_inputs(model, *batch):
    """Random inputs [*batch, ...] as the model takes them; sequences end in a masked zero."""
    rng = np.random.default_rng(1)

    def one(tensor):
        shape = [*batch, *(5 if size is None else size for size in tensor.shape[1:])]
        if tensor.dtype == "int32":
            tokens = rng.integers(1, 5, shape)
            tokens[..., -2:] = 0
            return tf.constant(tokens, tf.int32)
        values = rng.normal(size=shape)
        if len(tensor.shape) == 3:
            values[..., -1, :] = 0.0
        return tf.constant(values, tf.float32)

    structure = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(one, structure)


def some_weights(target, model, count=N):
    """Different weights of order one for each network, and different moving statistics."""
    rng = np.random.default_rng(2)
    trainable = [
        tf.constant(0.5 * rng.normal(size=[count, *v.shape]) + 0.1, tf.float32)
        for v in model.trainable_variables
    ]
    state = [
        s + np.abs(rng.normal(size=s.shape)).astype("float32") * 0.3 if s.dtype == tf.float32 else s
        for s in target.initial_state(count, seed=(3, 4))
    ]
    return hn.WeightSet(trainable, state)


def some_run(target, model, count=1):
    """Different weights, and the state of the start."""
    weights = some_weights(target, model, count)
    return weights._replace(state=target.initial_state(count))


def loop(model, weights, x, *, shared, training):
    """The oracle: one network at a time."""
    outputs, states = [], []
    # An adapted Normalization is constants in a target; in the model it has state of its own.
    fixed = model.non_trainable_variables if not weights.state else []
    for n in range(weights.trainable[0].shape[0]):
        own = x if shared else keras.tree.map_structure(lambda t, n=n: t[n], x)
        state = [s[n] for s in weights.state] + [v.value for v in fixed]
        out, state = model.stateless_call(
            [w[n] for w in weights.trainable], state, own, training=training
        )
        outputs.append(out)
        states.append(state[: len(weights.state)])
    stack = [tf.stack(values) for values in zip(*states, strict=True)]
    return keras.tree.map_structure(lambda *each: tf.stack(each), *outputs), stack


def with_gradients(run, weights):
    """Outputs, new state, and the gradient of a random linear function of the outputs."""
    with tf.GradientTape() as tape:
        tape.watch(weights.trainable)
        outputs, state = run()
        rng = np.random.default_rng(5)
        total = sum(
            tf.reduce_sum(tf.cast(out, tf.float32) * rng.normal(size=out.shape).astype("float32"))
            for out in keras.tree.flatten(outputs)
        )
    return outputs, state, tape.gradient(total, weights.trainable)


def assert_close(ours, oracle, tolerance=1e-5, where=""):
    """Equal up to the rounding of sums in another order: relative to the largest value."""
    keras.tree.assert_same_structure(ours, oracle)
    for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(oracle), strict=True):
        assert a.dtype == b.dtype, where
        a, b = (np.asarray(tf.cast(t, tf.float64)) for t in (a, b))
        assert a.shape == b.shape, where
        limit = tolerance * np.abs(b).max(initial=0)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=limit, err_msg=where)


def assert_equal(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def networks_differ(tensors):
    """Whether no two networks hold the same numbers."""
    return all(len(np.unique(np.asarray(t, np.float64), axis=0)) == len(t) for t in tensors)


@contextlib.contextmanager
def refused(*words):
    """Expects a ValueError of one line that contains the words."""
    with pytest.raises(ValueError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    for word in words:
        assert str(word) in message


# ---- the vectorised run equals the loop ---------------------------------------------------


@pytest.mark.parametrize(
    ("case", "convolutions"),
    # A convolution with groups of its own runs alike both ways.
    [(case, "unrolled") for case in CASES if case != "conv_2d_groups"]
    + [(case, "grouped") for case in CONVOLUTIONS],
)
def test_run_equals_the_loop(case, convolutions):
    """Outputs, new state and gradients, for inputs of their own and shared, in both modes."""
    model = CASES[case]()
    target = hn.Target(model, convolutions=convolutions)
    weights = some_weights(target, model)
    # bfloat16 has 8 bits of mantissa: a sum in another order moves the last one.
    tolerance = 2e-2 if case == "mixed_precision" else 1e-5
    modes = itertools.product((True, False), (True, False))
    if case == "conv_2d_groups":  # which Keras compiles anew in each eager call
        modes = [(True, False), (False, True)]
    for shared, training in modes:
        x = some_inputs(model, *([B] if shared else [N, B]))
        runs = {
            "loop": functools.partial(loop, model, weights, x, shared=shared, training=training),
            "target": functools.partial(target.run, weights, x, training=training),
        }
        outputs, state, gradients = with_gradients(runs["loop"], weights)
        actual = with_gradients(runs["target"], weights)
        where = f"{shared=}, {training=}"
        assert networks_differ(keras.tree.flatten(outputs)[-1:]), where
        assert networks_differ(gradients), where
        assert_close(actual, (outputs, state, gradients), tolerance, where)


def test_every_rule_has_a_case():
    operations = [operation for build in CASES.values() for operation in record(build()).operations]
    assert set(rules._RULES) <= {type(operation) for operation in operations}


def test_a_graph_with_an_unknown_batch_runs_alike():
    """As in a data set whose last batch is short."""
    model = CASES["conv_then_dense"]()
    for convolutions in ("unrolled", "grouped"):
        target = hn.Target(model, convolutions=convolutions)
        weights = some_weights(target, model)
        for batch in ([None], [N, None]):
            x = some_inputs(model, *batch[:-1], B)
            spec = tf.TensorSpec([*batch, 6, 6, 1])
            run = tf.function(lambda x, t=target, w=weights: t(w, x), input_signature=[spec])
            assert_close(run(x), loop(model, weights, x, shared=len(batch) == 1, training=False)[0])


@pytest.mark.parametrize("convolutions", ["unrolled", "grouped"])
def test_new_values_do_not_retrace(convolutions):
    model = CASES["conv_then_dense"]()
    target = hn.Target(model, convolutions=convolutions)
    traces = []

    @tf.function
    def run(theta, x):
        traces.append(1)
        return target(target.unflatten(theta), x, training=True)

    x = some_inputs(model, B)
    rng = np.random.default_rng(0)
    thetas = [tf.constant(rng.normal(size=[N, target.weight_count]), tf.float32) for _ in range(3)]
    results = [run(theta, x + float(i)) for i, theta in enumerate(thetas)]
    assert networks_differ(results)
    assert len(traces) == 1


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


def test_batch_statistics_are_those_of_the_batch_outside_training_too():
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


def test_momentum_says_what_a_run_leaves_of_the_statistics():
    once = hn.Target(CASES["batch_norm"]())
    assert once.statistics == [(0, 0.7), (1, 0.7)]
    both = hn.Target(CASES["layer_called_twice"]())
    assert both.statistics == [(0, 0.99**2), (1, 0.99**2)]
    assert hn.Target(CASES["batch_norm_frozen"]()).statistics == []
    model = CASES["layer_called_twice"]()
    weights = both.unflatten(tf.zeros([1, both.weight_count]))
    marked = hn.WeightSet(weights.trainable, [tf.fill(s.shape, 100.0) for s in weights.state])
    x = some_inputs(model, B)
    _, left = both.run(marked, x, training=True)
    _, blank = both.run(
        hn.WeightSet(weights.trainable, [tf.zeros_like(s) for s in weights.state]), x, training=True
    )
    for a, b in zip(left, blank, strict=True):
        np.testing.assert_allclose(a - b, np.full(a.shape, 100 * 0.99**2), rtol=1e-4)


# ---- inputs -------------------------------------------------------------------------------


def test_inputs_are_cast_as_keras_casts_them():
    model = functional((4,), ops_graph)
    target = hn.Target(model)
    weights = some_weights(target, model)
    for x in (np.arange(8, dtype="uint8").reshape(2, 4), np.ones((2, 4)), [[1, 2, 3, 4]]):
        x = x if isinstance(x, np.ndarray) else tf.constant(x)
        expected = loop(model, weights, tf.cast(x, tf.float32), shared=True, training=False)[0]
        assert_close(target(weights, x), expected)


def test_a_dict_of_inputs_goes_by_name():
    b, a = keras.Input((3,), name="b"), keras.Input((3,), name="a")
    model = keras.Model([b, a], layers.Dense(2)(b) - a[:, :2])
    target = hn.Target(model)
    weights = some_weights(target, model)
    x = {"a": tf.zeros([B, 3]), "b": tf.ones([B, 3]), "unused": tf.ones([B])}
    assert_close(target(weights, x), target(weights, [x["b"], x["a"]]))
    assert not np.allclose(target(weights, x), target(weights, [x["a"], x["b"]]))
    with refused("inputs a"):
        target(weights, {"b": x["b"]})


# ---- the plan -----------------------------------------------------------------------------


def test_plan_enters_nested_models():
    plan = record(CASES["nested_called_twice"]())
    kinds = [type(call.operation).__name__ for call in plan.calls]
    assert kinds == ["Dense", "BatchNormalization", "Dense", "BatchNormalization", "Add"]
    first, second, add = plan.calls[0], plan.calls[2], plan.calls[-1]
    assert first.operation is second.operation and plan.count(first.operation) == 2
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


def test_the_mode_of_the_whole_model_overrides_that_of_the_graph():
    plan = record(CASES["nested_in_inference"]())
    assert all("training" not in call.kwargs for call in plan.calls)


@pytest.mark.parametrize("case", ["nested_called_twice", "layer_called_twice", "conv_then_dense"])
def test_the_users_model_is_left_alone(case):
    model = CASES[case]()
    x = some_inputs(model, B)
    before, weights = model(x), model.get_weights()
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    target = hn.Target(model)
    target.to_keras(some_run(target, model))
    assert [len(layer._inbound_nodes) for layer in model.layers] == nodes
    if case == "conv_then_dense":
        assert [layer.output.shape[-1] for layer in model.layers] == [2, 2, 8, 3]
        assert keras.Model(model.inputs, model.layers[1].output)(x).shape == (B, 2, 2, 2)
    for ours, theirs in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(model(x), before)
    assert not {id(v) for v in target._template.variables} & {id(v) for v in model.variables}


def test_what_the_user_changes_later_changes_nothing():
    model = CASES["frozen"]()
    target = hn.Target(model)
    weights = target.unflatten(tf.ones([2, target.weight_count]))
    x = some_inputs(model, B)
    before = target(weights, x)
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    np.testing.assert_array_equal(target(weights, x), before)


def test_a_frozen_layer_keeps_its_own_values():
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


def test_a_compiled_model_is_a_target_and_keeps_its_training_to_itself():
    model = CASES["batch_norm_frozen"]()
    model.compile("adam", loss=lambda y, p: keras.ops.mean((y - p) ** 2), metrics=["mae"])
    model.fit(np.ones((8, 3)), np.ones((8, 2)), verbose=0)
    target = hn.Target(model)
    assert not target._template.compiled
    assert len(target.unflatten(tf.ones([1, target.weight_count])).state) == 4
    assert target.weight_count == 3 * 3 + 3 + 3 * 2 + 2


# ---- filters ------------------------------------------------------------------------------


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


def test_a_whole_layer_in_a_row_is_the_kernel_flattened_then_the_bias():
    target = hn.Target(
        sequential((2, 3, 2), layers.Conv2D(2, (2, 3)), layers.Flatten(), layers.Dense(2))
    )
    kernel, bias = target.layers[0].assemble(tf.reshape(tf.range(26.0), [1, 1, 26]))
    np.testing.assert_array_equal(kernel[0], np.arange(24).reshape(2, 3, 2, 2))
    np.testing.assert_array_equal(bias, [[24, 25]])
    with refused(target.layers[1].name, "[N, 2, 3]", "[N, 1, 6]", "(1, 3, 2)"):
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
    count=st.integers(1, 3),
)
def test_assemble_rows_flatten_and_unflatten_are_inverse(
    kind, filters, kernel, channels, bias, count
):
    model = sequential(*WEIGHTED[kind](filters, kernel, channels, bias))
    target = hn.Target(model)
    assert target.weight_count == sum(np.prod(v.shape) for v in model.trainable_variables)
    weights = some_weights(target, model, count)
    rows = target.rows(weights.trainable)
    assert [r.shape for r in rows] == [(count, x.filters, x.row_size) for x in target.layers]
    assert_equal(target.assemble(rows), weights.trainable)
    whole = [tf.concat([tf.reshape(t, [count, -1]) for t in weights.trainable], 1)[:, None]]
    assert_equal(target.assemble(whole), weights.trainable)
    theta = target.flatten(weights)
    assert theta.shape == (count, target.weight_count)
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


# ---- outputs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "outputs", "classes"),
    [
        (lambda: sequential((4,), layers.Dense(3)), "values", None),
        (lambda: sequential((4,), layers.Dense(3, activation="softmax")), "probabilities", 3),
        (lambda: sequential((4,), layers.Dense(3), layers.Softmax()), "probabilities", 3),
        (lambda: sequential((4,), layers.Dense(1, activation="sigmoid")), "probabilities", 2),
        (lambda: sequential((4,), layers.Dense(2, activation="sigmoid")), "values", None),
        (
            lambda: functional(
                (4,), lambda x: [layers.Dense(1)(x), layers.Dense(3, activation="softmax")(x)]
            ),
            "values",
            None,
        ),
    ],
    ids=["linear", "softmax", "softmax_layer", "sigmoid", "sigmoids", "two_outputs"],
)
def test_outputs_are_read_off_the_last_layer(build, outputs, classes):
    target = hn.Target(build())
    assert (target.outputs, target.classes) == (outputs, classes)


def test_logits_become_probabilities():
    logits = hn.Target(sequential((4,), layers.Dense(3)), outputs="logits")
    np.testing.assert_allclose(logits.activate(tf.zeros([2, 3])), np.full([2, 3], 1 / 3), rtol=1e-6)
    single = hn.Target(sequential((4,), layers.Dense(1)), outputs="logits")
    assert (logits.classes, single.classes) == (3, 2)
    assert single.single_column and not logits.single_column
    np.testing.assert_allclose(single.activate(tf.zeros([2, 1])), np.full([2, 1], 0.5), rtol=1e-6)
    values = hn.Target(sequential((4,), layers.Dense(3)))
    np.testing.assert_array_equal(values.activate(tf.ones([2, 3])), np.ones([2, 3]))


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
        predicted = network.predict(keras.tree.map_structure(np.asarray, x), verbose=0)
        assert_close(predicted, expected)
    changed = [np.zeros_like(w) for w in networks[0].get_weights()]
    networks[0].set_weights(changed)
    assert_close(target(weights, x), outputs)
    assert any(w.any() for w in networks[1].get_weights())
    with refused("one network", N):
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
    again = keras.saving.deserialize_keras_object(config)  # the config is not used up
    weights = some_weights(target, model)
    x = some_inputs(model, B)
    for copy in (first, again):
        assert copy.get_config() == target.get_config()
        assert (copy.name, copy.outputs, copy.layers) == (target.name, "values", target.layers)
        assert_close(copy(weights, x), target(weights, x))
    own = target.get_config()
    assert hn.Target.from_config(own).weight_count == target.weight_count and "model" in own


def layered(model):
    """A Keras model that computes three networks' outputs from theta."""
    target = hn.Target(model)
    inputs = [keras.Input(batch_shape=(N, *v.shape)) for v in model.trainable_variables]
    images = keras.Input(model.input_shape[1:])
    outer = keras.Model([*inputs, images], hn.TargetLayer(target)((inputs, images)))
    return target, outer


def test_target_layer_in_a_keras_model(tmp_path):
    model = CASES["frozen"]()
    target, outer = layered(model)
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
    weights = some_run(target, model)
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


# ---- rules of the user's own --------------------------------------------------------------


def test_a_users_rule_is_used_and_agrees(monkeypatch):
    model = CASES["custom"]()
    target = hn.Target(model)
    weights = some_weights(target, model)
    x = some_inputs(model, B)
    expected = [target.run(weights, x, training=training) for training in (False, True)]
    monkeypatch.setattr(rules, "_RULES", dict(rules._RULES))
    used = []

    @hn.register_rule(Scale)
    def scale(networks, call, args, kwargs):
        used.append(networks.training)
        if networks.training:
            return hn.per_network(networks, call, args, kwargs)
        (factor,) = networks.trainable(call.operation)
        calls = networks.variables[id(call.operation.calls)]
        (value,) = args
        return hn.Value(networks.count, stacked=value.stacked * (factor * calls)[:, None, None])

    actual = [target.run(weights, x, training=training) for training in (False, True)]
    assert used == [False, True]
    assert_close(actual, expected)


def test_a_subclass_inherits_no_rule():
    """Its call may differ."""

    class Shifted(layers.Dense):
        def call(self, inputs, training=None):
            return super().call(inputs, training=training) + 1.0

    model = sequential((4,), Shifted(3), layers.Dense(2))
    target = hn.Target(model)
    weights = some_weights(target, model)
    x = some_inputs(model, B)
    assert_close(target(weights, x), loop(model, weights, x, shared=True, training=False)[0])


# ---- errors -------------------------------------------------------------------------------


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
    """A subclassed model that has an input, having been called on one."""
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
        (lambda: layers.Dense(3), ["a target is a Keras model", "Dense"]),
        (Subclassed, ["subclassed", "no graph", "keras.Input"]),
        (lambda: called(Subclassed()), ["subclassed", "no graph"]),
        (OwnCall, ["own_call", "no graph"]),
        (
            lambda: keras.Sequential([layers.Dense(3)], name="bare"),
            ["'bare'", "starts with keras.Input"],
        ),
        (lambda: sequential((4,), layers.ReLU()), ["no trainable weights"]),
        (lambda: sequential((4,), frozen(layers.Dense(3))), ["no trainable weights"]),
        (
            lambda: sequential((4,), layers.Dense(3, kernel_regularizer="l2", name="heavy")),
            ["'heavy'", "regularizer", "prior"],
        ),
        (
            lambda: sequential((4,), layers.Dense(3, activity_regularizer="l2", name="busy")),
            ["'busy'", "regularizer"],
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
        "no_weights",
        "all_frozen",
        "regularizer",
        "activity_regularizer",
        "no_config",
        "lambda",
        "single_weight_frozen",
        "shared_inside_and_outside",
    ],
)
def test_models_that_cannot_be_targets(build, words):
    model = build()
    with refused(*words):
        hn.Target(model)


def test_arguments_that_are_refused():
    model = CASES["dense"]()
    with refused("logits, probabilities, values", "'foo'"):
        hn.Target(model, outputs="foo")
    with refused("auto, unrolled or grouped", "'foo'"):
        hn.Target(model, convolutions="foo")


def test_inputs_that_are_refused():
    model = CASES["conv_2d"]()
    target = hn.Target(model)
    weights = some_weights(target, model)
    with refused("[B, 6, 6, 2]", "[N, B, 6, 6, 2]", "(4, 6, 6, 3)"):
        target(weights, tf.zeros([B, 6, 6, 3]))
    with refused("[B, 6, 6, 2]", "(6, 6, 2)"):
        target(weights, tf.zeros([6, 6, 2]))
    with refused("2 networks", "weights of 3"):
        target(weights, tf.zeros([2, B, 6, 6, 2]))
    with refused("1 inputs", "2 were given"):
        target(weights, [tf.zeros([B, 6, 6, 2])] * 2)
