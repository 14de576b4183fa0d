"""How the cost of a training step grows: with networks, images, weights and classes.

One number changes at a time, from a small convolutional target with 8 networks on 32 images of
28 x 28 pixels. Each size runs in a process of its own. Printed are the median time of a step, its
ratio to an ordinary Keras step on the same images, and the peak memory. The exponent is the slope
of the logarithm over log size in the upper half of the sizes: 1 is proportional growth.

    python -m benchmarks.growth --figure growth.png
    python -m benchmarks.growth --what networks
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
from matplotlib.figure import Figure

from benchmarks.ratios import alternate, apart

SIZES = {
    "networks": (2, 4, 8, 16, 32, 64, 128, 256),
    "images": (1, 4, 16, 64, 256),
    "width": (2, 4, 8, 16, 32, 64, 128, 256),
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
    medians = np.median(alternate(steps, rounds + 2)[2:], 0)
    return Point(ordinary.count_params(), *map(float, medians), peak_memory())


def growing(what: str, points: Sequence[Point]) -> list[int]:
    """The number that grows: the weights of the target, or the sizes themselves."""
    return [point.weights for point in points] if what == "width" else list(SIZES[what])


def exponents(sizes: Sequence[int], points: Sequence[Point]) -> Point:
    """The slopes of log cost over log size in the upper half of the sizes.

    Args:
        sizes: The number that grows.
        points: The costs.
    """
    half = slice(len(points) // 2, None)
    logarithms = np.log(np.array(points)[half])
    return Point(*map(float, np.polyfit(np.log(sizes[half]), logarithms, 1)[0]))


def draw(curves: Mapping[str, Sequence[Point]]) -> Figure:
    """Seconds above, memory below, one column for each number that grows."""
    from hypernet_tf.plots.style import STYLES, new_figure

    figure = new_figure(4.4)
    grid = figure.subplots(2, len(curves), sharey="row", sharex="col", squeeze=False)
    names = {"width": "weights D", "networks": "networks N", "images": "images B"}
    for (time_axes, memory_axes), (what, points) in zip(grid.T, curves.items(), strict=True):
        sizes = growing(what, points)
        lines = {
            "hypernetwork": [point.seconds for point in points],
            "ordinary model": [point.ordinary for point in points],
        }
        for (name, seconds), style in zip(lines.items(), STYLES, strict=False):
            time_axes.loglog(sizes, seconds, **style, markersize=3, label=name)
        memory = [point.memory / 1024 for point in points]
        memory_axes.loglog(sizes, memory, **STYLES[0], markersize=3)
        memory_axes.set_xlabel(names.get(what, what))
        for axes in (time_axes, memory_axes):
            axes.grid(alpha=0.3)
    grid[0, 0].set_ylabel("step (s)")
    grid[1, 0].set_ylabel("peak memory (GiB)")
    grid[1, 0].set_yscale("log", base=2)
    grid[1, 0].yaxis.set_major_formatter("{x:g}")
    grid[0, 0].legend(frameon=False, fontsize=7)
    return figure


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--what", choices=list(SIZES), help="one of the sizes; default: all")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--figure", help="file of a figure of all curves; default: none")
    given = parser.parse_args()
    curves = {}
    for what in [given.what] if given.what else SIZES:
        curves[what] = points = [
            apart(measure, *(START | {what: size}).values(), given.rounds) for size in SIZES[what]
        ]
        print(f"\n| {what} | weights D | step (ms) | ratio to ordinary | peak memory (MiB) |")
        print("|---:|---:|---:|---:|---:|")
        for size, point in zip(SIZES[what], points, strict=True):
            print(
                f"| {size:,} | {point.weights:,} | {1e3 * point.seconds:.1f} "
                f"| {point.seconds / point.ordinary:.2f} | {point.memory:,.0f} |"
            )
        slopes = exponents(growing(what, points), points)
        print(
            f"exponents in {'weights' if what == 'width' else what}, upper half: step "
            f"{slopes.seconds:.2f}, ordinary {slopes.ordinary:.2f}, memory {slopes.memory:.2f}",
            flush=True,
        )
    if given.figure:
        draw(curves).savefig(given.figure)


if __name__ == "__main__":
    main()
