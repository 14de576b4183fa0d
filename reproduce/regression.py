"""One-dimensional regression: what each method says at its data, and beyond them.

Every method learns y = x³ from 20 noisy points on [-4, 4] with the target of HyperGAN's paper
(Ratzlaff and Fuxin 2019), and predicts on [-6, 6]. The reference is a long run of Hamiltonian Monte
Carlo, by TensorFlow Probability, on the posterior of the weights.

  python -m reproduce.regression                   all methods, in about four minutes
  python -m reproduce.regression --methods=mnf,sgld --seed=1

The reference and each method are kept in the run folder, so a repeated or widened command computes
only what is missing. A higher --steps trains each method again from its first step.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

import keras
import numpy as np
import tensorflow as tf
from absl import flags
from tqdm import tqdm

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.metrics import Measure
from hypernet_tf.training.callbacks import HaltOnNaN, TrainingDivergedError
from hypernet_tf.training.devices import Execution
from hypernet_tf.training.loop import loop
from hypernet_tf.training.progress import progress_bar
from reproduce.cli import methods_flag, shared_flags
from reproduce.configs.regression import METHODS, Config
from reproduce.reports import regression_page
from reproduce.reports.tables import html_table, markdown_table
from reproduce.runs import folder as folders

flags.adopt_module_key_flags(methods_flag)
# Of the shared flags only these mean something here.
SHARED_FLAGS = ("run_dir", "steps", "seed", "extension")
for _flag in SHARED_FLAGS:
    flags.declare_key_flag(_flag)

# Networks see the training points within [-1, 1] on both axes.
X_SCALE, Y_SCALE = 4.0, 64.0
# The grid is symmetric and leaves out 0, where every network without biases is 0.
GRID = np.linspace(-6, 6, 120)
INSIDE = np.abs(GRID) <= X_SCALE
REFERENCE = "Hamiltonian Monte Carlo"
LIMIT = 250.0  # of the figures' vertical axis: the true curve ends at 216
STEPS_PER_CALL = 100  # steps between two updates of the progress bar
DRAWS_PER_CALL = 50  # the same for the reference


def negative_log_likelihood(noise_std: float) -> Callable[[Any, Any], tf.Tensor]:
    """The loss of a value y under N(f, noise_std²), in nats.

    Args:
        noise_std: Standard deviation of the noise, in the units of y.

    Returns:
        Function (y [M, 1], f [M, 1]) -> losses [M].
    """

    def loss(y_true: Any, y_pred: Any) -> tf.Tensor:
        error = (tf.cast(y_true, y_pred.dtype) - y_pred) / noise_std
        constant = math.log(noise_std) + 0.5 * math.log(2 * math.pi)
        return tf.reduce_mean(0.5 * error**2, -1) + constant

    return loss


def batches(
    x: np.ndarray, y: np.ndarray, *, networks: int, points: int, seed: int
) -> tf.data.Dataset:
    """Endless batches, in which each network sees points of its own, drawn without replacement.

    Args:
        x: Inputs of the training points [M, 1].
        y: Values of the training points [M, 1].
        networks: N, number of networks of a step; 1 if all see the same points.
        points: B, number of points of each.
        seed: Seed of the draws.

    Returns:
        A data set of x [N·B, 1] and y [N·B, 1].
    """

    def batch(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        keys = tf.random.stateless_uniform([networks, len(x)], [seed, step])
        index = tf.reshape(tf.argsort(keys)[:, :points], [-1])
        return tf.gather(x, index), tf.gather(y, index)

    return tf.data.Dataset.counter().map(batch)


class _Progress(keras.callbacks.Callback):
    """Moves a bar that several trainings share."""

    def __init__(self, bar: tqdm, name: str):
        super().__init__()
        self.bar, self.name, self.step = bar, name, 0

    def on_train_batch_end(self, batch, logs=None):
        self.bar.set_postfix(method=self.name, loss=f"{logs['loss']:.4g}", refresh=False)
        self.bar.update(batch - self.step)
        self.step = batch


def train(
    name: str, config: Config, x: np.ndarray, y: np.ndarray, bar: tqdm
) -> dict[str, np.ndarray]:
    """Train a method and run its networks.

    Args:
        name: Name of the method.
        config: Configuration of the run.
        x: Inputs of the training points [M, 1].
        y: Values of the training points [M, 1].
        bar: Progress bar.

    Returns:
        "outputs", the predictions [N, G] of its networks on the grid; "steps" and "seconds".
    """
    method = METHODS[name]
    keras.utils.set_random_seed(config.seed)
    start = time.monotonic()
    sampler = method.build(hn.Target(hn.zoo.regression()), config)
    loss = negative_log_likelihood(config.noise_std / Y_SCALE)
    sampler.compile(optimizer=method.optimizer(config.steps), loss=loss)
    x, y = x / X_SCALE, y / Y_SCALE
    sampler.initialize(x)
    loop(
        sampler,
        batches(
            x,
            y,
            networks=1 if sampler.shared_inputs else sampler.num_networks,
            points=min(method.points or len(x), len(x)),
            seed=config.seed,
        ),
        y[:1],
        [HaltOnNaN(), _Progress(bar, name)],
        steps=config.steps,
        stops=(config.steps,),
        execution=Execution(steps_per_execution=STEPS_PER_CALL),
    )
    count = sampler.at_most(config.many)
    ensemble = sampler.sample(count, seed=config.seed)
    return {
        "outputs": _curves(ensemble),
        "steps": np.array(config.steps),
        "seconds": np.array(time.monotonic() - start),
    }


def _curves(ensemble: hn.Ensemble) -> np.ndarray:
    """Predictions [N, G] on the grid."""
    inputs = (GRID / X_SCALE)[:, None].astype(np.float32)
    return Y_SCALE * ensemble.outputs(inputs)[..., 0].astype(np.float64)


# ---- the reference --------------------------------------------------------------------------


def log_posterior(
    target: hn.Target, x: np.ndarray, y: np.ndarray, *, noise_std: float, prior_std: float
) -> Callable[[tf.Tensor], tf.Tensor]:
    """The log posterior density of weights, without its constant.

        log p(theta | data) = - sum_i (y_i - f(x_i))² / 2 noise_std² - |theta|² / 2 prior_std²

    Args:
        target: The target f.
        x: Inputs of the training points [M, 1].
        y: Values of the training points [M, 1].
        noise_std: Standard deviation of the noise, in the units of y.
        prior_std: Standard deviation of the prior.

    Returns:
        Function of theta [C, D] -> [C].
    """

    def density(theta: tf.Tensor) -> tf.Tensor:
        outputs, _ = target.run(target.unflatten(theta), tf.constant(x))  # [C, M, 1]
        errors = tf.reduce_sum(((y - outputs) / noise_std) ** 2, (1, 2))
        return -0.5 * errors - 0.5 * tf.reduce_sum((theta / prior_std) ** 2, -1)

    return density


def sample_reference(config: Config, x: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Sample the posterior by Hamiltonian Monte Carlo, from draws of the prior.

    The step size is adapted in the first 80 % of the burn-in. Chains are compared by their curves
    and by their log posterior: hidden units can be exchanged, so that weights cannot be compared.

    Args:
        config: Configuration of the run.
        x: Inputs of the training points [M, 1].
        y: Values of the training points [M, 1].

    Returns:
        "mean" and "std" [G] over all draws; "outputs", the predictions [N, G] of as many draws as a
        large ensemble has; "r_hat", the largest one of the curves' values; "r_hat_log_posterior";
        "acceptance", a fraction; "seconds".
    """
    import tensorflow_probability as tfp  # takes seconds to load

    start = time.monotonic()
    target = hn.Target(hn.zoo.regression())
    density = log_posterior(
        target,
        x / X_SCALE,
        y / Y_SCALE,
        noise_std=config.noise_std / Y_SCALE,
        prior_std=config.prior_std,
    )
    kernel = tfp.mcmc.DualAveragingStepSizeAdaptation(
        tfp.mcmc.HamiltonianMonteCarlo(
            density, step_size=0.002, num_leapfrog_steps=config.leapfrog_steps
        ),
        num_adaptation_steps=int(0.8 * config.burn_in),
        target_accept_prob=0.8,
    )

    @tf.function(jit_compile=True, autograph=False)
    def advance(theta: tf.Tensor, results: Any, seed: tf.Tensor) -> Any:
        return tfp.mcmc.sample_chain(
            min(DRAWS_PER_CALL, config.draws),
            theta,
            kernel=kernel,
            previous_kernel_results=results,
            return_final_kernel_results=True,
            seed=seed,
            trace_fn=lambda _, results: (
                results.inner_results.is_accepted,
                results.inner_results.accepted_results.target_log_prob,
            ),
        )

    shape = [config.chains, target.weight_count]
    theta = config.prior_std * tf.random.stateless_normal(shape, [config.seed, -1])
    results = kernel.bootstrap_results(theta)
    per_call = min(DRAWS_PER_CALL, config.draws)
    burn_in, kept = -(-config.burn_in // per_call), -(-config.draws // per_call)
    parts = []
    for number in progress_bar(range(burn_in + kept), desc="reference", unit="call"):
        chain, trace, results = advance(theta, results, tf.constant([config.seed, number]))
        theta = chain[-1]
        if number >= burn_in:
            curves = _curves(
                hn.Ensemble(target, target.unflatten(tf.reshape(chain, [-1, shape[1]])))
            )
            parts.append((curves.reshape(*chain.shape[:2], -1), *(t.numpy() for t in trace)))
    curves, accepted, log_p = (np.concatenate(part) for part in zip(*parts, strict=True))
    r_hat = tfp.mcmc.potential_scale_reduction
    flat = curves.reshape(-1, len(GRID))
    spread = np.linspace(0, len(flat) - 1, min(config.many, len(flat))).astype(int)
    # In random order, so that the first few are of all chains, from beginning to end.
    spread = np.random.default_rng(config.seed).permutation(spread)
    return {
        "mean": flat.mean(0),
        "std": flat.std(0),
        "outputs": flat[spread],
        "r_hat": r_hat(tf.constant(curves), independent_chain_ndims=1).numpy().max(),
        "r_hat_log_posterior": r_hat(tf.constant(log_p), independent_chain_ndims=1).numpy(),
        "acceptance": accepted.mean(),
        "seconds": np.array(time.monotonic() - start),
    }


# ---- measures -------------------------------------------------------------------------------


def _measures(key: str, title: str, **options: Any) -> tuple[Measure, ...]:
    """A number inside of the data and outside of them."""
    return tuple(
        Measure(f"{key}_{where}", f"{title}, {where}", "study", format="{:.2f}", **options)
        for where in ("inside", "outside")
    )


MEASURES = (
    *_measures("negative_log_likelihood", "NLL", unit="nats", better="lower"),
    *_measures("standard_deviation", "standard deviation"),
    *_measures("mean_difference", "difference of the mean", better="lower"),
    *_measures("standard_deviation_difference", "difference of the std", better="lower"),
)


def measure(
    mean: np.ndarray, std: np.ndarray, reference: Mapping[str, np.ndarray], noise_std: float
) -> dict[str, float]:
    """Measure the predictions of an ensemble, inside the data and outside of them.

    The predictive distribution is a normal one with the moments of the networks and the noise,
    N(mean, std² + noise_std²). Its negative log-likelihood is the expectation over y of the true
    curve with its noise, in closed form:

        log(2π v) / 2 + ((mean - x³)² + noise_std²) / 2 v,   v = std² + noise_std²

    Args:
        mean: Mean over networks [G].
        std: Standard deviation over networks [G].
        reference: "mean" and "std" [G] of the reference.
        noise_std: Standard deviation of the noise.

    Returns:
        The numbers of MEASURES by their keys, means over the grid.
    """
    variance = std**2 + noise_std**2
    squared = (mean - GRID**3) ** 2 + noise_std**2
    values = {
        "negative_log_likelihood": 0.5 * np.log(2 * np.pi * variance) + squared / (2 * variance),
        "standard_deviation": std,
        "mean_difference": np.abs(mean - reference["mean"]),
        "standard_deviation_difference": np.abs(std - reference["std"]),
    }
    return {
        f"{key}_{where}": float(value[chosen].mean())
        for key, value in values.items()
        for where, chosen in (("inside", INSIDE), ("outside", ~INSIDE))
    }


# ---- the run folder -------------------------------------------------------------------------


def run(config: Config, methods: Sequence[str], folder: pathlib.Path) -> dict[str, Any]:
    """Compute what is missing, measure, draw and write the run folder.

    Args:
        config: Configuration of the run.
        methods: Names of the methods.
        folder: Run folder.

    Returns:
        The contents of metrics.json.

    Raises:
        RunError: The folder cannot be used, or a file in it is damaged.
        TrainingDivergedError: The loss of a method is not finite.
    """
    if folders.check(folder, config) == config.steps:
        metrics = folders.read_metrics(folder)
        if list(metrics.get("methods", {})) == list(methods) and (folder / "report.html").exists():
            print(f"complete: {folder / 'report.html'}")
            return metrics
    with folders.occupy(folder, config):
        tf.config.experimental.enable_op_determinism()  # reruns are bit-identical
        x, y = hn.data.cubic(config.points, noise_std=config.noise_std, seed=config.seed)
        path = folder / "reference.npz"
        if not path.exists():
            _save(path, sample_reference(config, x, y))
        reference = _load(path)
        missing = [name for name in methods if not _is_trained(folder, name, config)]
        total = len(missing) * config.steps
        with progress_bar(total=total, desc="training", unit="step", disable=not missing) as bar:
            for name in missing:
                try:
                    drawn = train(name, config, x, y, bar)
                except TrainingDivergedError as error:
                    raise TrainingDivergedError(f"{name}: {error}") from error
                _save(_path(folder, name), drawn)
        results = {name: _load(_path(folder, name)) for name in methods}
        return _write(config, folder, (x, y), reference, results)


def _path(folder: pathlib.Path, name: str) -> pathlib.Path:
    return folder / "methods" / f"{name}.npz"


def _is_trained(folder: pathlib.Path, name: str, config: Config) -> bool:
    path = _path(folder, name)
    return path.exists() and int(_load(path)["steps"]) == config.steps


def _save(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    numbers: dict[str, Any] = dict(arrays)
    folders.write(path, lambda aside: np.savez_compressed(aside, **numbers))


def _load(path: pathlib.Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path) as file:
            return dict(file)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged archive raises
        raise folders.damaged(path) from error


class Curves(NamedTuple):
    """Predictions of an ensemble on the grid.

    Attributes:
        mean: Mean over networks [G].
        std: Standard deviation over networks [G], without bias for few of them.
        networks: Predictions of single networks [N, G].
    """

    mean: np.ndarray
    std: np.ndarray
    networks: np.ndarray

    @classmethod
    def of(cls, networks: np.ndarray) -> Curves:
        """The moments of the predictions [N, G] of networks."""
        return cls(networks.mean(0), networks.std(0, ddof=1), networks)


def _write(
    config: Config,
    folder: pathlib.Path,
    points: tuple[np.ndarray, np.ndarray],
    reference: Mapping[str, np.ndarray],
    results: Mapping[str, Mapping[str, np.ndarray]],
) -> dict[str, Any]:
    """Write the figures, the table, the page and metrics.json."""
    titles = {name: METHODS[name].title for name in results}
    ensembles = {REFERENCE: Curves(*(reference[key] for key in ("mean", "std", "outputs")))}
    ensembles |= {titles[name]: Curves.of(result["outputs"]) for name, result in results.items()}
    few = min([config.few, *(len(curves.networks) for curves in ensembles.values())])
    sizes = {
        f"{title}, {count} networks": Curves.of(curves.networks[:count])
        for title, curves in ensembles.items()
        for count in dict.fromkeys((few, len(curves.networks)))
    }
    for name, panels, columns in (("predictions", ensembles, 3), ("few_and_many", sizes, 2)):
        _draw(folder, name, panels, points, columns=columns, lines=few)
    numbers = {
        title: measure(curves.mean, curves.std, reference, config.noise_std)
        for title, curves in ensembles.items()
    }
    header = ["", *(one.heading for one in MEASURES)]
    cells = [
        [title, *(one.text(values[one.key]) for one in MEASURES)]
        for title, values in numbers.items()
    ]
    folders.write_text(folder / "table.md", markdown_table(header, cells) + "\n")
    diagnostics = ("r_hat", "r_hat_log_posterior", "acceptance", "seconds")
    metrics = {
        "experiment": "regression",
        "config": dataclasses.asdict(config),
        "steps": config.steps,
        "reference": {key: float(reference[key]) for key in diagnostics} | numbers[REFERENCE],
        "methods": {
            name: {
                "num_networks": len(result["outputs"]),
                "seconds": round(float(result["seconds"]), 1),
                **numbers[titles[name]],
            }
            for name, result in results.items()
        },
    }
    text = regression_page.page(metrics, html_table(header, cells), folder / "figures")
    folders.write_text(folder / "report.html", text)
    # Written last: it marks the run as complete.
    folders.write_json(folder / "metrics.json", metrics)
    return metrics


def _draw(
    folder: pathlib.Path,
    name: str,
    panels: Mapping[str, Curves],
    points: tuple[np.ndarray, np.ndarray],
    *,
    columns: int,
    lines: int,
) -> None:
    """Write a figure with a panel for each ensemble, which shows a few networks as lines."""
    curves = panels.values()
    x, y = points
    arrays = {
        "names": np.array(list(panels)),
        "grid": GRID,
        "truth": GRID**3,
        "x": x[:, 0],
        "y": y[:, 0],
        "mean": np.stack([one.mean for one in curves]),
        "std": np.stack([one.std for one in curves]),
        "networks": np.stack([one.networks[:lines] for one in curves]),
    }
    figure = plots.predictions(**arrays, columns=columns, limit=LIMIT)
    folders.write_figure(folder, name, figure, arrays)


def from_flags() -> tuple[Config, tuple[str, ...]]:
    """The configuration and the methods that the flags ask for.

    Raises:
        UsageError: No method, an unknown one, one named twice, or a flag that has no effect here.
    """
    values = command.FLAGS
    shared_flags.accept_only(SHARED_FLAGS, "the regression")
    methods = methods_flag.methods(list(METHODS))
    return Config(seed=values.seed, steps=values.steps or Config.steps), methods


def main() -> None:
    """Run `python -m reproduce.regression`."""
    config, methods = from_flags()
    folder = pathlib.Path(command.FLAGS.run_dir or folders.default_folder("regression", config))
    run(config, methods, folder)
    print((folder / "table.md").read_text(encoding="utf-8").rstrip())
    print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    command.FLAGS["steps"].help = f"Training steps of each method. Default: {Config.steps:,}."
    command.FLAGS["seed"].help = "Seed of the training points, of weights and of latent vectors."
    command.run(main)
