"""How a batch is dealt out to networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, classifier, deep_ensemble, hypernetwork

import hypernet_tf as hn
from hypernet_tf.samplers.batching import Share
from hypernet_tf.training.devices import DeviceError, check_batch

NETWORKS = 4


def dealt(size, static):
    """A batch of numbered examples, dealt out with a size that TensorFlow knows or does not."""
    numbers = tf.range(size)

    def deal(x, y):
        batch = Share(NETWORKS).deal({"a": x[:, None]}, y, tf.cast(y, tf.float32))
        return batch.x["a"], *batch.labels(), batch.collect(batch.x["a"])

    shape = None if static else [tf.TensorSpec([None], tf.int32)] * 2
    return [t.numpy() for t in tf.function(deal, input_signature=shape)(numbers, numbers)]


@pytest.mark.parametrize("static", [True, False])
class TestDeal:
    @pytest.mark.parametrize("size", [4, 8, 12, 13, 15, 16])
    def test_examples_are_dealt_in_order_and_each_counts_once(self, size, static):
        x, y, sample_weight, collected = dealt(size, static)
        each = -(-size // NETWORKS)
        assert x.shape == (NETWORKS, each, 1)
        np.testing.assert_array_equal(x.ravel(), np.arange(NETWORKS * each) % size)
        np.testing.assert_array_equal(y, np.arange(size))
        np.testing.assert_array_equal(sample_weight, np.arange(size))
        np.testing.assert_array_equal(collected.ravel(), np.arange(size))

    @pytest.mark.parametrize("size", [1, 2, 3, 5, 6, 9])
    def test_answers_are_repeated_if_a_network_would_have_none(self, size, static):
        x, y, _, collected = dealt(size, static)
        each = -(-size // NETWORKS)
        assert (NETWORKS - 1) * each >= size  # so that the last network would have none
        expected = np.arange(NETWORKS * each) % size
        np.testing.assert_array_equal(x.ravel(), expected)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(collected.ravel(), expected)


def test_nothing_is_made_of_labels_or_weights_that_are_not_given():
    batch = Share(NETWORKS).deal(tf.zeros([3, 2]))
    assert batch.labels() == (None, None)


def test_every_network_has_a_loss_in_every_batch(blobs):
    """Each network moves, and as it would alone on its examples."""
    sampler = hn.DeepEnsemble(hn.Target(classifier()), num_networks=6, gauge=False)
    sampler.compile(optimizer=keras.optimizers.SGD(0.1), loss=LOGITS)
    start = sampler.sample(6)
    networks = [network.to_keras() for network in start]
    for network in networks:
        network.compile(optimizer=keras.optimizers.SGD(0.1), loss=LOGITS, run_eagerly=True)
    for size in (1, 5, 6, 7, 11):
        x, y = (array[:size] for array in blobs)
        for variable, weights in zip(sampler.theta, start.weights.trainable, strict=True):
            variable.assign(weights)
        data = tf.data.Dataset.from_tensor_slices((x, y)).batch(48)  # a size that is not known
        sampler.fit(data, shuffle=False, verbose=0)
        theta = sampler.sample(6).theta()
        assert np.abs(theta - start.theta()).max(1).min() > 1e-3, size
        each = -(-size // 6)
        for n, network in enumerate(networks):
            for variable, weights in zip(network.weights, start.weights.trainable, strict=True):
                variable.assign(weights[n])
            index = np.arange(n * each, (n + 1) * each) % size
            network.train_on_batch(x[index], y[index])
            expected = np.concatenate([v.numpy().ravel() for v in network.trainable_variables])
            np.testing.assert_allclose(theta[n], expected, atol=2e-6, err_msg=f"size {size}")


@pytest.mark.parametrize(
    "make", [deep_ensemble, pytest.param(hypernetwork, marks=pytest.mark.slow)]
)
def test_an_epoch_may_end_with_any_batch(make, blobs):
    x, y = blobs
    sampler = make(num_networks=6)
    sampler.compile(optimizer="adam", loss=LOGITS, metrics=["accuracy"])
    for size in (48 + 1, 48 + 5, 48 + 7):
        history = sampler.fit(x[:size], y[:size], batch_size=48, verbose=0).history
        assert np.isfinite(history["loss"]).all()
    sampler.run_eagerly = True  # sample weights need a graph of their own
    sampler.make_train_function(force=True)
    history = sampler.fit(x[:5], y[:5], verbose=0, sample_weight=np.ones(5)).history
    assert np.isfinite(history["loss"]).all()
    assert int(sampler.step.numpy()) == 3 * 2 + 1


@pytest.mark.usefixtures("eager_fits")
def test_the_loss_of_a_short_batch_is_the_mean_over_its_examples(blobs):
    """If all networks are equal, the accuracy loss is that of one network on the examples."""
    sampler = hypernetwork(num_networks=6, diversity=[])
    for variable in sampler.extractor.trainable_variables:
        variable.assign(tf.zeros_like(variable))  # one code, so one network
    sampler.compile(optimizer=keras.optimizers.SGD(0.0), loss=LOGITS, metrics=["accuracy"])
    x, y = blobs[0][:17], blobs[1][:17]
    drawn = sampler.draw(tf.constant([0, 1], tf.int64), 1, training=True)
    network = hn.Ensemble(sampler.target, hn.WeightSet(drawn.trainable, [])).to_keras()
    logs = sampler.train_on_batch(x, y, return_dict=True)
    assert logs["accuracy_loss"] == pytest.approx(float(LOGITS(y, network(x))), rel=1e-5)
    hits = np.mean(np.argmax(network(x), -1) == y)
    assert logs["accuracy"] == pytest.approx(hits, rel=1e-5)


def test_networks_that_cannot_be_shared_are_one_line():
    with pytest.raises(ValueError, match=r"^Cannot share 10 networks among 4 devices: choose"):
        Share(10, replicas=4)


@pytest.mark.parametrize(
    ("optimizer", "loss", "message"),
    [
        (keras.optimizers.SGD(clipvalue=1.0), LOGITS, "clipvalue clips each device's part"),
        (
            "sgd",
            [keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=0)],
            "A loss with ignore_class=0 divides by the answers that count on each device",
        ),
        (
            "sgd",
            keras.losses.MeanSquaredError(reduction="mean_with_sample_weight"),
            "A loss with reduction='mean_with_sample_weight' divides by the answers",
        ),
    ],
    ids=["clipping", "ignored class", "weighted mean"],
)
def test_what_several_devices_would_compute_otherwise_is_an_error(optimizer, loss, message):
    optimizer, target = keras.optimizers.get(optimizer), hn.Target(classifier())
    Share(NETWORKS, replicas=1).check(optimizer, target, loss)
    Share(NETWORKS, replicas=2).check(keras.optimizers.SGD(), target, [LOGITS, None, "mse"])
    with pytest.raises(ValueError, match=f"^{message}"):
        Share(NETWORKS, replicas=2).check(optimizer, target, loss)


class TestSharedInputs:
    """All networks of a step see the whole batch."""

    @pytest.mark.parametrize("static", [True, False])
    def test_the_batch_is_handed_to_every_network(self, static):
        def hand_out(x, y):
            batch = Share(NETWORKS).hand_out({"a": x[:, None]}, y, tf.cast(y, tf.float32))
            outputs = tf.stack([100 * n + batch.x["a"] for n in range(NETWORKS)])
            return batch.x["a"], *batch.labels(), batch.collect(outputs)

        shape = None if static else [tf.TensorSpec([None], tf.int32)] * 2
        numbers = tf.range(5)
        results = tf.function(hand_out, input_signature=shape)(numbers, numbers)
        x, y, sample_weight, collected = (t.numpy() for t in results)
        np.testing.assert_array_equal(x[:, 0], np.arange(5))
        expected = np.tile(np.arange(5), NETWORKS)
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(sample_weight, expected)
        networks = np.repeat(100 * np.arange(NETWORKS), 5)
        np.testing.assert_array_equal(collected[:, 0], networks + expected)

    def test_a_step_is_that_on_the_repeated_batch(self, blobs):
        """With terms that compare outputs, which then need no run of their own."""
        x, y = (part[:24] for part in blobs)
        weight = np.linspace(0.5, 1.5, 24, dtype="float32")

        def step(**kwargs):
            keras.utils.set_random_seed(0)
            term = hn.diversity.NegativeOutputEntropy()
            sampler = hypernetwork(diversity=term, **kwargs)
            sampler.compile("sgd", LOGITS, metrics=["accuracy"], run_eagerly=True)
            count = 1 if sampler.shared_inputs else sampler.num_networks
            batch = [np.concatenate([part] * count) for part in (x, y, weight)]
            logs = sampler.train_on_batch(*batch, return_dict=True)
            return logs, [v.numpy() for v in sampler.variables]

        logs, variables = step(shared_inputs=True)
        expected_logs, expected = step()
        assert logs == pytest.approx(expected_logs, rel=1e-5)
        for a, b in zip(variables, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    @pytest.mark.usefixtures("eager_fits")
    def test_fit_takes_batches_of_any_size(self, blobs):
        sampler = hypernetwork(shared_inputs=True)
        sampler.compile("sgd", LOGITS)
        sampler.fit(*blobs, batch_size=40, epochs=1, verbose=0)  # 40, 40, 16
        assert int(sampler.step.numpy()) == 3
        assert hn.Hypernetwork.from_config(sampler.get_config()).shared_inputs

    def test_more_devices_than_networks_are_an_error(self):
        message = "Cannot share 2 networks with the same inputs among 4 devices"
        with pytest.raises(ValueError, match=message):
            Share(2, replicas=4).hand_out(tf.zeros([3, 1]))
        with pytest.raises(DeviceError, match="Cannot share 2 networks with the same 8 images"):
            check_batch(2, 8, 4, shared_inputs=True)
        with pytest.raises(DeviceError, match="Cannot share 8 networks with the same 9 images"):
            check_batch(8, 9, 4, shared_inputs=True)
