"""The curves of a training."""

import numpy as np

from hypernet_tf import plots
from reproduce.reports import history


def record(step, *, entropy=None, diversity=0.0, accuracy=None):
    entry = {"step": step, "accuracy_loss": 2.0 / step, "diversity_loss": diversity}
    if accuracy is not None:
        keys = ("member", "majority_vote", "mean_probability", "most_confident")
        entry["validation"] = {f"{key}_accuracy": accuracy for key in keys}
        entry["validation"] |= {
            "member_accuracy_min": accuracy / 2,
            "member_accuracy_max": 2 * accuracy,
        }
        entry["validation"]["entropy"] = entropy  # None without a latent space
    return entry


HYPERNETWORK = [
    record(1, diversity=-3.0, accuracy=0.25, entropy=3.0),
    record(2, diversity=-4.0),
    record(4, diversity=-5.0, accuracy=0.5, entropy=5.0),
]
ORDINARY = [record(1, accuracy=0.25), record(2, accuracy=0.5)]


def test_validations_have_steps_of_their_own():
    accuracy, loss, diversity, entropy = history.panels(HYPERNETWORK)
    assert accuracy["curves"]["majority vote"] == ([1, 4], [25.0, 50.0])
    assert accuracy["low_high"] == ([1, 4], [12.5, 25.0], [50.0, 100.0])
    assert loss["curves"]["accuracy loss"] == ([1, 2, 4], [2.0, 1.0, 0.5])
    assert diversity["curves"]["diversity loss"] == ([1, 2, 4], [-3.0, -4.0, -5.0])
    assert entropy["curves"]["entropy"] == ([1, 4], [3.0, 5.0])


def test_a_training_without_diversity_has_no_curves_of_it():
    titles = [panel["title"] for panel in history.panels(ORDINARY)]
    assert titles == [
        "Accuracy on the validation images",
        "Accuracy loss (cross-entropy), training",
    ]


def test_the_spread_of_norms_has_a_curve_where_there_are_several_networks():
    several = [entry | {"norm_spread": entry["step"] / 10} for entry in ORDINARY]
    *_, spread = history.panels(several)
    assert spread["curves"] == {"norm spread": ([1, 2], [0.1, 0.2])}
    single = [entry | {"norm_spread": None} for entry in ORDINARY]
    assert len(history.panels(single)) == len(history.panels(several)) - 1


def test_the_arrays_are_the_numbers_of_the_curves():
    arrays = history.arrays(HYPERNETWORK)
    np.testing.assert_array_equal(arrays["majority_vote_accuracy"], [25, 50])
    np.testing.assert_array_equal(arrays["majority_vote_accuracy, step"], [1, 4])
    np.testing.assert_array_equal(arrays["member_accuracy_min"], [12.5, 25])
    np.testing.assert_array_equal(arrays["member_accuracy_max"], [50, 100])
    np.testing.assert_array_equal(arrays["entropy"], [3, 5])
    curves = [name for panel in history.panels(HYPERNETWORK) for name in panel["curves"]]
    assert len(arrays) == 2 * len(curves) + 2


def test_they_are_drawn():
    figure = plots.training_curves(history.panels(HYPERNETWORK))
    assert len(figure.axes) == 4
