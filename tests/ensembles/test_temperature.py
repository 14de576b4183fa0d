"""Temperature scaling: known scales are recovered, and the likelihood never decreases."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import log_softmax
from small_ensembles import EXAMPLES

import hypernet_tf as hn
from hypernet_tf.ensembles.examples import Chunk
from hypernet_tf.ensembles.temperature import best_temperature
from hypernet_tf.metrics import predictive_entropy


def scaled(ensemble, factor):
    """The ensemble with its logits multiplied by a factor: the last layer's kernel and bias."""
    *others, kernel, bias = ensemble.weights.trainable
    weights = hn.WeightSet([*others, factor * kernel, factor * bias], ensemble.weights.state)
    return hn.Ensemble(ensemble.target, weights)


@pytest.mark.parametrize("kind", ["logits", "one logit"])
def test_temperature_recovers_the_scale_of_the_logits(kind, cases, x):
    """Every class is a label, weighted by its mean probability: of logits times s, T is s."""
    ensemble = cases[kind].ensemble
    p = np.exp(ensemble.log_probabilities(x)).mean(0)  # [M, C]
    num_classes = p.shape[1]
    labelled = np.repeat(x, num_classes, 0), np.tile(np.arange(num_classes), EXAMPLES)
    for factor in (0.25, 1.0, 3.0):
        result = scaled(ensemble, factor).calibrate(*labelled, sample_weight=p.ravel())
        assert result.temperature == pytest.approx(factor, rel=1e-3)
        np.testing.assert_allclose(result.predict(x), ensemble.predict(x), atol=1e-3)


def test_probabilities_at_a_temperature_equal_the_formula(classifier, x):
    log_p = np.log(classifier.p)
    expected = log_softmax(log_p / 2.5, -1)
    weights = classifier.ensemble.weights
    warm = hn.Ensemble(classifier.ensemble.target, weights, temperature=2.5)
    np.testing.assert_allclose(warm.log_probabilities(x), expected, rtol=1e-4, atol=1e-5)
    mean = np.exp(expected).mean(0)
    prediction = warm.predict(x)
    assert prediction.shape == classifier.loop.shape[1:]
    shown = mean[:, 1:] if prediction.shape[1] == 1 else mean
    np.testing.assert_allclose(prediction, shown, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(warm.outputs(x), classifier.ensemble.outputs(x))
    entropy = warm.uncertainty(x).entropy
    np.testing.assert_allclose(entropy, predictive_entropy(expected), rtol=1e-4)
    if (logits := warm.predictions(x).logits) is not None:
        np.testing.assert_allclose(logits, classifier.ensemble.outputs(x) / 2.5, rtol=1e-6)
    result = warm.evaluate(x, classifier.y)
    loss = -np.log(mean[np.arange(EXAMPLES), classifier.y]).mean()
    assert result.negative_log_likelihood == pytest.approx(loss, rel=1e-4)


def test_calibration_never_increases_the_loss_it_minimises(classifier, x):
    # Mostly right, so that the minimum is inside of the range.
    classes, wrong = classifier.ensemble.target.classes, np.arange(EXAMPLES) % 4 == 0
    y = (classifier.ensemble.majority_vote(x) + wrong) % classes
    before, after = classifier.ensemble, classifier.ensemble.calibrate(x, y)
    weights = np.random.default_rng(2).uniform(size=EXAMPLES)
    weighted = classifier.ensemble.calibrate(x, y, sample_weight=weights)
    assert after.temperature != weighted.temperature
    for ensemble, options in ((after, {}), (weighted, {"sample_weight": weights})):
        losses = [
            one.evaluate(x, y, **options).negative_log_likelihood for one in (before, ensemble)
        ]
        assert losses[1] <= losses[0]
    accuracies = [one.evaluate(x, y).member_accuracy for one in (before, after)]
    np.testing.assert_array_equal(*accuracies)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    assert classifier.ensemble.calibrate(data).temperature == pytest.approx(after.temperature)
    assert after.calibrate(x, y).temperature == pytest.approx(after.temperature, rel=1e-3)


def test_calibration_is_the_minimum_over_temperatures(cases, x):
    c = cases["logits"]
    ensemble, target = c.ensemble.calibrate(x, c.y), c.ensemble.target
    best = ensemble.evaluate(x, c.y).negative_log_likelihood
    for factor in (0.1, 0.9, 0.99, 1.01, 1.1, 10):
        other = hn.Ensemble(target, ensemble.weights, temperature=factor * ensemble.temperature)
        assert other.evaluate(x, c.y).negative_log_likelihood > best


def test_the_lowest_of_several_minima_is_found():
    """One network is sure and wrong, the other unsure and right: the loss falls at both ends."""
    log_p = log_softmax([[[0.0, 20.0]] * 4, [[0.025, 0.0]] * 4], -1)
    runs = [(log_p, Chunk(None, np.zeros(4, int), None))]
    temperature = best_temperature(runs)
    losses = [
        -np.log(np.mean(np.exp(log_softmax(log_p / t, -1))[:, 0, 0])) for t in (temperature, 0.01)
    ]
    assert temperature > 10
    assert losses[0] < losses[1]


def test_labels_that_are_all_predicted_lower_the_temperature(cases, x):
    one = cases["logits"].ensemble[0]
    result = one.calibrate(x, one.majority_vote(x))
    assert 0.01 <= result.temperature < 0.5


def test_temperature_is_kept(cases, x, tmp_path):
    c = cases["logits"]
    ensemble = c.ensemble.calibrate(x, c.y)
    assert c.ensemble.temperature == 1.0 != ensemble.temperature
    ensemble.save(tmp_path / "calibrated.npz")
    loaded = hn.Ensemble.load(tmp_path / "calibrated.npz")
    for same in (ensemble[1:3], ensemble[0], loaded, ensemble.update_batch_norm(x)):
        assert same.temperature == ensemble.temperature
    np.testing.assert_array_equal(loaded.predict(x), ensemble.predict(x))
    assert ensemble.polyak_average().temperature == 1.0
    network = ensemble[0].to_keras()  # which returns outputs
    np.testing.assert_allclose(
        network.predict(x, verbose=0), ensemble[0].outputs(x)[0], rtol=1e-4, atol=1e-5
    )


def test_temperatures_that_are_not_defined_raise(cases, x):
    c = cases["values"]
    for wrong in (0.0, -1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match=r"^temperature is .*: give a finite number above 0"):
            hn.Ensemble(c.ensemble.target, c.ensemble.weights, temperature=wrong)
    with pytest.raises(ValueError, match=r"^a temperature needs classes"):
        hn.Ensemble(c.ensemble.target, c.ensemble.weights, temperature=2.0)
    with pytest.raises(ValueError, match=r"^calibrate\(\) needs classes"):
        c.ensemble.calibrate(x, x[:, :2, 0, 0])
