"""Runs side by side: one page with every number and figure, and the published numbers beside them.

  python -m reproduce.report runs/mnist "runs/mnist-lam=100000" --output=runs/lam.html

The runs are folders of finished `reproduce.mnist` runs, of any method and data set.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import flags

from reproduce import mnist
from reproduce.cli import flags as _flags
from reproduce.reports import run_page as _run_page
from reproduce.runs import folder as _run

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
        raise _run.UsageError("name the folders of the runs to set side by side")
    runs = []
    for label, folder in zip(_labels(folders), folders, strict=True):
        metrics = _run.read_metrics(folder)
        if metrics.get("experiment") != "mnist":
            raise _run.RunError(f"{folder} is not a run of reproduce.mnist")
        _run.finished(folder, mnist.Config)
        runs.append(_run_page.Run(label, folder, metrics))
    try:
        text = _run_page.page("Runs side by side", runs)
    except (KeyError, TypeError) as error:
        names = " or ".join(str(folder / "metrics.json") for folder in folders)
        raise _run.RunError(f"{names} is damaged: it lacks {error}") from error
    _run.write(output, lambda aside: aside.write_text(text))


def _labels(folders: Sequence[pathlib.Path]) -> list[str]:
    """The folders' names, or their whole paths where two have the same name."""
    names = [folder.resolve().name for folder in folders]
    whole = [str(folder) for folder in folders]
    if len(set(whole)) < len(whole):
        raise _run.UsageError("the same run is named twice")
    return whole if len(set(names)) < len(names) else names


def main(arguments: Sequence[str]) -> None:
    """What `python -m reproduce.report` does."""
    _flags.accept_only((), "a report")
    output = pathlib.Path(_flags.FLAGS.output)
    if not output.name or output.is_dir():
        raise _run.UsageError("--output names the page to write, a file")
    write([pathlib.Path(name) for name in arguments], output)
    print(f"report: {output}")


if __name__ == "__main__":
    _flags.run_with_arguments(main)
