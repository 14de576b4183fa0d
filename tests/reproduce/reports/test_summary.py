"""Numbers that sum up a training."""

import pytest

from reproduce.reports.summary import late_gain


def history(*accuracies):
    """The record of a training, {step: accuracy on the validation images}."""
    return [
        {"step": step, "accuracy_loss": 1.0}
        | ({"validation": {"member_accuracy": value}} if value is not None else {})
        for step, value in accuracies
    ]


@pytest.mark.parametrize(
    ("record", "gain"),
    [
        (history((50, 0.2), (75, 0.5), (100, 0.6)), 0.1),
        (history((25, 0.1), (60, 0.4), (80, None), (100, 0.8)), 0.25),  # 0.55 at 75, between
        (history((50, 0.4), (100, 0.8)), 0.2),
        (history((80, 0.4), (100, 0.8)), None),
        (history((100, 0.8)), None),
    ],
)
def test_the_gain_is_that_of_the_last_quarter(record, gain):
    assert late_gain(record) == (None if gain is None else pytest.approx(gain))
