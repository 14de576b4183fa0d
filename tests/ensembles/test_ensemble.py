"""Ensembles against a loop over their networks, each an ordinary Keras model."""

import io
import json
import types

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import hypernet_tf as hn
from hypernet_tf.ensembles import inference as chunks
from hypernet_tf.metrics import accuracy as metrics
from hypernet_tf.metrics import calibration, uncertainty

layers = keras.layers
NETWORKS, EXAMPLES, CLASSES = 5, 23, 4


def convolutional(*end):
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(3, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            *end,
        ]
    )


def normalised():
    """Batch normalisation with two momenta, in the middle and near the end."""
    return convolutional(
        layers.BatchNormalization(momentum=0.9),
        layers.Dense(5, use_bias=False),
        layers.BatchNormalization(),
        layers.Activation("relu"),
        layers.Dense(CLASSES),
    )


def ensemble_of(model, outputs=None, num_networks=NETWORKS, scale=0.7):
    target = hn.Target(model, outputs=outputs)
    theta = np.random.default_rng(7).normal(size=(num_networks, target.weight_count)) * scale
    return hn.Ensemble(target, target.unflatten(tf.constant(theta, tf.float32)))


MODELS = {
    "logits": (lambda: convolutional(layers.Dense(CLASSES)), "logits"),
    "softmax": (lambda: convolutional(layers.Dense(CLASSES, activation="softmax")), None),
    "one logit": (lambda: convolutional(layers.Dense(1)), "logits"),
    "one sigmoid": (lambda: convolutional(layers.Dense(1, activation="sigmoid")), None),
    "values": (lambda: convolutional(layers.Dense(2)), None),
}
CLASSIFIERS = [kind for kind in MODELS if kind != "values"]


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(0).normal(size=(EXAMPLES, 6, 6, 1)).astype("float32")


class Case:
    """An ensemble, and what a loop over its networks returns."""

    def __init__(self, kind, x):
        model, outputs = MODELS[kind]
        self.ensemble = ensemble_of(model(), outputs)
        self.loop = np.stack(
            [network.to_keras().predict(x, verbose=0) for network in self.ensemble]
        )
        outputs = self.loop.astype(np.float64)
        if kind == "logits":
            self.p = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
        elif kind == "softmax":
            self.p = outputs
        elif kind in ("one logit", "one sigmoid"):
            second = 1 / (1 + np.exp(-outputs)) if kind == "one logit" else outputs
            self.p = np.concatenate([1 - second, second], -1)  # [N, M, C]

    @property
    def y(self):
        """Labels of which the networks hit some and miss some."""
        return np.random.default_rng(1).integers(0, self.p.shape[-1], EXAMPLES)


@pytest.fixture(scope="module")
def cases(x):
    return {kind: Case(kind, x) for kind in MODELS}


@pytest.fixture(params=MODELS)
def case(request, cases):
    return cases[request.param]


@pytest.fixture(params=CLASSIFIERS)
def classifier(request, cases):
    return cases[request.param]


def one_line(error):
    message = str(error.value)
    assert "\n" not in message and len(message) < 400
    return message


# ---- against the loop over networks ---------------------------------------------------------


def test_the_kinds_of_target_are_what_they_say(cases):
    kinds = {k: (c.ensemble.target.outputs, c.ensemble.target.classes) for k, c in cases.items()}
    assert kinds == {
        "logits": ("logits", CLASSES),
        "softmax": ("probabilities", CLASSES),
        "one logit": ("logits", 2),
        "one sigmoid": ("probabilities", 2),
        "values": ("values", None),
    }
    for c in cases.values():  # the networks differ: no test below compares a thing with itself
        assert np.ptp(c.loop, 0).max() > 0.1


def test_outputs_equal_the_loop(case, x):
    np.testing.assert_allclose(case.ensemble.outputs(x), case.loop, rtol=1e-5, atol=1e-5)


def test_predict_is_the_mean_of_probabilities_or_values(cases, x):
    for kind, c in cases.items():
        if kind == "values":
            exact = c.loop.mean(0)
        else:
            exact = c.p.mean(0)[:, 1:] if kind.startswith("one ") else c.p.mean(0)
        ours = c.ensemble.predict(x)
        assert ours.shape == c.loop.shape[1:]
        np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-6)


def test_log_probabilities_and_vote_equal_the_loop(classifier, x):
    ours = classifier.ensemble.log_probabilities(x)
    np.testing.assert_allclose(ours, np.log(classifier.p), rtol=1e-4, atol=1e-5)
    choice = classifier.p.argmax(-1)  # [N, M]
    most = [np.bincount(column).argmax() for column in choice.T]
    np.testing.assert_array_equal(classifier.ensemble.majority_vote(x), most)


def test_evaluation_equals_the_metrics_of_all_outputs_at_once(classifier, x):
    p, y = classifier.p, classifier.y
    result = classifier.ensemble.evaluate(x, y)
    assert isinstance(result, hn.Evaluation)
    choice, classes, mean = p.argmax(-1), p.shape[-1], p.mean(0)
    accuracy, log_loss = sklearn.metrics.accuracy_score, sklearn.metrics.log_loss
    exact = {
        "member_accuracy": [accuracy(y, c) for c in choice],
        "member_negative_log_likelihood": [
            log_loss(y, q / q.sum(-1, keepdims=True), labels=range(classes)) for q in p
        ],
        "majority_vote_accuracy": accuracy(y, metrics.majority_vote(choice, classes)),
        "mean_probability_accuracy": accuracy(y, mean.argmax(-1)),
        "most_confident_accuracy": accuracy(y, p.max(0).argmax(-1)),
        "negative_log_likelihood": -np.log(mean[np.arange(EXAMPLES), y]).mean(),
        "expected_calibration_error": calibration.expected_calibration_error(np.log(mean), y),
        "adaptive_calibration_error": calibration.adaptive_calibration_error(np.log(mean), y),
        "brier_score": ((mean - np.eye(classes)[y]) ** 2).sum(-1).mean(),
        "disagreement": metrics.disagreement(choice, classes),
        "confusion": sklearn.metrics.confusion_matrix(y, mean.argmax(-1), labels=range(classes)),
    }
    assert set(vars(result)) == set(exact)
    for name, value in exact.items():
        np.testing.assert_allclose(getattr(result, name), value, rtol=1e-5, atol=1e-6, err_msg=name)
    assert 0 < result.mean_probability_accuracy < 1
    single = [name for name, value in exact.items() if not np.ndim(value)]
    json.dumps({name: getattr(result, name) for name in single})  # plain numbers


def test_evaluation_of_values(cases, x):
    c = cases["values"]
    y = np.random.default_rng(2).normal(size=(EXAMPLES, 2))
    result = c.ensemble.evaluate(x, y, batch_size=7)
    error = sklearn.metrics.mean_squared_error
    np.testing.assert_allclose(
        result.member_mean_squared_error, [error(y, o) for o in c.loop], rtol=1e-5
    )
    assert result.mean_squared_error == pytest.approx(error(y, c.loop.mean(0)), rel=1e-5)
    assert result.standard_deviation == pytest.approx(c.loop.std(0).mean(), rel=1e-5)
    json.dumps([result.mean_squared_error, result.standard_deviation])


def test_one_value_may_be_given_without_its_axis(x):
    ensemble = ensemble_of(convolutional(layers.Dense(1)), "values")
    y = np.random.default_rng(2).normal(size=EXAMPLES)
    flat, column = (ensemble.evaluate(x, values) for values in (y, y[:, None]))
    exact = ((ensemble.outputs(x)[..., 0] - y) ** 2).mean(1)
    for result in (flat, column):
        np.testing.assert_allclose(result.member_mean_squared_error, exact, rtol=1e-5)


def test_one_network_disagrees_with_nobody(cases, x):
    c = cases["logits"]
    result = c.ensemble[0].evaluate(x, c.y)
    assert np.isnan(result.disagreement)
    assert result.majority_vote_accuracy == result.member_accuracy[0]


def test_extreme_outputs_have_finite_logarithms(x):
    """Exact for logits; where a softmax or a sigmoid rounds to 0, the least float32."""
    for kind in CLASSIFIERS:
        model, outputs = MODELS[kind]
        ensemble = ensemble_of(model(), outputs, scale=40.0)
        log_p = ensemble.log_probabilities(x)
        if outputs == "logits":
            logits = ensemble.outputs(x).astype(np.float64)
            if kind == "one logit":
                logits = np.concatenate([0 * logits, logits], -1)
            least = (logits - logits.max(-1, keepdims=True)).min()
        else:
            least = np.log(np.finfo(np.float32).tiny)
        assert least < -80
        assert log_p.min() == pytest.approx(least, rel=1e-6)
        assert log_p.max() <= 0
        y = np.arange(EXAMPLES) % ensemble.target.classes
        result = ensemble.evaluate(x, y)
        likelihood = -np.mean(np.take_along_axis(log_p, y[None, :, None], -1), (1, 2))
        np.testing.assert_allclose(result.member_negative_log_likelihood, likelihood, rtol=1e-5)


def test_half_precision_has_finite_logarithms():
    policy = keras.DTypePolicy("mixed_float16")
    model = keras.Sequential(
        [keras.Input((2,)), layers.Dense(3, activation="softmax", dtype=policy)]
    )
    ensemble = ensemble_of(model, scale=30.0)
    x = np.ones([4, 2], "float32")
    assert ensemble.outputs(x).dtype == np.float16
    assert np.isfinite(ensemble.log_probabilities(x)).all()


# ---- chunks ---------------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch):
    """The (networks, examples) of each graph that is traced."""
    seen = []
    run = hn.Target.run

    def spy(self, weights, inputs, **kwargs):
        examples = keras.tree.flatten(inputs)[0].shape[0]
        seen.append((weights.trainable[0].shape[0], examples))
        return run(self, weights, inputs, **kwargs)

    monkeypatch.setattr(hn.Target, "run", spy)
    return seen


@pytest.mark.parametrize(
    ("networks_at_once", "batch_size"), ((1, 7), (2, 1), (2, 7), (3, 22), (2, 23), (5, 100))
)
def test_results_do_not_depend_on_chunks(cases, x, runs, monkeypatch, networks_at_once, batch_size):
    """Nor do chunks that do not divide N or M evenly cost a second graph."""
    c = cases["logits"]
    vars(c.ensemble.target).pop("compiled", None)  # graphs of other tests
    monkeypatch.setattr(chunks, "_NETWORKS_AT_ONCE", networks_at_once)
    ours = c.ensemble.outputs(x, batch_size=batch_size)
    np.testing.assert_allclose(ours, c.loop, rtol=1e-5, atol=1e-5)
    assert runs == [(networks_at_once, min(batch_size, EXAMPLES))]
    c.ensemble.outputs(x, batch_size=batch_size)
    assert len(runs) == 1  # the same shapes again need no other graph


def test_evaluations_do_not_depend_on_chunks(cases, x, monkeypatch):
    for kind, c in cases.items():
        y = x[:, :2, 0, 0] if kind == "values" else c.y
        whole = vars(c.ensemble.evaluate(x, y))
        with monkeypatch.context() as patch:
            patch.setattr(chunks, "_NETWORKS_AT_ONCE", 2)
            parts = vars(c.ensemble.evaluate(x, y, batch_size=4))
            predicted = c.ensemble.predict(x, batch_size=4)
            if kind != "values":
                votes = c.ensemble.majority_vote(x, batch_size=4)
                np.testing.assert_array_equal(votes, c.ensemble.majority_vote(x))
        assert parts.keys() == whole.keys()
        for name, value in whole.items():
            np.testing.assert_allclose(parts[name], value, rtol=1e-6, err_msg=f"{kind} {name}")
        np.testing.assert_allclose(predicted, c.ensemble.predict(x), rtol=1e-5, atol=1e-6)


def test_a_small_budget_means_small_chunks(cases, x, runs, monkeypatch):
    c = cases["logits"]
    vars(c.ensemble.target).pop("compiled", None)
    each = 4 * c.ensemble.target.activations_per_example
    monkeypatch.setattr(chunks, "_ACTIVATION_BYTES", 6 * each)
    ours = c.ensemble.outputs(x)
    assert runs == [(5, 1)]
    np.testing.assert_allclose(ours, c.loop, rtol=1e-5, atol=1e-5)
    c.ensemble.outputs(x, batch_size=3)
    assert runs[1:] == [(2, 3)]


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    count=st.integers(1, 1000),
    size=st.integers(1, 100_000),
    batch_size=st.one_of(st.none(), st.integers(1, 5000)),
    each=st.integers(0, 10).flatmap(lambda power: st.integers(10**power, 10 ** (power + 1))),
)
def test_activations_stay_under_one_gibibyte(count, size, batch_size, each):
    """Unless the least that can run is more; and what fits is not cut smaller than it need be."""
    target = types.SimpleNamespace(activations_per_example=each)
    networks, examples = chunks.plan(target, count, size, batch_size)
    assert 1 <= networks <= min(count, 32)
    assert 1 <= examples <= size
    if batch_size is not None:
        assert examples == min(batch_size, size)
    least = 1 if batch_size is None else examples
    used = networks * examples * each * 4
    assert used <= 2**30 or (networks, examples) == (1, least)
    if min(count, 32) * least * each * 4 <= 2**29:  # all the networks that are wanted fit
        assert -(-count // networks) == -(-count // 32)
    if batch_size is None and networks * 512 * each * 4 <= 2**29:
        assert examples == min(512, size)


def test_a_batch_has_an_example(cases, x):
    for size in (0, -1):
        with pytest.raises(ValueError) as error:
            cases["logits"].ensemble.predict(x, batch_size=size)
        assert one_line(error) == f"a batch has at least one example, not {size}"


def test_progress_is_shown_when_asked_for(cases, x, capsys):
    cases["logits"].ensemble.predict(x)
    assert not capsys.readouterr().err
    cases["logits"].ensemble.predict(x, verbose=1, batch_size=10)
    assert "networks: " in (shown := capsys.readouterr().err) and "/3" in shown


# ---- which networks -------------------------------------------------------------------------


def test_indexing(cases):
    ensemble = cases["logits"].ensemble
    theta = ensemble.theta()
    assert len(ensemble) == NETWORKS
    assert theta.shape == (NETWORKS, ensemble.target.weight_count)
    for index in (0, 3, -1, -5, np.int64(2), np.argmax([0, 1])):
        one = ensemble[index]
        assert len(one) == 1
        np.testing.assert_array_equal(one.theta(), theta[index : index + 1 or None])
    for part in (slice(1, 3), slice(None), slice(-2, None), slice(None, None, 2), slice(4, 0, -2)):
        np.testing.assert_array_equal(ensemble[part].theta(), theta[part])
    members = list(ensemble)
    assert [len(one) for one in members] == [1] * NETWORKS
    np.testing.assert_array_equal(np.concatenate([one.theta() for one in members]), theta)


def test_networks_that_are_not_there(cases):
    ensemble = cases["logits"].ensemble
    for index in (5, -6):
        with pytest.raises(IndexError) as error:
            ensemble[index]
        assert one_line(error) == f"network {index} of 5"
    for part in (slice(5, 9), slice(2, 2), slice(3, 1)):
        with pytest.raises(IndexError, match=r"^no network in this slice$"):
            ensemble[part]
    with pytest.raises(TypeError):
        ensemble[[0, 1]]
    with pytest.raises(ValueError) as error:
        ensemble.to_keras()
    assert one_line(error) == "one of the 5 networks: ensemble[0].to_keras()"


# ---- what is refused ------------------------------------------------------------------------


def test_values_are_not_voted_on(cases, x):
    for method in ("majority_vote", "log_probabilities"):
        with pytest.raises(ValueError) as error:
            getattr(cases["values"].ensemble, method)(x)
        assert "needs classes, but the target returns values" in one_line(error)


def test_labels(cases, x):
    c = cases["logits"]
    evaluate, y = c.ensemble.evaluate, c.y
    exact = evaluate(x, y)
    one_hot = np.eye(CLASSES)[y]
    for same in (list(y), y[:, None], y.astype("uint8"), y.astype("float32"), one_hot,
                 one_hot.astype(bool), tf.constant(y)):  # fmt: skip
        np.testing.assert_equal(vars(evaluate(x, same)), vars(exact))
    fraction, missing = y + 0.0, y + 0.0
    fraction[3], missing[3] = 0.5, np.nan
    for wrong in (
        np.where(y == 0, CLASSES, y),
        y - 1,
        fraction,
        missing,
        0.9 * one_hot + 0.1 / CLASSES,
        one_hot[:, :3],
        np.stack([y, y], 1),
        np.array(["a"] * EXAMPLES),
    ):
        with pytest.raises(ValueError) as error:
            evaluate(x, wrong)
        assert one_line(error).startswith("labels are integers from 0 to 3, one per example")
    with pytest.raises(ValueError) as error:
        evaluate(x, y[:-1])
    assert one_line(error) == "22 labels for 23 examples"


def test_inputs_of_another_shape(cases, x):
    """As of a data set to be found strange that has other images."""
    for wrong in (np.repeat(x, 3, -1), x[:, :5], x[..., 0]):
        with pytest.raises(ValueError) as error:
            cases["logits"].ensemble.uncertainty(wrong)
        assert one_line(error).endswith(
            "but the target takes [B, 6, 6, 1] or [N, B, 6, 6, 1]: reshape them."
        )


def test_uncertainty_does_not_depend_on_chunks(cases, x):
    ensemble = cases["logits"].ensemble
    whole, parts = (ensemble.uncertainty(x, batch_size=size) for size in (None, 5))
    log_p = ensemble.log_probabilities(x)
    np.testing.assert_allclose(whole.entropy, uncertainty.predictive_entropy(log_p))
    np.testing.assert_allclose(whole.mutual_information, uncertainty.mutual_information(log_p))
    np.testing.assert_allclose(whole.variance, uncertainty.probability_variance(log_p))
    highest = ensemble.predict(x).max(-1)
    np.testing.assert_allclose(whole.least_confidence, 1 - highest, atol=1e-6)
    for name, values in vars(whole).items():
        np.testing.assert_allclose(getattr(parts, name), values, rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match="uncertainty needs classes"):
        ensemble_of(convolutional(layers.Dense(2)), "values").uncertainty(x)
    binary = cases["one logit"]
    with pytest.raises(ValueError, match=r"^labels are integers from 0 to 1,"):
        binary.ensemble.evaluate(x, np.full(EXAMPLES, 2))
    with pytest.raises(ValueError) as error:
        cases["values"].ensemble.evaluate(x, np.zeros([EXAMPLES, 3]))
    assert one_line(error) == "values of shape [3] for predictions of [2]"


def test_no_examples(cases, x):
    ensemble = cases["logits"].ensemble
    norms = ensemble_of(normalised(), "logits")
    for run in (
        ensemble.predict,
        ensemble.outputs,
        ensemble.majority_vote,
        ensemble.log_probabilities,
        lambda x: ensemble.evaluate(x, []),
        lambda x: cases["values"].ensemble.evaluate(x, []),
        norms.update_batch_norm,
    ):
        with pytest.raises(ValueError) as error:
            run(x[:0])
        assert one_line(error) == "there are no examples to run on"


def two_inputs():
    left, right = keras.Input((3,), name="left"), keras.Input((2,), name="right")
    hidden = layers.Dense(4, activation="relu")(layers.Concatenate()([left, right]))
    return {"left": left, "right": right}, hidden


def test_several_inputs_and_outputs():
    inputs, hidden = two_inputs()
    outputs = {"mean": layers.Dense(1)(hidden), "scale": layers.Dense(2)(hidden)}
    ensemble = ensemble_of(keras.Model(inputs, outputs), "values")
    rng = np.random.default_rng(0)
    x = {"left": rng.normal(size=(5, 3)), "right": rng.normal(size=(5, 2))}
    mean = ensemble.predict(x, batch_size=2)
    for name, values in mean.items():
        loop = [network.to_keras().predict(x, verbose=0)[name] for network in ensemble[:2]]
        np.testing.assert_allclose(ensemble.outputs(x)[name][:2], loop, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(values, ensemble.outputs(x)[name].mean(0), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError) as error:
        ensemble.evaluate(x, np.zeros(5))
    assert one_line(error) == "evaluate needs a target with one output: use predict()"
    for uneven in (x | {"left": x["left"][:4]}, [1.0, 2.0]):
        with pytest.raises(ValueError) as error:
            ensemble.predict(uneven)
        assert "all with the same number of examples" in one_line(error)


def test_one_output_with_a_name():
    inputs, hidden = two_inputs()
    ensemble = ensemble_of(keras.Model(inputs, {"digit": layers.Dense(3)(hidden)}), "logits")
    rng = np.random.default_rng(0)
    x = {"left": rng.normal(size=(5, 3)), "right": rng.normal(size=(5, 2))}
    logits = ensemble.outputs(x)["digit"]
    y = np.arange(5) % 3
    np.testing.assert_array_equal(ensemble.log_probabilities(x).argmax(-1), logits.argmax(-1))
    accuracy = ensemble.evaluate(x, y).member_accuracy
    np.testing.assert_allclose(accuracy, (logits.argmax(-1) == y).mean(-1))


def test_a_class_for_each_pixel_is_predicted_but_not_voted_on():
    model = keras.Sequential([keras.Input((4, 4, 1)), layers.Conv2D(3, 1)])
    ensemble = ensemble_of(model, "logits")
    x = np.ones([2, 4, 4, 1], "float32")
    assert ensemble.predict(x).shape == (2, 4, 4, 3)
    for run in (ensemble.majority_vote, lambda x: ensemble.evaluate(x, np.zeros(2, int))):
        with pytest.raises(ValueError) as error:
            run(x)
        assert "needs one choice of class per example" in one_line(error)


# ---- batch normalisation --------------------------------------------------------------------


def loop_statistics(network, x, batch_size):
    """Moving statistics of a Keras model: layer by layer, batch by batch, in training mode."""
    sums = {}
    for first in range(0, len(x), batch_size):
        values = x[first : first + batch_size]
        for layer in network.layers:
            if isinstance(layer, layers.BatchNormalization):
                axes = tuple(range(values.ndim - 1))
                share = len(x[first : first + batch_size]) / len(x)
                for place, statistic in enumerate((values.mean(axes), values.var(axes))):
                    key = layer.name, place
                    sums[key] = sums.get(key, 0.0) + share * statistic
            values = layer(values, training=True).numpy()
    return list(sums.values())


@pytest.mark.parametrize("networks_at_once", (32, 2))
def test_update_batch_norm_equals_the_loop(x, runs, monkeypatch, networks_at_once):
    """Batches of 10, 10 and 3, which counts by its size."""
    monkeypatch.setattr(chunks, "_NETWORKS_AT_ONCE", networks_at_once)
    ensemble = ensemble_of(normalised(), "logits")
    calibrated = ensemble.update_batch_norm(x, batch_size=10)
    assert runs == [(min(5, networks_at_once), 10), (min(5, networks_at_once), 3)]
    for n in range(NETWORKS):
        weights = tf.nest.map_structure(lambda t, n=n: t[n : n + 1], ensemble.weights)
        exact = loop_statistics(ensemble.target.to_keras(weights), x, 10)
        ours = [tensor[n] for tensor in calibrated.weights.state]
        assert len(ours) == len(exact) == 4
        for tensor, statistic in zip(ours, exact, strict=True):
            np.testing.assert_allclose(tensor, statistic, rtol=1e-4, atol=1e-5)
    network = calibrated[2].to_keras()
    ours = calibrated.outputs(x)[2]
    np.testing.assert_allclose(ours, network.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
    assert np.ptp(calibrated.weights.state[2], 0).max() > 0.1  # the networks differ


def test_update_batch_norm_keeps_within_the_budget(x, runs, monkeypatch):
    ensemble = ensemble_of(normalised(), "logits")
    each = 4 * ensemble.target.activations_per_example
    monkeypatch.setattr(chunks, "_ACTIVATION_BYTES", 25 * each)
    ensemble.update_batch_norm(x, batch_size=10)
    assert {networks for networks, _ in runs} == {2}


def test_update_batch_norm_of_a_shared_layer_is_where_keras_settles():
    """A layer that is called twice a step moves its average twice."""
    inputs = keras.Input((3,))
    norm = layers.BatchNormalization(momentum=0.6)
    hidden = layers.Dense(3)(norm(inputs))
    model = keras.Model(inputs, layers.Dense(2)(norm(hidden)))
    ensemble = ensemble_of(model, "values", num_networks=2)
    x = np.random.default_rng(0).normal(1.0, 2.0, size=(20, 3)).astype("float32")
    calibrated = ensemble.update_batch_norm(x)
    for n in range(2):
        network = calibrated[n].to_keras()
        for variable in network.non_trainable_variables:
            variable.assign(0.0 * variable)
        for _ in range(40):  # 0.6^80 of the start is left
            network(x, training=True)
        for ours, variable in zip(
            calibrated.weights.state, network.non_trainable_variables, strict=True
        ):
            np.testing.assert_allclose(ours[n], variable.numpy(), rtol=1e-4, atol=1e-5)


def test_uncalibrated_networks_are_refused(x, tmp_path):
    """The flag goes wherever the networks go."""
    ensemble = ensemble_of(normalised(), "logits")
    ensemble.save(tmp_path / "raw.npz")
    y = np.zeros(EXAMPLES, int)
    for raw in (ensemble, ensemble[1:], hn.Ensemble.load(tmp_path / "raw.npz"), ensemble[0]):
        for run in (
            raw.predict,
            raw.outputs,
            raw.majority_vote,
            raw.log_probabilities,
            lambda x, raw=raw: raw.evaluate(x, y),
            lambda x, raw=raw: raw[0].to_keras(),
        ):
            with pytest.raises(ValueError) as error:
                run(x)
            assert one_line(error).endswith("call ensemble.update_batch_norm(x_train) first")

    calibrated = ensemble.update_batch_norm(x, batch_size=10)
    calibrated.save(tmp_path / "calibrated.npz")
    loaded = hn.Ensemble.load(tmp_path / "calibrated.npz")
    outputs = calibrated.outputs(x)
    np.testing.assert_array_equal(loaded.outputs(x), outputs)
    np.testing.assert_allclose(calibrated[1:3].outputs(x), outputs[1:3], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="update_batch_norm"):
        ensemble.predict(x)  # the first one is as it was


def test_without_batch_normalisation_there_is_nothing_to_calibrate(cases, x):
    assert cases["logits"].ensemble.update_batch_norm(x) is cases["logits"].ensemble


# ---- keeping --------------------------------------------------------------------------------


def test_saved_and_loaded_it_answers_alike(case, x, tmp_path):
    path = tmp_path / "an ensemble"  # no suffix is added
    case.ensemble.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["an ensemble"]
    loaded = hn.Ensemble.load(path)
    assert loaded.target.outputs == case.ensemble.target.outputs
    np.testing.assert_array_equal(loaded.theta(), case.ensemble.theta())
    np.testing.assert_array_equal(loaded.outputs(x), case.ensemble.outputs(x))
    with np.load(path, allow_pickle=False) as file:
        arrays = [file[name] for name in file.files]  # pickled ones would be refused
    assert len(arrays) == 1 + len(case.ensemble.weights.trainable)


def test_frozen_layers_and_seeds_are_saved(x, tmp_path):
    model = convolutional(layers.Dropout(0.5), layers.Dense(6), layers.Dense(3))
    model.layers[-2].trainable = False
    ensemble = ensemble_of(model, "logits")
    ensemble.save(tmp_path / "e.npz")
    loaded = hn.Ensemble.load(tmp_path / "e.npz")
    assert len(loaded.weights.state) == 3
    for ours, theirs in zip(loaded.weights.state, ensemble.weights.state, strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(loaded.outputs(x), ensemble.outputs(x))
    # The target, too: new networks have the frozen layer of the old ones.
    weights = loaded.target.unflatten(tf.constant(ensemble.theta()))
    np.testing.assert_array_equal(loaded.target(weights, x), ensemble.outputs(x))


@pytest.fixture
def saved(cases, tmp_path):
    path = tmp_path / "e.npz"
    cases["logits"].ensemble.save(path)
    return path


def test_a_file_that_is_damaged(saved):
    whole = saved.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    cut = [whole[: round(len(whole) * share)] for share in (0.0, 0.001, 0.3, 0.9, 0.999)]
    for damaged in (*cut, bytes(flipped), whole[10:]):
        saved.write_bytes(damaged)
        with pytest.raises(ValueError) as error:
            hn.Ensemble.load(saved)
        assert "e.npz is not a saved ensemble, or is damaged: " in one_line(error)


def test_a_file_of_another_kind(saved):
    def written(save, *args, **kwargs):
        buffer = io.BytesIO()
        save(buffer, *args, **kwargs)
        return buffer.getvalue()

    def config(value):
        return np.frombuffer(json.dumps(value).encode(), np.uint8)

    foreign = [
        b"a text\nof two lines\n",
        written(np.save, np.ones(3)),
        written(np.savez, a=np.ones(3)),
        written(np.savez, config=np.ones(3)),
        written(np.savez, config=config([])),
        written(np.savez, config=config({})),
        written(np.savez, config=config({"target": None})),
        written(np.savez, config=np.array([{"target": 1}], dtype=object)),  # a pickle
    ]
    dense = keras.saving.serialize_keras_object(layers.Dense(1))
    foreign.append(written(np.savez, config=config({"target": dense})))
    for content in foreign:
        saved.write_bytes(content)
        with pytest.raises(ValueError) as error:
            hn.Ensemble.load(saved)
        assert "e.npz is not a saved ensemble" in one_line(error)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        hn.Ensemble.load(tmp_path / "e.npz")
    with pytest.raises(IsADirectoryError):
        hn.Ensemble.load(tmp_path)


@pytest.mark.parametrize("failure", (OSError("no space left"), KeyboardInterrupt()))
def test_an_unfinished_write_leaves_what_was_there(cases, saved, monkeypatch, failure):
    before = saved.read_bytes()

    def half(file, **arrays):
        file.write(b"half of it")
        raise failure

    monkeypatch.setattr(np, "savez", half)
    for path in (saved, saved.with_name("new.npz")):
        with pytest.raises(type(failure)):
            cases["softmax"].ensemble.save(path)
        assert [p.name for p in saved.parent.iterdir()] == ["e.npz"]
        assert saved.read_bytes() == before


def test_a_file_is_replaced_and_readable_by_whom_files_are(cases, saved):
    ordinary = saved.with_name("ordinary")
    ordinary.write_text("")
    cases["softmax"].ensemble.save(saved)
    assert hn.Ensemble.load(saved).target.outputs == "probabilities"
    assert saved.stat().st_mode == ordinary.stat().st_mode


def with_layer(path, config):
    """Put a layer's configuration in place of the saved target's flattening."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    record = json.loads(arrays["config"].tobytes())
    places = record["target"]["config"]["model"]["config"]["layers"]
    (place,) = [i for i, layer in enumerate(places) if layer["class_name"] == "Flatten"]
    places[place] = config
    arrays["config"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    np.savez(path, **arrays)


def test_loading_executes_nothing(saved, tmp_path):
    """Neither a Lambda layer's code, nor another module's class, nor a pickle."""
    marker = tmp_path / "executed"
    evil = layers.Lambda(lambda x, path=str(marker): open(path, "w").close() or x)
    with_layer(saved, keras.saving.serialize_keras_object(evil))
    with pytest.raises(ValueError, match=r"Lambda.*disallowed"):
        hn.Ensemble.load(saved)
    command = {
        "module": "subprocess",
        "class_name": "Popen",
        "config": {"args": ["touch", str(marker)]},
        "registered_name": None,
    }
    record = np.frombuffer(json.dumps({"target": command}).encode(), np.uint8)
    np.savez(saved, config=record)
    with pytest.raises((TypeError, ValueError)):
        hn.Ensemble.load(saved)

    class Pickle:
        def __reduce__(self):
            return marker.touch, ()

    np.savez(saved, config=np.array([Pickle()]))
    with pytest.raises(ValueError, match=r"not a saved ensemble"):
        hn.Ensemble.load(saved)
    assert not marker.exists()
    evil(np.ones(1))  # where the code does run, it leaves its mark
    assert marker.exists()
