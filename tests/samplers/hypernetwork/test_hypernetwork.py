"""The hypernetwork: sizes, latent space, arguments, and what its loss is made of."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, fitted, hypernetwork
from small_terms import EnsembleLoss

import hypernet_tf as hn
from hypernet_tf.diversity import NegativeEntropy, NegativeOutputEntropy
from hypernet_tf.samplers.draws import TRAIN, stream_seed

pytestmark = pytest.mark.usefixtures("eager_fits")


class TestHypernetwork:
    def test_the_published_number_of_parameters(self):
        hyper = hn.Hypernetwork(
            hn.Target(hn.zoo.mnist()),
            latent_dim=300,
            code_dim=15,
            extractor_hidden=(300, 300),
            generator_hidden=[(40, 40), (100, 100), (100, 100), (60, 60)],
        )

        def count(layer):
            return sum(int(np.prod(v.shape)) for v in layer.trainable_variables)

        def dense(layer):
            kernels = [v for v in layer.trainable_variables if v.name == "kernel"]
            return sum(int(np.prod(v.shape)) for v in kernels)

        parts = [hyper.extractor, *hyper.generators]
        assert [dense(part) for part in parts] == [436_500, 3_240, 91_600, 90_000, 9_900]
        assert count(hyper) == 633_640

    def test_latent_distributions(self):
        uniform = hypernetwork(latent_dim=50).latent_vectors(tf.constant([0, 1], tf.int64), 400)
        normal = hypernetwork(latent_dim=50, latent_distribution="normal").latent_vectors(
            tf.constant([0, 1], tf.int64), 400
        )
        # 20,000 numbers: standard errors of the means 0.004, 0.007, of the deviations 0.002, 0.005
        assert np.abs(uniform).max() <= 1
        np.testing.assert_allclose(np.mean(uniform), 0, atol=0.02)
        np.testing.assert_allclose(np.std(uniform), 3**-0.5, atol=0.02)
        assert np.abs(normal).max() > 1
        np.testing.assert_allclose(np.mean(normal), 0, atol=0.03)
        np.testing.assert_allclose(np.std(normal), 1, atol=0.03)

    def test_weights_of_z_are_those_of_the_sample(self):
        hyper = hypernetwork()
        z = hyper.sample_latent(3, seed=5)
        np.testing.assert_allclose(
            hyper.target.flatten(hyper.weights_of(z)), hyper.sample(3, seed=5).theta(), rtol=1e-5
        )

    def test_whole_layers_have_one_code(self):
        hyper = hypernetwork(whole_layers=(0, 1), code_dim=[3, 5])
        assert hyper.extractor.codes == [(1, 3), (1, 5)]
        assert [g.outputs for g in hyper.generators] == [24, 27]

    def test_a_target_may_have_a_single_layer(self):
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        hyper = hypernetwork(model, whole_layers=())
        assert hyper.sample(2).theta().shape == (2, 15)

    @pytest.mark.slow
    def test_more_entropy_for_less_lam(self, blobs):
        """The balance does what it says: a small lam gives more entropy than a large one."""
        entropies = []
        for lam in (1.0, 1e4):
            sampler, _ = fitted(hypernetwork, *blobs, lam=lam)
            batch = hn.diversity.StepRecord(
                tf.constant(sampler.sample(30).theta()), tf.zeros([30, 4])
            )
            entropies.append(float(NegativeEntropy().entropy(batch)))
        assert entropies[0] > entropies[1] + 1

    @pytest.mark.parametrize("term", [NegativeOutputEntropy(), EnsembleLoss()])
    @pytest.mark.usefixtures("eager_fits")
    def test_terms_on_outputs_see_the_same_images(self, term, blobs):
        seen = []

        class Spy(type(term)):
            def value(self, batch):
                seen.append((batch.outputs.shape, batch.y.shape))
                return super().value(batch)

        sampler = hypernetwork(diversity=Spy())
        sampler.compile(optimizer="adam", loss=LOGITS)
        sampler.train_on_batch(*blobs)
        assert seen[0] == ((6, 16, 3), (16,))

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"lam": -1.0}, "lam"),
            ({"lam": float("nan")}, "lam"),
            ({"num_networks": 0}, "a whole number, at least 1"),
            ({"latent_dim": 0}, "latent_dim"),
            ({"latent_distribution": "cauchy"}, "'uniform' or 'normal'"),
            ({"code_dim": [3, 3, 3]}, "3 entries.* 2 weighted layers"),
            ({"whole_layers": (5,)}, "indices of the 2 weighted layers"),
            ({"gauge_epsilon": -1.0}, "epsilon"),
            ({"prior_scale": 0.0}, "scale"),
        ],
    )
    def test_bad_arguments_are_one_line(self, arguments, message):
        with pytest.raises(ValueError, match=message) as error:
            hypernetwork(**arguments)
        assert "\n" not in str(error.value)

    def test_a_loss_that_misreads_the_outputs_is_an_error(self):
        with pytest.raises(ValueError, match="from_logits=True"):
            hypernetwork().compile(optimizer="adam", loss="sparse_categorical_crossentropy")
        softmax = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
        with pytest.raises(ValueError, match="drop the target's softmax"):
            hypernetwork(softmax).compile(optimizer="adam", loss=LOGITS)

    @pytest.mark.usefixtures("eager_fits")
    def test_variational_inference_is_a_special_case(self, blobs):
        """lam = |data|, a prior, no gauge: the loss is the sum of its three parts."""
        sampler = hypernetwork(
            lam=96.0,
            prior_scale=2.0,
            gauge=False,
            diversity=NegativeEntropy(distance="l2", constants=True),
        )
        sampler.compile(optimizer=keras.optimizers.SGD(0.0), loss=LOGITS)
        seed = stream_seed(sampler.seed, TRAIN, 0)
        drawn = sampler.draw(seed, 6, training=True)
        theta = sampler.target.flatten(hn.WeightSet(drawn.trainable, []))
        logs = sampler.train_on_batch(*blobs, return_dict=True)
        entropy = hn.diversity.kozachenko_leonenko_entropy(theta, 4, constants=True, epsilon=1e-8)
        log_prior = -0.5 * (theta.numpy() / 2) ** 2 - np.log(2) - 0.5 * np.log(2 * np.pi)
        expected = 96 * logs["accuracy_loss"] - entropy - log_prior.sum(1).mean()
        assert logs["loss"] == pytest.approx(float(expected), rel=1e-5)
