"""The papers' target networks, as plain Keras models."""

from __future__ import annotations

from typing import Any, Literal

import keras

from hypernet_tf.checks import check_choice

# How the residual blocks of a ResNet reach the next resolution, see `resnet32`.
Shortcuts = Literal["A", "B"]


def mnist(classes: int = 10) -> keras.Sequential:
    """The MNIST target of Deutsch et al. (2019): 20,018 weights, logits of 10 classes.

    Conv 5x5x32 'same' and ReLU, max pooling 2, conv 5x5x16 and ReLU, max pooling 2, dense 8 and
    ReLU, dense 10. Weights per layer 832 / 12,816 / 6,280 / 90. The softmax is left to the loss
    (`from_logits=True`), which is the same function and numerically better.

    Args:
        classes: Number of logits.
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
            layers.Dense(classes),
        ],
        name="mnist",
    )


def regression(kernel_initializer: Any = "glorot_uniform") -> keras.Sequential:
    """The target of HyperGAN's one-dimensional regression: 400 weights, one value.

    Dense 200 and ELU, dense 1, both without biases, as published: every such network is 0 at 0.

    Args:
        kernel_initializer: Keras initializer of both kernels, or its name.
    """
    options: dict[str, Any] = {"use_bias": False, "kernel_initializer": kernel_initializer}
    return keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(200, activation="elu", **options),
            keras.layers.Dense(1, **options),
        ],
        name="regression",
    )


def hypergan_mnist(classes: int = 10) -> keras.Sequential:
    """The MNIST target of HyperGAN (Ratzlaff & Fuxin 2019): 31,594 weights, logits.

    Conv 5x5x32 and leaky ReLU (0.01), max pooling 2, the same again, dense 10. The convolutions are
    'valid'. Pixels in [0, 1] are normalised in the first layer, by mean 0.1307 and standard
    deviation 0.3081. Weights per layer 832 / 25,632 / 5,130.

    Args:
        classes: Number of logits.
    """
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Normalization(mean=0.1307, variance=0.3081**2),
            layers.Conv2D(32, 5),
            layers.LeakyReLU(0.01),
            layers.MaxPooling2D(2),
            layers.Conv2D(32, 5),
            layers.LeakyReLU(0.01),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(classes),
        ],
        name="hypergan_mnist",
    )


def hypergan_cifar(
    input_shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10
) -> keras.Sequential:
    """The CIFAR target of HyperGAN (Ratzlaff & Fuxin 2019): 90,506 weights, logits.

    Three 3x3 convolutions of 32, 64, 64 filters, each with ReLU and max pooling 2, dense 128 with
    ReLU, dense 10. The convolutions are 'valid'. Weights per layer 896 / 18,496 / 36,928 / 32,896
    / 1,290.

    Args:
        input_shape: Shape of one image, (height, width, channels).
        classes: Number of logits.
    """
    layers = keras.layers
    blocks: list[Any] = []
    for filters in (32, 64, 64):
        convolution = layers.Conv2D(filters, 3, activation="relu", kernel_initializer="he_normal")
        blocks += [convolution, layers.MaxPooling2D(2)]
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *blocks,
            layers.Flatten(),
            layers.Dense(128, activation="relu", kernel_initializer="he_normal"),
            layers.Dense(classes),
        ],
        name="hypergan_cifar",
    )


def lenet(
    input_shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10, *, normalize: bool = False
) -> keras.Sequential:
    """LeNet as the CIFAR target of Deutsch et al. (2019): 62,006 weights, logits.

    Conv 5x5x6 and ReLU, max pooling 2, conv 5x5x16 and ReLU, max pooling 2, dense 120, 84 with
    ReLU, dense 10. Weights per layer 456 / 2,416 / 48,120 / 10,164 / 850. The convolutions are
    'valid', as these numbers require, although the paper prints 'SAME'.

    Args:
        input_shape: Shape of one image, (height, width, channels).
        classes: Number of logits.
        normalize: Whether a first layer without weights gives each colour the mean 0 and the
            variance 1 over the training images of CIFAR-10, in [0, 1]; the paper names none.
    """
    layers = keras.layers
    mean, variance = (0.4914, 0.4822, 0.4465), (0.0610, 0.0593, 0.0684)
    first = [layers.Normalization(mean=mean, variance=variance)] if normalize else []
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *first,
            layers.Conv2D(6, 5, activation="relu", kernel_initializer="he_normal"),
            layers.MaxPooling2D(2),
            layers.Conv2D(16, 5, activation="relu", kernel_initializer="he_normal"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(120, activation="relu", kernel_initializer="he_normal"),
            layers.Dense(84, activation="relu", kernel_initializer="he_normal"),
            layers.Dense(classes),
        ],
        name="lenet",
    )


def resnet32(
    input_shape: tuple[int, int, int] = (32, 32, 3), classes: int = 10, shortcuts: Shortcuts = "A"
) -> keras.Model:
    """ResNet-32 for 32x32 images (He et al. 2016, section 4.2), logits.

    A 3x3x16 convolution, then three groups of five residual blocks with 16, 32, 64 channels, the
    second and third group at half the resolution; average pooling, dense 10. Every convolution has
    batch normalisation and a bias, as the paper's count of 448 weights in the first one shows.
    Weights: 465,290 with shortcuts A, 468,138 with shortcuts B, of which 1,136 (1,232) are biases
    that batch normalisation takes away again.

    Args:
        input_shape: Shape of one image, (height, width, channels).
        classes: Number of logits.
        shortcuts: Shortcuts where the resolution halves: "A", every second pixel and zeros for the
            new channels, no weights; "B", a convolution 1x1 with batch normalisation.

    Raises:
        ValueError: Unknown shortcuts.
    """
    check_choice("shortcuts", shortcuts, Shortcuts)
    images = keras.Input(input_shape)
    x = keras.layers.ReLU()(_normalised_convolution(images, 16, 3))
    for channels in (16, 32, 64):
        for block in range(5):
            strides = 2 if channels > 16 and block == 0 else 1
            y = keras.layers.ReLU()(_normalised_convolution(x, channels, 3, strides))
            y = _normalised_convolution(y, channels, 3)
            if strides == 2 and shortcuts == "A":
                x = keras.layers.MaxPooling2D(1, strides=2)(x)
                new_channels = (channels // 4, channels // 4)  # half before, half after
                x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), new_channels))
            elif strides == 2:
                x = _normalised_convolution(x, channels, 1, strides)
            x = keras.layers.ReLU()(keras.layers.Add()([x, y]))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(images, keras.layers.Dense(classes)(x), name=f"resnet32_{shortcuts.lower()}")


def _normalised_convolution(x: Any, channels: int, size: int, strides: int = 1) -> Any:
    """A convolution and its batch normalisation."""
    x = keras.layers.Conv2D(
        channels, size, strides=strides, padding="same", kernel_initializer="he_normal"
    )(x)
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x)
