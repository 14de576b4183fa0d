"""The table of measures: complete, unique, and enough to add a measure."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.special import log_softmax

from hypernet_tf.ensembles.evaluation import Evaluation, evaluate, evaluate_choices
from hypernet_tf.ensembles.examples import Chunk
from hypernet_tf.metrics import MEASURES, Measure, register_measure
from hypernet_tf.metrics.measures import evaluation_measures, main_measures

TASKS = ("classification", "choices", "regression")


def an_evaluation(task, num_networks=5, sample_weight=None):
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(num_networks, 40, 3))
    if task == "classification":
        examples = Chunk(None, rng.integers(0, 3, 40), sample_weight)
        return evaluate([(log_softmax(outputs, -1), examples)], 3)
    if task == "choices":
        outputs = rng.normal(size=(num_networks, 40, 2, 3))
        examples = Chunk(None, rng.integers(0, 3, (40, 2)), sample_weight)
        return evaluate_choices([(log_softmax(outputs, -1), examples)], 3)
    return evaluate([(outputs, Chunk(None, rng.normal(size=(40, 3)), sample_weight))], None)


def test_keys_and_titles_are_unique():
    assert all(key == measure.key for key, measure in MEASURES.items())
    titles = [measure.title for measure in MEASURES.values()]
    assert sorted(set(titles)) == sorted(titles)
    assert all(key.isidentifier() and key == key.lower() for key in MEASURES)


def test_entries_are_consistent():
    for measure in MEASURES.values():
        assert (measure.compute is None) == (measure.kind == "run"), measure.key
        if measure.unit in ("%", "points"):
            assert measure.factor == 100.0
        assert measure.text(None) == ""
        assert measure.text(0.25)
        assert measure.heading.startswith(measure.title)


@pytest.mark.parametrize("task", TASKS)
def test_every_measure_of_a_task_is_in_its_evaluation(task):
    result = an_evaluation(task)
    summary = result.summary()
    expected = [measure.key for measure in evaluation_measures(task)]
    assert list(summary) == expected
    assert len(expected) > 2
    json.dumps(summary)
    for key in expected:
        value = getattr(result, key)
        assert np.shape(value) == ((5,) if MEASURES[key].kind == "member" else ())
        if key in result.undefined:
            assert summary[key] is None and np.isnan(value)
            continue
        assert summary[key] == np.mean(value)
        assert isinstance(summary[key], float)


@pytest.mark.parametrize("task", TASKS)
def test_measures_that_are_not_defined_have_no_value(task):
    one = an_evaluation(task, num_networks=1).summary()
    weights = np.random.default_rng(1).uniform(size=40)
    weighted = an_evaluation(task, sample_weight=weights).summary()
    for measure in evaluation_measures(task):
        never = task == "choices" and measure.key == "adaptive_calibration_error"
        assert (one[measure.key] is None) == (measure.min_networks > 1 or never), measure.key
        assert (weighted[measure.key] is None) == (not measure.weighted), measure.key


def test_numbers_that_are_not_finite_are_values():
    """A diverged network has a likelihood of NaN, which is not a missing value."""
    log_p = np.full([2, 3, 2], np.nan)
    result = evaluate([(log_p, Chunk(None, np.array([0, 1, 1])))], 2)
    assert np.isnan(result.summary()["negative_log_likelihood"])
    assert result.undefined == frozenset()


TOYS = {
    "member": lambda outputs, labels: outputs.max(-1),  # [N, b]
    "example": lambda outputs, labels: outputs.max((0, -1)),  # [b]
    "prediction": lambda mean, labels: mean.max(),
    "summary": lambda evaluation: evaluation.member_accuracy.max(),
}


@pytest.mark.parametrize("kind", TOYS)
def test_a_measure_is_added_in_one_place(kind, monkeypatch):
    toy = Measure("toy", "a toy", "ensemble", "%", kind=kind, compute=TOYS[kind])
    monkeypatch.setitem(MEASURES, "toy", toy)
    result = an_evaluation("classification")
    assert list(result.summary())[-1] == "toy"
    assert result.summary()["toy"] == pytest.approx(np.mean(result.toy))
    assert "toy" not in an_evaluation("regression").summary()


class TestRegistration:
    TOY = Measure("toy", "a toy", "ensemble", kind="example", compute=TOYS["example"], is_main=True)

    def test_a_registered_one_is_computed_and_main(self, monkeypatch):
        known = main_measures()
        assert known == [
            *("member_accuracy", "majority_vote_accuracy", "negative_log_likelihood"),
            *("expected_calibration_error", "disagreement"),
        ]
        monkeypatch.delitem(MEASURES, "toy", raising=False)  # and forget it after the test
        monkeypatch.setitem(MEASURES, "toy", self.TOY)
        del MEASURES["toy"]
        assert register_measure(self.TOY) is self.TOY
        assert main_measures() == [*known, "toy"]
        assert list(an_evaluation("classification").summary())[-1] == "toy"

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"key": "brier_score"}, r"'brier_score' \(a toy\): there is 'brier_score' \(Brier"),
            ({"title": "loss"}, r"there is 'loss' \(loss\)\. Choose another key and title\.$"),
            ({"key": "a toy"}, "is an identifier, not 'a toy': rename it"),
            ({"kind": "run"}, "is not computed: give it a function"),
            ({"compute": None}, "is not computed: give it a function"),
            ({"kind": "prediction"}, "takes no sample_weight: add it, or say weighted=False"),
            (
                {"kind": "prediction", "task": "regression"},
                "a regression does not have: use 'ex",
            ),
            ({"group": "seconds"}, "no evaluation fills: choose one of networks, ensemble"),
        ],
    )
    def test_one_that_does_not_fit(self, changes, words):
        before = dict(MEASURES)
        with pytest.raises(ValueError, match=words) as error:
            register_measure(dataclasses.replace(self.TOY, **changes))
        assert "\n" not in str(error.value)
        assert before == MEASURES


def test_printed_numbers():
    accuracy = MEASURES["member_accuracy"]
    assert accuracy.text(0.98765) == "98.77"
    assert accuracy.heading == "accuracy of the networks, mean (%)"
    assert MEASURES["steps"].text(12_345) == "12,345"
    assert MEASURES["negative_log_likelihood"].text(0.123456) == "0.1235"
    assert dataclasses.replace(accuracy, unit="").heading == accuracy.title


def test_an_unknown_measure_is_an_attribute_error():
    result = Evaluation({"member_accuracy": np.zeros(2)}, {})
    with pytest.raises(AttributeError, match=r"^This evaluation has no measure 'speed'\.$"):
        _ = result.speed
