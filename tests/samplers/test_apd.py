"""Adversarial posterior distillation: its losses, and a posterior whose moments are known."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, apd, classifier, deep_ensemble

import hypernet_tf as hn
from hypernet_tf.samplers.batching import Share


def ensemble_of(target, theta):
    return hn.Ensemble(target, target.unflatten(tf.constant(theta, tf.float32)))


def line():
    """A model of two weights without symmetries: y = slope · x + offset."""
    return keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])


MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[0.5, 0.3], [0.3, 0.25]])


def posterior(count):
    return np.random.default_rng(0).multivariate_normal(MEAN, COVARIANCE, count)


class TestLosses:
    def test_the_gradient_penalty_of_a_linear_critic(self):
        """D(theta) = w · theta: (||w|| - 1)² everywhere."""
        sampler = apd(hidden=())
        kernel, _ = sampler.critic.trainable_variables
        theta = tf.random.stateless_normal([5, sampler.target.weight_count], [0, 1])
        for length in (0.0, 0.5, 3.0):
            kernel.assign(length * kernel / tf.norm(kernel))
            np.testing.assert_allclose(
                sampler.gradient_penalty(theta), (length - 1) ** 2, atol=1e-4
            )
            kernel.assign(tf.ones_like(kernel))

    def test_the_gradient_of_the_penalty_is_that_of_finite_differences(self):
        sampler = apd(line(), hidden=(7,), ensemble=None)
        theta = tf.random.stateless_normal([9, 2], [0, 1])
        kernel = sampler.critic.trainable_variables[0]
        with tf.GradientTape() as tape:
            penalty = sampler.gradient_penalty(theta)
        gradient = tape.gradient(penalty, kernel).numpy()
        start, step = kernel.numpy(), 1e-3
        for index in ((0, 1), (1, 4)):
            change = np.zeros_like(start)
            change[index] = step
            kernel.assign(start + change)
            above = sampler.gradient_penalty(theta)
            kernel.assign(start - change)
            below = sampler.gradient_penalty(theta)
            np.testing.assert_allclose(
                (above - below) / (2 * step), gradient[index], rtol=0.02, atol=1e-3
            )
            kernel.assign(start)
        assert np.abs(gradient).max() > 1e-3

    def test_the_generator_climbs_the_critic(self, blobs):
        sampler = apd(critic_steps=1, critic_rate=1e-9)
        sampler.compile(keras.optimizers.SGD(1e-3), LOGITS, run_eagerly=True)
        z = sampler.latent_vectors(tf.constant([0, 1], tf.int64), 200)

        def value():
            return float(tf.reduce_mean(sampler.critic(sampler.generator(z))))

        before = value()
        sampler.train_on_batch(*blobs)
        assert value() > before

    def test_the_penalty_has_its_factor(self, blobs):
        moves = []
        for penalty in (1e-6, 10.0, 20.0):
            sampler = apd(critic_steps=1, penalty=penalty)
            sampler.compile(keras.optimizers.SGD(1e-4), LOGITS, run_eagerly=True)
            start = [v.numpy() for v in sampler.critic.trainable_variables]
            sampler.train_on_batch(*blobs)
            moves.append(sampler.critic.trainable_variables[0].numpy() - start[0])
        none, once, twice = moves
        assert np.abs(once - none).max() > 1e-6
        np.testing.assert_allclose(twice - none, 2 * (once - none), rtol=1e-2, atol=1e-7)

    @pytest.mark.parametrize("critic_steps", [1, 3])
    def test_a_step_trains_the_critic_several_times_and_the_generator_once(
        self, blobs, critic_steps
    ):
        sampler = apd(critic_steps=critic_steps)
        sampler.compile(optimizer=keras.optimizers.SGD(0.1), loss=LOGITS, run_eagerly=True)
        start = [v.numpy() for v in sampler.trainable_variables]
        logs = sampler.train_on_batch(*blobs, return_dict=True)
        assert int(sampler.critic_optimizer.iterations.numpy()) == critic_steps
        assert int(sampler.optimizer.iterations.numpy()) == 1
        moved = [
            np.abs(v - s).max() for v, s in zip(sampler.trainable_variables, start, strict=True)
        ]
        assert min(moved[:3]) > 0
        assert moved[4] > 0  # the critic's first kernel
        assert np.isfinite([*logs.values()]).all()

    def test_the_critic_follows_the_learning_rate_of_the_generator(self, blobs):
        """A schedule counts steps of the generator; the critic takes five times as many."""
        sampler = apd(critic_rate=3.0)
        schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
        sampler.compile(keras.optimizers.SGD(schedule), LOGITS, run_eagerly=True)
        for expected in (0.1, 0.05):
            sampler.train_on_batch(*blobs)
            np.testing.assert_allclose(sampler.critic_optimizer.learning_rate, 3 * expected)

    def test_the_critic_tells_networks_apart(self):
        sampler = apd(critic_steps=1, hidden=(32,), num_networks=12)
        # Generated networks lie elsewhere than those of the ensemble, and stay there.
        sampler.generator.trainable_variables[-1].assign_add(3 * tf.ones([51]))
        sampler.compile(optimizer="adam", loss=LOGITS)
        sampler.critic_optimizer.learning_rate = 0.01

        @tf.function
        def step(number):
            return sampler._critic_step(tf.stack([0, number]), Share(12, replicas=1))

        distances = [float(step(tf.constant(number))) for number in range(60)]
        assert distances[0] < 3 < distances[-1]
        z = sampler.latent_vectors(tf.constant([0, 1]), 64)
        fake = sampler.critic(sampler.generator(z)).numpy().mean()
        real = sampler.critic(sampler._standardised).numpy().mean()
        assert real - fake > 3


@pytest.mark.usefixtures("eager_fits")
def test_networks_may_change_while_it_trains(blobs, tmp_path):
    """As `BackupAndRestore` loads weights before the first step of a `fit`."""
    sampler, other = apd(), hn.APD(classifier(), num_networks=6, hidden=(16,), latent_dim=4)
    for one in (sampler, other):
        one.compile("sgd", LOGITS)
    sampler.save_weights(tmp_path / "learned.weights.h5")
    load = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: other.load_weights(tmp_path / "learned.weights.h5")
    )
    other.fit(*blobs, batch_size=96, callbacks=[load], verbose=0)
    assert int(other.step.numpy()) == 1
    np.testing.assert_array_equal(other._standardised, sampler._standardised)
    sampler.forget_ensemble()
    sampler.save_weights(tmp_path / "forgotten.weights.h5")
    other.load_weights(tmp_path / "forgotten.weights.h5")
    with pytest.raises(ValueError, match="There are no networks to learn"):
        other.fit(*blobs, batch_size=96, verbose=0)


def test_a_traced_step_learns_the_networks_of_today(blobs):
    """As many as before, and then more."""
    sampler = apd(critic_steps=1)
    sampler.compile(keras.optimizers.SGD(0.0), LOGITS)
    theta = np.random.default_rng(0).normal(size=(40, sampler.target.weight_count))
    seen = []
    for count in (12, 12, 40):
        theta[:count] **= 2  # other networks
        sampler.learn_from(ensemble_of(sampler.target, theta[:count]))
        logs = sampler.train_on_batch(*blobs, return_dict=True)
        sampler.reset_metrics()
        real = sampler.critic(sampler._standardised).numpy()
        seen.append((logs["wasserstein"], real.min(), real.max()))
    assert len({values for values, *_ in seen}) == 3


@pytest.mark.slow
def test_it_learns_a_posterior_of_two_weights():
    target = hn.Target(line())
    sampler = hn.APD(
        target,
        ensemble=ensemble_of(target, posterior(5_000)),
        latent_dim=2,
        hidden=(64, 64),
        num_networks=128,
        critic_rate=20.0,
        gauge=False,
    )
    before = sampler.sample(4_000).theta()
    rate = keras.optimizers.schedules.CosineDecay(2e-4, 1_600)
    adam = keras.optimizers.Adam(rate, beta_1=0.0, beta_2=0.9)
    sampler.compile(optimizer=adam, loss="mse", steps_per_execution=50)
    x = np.zeros((128, 1), "float32")
    data = tf.data.Dataset.from_tensors((x, x)).repeat()
    sampler.fit(data, steps_per_epoch=1_600, shuffle=False, verbose=0)
    theta = sampler.sample(4_000).theta()
    assert np.abs(np.cov(before.T) - COVARIANCE).max() > 0.1
    np.testing.assert_allclose(theta.mean(0), MEAN, atol=0.1)
    np.testing.assert_allclose(np.cov(theta.T), COVARIANCE, atol=0.08)


@pytest.mark.usefixtures("eager_fits")
def test_weights_are_standardised_over_the_ensemble():
    theta = posterior(500)
    ensemble = ensemble_of(hn.Target(line()), theta)
    sampler = apd(line(), ensemble=ensemble, hidden=(), gauge=False)
    np.testing.assert_allclose(sampler.centre, theta.mean(0), rtol=1e-4)
    np.testing.assert_allclose(sampler.spread, theta.std(0), rtol=1e-4)
    kernel, bias = sampler.generator.trainable_variables
    kernel.assign(tf.zeros_like(kernel))
    bias.assign([1.0, -2.0])
    expected = theta.mean(0) + theta.std(0) * [1, -2]
    np.testing.assert_allclose(sampler.sample(3).theta(), [expected] * 3, rtol=1e-4)


@pytest.mark.usefixtures("eager_fits")
def test_it_goes_on_after_loading_and_forgets_the_ensemble(blobs, tmp_path):
    sampler = apd()
    sampler.compile(optimizer=keras.optimizers.Adam(0.01), loss=LOGITS, run_eagerly=True)
    sampler.train_on_batch(*blobs)
    path = tmp_path / "sampler.keras"
    sampler.save(path)
    loaded = keras.saving.load_model(path)
    loaded.run_eagerly = True
    whole = path.stat().st_size
    logs = [model.train_on_batch(*blobs, return_dict=True) for model in (sampler, loaded)]
    assert logs[0] == logs[1]
    for one, other in zip(sampler.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(one, other)
    loaded.forget_ensemble()
    loaded.save(path)
    assert path.stat().st_size < whole
    again = keras.saving.load_model(path)
    np.testing.assert_array_equal(again.sample(3).theta(), sampler.sample(3).theta())
    again.run_eagerly = True
    with pytest.raises(ValueError, match="There are no networks to learn: call learn_from"):
        again.train_on_batch(*blobs)


def test_errors():
    target = hn.Target(classifier())
    few = deep_ensemble(num_networks=5).sample(5)
    with pytest.raises(ValueError, match="Cannot learn from 5 networks: a step draws 6, so give a"):
        apd(ensemble=few)
    with pytest.raises(ValueError, match="Cannot learn from 1 networks"):
        apd(ensemble=few[0], num_networks=1)
    theta = np.zeros((9, target.weight_count))
    theta[2, 0] = np.nan
    with pytest.raises(ValueError, match=r"^1 of 9 networks have weights that are NaN or infinite"):
        apd(ensemble=ensemble_of(target, theta))
    with pytest.raises(ValueError, match="Cannot learn networks of another target"):
        apd(line(), ensemble=ensemble_of(target, np.zeros((9, target.weight_count))))
    with pytest.raises(ValueError, match="critic_steps is 0: give a whole number"):
        apd(critic_steps=0)
    for name, value in (("penalty", -1), ("critic_rate", 0), ("critic_rate", "2")):
        with pytest.raises(ValueError, match=f"^{name} is {value!r}: give a finite number above 0"):
            apd(**{name: value})


def test_without_an_optimizer_it_is_evaluated(blobs):
    x, y = blobs
    target = hn.Target(keras.Sequential([keras.Input((x.shape[1],)), keras.layers.Dense(3)]))
    size = target.weight_count
    ensemble = ensemble_of(target, np.random.default_rng(0).normal(size=(9, size)))
    sampler = hn.APD(target, ensemble=ensemble, num_networks=6)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sampler.compile(None, loss, run_eagerly=True)
    assert np.isfinite(sampler.evaluate(x, y, verbose=0)).all()


def test_networks_of_other_shapes_are_an_error():
    wide, deep = (
        hn.Target(keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(units)]))
        for inputs, units in ((4, 4), (3, 5))
    )
    assert wide.weight_count == deep.weight_count
    with pytest.raises(ValueError, match="Cannot learn networks of another target"):
        hn.APD(deep, ensemble=ensemble_of(wide, np.zeros((9, 20))), num_networks=6)


def test_networks_that_differ_in_masks_are_an_error():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(3),
            keras.layers.Dropout(0.5),
            keras.layers.Activation("relu"),
            keras.layers.Dense(2),
        ]
    )
    ensemble = hn.MCDropout(model, num_data=10).sample(9)
    with pytest.raises(ValueError, match=r"^Cannot learn networks that differ in dropout masks"):
        hn.APD(hn.Target(model), ensemble=ensemble, num_networks=6)


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_averages_of_variables_are_refused_before_training(policy):
    optimizer = keras.optimizers.Adam(1e-4, use_ema=True)
    if policy == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    with pytest.raises(ValueError, match=r"^use_ema averages the generator's variables"):
        apd().compile(optimizer, LOGITS)
