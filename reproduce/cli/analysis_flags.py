"""Flags of the analyses, and the settings that they ask for."""

from __future__ import annotations

from absl import flags

from reproduce.analyses import perform as _perform
from reproduce.analyses.analyses import ANALYSES
from reproduce.analyses.subject import Settings
from reproduce.runs.folder import UsageError

FLAGS = flags.FLAGS

flags.DEFINE_list(
    "analyses",
    None,
    f"What else to ask of the networks: {', '.join(ANALYSES)}; or all. What was done before with "
    "the same settings is not done again. With --run_dir and no flag that describes a training, "
    "the finished run in that folder is analysed and nothing is trained.",
)
flags.DEFINE_integer(
    "ensembles",
    None,
    "How many ensembles are compared. Default: 20, or where two cores would need more than about "
    "eight minutes, fewer (at least 2); the report says how many.",
    lower_bound=2,
)
flags.DEFINE_integer(
    "scatter_networks", 3_000, "How many networks the scatter matrices show.", lower_bound=7
)
flags.DEFINE_bool("colour", False, "Whether scatter matrices show the networks' accuracy.")
flags.DEFINE_integer(
    "path_images",
    2_000,
    "On how many of the first test images the accuracy along paths is taken.",
    lower_bound=1,
)
flags.DEFINE_integer(
    "adversarial_images", 1_000, "How many of the first test images are attacked.", lower_bound=1
)
flags.DEFINE_bool("clip", False, "Whether attacked images are clipped to the pixel range.")
flags.DEFINE_list(
    "outside",
    None,
    "Up to 3 data sets that networks are to find strange. Default: of digits fashion_mnist, glyphs "
    "(letters), noise; of fashion_mnist mnist_5k, glyphs, noise; of cifar10 and cifar100 "
    "svhn_cropped, glyphs, noise; of svhn_cropped cifar10, glyphs, noise.",
)

_SETTINGS = (
    "ensembles",
    "scatter_networks",
    "colour",
    "path_images",
    "adversarial_images",
    "clip",
    "outside",
)


def asked() -> list[str]:
    """The analyses that the command line asks for.

    Raises:
        UsageError: one is unknown, or --analyses is empty.
    """
    if FLAGS["analyses"].present and not FLAGS.analyses:
        raise UsageError(f"--analyses is empty: name some of {', '.join(ANALYSES)}, or all")
    names = list(FLAGS.analyses or [])
    _perform.names_of(names)
    return names


def settings(networks: int, *, trains: bool) -> Settings:
    """How much of everything the command line asks for.

    Args:
        num_networks: of an ensemble, where the command line does not say.
        trains: whether --num_networks is of the training too.

    Raises:
        UsageError: a flag that has no part in the analyses asked for.
    """
    used = {field for name in _perform.names_of(asked()) for field in ANALYSES[name].uses}
    for name in _SETTINGS if trains else (*_SETTINGS, "num_networks"):
        if FLAGS[name].present and name not in used:
            raise UsageError(f"--{name} has no part in the analyses asked for: drop it")
    given = {name: FLAGS[name].value for name in _SETTINGS}
    given["outside"] = ",".join(given["outside"] or ())
    return Settings(num_networks=FLAGS.num_networks or networks, **given)
