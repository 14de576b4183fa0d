"""What TensorBoard's files cost: seconds in their writer against those of the training around it.

Trains as `python -m reproduce.mnist` does, with validations and checkpoints, and prints the seconds
of each of the writer's methods, their share of the whole, and their share of the training steps
alone. On a shared machine a share means more than two times measured apart.

    python -m benchmarks.tensorboard_cost --preset quick
    python -m benchmarks.tensorboard_cost --preset paper --steps 2000
"""

import argparse
import collections
import functools
import pathlib
import tempfile
import time

import keras

import hypernet_tf as hn
from hypernet_tf.training.callbacks import Validation
from hypernet_tf.training.devices import Execution
from hypernet_tf.training.tensorboard import TensorBoardWriter
from reproduce.configs import preset
from reproduce.studies.experiment import trained


def main():
    """Train, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=("quick", "paper"), default="quick")
    parser.add_argument("--dataset", default="mnist_5k")
    parser.add_argument("--method", default="hypernetwork")
    parser.add_argument("--steps", type=int, help="default: those of the preset")
    parser.add_argument("--folder", type=pathlib.Path, help="an empty one, kept afterwards")
    arguments = parser.parse_args()
    config = preset(
        "mnist",
        arguments.method,
        arguments.preset,
        dataset=arguments.dataset,
        steps=arguments.steps,
    )
    dataset = hn.data.load(config.dataset)
    keras.utils.set_random_seed(config.seed)

    seconds: dict[str, float] = collections.defaultdict(float)
    calls: dict[str, int] = collections.defaultdict(int)
    for owner, name in (
        (TensorBoardWriter, "start"),
        (TensorBoardWriter, "record"),
        (TensorBoardWriter, "networks"),
        (TensorBoardWriter, "finish"),
        (Validation, "on_train_batch_end"),
    ):
        setattr(owner, name, timed(getattr(owner, name), seconds, calls))
    with tempfile.TemporaryDirectory() as aside:
        folder = arguments.folder or pathlib.Path(aside)
        start = time.perf_counter()
        trained(config, dataset, folder, Execution())
        whole = time.perf_counter() - start
        size = sum(file.stat().st_size for file in (folder / "tensorboard").iterdir())
    validations = seconds.pop("on_train_batch_end")
    writing = sum(seconds.values())
    for name, value in seconds.items():
        print(f"{name}: {calls[name]} calls, {value:.2f} s")
    print(
        f"{config.steps} steps: {whole:.1f} s, of which validations {validations:.1f} s and "
        f"TensorBoard {writing:.2f} s: {writing / whole:.2%} of the whole, "
        f"{writing / (whole - validations - writing):.2%} of the rest; {size / 2**20:.1f} MiB"
    )


def timed(method, seconds, calls):
    """The method, whose seconds and calls are counted under its name."""

    @functools.wraps(method)
    def counted(*args, **kwargs):
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            seconds[method.__name__] += time.perf_counter() - start
            calls[method.__name__] += 1

    return counted


if __name__ == "__main__":
    main()
