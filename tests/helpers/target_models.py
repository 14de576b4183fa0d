"""Small models of every kind, networks of them, and the loop that runs networks one by one."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import hypernet_tf as hn

layers = keras.layers
N, B = 3, 4


# ---- models -------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="target_models")
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


@keras.saving.register_keras_serializable(package="target_models")
class Noisy(layers.Layer):
    """A layer whose call takes no mode, but contains dropout, which needs it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dropout = layers.Dropout(0.5)

    def call(self, inputs):
        return self.dropout(inputs)


@keras.saving.register_keras_serializable(package="target_models")
def centred(x):
    """An activation that mixes the examples of a batch."""
    return x - keras.ops.mean(x, axis=0, keepdims=True)


@keras.saving.register_keras_serializable(package="target_models")
class OwnCall(keras.Model):
    """A Functional model with a call of its own."""

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
    """A mask that passes the layer `after`, to a layer that gets it from Keras at run time only."""

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


def elementwise_ops(x):
    for function in ("relu", "leaky_relu", "elu", "gelu", "sigmoid", "silu", "softplus", "tanh"):
        x = layers.Dense(3)(getattr(keras.ops, function)(layers.Dense(3)(x)))
    return keras.activations.relu(x, negative_slope=0.1) * 2.0 * np.ones((B, 3), "float32")


def merging_ops(x):
    a, b = layers.Dense(3)(x), layers.Dense(3)(x)
    ops = keras.ops
    merged = ops.add(a, b) * ops.subtract(a, b) + ops.maximum(a, 0.5) - ops.minimum(a, b)
    return layers.Dense(2)(ops.concatenate([merged, ops.multiply(a, 2.0)]))


def merging_layers(x):
    a, b = layers.Dense(3)(x), layers.Dense(3)(x)
    kinds = ("Add", "Subtract", "Average", "Maximum", "Minimum", "Multiply", "Concatenate")
    return [getattr(layers, kind)()([a, b]) for kind in kinds]


def padding_ops(x):
    x = keras.ops.pad(layers.Dense(3)(x), ((0, 0), (1, 0), (1, 2)))
    x = keras.ops.pad(x, ((0, 0), (0, 0), (1, 1)), constant_values=2.0)
    return keras.ops.pad(layers.Dense(2)(x), ((1, 1), (0, 0), (0, 0)))  # the batch


def stack2d(*steps):
    """Steps on stacked images: a dense layer before and after them."""
    return sequential((6, 6, 2), layers.Dense(2), *steps, layers.Dense(2))


def stack1d(*steps):
    return sequential((6, 2), layers.Dense(2), *steps, layers.Dense(2))


def stack3d(*steps):
    return sequential((4, 4, 4, 1), layers.Dense(2), *steps, layers.Dense(2))


def side_by_side(shape, *steps):
    """Steps on stacked images, each in a branch: a dense layer before them, one behind each."""

    def graph(x):
        x = layers.Dense(2)(x)
        return [layers.Dense(2)(step(x)) for step in steps]

    return functional(shape, graph)


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
    "identity": lambda: sequential((4,), layers.Dense(3), layers.Identity(), layers.Dense(2)),
    "softmax_of_an_axis": lambda: sequential((4, 3), layers.Dense(3), layers.Softmax(axis=1)),
    "reshape": lambda: stack2d(layers.Reshape((4, -1)), layers.Permute((2, 1)), layers.Flatten()),
    "pools_1d": lambda: side_by_side(
        (6, 2),
        layers.MaxPooling1D(2),
        layers.AveragePooling1D(2, **SAME),
        layers.GlobalMaxPooling1D(),
        layers.GlobalAveragePooling1D(),
        layers.ZeroPadding1D(1),
        layers.UpSampling1D(2),
        layers.Cropping1D(1),
    ),
    "pools_2d": lambda: side_by_side(
        (6, 6, 2),
        layers.MaxPooling2D(2),
        layers.AveragePooling2D(2, **SAME),
        layers.GlobalMaxPooling2D(),
        layers.GlobalAveragePooling2D(keepdims=True),
        layers.ZeroPadding2D(1),
        layers.UpSampling2D(2, interpolation="bilinear"),
        layers.Cropping2D(2),
    ),
    "pools_3d": lambda: side_by_side(
        (4, 4, 4, 1),
        layers.MaxPooling3D(2),
        layers.AveragePooling3D(2, **SAME),
        layers.GlobalMaxPooling3D(),
        layers.GlobalAveragePooling3D(),
        layers.ZeroPadding3D(1),
        layers.UpSampling3D(2),
        layers.Cropping3D(1),
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
    "conv_1d_transpose": lambda: sequential((3, 2), layers.Conv1DTranspose(3, 3, strides=2)),
    "conv_3d_transpose": lambda: sequential((2, 2, 2, 2), layers.Conv3DTranspose(2, 2)),
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
    "batch_norm_of_images": lambda: sequential(
        (4, 4, 2),
        layers.Conv2D(3, 2),
        frozen(layers.BatchNormalization(epsilon=1e-5)),
        layers.Conv2D(4, 2, activation="relu"),
        layers.BatchNormalization(epsilon=1e-7),
        layers.BatchNormalization(axis=1),
        layers.BatchNormalization(scale=False),
        layers.Dense(2),
    ),
    "layer_norm": lambda: sequential((5, 4), layers.Dense(3), layers.LayerNormalization()),
    "group_norm": lambda: sequential((5, 5, 4), layers.Dense(4), layers.GroupNormalization(2)),
    "rms_norm": lambda: sequential((5, 4), layers.Dense(3), layers.RMSNormalization()),
    "normalization": lambda: sequential((4,), adapted(), layers.Dense(2)),
    "normalization_nested": lambda: sequential((4,), sequential((4,), adapted()), layers.Dense(2)),
    # Randomness
    "dropout": lambda: sequential((9,), layers.Dropout(0.5), layers.Dense(9), layers.Dropout(0.5)),
    "spatial_dropout_1d": lambda: stack1d(layers.SpatialDropout1D(0.5)),
    "spatial_dropout_2d": lambda: stack2d(layers.SpatialDropout2D(0.5)),
    "spatial_dropout_3d": lambda: stack3d(layers.SpatialDropout3D(0.5)),
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
    "ops_elementwise": lambda: functional((4,), elementwise_ops),
    "ops_merge": lambda: functional((4,), merging_ops),
    "ops_pad": lambda: functional((4, 2), padding_ops),
    "merges": lambda: functional((4,), merging_layers),
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
# Cases with convolutions, which run in two ways.
CONVOLUTIONS = [
    name
    for name in CASES
    if name.startswith(("conv_1d", "conv_2d", "conv_3d", "conv_then")) and "transpose" not in name
] + ["residual", "batch_norm", "nested_functional", "mixed_precision"]


# ---- networks -----------------------------------------------------------------------------


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


def some_weights(target, model, num_networks=N):
    """Different weights of order one for each network, and different moving statistics."""
    rng = np.random.default_rng(2)
    trainable = [
        tf.constant(0.5 * rng.normal(size=[num_networks, *v.shape]) + 0.1, tf.float32)
        for v in model.trainable_variables
    ]
    state = [
        s + np.abs(rng.normal(size=s.shape)).astype("float32") * 0.3 if s.dtype == tf.float32 else s
        for s in target.initial_state(num_networks, seed=(3, 4))
    ]
    return hn.WeightSet(trainable, state)


def with_initial_state(target, model, num_networks=1):
    """Different weights, and the initial state."""
    weights = some_weights(target, model, num_networks)
    return weights._replace(state=target.initial_state(num_networks))


def loop(model, weights, x, *, shared, training):
    """The oracle: outputs and new state of one network at a time."""
    outputs, states = [], []
    # An adapted Normalization is constants in a target; in the model it has state of its own.
    fixed = model.non_trainable_variables if not weights.state else []
    for n in range(weights.trainable[0].shape[0]):
        inputs = x if shared else keras.tree.map_structure(lambda t, n=n: t[n], x)
        state = [s[n] for s in weights.state] + [v.value for v in fixed]
        out, state = model.stateless_call(
            [w[n] for w in weights.trainable], state, inputs, training=training
        )
        outputs.append(out)
        states.append(state[: len(weights.state)])
    stacked_states = [tf.stack(values) for values in zip(*states, strict=True)]
    return keras.tree.map_structure(lambda *each: tf.stack(each), *outputs), stacked_states


def assert_close(actual, oracle, tolerance=1e-5, where=""):
    """Equal up to the rounding of sums in another order: relative to the largest value."""
    keras.tree.assert_same_structure(actual, oracle)
    for a, b in zip(keras.tree.flatten(actual), keras.tree.flatten(oracle), strict=True):
        assert a.dtype == b.dtype, where
        a, b = (np.asarray(tf.cast(t, tf.float64)) for t in (a, b))
        assert a.shape == b.shape, where
        limit = tolerance * np.abs(b).max(initial=0)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=limit, err_msg=where)


def assert_equal(actual, expected):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def networks_differ(tensors):
    """Whether no two networks hold the same numbers."""
    return all(len(np.unique(np.asarray(t, np.float64), axis=0)) == len(t) for t in tensors)


@contextlib.contextmanager
def one_line_error(*words):
    """Expects a ValueError of one line that contains the words."""
    with pytest.raises(ValueError) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message and len(message) < 300
    for word in words:
        assert str(word) in message
