"""Measures of weights: entropy, distance to neighbours, and those that a user registers."""

import numpy as np
import pytest
import tensorflow as tf
from small_samplers import classifier, deep_ensemble, hypernetwork

import hypernet_tf as hn
from hypernet_tf.metrics import MEASURES
from hypernet_tf.metrics.measures import main_measures
from hypernet_tf.samplers.weight_measures import ensemble_entropy, weight_measures
from hypernet_tf.training.tuning import ensemble_metrics, objective

pytestmark = pytest.mark.usefixtures("eager_fits")


class Halved(hn.diversity.NegativeEntropy):
    """An estimate of one's own."""

    def entropy(self, step):
        return super().entropy(step) / 2


def test_too_few_networks_have_no_value():
    sampler = hypernetwork()
    assert ensemble_entropy(sampler.sample(1), sampler) is None
    assert np.isfinite(ensemble_entropy(sampler.sample(2), sampler))
    assert weight_measures(sampler.sample(9), sampler)["nearest_neighbour_distance"] is None
    assert weight_measures(deep_ensemble().sample(2), deep_ensemble())["entropy"] is None


def test_the_entropy_is_that_of_the_samplers_own_term():
    plain = hypernetwork()
    ensemble = plain.sample(8)
    for term in (hn.diversity.NegativeEntropy(distance="l2", k=2, constants=True), Halved()):
        sampler = hypernetwork(diversity=[term])
        record = hn.diversity.StepRecord(tf.constant(ensemble.theta()), manifold_dim=4)
        entropy = ensemble_entropy(ensemble, sampler)
        assert entropy == pytest.approx(float(term.entropy(record)))
        assert entropy != pytest.approx(ensemble_entropy(ensemble, plain))


def test_the_distance_is_that_among_ten_networks():
    sampler = deep_ensemble()
    ensemble = sampler.sample(12)
    theta = ensemble.theta()[:10]
    distances = np.linalg.norm(theta[:, None] - theta[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    value = weight_measures(ensemble, sampler)["nearest_neighbour_distance"]
    assert value == pytest.approx(distances.min(1).mean(), rel=1e-4)


def test_one_entry_adds_a_measure_of_weights(blobs):
    measure = hn.metrics.Measure(
        "largest_weight",
        "largest weight",
        "diversity",
        better="lower",
        kind="weights",
        compute=lambda ensemble, sampler: np.abs(ensemble.theta()).max(),
        is_main=True,
    )
    try:
        hn.metrics.register_measure(measure)
        sampler = hn.DeepEnsemble(hn.Target(classifier(), outputs="logits"), num_networks=3)
        ensemble = sampler.sample(3)
        values = weight_measures(ensemble, sampler)
        assert values["largest_weight"] == np.abs(ensemble.theta()).max()
        assert type(values["largest_weight"]) is float  # which JSON takes
        assert "largest_weight" in main_measures()
        assert objective("largest_weight").direction == "min"
        result = ensemble.evaluate(*blobs)
        assert "largest_weight" not in result.summary()
        metrics = ensemble_metrics(result, values)
        assert metrics["largest_weight"] == values["largest_weight"]
        assert "entropy" not in metrics  # which a deep ensemble does not have
    finally:
        del MEASURES["largest_weight"]
