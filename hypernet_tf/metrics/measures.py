"""The table of measures: key, title, unit, direction and format of every number that is reported.

Everything that computes, stores or shows a number takes its key and title from `MEASURES`:
`Evaluation`, the training history, metrics.json, TensorBoard's tags, the objectives of a tuner, the
page of a run, and the tables of studies. A new measure is one entry here and one function, or a
call of `register_measure` elsewhere.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from hypernet_tf.metrics import accuracy, calibration, similarity

Kind = Literal["member", "example", "prediction", "summary", "weights", "run"]
Group = Literal[
    "training", "networks", "ensemble", "diversity", "seconds", "run", "analysis", "study"
]


@dataclasses.dataclass(frozen=True)
class Measure:
    """One number: its name, how it is computed and how it is printed.

    Attributes:
        key: Name in code, JSON, flags and TensorBoard tags.
        title: Name in tables and figures, without the unit.
        group: Part of metrics.json that contains the value; "analysis" and "study" for numbers that
            an analysis or a study computes.
        unit: Unit of the printed number. Values with the unit "%" or "points" are stored as
            fractions and printed times 100.
        better: Whether a larger or a smaller value is better; "neither" where neither is.
        format: Python format of the printed number.
        kind: Arguments and result of `compute`, for N networks, b examples of one chunk, M examples
            in total, C classes, and labels (values, for regression):

            * "member": outputs [N, b, ...], labels [b, ...] -> [N, b]. An evaluation keeps the mean
              over examples, [N]; the number is the mean over networks.
            * "example": The same arguments -> [b]; the number is the mean over examples.
            * "prediction": Log of the mean probability [M, C], labels [M], and where there are
              sample weights `sample_weight` [M] -> number.
            * "summary": An `Evaluation` with the measures of the other kinds -> number.
            * "weights": An `Ensemble` and the `WeightSampler` of its networks -> number, or None
              where it has no value; see `hypernet_tf.samplers.weight_measures`.
            * "run": No function. The code that trains or samples records the value.
        task: "classification" if the outputs are log-probabilities [N, b, C], "regression" if they
            are values [N, b, ...], "choices" if each example has several choices among classes
            (labels, pixels of a class map): log-probabilities [N, b, ..., C]. Measures of
            "classification" are those of "choices" too: the choices of an example count as
            examples.
        compute: Function of the kind above.
        of_example: The mean over examples of this function is the same measure: log of the mean
            probability [b, C], labels [b] -> [b]. For the kind "prediction", so that choices of one
            chunk at a time are in memory.
        of_bins: Function of a `Reliability` that is the same measure, for the same reason. A
            "prediction" with neither function is not defined for choices.
        all_choices: Whether an example counts only if it does with all its choices; otherwise with
            their mean.
        description: One sentence more than the title, shown by TensorBoard beside the curve.
        min_networks: Number of networks below which the measure has no value.
        weighted: Whether the measure is defined for examples with different sample weights.
        is_main: Whether it is one of the few that stand for an ensemble: at the head of a run's
            page, in TensorBoard's table of runs, and in the tables and figures of studies.
    """

    key: str
    title: str
    group: Group
    unit: str = ""
    better: Literal["higher", "lower", "neither"] = "neither"
    format: str = "{:.4g}"
    kind: Kind = "run"
    task: Literal["classification", "choices", "regression"] = "classification"
    compute: Callable[..., Any] | None = None
    of_example: Callable[..., Any] | None = None
    of_bins: Callable[[calibration.Reliability], float] | None = None
    all_choices: bool = False
    description: str = ""
    min_networks: int = 1
    weighted: bool = True
    is_main: bool = False

    @property
    def factor(self) -> float:
        """Factor between a stored value and the printed number."""
        return 100.0 if self.unit in ("%", "points") else 1.0

    @property
    def heading(self) -> str:
        """The title with the unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def text(self, value: float | None) -> str:
        """The printed number, without the unit; an empty string where there is no value."""
        return "" if value is None else self.format.format(self.factor * value)


def _percent(key: str, title: str, group: Group, **options: Any) -> Measure:
    """A fraction that is printed in percent; higher is better."""
    return Measure(
        key, title, group, **{"unit": "%", "better": "higher", "format": "{:.2f}"} | options
    )


def _nats(key: str, title: str, group: Group, **options: Any) -> Measure:
    return Measure(key, title, group, unit="nats", **options)


def _seconds(key: str, title: str, **options: Any) -> Measure:
    return Measure(key, title, "seconds", unit="s", better="lower", **options)


def _member_accuracies(summarize: Callable[[np.ndarray], Any]) -> Callable[[Any], float]:
    return lambda evaluation: float(summarize(evaluation.members["member_accuracy"]))


def _vote_is_correct(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    num_classes = log_probabilities.shape[-1]
    return accuracy.majority_vote(log_probabilities.argmax(-1), num_classes) == labels


def _most_confident_is_correct(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return accuracy.most_confident(log_probabilities) == labels


def _mean_is_correct(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return accuracy.correct(accuracy.mean_log_probabilities(log_probabilities), labels)


def _disagreement(log_probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return similarity.pairwise_disagreement(log_probabilities)


def _squared_errors_of_mean(outputs: np.ndarray, values: np.ndarray) -> np.ndarray:
    return accuracy.squared_errors(outputs.astype(np.float64).mean(0), values)


def _standard_deviations(outputs: np.ndarray, values: np.ndarray) -> np.ndarray:
    deviations = outputs.astype(np.float64).std(0)
    return deviations.reshape(len(deviations), -1).mean(-1)


_TABLE = (
    # The run.
    Measure("steps", "training steps", "run", format="{:,.0f}"),
    Measure(
        "image_passes",
        "image passes in training",
        "run",
        format="{:,.0f}",
        description="Number of images that went forward and backward through one target network.",
    ),
    Measure("target_weights", "weights of the target", "run", format="{:,.0f}"),
    Measure("parameters", "trainable parameters", "run", format="{:,.0f}"),
    Measure("peak_memory_mib", "peak memory of training", "run", unit="MiB", format="{:,.0f}"),
    _seconds("train_seconds", "training with its validations", format="{:,.1f}"),
    _seconds("evaluate_seconds", "evaluation", format="{:,.1f}"),
    _seconds("sample_seconds", "sampling the networks"),
    # Training: means over the steps since the last record.
    Measure(
        "loss",
        "loss",
        "training",
        better="lower",
        description="lam · accuracy loss + diversity loss, mean over steps since the last point.",
    ),
    Measure(
        "accuracy_loss",
        "accuracy loss",
        "training",
        better="lower",
        description="Mean of the compiled loss over networks and their images.",
    ),
    Measure(
        "diversity_loss",
        "diversity loss",
        "training",
        better="lower",
        description="Sum of the diversity terms; by default minus the entropy of the weights.",
    ),
    _percent(
        "accuracy",
        "training accuracy of single networks",
        "training",
        description="Accuracy of single networks on the images of the training steps.",
    ),
    Measure("lam", "lam", "training", description="Weight of the accuracy loss."),
    Measure(
        "norm_spread",
        "spread of the networks' L2 norms",
        "training",
        better="higher",
        format="{:.3f}",
        min_networks=2,
        description="Standard deviation over mean of the L2 norms of 100 networks, or of all.",
    ),
    Measure(
        "learning_rate",
        "learning rate",
        "training",
        description="Learning rate of the optimizer at this step.",
    ),
    Measure(
        "steps_per_second",
        "steps per second",
        "training",
        better="higher",
        description="Without validations. The first point includes tracing graphs.",
    ),
    # The single networks.
    Measure("num_networks", "networks", "networks", format="{:,.0f}"),
    _percent(
        "member_accuracy",
        "accuracy of the networks, mean",
        "networks",
        kind="member",
        compute=accuracy.correct,
        is_main=True,
        description="Fraction of images that a network classifies correctly, mean over networks.",
    ),
    Measure(
        "member_accuracy_std",
        "accuracy of the networks, standard deviation",
        "networks",
        unit="points",
        format="{:.2f}",
        kind="summary",
        compute=_member_accuracies(lambda values: values.std(ddof=1)),
        min_networks=2,
    ),
    _percent(
        "member_accuracy_min",
        "accuracy of the networks, lowest",
        "networks",
        kind="summary",
        compute=_member_accuracies(np.min),
        description="Accuracy of the worst network.",
    ),
    _percent(
        "member_accuracy_max",
        "accuracy of the networks, highest",
        "networks",
        kind="summary",
        compute=_member_accuracies(np.max),
        description="Accuracy of the best network.",
    ),
    _percent(
        "member_exact_match",
        "examples with all choices right, mean over networks",
        "networks",
        kind="member",
        task="choices",
        compute=accuracy.correct,
        all_choices=True,
        description="Fraction of examples of which a network gets all labels, or pixels, right.",
    ),
    _nats(
        "member_negative_log_likelihood",
        "negative log-likelihood of the networks, mean",
        "networks",
        better="lower",
        kind="member",
        compute=accuracy.log_losses,
    ),
    Measure(
        "member_mean_squared_error",
        "mean squared error of the networks, mean",
        "networks",
        better="lower",
        kind="member",
        task="regression",
        compute=accuracy.squared_errors,
    ),
    # The ensemble.
    _percent(
        "majority_vote_accuracy",
        "accuracy of the majority vote",
        "ensemble",
        kind="example",
        compute=_vote_is_correct,
        is_main=True,
        description="Accuracy of the class that most networks choose.",
    ),
    _percent(
        "mean_probability_accuracy",
        "accuracy of the mean probability",
        "ensemble",
        kind="prediction",
        compute=accuracy.classification_accuracy,
        of_example=accuracy.correct,
        description="Accuracy of the class with the highest mean probability.",
    ),
    _percent(
        "most_confident_accuracy",
        "accuracy of the most confident network",
        "ensemble",
        kind="example",
        compute=_most_confident_is_correct,
        description="Accuracy of the most confident network's choice.",
    ),
    _percent(
        "exact_match",
        "examples with all choices of the mean probability right",
        "ensemble",
        kind="example",
        task="choices",
        compute=_mean_is_correct,
        all_choices=True,
        description="Fraction of examples of which the mean probability gets all choices right.",
    ),
    _nats(
        "negative_log_likelihood",
        "negative log-likelihood of the ensemble",
        "ensemble",
        better="lower",
        kind="prediction",
        compute=accuracy.negative_log_likelihood,
        of_example=accuracy.log_losses,
        is_main=True,
        description="Negative log-likelihood of the networks' mean probability.",
    ),
    Measure(
        "expected_calibration_error",
        "expected calibration error of the ensemble",
        "ensemble",
        better="lower",
        kind="prediction",
        compute=calibration.expected_calibration_error,
        of_bins=calibration.error_of_bins,
        is_main=True,
        description="Calibration error of the mean probability, 15 bins of equal width.",
    ),
    Measure(
        "adaptive_calibration_error",
        "adaptive calibration error of the ensemble",
        "ensemble",
        better="lower",
        kind="prediction",
        compute=calibration.adaptive_calibration_error,
        weighted=False,
        description="Calibration error of the mean probability, 15 bins of equally many examples.",
    ),
    Measure(
        "brier_score",
        "Brier score of the ensemble",
        "ensemble",
        better="lower",
        kind="prediction",
        compute=accuracy.brier_score,
        of_example=accuracy.brier_scores,
        description="Brier score of the mean probability, between 0 and 2.",
    ),
    Measure(
        "mean_squared_error",
        "mean squared error of the mean prediction",
        "ensemble",
        better="lower",
        kind="example",
        task="regression",
        compute=_squared_errors_of_mean,
    ),
    # How the networks differ.
    _percent(
        "disagreement",
        "disagreement of two networks",
        "diversity",
        kind="example",
        compute=_disagreement,
        min_networks=2,
        is_main=True,
        description="Fraction of images on which two networks differ, mean over pairs of networks.",
    ),
    Measure(
        "standard_deviation",
        "standard deviation over networks",
        "diversity",
        better="higher",
        kind="example",
        task="regression",
        compute=_standard_deviations,
        min_networks=2,
        description="Standard deviation of the predictions over networks, mean over examples.",
    ),
    # Studies.
    _percent("best_member_accuracy", "best accuracy of the networks, mean", "study"),
    _percent("best_majority_vote_accuracy", "best accuracy of the majority vote", "study"),
    _percent(
        "late_gain",
        "gained on validation images in the last quarter of the training",
        "study",
        unit="points",
        better="neither",
        description="Mean accuracy of the networks on validation images at the end, less that "
        "after three quarters of the steps, between validations interpolated: near 0 where the "
        "training has flattened, or its learning rate has fallen.",
    ),
)

MEASURES: dict[str, Measure] = {measure.key: measure for measure in _TABLE}


def register_measure(measure: Measure) -> Measure:
    """Make a measure known to everything that computes, stores or shows numbers.

    Args:
        measure: The measure, with a function.

    Returns:
        The measure.

    Raises:
        ValueError: Another measure has its key or its title; it has no function, or one that does
            not take what its kind says; or its group is not one of those that an evaluation fills:
            "networks", "ensemble", "diversity".

    Example:
        >>> def log_loss_of_worst(log_p, labels):
        ...     return -log_p[range(len(labels)), labels].min()
        >>> hn.metrics.register_measure(
        ...     hn.metrics.Measure(
        ...         "worst_log_loss", "log loss of the worst example", "ensemble",
        ...         unit="nats", better="lower", kind="prediction", compute=log_loss_of_worst,
        ...         weighted=False,
        ...     )
        ... )
    """
    for other in MEASURES.values():
        if measure.key == other.key or measure.title == other.title:
            raise ValueError(
                f"Cannot register the measure '{measure.key}' ({measure.title}): there is "
                f"'{other.key}' ({other.title}). Choose another key and title."
            )
    if not measure.key.isidentifier():
        raise ValueError(f"The key of a measure is an identifier, not '{measure.key}': rename it.")
    if measure.kind == "run" or measure.compute is None:
        raise ValueError(
            f"The measure '{measure.key}' is not computed: give it a function, and the kind of "
            "the function's arguments."
        )
    if measure.kind == "prediction":
        if measure.task == "regression":
            raise ValueError(
                f"The measure '{measure.key}' is of kind 'prediction', which a regression does not "
                "have: use 'example'."
            )
        parameters = inspect.signature(measure.compute).parameters.values()
        takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
        named = any(parameter.name == "sample_weight" for parameter in parameters)
        gets_weights = measure.task == "classification" and measure.weighted
        if gets_weights and not (takes_any or named):
            raise ValueError(
                f"The function of the measure '{measure.key}' takes no sample_weight: add it, or "
                "say weighted=False."
            )
    groups = ("networks", "ensemble", "diversity")
    if measure.group not in groups:
        raise ValueError(
            f"The measure '{measure.key}' is in the group '{measure.group}', which no evaluation "
            f"fills: choose one of {', '.join(groups)}."
        )
    MEASURES[measure.key] = measure
    return measure


def main_measures() -> list[str]:
    """Keys of the few measures of classification, and of weights, that stand for an ensemble."""
    known = [*evaluation_measures("classification"), *of_weights()]
    return [m.key for m in known if m.is_main]


def of_weights() -> list[Measure]:
    """Measures of weights, in the order of the table."""
    return [m for m in MEASURES.values() if m.kind == "weights"]


def evaluation_measures(task: str) -> list[Measure]:
    """Measures that an evaluation computes.

    Args:
        task: "classification", "choices" or "regression".

    Returns:
        The measures with a function for this task, in the order of the table.
    """
    tasks = ("classification", "choices") if task == "choices" else (task,)
    return [
        m
        for m in MEASURES.values()
        if m.compute is not None and m.kind != "weights" and m.task in tasks
    ]
