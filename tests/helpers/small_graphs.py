"""Random residual graphs for the gauge's tests, with what is known of them by construction."""

import keras
import numpy as np
import tensorflow as tf
from hypothesis import strategies as st

import hypernet_tf as hn

layers = keras.layers
N, B = 2, 3
STEPS = (
    *("conv_relu", "conv_linear", "conv_tanh", "norm", "norm_beta", "norm_gamma", "relu", "tanh"),
    *("pool", "identity", "projection", "padded", "maximum", "concat", "depthwise"),
)


def new_input(shape):
    return keras.Input(shape, dtype=keras.config.dtype_policy().name)


def some_weights(target, seed=0):
    """Weights of order one, and a state that differs from the initial one."""
    rng = np.random.default_rng(seed)
    dtype = keras.config.dtype_policy().name
    like = target.unflatten(tf.zeros([N, target.weight_count], dtype))
    trainable = [tf.constant(rng.normal(size=w.shape) + 0.1, dtype) for w in like.trainable]
    state = [s + rng.random(s.shape) if s.dtype.is_floating else s for s in like.state]
    return hn.WeightSet(trainable, state)


def answers(target, weights):
    """The outputs of a weight set in both modes; logits up to a constant."""
    x = tf.constant(np.random.default_rng(1).normal(size=[N, B, *target.input_shape]))
    results = []
    for training in (False, True):
        for outputs in keras.tree.flatten(target(weights, x, training=training)):
            if target.outputs == "logits":
                outputs -= tf.reduce_mean(outputs, -1, keepdims=True)
            results.append(outputs)
    return results


def assert_same(actual, expected, tolerance=1e-9):
    for a, b in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max(initial=0))


class Graph:
    """A target made of steps, and how many scales each layer is the first to have.

    Each channel has a letter, which is a number: 0 is held, None is zero. `same` says which letters
    a sum has made the same.
    """

    def __init__(self, steps):
        self.same, self.made = {0: 0}, []
        inputs = self.x = new_input((4, 4, 2))
        self.letters = [0, 0]
        for step in steps:
            name, _, kind = step.partition("_")
            getattr(self, name)(kind)
        end = layers.Flatten() if len(steps) % 2 else layers.GlobalAveragePooling2D()
        x = layers.Dense(3)(end(self.x))
        self.target = hn.Target(keras.Model(inputs, x), outputs="logits")

    @property
    def led(self):
        """Name of a layer -> how many of its filters are the first of their scale."""
        seen, led = {0}, {}
        order = [call.operation.name for call in self.target.plan.calls]
        for name, letters in sorted(self.made, key=lambda made: order.index(made[0])):
            new = list(dict.fromkeys(self.find(letter) for letter in letters))
            new = [letter for letter in new if letter not in seen]
            seen.update(new)
            if new:
                led[name] = len(new)
        return led

    def find(self, letter):
        while self.same[letter] != letter:
            letter = self.same[letter]
        return letter

    def new(self, name, count):
        letters = list(range(len(self.same), len(self.same) + count))
        self.same.update({letter: letter for letter in letters})
        self.made.append((name, letters))
        return letters

    def tied(self, first, second):
        for a, b in zip(first, second, strict=True):
            if a is not None and b is not None:
                low, high = sorted((self.find(a), self.find(b)))
                self.same[high] = low
        return [b if a is None else a for a, b in zip(first, second, strict=True)]

    def hold(self):
        for letter in self.letters:
            if letter is not None:
                self.tied([letter], [0])
        self.letters = [0] * len(self.letters)

    def conv(self, activation="linear", width=3, **kwargs):
        layer = layers.Conv2D(width, 2, padding="same", activation=activation, **kwargs)
        self.x = layer(self.x)
        free = activation in ("relu", "linear")
        self.letters = self.new(layer.name, width) if free else [0] * width

    def depthwise(self, _):
        layer = layers.DepthwiseConv2D(1, activation="relu")
        self.x = layer(self.x)
        self.letters = self.new(layer.name, len(self.letters))

    def norm(self, only=""):
        layer = layers.BatchNormalization(
            epsilon=1e-12, scale=only != "beta", center=only != "gamma"
        )
        self.x = layer(self.x)
        count = len(self.letters)
        self.letters = [0] * count if only == "beta" else self.new(layer.name, count)

    def relu(self, _=""):
        self.x = layers.ReLU()(self.x)

    def tanh(self, _):
        self.hold()
        self.x = layers.Activation("tanh")(self.x)

    def pool(self, _):
        self.x = layers.MaxPooling2D(2, padding="same")(self.x)

    def branch(self, strides=1, width=None):
        """conv, norm, relu, conv, norm as in a residual network; returns what they read."""
        start = self.x, self.letters
        for is_second, step in enumerate((strides, 1)):
            self.conv(width=width or len(start[1]), strides=step, use_bias=bool(is_second))
            self.norm()
            if not is_second:
                self.relu()
        return start

    def identity(self, _):
        x, letters = self.branch()
        self.x, self.letters = x + self.x, self.tied(letters, self.letters)

    def projection(self, _):
        start = self.branch(width=2)
        end = self.x, self.letters
        self.x, self.letters = start
        self.conv(width=2)
        self.x, self.letters = layers.Add()([self.x, end[0]]), self.tied(self.letters, end[1])

    def padded(self, _):
        width = len(self.letters)
        x, letters = self.branch(strides=2, width=width + 2)
        x = layers.MaxPooling2D(1, strides=2)(x)
        x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1)))
        self.x = layers.Add()([x, self.x])
        self.letters = self.tied([None, *letters, None], self.letters)
        self.relu()

    def maximum(self, _):
        x, letters = self.x, self.letters
        self.conv("relu", width=len(letters))
        self.x, self.letters = layers.Maximum()([self.x, x]), self.tied(self.letters, letters)

    def concat(self, _):
        x, letters = self.x, self.letters
        self.conv("relu", width=2)
        self.x, self.letters = layers.Concatenate()([x, self.x]), letters + self.letters


some_steps = st.lists(st.sampled_from(STEPS), min_size=2, max_size=5)
