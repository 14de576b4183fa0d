"""LeNet and ResNet-32 on small colour images: weights of deeper networks, generated.

Trains the hypernetwork of Deutsch, Nijkamp, Yang (2019) for LeNet (62,006 weights) or ResNet-32
(465,290), or another system that makes weights, and writes a run folder as `reproduce.mnist` does.

  python -m reproduce.cifar --dataset=cifar10 --target=lenet --lam=1e3
  python -m reproduce.cifar --dataset=cifar100 --target=resnet32 --diversity=none
  python -m reproduce.cifar --dataset=fashion_mnist            grey images, padded to 32 x 32 x 3
  python -m reproduce.cifar --dataset=mnist_5k --preset=quick  minutes on two cores
  python -m reproduce.cifar --method=sgd_chains --target=resnet32

A rate that decays falls to 1 % over the run's steps, so such a run can't be continued with more.
Without a network, `--data_dir` may hold the original archive of the data set. Every column of the
paper's Table 1 in one command: `python -m reproduce.table1`.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from absl import flags

import hypernet_tf as hn
from reproduce.cli import experiment_flags as _experiment_flags
from reproduce.cli import flags as _flags
from reproduce.configs.targets import TARGETS
from reproduce.runs.experiment import Config

for _module in (_experiment_flags, *_experiment_flags.FLAG_MODULES):
    flags.adopt_module_key_flags(_module)
_DEEP = [name for name in TARGETS if name != "mnist"]
flags.DEFINE_enum(
    "target",
    "lenet",
    _DEEP,
    "The network whose weights are made. resnet32 has shortcuts without weights, resnet32_b has "
    "convolutions.",
)

DATASETS = hn.data.NAMES + hn.data.COLOUR_NAMES

# The paper's learning rates and numbers of steps are not in our copy: all of this is our choice,
# with N and B of the paper's MNIST experiments for the hypernetwork.
_COMMON: dict[str, Any] = {"num_networks": 10, "validate_every": 1_000, "checkpoint_every": 250}
_ORDINARY = _COMMON | {
    "lam": 1.0,
    "images_per_network": 100,
    "learning_rate": 0.05,
    "learning_rate_decay": 1.0,
}
_MANY = _ORDINARY | {"networks_per_step": 10}
_ONE = _ORDINARY | {"networks_per_step": 1}
_MOMENTUM = {"momentum": 0.9}
METHODS: dict[str, dict[str, Any]] = {  # their part of a configuration
    # At 1e-4 LeNet learns faster at first, and after 1,300 steps its loss may run away.
    "hypernetwork": _COMMON | {"learning_rate": 3e-5},
    "mnf": _ONE | {"learning_rate": 1e-3},
    "deep_ensemble": _MANY | _MOMENTUM,
    "sgd": _ONE | _MOMENTUM | {"num_networks": 1},
    "sgd_chains": _MANY,
    "sgd_snapshots": _ONE,
    "sgld": _MANY,
    "noise": _ONE | _MOMENTUM,
}
# preset -> steps of the hypernetwork, and of the others.
STEPS = {"paper": (40_000, 20_000), "quick": (3_000, 5_000)}
# N and B of a step for ResNet-32: the memory of 256 images.
_RESNET = {"networks_per_step": 8, "images_per_network": 32}


def defaults(method: str, preset: str, steps: int | None = None, target: str = "lenet") -> Config:
    """A method's and preset's configuration for a target.

    Args:
        method: one of `reproduce.configs.methods.METHODS`.
        preset: "paper" or "quick".
        steps: if not the preset's. A decaying rate falls to 1 % over them, and snapshots are
            taken at every twentieth of them.
        target: one of `TARGETS`.
    """
    brought = METHODS[method]
    steps = steps or STEPS[preset][method != "hypernetwork"]
    if method == "hypernetwork" and target != "lenet":
        brought = brought | _RESNET
    if "momentum" in brought:
        brought = brought | {"learning_rate_decay": 0.01 ** (1 / steps)}
    if method in ("sgd_snapshots", "sgld"):
        brought = brought | {"snapshot_every": max(steps // 20, 1)}
    return Config(target=target, method=method, preset=preset, steps=steps, **brought)


def configured(
    method: str, preset: str, target: str, dataset: str, steps: int | None = None
) -> Config:
    """The same on a data set; colour images are augmented."""
    config = defaults(method, preset, steps, target)
    return dataclasses.replace(config, dataset=dataset, augment=dataset in hn.data.COLOUR_NAMES)


def _defaults_from_flags(method: str, preset: str, steps: int | None) -> Config:
    values = _flags.FLAGS
    brought = configured(method, preset, values.target, values.dataset, steps)
    return dataclasses.replace(brought, dataset=Config.dataset)


EXPERIMENT = _experiment_flags.Experiment("cifar", _defaults_from_flags, ("target",), DATASETS)


def use_its_defaults() -> None:
    """Change what a shared flag is when it is not given, in this process; before it is parsed."""
    _flags.FLAGS.set_default("dataset", "cifar10")


def main() -> None:
    """What `python -m reproduce.cifar` does."""
    _experiment_flags.main(EXPERIMENT)


if __name__ == "__main__":
    use_its_defaults()
    _flags.run(main)
