"""What a training step of each method costs, per image pass, on the 5,000 digits.

    python -m benchmarks.method_steps --rounds 5

Methods are alternated: each round runs ten steps of every method. Printed are the median time of a
step, and the seconds for a million image passes (an image forward and backward through a network).
"""

import argparse

import numpy as np

import hypernet_tf as hn
from benchmarks.ratios import alternate
from hypernet_tf.training.stream import batches
from reproduce.configs import METHODS, build_sampler, preset

STEPS = 10


def main():
    """Time the methods and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    train = hn.data.load("mnist_5k").train
    configs, steps = {}, []
    for name, method in METHODS.items():
        if method.learns_match:  # it has nothing to learn here
            continue
        config = preset("mnist", name, "paper")
        sampler = build_sampler(config, len(train))
        shared = sampler.shared_inputs
        batch_size = config.images_per_network if shared else config.images_per_step
        data = iter(batches(train, batch_size=batch_size, seed=0))
        sampler.make_train_function()
        configs[name] = config

        def ten_steps(sampler=sampler, data=data):
            for _ in range(STEPS):
                sampler.train_function(data)

        steps.append(ten_steps)
    medians = np.median(alternate(steps, rounds + 1)[1:], 0) / STEPS
    for (name, config), step in zip(configs.items(), medians, strict=True):
        passes = config.passes_per_step
        million = 1e6 * step / passes
        print(f"{name}: {1e3 * step:.1f} ms for {passes:,} passes, {million:.0f} s for a million")


if __name__ == "__main__":
    main()
