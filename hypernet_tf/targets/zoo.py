"""The papers' target networks, as plain Keras models."""

from __future__ import annotations

import keras


def mnist() -> keras.Sequential:
    """The MNIST target of Deutsch et al. (2019): 20,018 weights, logits of 10 classes.

    Conv 5x5x32 'same' and ReLU, max pooling 2, conv 5x5x16 and ReLU, max pooling 2, dense 8 and
    ReLU, dense 10. Weights per layer 832 / 12,816 / 6,280 / 90. The softmax is left to the loss
    (`from_logits=True`), which is the same function and numerically better.
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2, padding="same"),
            layers.Conv2D(16, 5, padding="same", activation="relu"),
            layers.MaxPooling2D(2, padding="same"),
            layers.Flatten(),
            layers.Dense(8, activation="relu"),
            layers.Dense(10),
        ],
        name="mnist",
    )
