"""How the cost of a training step grows: with networks, images, weights and classes.

One number changes at a time, from a small convolutional target with 8 networks on 32 images of
28 x 28 pixels. Each size runs in a process of its own. Printed are the median time of a step, its
ratio to an ordinary Keras step on the same images, and the peak memory. The exponent is the slope
of log seconds over log size in the upper half of the sizes: 1 is proportional growth.

    python -m benchmarks.growth
    python -m benchmarks.growth --what networks
"""

import argparse
import time
from typing import NamedTuple

import keras
import numpy as np

from benchmarks.ratios import apart

SIZES = {
    "networks": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "images": (1, 4, 16, 64, 256),
    "width": (2, 4, 8, 16, 32, 64, 128),
    "classes": (2, 10, 100, 1_000),
}
START = {"networks": 8, "images": 32, "width": 16, "classes": 10}


class Point(NamedTuple):
    """The cost of a step.

    Attributes:
        weights: Number D of the target's weights.
        seconds: Median seconds of a step of the hypernetwork.
        ordinary: Median seconds of a step of the ordinary model on the same images.
        memory: Peak memory of the process in MiB.
    """

    weights: int
    seconds: float
    ordinary: float
    memory: float


def model_of(width: int, classes: int) -> keras.Sequential:
    """Two convolutions of a width, pooling, a dense layer of four times the width, the classes."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(width, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(width, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
            layers.Dense(4 * width, activation="relu"),
            layers.Dense(classes),
        ]
    )


def measure(networks: int, images: int, width: int, classes: int, rounds: int) -> Point:
    """The cost of a step of one size.

    Args:
        networks: Number N of networks.
        images: Number B of images of each network.
        width: Filters of the target's convolutions.
        classes: Number of classes.
        rounds: Number of steps of each kind, alternated.
    """
    import tensorflow as tf

    import hypernet_tf as hn
    from reproduce.runs.memory import peak_memory

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sampler = hn.Hypernetwork(model_of(width, classes), num_networks=networks)
    ordinary = model_of(width, classes)
    x = tf.random.uniform([networks * images, 28, 28, 1])
    y = tf.random.uniform([networks * images], 0, classes, tf.int32)
    steps = []
    for model in (sampler, ordinary):
        model.compile(keras.optimizers.Adam(1e-3), loss)
        model.optimizer.build(model.trainable_variables)
        steps.append(tf.function(lambda model=model: model.train_step((x, y)), autograph=False))
    seconds = np.empty([rounds + 2, 2])
    for turn in seconds:
        for place, step in enumerate(steps):
            start = time.perf_counter()
            step()
            turn[place] = time.perf_counter() - start
    medians = np.median(seconds[2:], 0)
    return Point(ordinary.count_params(), *map(float, medians), peak_memory())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=list(SIZES), help="one of the sizes; default: all")
    parser.add_argument("--rounds", type=int, default=10)
    given = parser.parse_args()
    for what in [given.what] if given.what else SIZES:
        points = [
            apart(measure, *(START | {what: size}).values(), given.rounds) for size in SIZES[what]
        ]
        growing = [point.weights for point in points] if what == "width" else list(SIZES[what])
        half = slice(len(points) // 2, None)
        print(f"\n| {what} | weights D | step (ms) | ratio to ordinary | peak memory (MiB) |")
        print("|---:|---:|---:|---:|---:|")
        for size, point in zip(SIZES[what], points, strict=True):
            print(
                f"| {size:,} | {point.weights:,} | {1e3 * point.seconds:.1f} "
                f"| {point.seconds / point.ordinary:.2f} | {point.memory:,.0f} |"
            )
        for name, values in (
            ("seconds", [point.seconds for point in points]),
            ("ordinary", [point.ordinary for point in points]),
        ):
            slope = np.polyfit(np.log(growing[half]), np.log(values[half]), 1)[0]
            of = "weights" if what == "width" else what
            print(f"exponent of {name} in {of}, upper half: {slope:.2f}")


if __name__ == "__main__":
    main()
