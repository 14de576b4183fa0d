"""What a training step of each method costs, per image pass, on the 5,000 digits.

    python -m benchmarks.method_steps --rounds 5

Methods are alternated: each round runs ten steps of every method. Printed are the median time of a
step, and the seconds for a million image passes (an image forward and backward through a network).
"""

import argparse
import statistics
import time

import hypernet_tf as hn
from hypernet_tf.training.stream import batches
from reproduce.configs import METHODS, build_sampler, preset

STEPS = 10


def main():
    """Time the methods and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    train = hn.data.load("mnist_5k").train
    methods, times = {}, {}
    for name, method in METHODS.items():
        if method.learns_match:  # it has nothing to learn here
            continue
        config = preset("mnist", name, "paper")
        sampler = build_sampler(config, len(train))
        shared = sampler.shared_inputs
        batch_size = config.images_per_network if shared else config.images_per_step
        data = iter(batches(train, batch_size=batch_size, seed=0))
        sampler.make_train_function()
        methods[name], times[name] = (config, sampler, data), []
    for turn in range(rounds + 1):
        for name, (_, sampler, data) in methods.items():
            start = time.perf_counter()
            for _ in range(STEPS):
                sampler.train_function(data)
            if turn:  # the first traces the graph
                times[name].append((time.perf_counter() - start) / STEPS)
    for name, (config, *_) in methods.items():
        step = statistics.median(times[name])
        passes = config.passes_per_step
        million = 1e6 * step / passes
        print(f"{name}: {1e3 * step:.1f} ms for {passes:,} passes, {million:.0f} s for a million")


if __name__ == "__main__":
    main()
