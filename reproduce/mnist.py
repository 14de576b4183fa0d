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

import pathlib
from typing import Any

from absl import flags

from reproduce.cli import experiment_flags as _experiment_flags
from reproduce.cli import flags as _flags
from reproduce.runs.experiment import Config, run

__all__ = ["PRESETS", "Config", "config_from_flags", "default_folder", "defaults", "run"]

for _module in (_experiment_flags, *_experiment_flags.FLAG_MODULES):
    flags.adopt_module_key_flags(_module)

# Of methods without a balance of accuracy and diversity.
_PLAIN = {"lam": 1.0, "learning_rate": 1e-3}
_QUICK = {"validate_every": 200, "checkpoint_every": 100}

# (method, preset) -> what differs from the defaults of `Config`, which are the hypernetwork's.
PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    ("hypernetwork", "paper"): {},
    ("hypernetwork", "quick"): _QUICK | {"steps": 600, "num_networks": 50, "learning_rate": 1e-3},
    # 100 epochs of 550 batches of 100 images, a network for each, at a constant rate.
    ("mnf", "paper"): _PLAIN
    | {
        "steps": 55_000,
        "networks_per_step": 1,
        "images_per_network": 100,
        "learning_rate_decay": 1.0,
        "validate_every": 5_500,
        "checkpoint_every": 1_000,
    },
    # Ensemble and chains are not in the paper's MNIST experiments: their numbers are our choice.
    ("deep_ensemble", "paper"): _PLAIN
    | {
        "steps": 10_000,
        "num_networks": 10,
        "networks_per_step": 10,
        "images_per_network": 100,
        "learning_rate_decay": 0.9999,
    },
    # How long the single network was trained is not published: 10,000 steps, after which its
    # learning rate has fallen to 37 %, are our choice.
    ("sgd", "paper"): _PLAIN
    | {
        "steps": 10_000,
        "num_networks": 1,
        "networks_per_step": 1,
        "images_per_network": 256,
        "learning_rate_decay": 0.9999,
    },
    ("sgd_chains", "paper"): _PLAIN
    | {
        "steps": 20_000,
        "num_networks": 10,
        "networks_per_step": 10,
        "learning_rate": 0.1,
        "learning_rate_decay": 1.0,
    },
}
PRESETS["noise", "paper"] = PRESETS["sgd", "paper"] | {"num_networks": 200}
PRESETS["sgd_snapshots", "paper"] = PRESETS["sgd_chains", "paper"] | {
    "networks_per_step": 1,
    "snapshot_every": 1_000,
}
# Of Langevin dynamics the rate is that of the mean loss: their own is this over |data|.
PRESETS["sgld", "paper"] = PRESETS["sgd_chains", "paper"] | {"num_networks": 100}
for _method, _steps, _networks in (
    ("mnf", 6_000, 50),
    ("deep_ensemble", 600, 10),
    ("sgd", 600, 1),
    ("sgd_chains", 1_800, 10),
    ("sgd_snapshots", 1_800, 10),
    ("sgld", 1_800, 50),
    ("noise", 600, 50),
):
    PRESETS[_method, "quick"] = (
        PRESETS[_method, "paper"] | _QUICK | {"steps": _steps, "num_networks": _networks}
    )
PRESETS["mnf", "quick"] |= {"validate_every": 2_000, "checkpoint_every": 500}
PRESETS["noise", "quick"] |= {"validate_every": 2_000, "checkpoint_every": 500}
PRESETS["sgd", "quick"] |= {"checkpoint_every": 200}
PRESETS["sgd_snapshots", "quick"] |= {"snapshot_every": 100}
for _method in ("sgd_chains", "sgd_snapshots", "sgld"):
    PRESETS[_method, "quick"] |= {"validate_every": 600, "checkpoint_every": 300}


def defaults(method: str, preset: str, steps: int | None = None) -> Config:
    """A method's and preset's configuration; `steps`, if not the preset's."""
    brought = PRESETS[method, preset] | ({"steps": steps} if steps else {})
    return Config(method=method, preset=preset, **brought)


EXPERIMENT = _experiment_flags.Experiment("mnist", defaults)


def config_from_flags() -> Config:
    """The configuration that the flags ask for; see `_experiment_flags.config_from_flags`."""
    return _experiment_flags.config_from_flags(EXPERIMENT)


def default_folder(config: Config) -> pathlib.Path:
    """Where a run is kept that does not say where."""
    return _experiment_flags.default_folder(EXPERIMENT, config)


def main() -> None:
    """What `python -m reproduce.mnist` does."""
    _experiment_flags.main(EXPERIMENT)


if __name__ == "__main__":
    _flags.run(main)
