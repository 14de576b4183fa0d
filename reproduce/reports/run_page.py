"""The page of a run, or of several runs side by side, with the published numbers."""

from __future__ import annotations

import collections
import contextlib
import json
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import hypernet_tf as hn
from hypernet_tf.metrics import MEASURES, Measure
from hypernet_tf.metrics.measures import main_measures
from reproduce.analyses import ANALYSES
from reproduce.analyses.base import Analysis, Row
from reproduce.configs import published
from reproduce.reports import page as pages
from reproduce.reports.tables import html_table
from reproduce.runs.folder import RunError

GROUPS = ("run", "networks", "ensemble", "diversity", "seconds")
"""Groups of measures that metrics.json holds, in the order of the table."""
_PUBLISHED = (
    "Published numbers are those of the hypernetwork on MNIST. They are comparable only if the "
    "method is hypernetwork, the target and the data set are mnist, and the preset is paper."
)
_LEARNING = "Accuracy on the validation images, by the images that went through target networks."
_SMALLER = ("ensembles_num_ensembles", "paths_num_images", "adversarial_num_images")
_SMALLER_NUMBERS = (
    "Some analyses take fewer ensembles or images than published: what two cores do in minutes, or "
    "all that the sampler and the data set have. --ensembles, --path_images and "
    "--adversarial_images raise them up to that."
)


class Run(NamedTuple):
    """A finished run.

    Attributes:
        label: Name of the run on the page.
        folder: Run folder.
        metrics: Contents of metrics.json.
    """

    label: str
    folder: pathlib.Path
    metrics: dict[str, Any]


def page(title: str, runs: list[Run], learning: pathlib.Path | None = None) -> str:
    """The HTML of the page.

    Args:
        title: Heading of the page.
        runs: One run, or several to set side by side.
        learning: Path of a png file with the accuracies of all runs against their cost, or None.

    Raises:
        RunError: metrics.json of a run is damaged.
    """
    single = len(runs) == 1
    columns, sentences, configs = [], [], {}
    for run in runs:
        path = run.folder / "metrics.json"
        columns.append(rows(run.metrics, path))
        with _damaged(path):
            sentences.append(("" if single else f"{run.label}: ") + _sentence(run.metrics))
            configs[run.label] = run.metrics["config"]
    smaller = any(
        row.value is not None and row.value < published.MNIST[row.measure.key]
        for column in columns
        for row in column
        if row.measure.key in _SMALLER
    )
    mnist = all(run.metrics["experiment"] == "mnist" for run in runs)
    headings = ["measured"] if single else [run.label for run in runs]
    published_numbers = published.MNIST if mnist else {}

    def table(keys: Collection[str] | None) -> str:
        chosen = [[row for row in column if _is_shown(row, keys)] for column in columns]
        return _table(headings, chosen, published_numbers) if any(chosen) else ""

    sections = [
        pages.Section(
            analysis.name,
            f"{analysis.title[:1].upper()}{analysis.title[1:]}.",
            analysis.reading,
            table(highlights(analysis, [run.metrics for run in runs])),
            _figures(runs, analysis),
        )
        for analysis in ANALYSES.values()
        if any(analysis.name in run.metrics["analyses"] for run in runs)
    ]
    if curves := _files(list(runs), "training_curves", labelled=not single):
        figure = {"Along training": curves}
        sections.insert(0, pages.Section("training", "Loss and accuracy by step.", "", "", figure))
    if learning:
        figure = {"Along the training": {"": learning}}
        sections.insert(0, pages.Section("learning", _LEARNING, "", "", figure))
    return pages.report(
        title,
        [
            *sentences,
            *([_PUBLISHED] if mnist else []),
            *([_SMALLER_NUMBERS] if mnist and smaller else []),
        ],
        table([*main_measures(), "train_seconds"]),
        sections,
        table(None),
        json.dumps(next(iter(configs.values())) if single else configs, indent=2),
    )


def _is_shown(row: Row, keys: Collection[str] | None) -> bool:
    return keys is None or row.measure.key in keys


def highlights(analysis: Analysis, metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of the few rows that stand for an analysis: its own choice, or the first.

    Args:
        analysis: The analysis.
        metrics: Contents of metrics.json of runs.
    """
    if analysis.highlights:
        return list(analysis.highlights)
    numbers = [run["analyses"].get(analysis.name) for run in metrics]
    keys = [row.measure.key for one in numbers if one for row in analysis.rows(one)]
    return list(dict.fromkeys(keys))[: analysis.num_highlights]


def rows(
    metrics: Mapping[str, Any], path: pathlib.Path = pathlib.Path("metrics.json")
) -> list[Row]:
    """Every number of a run that the page shows; None of a measure newer than the run.

    Args:
        metrics: Contents of metrics.json.
        path: The file, for errors.

    Raises:
        RunError: A number is missing, or the analysis of a number is unknown.
    """
    with _damaged(path):
        result = [
            Row(measure, metrics[group].get(key) if measure.compute else metrics[group][key])
            for group in GROUPS
            for key, measure in MEASURES.items()
            if measure.group == group and measure.task == "classification"
        ]
        analyses = metrics["analyses"]
        for name in analyses:
            if name not in ANALYSES:
                raise RunError(
                    f"{path} holds an analysis '{name}', and the analyses are "
                    f"{', '.join(ANALYSES)}: name its module with --extension"
                )
        for name, analysis in ANALYSES.items():
            if name in analyses:
                seconds = Measure(
                    f"{name}_seconds",
                    f"analysis {name}",
                    "analysis",
                    unit="s",
                    better="lower",
                    format="{:,.1f}",
                )
                result += analysis.rows(analyses[name])
                result.append(Row(seconds, analyses[name]["seconds"]))
    counts = collections.Counter(row.measure.key for row in result)
    repeated = [key for key, number in counts.items() if number > 1]
    if repeated:
        raise ValueError(f"Several rows have the key '{repeated[0]}': rename all except one.")
    return result


def _table(
    headings: list[str],
    columns: list[list[Row]],
    published_numbers: Mapping[str, float | None],
) -> str:
    """The table of the numbers of all runs; a cell without a number is left empty."""
    # By heading, too: it names settings, such as the size of an attack, that may differ.
    measures = {
        (row.measure.key, row.measure.heading): row.measure for column in columns for row in column
    }
    values = [
        {(row.measure.key, row.measure.heading): row.value for row in column} for column in columns
    ]
    if any(published_numbers.get(key) is not None for key, _ in measures):
        headings = [*headings, "published"]
        values.append({name: published_numbers.get(name[0]) for name in measures})
    lines = [
        [
            measure.heading,
            *(measure.text(one.get(key)) for one in values),
        ]
        for key, measure in measures.items()
    ]
    return html_table(["", *headings], lines)


def _figures(runs: list[Run], analysis: Analysis) -> dict[str, dict[str, pathlib.Path]]:
    """The figures of an analysis: caption -> label of a run -> png file."""
    drawn = {
        run.label: run.metrics["analyses"].get(analysis.name, {}).get("figures", ()) for run in runs
    }
    names = dict.fromkeys(name for run in runs for name in drawn[run.label])
    figures: dict[str, dict[str, pathlib.Path]] = {}
    for name in names:
        # Only those of a run's own numbers: others may be left from before.
        some = [run for run in runs if name in drawn[run.label]]
        if files := _files(some, name, labelled=len(runs) > 1):
            figures[analysis.caption(name)] = files
    return figures


def _files(runs: list[Run], figure_name: str, *, labelled: bool) -> dict[str, pathlib.Path]:
    """Label of a run -> png file of a figure, where there is one; a single run has no label."""
    paths = {
        run.label if labelled else "": run.folder / "figures" / f"{figure_name}.png" for run in runs
    }
    return {label: path for label, path in paths.items() if path.exists()}


def _sentence(metrics: Mapping[str, Any]) -> str:
    """What a run is."""
    data, count = metrics["dataset"], metrics["networks"]["num_networks"]
    config = metrics["config"]
    ablation, diversity = config.get("ablation", "nothing"), config.get("diversity", "weights")
    kind = metrics["method"]
    kind += f" without {ablation}" if ablation != "nothing" else ""
    kind += f" (diversity: {diversity})" if diversity != "weights" else ""
    return (
        f"{count} network{'' if count == 1 else 's'} of {kind} after "
        f"{metrics['steps']:,} training steps, evaluated on {data['test']:,} test images of "
        f"{hn.data.title(data['name'])} ({data['source']}; trained on {data['train']:,}, "
        f"validated on {data['validation']:,})."
    )


@contextlib.contextmanager
def _damaged(path: pathlib.Path) -> Iterator[None]:
    """Raise a `RunError` that names the file where a value is missing or has another type."""
    try:
        yield
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} is damaged: it lacks {error}. Delete it and run the same command again."
        ) from error
