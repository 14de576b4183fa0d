"""Samplers beside Keras models: names and order of arguments, what is taken, what is an error."""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from data_sets import Endless, sliced
from small_samplers import (
    LOGITS,
    apd,
    bhn,
    classifier,
    deep_ensemble,
    mc_dropout,
    noise_control,
)
from target_models import one_line_error

import hypernet_tf as hn

layers = keras.layers
close = functools.partial(np.testing.assert_allclose, rtol=1e-5)


def names_of(function):
    return [*inspect.signature(function).parameters]


@pytest.mark.parametrize("name", ["compile", "evaluate", "predict", "export"])
def test_arguments_have_the_order_of_keras(name):
    of_keras = names_of(getattr(keras.Model, name))
    of_keras = [n for n in of_keras if n not in ("kwargs", "input_signature")]
    ours = names_of(getattr(hn.WeightSampler, name))
    assert ours[: len(of_keras)] == of_keras


@pytest.mark.parametrize("make", [deep_ensemble, apd])
def test_metrics_come_fourth(make, blobs):
    sampler = make()
    sampler.compile("adam", LOGITS, None, ["accuracy"], run_eagerly=True)
    assert "accuracy" in sampler.train_on_batch(*blobs, return_dict=True)
    with one_line_error("say metrics=[...]"):
        sampler.compile("adam", LOGITS, ["accuracy"])


@pytest.mark.usefixtures("eager_fits")
def test_metrics_stay_with_another_loss(blobs):
    sampler = deep_ensemble(num_networks=2)
    sampler.compile("sgd", LOGITS, metrics=["accuracy"])
    sampler.compile("adam", LOGITS)
    history = sampler.fit(*blobs, validation_data=blobs, verbose=0).history
    assert {"accuracy", "val_member_accuracy"} <= history.keys()


@pytest.mark.parametrize(
    "loss",
    ["dice", keras.losses.Dice(), keras.losses.Tversky(axis=(0, 1)), keras.losses.Circle()],
)
def test_losses_of_a_whole_batch_are_an_error(loss):
    with one_line_error("batch"):
        deep_ensemble(num_networks=2).compile("sgd", loss)
    deep_ensemble(num_networks=1).compile("sgd", loss)  # whose batch is its own
    deep_ensemble(num_networks=2).compile("sgd", keras.losses.Dice(axis=-1))


def test_what_was_refused_is_not_compiled():
    sampler = deep_ensemble(num_networks=2)
    for optimizer in (keras.optimizers.Lamb(), keras.optimizers.SGD(clipnorm=1.0)):
        with pytest.raises(ValueError, match="as each alone"):
            sampler.compile(optimizer, LOGITS)
        assert not sampler.compiled
    sampler = apd()
    with pytest.raises(ValueError, match="compile without use_ema"):
        sampler.compile(keras.optimizers.SGD(use_ema=True), LOGITS)
    assert not sampler.compiled


@pytest.mark.parametrize("make", [deep_ensemble, mc_dropout, bhn, apd, noise_control])
def test_options_that_a_sampler_sets_itself(make):
    make(diversity=[])
    with pytest.raises(TypeError, match=r"^\w+ sets diversity=\[\] itself: leave it out\.$"):
        make(diversity=[hn.diversity.NegativeEntropy()])
    if make is noise_control:
        with pytest.raises(TypeError, match="sets num_networks=1 itself"):
            make(num_networks=2)


def test_chains_are_counted_by_num_chains():
    with pytest.raises(TypeError, match=r"^SGDChains has num_chains in place of num_networks"):
        hn.SGDChains(classifier(), num_networks=5)


def test_variables_are_left_out_of_weight_decay_by_name(blobs):
    optimizer = keras.optimizers.SGD(0.1, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    sampler = deep_ensemble(num_networks=2, lam=0.0)
    for variable in sampler.theta:
        variable.assign(tf.ones_like(variable))
    sampler.compile(optimizer, LOGITS, run_eagerly=True)
    sampler.train_on_batch(*blobs)
    for variable in sampler.theta:
        close(variable, 1.0 if "bias" in variable.name else 0.95)


def test_an_optimizer_starts_from_the_weights_of_its_first_step(blobs, tmp_path):
    """As BHN's `initialize` or HyperGAN's pretraining set them, after `compile`."""
    sampler = deep_ensemble(num_networks=2, lam=0.0)
    sampler.compile(keras.optimizers.ScheduleFreeAdamW(0.01), LOGITS, run_eagerly=True)
    weights = [np.full_like(w, 2.0) for w in sampler.get_weights()]
    sampler.set_weights(weights)
    sampler.train_on_batch(*blobs)
    for variable in sampler.theta:
        close(variable, 2.0, atol=0.1)
    sampler.save(tmp_path / "sampler.keras")
    loaded = keras.saving.load_model(tmp_path / "sampler.keras")
    for one, other in zip(loaded.optimizer.variables, sampler.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one, other)


# ---- predictions ------------------------------------------------------------------------------


def test_predict_takes_what_keras_takes(blobs):
    x, sampler = blobs[0], deep_ensemble(num_networks=2)
    full = sampler.predict(x)

    def made():
        for start in range(0, 96, 10):
            yield (x[start : start + 10],)

    close(sampler.predict(made()), full)
    close(sampler.predict(made(), None, 0, 3), full[:30])
    close(sampler.predict(Endless(x), steps=2), full[:5])  # batches of 4 and 1
    close(sampler.predict(sliced(x).repeat(), steps=2), full[:12])
    close(sampler.predict(x, 10, steps=2), full[:20])
    close(sampler.predict(x, steps=2), full[:64])
    with one_line_error("has no end"):
        sampler.predict(Endless(x))


def test_callbacks_of_predict_may_take_other_weights(blobs):
    class Zeros(keras.callbacks.Callback):
        def on_predict_begin(self, logs=None):
            self.kept = self.model.get_weights()
            self.model.set_weights([np.zeros_like(w) for w in self.kept])

        def on_predict_batch_end(self, batch, logs=None):
            self.seen = logs["outputs"]

        def on_predict_end(self, logs=None):
            self.model.set_weights(self.kept)

    x, sampler, zeros = blobs[0], deep_ensemble(num_networks=2), Zeros()
    before = sampler.predict(x)
    outputs = sampler.predict(x, callbacks=[zeros])
    np.testing.assert_array_equal(outputs, 0)
    assert zeros.seen is outputs
    np.testing.assert_array_equal(sampler.predict(x), before)


def test_no_examples_are_no_evaluation(blobs):
    sampler = deep_ensemble(num_networks=2)
    sampler.compile("sgd", LOGITS, run_eagerly=True)
    with one_line_error("no examples to evaluate"), pytest.warns(UserWarning, match="ran out"):
        sampler.evaluate(sliced(*blobs).take(0), verbose=0)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_call_is_a_prediction_in_every_precision(dtype, blobs):
    frozen = layers.Dense(8, trainable=False, dtype="float32")
    model = keras.Sequential([keras.Input((2,)), frozen, layers.Dense(3, dtype="float32")])
    sampler = deep_ensemble(model, num_networks=2, dtype=dtype)
    close(sampler(blobs[0]), sampler.predict(blobs[0]))
    # Outside of a model of half precision and inside.
    target = hn.Target(model)
    theta = np.random.default_rng(0).normal(size=(2, target.weight_count)).astype("float32")
    layer = hn.TargetLayer(target, dtype=dtype)
    close(layer((theta, blobs[0])), target(target.unflatten(theta), blobs[0]))


# ---- what is an error -------------------------------------------------------------------------


def test_outputs_are_floats():
    inputs = keras.Input((2,))
    logits = layers.Dense(3, name="dense")(inputs)
    model = keras.Model(inputs, {"logits": logits, "label": keras.ops.argmax(logits, -1)})
    target = hn.Target(model)
    assert target.output_dtypes == {"argmax": "int32", "dense": "float32"}
    with one_line_error("The output 'argmax' is int32", "leave it out"):
        hn.DeepEnsemble(target)


def test_sparse_inputs_are_an_error(blobs):
    x, y = blobs
    sampler = deep_ensemble(num_networks=2)
    sampler.compile("sgd", LOGITS)
    sparse = tf.sparse.from_dense(x)
    for given in ((sparse, y), (tf.data.Dataset.from_tensor_slices((sparse, y)).batch(12),)):
        for use in (sampler.fit, sampler.evaluate):
            with one_line_error("sparse or ragged", "tf.sparse.to_dense(x)"):
                use(*given)
    assert sampler.step == 0


@pytest.mark.parametrize("name", ["train_step", "compute_loss", "compute_metrics"])
def test_a_training_of_a_models_own_is_an_error(name):
    own = type("Own", (keras.Model,), {name: lambda self, *args, **kwargs: None})
    inputs = keras.Input((2,))
    with one_line_error(f"has a {name} of its own", "keras.Model(model.inputs"):
        hn.Target(own(inputs, layers.Dense(3)(inputs)))


def test_a_list_for_named_inputs_has_no_order(blobs):
    inputs = {name: keras.Input((2,), name=name) for name in ("query", "document")}
    model = keras.Model(inputs, layers.Dense(3)(layers.Subtract()([*inputs.values()])))
    sampler = deep_ensemble(model, num_networks=2)
    x, words = blobs[0], "give a dict of query, document"
    for given in ([x, -x], (x, -x)):
        with one_line_error(words):
            sampler.target(sampler.sample(2).weights, list(given))
    named = {"query": x, "document": -x}
    close(sampler.predict(named), sampler.predict(dict(reversed(named.items()))))


@keras.saving.register_keras_serializable(package="test_keras_interface")
class Tracked(layers.Layer):
    """A layer that reports the mean of what it sees."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.tracker = keras.metrics.Mean()

    def call(self, inputs):
        self.tracker.update_state(inputs)
        return inputs


def test_metrics_of_layers_are_an_error():
    with one_line_error("has metrics, which are not reported"):
        hn.Target(classifier(Tracked()))
