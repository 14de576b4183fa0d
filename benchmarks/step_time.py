"""One training step of a sampler against its floor, alternated in one run.

The floor of the hypernetwork is a training step of an ordinary Keras CNN, the same target, on the
same images. HyperGAN's is the sum of this step and of one of mixer, generators and discriminator
alone: forward, backward, both optimizers. The sampler's step is whole: z, generators, gauge,
target, diversity, gradients, Adam, with the networks and images of its preset (hypernetwork, paper:
32 networks on 32 images each; fast: 8 on 32; HyperGAN, paper: 100 networks on the same 100 images;
quick: 32 on 32). Prints the ratio of the medians and the median of the ratios of neighbours; times
alone mean nothing on a shared machine.

    python -m benchmarks.step_time --rounds 40
    python -m benchmarks.step_time --rounds 100 --preset fast
    python -m benchmarks.step_time --rounds 40 --method hypergan --preset quick
"""

import argparse
import time

import keras
import numpy as np
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf.diversity import StepRecord
from reproduce.configs import build_sampler, preset
from reproduce.configs.methods import presets_of


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--method", choices=["hypernetwork", "hypergan"], default="hypernetwork")
    parser.add_argument("--preset", choices=["paper", "fast", "quick"], default="paper")
    arguments = parser.parse_args()
    rounds, method = arguments.rounds, arguments.method
    if arguments.preset not in (known := presets_of("mnist", method)):
        parser.error(f"{method} has no preset '{arguments.preset}': choose {' or '.join(known)}")
    config = preset("mnist", method, arguments.preset)
    split, images = hn.data.load("mnist_5k").train, config.passes_per_step
    sampler = build_sampler(config, 55_000)
    if sampler.shared_inputs:
        batch = config.images_per_network
        copies = config.networks_per_step  # each network runs on the same images
    else:
        batch, copies = images, 1
    x, y = tf.constant(split.x[:batch]), tf.constant(split.y[:batch])
    all_x, all_y = tf.tile(x, [copies, 1, 1, 1]), tf.tile(y, [copies])

    cnn = hn.zoo.mnist()
    cnn.compile(
        optimizer=keras.optimizers.Adam(3e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    cnn.optimizer.build(cnn.trainable_variables)
    steps = {"ordinary CNN": tf.function(lambda: cnn.train_step((all_x, all_y)))}
    if method == "hypergan":
        steps["mixer, generators, discriminator"] = step_of_parts(build_sampler(config, 55_000))
    steps[method] = tf.function(lambda: sampler.train_step((x, y)))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        for _ in range(3):
            step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - start)
    *floors, ours = (np.array(seconds[name]) for name in steps)
    for name, values in seconds.items():
        print(f"{name}: median {1e3 * np.median(values):.1f} ms over {rounds} steps")
    floor = sum(np.median(values) for values in floors)
    print(
        f"ratio of medians {np.median(ours) / floor:.3f}, "
        f"median of neighbours' ratios {np.median(ours / np.sum(floors, 0)):.3f}"
    )


def step_of_parts(gan):
    """A step of all that HyperGAN has beside its target: every variable moves.

    Args:
        gan: A compiled HyperGAN, whose variables change.
    """
    (discriminator,) = gan.trained_terms
    variables = gan.generating_variables

    def step():
        seed = tf.stack([tf.zeros([], tf.int64), gan.step.value])
        with tf.GradientTape() as tape:
            drawn = gan.draw(seed, gan.num_networks, training=True)
            record = StepRecord(drawn.trainable[0], drawn.z, drawn.codes, seed=seed)
            with tape.stop_recording():
                discriminator.train(record)
            weights = tf.add_n([tf.reduce_sum(w**2) for w in drawn.trainable])
            loss = weights + discriminator(record) + gan.extra_loss(drawn)
        gan.optimizer.apply(tape.gradient(loss, variables), variables)
        gan.step.assign_add(1)
        return loss

    return tf.function(step, autograph=False)


if __name__ == "__main__":
    main()
