"""Mixtures of samplers: networks of each in turn, trained as if each were alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, classifier, hypernetwork, mixture

import hypernet_tf as hn
from hypernet_tf.samplers.weight_measures import ensemble_entropy

pytestmark = pytest.mark.usefixtures("eager_fits")


class TestNetworks:
    def test_they_come_from_the_samplers_in_turn(self):
        both = mixture()
        z = both.sample_latent(5)
        np.testing.assert_array_equal(z[:, 0], [0, 1, 0, 1, 0])
        for network in range(5):
            alone = both.samplers[network % 2].weights_of(z[network : network + 1, 1:])
            np.testing.assert_allclose(
                both.sample(5).theta()[network], both.target.flatten(alone)[0], rtol=1e-5, atol=1e-6
            )

    def test_paths_stay_in_a_sampler(self):
        both = mixture()
        z = tf.repeat(both.sample_latent(2)[1:], 3, 0)
        theta = both.target.flatten(both.weights_of(z))
        np.testing.assert_allclose(theta, np.repeat(theta[:1], 3, 0), rtol=1e-5, atol=1e-6)
        assert both.generate(z).codes[0].shape == (3, 8, 3)

    def test_the_entropy_takes_the_dimension_of_the_samplers(self):
        """In training, and where the entropy of an ensemble is reported."""
        both = mixture()
        drawn = both.generate(both.sample_latent(8))
        assert drawn.z.shape == (8, both.latent_dim - 1)
        assert both.manifold_dim == both.samplers[0].latent_dim
        ensemble = both.sample(8)
        theta = tf.constant(ensemble.theta())
        expected = both.diversity[0].entropy(hn.diversity.StepRecord(theta, drawn.z))
        assert ensemble_entropy(ensemble, both) == pytest.approx(float(expected))

    def test_fewer_networks_than_samplers(self):
        both = mixture()
        with pytest.raises(ValueError, match=r"^A device that runs 1 networks has none for some"):
            both.generate(both.sample_latent(1), training=True)
        assert mixture().sample(1).theta().shape == (1, 51)


@pytest.mark.usefixtures("eager_fits")
def test_each_sampler_trains_as_if_it_were_alone(blobs):
    """One step of Adam, which does not depend on the scale of the gradient, on the same images."""
    x, y = blobs
    keras.utils.set_random_seed(0)
    both = mixture(diversity=[])
    alone = hypernetwork(initialization="scaled", diversity=[])
    alone.set_weights(both.samplers[0].get_weights())
    for sampler in (both, alone):
        sampler.compile(keras.optimizers.Adam(1e-3, epsilon=1e-12), LOGITS)
    z = both.latent_vectors(hn.samplers.draws.stream_seed(0, hn.samplers.draws.TRAIN, 0), 12)
    alone.latent_vectors = lambda seed, count: z[::2, 1:]
    # The networks of the first sampler are every other one, and each network has 8 images.
    images = np.reshape(x, [12, 8, 2])[::2].reshape(-1, 2)
    labels = np.reshape(y, [12, 8])[::2].reshape(-1)
    both.train_on_batch(x, y)
    alone.train_on_batch(images, labels)
    pairs = zip(both.samplers[0].trainable_variables, alone.trainable_variables, strict=True)
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_samplers_that_do_not_fit():
    with pytest.raises(ValueError, match="A mixture of no samplers: give at least one"):
        hn.Mixture([])
    with pytest.raises(ValueError, match=r"have the latent dimensions \[4, 5\]: make them alike"):
        hn.Mixture([hypernetwork(latent_dim=4), hypernetwork(latent_dim=5)])
    with pytest.raises(ValueError, match=r"would leave out BHN\.extra_loss: mix hypernetworks"):
        hn.Mixture([hn.BHN(classifier(), num_data=10)])
    with pytest.raises(ValueError, match=r"one sampler twice: make new ones, \[Hypernetwork\(mod"):
        hn.Mixture([hypernetwork()] * 2)
    parts = [hypernetwork() for _ in range(2)]
    with pytest.raises(ValueError, match=r"A step of 3 networks has fewer than 2 for some of 2"):
        hn.Mixture(parts, num_networks=3)
    assert all(part.diversity for part in parts)  # they are as they were
    both = hn.Mixture(parts)
    assert both.diversity
    with pytest.raises(ValueError, match=r"^A sampler is part of another mixture"):
        hn.Mixture(parts)
    with pytest.raises(ValueError, match=r"would leave out NoiseControl\.gauge"):
        hn.Mixture([hn.NoiseControl(classifier()) for _ in range(2)])
    larger = classifier(keras.layers.Dense(4))
    with pytest.raises(ValueError, match="have the targets with numbers of weights"):
        hn.Mixture([hypernetwork(), hypernetwork(larger)])
    heavy = classifier(keras.layers.Dense(8, kernel_regularizer="l2"))
    with pytest.raises(ValueError, match="The targets of a mixture have different regularizers"):
        hn.Mixture([hypernetwork(classifier(keras.layers.Dense(8))), hypernetwork(heavy)])


def test_options_of_a_step_are_those_of_the_first():
    options = {
        "lam": 7.0,
        "lam_growth": 1.5,
        "prior_scale": 2.0,
        "gauge": {"softmax": False},
        "shared_inputs": True,
        "gauge_epsilon": 1e-6,
        "seed": 5,
    }
    mixture = hn.Mixture([hypernetwork(**options), hypernetwork()])
    assert {name: mixture.get_config()[name] for name in options} == options
    assert not hn.Mixture([hypernetwork(**options)], shared_inputs=False).shared_inputs


@pytest.mark.usefixtures("eager_fits")
def test_a_mixture_with_a_trained_term_is_saved(blobs, tmp_path):
    term = hn.diversity.PriorDiscriminator(hidden=(8,))
    parts = [hypernetwork(diversity=[hn.diversity.NegativeEntropy(), term]) for _ in range(2)]
    both = hn.Mixture(parts)
    both.compile("adam", LOGITS)
    both.train_on_batch(*blobs)
    both.save(tmp_path / "mixture.keras")
    loaded = keras.saving.load_model(tmp_path / "mixture.keras")
    assert [type(t) for t in loaded.diversity] == [type(t) for t in both.diversity]
    assert [part.diversity for part in loaded.samplers] == [[], []]
    np.testing.assert_array_equal(loaded.sample(4).theta(), both.sample(4).theta())
    for sampler in (loaded, both):
        sampler.train_on_batch(*blobs)
    np.testing.assert_allclose(loaded.sample(4).theta(), both.sample(4).theta(), atol=1e-6)


def test_its_samplers_get_latent_vectors_of_their_own():
    z = mixture().sample_latent(4).numpy()
    assert z[:, 0].tolist() == [0, 1, 0, 1]
    for one, other in ((0, 1), (2, 3)):
        assert np.abs(z[one, 1:] - z[other, 1:]).max() > 0.1
