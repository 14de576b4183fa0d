"""Sequences with masks: padded steps count neither in losses and metrics nor in an evaluation."""

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf
from data_sets import Batches
from small_samplers import hypernetwork
from target_models import one_line_error

import hypernet_tf as hn
from hypernet_tf.samplers.batching import Share

pytestmark = pytest.mark.usefixtures("eager_fits")

layers = keras.layers
RNG = np.random.default_rng(5)
TOKENS = RNG.integers(1, 9, (12, 5))
for row, length in enumerate((5, 2, 3, 1, 4, 5, 3, 2, 4, 1, 3, 5)):
    TOKENS[row, length:] = 0
MASK = TOKENS > 0
LABELS = (TOKENS + np.roll(TOKENS, 1, 1)) % 3


def tagger(*, masked=True, outputs=3, recurrent=True):
    """One choice among three classes for each step of a sequence."""
    tokens = keras.Input((5,), dtype="int32", name="tokens")
    x = layers.Embedding(9, 4, mask_zero=masked)(tokens)
    x = layers.SimpleRNN(6, return_sequences=True)(x) if recurrent else layers.Dense(6)(x)
    return keras.Model(tokens, layers.Dense(outputs)(x))


def options():
    return {
        "optimizer": keras.optimizers.SGD(0.5),
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        "metrics": ["accuracy"],
    }


def defined(evaluation):
    return {key: value for key, value in evaluation.summary().items() if value is not None}


def compiled(sampler):
    sampler.compile(**options())
    return sampler


@pytest.mark.usefixtures("eager_fits")
def test_the_entropy_of_outputs_does_not_see_padding():
    """Row 0 of the embedding is read at padded steps alone."""
    entropy = hn.diversity.NegativeOutputEntropy()
    sampler = hypernetwork(tagger(recurrent=False), num_networks=4, diversity=entropy, lam=0.0)
    sampler.compile(**options())
    z = sampler.latent_vectors(tf.constant([1, 2]), 4)
    with tf.GradientTape() as tape:
        draw = sampler.generate(z, training=True)
        tape.watch(draw.trainable[0])
        weights = hn.WeightSet(draw.trainable, sampler.target.initial_state(4))
        outputs, _ = sampler.target.run(weights, TOKENS)
        seen = sampler._seen_by_loss(outputs, sampler.target.output_masks(TOKENS))
        theta = sampler.target.flatten(weights)
        value = entropy(hn.diversity.StepRecord(theta, draw.z, outputs=seen))
    gradient = tf.convert_to_tensor(tape.gradient(value, draw.trainable[0]))
    np.testing.assert_array_equal(gradient[:, 0], 0)
    assert np.abs(gradient[:, 1:]).max() > 0
    np.testing.assert_array_equal(seen.numpy()[:, ~MASK], 0)
    logs = sampler.train_on_batch(np.tile(TOKENS, (4, 1)), np.tile(LABELS, (4, 1)))
    assert np.isfinite(logs).all()


@pytest.fixture(scope="module")
def trained():
    sampler = compiled(hn.DeepEnsemble(tagger(recurrent=False), num_networks=3, seed=1))
    sampler.fit(TOKENS, LABELS, batch_size=12, epochs=5, verbose=0)
    return sampler


@pytest.mark.usefixtures("eager_fits")
def test_a_network_trains_as_in_keras():
    sampler = compiled(hn.DeepEnsemble(tagger(), num_networks=1))
    model = sampler.sample(1).to_keras()
    model.compile(**options())
    ours = sampler.fit(TOKENS, LABELS, batch_size=4, epochs=2, shuffle=False, verbose=0)
    theirs = model.fit(TOKENS, LABELS, batch_size=4, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_allclose(
        ours.history["accuracy_loss"], theirs.history["loss"], rtol=1e-4, err_msg="loss"
    )
    np.testing.assert_allclose(ours.history["accuracy"], theirs.history["accuracy"], rtol=1e-5)
    network = sampler.sample(1).to_keras()
    for one, other in zip(network.weights, model.weights, strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-3, atol=1e-5)
    numbers = sampler.evaluate(TOKENS, LABELS, batch_size=12, verbose=0, return_dict=True)
    expected = model.evaluate(TOKENS, LABELS, batch_size=12, verbose=0, return_dict=True)
    for name in ("loss", "accuracy"):
        assert numbers[f"member_{name}"] == pytest.approx(expected[name], rel=1e-3)
        assert numbers[f"ensemble_{name}"] == pytest.approx(expected[name], rel=1e-3)


@pytest.mark.parametrize(
    "shared",
    [False, pytest.param(True, marks=pytest.mark.slow)],
    ids=["own_inputs", "shared_inputs"],
)
@pytest.mark.usefixtures("eager_fits")
def test_labels_of_padded_steps_change_nothing(shared):
    def build(**options):
        keras.utils.set_random_seed(2)
        model = tagger(recurrent=False, **options)
        return hypernetwork(model, num_networks=3, shared_inputs=shared, seed=2)

    histories = []
    for labels in (LABELS, np.where(MASK, LABELS, 2 - LABELS)):
        sampler = compiled(build())
        # 11 examples do not divide by 3: some repeat.
        history = sampler.fit(
            TOKENS[:11], labels[:11], batch_size=11, epochs=2, shuffle=False, verbose=0
        )
        histories.append(history.history)
        histories[-1]["evaluated"] = sampler.evaluate(TOKENS, labels, verbose=0)
    for key, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][key], rtol=1e-5, err_msg=key)
    sampler = compiled(build(masked=False))
    other = sampler.fit(
        TOKENS[:11], LABELS[:11], batch_size=11, epochs=2, shuffle=False, verbose=0
    ).history
    assert other["accuracy_loss"][0] != pytest.approx(histories[0]["accuracy_loss"][0], rel=1e-4)


def test_an_ensemble_evaluates_the_steps_that_count(trained):
    ensemble = trained.sample(3)
    result = ensemble.evaluate(TOKENS, LABELS, batch_size=5)
    p = np.exp(ensemble.log_probabilities(TOKENS))
    mean, flat = p.mean(0)[MASK], LABELS[MASK]
    right = p.argmax(-1) == LABELS
    np.testing.assert_allclose(result.member_accuracy, right[:, MASK].mean(1))
    exact = (p.mean(0).argmax(-1) == LABELS) | ~MASK
    assert result.exact_match == pytest.approx(exact.all(1).mean())
    np.testing.assert_allclose(result.member_exact_match, (right | ~MASK).all(-1).mean(1))
    assert result.mean_probability_accuracy == pytest.approx((mean.argmax(-1) == flat).mean())
    loss = sklearn.metrics.log_loss(flat, mean, labels=range(3))
    assert result.negative_log_likelihood == pytest.approx(loss, rel=1e-5)
    pairs = sklearn.metrics.confusion_matrix(flat, mean.argmax(-1), labels=range(3))
    np.testing.assert_array_equal(result.confusion, pairs)
    by_step = [(exact & MASK)[:, step].sum() / MASK[:, step].sum() for step in range(5)]
    np.testing.assert_allclose(result.accuracy_by_choice, by_step)
    wrong = np.where(MASK, LABELS, 2 - LABELS)
    assert defined(ensemble.evaluate(TOKENS, wrong)) == pytest.approx(defined(result))
    keras_loss = trained.evaluate(TOKENS, LABELS, batch_size=12, verbose=0, return_dict=True)
    assert keras_loss["ensemble_loss"] == pytest.approx(loss, rel=1e-3)


def test_examples_without_a_step_and_with_weights(trained):
    ensemble = trained.sample(3)
    empty = TOKENS.copy()
    empty[:2] = 0
    expected = defined(ensemble.evaluate(TOKENS[2:], LABELS[2:]))
    assert defined(ensemble.evaluate(empty, LABELS)) == pytest.approx(expected, rel=1e-5)
    weights = np.array([0, 0, *[2.0] * 10])
    weighted = defined(ensemble.evaluate(TOKENS, LABELS, sample_weight=weights))
    assert weighted == pytest.approx(expected, rel=1e-5)
    short = np.where(np.arange(5) < 3, TOKENS, 0)
    by_step = ensemble.evaluate(short, LABELS).accuracy_by_choice
    assert np.isnan(by_step[3:]).all() and not np.isnan(by_step[:3]).any()


def test_a_temperature_of_the_steps_that_count(trained):
    ensemble = trained.sample(3)
    wrong = np.where(MASK, LABELS, 2 - LABELS)
    temperature = ensemble.calibrate(TOKENS, LABELS).temperature
    assert ensemble.calibrate(TOKENS, wrong).temperature == pytest.approx(temperature, rel=1e-6)
    assert temperature != 1.0


def test_masks_follow_from_the_inputs(trained):
    np.testing.assert_array_equal(trained.target.output_masks(TOKENS), MASK)
    plain = hn.Target(tagger(masked=False))
    assert plain.output_masks(TOKENS) is None and not plain.has_masks
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    heads = {"steps": layers.Dense(2)(x), "whole": layers.LSTM(2)(x)}
    masks = hn.Target(keras.Model(tokens, heads)).output_masks(TOKENS)
    np.testing.assert_array_equal(masks["steps"], MASK)
    assert masks["whole"] is None


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.usefixtures("eager_fits")
def test_values_of_padded_steps_change_nothing(outputs):
    """An error of values is the mean over the steps that count, as in Keras."""
    sampler = hn.DeepEnsemble(tagger(outputs=outputs), num_networks=3)
    sampler.compile("sgd", "mse")
    ensemble = sampler.sample(3)
    y = RNG.normal(size=(12, 5, outputs)).astype("float32")
    result = ensemble.evaluate(TOKENS, y)
    errors = (ensemble.outputs(TOKENS) - y) ** 2
    assert result.member_mean_squared_error == pytest.approx(errors[:, MASK].mean((1, 2)))
    error = (ensemble.predict(TOKENS) - y) ** 2
    assert result.mean_squared_error == pytest.approx(error[MASK].mean())
    deviation = ensemble.outputs(TOKENS).std(0)[MASK].mean()
    assert result.standard_deviation == pytest.approx(deviation, rel=1e-5)
    numbers = sampler.evaluate(TOKENS, y, verbose=0, return_dict=True)
    assert numbers["ensemble_loss"] == pytest.approx(result.mean_squared_error, rel=1e-5)
    padded = np.where(MASK[..., None], y, np.nan)
    assert ensemble.evaluate(TOKENS, padded).summary() == result.summary()
    data = tf.data.Dataset.from_tensor_slices((TOKENS, padded)).batch(5)
    assert ensemble.evaluate(data).summary() == pytest.approx(result.summary())


def test_weights_of_steps():
    """A mask is a weight of 0 or 1; without one, steps may have weights of their own."""
    plain = hn.DeepEnsemble(tagger(masked=False, outputs=2), num_networks=2).sample(2)
    y = RNG.normal(size=(12, 5, 2))
    weights = RNG.uniform(0.5, 2, (12, 5)) * MASK
    result = plain.evaluate(TOKENS, y, sample_weight=weights)
    errors = ((plain.predict(TOKENS) - y) ** 2).mean(-1)
    assert result.mean_squared_error == pytest.approx(np.average(errors, weights=weights))
    of_examples = plain.evaluate(TOKENS, y, sample_weight=weights[:, :1])  # the same for all steps
    assert of_examples.mean_squared_error == pytest.approx(
        plain.evaluate(TOKENS, y, sample_weight=weights[:, 0]).mean_squared_error
    )
    nan = np.where(weights[..., None] > 0, y, np.nan)
    assert plain.evaluate(TOKENS, nan, sample_weight=weights).summary() == result.summary()
    nan[0, 0] = np.nan  # which counts
    with one_line_error("1 of 12 true values are NaN"):
        plain.evaluate(TOKENS, nan, sample_weight=weights)
    with one_line_error("Sample weights [12, 4] do not fit labels [12, 5, 2]", "steps"):
        plain.evaluate(TOKENS, y, sample_weight=weights[:, :4])
    flat = hn.DeepEnsemble(
        keras.Sequential([keras.Input((5,)), layers.Dense(1)]), num_networks=2
    ).sample(2)
    with one_line_error("Sample weights [12, 4] do not fit the mask [12, 5]"):
        hn.DeepEnsemble(hn.Target(tagger(), outputs="logits"), num_networks=2).sample(2).evaluate(
            TOKENS, LABELS, sample_weight=weights[:, :4]
        )
    with one_line_error("Sample weights [12, 5] do not fit labels [12]"):
        flat.evaluate(TOKENS, y[:, 0, 0], sample_weight=weights)


def test_masks_that_a_nested_model_makes():
    tokens = keras.Input((5,), dtype="int32")
    encoder = keras.Model(tokens, layers.Embedding(9, 4, mask_zero=True)(tokens))
    words = keras.Input((5,), dtype="int32")
    model = keras.Model(words, layers.Dense(3)(encoder(words)))
    ensemble = hn.DeepEnsemble(hn.Target(model, outputs="logits"), num_networks=2).sample(2)
    np.testing.assert_array_equal(ensemble.target.output_masks(TOKENS), MASK)
    result = defined(ensemble.evaluate(TOKENS, LABELS))
    wrong = np.where(MASK, LABELS, 2 - LABELS)
    assert defined(ensemble.evaluate(TOKENS, wrong)) == result


def test_errors_in_one_line():
    with one_line_error("train on one device, or without a mask"):
        Share(2, replicas=2).check(keras.optimizers.SGD(), hn.Target(tagger()))


def test_padding_may_have_labels_that_are_none(trained):
    ensemble = trained.sample(3)
    result = defined(ensemble.evaluate(TOKENS, LABELS))
    padded = np.where(MASK, LABELS, -1)
    assert defined(ensemble.evaluate(TOKENS, padded)) == result
    one_hot = np.eye(3)[LABELS] * MASK[..., None]
    assert defined(ensemble.evaluate(TOKENS, one_hot)) == result
    assert ensemble.calibrate(TOKENS, padded).temperature != 1.0


def test_several_labels_of_each_step():
    tokens = keras.Input((5,), dtype="int32")
    x = layers.Embedding(9, 4, mask_zero=True)(tokens)
    model = keras.Model(tokens, layers.Dense(2, activation="sigmoid")(x))
    ensemble = hn.DeepEnsemble(model, num_networks=2).sample(2)
    y = RNG.integers(0, 2, (12, 5, 2))
    result = ensemble.evaluate(TOKENS, y)
    right = (ensemble.predict(TOKENS) > 0.5) == y
    assert result.mean_probability_accuracy == pytest.approx(right[MASK].mean())
    assert result.exact_match == pytest.approx((right | ~MASK[..., None]).all((1, 2)).mean())


def test_batches_of_sequences_that_are_padded_to_other_lengths():
    """Values and weights of steps, of which some batches have none."""
    steps = keras.Input((None, 2))
    model = keras.Model(steps, layers.Dense(1)(layers.SimpleRNN(3, return_sequences=True)(steps)))
    ensemble = hn.DeepEnsemble(model, num_networks=2).sample(2)
    parts = []
    for length in (4, 7):
        x = RNG.normal(size=(6, length, 2)).astype("float32")
        parts.append((x, RNG.normal(size=(6, length, 1)).astype("float32")))

    def batches():
        yield from parts

    signature = tuple(tf.TensorSpec([None, None, size]) for size in (2, 1))
    data = tf.data.Dataset.from_generator(batches, output_signature=signature)
    errors = [((ensemble.predict(x) - y) ** 2).mean((1, 2)) for x, y in parts]
    result = ensemble.evaluate(data)
    assert result.mean_squared_error == pytest.approx(np.mean(errors), rel=1e-5)


@pytest.mark.parametrize("first", [0, 1])
def test_batches_without_weights_of_steps_among_others(first):
    target = hn.Target(tagger(masked=False), outputs="logits")
    ensemble = hn.DeepEnsemble(target, num_networks=2).sample(2)
    weights = RNG.uniform(0.5, 2, (6, 5))
    whole = np.ones((12, 5))
    whole[6 * first : 6 * first + 6] = weights
    data = Batches(TOKENS, LABELS, sizes=(6,))
    data.batches[first] = (*data.batches[first], weights)
    expected = defined(ensemble.evaluate(TOKENS, LABELS, sample_weight=whole))
    assert defined(ensemble.evaluate(data, batch_size=4)) == pytest.approx(expected, rel=1e-5)


def test_masks_of_several_words_are_those_of_keras():
    """The mask of concatenated embeddings has their shapes in its graph, not their values."""
    tokens, tags = (keras.Input((5,), dtype="int32") for _ in range(2))
    words = [layers.Embedding(9, size, mask_zero=True)(x) for x, size in ((tokens, 4), (tags, 2))]
    both = layers.Concatenate()(words)
    model = keras.Model([tokens, tags], layers.Dense(3)(both))
    inputs = [tf.constant(TOKENS), tf.constant(TOKENS[::-1])]
    [masks] = keras.tree.flatten(hn.Target(model).output_masks(inputs))
    np.testing.assert_array_equal(masks, model(inputs)._keras_mask)
    assert not np.all(masks)


class Nonzero(layers.Layer):
    """A layer of the user's that makes a mask of its inputs."""

    def call(self, x):
        return x

    def compute_mask(self, x, mask=None):
        return keras.ops.any(x != 0, -1)


def test_a_mask_behind_weights_that_reaches_no_output_is_no_error():
    tokens, values = keras.Input((5,), dtype="int32"), keras.Input((5, 2))
    tags = layers.Dense(3)(layers.Embedding(9, 4, mask_zero=True)(tokens))
    one = layers.LSTM(2)(layers.Masking()(layers.Dense(4, "relu")(values)))
    assert hn.Target(keras.Model([tokens, values], [tags, one])).has_masks


@pytest.mark.parametrize("masking", [layers.Masking, Nonzero])
def test_masks_that_follow_from_weights_are_one_line(masking):
    model = keras.Sequential(
        [keras.Input((5, 2)), layers.Dense(4, "relu"), masking(), layers.Dense(1)]
    )
    with one_line_error("follows from weights", "before all layers with weights"):
        _ = hn.Target(model).has_masks
