"""Calibration and uncertainty on the test images."""

import numpy as np
import pytest
from analysed_runs import arrays, check_figure, check_page, digits, sampler_of

import hypernet_tf as hn
from hypernet_tf.metrics import similarity
from reproduce.analyses import ANALYSES

pytestmark = pytest.mark.usefixtures("few_digits")


def test_the_numbers_are_those_of_the_ensemble_and_its_networks(analysed):
    folder, metrics = analysed
    numbers = metrics["analyses"]["uncertainty"]
    x, y = digits()
    ensemble = sampler_of(folder).sample(3, seed=1)
    result, scores = ensemble.evaluate(x, y), ensemble.uncertainty(x)
    for key in ("expected_calibration_error", "adaptive_calibration_error", "brier_score"):
        assert numbers[key]["ensemble"] == pytest.approx(getattr(result, key))
        members = [getattr(member.evaluate(x, y), key) for member in ensemble]
        assert numbers[key]["member_mean"] == pytest.approx(np.mean(members))
    correct = ensemble.predict(x).argmax(-1) == y
    assert 0 < correct.sum() < len(y)
    entropy, variance = scores.entropy, scores.variance
    assert numbers["entropy"]["mean_of_wrong"] == pytest.approx(entropy[~correct].mean())
    assert numbers["variance"]["mean_of_correct"] == pytest.approx(variance[correct].mean())
    pair = similarity.pairwise_kl_divergence(ensemble.log_probabilities(x)).mean()
    assert numbers["pairs"]["kl_divergence"] == pytest.approx(pair, rel=1e-4)
    curve = arrays(folder, "risk_coverage")
    assert curve["entropy, y"][-1] == pytest.approx(1 - result.mean_probability_accuracy)
    np.testing.assert_allclose(arrays(folder, "reliability")["share"].sum(), 1)


def test_temperature_scaling_takes_the_validation_images(analysed):
    folder, metrics = analysed
    numbers = metrics["analyses"]["uncertainty"]["temperature_scaling"]
    validation = hn.data.load("mnist_5k").validation
    ensemble = sampler_of(folder).sample(3, seed=1)
    calibrated = ensemble.calibrate(validation.x[:1_000], validation.y[:1_000])
    assert numbers["temperature"] == pytest.approx(calibrated.temperature, rel=1e-4)
    assert numbers["num_images"] == min(1_000, len(validation))
    for when, one in (("before", ensemble), ("after", calibrated)):
        result = one.evaluate(*digits())
        for key, value in numbers[when].items():
            assert value == pytest.approx(getattr(result, key), rel=1e-3), (when, key)
    assert numbers["before"]["expected_calibration_error"] == pytest.approx(
        metrics["analyses"]["uncertainty"]["expected_calibration_error"]["ensemble"]
    )


def test_the_examples_are_the_most_uncertain_and_the_most_certain_errors(analysed):
    folder, _ = analysed
    x, y = digits()
    ensemble = sampler_of(folder).sample(3, seed=1)
    entropy, mean = ensemble.uncertainty(x).entropy, ensemble.predict(x)
    shown = arrays(folder, "examples")
    uncertain, _, errors, texts = shown.values()
    np.testing.assert_array_equal(uncertain[0], x[np.argmax(entropy)])
    wrong = mean.argmax(-1) != y
    surest = np.flatnonzero(wrong)[np.argmax(mean[wrong].max(-1))]
    np.testing.assert_array_equal(errors[0], x[surest])
    votes = [member.predict(x[[surest]]).argmax() for member in ensemble]
    share = votes.count(max(votes, key=votes.count)) / 3
    assert texts[0].startswith(f"is {y[surest]}\n") and f": {share:.0%}" in texts[0]


def test_figures_and_page(analysed):
    folder, metrics = analysed
    entry = metrics["analyses"]["uncertainty"]
    assert entry["figures"] == ["reliability", "risk_coverage", "examples"]
    for name in entry["figures"]:
        check_figure(folder, name)
    values = check_page(folder, entry, ANALYSES["uncertainty"])
    assert len(values) == 3 + (1 + 2 * 4) + 7 * 2 + 3 + 7 + 1
    assert values["uncertainty_num_networks"] == 3
    older = {key: value for key, value in entry.items() if key != "temperature_scaling"}
    assert len(ANALYSES["uncertainty"].rows(older)) == len(values) - 9
    assert {
        "uncertainty_member_brier_score",
        "uncertainty_mutual_information_wrong",
        "uncertainty_cka_of_log_probabilities",
        "uncertainty_risk_coverage_least_confidence",
        "uncertainty_risk_coverage_energy",
    } <= set(values)
    assert values["uncertainty_member_brier_score"] == entry["brier_score"]["member_mean"]
    scaling = entry["temperature_scaling"]
    assert values["uncertainty_temperature"] == scaling["temperature"]
    for when in ("before", "after"):
        error = values[f"uncertainty_{when}_scaling_expected_calibration_error"]
        assert error == scaling[when]["expected_calibration_error"]
