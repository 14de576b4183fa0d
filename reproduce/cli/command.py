"""The frame in which a command runs: extensions, flags, and errors in one line."""

from __future__ import annotations

import errno
import os
import pathlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

import tensorflow as tf
from absl import app, flags, logging

from hypernet_tf.data import DataError
from hypernet_tf.ensembles.ensemble import NotFiniteError
from hypernet_tf.training.callbacks import TrainingDivergedError
from hypernet_tf.training.checkpoints import CheckpointError
from hypernet_tf.training.devices import DeviceError, WorkerLostError, cluster
from reproduce.cli import help as command_help
from reproduce.configs.extensions import ExtensionError, load_extensions
from reproduce.configs.methods import diversity_help, methods_help
from reproduce.configs.targets import datasets_help, targets_help
from reproduce.runs.command import DIVERGED, end_together
from reproduce.runs.folder import RunError, UsageError

if TYPE_CHECKING:
    from reproduce.studies.study import Study

FLAGS = flags.FLAGS

USER_ERRORS = (
    ExtensionError,
    DataError,
    RunError,
    CheckpointError,
    DeviceError,
    TrainingDivergedError,
    NotFiniteError,
    WorkerLostError,
)


_DISK_ERRORS = (
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS),
    *(errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG),
)
STOPPED = "stopped; what is finished is kept: run the same command again to go on"


def _fail(message: str, code: int) -> NoReturn:
    print(f"reproduce.{pathlib.Path(sys.argv[0]).stem}: {message}", file=sys.stderr)
    sys.exit(code)


def parse(arguments: list[str]) -> list[str]:
    """Load the extensions that the command line names, then parse its flags.

    Args:
        arguments: The command line, the name of the program first.

    Returns:
        The name of the program and the arguments that are not flags.
    """
    try:
        load_extensions(arguments)
        for name, help_of in (
            ("method", methods_help),
            ("diversity", diversity_help),
            ("target", targets_help),
            ("dataset", datasets_help),
        ):
            if name in FLAGS:
                FLAGS[name].help = help_of()
        if "analyses" in FLAGS:
            from reproduce.cli import analysis_flags  # its flags are defined where it is imported

            analysis_flags.define_flags()
        if command_help.is_asked(arguments):
            print(command_help.help_text())
            sys.exit(0)
        rest = FLAGS(arguments)
        for name in ("run_dir", "data_dir", "match", "output"):
            if name in FLAGS and isinstance(value := FLAGS[name].value, str):
                FLAGS[name].value = os.path.expanduser(value)
        if "run_dir" in FLAGS and FLAGS["run_dir"].present and not FLAGS.run_dir:
            _fail("--run_dir is empty: name a folder, or leave it out", 2)
        return rest
    except ExtensionError as error:
        _fail(str(error), 2)
    except flags.Error as error:
        reason = " ".join(str(error).split()).replace(" ?", "?")
        stop = "" if reason.endswith(("?", ".")) else "."
        _fail(f"{reason}{stop} See --help for all flags.", 2)


def parse_flags_only(arguments: list[str]) -> list[str]:
    """Parse a command line that has flags and nothing else."""
    rest = parse(arguments)
    if len(rest) > 1:
        _fail(f"unexpected argument '{rest[1]}': flags are written --name=value", 2)
    return rest


def _guarded(main: Callable[[list[str]], None], parser: Callable[[list[str]], list[str]]) -> None:
    def guarded(arguments):
        try:
            main(arguments[1:])
        except USER_ERRORS as error:
            codes = {
                UsageError: 2,
                TrainingDivergedError: DIVERGED,
                NotFiniteError: DIVERGED,  # of networks that no validation drew
            }
            _fail(str(error), codes.get(type(error), 1))
        except KeyboardInterrupt as stop:
            _fail(str(stop) or STOPPED, 130)
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            _fail(f"cannot use {error.filename or 'a file'}: {error.strerror}", 1)
        except (MemoryError, tf.errors.ResourceExhaustedError) as error:
            if any(os.strerror(code) in str(error) for code in _DISK_ERRORS):
                _fail(f"cannot write a file: {' '.join(str(error).split())}", 1)
            names = ("num_networks", "networks_per_step", "images_per_network")
            known = {flag.name for flag in FLAGS.get_key_flags_for_module(sys.argv[0])}
            smaller = " or ".join(f"--{name}" for name in names if name in known)
            _fail("not enough memory" + (f": choose a smaller {smaller}" if smaller else ""), 1)
        except tf.errors.OpError as error:  # of TensorBoard's files, which TensorFlow writes
            if not any(os.strerror(code) in error.message for code in _DISK_ERRORS):
                raise
            _fail(f"cannot write a file: {' '.join(error.message.split())}", 1)

    # TensorFlow reports its devices and strategies at the level of information.
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("WARNING")
    # Each sampler of a command has functions of its own with the same code, which TensorFlow takes
    # for one function that is traced again and again.
    tf.get_logger().addFilter(lambda record: "tf.function retracing" not in record.getMessage())
    app.run(guarded, flags_parser=parser)


def run(main: Callable[[], None]) -> None:
    """Parse the command line and run a command; a user's error is one line and an exit code."""
    _guarded(lambda _: main(), parse_flags_only)


def run_with_arguments(main: Callable[[list[str]], None]) -> None:
    """The same for a command that takes arguments beside its flags."""
    _guarded(main, parse)


def run_study(study: Study) -> None:
    """Execute a study and print its table.

    Args:
        study: The study.
    """
    if cluster():
        raise UsageError("a study runs on one machine: unset TF_CONFIG, or run its runs one by one")
    end_together()
    folder = pathlib.Path(FLAGS.run_dir) if FLAGS.run_dir else study.default_folder()
    study.execute(folder, FLAGS.data_dir)
    print((folder / "table.md").read_text(encoding="utf-8").rstrip())
    print(f"report: {folder / 'report.html'}")
