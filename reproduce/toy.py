"""The toy problem: a hypernetwork that bends a line through the peaks of a score on the plane.

A small network generates two numbers, theta, from z in [-1, 1]. It is trained for a high score of
theta and for large distances between thetas (Deutsch, Nijkamp, Yang 2019). Its curve then goes
through the peaks of the score and is sparse where the score is low.

  python -m reproduce.toy                          three seeds, 60,000 steps, in about a minute
  python -m reproduce.toy --seeds=3,4 --steps=20000

A higher --steps does not continue a finished run: each seed is trained again from its first step.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import pathlib
import time
from typing import Any

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from scipy.stats import spearmanr
from tqdm import tqdm

from hypernet_tf.diversity import nearest_neighbour_distances
from hypernet_tf.training.progress import progress_bar
from reproduce.cli import seeds_flag, shared_flags
from reproduce.reports import toy_figures
from reproduce.runs import folder as folders

flags.adopt_module_key_flags(seeds_flag)
# Of the shared flags only these mean something here.
SHARED_FLAGS = ("run_dir", "steps")
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)

STEPS_PER_CALL = 500  # steps between two updates of the progress bar
MEASURES = {
    "components_visited": "components i with a point of the curve within sigma_i of mu_i",
    "rank_correlation": "Spearman's rank correlation of the score at a point of the curve and "
    "the point's distance to the nearest other one",
    "score_mean": "mean score of the points of the curve",
    "loss": f"mean training loss of the last steps, at most {STEPS_PER_CALL}",
    "steps": "training steps",
    "seconds": "seconds of training",
}


@dataclasses.dataclass(frozen=True)
class Config:
    """The configuration of one run. The defaults are published, except the number of steps.

    After 60,000 steps the curves hardly change.

    Attributes:
        seeds: Seeds, separated by commas.
        steps: Number of training steps.
        points_per_step: N, number of points in a training step.
        diversity_weight: Factor on the diversity loss.
        norm_weight: Factor on the mean squared norm of theta.
        learning_rate: Learning rate of the first step.
        learning_rate_decay: Factor on the learning rate after each step.
        points: Number of points of a curve that is drawn and measured.
    """

    seeds: str = "0,1,2"
    steps: int = 60_000
    points_per_step: int = 5
    diversity_weight: float = 2.2
    norm_weight: float = 0.05
    learning_rate: float = 1e-3
    learning_rate_decay: float = 0.99996
    points: int = 400


@dataclasses.dataclass(frozen=True)
class Mixture:
    """The score: a mixture of K components on the plane.

    Attributes:
        mu: Centres of the components [K, 2].
        sigma: Widths of the components [K].
        p: Weights of the components [K].
    """

    mu: np.ndarray
    sigma: np.ndarray
    p: np.ndarray

    def score(self, theta: Any) -> tf.Tensor:
        """F(theta) = sum_i p_i · 2πσ_i² · exp(-|theta - mu_i|² / 2σ_i²).

        The factor 2πσ_i² multiplies, as published; f is not a density.

        Args:
            theta: Points [N, 2].

        Returns:
            Scores [N].
        """
        theta = tf.convert_to_tensor(theta)
        mu, sigma, p = (tf.cast(x, theta.dtype) for x in (self.mu, self.sigma, self.p))
        squared = tf.reduce_sum((theta[:, None] - mu) ** 2, -1)  # [N, K]
        components = tf.exp(-squared / (2 * sigma**2))
        return tf.reduce_sum(2 * math.pi * p * sigma**2 * components, -1)


def published_mixture() -> Mixture:
    """The published score, which depends on the order of these random numbers."""
    random = np.random.RandomState(69319)
    count = random.randint(10, 11)
    mu = random.uniform(-5, 5, (count, 2))
    sigma = random.uniform(1, 1.1, count)
    p = random.uniform(1, 3, count)
    return Mixture(mu, sigma, p / p.sum())


def build(seed: int) -> keras.Model:
    """The generator z -> theta.

    Biases are initialised like kernels; their fan-in is their number of units.

    Args:
        seed: Seed of the initial weights.
    """
    initializer = keras.initializers.VarianceScaling(
        scale=6.0,
        mode="fan_in",
        distribution="truncated_normal",
        seed=keras.random.SeedGenerator(seed),
    )
    dense = functools.partial(
        keras.layers.Dense, kernel_initializer=initializer, bias_initializer=initializer
    )
    hidden = [dense(units, activation="tanh") for units in (30, 10, 10)]
    return keras.Sequential([keras.Input((1,)), *hidden, dense(2)])


def diversity_loss(theta: tf.Tensor) -> tf.Tensor:
    """Minus the entropy of N points on a curve (d = 1), in nats, with all its constants.

    Args:
        theta: Points [N, 2].
    """
    count = tf.cast(tf.shape(theta)[0], theta.dtype)
    # As published, 1e-7 is added under the root; `kozachenko_leonenko_entropy` adds it outside.
    distances = tf.sqrt(nearest_neighbour_distances(theta) ** 2 + 1e-7)
    entropy = tf.math.digamma(count) + tf.reduce_mean(tf.math.log(distances))
    return -(entropy - tf.math.digamma(tf.ones_like(count)) + math.log(2.0))


def loss(config: Config, mixture: Mixture, theta: tf.Tensor) -> tf.Tensor:
    """The training loss, -mean f + 2.2 · L_diversity + 0.05 · mean |theta|².

    Args:
        config: Configuration, whose factors replace 2.2 and 0.05.
        mixture: The score f.
        theta: Points [N, 2].
    """
    return (
        -tf.reduce_mean(mixture.score(theta))
        + config.diversity_weight * diversity_loss(theta)
        + config.norm_weight * tf.reduce_mean(tf.reduce_sum(theta**2, -1))
    )


def train(config: Config, seed: int, mixture: Mixture, bar: tqdm) -> tuple[keras.Model, np.ndarray]:
    """Train one generator; equal seeds give equal generators.

    Args:
        config: Configuration of the run.
        seed: Seed of the initial weights and of every z.
        mixture: The score.
        bar: Progress bar.

    Returns:
        The generator, and the mean loss of every STEPS_PER_CALL steps.
    """
    model = build(seed)
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(
            config.learning_rate, 1, config.learning_rate_decay
        ),
        epsilon=1e-8,
    )
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function
    def advance(first, count):
        total = tf.constant(0.0)
        shape = [config.points_per_step, 1]
        for step in tf.range(first, first + count):
            z = tf.random.stateless_uniform(shape, [seed, step], minval=-1.0, maxval=1.0)
            with tf.GradientTape() as tape:
                value = loss(config, mixture, model(z))
            optimizer.apply(tape.gradient(value, variables), variables)
            total += value
        return total / tf.cast(count, total.dtype)

    losses = []
    for first in range(0, config.steps, STEPS_PER_CALL):
        count = min(STEPS_PER_CALL, config.steps - first)
        losses.append(float(advance(tf.constant(first), tf.constant(count))))
        bar.set_postfix(seed=seed, loss=f"{losses[-1]:.4g}", refresh=False)
        bar.update(count)
    return model, np.array(losses)


def measure(mixture: Mixture, curve: np.ndarray) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Measure a curve.

    Args:
        mixture: The score.
        curve: Points [P, 2] in the order of z.

    Returns:
        The numbers of MEASURES that do not depend on the training; and the arrays "curve" [P, 2],
        "score" [P] and "spacing" [P], the distance to the nearest other point.
    """
    curve = curve.astype(np.float64)
    to_centres = np.linalg.norm(curve[:, None] - mixture.mu, axis=-1)  # [P, K]
    score = mixture.score(curve).numpy()
    spacing = nearest_neighbour_distances(curve).numpy()
    return {
        "components_visited": int((to_centres.min(0) < mixture.sigma).sum()),
        "rank_correlation": float(spearmanr(spacing, score).statistic),
        "score_mean": float(score.mean()),
    }, {"curve": curve, "score": score, "spacing": spacing}


def arrays(
    mixture: Mixture, z: np.ndarray, seeds: list[int], lines: list[dict[str, np.ndarray]]
) -> dict[str, dict[str, Any]]:
    """The arrays of each figure, which its npz holds.

    Args:
        mixture: The score.
        z: Inputs of the generators [P].
        seeds: Seeds of the curves.
        lines: Arrays of each curve, see `measure`.
    """
    curves, score, spacing = (
        np.stack([line[name] for line in lines]) for name in ("curve", "score", "spacing")
    )
    limit = np.ceil(max(6.5, np.abs(curves).max()))  # shows all peaks and curves
    axis = np.linspace(-limit, limit, 201)
    grid = np.stack(np.meshgrid(axis, axis), -1)  # [G, G, 2]
    plane = mixture.score(grid.reshape(-1, 2)).numpy().reshape(grid.shape[:2])
    shared = {"seeds": np.array(seeds)}
    return {
        "curve": shared | {"curves": curves, "mu": mixture.mu, "axis": axis, "plane": plane},
        "score": shared | {"z": z, "score": score},
        "spacing": shared | {"z": z, "spacing": spacing, "score": score},
    }


def run(config: Config, folder: pathlib.Path) -> dict:
    """Train, measure, draw and write the run folder.

    Args:
        config: Configuration of the run.
        folder: Run folder.

    Returns:
        The contents of metrics.json.

    Raises:
        RunError: The folder cannot be used.
    """
    if folders.check(folder, config) == config.steps and (folder / "report.html").exists():
        metrics = folders.read_metrics(folder)
        if not isinstance(metrics.get("mean"), dict):
            raise folders.damaged(folder / "metrics.json")
        print(f"complete: {folder / 'report.html'}")
        return metrics
    with folders.occupy(folder, config):
        tf.config.experimental.enable_op_determinism()  # reruns are bit-identical
        mixture = published_mixture()
        z = np.linspace(-1, 1, config.points)
        seeds = [int(seed) for seed in config.seeds.split(",")]
        rows, lines = [], []
        total = config.steps * len(seeds)
        with progress_bar(total=total, desc="training", unit="step") as bar:
            for seed in seeds:
                start = time.monotonic()
                model, losses = train(config, seed, mixture, bar)
                seconds = round(time.monotonic() - start, 1)
                values, line = measure(mixture, model(z[:, None].astype("float32")).numpy())
                lines.append(line)
                training = {"loss": losses[-1], "steps": config.steps, "seconds": seconds}
                rows.append({"seed": seed, **values, **training})
        metrics = {
            "experiment": "toy",
            "method": "hypernetwork",
            "config": dataclasses.asdict(config),
            "steps": config.steps,
            "components": len(mixture.mu),
            "measures": MEASURES,
            "seeds": rows,
            "mean": {name: float(np.mean([row[name] for row in rows])) for name in MEASURES},
        }
        for name, numbers in arrays(mixture, z, seeds, lines).items():
            folders.write_figure(folder, name, toy_figures.FIGURES[name](**numbers), numbers)
        page = toy_figures.page(metrics, folder / "figures")
        folders.write_text(folder / "report.html", page)
        # Written last: it marks the run as complete.
        folders.write_json(folder / "metrics.json", metrics)
    return metrics


def main() -> None:
    """Run `python -m reproduce.toy`."""
    shared_flags.accept_only(SHARED_FLAGS, "the toy problem")
    values = command.FLAGS
    seeds = ",".join(str(int(seed)) for seed in values.seeds)
    config = Config(seeds=seeds, steps=values.steps or Config.steps)
    folder = pathlib.Path(values.run_dir or folders.default_folder("toy", config))
    mean = run(config, folder)["mean"]
    print(
        f"mean of seeds {seeds}: {mean['components_visited']:.3g} components visited, "
        f"rank correlation of spacing and score {mean['rank_correlation']:.2f}, "
        f"score {mean['score_mean']:.3f}\nreport: {folder / 'report.html'}"
    )


if __name__ == "__main__":
    command.FLAGS["steps"].help = "Training steps of each seed. Default: 60,000."
    command.run(main)
