"""A small target, networks of it with random weights, and images."""

import functools

import keras
import numpy as np
import tensorflow as tf

import hypernet_tf as hn

layers = keras.layers


@functools.cache  # a target never changes
def small_target(outputs="logits"):
    last = {"logits": None, "probabilities": "softmax", "values": None}[outputs]
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(5, activation="relu"),
            layers.Dense(3, activation=last),
        ]
    )
    return hn.Target(model, outputs=outputs)


def random_networks(count, seed=0, target=None):
    target = target or small_target()
    theta = np.random.default_rng(seed).normal(size=(count, target.weight_count)).astype("float32")
    return hn.Ensemble(target, target.unflatten(tf.constant(theta)))


def random_images(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(size=(count, 6, 6, 1)).astype("float32"), rng.integers(0, 3, count)
