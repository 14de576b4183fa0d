"""Flags that experiments share, and the frame in which an experiment runs."""

from __future__ import annotations

import math
import pathlib
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import NoReturn

import tensorflow as tf
from absl import app, flags, logging

from hypernet_tf.data import COLOUR_NAMES, NAMES, DataError, resolve
from hypernet_tf.training.callbacks import TrainingDivergedError
from hypernet_tf.training.checkpoints import CheckpointError
from hypernet_tf.training.devices import DeviceError, WorkerLostError
from reproduce.runs.folder import RunError, UsageError

FLAGS = flags.FLAGS

flags.DEFINE_float(
    "lam",
    1e3,
    "Balance of accuracy and diversity: the loss is lam * accuracy loss - entropy. More lam makes "
    "the networks more accurate and more alike.",
)
flags.DEFINE_string(
    "dataset",
    "auto",
    f"One of {', '.join(NAMES)}; for networks that take colour images also "
    f"{', '.join(COLOUR_NAMES)}. auto is full mnist where it is prepared or can be downloaded, "
    "else mnist_5k, 5,000 real digits that need no network.",
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Where data sets are prepared or placed; default: TensorFlow Datasets' own folder.",
)
flags.DEFINE_string(
    "run_dir",
    None,
    "The run folder: checkpoints, TensorBoard files, figures, metrics.json, report.html. The same "
    "command again goes on where it stopped. Default: runs/<experiment>-<what differs from the "
    "defaults>.",
)
flags.DEFINE_integer(
    "steps",
    None,
    "Training steps; a finished run is continued by raising it. Default: the preset's.",
)
flags.DEFINE_integer("seed", 0, "Seed of weights, latent vectors and the order of the data.")
flags.DEFINE_integer(
    "num_networks", None, "How many networks the evaluated ensemble has. Default: the preset's."
)
flags.DEFINE_enum(
    "preset",
    "paper",
    ["paper", "quick"],
    "paper: the publication's numbers, and ours where it has none. quick: a short run, with small "
    "networks a few minutes on two cores.",
)
flags.register_validator(
    "lam", lambda value: math.isfinite(value) and value > 0, "lam is a finite number above 0"
)
flags.register_validator(
    "dataset",
    lambda value: value in NAMES + COLOUR_NAMES,
    f"the data sets are {', '.join(NAMES + COLOUR_NAMES)}",
)
flags.register_validator(
    "steps", lambda value: value is None or value > 0, "at least 1 training step is needed"
)
flags.register_validator(
    "num_networks",
    lambda value: value is None or value > 1,
    "an ensemble needs at least 2 networks: entropy and votes compare them",
)
flags.register_validator(
    "seed", lambda value: 0 <= value < 2**31, "the seed is between 0 and 2147483647"
)

USER_ERRORS = (
    DataError,
    RunError,
    CheckpointError,
    DeviceError,
    TrainingDivergedError,
    WorkerLostError,
)


def _name() -> str:
    return f"reproduce.{pathlib.Path(sys.argv[0]).stem}"


def _fail(message: str, code: int) -> NoReturn:
    print(f"{_name()}: {message}", file=sys.stderr)
    sys.exit(code)


def _parse(arguments: list[str]) -> list[str]:
    try:
        return FLAGS(arguments)
    except flags.Error as error:
        _fail(f"{' '.join(str(error).split())} (--help tells more)", 2)


def _parse_flags_only(arguments: list[str]) -> list[str]:
    rest = _parse(arguments)
    if len(rest) > 1:
        _fail(f"unexpected argument '{rest[1]}': flags are written --name=value", 2)
    return rest


def _guarded(main: Callable[[list[str]], None], parser: Callable[[list[str]], list[str]]) -> None:
    def guarded(arguments):
        try:
            main(arguments[1:])
        except USER_ERRORS as error:
            _fail(str(error), 2 if isinstance(error, UsageError) else 1)
        except KeyboardInterrupt:
            _fail("stopped; run the same command again", 130)

    # TensorFlow tells of its devices and strategies at the level of information.
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("WARNING")
    # Each of a command's samplers has functions of its own, of the same code: TensorFlow takes
    # that for one function that is traced again and again.
    tf.get_logger().addFilter(lambda record: "tf.function retracing" not in record.getMessage())
    app.run(guarded, flags_parser=parser)


def run(main: Callable[[], None]) -> None:
    """Parse the command line and run an experiment; a user's error is one line and an exit code."""
    _guarded(lambda _: main(), _parse_flags_only)


def run_with_arguments(main: Callable[[list[str]], None]) -> None:
    """The same for a command that takes arguments beside its flags."""
    _guarded(main, _parse)


def dataset(names: Sequence[str]) -> str:
    """The data set that is asked for; says on stdout which one `auto` became.

    Args:
        names: those that the experiment takes.

    Raises:
        UsageError: another one was given.
        DataError: the folder of data sets cannot be read.
    """
    if FLAGS.dataset not in names:
        raise UsageError(f"{FLAGS.dataset} does not fit the network: choose {', '.join(names)}")
    name, notice = resolve(FLAGS.dataset, FLAGS.data_dir)
    if notice:
        print(notice)
    return name


def accept_only(names: Sequence[str], where: str, *, others: Sequence[ModuleType] = ()) -> None:
    """Refuse shared flags that mean nothing in an experiment.

    Args:
        names: those that do.
        where: what the experiment is called.
        others: modules with flags that mean nothing there either.

    Raises:
        UsageError: another one was given.
    """
    defined = FLAGS.flags_by_module_dict()
    for module in (__name__, *(other.__name__ for other in others)):
        for flag in defined[module]:
            if flag.present and flag.name not in names:
                raise UsageError(f"{where} has no --{flag.name} (--help tells more)")
