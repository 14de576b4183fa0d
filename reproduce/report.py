"""Runs side by side: one page with every number and figure, and the published numbers beside them.

  python -m reproduce.report runs/mnist "runs/mnist-lam=100000" --output=runs/lam.html

The runs are folders of finished `reproduce.mnist` runs, of any method and data set.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import flags

from reproduce import _flags, _mnist_report, _perform, _run

flags.DEFINE_string("output", "runs/report.html", "The page to write.")


def write(folders: Sequence[pathlib.Path], output: pathlib.Path) -> None:
    """Write the page.

    Args:
        folders: of finished runs.
        output: the page.

    Raises:
        RunError: a folder holds no finished run, or one of another experiment; the page cannot be
            written.
    """
    if not folders:
        raise _run.RunError("name the folders of the runs to set side by side")
    labels = _labels(folders)
    runs = []
    for label, folder in zip(labels, folders, strict=True):
        metrics = _perform.read_metrics(folder)
        if metrics.get("experiment") != "mnist":
            raise _run.RunError(f"{folder} is not a run of reproduce.mnist")
        runs.append(_mnist_report.Run(label, folder, metrics))
    text = _mnist_report.page("Runs side by side", runs)
    try:
        _run.write(output, lambda aside: aside.write_text(text))
    except OSError as error:
        raise _run.RunError(f"{output} cannot be written: {error.strerror}") from error


def _labels(folders: Sequence[pathlib.Path]) -> list[str]:
    """The folders' names, or their whole paths where two have the same name."""
    names = [folder.resolve().name for folder in folders]
    whole = [str(folder) for folder in folders]
    if len(set(whole)) < len(whole):
        raise _run.RunError("the same run is named twice")
    return whole if len(set(names)) < len(names) else names


def main(arguments: Sequence[str]) -> None:
    """What `python -m reproduce.report` does."""
    output = pathlib.Path(_flags.FLAGS.output)
    write([pathlib.Path(name) for name in arguments], output)
    print(f"report: {output}")


if __name__ == "__main__":
    _flags.run_with_arguments(main)
