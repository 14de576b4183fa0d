"""Early stopping on the diversity of the networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, deep_ensemble, hypernetwork

import hypernet_tf as hn

SPREADS = (0.4, 0.5, 0.3, 0.2, 0.3, 0.2, 0.2, 0.2)


class Spreads(keras.callbacks.Callback):
    """Gives half of the networks larger weights than the others: the spread is as listed."""

    def on_epoch_end(self, epoch, logs=None):
        for variable in self.model.theta:
            signs = np.resize([1.0, -1.0], [variable.shape[0], *[1] * (variable.ndim - 1)])
            variable.assign(np.broadcast_to(1 + SPREADS[epoch] * signs, variable.shape))


def fit(blobs, stopping, **options):
    sampler = deep_ensemble(**options)
    sampler.compile(keras.optimizers.SGD(0.0), LOGITS)
    callbacks = [Spreads(), stopping]
    history = sampler.fit(*blobs, epochs=8, batch_size=96, verbose=0, callbacks=callbacks)
    return history.history


@pytest.mark.parametrize(
    ("fraction", "patience", "epochs"), [(0.5, 1, 4), (0.5, 2, 7), (0.3, 1, 8), (0.7, 1, 3)]
)
@pytest.mark.usefixtures("eager_fits")
def test_it_stops_when_the_spread_stays_below_a_fraction_of_the_highest(
    blobs, fraction, patience, epochs
):
    stopping = hn.DiversityStopping(fraction, patience=patience)
    history = fit(blobs, stopping)
    np.testing.assert_allclose(history["norm_spread"], SPREADS[:epochs], rtol=1e-5)
    assert len(history["loss"]) == epochs
    assert stopping.stopped_epoch == (epochs - 1 if epochs < 8 else None)


@pytest.mark.usefixtures("eager_fits")
def test_keras_callbacks_can_monitor_the_spread(blobs):
    stopping = keras.callbacks.EarlyStopping("norm_spread", mode="max", patience=2)
    sampler = deep_ensemble()
    sampler.compile(keras.optimizers.SGD(0.0), LOGITS)
    callbacks = [Spreads(), hn.DiversityStopping(0), stopping]
    sampler.fit(*blobs, epochs=8, batch_size=96, verbose=0, callbacks=callbacks)
    assert stopping.best == pytest.approx(0.5, rel=1e-5)
    assert stopping.stopped_epoch == 3


@pytest.mark.usefixtures("eager_fits")
def test_a_single_network_has_no_spread(blobs):
    assert "norm_spread" not in fit(blobs, hn.DiversityStopping(), num_networks=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 1.5}, "fraction is 1.5: give a number from 0 to 1"),
        ({"patience": 0}, "patience is 0: give a whole number, at least 1"),
        ({"num_networks": 1}, "num_networks is 1: give a whole number, at least 2"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(ValueError, match=message):
        hn.DiversityStopping(**options)


def test_networks_whose_norms_the_gauge_fixes_are_refused(blobs):
    sampler = hypernetwork()
    sampler.compile("adam", LOGITS)
    words = "^The gauge fixes the norms of networks while Hypernetwork trains, .* monitor divers"
    with pytest.raises(ValueError, match=words):
        sampler.fit(*blobs, epochs=1, verbose=0, callbacks=[hn.DiversityStopping()])
    assert sampler.step == 0
    free = hypernetwork(gauge=False)
    free.compile("adam", LOGITS, run_eagerly=True)
    history = free.fit(*blobs, epochs=1, verbose=0, callbacks=[hn.DiversityStopping()])
    assert history.history["norm_spread"][0] > 1e-3
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    with pytest.raises(
        ValueError, match="This model is one network: use DiversityStopping with a sampler"
    ):
        model.fit(np.ones([2, 2]), np.ones([2, 1]), verbose=0, callbacks=[hn.DiversityStopping()])


@pytest.mark.usefixtures("eager_fits")
def test_each_training_begins_anew(blobs):
    seen = []
    stopping = hn.DiversityStopping(0.5, num_networks=3, seed=7)
    sampler = deep_ensemble()
    sampler.compile(keras.optimizers.SGD(0.0), LOGITS)
    spread = sampler.norm_spread
    sampler.norm_spread = lambda count, seed: seen.append((count, seed)) or spread(count, seed=seed)
    options = {"batch_size": 96, "verbose": 0, "callbacks": [Spreads(), stopping]}
    sampler.fit(*blobs, epochs=2, **options)
    assert set(seen) == {(3, 7)}
    for variable in sampler.theta:  # a smaller spread than before
        variable.assign(tf.ones_like(variable))
    stopping.on_train_begin()
    assert stopping.stopped_epoch is None
    stopping.on_epoch_end(0, {})
    assert stopping.stopped_epoch is None
