"""The contract that every weight sampler keeps, and what the hypernetwork promises beyond it."""

import inspect
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import hypernet_tf as hn
from hypernet_tf.diversity import EnsembleLoss, NegativeEntropy, NegativeOutputEntropy
from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.samplers.dealing import deal
from hypernet_tf.samplers.draws import EVALUATE, stream_seed

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def classifier(*extra):
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((2,)), layers.Dense(8, activation="relu"), *extra, layers.Dense(3)]
    )


def hypernetwork(model=None, **kwargs):
    settings = {
        "latent_dim": 4,
        "code_dim": 3,
        "extractor_hidden": (16,),
        "generator_hidden": (12,),
        "networks": 6,
        "lam": 100.0,
    }
    return hn.Hypernetwork(hn.Target(model or classifier()), **settings | kwargs)


def deep_ensemble(model=None, **kwargs):
    return hn.DeepEnsemble(hn.Target(model or classifier()), **{"networks": 12} | kwargs)


def mnf(model=None, **kwargs):
    return hn.MNF(hn.Target(model or classifier()), **{"networks": 6, "data_size": 96} | kwargs)


def noise_control(model=None, **kwargs):
    return hn.NoiseControl(hn.Target(model or classifier()), **{"scale": 0.05} | kwargs)


def chains(model=None, **kwargs):
    settings = {"chains": 10, "snapshots": 2, "every": 2}
    return hn.SGDChains(hn.Target(model or classifier()), **settings | kwargs)


def langevin(model=None, **kwargs):
    settings = {"chains": 12, "lam": 96.0}
    return hn.SGLD(hn.Target(model or classifier()), **settings | kwargs)


SAMPLERS = {
    hn.Hypernetwork: hypernetwork,
    hn.DeepEnsemble: deep_ensemble,
    hn.NoiseControl: noise_control,
    hn.MNF: mnf,
    hn.SGDChains: chains,
    hn.SGLD: langevin,
}


def optimizer(sampler):
    """One that suits the sampler: Langevin dynamics follow plain SGD."""
    langevin = isinstance(sampler, hn.SGLD)
    return keras.optimizers.SGD(2e-3) if langevin else keras.optimizers.Adam(0.02)


def fitted(make, x, y, loss=LOGITS, epochs=25, **kwargs):
    sampler = make(**kwargs)
    sampler.compile(optimizer=optimizer(sampler), loss=loss, metrics=["accuracy"])
    history = sampler.fit(x, y, batch_size=48, epochs=epochs, verbose=0)
    return sampler, history.history


def test_every_sampler_is_in_the_contract():
    def concrete(cls):
        return ({cls} if not inspect.isabstract(cls) else set()).union(
            *map(concrete, cls.__subclasses__())
        )

    ours = {cls for cls in concrete(WeightSampler) if cls.__module__.startswith("hypernet_tf")}
    assert ours == set(SAMPLERS)


@pytest.fixture(params=SAMPLERS.values(), ids=[cls.__name__ for cls in SAMPLERS])
def make(request):
    return request.param


class TestContract:
    def test_samples_are_a_function_of_the_seed(self, make):
        sampler = make()
        first, same, other = (sampler.sample(7, seed=s).theta() for s in (0, 0, 1))
        assert first.shape == (7, sampler.target.weight_count)
        assert np.abs(first - other).max() > 1e-3
        assert np.abs(first[0] - first[1]).max() > 1e-3
        np.testing.assert_array_equal(first, same)

    def test_fit_learns_and_the_ensemble_works(self, make, blobs):
        sampler, history = fitted(make, *blobs)
        assert history["accuracy_loss"][-1] < 0.5 * history["accuracy_loss"][0]
        result = sampler.sample(10).evaluate(*blobs)
        assert result.majority_vote_accuracy > 0.9
        assert result.member_accuracy.mean() > 0.85  # three classes by chance: 0.33

    def test_saved_and_loaded_it_goes_on_alike(self, make, blobs, tmp_path):
        sampler, _ = fitted(make, *blobs)
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        np.testing.assert_array_equal(loaded.sample(5).theta(), sampler.sample(5).theta())
        logs = [m.train_on_batch(*blobs, return_dict=True) for m in (sampler, loaded)]
        assert logs[0] == logs[1]
        np.testing.assert_array_equal(loaded.sample(5).theta(), sampler.sample(5).theta())

    def test_a_step_is_a_function_of_seed_and_step(self, make, blobs):
        def after_two_steps(seed):
            keras.utils.set_random_seed(0)
            sampler = make(seed=seed)
            sampler.compile(optimizer="sgd", loss=LOGITS)
            tf.random.normal([3])  # nothing outside the model has a part in it
            losses = [sampler.train_on_batch(*blobs) for _ in range(2)]
            return losses, sampler.sample(2).theta()

        losses, theta = after_two_steps(0)
        again, theta_again = after_two_steps(0)
        other, _ = after_two_steps(1)
        assert losses == again
        np.testing.assert_array_equal(theta, theta_again)
        assert losses[0] != other[0]
        assert losses[0] != losses[1]

    def test_keras_users_expectations(self, make, blobs, tmp_path):
        sampler = make()
        sampler.compile(optimizer=optimizer(sampler), loss=LOGITS, metrics=["accuracy"])
        data = tf.data.Dataset.from_tensor_slices(blobs).batch(40)  # 40, 40, 16
        history = sampler.fit(
            data,
            epochs=3,
            verbose=0,
            shuffle=False,
            validation_data=data,
            callbacks=[
                keras.callbacks.EarlyStopping("val_accuracy_loss", mode="min", patience=5),
                keras.callbacks.ModelCheckpoint(
                    tmp_path / "best.weights.h5", save_weights_only=True
                ),
                keras.callbacks.TensorBoard(tmp_path / "logs"),
                keras.callbacks.CSVLogger(tmp_path / "log.csv"),
            ],
        ).history
        assert {"loss", "accuracy_loss", "diversity_loss", "accuracy", "val_loss"} <= set(history)
        lines: list[str] = []
        sampler.summary(print_fn=lines.append)
        assert "Trainable params" in "\n".join(lines)
        logs = sampler.evaluate(*blobs, batch_size=48, return_dict=True, verbose=0)
        assert logs == sampler.evaluate(*blobs, batch_size=48, return_dict=True, verbose=0)
        x = blobs[0]
        prediction = sampler.predict(x, networks=9, seed=3)
        np.testing.assert_array_equal(prediction, sampler.sample(9, seed=3).predict(x))
        np.testing.assert_allclose(prediction.sum(-1), 1, rtol=1e-5)
        assert sampler(x).shape == (96, 3)
        loaded = make()
        loaded.load_weights(tmp_path / "best.weights.h5")
        json.dumps(sampler.get_config())

    def test_the_step_counts_and_lam_grows(self, make, blobs):
        sampler = make(lam=2.0, lam_growth=1.5)
        sampler.compile(optimizer="sgd", loss=LOGITS)
        for _ in range(3):
            sampler.train_on_batch(*blobs)
        assert int(sampler.step.numpy()) == 3
        np.testing.assert_allclose(sampler.lam.numpy(), 2.0 * 1.5**3, rtol=1e-6)

    def test_regression(self, make, tmp_path):
        layers = keras.layers
        model = keras.Sequential(
            [keras.Input((1,)), layers.Dense(8, activation="tanh"), layers.Dense(1)]
        )
        x = np.linspace(-1, 1, 64, dtype="float32")[:, None]
        y = np.sin(3 * x)
        sampler, history = fitted(lambda: make(model), x, y, loss="mse", epochs=60)
        assert history["accuracy_loss"][-1] < 0.5 * history["accuracy_loss"][0]
        result = sampler.sample(10).evaluate(x, y)
        assert result.mean_squared_error < y.var()
        assert result.standard_deviation > 0
        assert sampler.predict(x).shape == (64, 1)
        assert np.isfinite(sampler.evaluate(x, y, verbose=0)).all()
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        np.testing.assert_array_equal(loaded.predict(x), sampler.predict(x))
        with pytest.raises(ValueError, match="vote needs classes"):
            sampler.sample(3).majority_vote(x)

    def test_targets_with_batch_norm_and_dropout(self, make, blobs):
        layers = keras.layers
        model = classifier(layers.BatchNormalization(), layers.Dropout(0.2))
        sampler, history = fitted(lambda: make(model), *blobs, epochs=60)
        assert history["accuracy_loss"][-1] < 0.7 * history["accuracy_loss"][0]
        assert sampler.evaluate(*blobs, batch_size=96, verbose=0)[1] > 0.6
        ensemble = sampler.sample(4)
        with pytest.raises(ValueError, match="calibrate"):
            ensemble.evaluate(*blobs)
        assert ensemble.calibrate(blobs[0]).evaluate(*blobs).majority_vote_accuracy > 0.6

    def test_frozen_layers_travel_with_the_sampler(self, make, blobs, tmp_path):
        norm = keras.layers.Normalization()
        norm.adapt(blobs[0] * 7 + 5)
        model = keras.Sequential([keras.Input((2,)), norm, *classifier().layers])
        sampler = make(model)
        sampler.save(tmp_path / "sampler.keras")
        loaded = keras.saving.load_model(tmp_path / "sampler.keras")
        x = blobs[0] * 7 + 5
        outputs = sampler.sample(2).outputs(x)
        assert np.abs(outputs).max() < 1e3
        np.testing.assert_array_equal(loaded.sample(2).outputs(x), outputs)


class TestDealing:
    @pytest.mark.parametrize("size", [1, 5, 12, 13])
    def test_examples_are_dealt_in_order(self, size):
        dealt = deal({"a": tf.range(size)[:, None]}, 4)["a"]
        assert dealt.shape == (4, -(-size // 4), 1)
        filled = np.arange(4 * -(-size // 4)) % size
        np.testing.assert_array_equal(np.ravel(dealt), filled)

    def test_the_loss_of_a_short_batch_is_the_mean_over_its_examples(self, blobs):
        """With all networks alike, the accuracy loss is that of one network on the examples."""
        sampler = hypernetwork(networks=6, diversity=[])
        for variable in sampler.extractor.trainable_variables:
            variable.assign(tf.zeros_like(variable))  # one code, so one network
        sampler.compile(optimizer=keras.optimizers.SGD(0.0), loss=LOGITS, metrics=["accuracy"])
        x, y = blobs[0][:17], blobs[1][:17]
        network = sampler.sample(1)[0].to_keras()
        logs = sampler.test_on_batch(x, y, return_dict=True)
        expected = float(LOGITS(y, network(x)))
        assert logs["accuracy_loss"] == pytest.approx(expected, rel=1e-5)
        hits = np.mean(np.argmax(network(x), -1) == y)
        assert logs["accuracy"] == pytest.approx(hits, rel=1e-5)


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
        normal = hypernetwork(latent_dim=50, latent="normal").latent_vectors(
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
        hyper = hypernetwork(whole=(0, 1), code_dim=[3, 5])
        assert hyper.extractor.codes == [(1, 3), (1, 5)]
        assert [g.outputs for g in hyper.generators] == [24, 27]

    def test_more_entropy_for_less_lam(self, blobs):
        """The balance does what it says: a small lam gives more entropy than a large one."""
        entropies = []
        for lam in (1.0, 1e4):
            sampler, _ = fitted(hypernetwork, *blobs, lam=lam)
            batch = hn.diversity.Batch(tf.constant(sampler.sample(30).theta()), tf.zeros([30, 4]))
            entropies.append(float(NegativeEntropy().entropy(batch)))
        assert entropies[0] > entropies[1] + 1

    @pytest.mark.parametrize("term", [NegativeOutputEntropy(), EnsembleLoss()])
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
            ({"networks": 0}, "at least one network"),
            ({"latent_dim": 0}, "latent_dim"),
            ({"latent": "cauchy"}, "uniform"),
            ({"code_dim": [3, 3, 3]}, "3 entries.* 2 weighted layers"),
            ({"whole": (5,)}, "whole names layers"),
            ({"gauge_epsilon": -1.0}, "epsilon"),
            ({"prior": 0.0}, "scale"),
        ],
    )
    def test_bad_arguments_are_one_line(self, arguments, message):
        with pytest.raises(ValueError, match=message) as error:
            hypernetwork(**arguments)
        assert "\n" not in str(error.value)

    def test_entropy_of_one_network_is_refused(self, blobs):
        sampler = hypernetwork(networks=1)
        sampler.compile(optimizer="adam", loss=LOGITS)
        with pytest.raises(ValueError, match="use more networks"):
            sampler.train_on_batch(*blobs)

    def test_a_loss_that_misreads_the_outputs_is_refused(self):
        with pytest.raises(ValueError, match="from_logits=True"):
            hypernetwork().compile(optimizer="adam", loss="sparse_categorical_crossentropy")
        softmax = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3, activation="softmax")])
        with pytest.raises(ValueError, match="drop the target's softmax"):
            hypernetwork(softmax).compile(optimizer="adam", loss=LOGITS)

    def test_variational_inference_is_a_special_case(self, blobs):
        """lam = |data|, a prior, no gauge: the loss is the sum of its three parts."""
        sampler = hypernetwork(
            lam=96.0,
            prior=2.0,
            gauge=False,
            diversity=NegativeEntropy(distance="l2", constants=True),
        )
        sampler.compile(optimizer=keras.optimizers.SGD(0.0), loss=LOGITS)
        logs = sampler.test_on_batch(*blobs, return_dict=True)
        own = stream_seed(sampler.seed, EVALUATE, 0)
        theta = sampler.target.flatten(
            hn.WeightSet(sampler.draw(own, 6, training=False).trainable, [])
        )
        entropy = hn.diversity.kozachenko_leonenko_entropy(theta, 4, constants=True, epsilon=1e-8)
        log_prior = -0.5 * (theta.numpy() / 2) ** 2 - np.log(2) - 0.5 * np.log(2 * np.pi)
        expected = 96 * logs["accuracy_loss"] - entropy - log_prior.sum(1).mean()
        assert logs["loss"] == pytest.approx(float(expected), rel=1e-5)


class TestDeepEnsemble:
    @pytest.mark.parametrize("optimizer", ["sgd", "adam"])
    def test_it_is_ordinary_training_of_each_network(self, blobs, optimizer):
        x, y = blobs
        sampler = deep_ensemble(networks=4, gauge=False)
        networks = [member.to_keras() for member in sampler.sample(4)]
        sampler.compile(optimizer=optimizer, loss=LOGITS)
        for network in networks:
            network.compile(optimizer=optimizer, loss=LOGITS)
        start = sampler.sample(4).theta()
        for _ in range(5):
            sampler.train_on_batch(x, y)
            for n, network in enumerate(networks):
                network.train_on_batch(x[24 * n : 24 * n + 24], y[24 * n : 24 * n + 24])
        theta = sampler.sample(4).theta()
        assert np.abs(theta - start).max(1).min() > 1e-3
        for row, network in zip(theta, networks, strict=True):
            expected = np.concatenate([v.numpy().ravel() for v in network.trainable_variables])
            np.testing.assert_allclose(row, expected, atol=2e-6)

    def test_a_prior_acts_as_it_would_on_one_network(self, blobs):
        x, y = blobs
        several, alone = (deep_ensemble(networks=n, prior=0.5, lam=9.0) for n in (4, 1))
        for sampler, share in ((several, 96), (alone, 24)):
            sampler.compile(optimizer=keras.optimizers.SGD(1e-3), loss=LOGITS)
            start = sampler.sample(1).theta()[0]
            for _ in range(4):
                sampler.train_on_batch(x[:share], y[:share])
        assert np.abs(alone.sample(1).theta()[0] - start).max() > 1e-3
        np.testing.assert_allclose(
            several.sample(4).theta()[0], alone.sample(1).theta()[0], rtol=1e-4, atol=1e-6
        )

    def test_samples_are_its_networks_in_the_gauge(self):
        sampler = deep_ensemble()
        every, plain = sampler.sample(12).theta(), deep_ensemble(gauge=False).sample(12).theta()
        assert np.abs(every - plain).max() > 0.1
        some = sampler.sample(3, seed=4).theta()
        places = [np.flatnonzero(np.abs(every - row).max(1) < 1e-6).tolist() for row in some]
        assert all(len(place) == 1 for place in places)
        assert places == sorted(places)
        assert len({place[0] for place in places}) == 3
        x = np.random.default_rng(0).normal(size=(5, 2)).astype("float32")
        np.testing.assert_allclose(
            sampler.sample(12).outputs(x),
            deep_ensemble(gauge=False).sample(12).outputs(x),
            rtol=1e-4,
            atol=1e-5,
        )

    def test_it_is_finite(self, blobs):
        with pytest.raises(ValueError, match="has 12 networks: 13 are not to be had"):
            deep_ensemble().sample(13)
        sampler = deep_ensemble(networks=1)
        assert sampler.predict(blobs[0]).shape == (96, 3)

    def test_initial_weights_are_those_of_the_model_or_as_given(self):
        init = keras.initializers
        model = keras.Sequential(
            [
                keras.Input((2,)),
                keras.layers.Dense(300, kernel_initializer=init.RandomNormal(stddev=3.0)),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(3),
            ]
        )
        kernel, bias, gamma, *_ = deep_ensemble(model, gauge=False).sample(12).weights.trainable
        np.testing.assert_allclose(np.std(kernel), 3.0, rtol=0.05)
        assert np.abs(kernel[0] - kernel[1]).max() > 1
        np.testing.assert_array_equal(bias, 0)
        np.testing.assert_array_equal(gamma, 1)
        given = {"kernel": init.TruncatedNormal(stddev=0.1), "bias": init.Constant(0.1)}
        sampler = deep_ensemble(model, gauge=False, initializers=given)
        kernel, bias, gamma, *_ = sampler.sample(12).weights.trainable
        np.testing.assert_allclose(np.std(kernel), 0.088, rtol=0.05)  # 0.1, cut at 2 of these
        np.testing.assert_array_equal(bias, np.float32(0.1))
        np.testing.assert_array_equal(gamma, 1)
        with pytest.raises(ValueError, match="no variable named kernels; its variables are"):
            deep_ensemble(initializers={"kernels": "zeros"})

    def test_a_network_does_not_depend_on_how_many_there_are(self):
        few, many = deep_ensemble(networks=2), deep_ensemble(networks=5)
        np.testing.assert_array_equal(few.sample(2).theta(), many.sample(5).theta()[:2])


class TestNoiseControl:
    def test_samples_are_noise_around_the_trained_network(self, blobs):
        sampler, _ = fitted(lambda: noise_control(gauge=False, scale=0.3), *blobs)
        theta = sampler.sample(4000).theta()
        trained = np.concatenate([v.numpy().ravel() for v in sampler.theta])
        np.testing.assert_allclose(theta.mean(0), trained, atol=0.03)
        np.testing.assert_allclose(theta.std(0), 0.3, rtol=0.06)
        gauged, _ = fitted(noise_control, *blobs)
        centre = hn.DeepEnsemble(gauged.target, networks=1)
        for own, value in zip(centre.theta, gauged.theta, strict=True):
            own.assign(value)
        gauged.scale.assign(1e-6)
        np.testing.assert_allclose(
            gauged.sample(1).theta(), centre.sample(1).theta(), rtol=1e-3, atol=1e-4
        )

    def test_matched_networks_are_as_far_apart(self, blobs):
        other = deep_ensemble(networks=12).sample(12)
        sampler, _ = fitted(noise_control, *blobs)
        scale = sampler.match(other)
        assert scale == float(sampler.scale.numpy()) != pytest.approx(0.05, rel=0.1)

        def distance(ensemble):
            near = hn.diversity.nearest_neighbour_distances(tf.constant(ensemble.theta()))
            return float(np.log(near).mean())

        np.testing.assert_allclose(distance(sampler.sample(12)), distance(other), atol=1e-4)

    def test_what_cannot_be_matched_is_refused_and_changes_nothing(self):
        sampler = noise_control(scale=0.05)
        theta = 1e6 * np.random.default_rng(0).normal(size=(5, sampler.target.weight_count))
        far = hn.Ensemble(
            sampler.target, sampler.target.unflatten(tf.constant(theta.astype("float32")))
        )
        with pytest.raises(ValueError, match="no noise makes networks as far apart"):
            sampler.match(far)
        assert float(sampler.scale.numpy()) == pytest.approx(0.05)
        with pytest.raises(ValueError, match="positive number, not 0"):
            noise_control(scale=0)
