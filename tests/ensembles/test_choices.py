"""Several choices among classes for each example: labels, and the pixels of class maps."""

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf
from small_ensembles import EXAMPLES, convolutional, ensemble_of, one_line

import hypernet_tf as hn
from hypernet_tf.ensembles import ensemble as ensembles
from hypernet_tf.ensembles import inference
from hypernet_tf.metrics import (
    SCORES,
    brier_score,
    expected_calibration_error,
)

layers = keras.layers
RNG = np.random.default_rng(3)


def class_map(*end):
    return keras.Sequential([keras.Input((6, 6, 1)), layers.Conv2D(2, 3, padding="same"), *end])


MODELS = {
    "label logits": (lambda: convolutional(layers.Dense(3)), "label_logits"),
    "sigmoids": (lambda: convolutional(layers.Dense(3, activation="sigmoid")), None),
    "map of logits": (lambda: class_map(layers.Conv2D(4, 1)), "logits"),
    "map of softmax": (lambda: class_map(layers.Conv2D(4, 1, activation="softmax")), None),
    "map of sigmoid": (lambda: class_map(layers.Conv2D(1, 1, activation="sigmoid")), None),
    "map of label logits": (lambda: class_map(layers.Conv2D(3, 1)), "label_logits"),
    "map of sigmoids": (lambda: class_map(layers.Conv2D(3, 1, activation="sigmoid")), None),
}


class Case:
    """An ensemble, probabilities p [N, M, P, C] of its choices by hand, and their classes y."""

    def __init__(self, kind, x):
        model, outputs = MODELS[kind]
        self.ensemble = ensemble_of(model(), outputs)
        raw = self.ensemble.outputs(x).astype(np.float64)
        if kind in ("map of logits", "map of softmax"):
            p = np.exp(raw) / np.exp(raw).sum(-1, keepdims=True) if kind == "map of logits" else raw
        else:
            second = 1 / (1 + np.exp(-raw)) if kind.endswith("label logits") else raw
            second = second[..., 0] if kind == "map of sigmoid" else second
            p = np.stack([1 - second, second], -1)
        self.shape = p.shape[2:-1]
        self.p = p.reshape(*p.shape[:2], -1, p.shape[-1])
        y = np.random.default_rng(1).integers(0, p.shape[-1], p.shape[1:-1])
        # Half of the examples are as the first network says, so that some match exactly.
        y[::2] = p[0, ::2].argmax(-1)
        self.y = y
        self.flat = y.reshape(len(y), -1)


@pytest.fixture(scope="module")
def choices(x, eagerly):
    with eagerly():
        return {kind: Case(kind, x) for kind in MODELS}


@pytest.fixture(autouse=True)
def eager(request):
    """Nothing is traced, except for what is exported."""
    if "export" not in request.function.__name__:
        request.getfixturevalue("eager_fits")


_FAST = ("label logits", "map of logits", "map of sigmoids")


@pytest.fixture(
    params=[
        kind if kind in _FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in MODELS
    ]
)
def case(request, choices):
    return choices[request.param]


def test_evaluations_equal_those_of_all_choices_at_once(case, x):
    result = case.ensemble.evaluate(x, case.y, batch_size=5)
    p, y = case.p, case.flat
    mean, pooled = p.mean(0), y.ravel()
    log_mean = np.log(mean).reshape(-1, p.shape[-1])
    right = p.argmax(-1) == y
    chosen = np.take_along_axis(p, np.broadcast_to(y, p.shape[:-1])[..., None], -1)
    num_classes = p.shape[-1]
    exact = {
        "member_accuracy": right.mean((1, 2)),
        "member_exact_match": right.all(-1).mean(-1),
        "member_negative_log_likelihood": -np.log(chosen).mean((1, 2, 3)),
        "mean_probability_accuracy": (mean.argmax(-1) == y).mean(),
        "exact_match": (mean.argmax(-1) == y).all(-1).mean(),
        "negative_log_likelihood": sklearn.metrics.log_loss(
            pooled,
            mean.reshape(-1, num_classes) / mean.sum(-1).reshape(-1, 1),
            labels=range(num_classes),
        ),
        "brier_score": brier_score(log_mean, pooled),
        "expected_calibration_error": expected_calibration_error(log_mean, pooled),
    }
    for key, values in exact.items():
        np.testing.assert_allclose(getattr(result, key), values, rtol=1e-4, atol=1e-6, err_msg=key)
    assert result.member_exact_match.max() >= 0.5 > result.expected_calibration_error > 0
    assert np.isnan(result.adaptive_calibration_error)
    assert result.summary()["adaptive_calibration_error"] is None
    np.testing.assert_array_equal(
        result.confusion,
        sklearn.metrics.confusion_matrix(
            pooled, mean.argmax(-1).ravel(), labels=range(num_classes)
        ),
    )
    assert result.accuracy_by_choice.shape == case.shape
    by_choice = (mean.argmax(-1) == y).mean(0).reshape(case.shape)
    np.testing.assert_allclose(result.accuracy_by_choice, by_choice)


def test_labels_match_as_scikit_learn_counts_them(choices, x):
    case = choices["sigmoids"]
    chosen = (case.ensemble.predict(x) > 0.5).astype(int)
    result = case.ensemble.evaluate(x, case.y)
    assert result.exact_match == pytest.approx(sklearn.metrics.accuracy_score(case.y, chosen))
    hamming = sklearn.metrics.hamming_loss(case.y, chosen)
    assert result.mean_probability_accuracy == pytest.approx(1 - hamming)


def test_chunks_and_networks_change_nothing(case, x, monkeypatch):
    whole = case.ensemble.evaluate(x, case.y).summary()
    scores = case.ensemble.uncertainty(x).scores
    planned = []
    plan = inference.plan
    monkeypatch.setattr(inference, "plan", lambda *a: planned.append(plan(*a)) or planned[-1])
    each = len(case.ensemble) * case.p.shape[2] * case.p.shape[3]
    monkeypatch.setattr(ensembles, "_OUTPUTS_AT_ONCE", 4 * each)
    parts = case.ensemble.evaluate(x, case.y).summary()
    assert planned == [(5, 4)]  # predictions of 4 examples in memory
    for key, value in whole.items():
        assert parts[key] == (None if value is None else pytest.approx(value, rel=1e-5)), key
    for key, values in case.ensemble.uncertainty(x).scores.items():
        np.testing.assert_allclose(values, scores[key], rtol=1e-4, atol=1e-6)
    assert case.ensemble[0].evaluate(x, case.y).summary()["disagreement"] is None


def test_integer_weights_are_repeated_examples(case, x):
    weights = np.random.default_rng(4).integers(0, 4, EXAMPLES)
    weights[:5] = 0  # a whole chunk has no weight
    weighted = case.ensemble.evaluate(x, case.y, sample_weight=2.5 * weights, batch_size=5)
    repeated = case.ensemble.evaluate(np.repeat(x, weights, 0), np.repeat(case.y, weights, 0))
    for key, value in repeated.summary().items():
        expected = None if value is None else pytest.approx(value, rel=1e-5, abs=1e-7)
        assert weighted.summary()[key] == expected, key
    np.testing.assert_allclose(weighted.confusion, 2.5 * repeated.confusion)
    np.testing.assert_allclose(weighted.accuracy_by_choice, repeated.accuracy_by_choice)
    with pytest.raises(ValueError, match="Sample weights must be numbers"):
        data = tf.data.Dataset.from_tensor_slices((x, case.y, np.zeros(EXAMPLES))).batch(4)
        case.ensemble.evaluate(data)


def test_uncertainty_has_one_value_for_each_choice(case, x):
    log_p = np.log(case.p).reshape(len(case.p), -1, case.p.shape[-1])
    scores = case.ensemble.uncertainty(x)
    for key, values in scores.scores.items():
        assert values.shape == case.y.shape
        if not SCORES[key].of_logits:
            exact = SCORES[key].of_array(log_p)
            np.testing.assert_allclose(values.ravel(), exact, rtol=1e-3, atol=1e-5, err_msg=key)
    assert ("energy" in scores.scores) == (case.ensemble.target.outputs == "logits")
    assert case.ensemble.log_probabilities(x).shape == (5, *case.y.shape, case.p.shape[-1])
    with pytest.raises(ValueError, match="needs one choice of class per example"):
        case.ensemble.majority_vote(x)


def test_one_temperature_for_all_choices(case, x):
    calibrated = case.ensemble.calibrate(x, case.y)
    assert calibrated.temperature != 1.0
    losses = [e.evaluate(x, case.y).negative_log_likelihood for e in (case.ensemble, calibrated)]
    assert losses[1] < losses[0]
    scaled = case.p ** (1 / calibrated.temperature)
    mean = (scaled / scaled.sum(-1, keepdims=True)).mean(0)
    predicted = calibrated.predict(x)
    one_column = predicted.size == mean[..., 1].size
    expected = (mean[..., 1] if one_column else mean).reshape(predicted.shape)
    np.testing.assert_allclose(predicted, expected, rtol=1e-3, atol=1e-5)


def test_labels_of_every_form(choices, x):
    case = choices["map of logits"]
    exact = case.ensemble.evaluate(x, case.y).summary()
    for same in (
        case.y[..., None],
        case.y.astype("float32"),
        np.eye(4)[case.y],
        case.y.astype("u1"),
    ):
        assert case.ensemble.evaluate(x, same).summary() == exact
    several = choices["sigmoids"]
    exact = several.ensemble.evaluate(x, several.y).summary()
    assert several.ensemble.evaluate(x, several.y.astype(bool)).summary() == exact
    for ensemble, wrong, words in (
        (case.ensemble, case.y[:, :5], "from 0 to 3 of shape [6, 6] for each example"),
        (case.ensemble, case.y + 1, "from 0 to 3 of shape [6, 6] for each example"),
        (several.ensemble, several.y[:, 0], "from 0 to 1 of shape [3] for each example"),
        (several.ensemble, several.y + 0.5, "use Target(model, outputs='values')"),
        (
            choices["map of sigmoids"].ensemble,
            choices["map of sigmoids"].y[..., 0],
            "from 0 to 1 of shape [6, 6, 3] for each example",
        ),
    ):
        with pytest.raises(ValueError) as error:
            ensemble.evaluate(x, wrong)
        assert words in one_line(error)


@pytest.mark.slow
def test_exports_return_scores_of_each_choice(case, x, tmp_path):
    case.ensemble.export(tmp_path / "1")
    loaded = tf.saved_model.load(tmp_path / "1")
    results = loaded.signatures["serving_default"](inputs=tf.constant(x))
    expected = {"probabilities": case.ensemble.predict(x)} | case.ensemble.uncertainty(x).scores
    assert results.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(results[key], values, rtol=1e-4, atol=1e-5, err_msg=key)


@pytest.mark.parametrize(
    ("end", "loss", "outputs"),
    [
        (layers.Dense(3), keras.losses.BinaryCrossentropy(from_logits=True), "label_logits"),
        (layers.Dense(3, activation="sigmoid"), "binary_crossentropy", "label_probabilities"),
        (layers.Dense(3, activation="sigmoid"), "mse", "label_probabilities"),
        (layers.Dense(3), "mse", "values"),
        (layers.Dense(3, activation="softmax"), "binary_crossentropy", "probabilities"),
        (layers.Conv2D(3, 1), keras.losses.BinaryCrossentropy(from_logits=True), "label_logits"),
        (layers.Conv2D(1, 1), keras.losses.BinaryCrossentropy(from_logits=True), "logits"),
        (layers.Conv2D(3, 1, activation="sigmoid"), "binary_crossentropy", "label_probabilities"),
    ],
)
def test_the_loss_tells_that_columns_are_labels(end, loss, outputs):
    inputs = keras.Input((4, 4, 1) if isinstance(end, layers.Conv2D) else (2,))
    sampler = hn.DeepEnsemble(keras.Sequential([inputs, end]), num_networks=2)
    sampler.compile("adam", loss)
    assert sampler.target.outputs == outputs


def test_a_loss_that_contradicts_the_outputs():
    logits = keras.losses.BinaryCrossentropy(from_logits=True)
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, activation="sigmoid")])
    with pytest.raises(ValueError, match="drop the target's softmax or sigmoid, or from_logits"):
        hn.DeepEnsemble(model, num_networks=2).compile("adam", logits)
    classes = hn.Target(keras.Sequential([keras.Input((2,)), layers.Dense(3)]), outputs="logits")
    sampler = hn.DeepEnsemble(classes, num_networks=2)
    sampler.compile("adam", logits)  # each class against all others
    assert sampler.target.outputs == "logits"


def test_a_sampler_learns_labels():
    """Each label is the sign of one input: trained, evaluated by Keras and by the ensemble."""
    x = RNG.normal(size=(256, 2)).astype("float32")
    y = (x > 0).astype("float32")
    sampler = hn.DeepEnsemble(
        keras.Sequential([keras.Input((2,)), layers.Dense(2)]), num_networks=2
    )
    sampler.compile(keras.optimizers.Adam(0.1), keras.losses.BinaryCrossentropy(from_logits=True))
    sampler.fit(x, y, batch_size=64, epochs=10, verbose=0)
    ensemble = sampler.sample(2)
    result = ensemble.evaluate(x, y)
    assert result.exact_match > 0.85
    keras_loss = sampler.evaluate(x, y, verbose=0, return_dict=True)["ensemble_loss"]
    assert keras_loss == pytest.approx(result.negative_log_likelihood, rel=1e-3)
    student = hn.distill(ensemble, x, epochs=1, student=ensemble[0])
    assert hn.Ensemble.from_keras(ensemble.target, student).evaluate(x, y).exact_match > 0.85


def test_labels_of_open_sizes_have_those_of_the_predictions():
    end = layers.Conv2D(3, 3, padding="same", activation="sigmoid")
    ensemble = ensemble_of(keras.Sequential([keras.Input((None, None, 1)), end]))
    x = RNG.normal(size=(4, 5, 6, 1)).astype("float32")
    y = (ensemble.predict(x) > 0.5).astype(int)
    assert ensemble.evaluate(x, y).mean_probability_accuracy == 1.0
    for wrong in (y.transpose(0, 2, 1, 3), y[:, :4]):
        for run in (ensemble.evaluate, ensemble.calibrate):
            with pytest.raises(ValueError) as error:
                run(x, wrong)
            assert "do not match predictions of shape [5, 6, 3]" in one_line(error)


def test_open_sizes_run_as_many_examples_at_once_as_known_ones(monkeypatch):
    end = layers.Conv2D(3, 3, padding="same", activation="sigmoid")
    ensemble = ensemble_of(keras.Sequential([keras.Input((None, None, 1)), end]))
    x = RNG.normal(size=(40, 5, 6, 1)).astype("float32")
    y = (ensemble.predict(x) > 0.5).astype(int)
    evaluate_choices, sizes = ensembles.evaluate_choices, []

    def counted(runs, num_classes):
        for outputs, chunk in runs:
            sizes.append(chunk.size)
            yield outputs, chunk

    monkeypatch.setattr(
        ensembles, "evaluate_choices", lambda runs, c: evaluate_choices(counted(runs, c), c)
    )
    assert ensemble.evaluate(x, y).mean_probability_accuracy == 1.0
    assert sizes == [40]
    sizes.clear()
    monkeypatch.setattr(ensembles, "_OUTPUTS_AT_ONCE", 16 * len(ensemble) * 6 * 6 * 3 * 2)
    assert ensemble.evaluate(x, y).mean_probability_accuracy == 1.0
    assert sizes == [16, 16, 8]


def test_choices_may_have_weights_of_their_own(choices, x):
    case = choices["map of logits"]
    void = np.random.default_rng(2).random(case.y.shape) < 0.3
    labels, weights = np.where(void, -1, case.y), 1.0 - void
    result = case.ensemble.evaluate(x, labels, sample_weight=weights, batch_size=5)
    p = case.p.reshape(*case.p.shape[:2], *case.shape, -1)
    right = p.mean(0).argmax(-1) == case.y
    assert result.mean_probability_accuracy == pytest.approx(right[~void].mean())
    assert result.exact_match == pytest.approx((right | void).reshape(len(x), -1).all(-1).mean())
    one_hot = np.eye(4)[case.y] * weights[..., None]  # rows of 0 where nothing counts
    again = case.ensemble.evaluate(x, one_hot, sample_weight=weights, batch_size=5)
    assert again.summary() == result.summary()
    temperature = case.ensemble.calibrate(x, labels, sample_weight=weights).temperature
    assert temperature == case.ensemble.calibrate(x, case.y, sample_weight=weights).temperature
    with pytest.raises(ValueError, match="do not fit labels"):
        case.ensemble.evaluate(x, case.y, sample_weight=weights[:, :5])


def test_weights_of_pixels_may_have_an_axis_of_size_1(choices, x):
    """As labels [M, H, W, 1] have, and as Keras takes them."""
    case = choices["map of logits"]
    weights = np.random.default_rng(2).random(case.y.shape)
    expected = case.ensemble.evaluate(x, case.y, sample_weight=weights).summary()
    for labels in (case.y, case.y[..., None]):
        result = case.ensemble.evaluate(x, labels, sample_weight=weights[..., None])
        assert result.summary() == expected
    one_hot = np.eye(4)[case.y]
    with pytest.raises(ValueError, match="do not fit labels"):
        case.ensemble.evaluate(x, one_hot, sample_weight=np.ones(one_hot.shape))


def test_weights_below_0_are_refused_in_data_sets_too(choices, x):
    case = choices["map of logits"]
    weights = np.ones(case.y.shape)
    weights[3, 2, 1] = -0.5
    data = tf.data.Dataset.from_tensor_slices((x, case.y, weights)).batch(4)
    with pytest.raises(ValueError, match="finite numbers of at least 0") as error:
        case.ensemble.evaluate(data)
    assert one_line(error)
