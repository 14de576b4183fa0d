"""All ratios of speed and memory that this project watches, beside those that were recorded.

    python -m benchmarks
    python -m benchmarks --record --rows evaluations

Training steps are alternated with their floors (`benchmarks.step_time`), evaluations with as many
compiled calls of the Keras model. Each row is measured in processes of its own, for
about ten minutes in all on two idle cores; times of a busy machine are no measurements, and only
ratios are compared. `--record` writes them to benchmarks/recorded.json.
"""

import argparse
import json
import multiprocessing
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hypernet_tf.files import write_aside

RECORDED = pathlib.Path(__file__).with_name("recorded.json")
STEPS = (  # target, method, preset, networks in a step, rounds
    ("mnist", "hypernetwork", "paper", None, 40),
    ("mnist", "hypernetwork", "fast", None, 150),
    ("mnist", "hypergan", "quick", None, 40),
    ("mnist", "bhn", "paper", None, 60),
    ("mnist", "mc_dropout", "paper", None, 60),
    ("mnist", "mnf", "paper", None, 60),
    ("lenet", "hypernetwork", "paper", None, 40),
    ("resnet32", "hypernetwork", "paper", 8, 8),
)
EVALUATIONS = (("mnist", 100, 1_000, 8), ("resnet32", 10, 600, 4))  # networks, images, rounds
MEMORY = (
    ("mnist", "hypernetwork", "paper", None),
    ("lenet", "hypernetwork", "paper", None),
    ("resnet32", "hypernetwork", "paper", 8),
)


def measure_step(target: str, method: str, preset: str, networks: int | None, rounds: int) -> Any:
    """Quartiles of the ratio of a step to its floor, and seconds of the first step."""
    from benchmarks.step_time import configure, measure

    timing = measure(configure(target, method, preset, networks), rounds)
    return [*np.quantile(timing.ratios(), [0.25, 0.5, 0.75])], timing.first["sampler"]


def measure_evaluation(target: str, networks: int, images: int, rounds: int) -> Any:
    """Quartiles of the ratio of an evaluation to compiled calls of the model, alternated."""
    import tensorflow as tf

    from benchmarks.step_time import configure
    from reproduce.configs import TARGETS, build_sampler
    from reproduce.studies.experiment import load

    config = configure(target, "hypernetwork", "paper")
    x = load(config, None).train.x[:images]
    ensemble = build_sampler(config, 55_000).sample(networks, seed=1)
    if ensemble.target.statistics:
        ensemble = ensemble.update_batch_norm(x)
    model = TARGETS[config.target].make(x.shape[1:], 10)
    call = tf.function(lambda inputs: model(inputs, training=False), autograph=False)
    parts = [tf.constant(x[start : start + 500]) for start in range(0, images, 500)]
    both = (
        lambda: ensemble.log_probabilities(x),
        lambda: [call(part).numpy() for _ in range(networks) for part in parts],
    )
    ensembles, models = alternate(both, rounds + 1)[1:].T
    return [*np.quantile(ensembles / models, [0.25, 0.5, 0.75])]


def measure_memory(target: str, method: str, preset: str, networks: int | None, kind: str) -> float:
    """Peak memory in MiB of a process with some steps."""
    from benchmarks.step_time import configure, peak_memory

    return peak_memory(configure(target, method, preset, networks), kind)


def alternate(functions: Sequence[Callable[[], Any]], turns: int) -> np.ndarray:
    """Time functions in turns, so that what else slows the machine slows all of them.

    Args:
        functions: The functions.
        turns: Number of calls of each; the first ones trace graphs.

    Returns:
        Seconds [turns, functions].
    """
    seconds = np.empty([turns, len(functions)])
    for turn in seconds:
        for number, function in enumerate(functions):
            start = time.perf_counter()
            function()
            turn[number] = time.perf_counter() - start
    return seconds


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a function in a process of its own.

    Args:
        function: The function.
        arguments: Its arguments.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--record", action="store_true", help="write benchmarks/recorded.json")
    kinds = ("steps", "evaluations", "memory")
    parser.add_argument("--rows", choices=kinds, action="append", help="default: all")
    given = parser.parse_args()
    rows = given.rows or kinds
    recorded = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    ratios: dict[str, float] = {}
    print("| | ratio (quartiles) | recorded | first call (s) |\n|---|---:|---:|---:|", flush=True)

    def row(name: str, quartiles: list[float], first: float | None = None) -> None:
        low, ratios[name], high = quartiles
        known = f"{recorded[name]:.2f}" if name in recorded else ""
        seconds = "" if first is None else f"{first:.1f}"
        numbers = f"{ratios[name]:.2f} ({low:.2f} to {high:.2f})"
        print(f"| {name} | {numbers} | {known} | {seconds} |", flush=True)

    for target, method, preset, networks, rounds in STEPS if "steps" in rows else ():
        quartiles, first = apart(measure_step, target, method, preset, networks, rounds)
        row(f"step: {target}, {method}, {preset}", quartiles, first)
    for target, networks, images, rounds in EVALUATIONS if "evaluations" in rows else ():
        quartiles = apart(measure_evaluation, target, networks, images, rounds)
        row(f"evaluation: {networks} networks of {target}, {images:,} images", quartiles)
    for target, method, preset, networks in MEMORY if "memory" in rows else ():
        base, ordinary, ours = (
            apart(measure_memory, target, method, preset, networks, kind)
            for kind in ("nothing", "ordinary", "sampler")
        )
        ratio = (ours - base) / (ordinary - base)
        row(f"memory above TensorFlow's: {target}, {method}, {preset}", [ratio] * 3)
    if given.record:
        rounded = {name: round(value, 3) for name, value in ratios.items()}
        text = json.dumps(recorded | rounded, indent=2) + "\n"
        write_aside(RECORDED, lambda aside: aside.write_text(text))
