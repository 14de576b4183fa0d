"""Flags that several commands share."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

from absl import flags

from hypernet_tf.data import DataError, Selection, names_for, resolve
from reproduce.configs.run_config import PRESETS
from reproduce.configs.targets import datasets_help
from reproduce.runs.folder import UsageError

FLAGS = flags.FLAGS
SMALLEST, LARGEST = 1.2e-38, 3e38  # of float32

flags.DEFINE_float(
    "lam",
    None,
    "Balance of accuracy and diversity: the loss is lam * accuracy loss - entropy. A larger lam "
    "usually makes the networks more accurate, and more alike. Default: the preset's, or that of "
    "the diversity.",
)
flags.DEFINE_string(
    "dataset",
    "auto",
    datasets_help(),
)
flags.DEFINE_string(
    "data_dir",
    None,
    "Folder with original files of data sets, each in a folder named after it, or with data sets "
    "that TensorFlow Datasets has prepared; it prepares them here or, where this cannot be "
    "written, in its own folder, which is also the default.",
)
flags.DEFINE_string(
    "run_dir",
    None,
    "The run folder: checkpoints, TensorBoard files, figures, metrics.json, report.html. The same "
    "command again continues where it stopped. Default: runs/<experiment>-<what differs from the "
    "defaults>.",
)
flags.DEFINE_integer(
    "steps",
    None,
    "Training steps; a finished run is continued by raising it, unless its learning rate falls "
    "over its steps. Default: the preset's.",
)
flags.DEFINE_integer("seed", 0, "Seed of weights, latent vectors and the order of the data.")
flags.DEFINE_integer(
    "num_networks", None, "How many networks the evaluated ensemble has. Default: the preset's."
)
flags.DEFINE_enum(
    "preset",
    "paper",
    [*PRESETS],
    "paper: the publication's settings, or our choice where it gives none. fast: settings for "
    "short trainings (MNIST in 1.5 minutes), for the methods that have them. quick: a short run "
    "and a small evaluation, a few minutes on two cores with small networks.",
)
flags.DEFINE_list(
    "extension",
    [],
    "Modules or files, separated by commas, that register methods, targets, data sets, analyses, "
    "measures or diversity terms; see docs/guides/your_method.md.",
)
flags.register_validator(
    "lam",
    lambda value: value is None or SMALLEST <= value < LARGEST,
    f"lam is a number from {SMALLEST:g} to {LARGEST:g}",
)


@flags.validator("dataset")
def _is_known(value: str) -> bool:
    try:
        selection = Selection.parse(value)
    except DataError as error:
        raise flags.ValidationError(str(error)) from error
    if not selection.option.trains:
        raise flags.ValidationError(
            f"{selection.name} has no training images: choose {', '.join(names_for())}"
        )
    if len(selection.classes) == 1:
        raise flags.ValidationError(f"a network needs at least 2 classes: {value} is one")
    return True


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


def dataset(image_shape: tuple[int, int, int]) -> str:
    """The shortest name of the data set that is asked for; says on stdout what `auto` became.

    Args:
        image_shape: Shape of the images that the networks take; smaller ones are padded.

    Raises:
        UsageError: Another one was given.
        DataError: The folder of data sets cannot be read.
    """
    names = names_for(image_shape)
    if Selection.parse(FLAGS.dataset).name not in names:
        raise UsageError(f"{FLAGS.dataset} does not fit the network: choose {', '.join(names)}")
    name, notice = resolve(FLAGS.dataset, FLAGS.data_dir)
    if notice:
        print(notice)
    return name


def accept_only(names: Sequence[str], where: str, *, others: Sequence[ModuleType] = ()) -> None:
    """Raise an error for shared flags that mean nothing in a command.

    Args:
        names: Names of the shared flags that it uses.
        where: What the command does, for the error.
        others: Modules whose flags mean nothing there either.

    Raises:
        UsageError: Another flag was given.
    """
    defined = FLAGS.flags_by_module_dict()
    for module in (__name__, *(other.__name__ for other in others)):
        for flag in defined[module]:
            if flag.present and flag.name not in names:
                raise UsageError(f"{where} has no --{flag.name}. See --help for all flags.")
