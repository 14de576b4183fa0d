"""One hypernetwork training step against its floor, alternated in one run.

The floor is a training step of an ordinary Keras CNN, the same target, on the same images. The
hypernetwork's step is whole: z, generators, gauge, target, entropy, gradients, Adam, with the
networks and images of its preset (paper: 32 networks on 32 images each; fast: 8 on 32). Prints the
ratio of the medians and the median of the ratios of neighbours; times alone mean nothing on a
shared machine.

    python -m benchmarks.step_time --rounds 40
    python -m benchmarks.step_time --rounds 100 --preset fast
"""

import argparse
import time

import keras
import numpy as np
import tensorflow as tf

import hypernet_tf as hn
from reproduce.configs import build_sampler, preset


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--preset", choices=["paper", "fast"], default="paper")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    config = preset("mnist", "hypernetwork", arguments.preset)
    split, images = hn.data.load("mnist_5k").train, config.passes_per_step
    x, y = tf.constant(split.x[:images]), tf.constant(split.y[:images])

    hyper = build_sampler(config, 55_000)
    cnn = hn.zoo.mnist()
    cnn.compile(
        optimizer=keras.optimizers.Adam(3e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    cnn.optimizer.build(cnn.trainable_variables)
    steps = {
        "ordinary CNN": tf.function(lambda: cnn.train_step((x, y))),
        "hypernetwork": tf.function(lambda: hyper.train_step((x, y))),
    }
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(3):
            step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    floor, ours = (np.array(seconds[name]) for name in steps)
    for name, values in seconds.items():
        print(f"{name}: median {1e3 * np.median(values):.1f} ms over {rounds} steps")
    print(
        f"ratio of medians {np.median(ours) / np.median(floor):.3f}, "
        f"median of neighbours' ratios {np.median(ours / floor):.3f}"
    )


if __name__ == "__main__":
    main()
