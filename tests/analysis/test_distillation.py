"""Averages of weights against means by hand, students against formulas and their teacher."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from data_sets import DATA_SETS
from scipy.special import log_softmax, softmax
from small_ensembles import one_line

import hypernet_tf as hn
from hypernet_tf.analysis import distillation

layers = keras.layers


def dense(units, activation=None, *, inputs=2, norm=False):
    middle = [layers.BatchNormalization(momentum=0.5)] if norm else []
    return keras.Sequential(
        [
            keras.Input((inputs,)),
            layers.Dense(6, activation="relu"),
            *middle,
            layers.Dense(units, activation=activation),
        ]
    )


def ensemble_of(model, outputs=None, num_networks=4, seed=3):
    target = hn.Target(model, outputs=outputs)
    theta = np.random.default_rng(seed).normal(size=(num_networks, target.weight_count))
    return hn.Ensemble(target, target.unflatten(tf.constant(theta, tf.float32)))


@pytest.fixture(scope="module")
def x(blobs):
    return blobs[0]


@pytest.fixture(scope="module")
def logits():
    return ensemble_of(dense(3), "logits")


@pytest.fixture(scope="module")
def values():
    return ensemble_of(dense(2))


# ---- the average of weights -----------------------------------------------------------------


def test_the_average_is_the_mean_of_gauged_weights_by_hand(logits, x):
    """Filters divided by their root mean squares, logit biases centred, then averaged."""
    average = logits.polyak_average()
    kernel, bias, out_kernel, out_bias = (
        np.asarray(t, np.float64) for t in logits.weights.trainable
    )
    scale = np.sqrt((np.sum(kernel**2, 1) + bias**2) / 3)  # [N, 6]
    exact = [
        kernel / scale[:, None],
        bias / scale,
        out_kernel * scale[:, :, None],
        out_bias - out_bias.mean(-1, keepdims=True),
    ]
    assert len(average) == 1 and average.target is logits.target
    for tensor, parts in zip(average.weights.trainable, exact, strict=True):
        np.testing.assert_allclose(tensor[0], parts.mean(0), rtol=1e-5, atol=1e-6)
    as_they_are = logits.polyak_average(gauge=lambda weights: weights)
    np.testing.assert_allclose(as_they_are.theta()[0], logits.theta().mean(0), rtol=1e-5, atol=1e-6)
    assert np.abs(average.theta() - as_they_are.theta()).max() > 0.1


def test_the_average_of_equal_networks_is_that_network(logits):
    one = logits.weights
    equal = tf.nest.map_structure(lambda t: tf.repeat(t[:1], 7, 0), one)
    average = hn.Ensemble(logits.target, equal).polyak_average(gauge=lambda weights: weights)
    np.testing.assert_array_equal(average.theta(), logits[0].theta())
    # So is that of networks that differ only by their gauge.
    stretched = [t.numpy() for t in equal.trainable]
    factors = np.linspace(0.5, 3, 7, dtype="float32")
    stretched[0] *= factors[:, None, None]
    stretched[1] *= factors[:, None]
    stretched[2] /= factors[:, None, None]
    weights = hn.WeightSet([tf.constant(t) for t in stretched], equal.state)
    average = hn.Ensemble(logits.target, weights).polyak_average()
    x = np.random.default_rng(0).normal(size=(9, 2))
    np.testing.assert_allclose(average.predict(x), logits[0].predict(x), rtol=1e-4, atol=1e-5)


def test_the_average_needs_its_own_batch_statistics(x):
    ensemble = ensemble_of(dense(3, norm=True), "logits")
    with pytest.raises(ValueError) as error:
        ensemble.polyak_average().predict(x)
    assert one_line(error).endswith("ensemble = ensemble.update_batch_norm(x_train) first.")

    average = ensemble.polyak_average(x, batch_size=40)
    hidden, norm, _ = average.to_keras().layers
    order = np.random.default_rng(0).permutation(len(x))  # that of arrays
    parts = [hidden(x[order[first : first + 40]]).numpy() for first in (0, 40, 80)]
    sizes = [len(part) for part in parts]
    for variable, statistic in ((norm.moving_mean, np.mean), (norm.moving_variance, np.var)):
        exact = np.average([statistic(part, 0) for part in parts], 0, weights=sizes)
        np.testing.assert_allclose(variable, exact, rtol=1e-4, atol=1e-6)
    assert np.ptp(norm.moving_mean) > 0.1


# ---- a student ------------------------------------------------------------------------------

KINDS = {  # units, activation and outputs of teacher and student; temperature
    "logits": ((3, None, "logits"), (3, None, "logits"), 1.0),
    "softmax from logits": ((3, None, "logits"), (3, "softmax", None), 3.0),
    "one logit from softmax": ((2, "softmax", None), (1, None, "logits"), 3.0),
    "one sigmoid": ((1, "sigmoid", None), (1, "sigmoid", None), 1.0),
}


def probabilities(outputs, kind):
    if outputs.shape[-1] == 1:
        second = 1 / (1 + np.exp(-outputs)) if kind == "logits" else outputs
        return np.concatenate([1 - second, second], -1)
    return softmax(outputs, -1) if kind == "logits" else outputs


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.usefixtures("eager_fits")
def test_the_loss_is_the_formula(x, kind):
    """Keras's loss of the first step, at the student's initial weights."""
    (units, end, outputs), (student_units, student_end, student_outputs), temperature = KINDS[kind]
    teacher = ensemble_of(dense(units, end), outputs)
    start = ensemble_of(dense(student_units, student_end), student_outputs, num_networks=1, seed=8)
    p = probabilities(teacher.outputs(x).astype(np.float64), outputs).mean(0)
    s = probabilities(start.outputs(x)[0].astype(np.float64), student_outputs)
    assert p.shape == s.shape == (len(x), 3 if units == 3 else 2)
    q = softmax(np.log(p) / temperature, -1)
    exact = -(q * log_softmax(np.log(s) / temperature, -1)).sum(-1).mean() * temperature**2
    history = keras.callbacks.History()
    hn.distill(
        teacher,
        x,
        student=start,
        temperature=temperature,
        epochs=1,
        batch_size=len(x),
        callbacks=[history],
    )
    assert history.history["loss"] == [pytest.approx(exact, rel=1e-4)]


def test_a_student_learns_the_mean_probabilities(logits, x, eagerly):
    """Cross-entropy close to its minimum, the teacher's entropy; the student is plain Keras."""
    student = hn.distill(
        logits, x, epochs=60, batch_size=32, optimizer=keras.optimizers.Adam(0.03), seed=1
    )
    assert isinstance(student, keras.Sequential) and not student.compiled
    teacher = logits.predict(x)
    learned = hn.Ensemble.from_keras(logits.target, student)
    answers = learned.predict(x)
    np.testing.assert_allclose(softmax(student.predict(x, verbose=0), -1), answers, atol=1e-5)
    divergence = (teacher * (np.log(teacher) - learned.log_probabilities(x)[0])).sum(-1).mean()
    with eagerly():
        first = hn.distill(logits, x, epochs=1, optimizer=keras.optimizers.SGD(0.0), seed=1)
    before = hn.Ensemble.from_keras(logits.target, first)
    start = (teacher * (np.log(teacher) - before.log_probabilities(x)[0])).sum(-1).mean()
    # Pinsker: a divergence of 0.02 nats bounds the mean distance of probabilities by 0.1 each.
    assert 0 <= divergence < 0.02 < 0.2 < start
    # They may disagree only where the teacher's first two classes are that close.
    top = np.sort(teacher, -1)
    clear = top[:, -1] - top[:, -2] > 0.2
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(answers.argmax(-1)[clear], teacher.argmax(-1)[clear])


@pytest.mark.usefixtures("eager_fits")
def test_a_student_is_a_function_of_the_arguments(logits, x, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((2,)),
            layers.Dense(4, activation="relu"),
            layers.Dropout(0.5),
            layers.BatchNormalization(),
            layers.Dense(3),
        ]
    )
    optimizer = keras.optimizers.Adam(0.01)
    trained = []
    for number, seed in enumerate((5, 5, 6)):
        keras.utils.set_random_seed(number)  # has no effect
        options = {"student": model, "optimizer": optimizer, "seed": seed}
        trained.append(hn.distill(logits, x, epochs=2, batch_size=16, **options))
    first, again, other = trained
    for weights, same in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, same)
    assert np.abs(first.get_weights()[0] - other.get_weights()[0]).max() > 0.1
    assert not optimizer.built  # it is copied, like the model
    norm = next(layer for layer in first.layers if isinstance(layer, layers.BatchNormalization))
    assert np.abs(norm.moving_mean).max() > 0  # the statistics after fit
    first.save(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), first.predict(x, verbose=0))


@pytest.mark.usefixtures("eager_fits")
def test_a_student_starts_from_new_weights_that_no_teacher_started_from(x):
    """Both seeds are 0 by default."""
    wide = keras.Sequential([keras.Input((2,)), layers.Dense(300), layers.Dense(3)])
    sampler = hn.DeepEnsemble(hn.Target(wide, outputs="logits"), num_networks=2, gauge=False)
    for given in (None, sampler.target):
        options = {"epochs": 1, "optimizer": keras.optimizers.SGD(0.0), "student": given}
        student = hn.distill(sampler.sample(2), x, **options)
        theta = hn.Ensemble.from_keras(sampler.target, student).theta()
        assert np.abs(theta - sampler.sample(2).theta()).max(1).min() > 0.1
        np.testing.assert_allclose(theta.std(), sampler.sample(2).theta().std(), rtol=0.1)


@pytest.mark.usefixtures("eager_fits")
def test_a_student_may_start_from_the_average(logits, x, capsys):
    average, still = logits.polyak_average(), keras.optimizers.SGD(0.0)
    student = hn.distill(logits, x, student=average, epochs=1, optimizer=still, verbose=1)
    shown = capsys.readouterr()
    assert "networks: " in shown.err and "1/1" in shown.out
    learned = hn.Ensemble.from_keras(logits.target, student)
    np.testing.assert_array_equal(learned.theta(), average.theta())


@pytest.mark.usefixtures("eager_fits")
def test_penalties_are_those_of_a_model_that_is_given(x):
    dense = keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(1e3))
    model = keras.Sequential([keras.Input(x.shape[1:]), keras.layers.Flatten(), dense])
    target = hn.Target(model, outputs="logits")
    ensemble = hn.Ensemble(target, target.unflatten(tf.ones([2, target.weight_count])))
    losses = []
    for student in (None, ensemble[0], model):
        history = keras.callbacks.History()
        still = keras.optimizers.SGD(0.0)
        hn.distill(ensemble, x, student=student, optimizer=still, epochs=1, callbacks=[history])
        losses += history.history["loss"]
    assert losses[0] < 100 and losses[1] == pytest.approx(np.log(3), rel=1e-4)
    assert losses[2] > 100


@pytest.mark.usefixtures("eager_fits")
def test_majority_votes_are_labels(logits, x):
    start = logits[0]
    history = keras.callbacks.History()
    hn.distill(
        logits, x, soft_targets=False, student=start, epochs=1, batch_size=96, callbacks=[history]
    )
    votes = logits.majority_vote(x)
    exact = start.evaluate(x, votes).negative_log_likelihood
    assert history.history["loss"] == [pytest.approx(exact, rel=1e-4)]
    assert np.any(votes != logits.predict(x).argmax(-1))  # the two teachers differ


def test_a_regression_learns_the_mean(values, x, eagerly):
    history = keras.callbacks.History()
    with eagerly():
        hn.distill(values, x, student=values[0], epochs=1, batch_size=96, callbacks=[history])
    mean = values.outputs(x).mean(0)
    error = values[0].evaluate(x, mean).mean_squared_error
    assert history.history["loss"] == [pytest.approx(error, rel=1e-4)]
    student = hn.distill(
        values, x, epochs=60, batch_size=32, optimizer=keras.optimizers.Adam(0.03), seed=2
    )
    result = hn.Ensemble.from_keras(values.target, student).evaluate(x, mean)
    assert result.mean_squared_error < 0.05 * mean.var()


def one_step(teacher, *examples, **options):
    """The student and the loss of one step of gradient descent on all examples."""
    history = keras.callbacks.History()
    options |= {"student": teacher[0], "batch_size": 96, "callbacks": [history]}
    optimizer = keras.optimizers.SGD(0.1)
    student = hn.distill(teacher, *examples, epochs=1, optimizer=optimizer, **options)
    return student, history.history["loss"][0]


@pytest.mark.parametrize(
    "kind",
    ["PyDataset", *(pytest.param(k, marks=pytest.mark.slow) for k in ("sliced", "generated"))],
)
@pytest.mark.usefixtures("eager_fits")
def test_data_sets_equal_arrays(kind, values, x):
    make = DATA_SETS[kind]
    weights = np.random.default_rng(5).uniform(size=len(x)).astype("float32")
    student, loss = one_step(values, x, sample_weight=weights)
    errors = ((values.outputs(x)[0] - values.predict(x)) ** 2).mean(-1)
    assert loss == pytest.approx((weights * errors).mean(), rel=1e-4)
    labels = np.zeros(len(x), int)  # not used
    same, same_loss = one_step(values, make(x, labels, weights))
    assert same_loss == loss
    for kernel, other in zip(student.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_array_equal(kernel, other)
    if kind == "sliced":
        assert one_step(values, make(x))[1] == pytest.approx(errors.mean(), rel=1e-4)


@pytest.mark.usefixtures("eager_fits")
def test_the_ensemble_answers_for_augmented_examples(logits, x):
    """All examples of a step are shifted alike: the order of the examples does not matter."""

    def shift(inputs, seed):
        return inputs + tf.random.stateless_normal([2], seed, dtype=inputs.dtype)

    weights = np.random.default_rng(5).uniform(size=len(x)).astype("float32")
    still, history = keras.optimizers.SGD(0.0), keras.callbacks.History()
    options = {"student": logits[0], "optimizer": still, "callbacks": [history], "seed": 7}
    options |= {"epochs": 3, "batch_size": len(x), "sample_weight": weights}
    hn.distill(logits, x, augment=shift, **options)
    exact = []
    for step in range(3):
        shifted = x + tf.random.stateless_normal([2], [7, step]).numpy()
        losses = -(logits.predict(shifted) * logits[0].log_probabilities(shifted)[0]).sum(-1)
        exact.append((weights * losses).mean())
    assert history.history["loss"] == pytest.approx(exact, rel=1e-4)
    assert np.ptp(exact) > 0.01

    student, loss = one_step(logits, x, augment=lambda inputs, seed: inputs)
    same, same_loss = one_step(logits, x)
    assert loss == pytest.approx(same_loss, rel=1e-5)
    for kernel, other in zip(student.get_weights(), same.get_weights(), strict=True):
        np.testing.assert_allclose(kernel, other, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("eager_fits")
def test_a_short_epoch_of_augmented_examples(logits, x):
    """50 examples in steps of 20 are three steps, all of 20."""
    sizes = []

    def watched(inputs, seed):
        sizes.append(inputs.shape.as_list())
        return inputs

    updates = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_, **__: sizes.append("step")
    )
    hn.distill(logits, x[:50], epochs=2, batch_size=20, augment=watched, callbacks=[updates])
    assert sizes.count("step") == 6
    assert all(size in ("step", [20, 2]) for size in sizes)


@pytest.mark.usefixtures("eager_fits")
def test_several_inputs_and_a_class_for_each_pixel():
    left, right = keras.Input((4, 4, 1)), keras.Input((4, 4, 2))
    maps = layers.Conv2D(3, 1)(layers.Concatenate()([left, right]))
    ensemble = ensemble_of(keras.Model([left, right], maps), "logits")
    rng = np.random.default_rng(0)
    x = [rng.normal(size=(10, 4, 4, channels)) for channels in (1, 2)]
    start, history = ensemble[0], keras.callbacks.History()
    options = {"student": start, "epochs": 1, "batch_size": 10, "callbacks": [history]}
    still = keras.optimizers.SGD(0.0)
    hn.distill(ensemble, x, augment=lambda x, seed: (x[0], -x[1]), optimizer=still, **options)
    hn.distill(ensemble, x, **options)
    log_s = log_softmax(start.outputs(x)[0].astype(np.float64), -1)
    exact = -(ensemble.predict(x) * log_s).sum(-1).mean()
    x[1] = -x[1]
    log_s = log_softmax(start.outputs(x)[0].astype(np.float64), -1)
    negated = -(ensemble.predict(x) * log_s).sum(-1).mean()
    assert history.history["loss"] == pytest.approx([negated, exact], rel=1e-4)


@pytest.mark.parametrize("activation", ["sigmoid", None])
def test_a_certain_teacher_of_two_classes_is_as_exact_on_both_sides(activation, x, monkeypatch):
    """A probability near 1 rounds to 1 in float32, and 1 minus it to 0."""
    outputs = None if activation else "logits"
    teacher = ensemble_of(dense(1, activation), outputs, num_networks=1)
    zeros, bias = [tf.zeros_like(t) for t in teacher.weights.trainable[:-1]], tf.ones([1, 1])
    batches = []
    monkeypatch.setattr(keras.Model, "fit", lambda self, data, **_: batches.extend(data.take(1)))
    for sign in (-1.0, 1.0):
        sure = hn.WeightSet([*zeros, sign * 20 * bias], teacher.weights.state)
        hn.distill(hn.Ensemble(teacher.target, sure), x, epochs=1, temperature=4.0)
        q = np.sort(batches.pop()[1], -1)
        np.testing.assert_allclose(q, softmax([[-5.0, 0.0]], -1).repeat(len(q), 0), rtol=1e-5)


@pytest.mark.parametrize(("units", "activation"), [(1, "sigmoid"), (3, "softmax")])
def test_a_student_unlearns_a_mistake_of_which_it_is_certain(units, activation):
    """Of a probability that has rounded to 0 or 1 the loss has no gradient; of logits it has."""
    model = keras.Sequential([keras.Input((2,)), layers.Dense(units, activation=activation)])
    loss = distillation.soft_cross_entropy(hn.Target(model), 1.0)
    logits = tf.constant([[200.0, 0.0, 0.0][:units]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        outputs = keras.activations.get(activation)(logits)
        value = loss(tf.constant([[1.0, 0.0] if units == 1 else [0.0, 1.0, 0.0]]), outputs)
    np.testing.assert_allclose(value, [200.0], rtol=1e-6)
    np.testing.assert_allclose(tape.gradient(value, logits)[0, 0], 1.0, rtol=1e-6)


# ---- mistakes -------------------------------------------------------------------------------

MISTAKES = {
    "The target returns values, which have no votes: use soft_targets=True.": (
        "values",
        {"soft_targets": False},
    ),
    "Values and votes have no temperature: use temperature=1, or soft targets of classes.": (
        "values",
        {"temperature": 2.0},
    ),
    "temperature is 0: give a finite number above 0.": ("logits", {"temperature": 0}),
    "epochs is 0: give a whole number, at least 1.": ("logits", {"epochs": 0}),
    "epochs is None: give a whole number, at least 1.": ("logits", {"epochs": None}),
    "batch_size is -1: give a whole number, at least 1.": ("logits", {"batch_size": -1}),
    "seed is -1: give a whole number, at least 0.": ("logits", {"seed": -1}),
    "There are no examples to run on.": ("logits", {"x": np.zeros([0, 2])}),
    "Sample weights must be numbers [96], one for each example.": (
        "logits",
        {"sample_weight": np.ones(95)},
    ),
    "Sample weights must be numbers [96], at least 0 and not all of them 0.": (
        "logits",
        {"sample_weight": -np.ones(96)},
    ),
    "The student returns values [3], the ensemble probabilities [3].": (
        "logits",
        {"student": lambda: hn.Target(dense(3))},
    ),
    "The student returns probabilities [5], the ensemble probabilities [3].": (
        "logits",
        {"student": lambda: dense(5)},
    ),
    "A student is 1 network, not 4: use student[0].": (
        "logits",
        {"student": lambda: ensemble_of(dense(3), "logits")},
    ),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_one_line(message, logits, values, x):
    kind, arguments = MISTAKES[message]
    options = {"x": x} | arguments
    if "student" in options:
        options["student"] = options["student"]()
    with pytest.raises(ValueError) as error:
        hn.distill({"logits": logits, "values": values}[kind], **options)
    assert one_line(error) == message


def test_several_outputs_raise(x):
    inputs = keras.Input((2,))
    two = keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(3)(inputs)])
    with pytest.raises(ValueError) as error:
        hn.distill(ensemble_of(two), x)
    assert one_line(error) == "Distillation needs a target with one output."


def test_a_model_that_is_no_network_of_the_target_raises(logits):
    for model, part in ((dense(4), "trainable"), (dense(3, norm=True), "trainable")):
        with pytest.raises(ValueError) as error:
            hn.Ensemble.from_keras(logits.target, model)
        assert f"is not a network of this target: its {part} weights" in one_line(error)
    with pytest.raises(ValueError) as error:
        hn.Ensemble.from_keras(logits.target, "model.keras")
    assert one_line(error).startswith("A network is a Keras model, not str")


@pytest.mark.parametrize("kind", ["labels", "sequences", "numbers"])
@pytest.mark.usefixtures("eager_fits")
def test_weights_are_those_of_examples_whatever_the_shape_of_answers(kind):
    """An example of weight 0 teaches nothing; with as many examples in a batch as answers, too."""
    layers, count = keras.layers, 3
    end = {
        "labels": [layers.Dense(count, activation="sigmoid")],
        "sequences": [layers.Dense(2 * count), layers.Reshape((count, 2))],
        "numbers": [layers.Dense(1), layers.Reshape(())],
    }[kind]
    target = hn.Target(keras.Sequential([keras.Input((4,)), *end]))
    theta = np.random.default_rng(0).normal(size=(2, target.weight_count)).astype("float32")
    teachers = hn.Ensemble(target, target.unflatten(theta))
    x = np.random.default_rng(1).normal(size=(count, 4)).astype("float32")
    options = {"epochs": 1, "batch_size": count, "optimizer": keras.optimizers.SGD(0.1)}
    start = teachers[0]
    one = hn.distill(teachers, x[:1], student=start, **options | {"batch_size": 1})
    weighted = hn.distill(
        teachers, x, student=start, sample_weight=np.array([3.0, 0.0, 0.0]), **options
    )
    for a, b in zip(one.get_weights(), weighted.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
