"""Hypernetwork steps of LeNet and ResNet-32 against the sum of their floors, alternated in one run.

The floors are a training step of the ordinary Keras model on the same N·B images, and a forward and
backward pass of extractor and generators alone (to a loss that reads every generated weight). The
hypernetwork's step is whole: z, generators, gauge, networks, entropy, gradients, Adam.

    python -m benchmarks.deep_steps --target lenet --rounds 20   32 networks of 32 images
    python -m benchmarks.deep_steps --target resnet32 --rounds 10  8 networks of 32 images
    python -m benchmarks.deep_steps --target resnet32 --memory hypernetwork

Prints medians, ratios and the seconds that tracing took; times alone mean nothing on a shared
machine. Peak memory is a process's own: run it once with each kind, and once with `nothing`.
"""

import argparse
import resource
import time

import keras
import numpy as np
import tensorflow as tf

from reproduce.configs import TARGETS, build_sampler, preset
from reproduce.runs.experiment import load

KINDS = ("ordinary", "generators", "hypernetwork")


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="lenet", choices=["lenet", "resnet32", "resnet32_b"])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--memory", choices=[*KINDS, "nothing"])
    arguments = parser.parse_args()
    config = preset("cifar", "hypernetwork", "paper", target=arguments.target, dataset="mnist_5k")
    split = load(config, None).train
    size = config.networks_per_step * config.images_per_network
    x, y = tf.constant(split.x[:size]), tf.constant(split.y[:size])
    kinds = KINDS if arguments.memory is None else [k for k in KINDS if k == arguments.memory]
    steps = {kind: _step(kind, config, x, y) for kind in kinds}
    for kind, step in steps.items():
        start = time.perf_counter()
        step()
        print(f"{kind}: first step, with tracing, {time.perf_counter() - start:.1f} s", flush=True)
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for _ in range(arguments.rounds + 1):
        for kind, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[kind].append(time.perf_counter() - start)
    for kind, values in seconds.items():
        print(f"{kind}: median {1e3 * np.median(values[1:]):.0f} ms over {arguments.rounds} steps")
    if len(seconds) == len(KINDS):
        ordinary, generators, hypernetwork = (np.array(seconds[kind][1:]) for kind in KINDS)
        print(
            f"hypernetwork / (ordinary + generators): medians "
            f"{np.median(hypernetwork) / (np.median(ordinary) + np.median(generators)):.3f}, "
            f"median of neighbours' ratios {np.median(hypernetwork / (ordinary + generators)):.3f}"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of this process {peak:.0f} MiB")


def _step(kind: str, config, x: tf.Tensor, y: tf.Tensor):
    if kind == "ordinary":
        model = TARGETS[config.target].make((32, 32, 3), 10)
        model.compile(
            optimizer=keras.optimizers.Adam(1e-4),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        model.optimizer.build(model.trainable_variables)
        return tf.function(lambda: model.train_step((x, y)))
    sampler = build_sampler(config, len(y))
    if kind == "hypernetwork":
        return tf.function(lambda: sampler.train_step((x, y)))

    def generators():
        z = sampler.latent_vectors(tf.constant([0, 0]), config.networks_per_step)
        with tf.GradientTape() as tape:
            drawn = sampler.generate(z, training=True)
            loss = tf.add_n([tf.reduce_sum(w**2) for w in drawn.trainable])
        gradients = tape.gradient(loss, sampler.trainable_variables)
        return tf.add_n([tf.reduce_sum(g) for g in gradients if g is not None])

    return tf.function(generators)


if __name__ == "__main__":
    main()
