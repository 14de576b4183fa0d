"""Accuracy on Fashion-MNIST beside the published program's, on the same images and steps.

One run of the published program (lam 1e3, of unknown seed) reached, with 100 networks on the first
2,000 test images (in the order of the idx files): after 2,000 steps mean member 85.3 %, majority
vote 87.4 %; after 4,000 steps 87.2 % and 88.7 %.

    python -m benchmarks.fashion_accuracy --seeds 0 1 2

Runs are kept under runs/ and continue where they stopped. It needs the four idx files of Debian's
package dataset-fashion-mnist.
"""

import argparse
import dataclasses
import gzip
import json
import pathlib

import numpy as np

from hypernet_tf.data.originals import DEBIAN_FASHION_MNIST
from reproduce.configs import preset
from reproduce.runs import folder as folders
from reproduce.studies import experiment

STEPS = (2_000, 4_000)
PUBLISHED = {2_000: (85.3, 87.4), 4_000: (87.2, 88.7)}


def first_test_images(count):
    """The first test images in the order of the idx files, x in [0, 1] and labels."""

    def read(name, header):
        return np.frombuffer(gzip.open(DEBIAN_FASHION_MNIST / name).read(), np.uint8, offset=header)

    images = read("t10k-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28, 1)[:count]
    return images.astype(np.float32) / 255, read("t10k-labels-idx1-ubyte.gz", 8)[:count]


def main():
    """Train, evaluate, print a table."""
    from hypernet_tf.training.checkpoints import Checkpoints

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    seeds = parser.parse_args().seeds
    x, y = first_test_images(2_000)
    results = {steps: [] for steps in STEPS}
    for seed in seeds:
        folder = pathlib.Path("runs", f"fashion_accuracy-seed={seed}")
        for steps in STEPS:
            kept = folder / f"first_2000-{steps}.json"
            if not kept.exists():
                config = preset(
                    "mnist", "hypernetwork", "paper", dataset="fashion_mnist", steps=steps
                )
                config = dataclasses.replace(config, seed=seed, num_networks=100)
                experiment.run(config, folder)
                hyper, _ = Checkpoints(folder / "checkpoints").load()
                result = hyper.sample(100, seed=2).evaluate(x, y)
                folders.write_json(
                    kept,
                    [100 * result.member_accuracy.mean(), 100 * result.majority_vote_accuracy],
                )
            results[steps].append(json.loads(kept.read_text()))
    for steps, values in results.items():
        for name, ours, theirs in zip(
            ("mean member", "majority vote"), np.transpose(values), PUBLISHED[steps], strict=True
        ):
            each = ", ".join(f"{v:.2f}" for v in ours)
            print(
                f"{steps} steps, {name}: {np.mean(ours):.2f} % (seeds {seeds}: {each}); "
                f"published program {theirs} %, difference {np.mean(ours) - theirs:+.2f}"
            )


if __name__ == "__main__":
    main()
