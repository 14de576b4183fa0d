"""What losses say of outputs and of labels."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from small_samplers import LOGITS, classifier, deep_ensemble, hypernetwork

import hypernet_tf as hn
from hypernet_tf.samplers import losses

layers = keras.layers


@pytest.mark.parametrize(
    ("loss", "units", "outputs"),
    [
        (keras.losses.CategoricalFocalCrossentropy, 3, "logits"),
        (keras.losses.BinaryFocalCrossentropy, 1, "logits"),
        (keras.losses.BinaryFocalCrossentropy, 3, "label_logits"),
    ],
)
def test_focal_losses_say_what_outputs_are(loss, units, outputs):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(units)])
    sampler = hn.DeepEnsemble(model, num_networks=2)
    sampler.compile(loss=loss(from_logits=True))
    assert sampler.target.outputs == outputs
    if units == 3 and outputs == "logits":
        with pytest.raises(ValueError, match="does not end in a softmax"):
            sampler.compile(loss=loss())


@pytest.mark.parametrize("name", ["crossentropy", "ce"])
@pytest.mark.usefixtures("eager_fits")
def test_a_loss_that_keras_chooses_by_the_labels(name, blobs):
    x, y = blobs
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, activation="softmax")])
    sampler = hn.DeepEnsemble(model, num_networks=2)
    for labels in (y, keras.utils.to_categorical(y)):
        sampler.compile("sgd", name)
        assert np.isfinite(sampler.fit(x, labels, verbose=0).history["loss"]).all()
    with pytest.raises(ValueError, match="does not end in a softmax"):
        deep_ensemble().compile("sgd", name)


@pytest.mark.usefixtures("eager_fits")
def test_one_binary_loss_for_several_outputs_tells_that_they_are_logits():
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [layers.Dense(1)(inputs), layers.Dense(1)(inputs)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    for given in (loss, [loss, loss]):
        sampler = hn.DeepEnsemble(model, num_networks=2)
        sampler.compile("sgd", given)
        assert sampler.target.outputs == "logits"
        assert all(((one >= 0) & (one <= 1)).all() for one in sampler.predict(np.ones((3, 4))))
    ends_in_sigmoids = keras.Model(
        inputs, [layers.Dense(1, activation="sigmoid")(inputs) for _ in range(2)]
    )
    with pytest.raises(ValueError, match=r"takes logits .* ends in probabilities there"):
        hn.DeepEnsemble(ends_in_sigmoids, num_networks=2).compile("sgd", loss)


@pytest.mark.parametrize("reduction", ["sum", None])
def test_losses_that_are_sums_are_an_error(reduction):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)
    for given in (loss, [loss]):
        with pytest.raises(ValueError, match=r"^The loss has reduction='?\w+'?, but networks"):
            deep_ensemble().compile(loss=given)


@pytest.mark.parametrize(
    "kind", [keras.losses.SparseCategoricalCrossentropy, keras.losses.CategoricalCrossentropy]
)
def test_classes_along_another_axis_are_an_error(kind):
    model = keras.Sequential([keras.Input((3, 5)), layers.Dense(5)])
    deep_ensemble(model).compile(loss=kind(from_logits=True, axis=2))  # the last axis
    with pytest.raises(ValueError, match=r"^The loss has axis=1, but classes are along the last"):
        deep_ensemble(model).compile(loss=kind(from_logits=True, axis=1))
    deep_ensemble(model).compile(loss=kind(from_logits=True))


@pytest.mark.usefixtures("eager_fits")
def test_a_list_of_one_loss_is_that_loss(blobs):
    sampler = deep_ensemble(num_networks=2)
    sampler.compile(loss=[LOGITS])
    assert sampler.target.outputs == "logits"
    np.testing.assert_allclose(sampler.predict(blobs[0]).sum(-1), 1, rtol=1e-5)
    with pytest.raises(ValueError, match=r"^Labels run from 5 to 7, but the target has 3 classes"):
        sampler.fit(blobs[0], blobs[1] + 5, verbose=0)


def test_compiling_again_forgets_what_the_loss_before_said_of_the_outputs():
    sampler = hypernetwork()
    sampler.compile(loss=LOGITS)
    assert sampler.target.outputs == "logits"
    sampler.compile(loss="mse")
    assert sampler.target.outputs == "values"


def test_a_class_of_losses_is_checked_as_its_name():
    sampler = hypernetwork()
    with pytest.raises(ValueError) as by_name:
        sampler.compile(loss="sparse_categorical_crossentropy")
    with pytest.raises(ValueError) as by_class:
        sampler.compile(loss=keras.losses.SparseCategoricalCrossentropy)
    assert str(by_class.value) == str(by_name.value)


def test_labels_of_the_wrong_kind_are_one_line(blobs):
    x, y = blobs
    sampler = hypernetwork()
    one_hot = keras.utils.to_categorical(y)
    sampler.compile(loss=LOGITS)
    with pytest.raises(ValueError, match=r"^The loss takes numbers of classes, .*one-hot: use"):
        sampler.fit(x, one_hot)
    sampler.compile(loss=keras.losses.CategoricalCrossentropy(from_logits=True))
    for numbers in (y, y[:, None], tf.data.Dataset.from_tensor_slices((x, y)).batch(8)):
        given = (numbers,) if isinstance(numbers, tf.data.Dataset) else (x, numbers)
        with pytest.raises(ValueError, match=r"^The loss takes one-hot labels, .* numbers of cl"):
            sampler.fit(*given)
    sampler.compile(loss=LOGITS)
    with pytest.raises(ValueError, match=r"^Labels run from 5 to 7, but the target has 3 classes"):
        sampler.fit(x, y % 3 + 5)
    for broken, words in (
        (y / 10, "some are NaN or not whole"),
        (np.where(y == 1, np.nan, y), "some are NaN or not whole"),
        (np.array(["a", "b"])[y % 2], "Labels are not numbers: number the classes from 0"),
        (tf.constant(y + 1), "Labels run from 1 to 3, but the target has 3 classes"),
    ):
        for use in (
            lambda labels=broken: sampler.fit(x, labels),
            lambda labels=broken: sampler.evaluate(x, labels),
            lambda labels=broken: sampler.fit(x, y, validation_data=(x, labels)),
            lambda labels=broken: sampler.fit(x, y, validation_data=[x, labels]),
        ):
            with pytest.raises(ValueError, match=words):
                use()
    with pytest.raises(ValueError, match="Inputs have shape"):
        sampler.fit(x, y, validation_data=(x[:, :1], y))
    assert sampler.step == 0
    leaving_out = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    losses.check_labels(leaving_out, y - 1, sampler.target)


@pytest.mark.usefixtures("eager_fits")
@pytest.mark.parametrize(
    ("losses", "outputs"),
    [
        (lambda sparse, mse: {"a": sparse, "b": mse}, "values"),
        (lambda sparse, mse: {"a": sparse, "b": None}, "values"),
        (lambda sparse, mse: {"a": sparse}, "values"),
        (lambda sparse, mse: {"a": sparse, "b": sparse}, "logits"),
        (lambda sparse, mse: sparse, "logits"),
    ],
    ids=["two kinds", "none", "one", "both", "for all"],
)
def test_losses_of_two_outputs_tell_logits_only_where_all_are(losses, outputs):
    inputs = keras.Input((4,))
    heads = {"a": keras.layers.Dense(3, name="a")(inputs), "b": keras.layers.Dense(2)(inputs)}
    sampler = hn.DeepEnsemble(keras.Model(inputs, heads), num_networks=2)
    sparse = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sampler.compile("sgd", losses(sparse, keras.losses.MeanSquaredError()))
    assert sampler.target.outputs == outputs
    x = np.ones((3, 4), "float32")
    raw = sampler.sample(2).outputs(x)["b"]
    mean = raw if outputs == "values" else keras.ops.softmax(raw)
    np.testing.assert_allclose(sampler.predict(x)["b"], np.mean(mean, 0), rtol=1e-5)


@pytest.mark.usefixtures("eager_fits")
def test_pixels_from_0_to_1_are_values_for_a_binary_loss():
    x = np.random.default_rng(0).random((12, 6, 6, 1)).astype("float32")
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), layers.Conv2D(1, 3, padding="same", activation="sigmoid")]
    )
    sampler = hn.DeepEnsemble(hn.Target(model, outputs="values"), num_networks=2)
    sampler.compile("sgd", "binary_crossentropy")
    sampler.fit(x, x, verbose=0)
    ensemble = sampler.sample(2)
    assert ensemble.evaluate(x, x).mean_squared_error == pytest.approx(
        ((ensemble.predict(x) - x) ** 2).mean(), rel=1e-5
    )


@pytest.mark.usefixtures("eager_fits")
def test_the_mean_of_logits_stays_where_a_loss_sees_it(blobs, tmp_path):
    """One class against the rest: the mean of the logits is not a symmetry of sigmoids."""
    x, y = blobs
    one_hot = keras.utils.to_categorical(y, 3)
    target = hn.Target(classifier(), outputs="logits")
    sampler = hn.DeepEnsemble(target, num_networks=4)
    raw = [tf.identity(variable) for variable in sampler.theta]
    raw[-1] -= 2.0
    sampler.theta[-1].assign(raw[-1])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    sampler.compile("sgd", loss)
    member = sampler.evaluate(x, one_hot, verbose=0, return_dict=True)["member_loss"]
    outputs, _ = target.run_each(hn.WeightSet(raw, []), x)
    assert member == pytest.approx(float(loss(np.repeat(one_hot[None], 4, 0), outputs)), rel=1e-5)
    sampler.save(tmp_path / "sampler.keras")
    loaded = keras.saving.load_model(tmp_path / "sampler.keras", compile=False)
    np.testing.assert_array_equal(loaded.sample(4).theta(), sampler.sample(4).theta())
    sampler.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    bias = sampler.sample(4).weights.trainable[-1]
    np.testing.assert_allclose(tf.reduce_sum(bias, -1), 0, atol=1e-5)


def test_devices_need_a_loss_of_each_example():
    def of_batch(y, p):
        return tf.reduce_mean(tf.square(y - p))

    def of_examples(y, p):
        return tf.reduce_mean(tf.square(y - p), -1)

    y = p = tf.ones([2, 3])
    losses.check_values(of_examples, tf.ones([2, 3], tf.int64), p)
    losses.check_values(keras.losses.binary_crossentropy, tf.ones([2]), tf.ones([2, 1]))
    losses.check_values([of_batch, "mse"], [None, y], [p, p])
    losses.check_values([of_examples, "mse", keras.losses.MeanSquaredError()], [y] * 3, [p] * 3)
    for loss in (of_batch, {"a": of_examples, "b": of_batch}):
        outputs = p if loss is of_batch else {"a": p, "b": p}
        with pytest.raises(ValueError, match=r"^The loss 'of_batch' returns one number"):
            losses.check_values(loss, outputs, outputs)


@pytest.mark.parametrize("is_binary", [False, True])
def test_the_mean_of_logits_is_fixed_beside_a_value_unless_a_loss_sees_it(is_binary):
    inputs = keras.Input((4,))
    kind = layers.Dense(3, "softmax", name="kind", bias_initializer="ones")
    heads = {"kind": kind(inputs), "size": layers.Dense(1, name="size")(inputs)}
    sampler = hn.DeepEnsemble(keras.Model(inputs, heads), num_networks=2)
    of_classes = "binary_crossentropy" if is_binary else "sparse_categorical_crossentropy"
    sampler.compile(loss={"kind": of_classes, "size": "mse"})
    bias = sampler.sample(2).weights.trainable[1]
    np.testing.assert_allclose(bias, np.full([2, 3], float(is_binary)), atol=1e-6)


@pytest.mark.usefixtures("eager_fits")
@pytest.mark.parametrize("of_logits", [True, False])
def test_one_network_is_its_own_ensemble_where_a_loss_sees_the_mean_of_logits(blobs, of_logits):
    x, y = blobs
    model = classifier() if of_logits else sure("softmax", 3)
    target = hn.Target(model, outputs="logits" if of_logits else "probabilities")
    sampler = hn.DeepEnsemble(target, num_networks=1)
    sampler.compile("sgd", [keras.losses.BinaryCrossentropy(from_logits=of_logits)])
    sampler.theta[-1].assign([[3.0, 2.0, 1.0]])  # the biases of the logits
    logs = sampler.evaluate(x, keras.utils.to_categorical(y, 3), verbose=0, return_dict=True)
    assert logs["ensemble_loss"] == pytest.approx(logs["member_loss"], rel=1e-5)


def sure(end, columns):
    """A model whose kernels are large, so that its probabilities round to 0 and 1."""
    last = {
        "softmax": [layers.Dense(columns, activation="softmax")],
        "layer": [layers.Dense(columns), layers.Softmax()],
        "float32": [
            layers.Dense(columns),
            layers.Activation("softmax"),
            layers.Activation("linear", dtype="float32"),
        ],
        "sigmoid": [layers.Dense(columns, activation="sigmoid")],
    }[end]
    return keras.Sequential([keras.Input((2,)), *last])


class TestConfidentMistakes:
    """Probabilities that round to 0 or 1 have a loss and a gradient, as in a Keras model's fit."""

    X = np.array([[1.0, 0.5], [-2.0, 1.0], [0.5, -1.0], [1.0, 1.0]], "float32")

    def networks(self, model, loss, eagerly=True):
        """A sampler of one network, and a Keras model with its weights."""
        keras.utils.set_random_seed(0)
        sampler = hn.DeepEnsemble(model, num_networks=1, gauge=False, lam=1.0)
        for variable in sampler.theta:
            variable.assign(90.0 * tf.random.stateless_normal(variable.shape, [0, 1]))
        alone = sampler.sample(1).to_keras()
        sampler.compile(keras.optimizers.SGD(1.0), loss, run_eagerly=eagerly)
        alone.compile(keras.optimizers.SGD(1.0), loss)  # in a graph, where Keras finds the logits
        return sampler, alone

    @pytest.mark.parametrize(
        ("end", "columns", "loss"),
        [
            ("softmax", 3, "sparse_categorical_crossentropy"),
            ("layer", 3, "sparse_categorical_crossentropy"),
            ("float32", 3, "sparse_categorical_crossentropy"),
            ("sigmoid", 1, "binary_crossentropy"),
            ("sigmoid", 3, "binary_crossentropy"),
        ],
    )
    def test_one_output(self, end, columns, loss):
        graph = (end, columns) == ("softmax", 3)  # one of both ways
        sampler, alone = self.networks(sure(end, columns), loss, eagerly=not graph)
        y = np.array([0, 1, 2, 0])
        if end == "sigmoid":
            y = (np.arange(4 * columns).reshape(4, columns) % 2).astype("float32")
        expected = self.expected_loss(alone, y)
        assert expected > 20  # above the 16.1 at which Keras cuts probabilities
        logs = sampler.evaluate(self.X, y, verbose=0, return_dict=True)
        for name in ("loss", "member_loss", "ensemble_loss"):
            assert logs[name] == pytest.approx(expected, rel=1e-4)
        self.check_a_step(sampler, alone, y)

    def test_several_outputs(self):
        inputs = keras.Input((2,))
        kind = layers.Dense(3, activation="softmax", name="kind")(inputs)
        model = keras.Model(inputs, {"kind": kind, "size": layers.Dense(1, name="size")(inputs)})
        loss = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
        sampler, alone = self.networks(model, loss)
        y = {"kind": np.array([0, 1, 2, 0]), "size": np.zeros((4, 1), "float32")}
        self.check_a_step(sampler, alone, y)
        shapes = {name: value.shape for name, value in sampler.predict(self.X).items()}
        assert shapes == {"kind": (4, 3), "size": (4, 1)}

    def expected_loss(self, alone, y):
        """The loss of logits, in float64 and closed form."""
        layer = alone.layers[0]
        logits = self.X.astype(float) @ layer.kernel.numpy() + layer.bias.numpy()
        if y.ndim > 1:
            return float(np.mean(np.logaddexp(0, np.where(y == 1, -logits, logits))))
        log_p = logits - np.logaddexp.reduce(logits, -1, keepdims=True)
        return float(-log_p[np.arange(4), y].mean())

    def check_a_step(self, sampler, alone, y):
        """A step of SGD moves the sampler's weights as those of the Keras model."""
        before = [variable.numpy() for variable in alone.trainable_variables]
        alone.train_on_batch(self.X, y)
        sampler.train_on_batch(self.X, y)
        pairs = zip(alone.trainable_variables, sampler.theta, before, strict=True)
        for ours, network, old in pairs:
            assert np.abs(ours - old).max() > 0.05
            np.testing.assert_allclose(network[0] - old, ours - old, rtol=1e-3, atol=1e-4)


def two_heads(kind="linear", size=None):
    inputs = keras.Input((2,))
    heads = {"kind": layers.Dense(3, kind, name="kind"), "size": layers.Dense(1, size, name="size")}
    return keras.Model(inputs, {name: head(inputs) for name, head in heads.items()})


@pytest.mark.parametrize(
    ("ends", "losses", "words"),
    [
        (
            ("linear", None),
            {"kind": "sparse_categorical_crossentropy", "size": "mse"},
            "output 'kind' takes probabilities, but .* softmax or sigmoid there: give",
        ),
        (("softmax", None), {"kind": LOGITS, "size": "mse"}, "output 'kind' takes logits"),
        (
            ("softmax", "sigmoid"),
            {
                "kind": "sparse_categorical_crossentropy",
                "size": keras.losses.BinaryCrossentropy(from_logits=True),
            },
            "output 'size' takes logits",
        ),
        (("linear", None), [LOGITS, "binary_crossentropy"], "output 'size' takes probabilities"),
    ],
)
def test_a_loss_that_does_not_fit_one_of_several_outputs(ends, losses, words):
    sampler = hn.DeepEnsemble(two_heads(*ends), num_networks=2)
    with pytest.raises(ValueError, match=words) as error:
        sampler.compile(loss=losses)
    assert "\n" not in str(error.value)


def test_losses_go_by_the_names_of_outputs_in_any_order():
    inputs = keras.Input((2,))
    size, kind = layers.Dense(1)(inputs), layers.Dense(3, "softmax")(inputs)
    losses = {"kind": "sparse_categorical_crossentropy", "size": "mse"}
    sampler = hn.DeepEnsemble(keras.Model(inputs, {"size": size, "kind": kind}), num_networks=2)
    sampler.compile("sgd", losses, run_eagerly=True)
    sampler.fit(np.ones((4, 2)), {"kind": np.arange(4) % 3, "size": np.ones((4, 1))}, verbose=0)


def test_probabilities_of_another_kind_may_stand_beside_logits():
    inputs = keras.Input((2,))
    kind = layers.Reshape((3,))(layers.Dense(3, "softmax")(inputs))
    model = keras.Model(inputs, {"kind": kind, "other": layers.Dense(3)(inputs)})
    sampler = hn.DeepEnsemble(model, num_networks=2)
    sampler.compile("sgd", {"kind": "sparse_categorical_crossentropy", "other": LOGITS})
    assert sampler.target.outputs == "values"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (np.array([1, 2, 3, 1]), "Labels run from 1 to 3, but the target has 3 classes"),
        (np.eye(3)[[0, 1, 2, 0]], "are one-hot"),
    ],
)
def test_labels_of_one_of_several_outputs(kind, words):
    sampler = hn.DeepEnsemble(two_heads(), num_networks=2)
    sampler.compile("sgd", {"kind": LOGITS, "size": "mse"}, run_eagerly=True)
    x, y = np.ones((4, 2)), {"kind": kind, "size": np.zeros((4, 1))}
    with pytest.raises(ValueError, match=words):
        sampler.fit(x, y, verbose=0)
    sampler.fit(x, y | {"kind": np.array([0, 1, 2, 0])}, verbose=0)


@pytest.mark.usefixtures("eager_fits")
def test_the_accuracy_of_several_columns_of_logits_cuts_at_0():
    inputs = keras.Input((1,))
    heads = [layers.Dense(1, name=name, use_bias=False)(inputs) for name in "ab"]
    sampler = hn.DeepEnsemble(keras.Model(inputs, heads), num_networks=1, gauge=False)
    for variable in sampler.theta:
        variable.assign(tf.ones_like(variable))
    sampler.compile(
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[["accuracy"], ["accuracy"]],
    )
    x, y = np.array([[0.3], [-0.3]]), np.array([[1.0], [0.0]])  # each logit is right
    logs = sampler.evaluate(x, [y, y], verbose=0, return_dict=True)
    accuracies = {name: value for name, value in logs.items() if name.endswith("accuracy")}
    assert len(accuracies) >= 4
    assert set(accuracies.values()) == {1.0}
