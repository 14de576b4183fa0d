"""What an analysis is: one class in one file of this folder, which registers itself.

Example:
    The whole of a new file `reproduce/analyses/norms.py`; no other file is edited.

    >>> import numpy as np
    >>> from hypernet_tf import plots
    >>> from hypernet_tf.metrics import Measure
    >>> from reproduce.analyses import Analysis, Findings, Row, Setting, at_most_available
    >>> COUNT = Setting(
    ...     "norm_networks", 100, "Number of networks.", resolve=at_most_available
    ... )
    >>> class Norms(Analysis):
    ...     name = "norms"
    ...     title = "L2 norms of the networks' weights"
    ...     order = 100
    ...     figure_caption = "Histogram of the L2 norms of the networks' weights"
    ...     settings = (COUNT,)
    ...
    ...     def compute(self, subject):
    ...         ensemble = subject.sampler.sample(subject.settings["norm_networks"], seed=10_100)
    ...         norms = np.linalg.norm(ensemble.theta(), axis=-1)
    ...         return Findings({"mean": float(norms.mean())}, {"norms": {"norms": norms}})
    ...
    ...     def figure(self, name, arrays, numbers):
    ...         figure = plots.new_figure(3)
    ...         figure.subplots().hist(arrays["norms"])
    ...         return figure
    ...
    ...     def rows(self, numbers):
    ...         mean = Measure("norms_mean", "L2 norm of the weights, mean", "analysis")
    ...         return [Row(mean, numbers["mean"])]
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from hypernet_tf.metrics import Measure

if TYPE_CHECKING:
    from reproduce.analyses.subject import Subject


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the settings of a run's analyses depend on; known before anything is trained.

    Attributes:
        num_networks: Number of networks of an ensemble.
        num_available: Number of networks that the sampler holds; None if it makes any number.
        num_images: Number of test images.
        image_shape: Shape of an image [height, width, channels].
        dataset: Name of the data set on which the networks are trained.
    """

    num_networks: int
    num_available: int | None
    num_images: int
    image_shape: tuple[int, ...]
    dataset: str


def _unchanged(value: Any, limits: Limits) -> Any:
    return value


def at_most_available(value: int, limits: Limits) -> int:
    """A number of networks, or all that a finite sampler holds: `Setting.resolve`.

    Args:
        value: Number of networks.
        limits: What the settings of a run depend on.
    """
    return value if limits.num_available is None else min(value, limits.num_available)


@dataclasses.dataclass(frozen=True)
class Setting:
    """A number, switch or list on which an analysis depends; it becomes the flag --<name>.

    Analyses that share a setting name the same object.

    Attributes:
        name: Name of the flag, and of the value in `Subject.settings` and metrics.json.
        default: Value without the flag.
        help: One sentence or two for `--help`.
        kind: Type of the flag; the value of a "list" is a list of strings.
        lower_bound: Smallest value that the flag takes.
        resolve: Function of the value and the `Limits` that returns the value to use, as JSON holds
            it. It raises a `UsageError` if the value does not fit.
        basic: Value for the analyses that every run has, if no analysis that was asked for has
            this setting; None for the default.
        load: Function of the value that a user gives and the folder of data sets, which raises a
            `DataError` where what the value names is not available. It is called before anything
            is trained.
    """

    name: str
    default: Any
    help: str
    kind: Literal["integer", "boolean", "list"] = "integer"
    lower_bound: int | None = None
    resolve: Callable[[Any, Limits], Any] = _unchanged
    basic: Any = None
    load: Callable[[Any, str | None], Any] | None = None


class Row(NamedTuple):
    """A number of a run.

    Attributes:
        measure: What the number is; its key is unique among the rows of a run.
        value: The number as it is stored (fractions, nats); None where it is not defined.
    """

    measure: Measure
    value: float | None


class Findings(NamedTuple):
    """What an analysis computes.

    Attributes:
        numbers: Numbers for metrics.json: nested dictionaries that JSON can hold.
        arrays: Name of a figure -> arrays by name from which it is drawn; written as npz.
    """

    numbers: dict[str, Any]
    arrays: dict[str, dict[str, np.ndarray]]


class Drawing(NamedTuple):
    """A figure of several runs.

    Attributes:
        name: Name of its files.
        caption: Caption on the page.
        figure: The figure.
        arrays: The numbers in it, by name.
    """

    name: str
    caption: str
    figure: Figure
    arrays: dict[str, np.ndarray]


class Analysis(abc.ABC):
    """A question to a sampler: it asks for networks and does not know which sampler made them.

    A subclass is registered in `ANALYSES` as soon as it is defined.

    Attributes:
        name: Name in --analyses, metrics.json and the keys of its rows.
        title: What is asked, in one line for `--help` and the page of a run.
        figure_caption: What its figures show; `caption` may say it of each figure.
        reading: How to read its figures, in a sentence for the page.
        highlights: Keys of the few rows that its section of the page shows; none for the first
            rows. All rows are in the table at the end of the page.
        num_highlights: How many of the first rows are shown where `highlights` names none.
        order: Place among the analyses, in reports and in `--analyses=all`.
        min_networks: Number of networks below which the analysis has no answer.
        settings: Settings that `compute` reads; others are not in its `subject.settings`.
        basic: Whether every run has this analysis, asked for or not.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    order: ClassVar[int]
    figure_caption: ClassVar[str]
    reading: ClassVar[str] = ""
    highlights: ClassVar[tuple[str, ...]] = ()
    num_highlights: ClassVar[int] = 6
    min_networks: ClassVar[int] = 1
    settings: ClassVar[tuple[Setting, ...]] = ()
    basic: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any):
        """Register the analysis.

        Raises:
            TypeError: The class is incomplete, or its name or a setting's name is taken.
        """
        super().__init_subclass__(**kwargs)
        missing = [name for name in ("name", "title", "order") if not hasattr(cls, name)]
        methods = [name for name, value in vars(Analysis).items() if _is_abstract(value)]
        missing += [name for name in methods if _is_abstract(getattr(cls, name))]
        if not hasattr(cls, "figure_caption") and cls.caption is Analysis.caption:
            missing.append("figure_caption")
        if missing:
            raise TypeError(f"The analysis {cls.__qualname__} lacks {', '.join(missing)}: add it.")
        if cls.name in ANALYSES:
            other = type(ANALYSES[cls.name])
            raise TypeError(
                f"The analyses {other.__module__}.{other.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__} are both named '{cls.name}': rename one."
            )
        known = {setting.name: setting for a in ANALYSES.values() for setting in a.settings}
        for setting in cls.settings:
            if known.setdefault(setting.name, setting) is not setting:
                raise TypeError(
                    f"The analysis {cls.__qualname__} defines the setting '{setting.name}' again: "
                    "name the object of the other analysis, or rename the setting."
                )
        ANALYSES[cls.name] = cls()
        in_order = sorted(ANALYSES.values(), key=lambda analysis: (analysis.order, analysis.name))
        ANALYSES.clear()
        ANALYSES.update({analysis.name: analysis for analysis in in_order})

    @abc.abstractmethod
    def compute(self, subject: Subject) -> Findings:
        """Compute the numbers, and the arrays behind each figure.

        Networks come from `subject.sampler.sample(count, seed=...)`. Ensembles of a run have the
        seeds 1, 2, ...; an analysis that samples others takes a seed of its own above 10,000.

        Args:
            subject: Sampler, data set and settings.
        """

    @abc.abstractmethod
    def figure(
        self, name: str, arrays: Mapping[str, np.ndarray], numbers: Mapping[str, Any]
    ) -> Figure:
        """Draw a figure; nothing is computed here.

        Args:
            name: Name of the figure.
            arrays: Arrays that `compute` returned for it.
            numbers: Numbers that `compute` returned.
        """

    def caption(self, figure_name: str) -> str:
        """The caption of a figure on the page of a run; captions of a run differ.

        Args:
            figure_name: Name of the figure.
        """
        return self.figure_caption

    def side_by_side(self, numbers: Mapping[str, Mapping[str, Any]]) -> Drawing | None:
        """Draw several runs in one figure, for a study; None for an analysis without such a figure.

        Args:
            numbers: Name of a run -> numbers that `compute` returned, as read from metrics.json.
        """
        return None

    def rows(self, numbers: Mapping[str, Any]) -> list[Row]:
        """The rows of the page's table; none for an analysis of pictures alone.

        Args:
            numbers: Numbers that `compute` returned, as read from metrics.json.

        Raises:
            KeyError: A number is missing.
        """
        return []


ANALYSES: dict[str, Analysis] = {}
"""All analyses by name, in their order."""


def count(key: str, title: str) -> Measure:
    """The measure of a whole number that an analysis reports.

    Args:
        key: Key, unique among all measures.
        title: Title in tables.
    """
    return Measure(key, title, "analysis", format="{:,.0f}")


def percent(
    key: str, title: str, better: Literal["higher", "lower", "neither"] = "higher"
) -> Measure:
    """The measure of a fraction that an analysis reports and a table shows in percent.

    Args:
        key: Key, unique among all measures.
        title: Title in tables, without the unit.
        better: Whether a larger or a smaller value is better.
    """
    return Measure(key, title, "analysis", unit="%", better=better, format="{:.2f}")


def _is_abstract(method: Any) -> bool:
    return getattr(method, "__isabstractmethod__", False)
