"""One training step of a sampler against its floor, alternated in one run.

The floor is the sum of two steps: that of the ordinary Keras model, the same target, on the same
images; and that of all the sampler has beside its target, alone: its generators forward, to a loss
that reads every weight, and backward, its terms' own networks (HyperGAN's discriminator), and the
optimizers. The sampler's step is whole: z, generators, gauge, target, diversity, gradients, Adam,
with the networks and images of its preset (hypernetwork, paper: 32 networks on 32 images each;
fast: 8 on 32; HyperGAN, quick: 32 networks on the same 32 images).

    python -m benchmarks.step_time --rounds 40
    python -m benchmarks.step_time --rounds 100 --preset fast
    python -m benchmarks.step_time --rounds 40 --method hypergan --preset quick
    python -m benchmarks.step_time --rounds 10 --target resnet32 --networks 8
    python -m benchmarks.step_time --target resnet32 --memory sampler

Prints medians, and the ratio of the sampler's step to the floor next to it: its median and
quartiles; times alone mean nothing on a shared machine. Peak memory is a process's own: run it once
with each of `nothing`, `ordinary` and `sampler`.
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from benchmarks.ratios import alternate
from hypernet_tf.diversity import StepRecord
from reproduce.configs import METHODS, TARGETS, RunConfig, build_sampler, preset
from reproduce.configs.methods import presets_of
from reproduce.configs.run_config import PRESETS
from reproduce.runs import memory
from reproduce.studies.experiment import load

# APD needs networks to learn.
TRAINED_ALONE = [name for name, method in METHODS.items() if not method.learns_match]
KINDS = ("ordinary", "generators", "sampler")


class Timing(NamedTuple):
    """What alternated steps took.

    Attributes:
        first: Kind of step -> seconds of the first one, with tracing.
        seconds: Kind of step -> seconds [rounds] of the others.
    """

    first: dict[str, float]
    seconds: dict[str, np.ndarray]

    def ratios(self) -> np.ndarray:
        """The sampler's steps over the floors next to them, [rounds]."""
        return self.seconds["sampler"] / (self.seconds["ordinary"] + self.seconds["generators"])


def configure(target: str, method: str, name: str, networks: int | None = None) -> RunConfig:
    """The configuration of a measurement, on the digits, padded to the target's images.

    Args:
        target: Name of the target.
        method: Name of the method.
        name: Name of the preset.
        networks: Number of networks in a step; None keeps the preset's.
    """
    config = preset(TARGETS[target].experiment, method, name, target=target, dataset="mnist_5k")
    return dataclasses.replace(config, networks_per_step=networks or config.networks_per_step)


def measure(config: RunConfig, rounds: int) -> Timing:
    """Alternate the three steps.

    Args:
        config: Configuration of the sampler.
        rounds: Number of steps of each kind that are timed.
    """
    seconds = alternate([step_of(kind, config) for kind in KINDS], rounds + 2)
    first = dict(zip(KINDS, seconds[0], strict=True))
    return Timing(first, dict(zip(KINDS, seconds[2:].T, strict=True)))


def peak_memory(config: RunConfig, kind: str) -> float:
    """Peak memory of this process in MiB after steps of one kind.

    Args:
        config: Configuration of the sampler.
        kind: One of `KINDS`, or "nothing".
    """
    if kind == "nothing":
        load(config, None)
    else:
        step = step_of(kind, config)
        for _ in range(5):
            step()
    return memory.peak_memory()


def step_of(kind: str, config: RunConfig) -> Callable[[], object]:
    """A function that does one step.

    Args:
        kind: One of `KINDS`.
        config: Configuration of the sampler.
    """
    split = load(config, None).train
    sampler = build_sampler(config, 55_000)
    # Where networks share their images, each of them runs on all.
    copies = config.networks_per_step if sampler.shared_inputs else 1
    size = config.images_per_step // copies
    x, y = tf.constant(split.x[:size]), tf.constant(split.y[:size])
    if kind == "sampler":
        sampler.build_metrics(y[:2])  # as training does: a step that makes them is traced twice
        return tf.function(lambda: sampler.train_step((x, y)), autograph=False)
    if kind == "generators":
        return step_of_generators(sampler)
    model = TARGETS[config.target].make(x.shape[1:], 10)
    model.compile(
        optimizer=keras.optimizers.Adam(3e-4),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.optimizer.build(model.trainable_variables)
    all_x, all_y = tf.tile(x, [copies, 1, 1, 1]), tf.tile(y, [copies])
    return tf.function(lambda: model.train_step((all_x, all_y)), autograph=False)


def step_of_generators(sampler):
    """A step of all that a sampler has beside its target; every variable moves.

    Args:
        sampler: A compiled sampler, whose variables change.
    """
    variables = sampler.generating_variables

    def step():
        seed = tf.stack([tf.zeros([], tf.int64), sampler.step.value])
        with tf.GradientTape() as tape:
            drawn = sampler.draw(seed, sampler.num_networks, training=True)
            loss = tf.add_n([tf.reduce_sum(w**2) for w in drawn.trainable])
            loss += sampler.regularization(drawn) + sampler.extra_loss(drawn)
            if sampler.trained_terms:
                record = StepRecord(drawn.trainable[0], drawn.z, drawn.codes, seed=seed)
                for term in sampler.trained_terms:
                    with tape.stop_recording():
                        term.train(record)
                    loss += term(record)
        sampler.optimizer.apply(tape.gradient(loss, variables), variables)
        sampler.step.assign_add(1)
        return loss

    return tf.function(step, autograph=False)


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--target", choices=list(TARGETS), default="mnist")
    parser.add_argument("--method", choices=TRAINED_ALONE, default="hypernetwork")
    parser.add_argument("--preset", choices=list(PRESETS), default="paper")
    parser.add_argument("--networks", type=int, help="networks in a step; default: the preset's")
    parser.add_argument("--memory", choices=[*KINDS, "nothing"], help="measure peak memory alone")
    given = parser.parse_args()
    known = presets_of(TARGETS[given.target].experiment, given.method)
    if given.preset not in known:
        names = " or ".join(known)
        parser.error(f"{given.method} has no preset '{given.preset}': choose {names}")
    config = configure(given.target, given.method, given.preset, given.networks)
    if given.memory:
        print(f"peak memory of this process {peak_memory(config, given.memory):,.0f} MiB")
        return
    timing = measure(config, given.rounds)
    for kind in KINDS:
        print(
            f"{kind}: median {1e3 * np.median(timing.seconds[kind]):.1f} ms over {given.rounds} "
            f"steps; first step, with tracing, {timing.first[kind]:.1f} s"
        )
    beside = timing.seconds["sampler"] / timing.seconds["ordinary"]
    for name, ratios in (("(ordinary + generators)", timing.ratios()), ("ordinary", beside)):
        low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75])
        print(f"sampler / {name}: {middle:.3f} ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
