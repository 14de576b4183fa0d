"""Examples from data sets against the same examples from arrays."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from data_sets import DATA_SETS, Batches, Endless, sliced
from small_ensembles import EXAMPLES, NETWORKS, ensemble_of, normalised, one_line

import hypernet_tf as hn
from hypernet_tf.ensembles import inference

layers = keras.layers


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("make", DATA_SETS.values(), ids=DATA_SETS)
def test_data_sets_equal_arrays(make, batch_size, cases, x):
    c = cases["logits"]
    weights = np.random.default_rng(3).uniform(size=EXAMPLES)
    for arrays in ((x,), (x, c.y), (x, c.y, weights)):
        data = make(*arrays)
        for name in ("outputs", "predict", "log_probabilities", "majority_vote"):
            method = getattr(c.ensemble, name)
            result, expected = method(data, batch_size=batch_size), method(x)
            np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6, err_msg=name)
        entropy = c.ensemble.uncertainty(data, batch_size=batch_size).entropy
        np.testing.assert_allclose(entropy, c.ensemble.uncertainty(x).entropy, rtol=1e-5)
    for data, options in (
        (make(x, c.y), {}),
        (make(x, c.y, weights), {"sample_weight": weights}),
    ):
        result = c.ensemble.evaluate(data, batch_size=batch_size)
        expected = c.ensemble.evaluate(x, c.y, **options)
        assert result.ensemble == pytest.approx(expected.ensemble, rel=1e-5, nan_ok=True)
        np.testing.assert_array_equal(result.confusion, expected.confusion)


@pytest.mark.parametrize("weighted_batch", [0, 1])
@pytest.mark.parametrize("batch_size", [None, 2])
def test_batches_without_sample_weights_among_others_have_weights_of_one(
    weighted_batch, batch_size, cases, x
):
    c = cases["logits"]
    data = Batches(x, c.y, sizes=(8,))
    weights = np.ones(EXAMPLES)
    part = slice(0, 8) if weighted_batch == 0 else slice(8, None)
    weights[part] = np.linspace(0.5, 3.0, len(weights[part]))
    data.batches[weighted_batch] = (*data.batches[weighted_batch], weights[part])
    result = c.ensemble.evaluate(data, batch_size=batch_size)
    expected = c.ensemble.evaluate(x, c.y, sample_weight=weights)
    assert result.ensemble == pytest.approx(expected.ensemble, rel=1e-5, nan_ok=True)
    np.testing.assert_allclose(result.confusion, expected.confusion)
    temperatures = [
        c.ensemble.calibrate(data, batch_size=batch_size).temperature,
        c.ensemble.calibrate(x, c.y, sample_weight=weights).temperature,
    ]
    assert temperatures[0] == pytest.approx(temperatures[1], rel=1e-4)


def test_a_data_set_of_inputs_alone(cases, x):
    c = cases["logits"]
    data = tf.data.Dataset.from_tensor_slices(x).batch(6)
    np.testing.assert_allclose(c.ensemble.outputs(data), c.loop, rtol=1e-5, atol=1e-5)
    pairs = tf.data.Dataset.zip(data, data)
    assert c.ensemble.outputs(pairs).shape == c.loop.shape  # the second is taken for labels


def test_a_data_set_of_values_and_several_inputs():
    left, right = keras.Input((3,)), keras.Input((2,))
    hidden = layers.Dense(4, activation="relu")(layers.Concatenate()([left, right]))
    ensemble = ensemble_of(keras.Model([left, right], layers.Dense(2)(hidden)), "values")
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(9, size)).astype("float32") for size in (3, 2, 2)]
    inputs, y = arrays[:2], arrays[2]
    data = tf.data.Dataset.from_tensor_slices((tuple(inputs), y)).batch(4)
    expected = ensemble.evaluate(inputs, y).summary()
    assert ensemble.evaluate(data).summary() == pytest.approx(expected, rel=1e-5)


def test_data_sets_of_small_batches_run_in_large_chunks(cases, x, runs):
    ensemble = cases["logits"].ensemble
    vars(ensemble.target).pop("compiled", None)
    ensemble.predict(tf.data.Dataset.from_tensor_slices(x).batch(2))
    assert runs == [(NETWORKS, EXAMPLES)]
    ensemble.predict(tf.data.Dataset.from_tensor_slices(x).batch(2), batch_size=10)
    assert runs[1:] == [(NETWORKS, 10)]


def test_a_data_set_is_not_loaded_at_once(cases, x):
    """Batches are read as they are needed: after the first chunk, a chunk of the data is read."""
    c, read = cases["logits"], []

    class Counted(Batches):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    examples = inference.Examples(Counted(x, sizes=(4, 4, 4, 4, 4, 3)))
    runs = inference.run(c.ensemble.target, c.ensemble.weights, examples, batch_size=8, verbose=0)
    next(runs)
    assert read == [0, 1]


@pytest.mark.parametrize("make", DATA_SETS.values(), ids=DATA_SETS)
def test_batch_norm_statistics_of_data_sets_equal_arrays(make, x):
    ensemble = ensemble_of(normalised(), "logits")
    expected = ensemble.update_batch_norm(x, batch_size=10).weights.state
    in_order = x[np.random.default_rng(0).permutation(len(x))]  # that of arrays
    result = ensemble.update_batch_norm(make(in_order), batch_size=10).weights.state
    for statistic, exact in zip(result, expected, strict=True):
        np.testing.assert_allclose(statistic, exact, rtol=1e-5, atol=1e-6)


def test_data_sets_that_cannot_be_used_raise(cases, x):
    c = cases["logits"]
    endless = sliced(x, c.y).repeat()
    mistakes = {
        "The data set has no end: use data_set.take(number of batches).": lambda: (
            c.ensemble.predict(endless)
        ),
        "Labels and sample weights come from the data set: pass only it.": lambda: (
            c.ensemble.evaluate(sliced(x, c.y), c.y)
        ),
        "There are no labels: give y, or a data set of (x, y).": lambda: c.ensemble.evaluate(
            sliced(x)
        ),
        "The data set gives single examples, not batches: use data_set.batch(256).": lambda: (
            c.ensemble.evaluate(sliced(x, c.y).unbatch())
        ),
        "There are no examples to run on.": lambda: c.ensemble.evaluate(sliced(x, c.y).take(0)),
        "A batch must be x, (x,), (x, y) or (x, y, sample_weight), not 4 parts.": lambda: (
            c.ensemble.evaluate(sliced(x, c.y, c.y, c.y))
        ),
        "There are 3 labels for 4 examples: give one for each.": lambda: c.ensemble.evaluate(
            Uneven(x, c.y)
        ),
        "The data set has no end: its num_batches must be a number.": lambda: c.ensemble.predict(
            Endless(x)
        ),
    }
    for message, mistake in mistakes.items():
        with pytest.raises(ValueError) as error:
            mistake()
        assert one_line(error) == message


class Uneven(Batches):
    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x, y[1:]


@pytest.mark.parametrize("batch_size", [None, 3])
def test_batches_of_sequences_may_have_different_lengths(batch_size):
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(9, 4),
            layers.GlobalAveragePooling1D(),
            layers.BatchNormalization(),
            layers.Dense(2),
        ]
    )
    rng = np.random.default_rng(0)
    lengths = [(8, 5), (8, 5), (8, 7), (5, 9)]
    parts = [(rng.integers(0, 9, size), rng.integers(0, 2, size[0])) for size in lengths]
    shapes = (tf.TensorSpec([None, None], tf.int64), tf.TensorSpec([None], tf.int64))
    data = tf.data.Dataset.from_generator(lambda: iter(parts), output_signature=shapes)
    data = data.apply(tf.data.experimental.assert_cardinality(len(parts)))
    sampler = hn.DeepEnsemble(model, num_networks=2)
    sampler.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    sampler.fit(data, shuffle=False, verbose=0)
    assert sampler.batch_norm_data.shape == (16, 5)  # the first ones of one length
    ensemble = sampler.sample(2)
    predicted = ensemble.predict(data, batch_size=batch_size)
    expected = np.concatenate([ensemble.predict(x) for x, _ in parts])
    np.testing.assert_allclose(predicted, expected, rtol=1e-5, atol=1e-6)
    accuracy = ensemble.evaluate(data, batch_size=batch_size).mean_probability_accuracy
    labels = np.concatenate([y for _, y in parts])
    assert accuracy == pytest.approx((expected.argmax(-1) == labels).mean())
