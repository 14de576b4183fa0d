"""Where the time of a training step goes: draw and generators, gauge, diversity, target, the rest.

Alternates prefixes of the step, each forward and backward to a loss that reads all it makes; a part
is the difference of two of them. The ordinary Keras model on the same images stands beside them.

    python -m benchmarks.parts --target lenet
    python -m benchmarks.parts --preset fast --rounds 60
"""

import argparse
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.ratios import alternate
from benchmarks.step_time import configure, step_of
from hypernet_tf.diversity import StepRecord
from hypernet_tf.samplers.base import WeightSampler
from reproduce.configs import METHODS, TARGETS, RunConfig, build_sampler
from reproduce.studies.experiment import load

# HyperGAN's term needs codes, and APD networks to learn.
METHODS_OF_PARTS = [name for name in METHODS if name not in ("hypergan", "apd")]
# Part -> the prefixes whose difference it is.
PARTS = {
    "draw and generators": ("generators", None),
    "gauge": ("gauge", "generators"),
    "diversity": ("diversity", "gauge"),
    "target and loss": ("target", "gauge"),
    "the ordinary model and loss": ("ordinary", None),
}


def prefixes(config: RunConfig) -> dict[str, Callable[[], Any]]:
    """Functions that run a prefix of a step, forward and backward, without the optimizer.

    Args:
        config: Configuration of the sampler.
    """
    split = load(config, None).train
    sampler = build_sampler(config, 55_000)
    count = config.networks_per_step
    size = config.images_per_network if sampler.shared_inputs else config.images_per_step
    x, y = tf.constant(split.x[:size]), tf.constant(split.y[:size])
    model = TARGETS[config.target].make(x.shape[1:], 10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def draw(in_gauge: bool) -> Any:
        seed = tf.stack([tf.zeros([], tf.int64), sampler.step.value])
        return sampler._draw_weights(seed, count, training=True, in_gauge=in_gauge)[1]

    def read(weights: Any) -> tf.Tensor:
        return tf.add_n([tf.reduce_sum(w**2) for w in weights.trainable])

    def diversity(weights: Any) -> tf.Tensor:
        return sum_of_terms(sampler, weights)

    def target(weights: Any) -> tf.Tensor:
        images = x if sampler.shared_inputs else tf.reshape(x, [count, -1, *x.shape[1:]])
        labels = tf.tile(y, [count]) if sampler.shared_inputs else y
        outputs, _ = sampler.target.run(weights, images, training=True, batch_statistics=True)
        return loss(labels, tf.reshape(outputs, [-1, outputs.shape[-1]]))

    of_weights = {
        "generators": (False, read),
        "gauge": (True, read),
        "diversity": (True, diversity),
        "target": (True, target),
    }

    def function(name: str) -> Callable[[], Any]:
        if name == "ordinary":
            copies = count if sampler.shared_inputs else 1
            images, labels = tf.tile(x, [copies, 1, 1, 1]), tf.tile(y, [copies])
            variables = model.trainable_variables

            def value() -> tf.Tensor:
                return loss(labels, model(images, training=True))

        else:
            in_gauge, read_by = of_weights[name]
            variables = sampler.generating_variables

            def value() -> tf.Tensor:
                return read_by(draw(in_gauge))

        def run() -> Any:
            with tf.GradientTape() as tape:
                result = value()
            return tape.gradient(result, variables)

        return tf.function(run, autograph=False)

    return {name: function(name) for name in (*of_weights, "ordinary")}


def sum_of_terms(sampler: WeightSampler, weights: Any) -> tf.Tensor:
    """The sampler's diversity loss of weights, and a sum of all weights, so that all are read."""
    theta = sampler.target.flatten(weights)
    return sampler._sum_of_terms(StepRecord(theta, None, None)) + tf.reduce_sum(theta**2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--target", choices=list(TARGETS), default="mnist")
    parser.add_argument("--method", choices=METHODS_OF_PARTS, default="hypernetwork")
    parser.add_argument("--preset", choices=["paper", "fast", "quick"], default="paper")
    parser.add_argument("--networks", type=int, help="networks in a step; default: the preset's")
    given = parser.parse_args()
    config = configure(given.target, given.method, given.preset, given.networks)
    steps = prefixes(config) | {
        "whole step": step_of("sampler", config),
        "whole step of the ordinary model": step_of("ordinary", config),
    }
    seconds = alternate([*steps.values()], given.rounds + 2)[2:]
    medians = dict(zip(steps, 1e3 * np.median(seconds, 0), strict=True))
    parts = {
        part: medians[whole] - (medians[less] if less else 0.0)
        for part, (whole, less) in PARTS.items()
    }
    inside = ("draw and generators", "gauge", "diversity", "target and loss")
    parts["optimizer, metrics"] = medians["whole step"] - sum(parts[name] for name in inside)
    ordinary = medians["whole step of the ordinary model"]
    parts["the ordinary model's optimizer, metrics"] = (
        ordinary - parts["the ordinary model and loss"]
    )
    parts |= {name: medians[name] for name in ("whole step", "whole step of the ordinary model")}
    for name, value in parts.items():
        print(f"{name}: {value:.1f} ms, {value / ordinary:.2f} of the ordinary model's step")


if __name__ == "__main__":
    main()
