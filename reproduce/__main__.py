"""`python -m reproduce` lists every command: what it makes, and how long it takes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple


class Command(NamedTuple):
    """A command of this package.

    Attributes:
        name: Name of the module: `python -m reproduce.<name>`.
        makes: What it makes.
        duration: How long it takes on two CPU cores.
    """

    name: str
    makes: str
    duration: str


COMMANDS = (
    Command(
        "mnist",
        "trains one sampler for the MNIST target; figures, metrics.json, report.html",
        "40 minutes for the hypernetwork, hours for some methods; 2 minutes with --preset=quick",
    ),
    Command(
        "cifar",
        "the same for LeNet and ResNet-32 on colour images",
        "hours; 10 minutes with --preset=quick --dataset=mnist_5k",
    ),
    Command(
        "toy",
        "the toy problem on the plane: a curve through the peaks of a score",
        "1 minute",
    ),
    Command(
        "regression",
        "one-dimensional regression: what each method says beyond its data",
        "4 minutes",
    ),
    Command(
        "compare",
        "several methods at the same cost of training: one table, one figure",
        "1 to 4 minutes for each training with --preset=quick --dataset=mnist_5k",
    ),
    Command(
        "sweep",
        "accuracy against diversity: many lams, searched by Keras Tuner",
        "2 minutes for each lam with --preset=quick --dataset=mnist_5k",
    ),
    Command(
        "hypergan",
        "HyperGAN without its discriminator, and without its mixer: what each is for",
        "three runs of mnist --method=hypergan for each seed",
    ),
    Command(
        "classification",
        "HyperGAN's table: ensembles of 1, 5, 10 and 100 networks, five methods",
        "5 minutes with --preset=quick",
    ),
    Command(
        "table1",
        "Table 1 of the paper: every column for LeNet or ResNet-32",
        "2 to 3 hours with --preset=quick",
    ),
    Command(
        "distillation",
        "one network in place of a finished run's ensemble",
        "10 minutes",
    ),
    Command("report", "finished runs side by side on one page", "seconds"),
)


def main(arguments: Sequence[str] = ()) -> None:
    """Print the list of commands.

    Args:
        arguments: Arguments of the command line; there must be none but `--help`.
    """
    if arguments and arguments[0] not in ("--help", "-h"):
        names = [command.name for command in COMMANDS]
        name = arguments[0] if arguments[0] in names else "<command>"
        message = f"unexpected argument '{arguments[0]}': run python -m reproduce.{name}"
        others = "" if arguments[0] in names else f", one of {', '.join(names)}"
        print(f"reproduce: {message}{others}", file=sys.stderr)
        sys.exit(2)
    print("python -m reproduce.<command> --help describes a command. On two CPU cores they take:\n")
    for command in COMMANDS:
        print(f"  {command.name:<13} {command.makes}\n  {'':<13} {command.duration}")


if __name__ == "__main__":
    main(sys.argv[1:])
