"""Runs side by side: one page with every number and figure, and the published numbers beside them.

  python -m reproduce.report runs/mnist "runs/mnist-lam=100000" --output=runs/lam.html

The runs are folders of finished `reproduce.mnist` or `reproduce.cifar` runs, of any method and data
set. The published numbers are those of MNIST: a page with runs of `reproduce.cifar` has none. The
learning curves of several runs, except noise controls, are in figures/ beside the page:
runs/figures/lam-learning.png of runs/lam.html.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import flags

from reproduce.cli import command  # isort: skip  (first: it keeps TensorFlow quiet)

from reproduce.cli import shared_flags
from reproduce.configs import EXPERIMENTS, METHODS
from reproduce.reports import history, run_page
from reproduce.runs import folder as folders
from reproduce.runs.folder import RunError, UsageError
from reproduce.runs.match import finished_run

flags.declare_key_flag("extension")
flags.DEFINE_string("output", "runs/report.html", "The page to write.")


def write(run_folders: Sequence[pathlib.Path], output: pathlib.Path) -> None:
    """Write the page.

    Args:
        run_folders: Folders of finished runs.
        output: Path of the page.

    Raises:
        RunError: A folder holds no finished run, or one of another experiment; or the page cannot
            be written.
    """
    if not run_folders:
        raise UsageError("name the folders of the runs to show side by side")
    runs, costs = [], {}
    for label, folder in zip(_labels(run_folders), run_folders, strict=True):
        metrics = folders.read_metrics(folder)
        if metrics.get("experiment") not in EXPERIMENTS:
            names = " or ".join(f"reproduce.{name}" for name in EXPERIMENTS)
            raise RunError(f"{folder} is not a run of {names}: name such a run")
        config = finished_run(folder)
        runs.append(run_page.Run(label, folder, metrics))
        # A noise control is validated before it has its noise: its curves are those of one network.
        if not config.match or METHODS[config.method].learns_match:
            costs[label] = folder, config.passes_per_step
    title = "Runs side by side"
    page = run_page.page(title, runs)  # an error, before anything is written
    if len(costs) > 1:
        curves = {label: history.against_cost(*cost) for label, cost in costs.items()}
        single = [run.label for run in runs if run.metrics["networks"]["num_networks"] == 1]
        drawing = history.learning_curves(curves, single)
        name = f"{output.stem}-{drawing.name}"
        folders.write_figure(output.parent, name, drawing.figure, drawing.arrays)
        page = run_page.page(title, runs, output.parent / "figures" / f"{name}.png")
    folders.write_text(output, page)


def _labels(run_folders: Sequence[pathlib.Path]) -> list[str]:
    """The names of the folders, or their whole paths where two have the same name."""
    names = [folder.resolve().name for folder in run_folders]
    paths = [str(folder) for folder in run_folders]
    if len(set(paths)) < len(paths):
        raise UsageError("a run is named twice: name each once")
    return paths if len(set(names)) < len(names) else names


def main(arguments: Sequence[str]) -> None:
    """Run `python -m reproduce.report`."""
    shared_flags.accept_only(("extension",), "a report")
    output = pathlib.Path(command.FLAGS.output)
    if not output.name or output.is_dir():
        raise UsageError("--output names the page to write: give a file, not a folder")
    write([pathlib.Path(name) for name in arguments], output)
    print(f"report: {output}")


if __name__ == "__main__":
    command.run_with_arguments(main)
