"""Small ensembles of every kind of target, and what a loop over their networks returns."""

import keras
import numpy as np
import tensorflow as tf

import hypernet_tf as hn

layers = keras.layers
NETWORKS, EXAMPLES, CLASSES = 5, 23, 4


def convolutional(*end):
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            *end,
        ]
    )


def normalised():
    """Batch normalisation with two momenta, in the middle and near the end."""
    return convolutional(
        layers.BatchNormalization(momentum=0.9),
        layers.Dense(5, use_bias=False),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.Dense(CLASSES),
    )


def ensemble_of(model, outputs=None, num_networks=NETWORKS, scale=0.7):
    target = hn.Target(model, outputs=outputs)
    theta = np.random.default_rng(7).normal(size=(num_networks, target.weight_count)) * scale
    return hn.Ensemble(target, target.unflatten(tf.constant(theta, tf.float32)))


MODELS = {
    "logits": (lambda: convolutional(layers.Dense(CLASSES)), "logits"),
    "softmax": (lambda: convolutional(layers.Dense(CLASSES, activation="softmax")), None),
    "one logit": (lambda: convolutional(layers.Dense(1)), "logits"),
    "one sigmoid": (lambda: convolutional(layers.Dense(1, activation="sigmoid")), None),
    "values": (lambda: convolutional(layers.Dense(2)), None),
}
CLASSIFIERS = [kind for kind in MODELS if kind != "values"]


class Case:
    """An ensemble, and the outputs of a loop over its networks: `loop`, probabilities `p`."""

    def __init__(self, kind, x):
        model, outputs = MODELS[kind]
        self.ensemble = ensemble_of(model(), outputs)
        self.loop = np.stack([network.to_keras()(x).numpy() for network in self.ensemble])
        outputs = self.loop.astype(np.float64)
        if kind == "logits":
            self.p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
        elif kind == "softmax":
            self.p = outputs
        elif kind in ("one logit", "one sigmoid"):
            second = 1 / (1 + np.exp(-outputs)) if kind == "one logit" else outputs
            self.p = np.concatenate([1 - second, second], -1)  # [N, M, C]

    @property
    def y(self):
        """Labels, some of which the networks predict."""
        return np.random.default_rng(1).integers(0, self.p.shape[-1], EXAMPLES)


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    return message
