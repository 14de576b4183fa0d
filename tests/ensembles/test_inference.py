"""Chunks of networks and examples, data sets, and batch norm's statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from small_ensembles import EXAMPLES, NETWORKS, ensemble_of, normalised, one_line

import hypernet_tf as hn
from hypernet_tf.ensembles import inference

layers = keras.layers

# ---- chunks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("networks_at_once", "batch_size"), ((1, 7), (2, 1), (2, 7), (3, 22), (2, 23), (5, 100))
)
def test_results_do_not_depend_on_chunks(cases, x, runs, monkeypatch, networks_at_once, batch_size):
    """Chunks that do not divide N or M evenly need no second graph."""
    c = cases["logits"]
    vars(c.ensemble.target).pop("compiled", None)  # graphs of other tests
    monkeypatch.setattr(inference, "_NETWORKS_AT_ONCE", networks_at_once)
    result = c.ensemble.outputs(x, batch_size=batch_size)
    np.testing.assert_allclose(result, c.loop, rtol=1e-5, atol=1e-5)
    assert runs == [(networks_at_once, min(batch_size, EXAMPLES))]
    c.ensemble.outputs(x, batch_size=batch_size)
    assert len(runs) == 1  # the same shapes again need no other graph


def test_a_small_budget_means_small_chunks(cases, x, runs, monkeypatch):
    c = cases["logits"]
    vars(c.ensemble.target).pop("compiled", None)
    each = 4 * c.ensemble.target.activations_per_example()
    monkeypatch.setattr(inference, "_ACTIVATION_BYTES", 6 * each)
    result = c.ensemble.outputs(x)
    assert runs == [(1, 6)]
    np.testing.assert_allclose(result, c.loop, rtol=1e-5, atol=1e-5)
    c.ensemble.outputs(x, batch_size=3)
    assert runs[1:] == [(2, 3)]


@pytest.mark.parametrize("as_data_set", [False, True])
def test_open_axes_count_as_long_as_the_inputs(runs, monkeypatch, as_data_set):
    model = keras.Sequential(
        [keras.Input((None, 2)), layers.Conv1D(3, 2), layers.GlobalMaxPooling1D()]
    )
    ensemble = ensemble_of(model)
    x = np.random.default_rng(0).normal(size=(8, 50, 2)).astype("float32")
    each = ensemble.target.activations_per_example(x)
    assert 50 * (2 + 3) <= each < 2 * 50 * (2 + 3)
    monkeypatch.setattr(inference, "_ACTIVATION_BYTES", 4 * each * 2)
    given = tf.data.Dataset.from_tensor_slices(x).batch(8) if as_data_set else x
    outputs = ensemble.outputs(given)
    assert {run[0] * run[1] for run in runs} == {2}  # networks x examples
    monkeypatch.undo()
    np.testing.assert_allclose(outputs, ensemble.outputs(x), rtol=1e-5)


@settings(deadline=None, derandomize=True, max_examples=300)
@given(
    count=st.integers(1, 1000),
    size=st.integers(1, 100_000),
    batch_size=st.one_of(st.none(), st.integers(1, 5000)),
    each=st.integers(0, 10).flatmap(lambda power: st.integers(10**power, 10 ** (power + 1))),
)
def test_activations_stay_under_one_gibibyte(count, size, batch_size, each):
    """Except when the least that can run takes more; and chunks are not smaller than necessary."""
    networks, examples = inference.plan(each, count, size, batch_size)
    assert 1 <= networks <= min(count, 32)
    assert 1 <= examples <= size
    if batch_size is not None:
        assert examples == min(batch_size, size)
    least = min(48, size) if batch_size is None else examples
    used = networks * examples * each * 4
    assert used <= 2**30 or (networks, examples) == (1, 1 if batch_size is None else least)
    if min(count, 32) * least * each * 4 <= 2**29:  # as many networks as possible fit
        assert -(-count // networks) == -(-count // 32)
    if batch_size is None:
        chunks = -(-size // examples)
        assert chunks * examples - size < chunks  # the last one is hardly shorter than the others
        if networks * 512 * each * 4 <= 2**29:
            assert chunks == -(-size // 512)


def test_a_batch_without_examples_raises(cases, x):
    for size in (0, -1, 1e3):
        with pytest.raises(ValueError) as error:
            cases["logits"].ensemble.predict(x, batch_size=size)
        assert one_line(error) == (f"batch_size is {size!r}: give a whole number, at least 1.")


def test_progress_is_shown_if_verbose(cases, x, capsys):
    cases["logits"].ensemble.predict(x)
    assert not capsys.readouterr().err
    cases["logits"].ensemble.predict(x, verbose=1, batch_size=10)
    assert "networks: " in (shown := capsys.readouterr().err) and "/3" in shown


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
    """Batches of 10, 10 and 3, which counts by its size, in the random order of arrays."""
    in_order = x[np.random.default_rng(0).permutation(len(x))]
    monkeypatch.setattr(inference, "_NETWORKS_AT_ONCE", networks_at_once)
    ensemble = ensemble_of(normalised(), "logits")
    updated = ensemble.update_batch_norm(x, batch_size=10)
    assert runs == [(min(5, networks_at_once), 10), (min(5, networks_at_once), 3)]
    for n in range(NETWORKS):
        weights = tf.nest.map_structure(lambda t, n=n: t[n : n + 1], ensemble.weights)
        exact = loop_statistics(ensemble.target.to_keras(weights), in_order, 10)
        result = [tensor[n] for tensor in updated.weights.state]
        assert len(result) == len(exact) == 4
        for tensor, statistic in zip(result, exact, strict=True):
            np.testing.assert_allclose(tensor, statistic, rtol=1e-4, atol=1e-5)
    network = updated[2].to_keras()
    result = updated.outputs(x)[2]
    np.testing.assert_allclose(result, network.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
    assert np.ptp(updated.weights.state[2], 0).max() > 0.1  # the networks differ


def test_statistics_of_inputs_that_are_sorted_are_those_of_mixed_batches():
    """Batches of one class would have the variance within classes, 1 instead of 10."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(c, 1, (500, 1)) for c in (-3, 3)]).astype("float32")
    model = keras.Sequential([keras.Input((1,)), layers.BatchNormalization(), layers.Dense(2)])
    sampler = hn.DeepEnsemble(model, num_networks=2)
    sampler.compile("sgd", "mse", run_eagerly=True)
    sampler.fit(x, np.zeros((1_000, 2)), batch_size=1_000, verbose=0)
    for ensemble in (sampler.sample(2), sampler.sample(2).update_batch_norm(x)):
        _, variance = ensemble.weights.state
        np.testing.assert_allclose(variance, x.var(), rtol=0.05)


def test_update_batch_norm_keeps_within_the_budget(x, runs, monkeypatch):
    ensemble = ensemble_of(normalised(), "logits")
    each = 4 * ensemble.target.activations_per_example()
    monkeypatch.setattr(inference, "_ACTIVATION_BYTES", 25 * each)
    ensemble.update_batch_norm(x, batch_size=10)
    assert {networks for networks, _ in runs} == {2}


def test_update_batch_norm_of_a_shared_layer_equals_keras_after_many_steps():
    """A layer that is called twice a step moves its average twice."""
    inputs = keras.Input((3,))
    norm = layers.BatchNormalization(momentum=0.6)
    hidden = layers.Dense(3)(norm(inputs))
    model = keras.Model(inputs, layers.Dense(2)(norm(hidden)))
    ensemble = ensemble_of(model, "values", num_networks=2)
    x = np.random.default_rng(0).normal(1.0, 2.0, size=(20, 3)).astype("float32")
    updated = ensemble.update_batch_norm(x)
    for n in range(2):
        network = updated[n].to_keras()
        for variable in network.non_trainable_variables:
            variable.assign(0.0 * variable)
        for _ in range(40):  # 0.6^80 of the start is left
            network(x, training=True)
        for result, variable in zip(
            updated.weights.state, network.non_trainable_variables, strict=True
        ):
            np.testing.assert_allclose(result[n], variable.numpy(), rtol=1e-4, atol=1e-5)


def test_an_input_that_is_no_number_is_named_by_its_place_among_all(x):
    ensemble, x = ensemble_of(normalised(), "logits"), x.copy()
    x[9] = np.nan
    updated = ensemble.update_batch_norm(np.nan_to_num(x))
    for run in (ensemble.update_batch_norm, updated.outputs):
        with pytest.raises(ValueError, match="first of them number 9: remove or replace"):
            run(x, batch_size=4)


@pytest.mark.usefixtures("eager_fits")
def test_networks_without_their_statistics_raise(x, tmp_path):
    """Also after slicing, saving and loading."""
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
            assert one_line(error).endswith("ensemble = ensemble.update_batch_norm(x_train) first.")

    updated = ensemble.update_batch_norm(x, batch_size=10)
    updated.save(tmp_path / "updated.npz")
    loaded = hn.Ensemble.load(tmp_path / "updated.npz")
    outputs = updated.outputs(x)
    np.testing.assert_array_equal(loaded.outputs(x), outputs)
    np.testing.assert_allclose(updated[1:3].outputs(x), outputs[1:3], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="update_batch_norm"):
        ensemble.predict(x)  # the first one is as it was


def test_update_batch_norm_has_no_effect_without_batch_normalisation(cases, x):
    assert cases["logits"].ensemble.update_batch_norm(x) is cases["logits"].ensemble
