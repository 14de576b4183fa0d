"""Flags that say on what, and how, training steps are run."""

from __future__ import annotations

from absl import flags

from hypernet_tf.training.devices import Execution, split_cpu, strategy
from reproduce.runs.folder import UsageError

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "devices",
    "1",
    "On how many devices of this machine training is mirrored, or all: GPUs, or without any, CPUs. "
    "The results are those of one device except for rounding; a run can continue on other "
    "devices. Several machines: the environment variable TF_CONFIG (docs/scaling.md).",
)
flags.DEFINE_integer(
    "logical_cpus",
    1,
    "Split the CPU into so many devices, to try --devices without GPUs; nothing gets faster.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "steps_per_execution",
    1,
    "Training steps in one call of a graph: less time between short steps.",
    lower_bound=1,
)
flags.DEFINE_bool("jit_compile", False, "Compile the training step with XLA; one device only.")
flags.DEFINE_enum(
    "precision",
    "float32",
    ["float32", "mixed_bfloat16", "mixed_float16"],
    "Precision of the layers' computations; variables, gauge, entropy and losses stay in float32.",
)
flags.register_validator(
    "devices",
    lambda value: value == "all" or (value.isascii() and value.isdecimal() and int(value) > 0),
    "a number of devices, at least 1, or all",
)


def execution(jit_compile: bool) -> Execution:
    """The execution that the flags ask for; call it before anything is computed.

    Args:
        jit_compile: Whether XLA compiles steps, which a run's configuration says.

    Raises:
        DeviceError: The machine has no such devices.
    """
    if FLAGS.logical_cpus > 1:
        split_cpu(FLAGS.logical_cpus)
    count = None if FLAGS.devices == "all" else int(FLAGS.devices)
    return Execution(strategy(count), FLAGS.steps_per_execution, jit_compile)


def refuse(where: str) -> None:
    """Raise an error for these flags where nothing is trained.

    Args:
        where: What the command does, for the error.

    Raises:
        UsageError: One was given.
    """
    for flag in FLAGS.flags_by_module_dict()[__name__]:
        if flag.present:
            raise UsageError(f"--{flag.name} is not used by {where}: remove it")
