"""The MNIST experiments: networks whose 20,018 weights are generated, and everything asked of them.

Trains the hypernetwork of Deutsch, Nijkamp, Yang (2019), or another system that makes weights,
samples an ensemble, evaluates it on the test images and writes a run folder with figures (and the
numbers behind each), metrics.json and report.html.

  python -m reproduce.mnist --lam=1e3                          the paper's run, 13,000 steps
  python -m reproduce.mnist --lam=1e3 --analyses=all           the same with all its figures
  python -m reproduce.mnist --preset=quick                     a few minutes on two cores
  python -m reproduce.mnist --dataset=fashion_mnist --steps=4000
  python -m reproduce.mnist --method=mnf                       another system
  python -m reproduce.mnist --method=noise --match=runs/mnist  noise as far apart as that run
  python -m reproduce.mnist --run_dir=runs/mnist --analyses=paths,adversarial
                                                               a finished run: without training

The same command again goes on where the run stopped; a higher --steps continues a finished one.
`python -m reproduce.report RUN...` sets runs side by side, `python -m reproduce.compare` trains
several methods at the same cost. TensorBoard shows them: tensorboard --logdir runs
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import resource
import shutil
import time
from collections.abc import Sequence

import keras
import tensorflow as tf
from absl import flags

import hypernet_tf as hn
from hypernet_tf import plots
from hypernet_tf.training.devices import Execution
from hypernet_tf.training.run import train
from reproduce import (
    _analysis_flags,
    _device_flags,
    _flags,
    _history,
    _run_page,
    _perform,
    _run,
)
from reproduce._analyses import ANALYSES
from reproduce._match import ensemble_to_match, finished_sampler, match
from reproduce._methods import METHODS, PRESETS, build
from reproduce._summary import seconds_to_sample, summarise
from reproduce._subject import Settings, Subject
from reproduce._uncertainty import outside_names

for _module in (_flags, _analysis_flags, _device_flags):
    flags.adopt_module_key_flags(_module)
flags.DEFINE_enum(
    "method",
    "hypernetwork",
    list(METHODS),
    "Who makes the weights. "
    + "; ".join(f"{name}: {what}" for name, what in METHODS.items())
    + ".",
)
flags.DEFINE_string(
    "match",
    None,
    "For --method=noise: the folder of a finished run. The noise is made as strong as it takes for "
    "networks to be as far from their nearest neighbours as that run's.",
)
# The figures of a run that asks for no analyses.
BASIC = ("accuracies", "filters")


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. Defaults are the published values of the hypernetwork.

    Attributes:
        networks: of the evaluated ensemble.
        match: the run whose distances a noise control has, as a path from the control's own run
            folder; "" for other methods.
    """

    dataset: str = "mnist"
    method: str = "hypernetwork"
    lam: float = 1e3
    steps: int = 13_000
    seed: int = 0
    networks: int = 200
    preset: str = "paper"
    networks_per_step: int = 32
    images_per_network: int = 32
    learning_rate: float = 3e-4
    learning_rate_decay: float = 0.99998
    validate_every: int = 1_000
    checkpoint_every: int = 250
    match: str = ""
    precision: str = "float32"

    @property
    def passes_per_step(self) -> int:
        """Images that go through a target network, forth and back, in a training step."""
        return self.networks_per_step * self.images_per_network


def config_from_flags() -> Config:
    """The configuration that the flags ask for; says on stdout which data set `auto` became.

    Raises:
        UsageError: a flag that has no part in the method.
    """
    values = _flags.FLAGS
    brought = defaults(values.method, values.preset)
    parts = {
        "lam": values.method == "hypernetwork",
        "match": values.method == "noise",
        "networks": brought.networks > 1,
    }
    for name, has_part in parts.items():
        if values[name].present and not has_part:
            raise _run.UsageError(f"--{name} has no part in --method={values.method}: drop it")
    if parts["match"] and not values.match:
        raise _run.UsageError(
            "--method=noise needs --match, the folder of a finished run to be as far apart as"
        )
    dataset, notice = hn.data.resolve(values.dataset, values.data_dir)
    if notice:
        print(notice)
    given = {n: values[n].value for n in ("steps", "networks", "match", "precision")}
    if parts["lam"]:
        given["lam"] = values.lam
    return dataclasses.replace(
        brought,
        dataset=dataset,
        seed=values.seed,
        **{k: v for k, v in given.items() if v is not None},
    )


def defaults(method: str, preset: str) -> Config:
    """A method's and preset's configuration."""
    return dataclasses.replace(Config(), method=method, preset=preset, **PRESETS[method, preset])


def default_folder(config: Config) -> pathlib.Path:
    """Named after method and preset, not after the numbers that these bring along."""
    brought = defaults(config.method, config.preset)
    plain = dataclasses.replace(brought, method=Config.method, preset=Config.preset)
    named = dataclasses.replace(config, match=pathlib.Path(config.match).name)  # no slashes
    return _run.default_folder("mnist", named, plain)


def run(
    config: Config,
    folder: pathlib.Path,
    data_dir: str | None = None,
    *,
    analyses: Sequence[str] = (),
    settings: Settings | None = None,
    execution: Execution | None = None,
) -> dict:
    """Train, evaluate, analyse, and write the run folder; what is done already is not done again.

    Args:
        config: the run's.
        folder: the run folder.
        data_dir: see `hypernet_tf.data.load`.
        analyses: names, or "all".
        settings: how much of everything the analyses take.
        execution: on what, and how, training steps are run.

    Returns:
        What metrics.json holds; nothing in a worker that is not the chief, which only trains along.

    Raises:
        DataError, RunError, CheckpointError, DeviceError, TrainingDivergedError, WorkerLostError:
            each with its one line.
    """
    execution = execution or Execution()
    if not execution.chief:
        _prepare(config)
        _trained(config, hn.data.load(config.dataset, data_dir), folder, execution)
        return {}
    finished = _run.check(folder, config) == config.steps
    metrics = _run.read_metrics(folder) if finished else {}
    if finished and not {"networks", "ensemble", "seconds", "diversity"} <= metrics.keys():
        raise _run.damaged(folder / "metrics.json")
    page = folder / "report.html"
    if finished and not analyses and page.exists():
        print(f"complete: {page}")
        return metrics
    # What cannot be had is said before anything is trained.
    size = build(config, data_size=1).size_after(config.steps)  # which no data has a part in
    names = _perform.possible(analyses, size)
    dataset = hn.data.load(config.dataset, data_dir)
    matched = ensemble_to_match(folder, config) if config.match and not finished else None
    settings = settings or Settings(networks=config.networks)
    if not {"accuracies", "ensembles"} & set(names):
        settings = dataclasses.replace(settings, ensembles=1)
    settings = settings.resolved(size, len(dataset.test))
    if "out_of_distribution" in names:
        outside_names(settings.outside, dataset.name)
    with _run.occupy(folder, config):
        _prepare(config)
        if finished:
            subject = Subject(finished_sampler(folder, config), dataset, settings, data_dir)
        else:
            sampler, record = _trained(config, dataset, folder, execution)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if matched is not None:
                match(sampler, matched, folder)
            # What is there from fewer steps is not this run's.
            for old in (folder / "metrics.json", page):
                old.unlink(missing_ok=True)
            shutil.rmtree(folder / "figures", ignore_errors=True)
            subject = Subject(sampler, dataset, settings, data_dir)
            start = time.monotonic()
            metrics = summarise(config, dataset, subject, record["history"][-1]["validation"])
            metrics["seconds"] = {
                "train": round(record["seconds"], 1),
                "evaluate": round(time.monotonic() - start, 1),
                "sample": seconds_to_sample(sampler, settings.networks),
            }
            metrics["peak_memory_mib"] = round(peak)
            _run.write_figure(
                folder,
                "training_curves",
                plots.training_curves(_history.panels(record["history"])),
                _history.arrays(record["history"]),
            )
        done = metrics.setdefault("analyses", {})
        asked = [n for n in ANALYSES if n in names or (n in BASIC and n not in done)]
        _perform.perform(asked, subject, folder, metrics)
        lam = f", lam {config.lam:g}" if config.method == "hypernetwork" else ""
        title = f"{config.method} on {dataset.name}{lam}"
        text = _run_page.page(title, [_run_page.Run(folder.name, folder, metrics)])
        _run.write(page, lambda aside: aside.write_text(text))  # last: the run is complete
    return metrics


def _prepare(config: Config) -> None:
    """Initial weights come from Keras's global seed, and reruns are the same to the last bit."""
    keras.utils.set_random_seed(config.seed)
    keras.config.set_dtype_policy(config.precision)
    tf.config.experimental.enable_op_determinism()


def _trained(
    config: Config, dataset: hn.data.Dataset, folder: pathlib.Path, execution: Execution
) -> tuple[hn.WeightSampler, dict]:
    return train(
        lambda: build(config, len(dataset.train)),
        dataset,
        folder,
        steps=config.steps,
        images=config.images_per_network,
        networks=config.networks,
        validate_every=config.validate_every,
        checkpoint_every=config.checkpoint_every,
        seed=config.seed,
        execution=execution,
        hparams=dataclasses.asdict(config),
    )


def main() -> None:
    """What `python -m reproduce.mnist` does."""
    values = _flags.FLAGS
    analyses = _analysis_flags.asked()
    training = ("dataset", "method", "match", "lam", "steps", "seed", "preset", "precision")
    trains = not (analyses and values.run_dir and not any(values[n].present for n in training))
    if trains:
        config = config_from_flags()
        folder = pathlib.Path(values.run_dir) if values.run_dir else default_folder(config)
        if config.match:
            config = dataclasses.replace(config, match=os.path.relpath(config.match, folder))
    else:
        folder = pathlib.Path(values.run_dir)
        config, _ = _run.finished(folder, Config)
        _device_flags.refuse("the analysis of a finished run")
    settings = _analysis_flags.settings(config.networks, trains=trains)
    execution = _device_flags.execution()
    metrics = run(
        config, folder, values.data_dir, analyses=analyses, settings=settings, execution=execution
    )
    if not metrics:
        print("this worker has trained along; the chief reports")
        return
    networks, ensemble = metrics["networks"], metrics["ensemble"]
    print(
        f"{networks['count']} networks: mean {networks['accuracy_mean']:.2%}; "
        f"majority vote {ensemble['majority_vote_accuracy']:.2%}, "
        f"mean probability {ensemble['mean_probability_accuracy']:.2%}, most confident "
        f"{ensemble['most_confident_accuracy']:.2%}\nreport: {folder / 'report.html'}"
    )


if __name__ == "__main__":
    _flags.run(main)
