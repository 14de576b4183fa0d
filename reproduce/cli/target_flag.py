"""The flag of experiments with several targets, and the defaults that they bring."""

from __future__ import annotations

from absl import flags

from reproduce.cli import shared_flags  # noqa: F401  (whose defaults are changed here)
from reproduce.configs import EXPERIMENTS

FLAGS = flags.FLAGS

_TARGETS = EXPERIMENTS["cifar"].targets

flags.DEFINE_enum(
    "target",
    _TARGETS[0],
    list(_TARGETS),
    "The network whose weights are generated. lenet_normalized is lenet behind a normalisation of "
    "the colours; resnet32 has shortcuts without weights, resnet32_b has convolutions.",
)


def use_defaults(experiment: str) -> None:
    """Set the defaults of shared flags in this process to an experiment's, before parsing.

    Args:
        experiment: Name of the experiment.
    """
    FLAGS.set_default("dataset", EXPERIMENTS[experiment].dataset)
