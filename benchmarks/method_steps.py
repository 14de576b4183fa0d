"""What a training step of each method costs, per image pass, on the 5,000 digits.

    python -m benchmarks.method_steps --rounds 50

Methods are alternated: each round runs a step of every method. Printed are the median time of a
step, and the seconds for a million image passes (an image forward and backward through a network).
"""

import argparse

import numpy as np

from benchmarks.ratios import alternate
from benchmarks.step_time import TRAINED_ALONE, configure, step_of


def main():
    """Time the methods and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    rounds = parser.parse_args().rounds
    configs = [configure("mnist", name, "paper") for name in TRAINED_ALONE]
    steps = [step_of("sampler", config) for config in configs]
    medians = np.median(alternate(steps, rounds + 2)[2:], 0)
    for config, step in zip(configs, medians, strict=True):
        passes = config.passes_per_step
        million = 1e6 * step / passes
        print(
            f"{config.method}: {1e3 * step:.1f} ms for {passes:,} passes, {million:.0f} s for a "
            "million"
        )


if __name__ == "__main__":
    main()
