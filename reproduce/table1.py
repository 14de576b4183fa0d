"""Table 1 of the paper: generated networks beside networks trained by SGD, LeNet and ResNet-32.

Trains every column in a process of its own, ten networks each, and prints their mean accuracy and
that of their majority vote: at the end of the training, and the best of it and of all validations,
which is what the paper prints. The best is chosen on the test images themselves: it flatters.

  python -m reproduce.table1                                    CIFAR-10, LeNet
  python -m reproduce.table1 --target=resnet32
  python -m reproduce.table1 --dataset=fashion_mnist --preset=quick
  python -m reproduce.table1 --columns=sgd,hypernetwork-weights

Without --lam it is 1e3, and 1e4 for the entropy of the outputs. The same command again goes on
where it stopped, and trains nothing that is finished.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from absl import flags

from reproduce import cifar
from reproduce.cli import analysis_flags as _analysis_flags
from reproduce.cli import device_flags as _device_flags
from reproduce.cli import experiment_flags as _experiment_flags
from reproduce.cli import flags as _flags
from reproduce.configs import published
from reproduce.configs.methods import LAM
from reproduce.reports import page as _report
from reproduce.runs import child as _child
from reproduce.runs import folder as _run
from reproduce.runs.experiment import Config

# Column -> its method, in what its networks are to differ, and what it is.
COLUMNS = {
    "sgd": ("sgd", "weights", "one network, its rate decaying"),
    "sgd_chains": ("sgd_chains", "weights", "ten independent chains at a constant rate"),
    "sgd_snapshots": ("sgd_snapshots", "weights", "ten snapshots of one such chain"),
    "hypernetwork-none": ("hypernetwork", "none", "no entropy"),
    "hypernetwork-weights": ("hypernetwork", "weights", "entropy of the weights"),
    "hypernetwork-outputs": ("hypernetwork", "outputs", "entropy of the outputs"),
    "deep_ensemble": ("deep_ensemble", "weights", "ten networks, their rates decaying"),
}
# Of the shared flags only these mean something here.
SHARED_FLAGS = ("dataset", "data_dir", "run_dir", "preset", "steps", "seed", "lam")
for _flag in (*SHARED_FLAGS, "target"):
    flags.declare_key_flag(_flag)
flags.DEFINE_list("columns", list(COLUMNS), f"Some of {', '.join(COLUMNS)}.")


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: which columns, on what, for which target."""

    columns: tuple[str, ...]
    dataset: str
    target: str
    preset: str
    seed: int = 0
    lam: float | None = None
    steps: int | None = None

    def config(self, column: str) -> Config:
        """The run of a column."""
        method, diversity, _ = COLUMNS[column]
        brought = cifar.configured(method, self.preset, self.target, self.dataset, self.steps)
        given: dict[str, Any] = {"diversity": diversity, "seed": self.seed}
        if method == "hypernetwork":
            given["lam"] = LAM[diversity] if self.lam is None else self.lam
        return dataclasses.replace(brought, **given)


def from_flags() -> Table:
    """The table that the flags ask for.

    Raises:
        UsageError: unknown columns, or flags that have no part in it.
    """
    values = _flags.FLAGS
    modules = (_experiment_flags, _device_flags, _analysis_flags)
    _flags.accept_only(SHARED_FLAGS, "the table", others=modules)
    for name in values.columns:
        if name not in COLUMNS:
            raise _run.UsageError(f"there is no column '{name}': there are {', '.join(COLUMNS)}")
    if not values.columns:
        raise _run.UsageError("--columns names at least one")
    return Table(
        tuple(name for name in COLUMNS if name in values.columns),
        _flags.dataset(cifar.DATASETS),
        values.target,
        values.preset,
        values.seed,
        None if values["lam"].using_default_value else values.lam,
        values.steps,
    )


def run(table: Table, folder: pathlib.Path, data_dir: str | None = None) -> dict[str, Any]:
    """Train what is not there yet, then write the table.

    Args:
        table: which.
        folder: of the table; each column is a run folder in it.
        data_dir: see `hypernet_tf.data.load`.

    Returns:
        What metrics.json holds.

    Raises:
        RunError: a folder holds another run, or a run failed.
    """
    _run.check_several(folder, "table1", COLUMNS.__contains__)
    for column in table.columns:  # what stands in the way is said before anything is trained
        _run.check(folder / column, table.config(column))
    with _run.locked(folder):
        return _run_columns(table, folder, data_dir)


def _run_columns(table: Table, folder: pathlib.Path, data_dir: str | None) -> dict[str, Any]:
    found, columns = {}, {}
    for place, column in enumerate(table.columns, 1):
        where, config = folder / column, table.config(column)
        complete = _run.check(where, config) == config.steps and (where / "report.html").exists()
        state = "is complete" if complete else f"{config.steps:,} steps"
        print(f"column {place} of {len(table.columns)}: {column}: {state}", flush=True)
        if not complete:
            _child.run("reproduce.cifar", _command(table, config, where, data_dir), column)
        found[column] = _run.read_metrics(where)
        try:
            columns[column] = _numbers(found[column])
        except (KeyError, TypeError) as error:
            raise _run.damaged(where / "metrics.json") from error
    metrics = {"experiment": "table1", **dataclasses.asdict(table), "numbers": columns}
    _run.write_json(folder / "metrics.json", metrics)
    text = text_table(table, columns)
    _run.write(folder / "table.md", lambda aside: aside.write_text(text + "\n"))
    header, rows = _cells(table, columns)
    page = _report.page(
        f"Table 1: {table.target} on {table.dataset}",
        [
            "Accuracies on the test images in percent, of ten networks and of their majority vote: "
            "at the end of the training, and the best of it and of all validations, chosen on the "
            "test images themselves, which is what the paper prints. Published numbers are those "
            "of CIFAR-10; of its column with entropy it is not clear which entropy was meant.",
        ],
        [_report.table(header, rows)],
        {},
        json.dumps({c: m["config"] for c, m in found.items()}, indent=2),
    )
    _run.write(folder / "report.html", lambda aside: aside.write_text(page))
    return metrics


def _command(
    table: Table, config: Config, folder: pathlib.Path, data_dir: str | None
) -> dict[str, Any]:
    hypernetwork = config.method == "hypernetwork"
    return {
        "dataset": table.dataset,
        "target": table.target,
        "method": config.method,
        "diversity": config.diversity if hypernetwork else None,
        "preset": table.preset,
        "steps": config.steps,
        "seed": table.seed,
        "lam": config.lam if hypernetwork else None,
        "run_dir": folder,
        "data_dir": data_dir,
    }


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    several = metrics["networks"]["count"] > 1
    mean = metrics["networks"]["accuracy_mean"]
    vote = metrics["ensemble"]["majority_vote_accuracy"]
    best = metrics["best_on_test"]  # of the validations, whose networks are others than the last
    return {
        "mean": mean,
        "vote": vote if several else None,
        "best_mean": max(mean, best["accuracy_mean"]),
        "best_vote": max(vote, best["majority_vote_accuracy"]) if several else None,
        "negative_log_likelihood": metrics["ensemble"]["negative_log_likelihood"],
        "entropy": metrics["diversity"]["entropy"],
        "disagreement": metrics["diversity"]["disagreement"],
        "image_passes": metrics["image_passes"],
        "seconds": metrics["seconds"]["train"],
    }


_HEADER = (
    "column",
    "mean, last",
    "vote, last",
    "mean, best",
    "vote, best",
    "published mean",
    "published vote",
    "NLL (nats)",
    "disagreement",
    "entropy (nats)",
    "million image passes",
    "seconds",
)


def _cells(table: Table, columns: dict[str, dict]) -> tuple[list[str], list[list[str]]]:
    theirs = published.TABLE_1.get(table.target, {}) if table.dataset == "cifar10" else {}

    def shown(value: float | None, form: str, factor: float = 1.0) -> str:
        return "" if value is None else form.format(factor * value)

    rows = []
    for column, found in columns.items():
        names = ("mean", "vote", "best_mean", "best_vote")
        rows.append(
            [
                f"{column}: {COLUMNS[column][2]}",
                *(shown(found[name], "{:.2f}", 100) for name in names),
                *(shown(value, "{:.2f}") for value in theirs.get(column, (None, None))),
                shown(found["negative_log_likelihood"], "{:.3f}"),
                shown(found["disagreement"], "{:.1f} %", 100),
                shown(found["entropy"], "{:.0f}"),
                shown(found["image_passes"], "{:.2f}", 1e-6),
                shown(found["seconds"], "{:.0f}"),
            ]
        )
    return list(_HEADER), rows


def text_table(table: Table, columns: dict[str, dict]) -> str:
    """The table in Markdown, which a terminal shows as well."""
    header, rows = _cells(table, columns)
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def default_folder(table: Table) -> pathlib.Path:
    """Named after the target, the data set, and what differs from the usual."""
    usual = Table(tuple(COLUMNS), "cifar10", "lenet", "paper")
    return _run.default_folder("table1", dataclasses.replace(table, columns=usual.columns), usual)


def main() -> None:
    """What `python -m reproduce.table1` does."""
    _child.end_together()
    table, values = from_flags(), _flags.FLAGS
    folder = pathlib.Path(values.run_dir) if values.run_dir else default_folder(table)
    metrics = run(table, folder, values.data_dir)
    print(text_table(table, metrics["numbers"]))
    print(f"report: {folder / 'report.html'}")


if __name__ == "__main__":
    cifar.use_its_defaults()
    _flags.run(main)
