"""Accuracy of ensembles of several sizes."""

import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page, digits, sampler_of

from hypernet_tf.metrics import classification_accuracy, mean_log_probabilities
from reproduce.analyses import ANALYSES, Limits
from reproduce.analyses.ensemble_sizes import SIZES
from reproduce.analyses.subject import Subject
from reproduce.runs.folder import UsageError

pytestmark = pytest.mark.usefixtures("few_digits")

LIMITS = Limits(200, None, 80, (28, 28, 1), "mnist_5k")


@pytest.fixture(scope="module")
def analysed(analyse):
    return analyse("ensemble_sizes", ensemble_sizes=["1", "7", "3"])


def test_numbers_are_means_over_ensembles_of_the_same_networks(analysed):
    folder, metrics = analysed
    sizes = metrics["analyses"]["ensemble_sizes"]["sizes"]
    assert {size: values["num_ensembles"] for size, values in sizes.items()} == {
        "1": 7,
        "3": 2,
        "7": 1,
    }
    x, y = digits()
    log_p = sampler_of(folder).sample(7, seed=10_006).log_probabilities(x)
    for size, values in sizes.items():
        expected = [
            classification_accuracy(mean_log_probabilities(log_p[start : start + int(size)]), y)
            for start in range(0, 7 - int(size) + 1, int(size))
        ]
        assert values["accuracy"] == pytest.approx(np.mean(expected))
        np.testing.assert_allclose(arrays(folder, "ensemble_sizes")[size], expected)
    assert sizes["1"]["negative_log_likelihood"] > sizes["7"]["negative_log_likelihood"]


def test_sizes_that_the_sampler_lacks_have_no_numbers(analysed):
    class Finite:
        """The networks of the run, of which there are five."""

        num_available = 5
        sample = sampler_of(analysed[0]).sample

    subject = Subject.__new__(Subject)
    subject.sampler, subject.settings = Finite(), {"ensemble_sizes": [3, 6]}
    subject.test = type("Test", (), dict(zip("xy", digits(), strict=True)))
    analysis = ANALYSES["ensemble_sizes"]
    findings = analysis.compute(subject)
    assert findings.numbers["sizes"]["6"] is None
    values = [row.value for row in analysis.rows(findings.numbers)]
    assert values[0] is not None and values[2:] == [None, None]
    subject.settings = {"ensemble_sizes": [6]}
    assert analysis.compute(subject) == ({"sizes": {"6": None}}, {})


@pytest.mark.parametrize("value", [[], ["0"], ["ten"], ["5", "-1"]])
def test_sizes_are_whole_numbers(value):
    assert SIZES.resolve(["10", "1", "10"], LIMITS) == [1, 10]
    with pytest.raises(UsageError, match="takes whole numbers, at least 1"):
        SIZES.resolve(value, LIMITS)


def test_figure_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["ensemble_sizes"]
    check_figure(folder, "ensemble_sizes")
    values = check_page(folder, entry, ANALYSES["ensemble_sizes"])
    expected = {
        f"ensemble_sizes_{size}_{key}": entry["sizes"][size][key]
        for size in ("1", "3", "7")
        for key in ("accuracy", "negative_log_likelihood")
    }
    assert list(values.items()) == list(expected.items())
