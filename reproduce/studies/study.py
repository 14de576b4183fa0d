"""`Study`: several runs side by side. It runs what is missing and writes a table, a figure, a page.

A kind of study says which runs there are, and which columns its table has; checking folders,
locking, running, collecting and writing are here.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import json
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hypernet_tf.metrics import Measure
from hypernet_tf.metrics.measures import main_measures
from reproduce.analyses import ANALYSES, Drawing, Limits, Row, perform
from reproduce.configs import METHODS, TARGETS, RunConfig
from reproduce.reports import page as pages
from reproduce.reports import run_page
from reproduce.reports.summary import missing_measures
from reproduce.reports.tables import html_table, markdown_table
from reproduce.runs import folder as folders
from reproduce.runs.command import DivergedError, command_line, run_child
from reproduce.studies import experiment


class StudyRun(NamedTuple):
    """A run of a study.

    Attributes:
        entry: The line of the table that it belongs to; runs that differ in their seed share one.
        folder: Name of its folder, below the folder of the study.
        config: Its configuration.
    """

    entry: str
    folder: str
    config: RunConfig


class RunResult(NamedTuple):
    """A finished run of a study.

    Attributes:
        run: The run.
        metrics: Contents of its metrics.json.
        rows: Its rows by key, those of analyses included.
    """

    run: StudyRun
    metrics: Mapping[str, Any]
    rows: Mapping[str, Row]


class Column(NamedTuple):
    """A number that a study's table shows of each entry.

    Attributes:
        measure: The number's key, title, unit and format.
        read: Function of a run's result -> the number; None reads the run's row of that key.
    """

    measure: Measure
    read: Callable[[RunResult], float | None] | None = None

    def value(self, result: RunResult) -> float | None:
        """The number of a run.

        Raises:
            KeyError: The run has no such number.
        """
        return self.read(result) if self.read else result.rows[self.measure.key].value


class Number(NamedTuple):
    """A number of an entry, over the seeds of its runs.

    Attributes:
        mean: Mean over seeds; None if it is not defined for one of them.
        std: Standard deviation over seeds; None for a single one.
        values: The numbers of all seeds.
    """

    mean: float | None
    std: float | None
    values: list[float | None]

    @classmethod
    def over_seeds(cls, values: list[float | None]) -> Number:
        """Mean and standard deviation of numbers."""
        numbers = [value for value in values if value is not None]
        if len(numbers) < len(values):
            return cls(None, None, values)
        deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
        return cls(float(np.mean(numbers)), deviation, values)

    def text(self, measure: Measure) -> str:
        """Mean ± standard deviation in the measure's format, without the unit."""
        text = measure.text(self.mean)
        if self.mean is not None and self.std:
            text += f" ± {measure.factor * self.std:.2g}"
        return text


class Progress:
    """How long a study takes: the time so far, and an estimate of the rest from image passes."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._done = 0

    def text(self, passes_left: int) -> str:
        """The time so far and the rest, as one phrase.

        Args:
            passes_left: Number of image passes of all runs that are still to do.
        """
        seconds = time.monotonic() - self._start
        text = f"{_duration(seconds)} so far"
        if self._done:
            text += f", about {_duration(seconds * passes_left / self._done)} to go"
        return text

    def add(self, passes: int) -> None:
        """Count a run that was done.

        Args:
            passes: Number of its image passes.
        """
        self._done += passes


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def value_of(key: str, result: RunResult) -> float | None:
    """A number of a run, or None where it has none: it holds too few networks for an analysis.

    Args:
        key: Key of the number's row.
        result: The run.
    """
    return result.rows[key].value if key in result.rows else None


def and_main_measures(columns: Sequence[str | Column]) -> list[str | Column]:
    """Columns, and after them the main measures that are not among them.

    Args:
        columns: Columns that a study names itself.
    """
    named = [one if isinstance(one, str) else one.measure.key for one in columns]
    return [*columns, *(key for key in main_measures() if key not in named)]


Numbers = dict[str, dict[str, Number]]  # key of a column -> entry -> number


@dataclasses.dataclass(frozen=True)
class Study(abc.ABC):
    """Several runs that are trained, analysed and shown together.

    Class attributes:
        command: Name of its command, with which the name of its folder begins.
        noun: What it is called in messages.
        entries_are_columns: Whether the table has a column for each entry and a row for each
            number, rather than the reverse.
        shown_analyses: Names of the analyses whose numbers `columns` has; the main numbers of
            others follow.

    Attributes:
        analyses: Names of the analyses that every run gets whose sampler holds enough networks.
        settings: Name of a setting of these analyses -> value, where it is not the default.
    """

    analyses: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict, kw_only=True)

    command: ClassVar[str]
    noun: ClassVar[str]
    entries_are_columns: ClassVar[bool] = False
    shown_analyses: ClassVar[tuple[str, ...]] = ()

    # ---- what a kind of study says ----------------------------------------------------------

    @abc.abstractmethod
    def runs(self) -> list[StudyRun]:
        """The runs, in the order in which they are done."""

    @abc.abstractmethod
    def columns(self, results: Sequence[RunResult]) -> list[str | Column]:
        """The numbers of the table: keys of the runs' rows, or columns that read something else.

        Args:
            results: The finished runs.
        """

    @abc.abstractmethod
    def fixed_settings(self) -> dict[str, Any]:
        """What must not change while a study goes on in its folder."""

    @abc.abstractmethod
    def default_settings(self) -> dict[str, Any]:
        """The values of `fixed_settings` that the name of its folder leaves out."""

    def default_folder(self) -> pathlib.Path:
        """Its folder without `--run_dir`: named after what must not change and is not a default."""
        settings, defaults = self.fixed_settings(), self.default_settings()
        return pathlib.Path("runs", folders.folder_name(self.command, settings, defaults))

    @abc.abstractmethod
    def title(self) -> str:
        """The heading of the page."""

    @abc.abstractmethod
    def paragraphs(self, metrics: Mapping[str, Any]) -> list[str]:
        """The text of the page.

        Args:
            metrics: Contents of the study's metrics.json.
        """

    def figures(self, numbers: Numbers, metrics: Mapping[str, Any]) -> list[Drawing]:
        """The study's own figures; those of its analyses follow.

        Args:
            numbers: The numbers of the table.
            metrics: Contents of the study's metrics.json.
        """
        return []

    def _columns_of_analyses(self, results: Sequence[RunResult]) -> list[Column]:
        """The few rows that stand for each analysis which the study's own columns leave out."""
        columns = []
        for name in self.analyses:
            if name in self.shown_analyses:
                continue
            for key in run_page.highlights(ANALYSES[name], [one.metrics for one in results]):
                measures = [one.rows[key].measure for one in results if key in one.rows]
                columns += [Column(m, functools.partial(value_of, key)) for m in measures[:1]]
        return columns

    def _figures_of_analyses(self, results: Sequence[RunResult]) -> list[Drawing]:
        """The figures in which analyses show the first run of each entry side by side."""
        first: dict[str, RunResult] = {}
        for result in results:
            first.setdefault(result.run.entry, result)
        drawings: list[Drawing | None] = [
            ANALYSES[name].side_by_side(
                {
                    entry: result.metrics["analyses"][name]
                    for entry, result in first.items()
                    if name in result.metrics["analyses"]
                }
            )
            for name in self.analyses
        ]
        seeds = {result.run.config.seed for result in results}
        note = f"; seed {min(seeds)} alone" if len(seeds) > 1 else ""
        return [one._replace(caption=one.caption + note) for one in drawings if one]

    def summary(
        self,
        results: Sequence[RunResult],
        numbers: Numbers,
        folder: pathlib.Path,
        data_dir: str | None,
    ) -> dict[str, Any]:
        """What metrics.json of the study holds beside the numbers of the table.

        Args:
            results: The finished runs.
            numbers: The numbers of the table.
            folder: Folder of the study.
            data_dir: Folder of data sets, see `hypernet_tf.data.load`.
        """
        return {}

    def published(self, entry: str) -> list[str]:
        """The published cells of an entry, after those of `published_header`."""
        return []

    published_header: ClassVar[tuple[str, ...]] = ()

    # ---- running ----------------------------------------------------------------------------

    def check(self, folder: pathlib.Path) -> None:
        """Check that a folder is free for the study, or holds it; writes nothing.

        Args:
            folder: Folder of the study.

        Raises:
            RunError: The folder, or that of a run, holds something else; or a run would not have
                as many networks as its ensemble takes, or does not fit a setting.
        """
        path = folder / "study.json"
        try:
            if folder.exists() and not folder.is_dir():
                raise folders.RunError(f"the folder {folder} is a file: choose another --run_dir")
            contents = folders.contents(folder) if folder.exists() else set()
            saved = json.loads(path.read_text()) if path.name in contents else None
        except OSError as error:
            raise folders.RunError(f"{folder} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise folders.RunError(f"{path} is damaged: choose another --run_dir") from error
        if "config.json" in contents:
            raise folders.RunError(
                f"{folder} is the folder of a single run: choose another --run_dir"
            )
        if contents and saved is None:
            raise folders.RunError(
                f"{folder} is not empty and no {self.noun}: choose another --run_dir"
            )
        if saved is not None and not isinstance(saved, dict):
            raise folders.RunError(f"{path} is damaged: choose another --run_dir")
        defaults = self.default_settings()  # of studies from before a setting was there
        for name, value in self.record().items():
            had = value if saved is None else saved.get(name, defaults.get(name))
            if had != value:
                raise folders.RunError(
                    f"the {(saved or {}).get('study', 'study')} in {folder} has {name}={had}, "
                    f"not {value}: choose another --run_dir"
                )
        for run in self.runs():
            folders.check(folder / run.folder, run.config)
            available = METHODS[run.config.method].num_available(run.config)
            if available is not None and available < run.config.num_networks:
                raise folders.UsageError(
                    f"after {run.config.image_passes:,} image passes "
                    f"{run.config.method} has {available} networks, and its ensemble takes "
                    f"{run.config.num_networks}: train for more steps"
                )
            self._resolved_settings(run.config, sys.maxsize)

    def record(self) -> dict[str, Any]:
        """The contents of study.json, by which a folder is known as this study's."""
        return {"study": self.noun, **self.fixed_settings()}

    def execute(self, folder: pathlib.Path, data_dir: str | None = None) -> dict[str, Any]:
        """Do the runs that are missing, then write the table, the figure and the page.

        Args:
            folder: Folder of the study, and of its runs.
            data_dir: Folder of data sets, see `hypernet_tf.data.load`.

        Returns:
            The contents of the study's metrics.json.

        Raises:
            DataError: What a setting names is not available.
            RunError: A folder holds something else, or a run failed.
        """
        self.check(folder)
        perform.load(self.analyses, self.settings, data_dir)
        with folders.locked(folder):
            self.check(folder)  # another one may have come and gone
            folders.write_json(folder / "study.json", self.record())
            progress = Progress()
            study = self.prepared(folder, data_dir, progress)
            study.run_missing(folder, data_dir, progress)
            return study.write(folder, data_dir)

    def prepared(self, folder: pathlib.Path, data_dir: str | None, progress: Progress) -> Study:
        """The study with all that must be known before its runs start.

        Args:
            folder: Folder of the study.
            data_dir: Folder of data sets, see `hypernet_tf.data.load`.
            progress: Clock of the study, for what is run here.
        """
        return self

    def run_missing(
        self,
        folder: pathlib.Path,
        data_dir: str | None,
        progress: Progress,
        passes_after: int = 0,
    ) -> None:
        """Do the runs that are not complete, each in a process of its own.

        Args:
            folder: Folder of the study.
            data_dir: Folder of data sets, see `hypernet_tf.data.load`.
            progress: Clock of the study.
            passes_after: Number of image passes of all that is run after these runs.

        Raises:
            RunError: A run failed. Where its training diverged, the others are done before, except
                those that take its networks.
        """
        diverged: list[str] = []
        runs = self.runs()
        left = {
            run.folder: run.config.image_passes for run in runs if not self.is_complete(folder, run)
        }
        # A data set that is missing is an error before anything is trained on the others.
        datasets = {run.config.dataset: run.config for run in runs if run.folder in left}
        for config in datasets.values() if len(datasets) > 1 else ():
            experiment.check_step(config, experiment.load(config, data_dir))
        for number, run in enumerate(runs, 1):
            line = f"run {number} of {len(runs)}: {run.folder}"
            if run.folder not in left:
                print(f"{line}: is complete", flush=True)
                continue
            if (matched := pathlib.PurePath(run.config.match).name) in diverged:
                print(f"{line}: there are no networks of {matched}", flush=True)
                diverged.append(run.folder)
                left.pop(run.folder)
                continue
            print(
                f"{line}: {run.config.steps:,} steps; "
                f"{progress.text(sum(left.values()) + passes_after)}",
                flush=True,
            )
            names = self._analyses(run.config)
            used = {setting.name for setting in perform.settings_of(names)}
            arguments = command_line(
                run.config,
                folder / run.folder,
                data_dir,
                analyses=names,
                settings={name: self.settings[name] for name in used & {*self.settings}},
            )
            try:
                run_child(arguments, run.folder)
            except DivergedError:
                diverged.append(run.folder)
            progress.add(left.pop(run.folder))
        if diverged:
            raise folders.RunError(
                f"training diverged: {', '.join(diverged)}; the same command without these makes "
                "the table of the others"
            )

    def is_complete(self, folder: pathlib.Path, run: StudyRun) -> bool:
        """Whether a run is finished, and analysed with the settings that every run here has."""
        where = folder / run.folder
        if folders.check(where, run.config) != run.config.steps:
            return False
        if not (where / "report.html").exists():
            return False
        metrics = folders.read_metrics(where)
        try:
            num_images = metrics["dataset"]["test"]
            lacks = missing_measures(metrics)
        except (KeyError, TypeError) as error:
            raise folders.damaged(where / "metrics.json") from error
        if lacks:
            return False
        settings = self._resolved_settings(run.config, num_images)
        names = self._analyses(run.config)
        return all(perform.is_current(name, metrics, settings) for name in names)

    def _analyses(self, config: RunConfig) -> list[str]:
        """The analyses for which the sampler of a run holds enough networks."""
        available = METHODS[config.method].num_available(config)
        return [
            name
            for name in self.analyses
            if available is None or ANALYSES[name].min_networks <= available
        ]

    def _resolved_settings(self, config: RunConfig, num_images: int) -> dict[str, Any]:
        """The values of all settings of the analyses of a run with some number of test images."""
        limits = Limits(
            config.num_networks,
            METHODS[config.method].num_available(config),
            num_images,
            TARGETS[config.target].image_shape,
            config.dataset,
        )
        return perform.resolved_settings(self._analyses(config), self.settings, limits)

    # ---- collecting and writing -------------------------------------------------------------

    def collect(self, folder: pathlib.Path) -> list[RunResult]:
        """The results of the finished runs.

        Args:
            folder: Folder of the study.

        Raises:
            RunError: metrics.json of a run is damaged.
        """
        results = []
        for run in self.runs():
            metrics = folders.read_metrics(folder / run.folder)
            path = folder / run.folder / "metrics.json"
            rows = {row.measure.key: row for row in run_page.rows(metrics, path)}
            results.append(RunResult(run, metrics, rows))
        return results

    def write(self, folder: pathlib.Path, data_dir: str | None = None) -> dict[str, Any]:
        """Write figure, metrics.json, table.md and report.html; returns what metrics.json holds."""
        results = self.collect(folder)
        columns = [self._column(folder, column, results) for column in self.columns(results)]
        columns += self._columns_of_analyses(results)
        numbers = self._numbers(folder, columns, results)
        metrics = {
            **self.record(),
            **_plain(dataclasses.asdict(self)),
            "numbers": {
                key: {entry: number._asdict() for entry, number in entries.items()}
                for key, entries in numbers.items()
            },
            **self.summary(results, numbers, folder, data_dir),
        }
        pictures = {}
        for drawing in (*self.figures(numbers, metrics), *self._figures_of_analyses(results)):
            folders.write_figure(folder, drawing.name, drawing.figure, drawing.arrays)
            pictures[drawing.caption] = {"": folder / "figures" / f"{drawing.name}.png"}
        folders.write_json(folder / "metrics.json", metrics)
        header, cells = self._cells(columns, numbers, metrics)
        folders.write_text(folder / "table.md", markdown_table(header, cells) + "\n")
        configs = {result.run.folder: result.metrics["config"] for result in results}
        others = self._others(folder)
        text = pages.page(
            self.title(),
            [
                *self.paragraphs(metrics),
                *_left_out(others, folder),
                _sampling_error(results),
            ],
            [html_table(header, cells)],
            pictures,
            json.dumps(configs, indent=2),
        )
        folders.write_text(folder / "report.html", text)
        if others:
            print(f"not in this table: {', '.join(others)}, which {folder} holds too")
        return metrics

    def _column(
        self, folder: pathlib.Path, column: str | Column, results: Sequence[RunResult]
    ) -> Column:
        """A column by its key: a measure of the table, or one that an analysis reports."""
        if isinstance(column, Column):
            return column
        for result in results:
            if column in result.rows:
                return Column(result.rows[column].measure)
        raise self._missing(folder, results[0], column)

    def _missing(self, folder: pathlib.Path, result: RunResult, key: str) -> folders.RunError:
        path = folder / result.run.folder / "metrics.json"
        return folders.RunError(f"{path} has no {key}: delete it and run the same command again")

    def _numbers(
        self, folder: pathlib.Path, columns: Sequence[Column], results: Sequence[RunResult]
    ) -> Numbers:
        numbers: Numbers = {}
        for column in columns:
            values: dict[str, list[float | None]] = {}
            for result in results:
                try:
                    value = column.value(result)
                except (KeyError, TypeError) as error:
                    raise self._missing(folder, result, column.measure.key) from error
                values.setdefault(result.run.entry, []).append(value)
            numbers[column.measure.key] = {
                entry: Number.over_seeds(entry_values) for entry, entry_values in values.items()
            }
        return numbers

    def _cells(
        self, columns: Sequence[Column], numbers: Numbers, metrics: Mapping[str, Any]
    ) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table."""
        entries = list(dict.fromkeys(e for values in numbers.values() for e in values))
        table = [[c.measure.heading for c in columns]] + [
            [numbers[c.measure.key][entry].text(c.measure) for c in columns] for entry in entries
        ]
        labels = ["", *(self.label(entry, metrics) for entry in entries)]
        if self.entries_are_columns:
            rows = [list(cells) for cells in zip(*table, strict=True)]
            return labels, rows
        header = [*table[0], *self.published_header]
        rows = [
            [label, *cells, *self.published(entry)]
            for label, cells, entry in zip(labels[1:], table[1:], entries, strict=True)
        ]
        return ["", *header], rows

    def label(self, entry: str, metrics: Mapping[str, Any]) -> str:
        """How an entry is called in the table."""
        return entry

    def _others(self, folder: pathlib.Path) -> list[str]:
        """Runs in the folder that the study leaves out."""
        names = {run.folder for run in self.runs()}
        return sorted(
            path.parent.name
            for path in folder.glob("*/config.json")
            if path.parent.name not in names
        )


def _left_out(names: Sequence[str], folder: pathlib.Path) -> list[str]:
    """What a page says of runs that are not in its table because they did not end."""
    ended = {name for name in names if (folder / name / "metrics.json").exists()}
    left_out = ", ".join(name for name in names if name not in ended)
    return [f"Not in the table: {left_out}, which diverged or were stopped."] if left_out else []


def _sampling_error(results: Sequence[RunResult]) -> str:
    """How far an accuracy may be off because test images are a sample."""
    counts = sorted({result.metrics["dataset"]["test"] for result in results})
    shown = " or ".join(f"{count:,}" for count in counts)
    error = 100 * math.sqrt(0.9 * 0.1 / counts[0])
    return (
        f"Measures are of {shown} test images unless they say otherwise. An accuracy of 90 % has "
        f"a standard error of {error:.2f} points by the choice of {counts[0]:,} images alone, "
        "which a deviation over seeds leaves out."
    )


def claim_paragraphs(claims: Sequence[Mapping[str, Any]], source: str = "the paper") -> list[str]:
    """What a page says of a paper's claims; nothing where there are none.

    Args:
        claims: For each its "claim", whether it "holds" (None where the numbers do not tell), and
            the "numbers" behind it.
        source: Who claims it.
    """
    answers = {True: "holds", False: "does not hold", None: "is not decided"}
    texts = [
        f"“{claim['claim']}”: {answers[claim['holds']]} here. {claim['numbers']}"
        for claim in claims
    ]
    return [f"Claims of {source}:", *texts] if texts else []


def _plain(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings of a study without what its runs say themselves."""
    return {name: value for name, value in settings.items() if name != "config"}
