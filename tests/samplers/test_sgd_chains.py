"""Chains of SGD and of Langevin dynamics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import hypernet_tf as hn

LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
layers = keras.layers


def classifier():
    model = [keras.Input((2,)), layers.Dense(8, activation="relu"), layers.Dense(3)]
    return hn.Target(keras.Sequential(model))


def chains(cls=hn.SGDChains, optimizer=None, **kwargs):
    sampler = cls(classifier(), **kwargs)
    sampler.compile(optimizer=optimizer or keras.optimizers.SGD(0.1), loss=LOGITS)
    return sampler


def by_first_weight(theta):
    """Networks in the order of their first weights."""
    return theta[np.argsort(theta[:, 0])]


@pytest.mark.usefixtures("eager_fits")
def test_independent_chains_are_a_deep_ensemble_at_constant_rate(blobs):
    sampler, ensemble = chains(num_chains=4), hn.DeepEnsemble(classifier(), num_networks=4)
    ensemble.compile(optimizer=keras.optimizers.SGD(0.1), loss=LOGITS)
    for _ in range(3):
        sampler.train_on_batch(*blobs)
        ensemble.train_on_batch(*blobs)
    chosen, networks = sampler.sample(4).theta(), ensemble.sample(4).theta()  # in another order
    np.testing.assert_allclose(by_first_weight(chosen), by_first_weight(networks), atol=1e-6)


@pytest.mark.usefixtures("eager_fits")
def test_snapshots_of_one_chain_are_the_newest(blobs):
    chain = chains(num_chains=1, num_snapshots=3, snapshot_every=2, gauge=False)
    visited = []
    for _ in range(10):
        chain.train_on_batch(*blobs)
        visited.append(np.concatenate([v.numpy().ravel() for v in chain.theta]))
    kept = chain.sample(3).theta()
    expected = np.stack([visited[5], visited[7], visited[9]])  # steps 6, 8, 10
    np.testing.assert_allclose(by_first_weight(kept), by_first_weight(expected), atol=1e-7)
    assert np.abs(kept[0] - kept[1]).max() > 1e-4


@pytest.mark.usefixtures("eager_fits")
def test_a_part_of_an_ensemble_is_of_all_chains(blobs):
    """Snapshots of one time or one chain would be alike: they are not side by side."""
    sampler = chains(num_chains=8, num_snapshots=8, snapshot_every=1, gauge=False)
    for _ in range(8):
        sampler.train_on_batch(*blobs)
    kept = [np.reshape(variable, [8, 8, -1]) for variable in sampler.snapshots]
    networks = np.concatenate(kept, -1).reshape(64, -1)  # a snapshot of all chains, then the next
    theta = sampler.sample(64).theta()
    places = np.argmin(np.abs(theta[:, None] - networks).sum(-1), 1)
    assert sorted(places) == list(range(64))
    assert len(set(places[:8] // 8)) > 2 and len(set(places[:8] % 8)) > 2


@pytest.mark.usefixtures("eager_fits")
def test_networks_are_available_once_they_are_kept(blobs):
    sampler = chains(num_chains=2, num_snapshots=3, snapshot_every=2)
    sizes = []
    for _ in range(8):
        sizes.append(sampler.num_available)
        sampler.train_on_batch(*blobs)
    assert sizes == [2, 2, 2, 2, 4, 4, 6, 6]
    assert len(sampler.sample(6)) == 6
    with pytest.raises(ValueError, match="Cannot sample 7 networks: this sampler holds 6"):
        sampler.sample(7)
    start = chains(num_chains=2, snapshot_every=5, gauge=False)
    start.train_on_batch(*blobs)  # before the first snapshot: their current states
    current = np.reshape(start.theta[0], [2, 16])
    np.testing.assert_array_equal(
        by_first_weight(start.sample(2).theta()[:, :16]), by_first_weight(current)
    )
    # With more snapshots, a sample of the same size changes: no old graph is used.
    early = chains(num_chains=2, num_snapshots=3, snapshot_every=1)
    early.train_on_batch(*blobs)
    first = early.sample(2).theta()
    for _ in range(5):
        early.train_on_batch(*blobs)
    assert np.abs(early.sample(2).theta() - first).max() > 1e-4


def test_langevin_dynamics_sample_the_posterior():
    """Linear regression, y = a·x + noise: the posterior is normal, in closed form."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 1)).astype("float32")
    y = (0.7 * x + 0.3 * rng.normal(size=(20, 1))).astype("float32")

    @keras.saving.register_keras_serializable(package="tests")
    def negative_log_likelihood(truth, prediction):
        return tf.reduce_sum((truth - prediction) ** 2, -1) / (2 * 0.3**2)

    precision = (x**2).sum() / 0.3**2 + 1 / 2.0**2
    mean = (x * y).sum() / 0.3**2 / precision
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
    count = 400
    sampler = hn.SGLD(hn.Target(model), num_chains=count, lam=20, prior_scale=2.0, gauge=False)
    sampler.compile(
        optimizer=keras.optimizers.SGD(float(0.02 / precision)), loss=negative_log_likelihood
    )
    data = np.tile(x, (count, 1)), np.tile(y, (count, 1))
    for _ in range(250):
        sampler.train_on_batch(*data)
    theta = sampler.sample(count).theta()[:, 0]
    deviation = precision**-0.5
    # 400 samples: the mean is known to deviation/20, the deviation itself to 4 %; the step size
    # makes it 1 % too wide.
    assert abs(theta.mean() - mean) < 4 * deviation / 20
    np.testing.assert_allclose(theta.std(), deviation, rtol=0.14)


def test_langevin_dynamics_learn_with_their_default_optimizer(blobs):
    sampler = hn.SGLD(classifier(), lam=len(blobs[0]), num_chains=4, num_snapshots=5)
    sampler.compile(loss=LOGITS)
    assert float(sampler.optimizer.learning_rate) == pytest.approx(0.01 / len(blobs[0]))
    before = sampler.evaluate(*blobs, verbose=0, return_dict=True)["member_loss"]
    many = [np.concatenate(100 * [part]) for part in blobs]
    sampler.fit(*many, batch_size=96, shuffle=False, verbose=0)
    after = sampler.evaluate(*blobs, verbose=0, return_dict=True)["member_loss"]
    assert after < 0.9 * before


@pytest.mark.usefixtures("eager_fits")
def test_noise_is_a_function_of_seed_and_step(blobs):
    def after_two_steps(seed):
        sampler = chains(hn.SGLD, keras.optimizers.SGD(1e-5), num_chains=2, lam=96, seed=seed)
        for _ in range(2):
            sampler.train_on_batch(*blobs)
        return sampler.sample(2).theta()

    first, again, other = (after_two_steps(seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2),
        lambda: keras.optimizers.MultiOptimizer(
            keras.optimizers.OptimizerMap(keras.optimizers.SGD(0.1))
        ),
    ],
    ids=["accumulation", "several"],
)
@pytest.mark.usefixtures("eager_fits")
def test_chains_take_the_optimizers_of_a_deep_ensemble(make, blobs):
    sampler = chains()
    sampler.compile(make(), LOGITS)
    before = sampler.theta[0].numpy()
    sampler.fit(*blobs, batch_size=48, verbose=0)
    assert np.abs(sampler.theta[0].numpy() - before).max() > 1e-3


def test_options_that_make_no_chain_are_errors():
    for name, value in (
        ("num_snapshots", 0),
        ("num_snapshots", 1.5),
        ("snapshot_every", 2.5),
        ("num_chains", 0),
    ):
        with pytest.raises(ValueError, match=rf"^{name} is {value}: give a whole number"):
            chains(**{name: value})
    with pytest.raises(ValueError, match="number of training examples"):
        chains(hn.SGLD, lam=0)
    with pytest.raises(ValueError, match="follow SGD: compile with keras"):
        chains(hn.SGLD, keras.optimizers.Adam(), lam=9)
    for option in (
        {"momentum": 0.9},
        {"gradient_accumulation_steps": 4},
        {"clipnorm": 1.0},
        {"clipvalue": 1.0},
        {"global_clipnorm": 1.0},
        {"weight_decay": 0.1},
        {"use_ema": True},
    ):
        with pytest.raises(ValueError, match=f"plain SGD: compile without {next(iter(option))}"):
            chains(hn.SGLD, keras.optimizers.SGD(0.1, **option), lam=9)


@pytest.mark.usefixtures("eager_fits")
def test_there_is_no_noise_where_half_precision_overflows(blobs):
    """The optimizer leaves the weights then, and a chain of noise alone would be no sample."""
    x, y = blobs
    optimizer = keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(1e-3), initial_scale=1e5, dynamic_growth_steps=1_000
    )
    sampler = hn.SGLD(classifier(), num_chains=2, lam=96.0)
    sampler.compile(optimizer=optimizer, loss=LOGITS)
    start = sampler.sample(2).theta()
    sampler.train_on_batch(np.full_like(x, np.inf), y)
    np.testing.assert_array_equal(sampler.sample(2).theta(), start)
    sampler.train_on_batch(x, y)
    assert np.abs(sampler.sample(2).theta() - start).min() > 0


@pytest.mark.usefixtures("eager_fits")
def test_each_variable_has_noise_of_its_own():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(3), layers.Dense(3)])
    steps = []
    for kind in (hn.SGDChains, hn.SGLD):
        sampler = kind(model, num_chains=2, lam=1.0, gauge=False, seed=4)
        sampler.compile(keras.optimizers.SGD(1e-3), "mse")
        sampler.train_on_batch(np.ones([4, 3], "float32"), np.zeros([4, 3], "float32"))
        steps.append([variable.numpy() for variable in sampler.theta])
    kernel, _, other, _ = (one - plain for plain, one in zip(*steps, strict=True))
    for noise in (kernel, other):
        assert 0.6 < noise.std() / np.sqrt(2e-3) < 1.5
    assert abs(np.corrcoef(kernel.ravel(), other.ravel())[0, 1]) < 0.8
