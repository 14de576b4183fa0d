"""Uncertainty and similarity against closed forms, loops over pairs, SciPy and Keras."""

import inspect
import itertools
import math

import keras
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from hypernet_tf.metrics import similarity, uncertainty

moderately = settings(deadline=None, derandomize=True, max_examples=50)
PER_EXAMPLE = (
    uncertainty.predictive_entropy,
    uncertainty.expected_entropy,
    uncertainty.mutual_information,
    uncertainty.probability_variance,
    similarity.pairwise_kl_divergence,
    similarity.pairwise_js_divergence,
)


@st.composite
def predictions(draw, least=1):
    """log-probabilities [N, M, C] in float32 or float64."""
    networks, examples = draw(st.integers(least, 7)), draw(st.integers(2, 9))
    classes, sharpness = draw(st.integers(2, 5)), draw(st.sampled_from((0.1, 1.0, 5.0)))
    dtype = draw(st.sampled_from((np.float32, np.float64)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = sharpness * rng.normal(size=(networks, examples, classes))
    return scipy.special.log_softmax(logits, -1).astype(dtype)


def over_pairs(log_p, function):
    """Mean over ordered pairs of networks of a function of two predictions [M, C]."""
    p = np.exp(log_p.astype(np.float64))
    return np.mean([function(a, b) for a, b in itertools.permutations(p, 2)], 0)


@pytest.mark.parametrize(("module", "count"), [(uncertainty, 5), (similarity, 3)])
def test_every_function_is_tested(module, count):
    ours = [
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    ]
    here = inspect.getsource(inspect.getmodule(predictions))
    assert len(ours) == count
    assert all(f"{module.__name__.split('.')[-1]}.{name}(" in here for name in ours)


# ---- uncertainty ----------------------------------------------------------------------------


@moderately
@given(predictions())
def test_entropies_equal_scipy(log_p):
    p = np.exp(log_p.astype(np.float64))
    close = {"rtol": 1e-6, "atol": 1e-6}  # SciPy undoes float32's rounding: it divides by the sum
    whole = scipy.stats.entropy(p.mean(0), axis=-1)
    own = scipy.stats.entropy(p, axis=-1).mean(0)
    np.testing.assert_allclose(uncertainty.predictive_entropy(log_p), whole, **close)
    np.testing.assert_allclose(uncertainty.expected_entropy(log_p), own, **close)


@moderately
@given(predictions())
def test_mutual_information_is_the_mean_divergence_from_the_mean(log_p):
    p = np.exp(log_p.astype(np.float64))
    divergences = scipy.special.rel_entr(p, p.mean(0)).sum(-1)
    ours = uncertainty.mutual_information(log_p)
    np.testing.assert_allclose(ours, divergences.mean(0), rtol=1e-6, atol=1e-12)


def test_mutual_information_keeps_what_float32_would_lose():
    p = np.array([[[0.5, 0.5]], [[0.5001, 0.4999]]])
    exact = scipy.special.rel_entr(p, p.mean(0)).sum(-1).mean(0)
    ours = uncertainty.mutual_information(np.log(p))
    np.testing.assert_allclose(ours, exact, rtol=1e-6)  # 5e-9 nats


@moderately
@given(predictions())
def test_probability_variance_equals_a_loop(log_p):
    p = np.exp(log_p.astype(np.float64))
    exact = [sum(np.mean((c - c.mean()) ** 2) for c in example.T) for example in p.swapaxes(0, 1)]
    np.testing.assert_allclose(uncertainty.probability_variance(log_p), exact, rtol=1e-9)


@moderately
@given(predictions())
def test_measure_is_all_of_them_over_chunks(log_p):
    found = uncertainty.measure([log_p[:, :1], log_p[:, 1:]])
    np.testing.assert_array_equal(found.entropy, uncertainty.predictive_entropy(log_p))
    np.testing.assert_array_equal(found.expected_entropy, uncertainty.expected_entropy(log_p))
    np.testing.assert_array_equal(found.mutual_information, uncertainty.mutual_information(log_p))
    np.testing.assert_array_equal(found.variance, uncertainty.probability_variance(log_p))
    np.testing.assert_allclose(found.least_confidence, 1 - np.exp(log_p).mean(0).max(-1), atol=1e-6)


@moderately
@given(predictions())
def test_uncertainties_are_within_their_bounds(log_p):
    networks, _, classes = log_p.shape
    whole = uncertainty.predictive_entropy(log_p)
    own = uncertainty.expected_entropy(log_p)
    information = uncertainty.mutual_information(log_p)
    rounding = 1e-6
    assert (own >= 0).all() and (whole <= math.log(classes) + rounding).all()
    assert (information >= 0).all() and (information <= math.log(networks) + rounding).all()
    np.testing.assert_allclose(whole, own + information, atol=rounding)
    variance = uncertainty.probability_variance(log_p)
    assert (variance >= 0).all() and (variance <= 1 - 1 / networks + rounding).all()


def test_uncertainties_by_hand():
    """Three examples: networks sure of the same, sure of different classes, both undecided."""
    with np.errstate(divide="ignore"):
        log_p = np.log([[[1, 0], [1, 0], [0.5, 0.5]], [[1, 0], [0, 1], [0.5, 0.5]]])
    one = math.log(2)
    np.testing.assert_allclose(uncertainty.predictive_entropy(log_p), [0, one, one])
    np.testing.assert_allclose(uncertainty.expected_entropy(log_p), [0, 0, one])
    np.testing.assert_allclose(uncertainty.mutual_information(log_p), [0, one, 0], atol=1e-15)
    np.testing.assert_allclose(uncertainty.probability_variance(log_p), [0, 0.5, 0])
    np.testing.assert_allclose(similarity.pairwise_kl_divergence(log_p), [0, np.inf, 0])
    np.testing.assert_allclose(similarity.pairwise_js_divergence(log_p), [0, one, 0], atol=1e-15)


def test_one_network_disagrees_with_nobody():
    log_p = np.log([[[0.3, 0.7], [0.9, 0.1]]])
    np.testing.assert_array_equal(uncertainty.mutual_information(log_p), [0, 0])
    np.testing.assert_array_equal(uncertainty.probability_variance(log_p), [0, 0])
    np.testing.assert_allclose(
        uncertainty.predictive_entropy(log_p), uncertainty.expected_entropy(log_p)
    )


@moderately
@given(predictions(least=2), st.randoms(use_true_random=False))
def test_neither_networks_nor_classes_have_an_order(log_p, random):
    networks = random.sample(range(len(log_p)), len(log_p))
    classes = random.sample(range(log_p.shape[-1]), log_p.shape[-1])
    shuffled = log_p[networks][..., classes]
    for function in PER_EXAMPLE:
        ours = function(log_p)
        assert ours.shape == (log_p.shape[1],) and ours.dtype == np.float64
        np.testing.assert_allclose(function(shuffled), ours, rtol=1e-9, atol=1e-12)
    outputs = log_p[networks][..., classes]
    assert similarity.linear_cka(outputs) == pytest.approx(similarity.linear_cka(log_p), abs=1e-9)


# ---- similarity -----------------------------------------------------------------------------


@moderately
@given(predictions(least=2))
def test_pairwise_divergences_equal_loops_over_pairs(log_p):
    kl = over_pairs(log_p, lambda a, b: scipy.special.rel_entr(a, b).sum(-1))
    ours = similarity.pairwise_kl_divergence(log_p)
    np.testing.assert_allclose(ours, kl, rtol=1e-5, atol=1e-6)
    js = over_pairs(log_p, lambda a, b: scipy.spatial.distance.jensenshannon(a, b, axis=-1) ** 2)
    ours = similarity.pairwise_js_divergence(log_p)
    # SciPy divides by the sums, which differ from 1 by float32's rounding.
    np.testing.assert_allclose(ours, js, rtol=1e-5, atol=1e-6)
    assert (ours >= 0).all() and (ours <= math.log(2) + 1e-6).all()


def test_pairwise_kl_divergence_equals_keras():
    log_p = scipy.special.log_softmax(np.random.default_rng(0).normal(size=(4, 6, 3)), -1)
    keras_kl = over_pairs(log_p, lambda a, b: keras.losses.kl_divergence(a, b).numpy())
    np.testing.assert_allclose(similarity.pairwise_kl_divergence(log_p), keras_kl, rtol=1e-5)


def test_divergences_of_two_networks_have_their_closed_forms():
    """Two networks: Jensen-Shannon is the mutual information, KL is Jeffreys' divergence halved."""
    log_p = np.log([[[0.2, 0.8]], [[0.6, 0.4]]])
    jeffreys = 0.4 * math.log(0.2 / 0.6) * -1 + 0.4 * math.log(0.8 / 0.4)
    np.testing.assert_allclose(similarity.pairwise_kl_divergence(log_p), [jeffreys / 2])
    np.testing.assert_allclose(
        similarity.pairwise_js_divergence(log_p), uncertainty.mutual_information(log_p)
    )


def test_pairwise_kl_divergence_of_a_class_that_networks_rule_out():
    """All rule it out: nothing. One does: infinite. Log-probabilities of -1000 lose nothing."""
    with np.errstate(divide="ignore"):
        both = np.log([[[0.4, 0.6, 0]], [[0.2, 0.8, 0]]])
        one = np.log([[[0.4, 0.6]], [[1.0, 0]]])
    np.testing.assert_allclose(
        similarity.pairwise_kl_divergence(both), similarity.pairwise_kl_divergence(both[..., :2])
    )
    np.testing.assert_array_equal(similarity.pairwise_kl_divergence(one), [np.inf])
    far = np.array([[[0.0, -1000.0]], [[-1000.0, 0.0]]])
    np.testing.assert_allclose(similarity.pairwise_kl_divergence(far), [1000.0])


def cka(x, y):
    """Of two outputs [M, F], by the definition with Gram matrices [M, M] and their HSIC."""
    examples = len(x)
    centre = np.eye(examples) - 1 / examples
    k, m = (centre @ (z @ z.T) @ centre for z in (x, y))
    return np.trace(k @ m) / np.sqrt(np.trace(k @ k) * np.trace(m @ m))


@moderately
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(2, 6), st.integers(2, 9), st.integers(1, 4)),
)
def test_cka_equals_its_definition_by_gram_matrices(seed, shape):
    outputs = np.random.default_rng(seed).normal(size=shape)
    exact = np.mean([cka(a, b) for a, b in itertools.combinations(outputs, 2)])
    ours = similarity.linear_cka(outputs)
    assert ours == pytest.approx(exact, abs=1e-9)
    assert -1e-9 < ours < 1 + 1e-9
    assert similarity.linear_cka(outputs.astype(np.float32)) == pytest.approx(exact, abs=1e-4)


def test_cka_sees_neither_rotation_nor_scale_nor_shift():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3))
    rotation = scipy.stats.ortho_group.rvs(3, random_state=0)
    assert similarity.linear_cka(np.stack([x, 7 * x @ rotation + 5])) == pytest.approx(1.0)
    assert similarity.linear_cka(np.stack([x, x * [100, 1, 1]])) < 0.9
    assert similarity.linear_cka(1e200 * np.stack([x, x])) == pytest.approx(1.0)
    unrelated = np.array([[[1.0], [-1.0], [1.0], [-1.0]], [[1.0], [1.0], [-1.0], [-1.0]]])
    assert similarity.linear_cka(unrelated) == pytest.approx(0.0)


def test_what_has_no_similarity_is_refused():
    one = np.log(np.full([1, 3, 2], 0.5))
    for function, name in (
        (similarity.pairwise_kl_divergence, "pairwise KL divergence"),
        (similarity.pairwise_js_divergence, "pairwise Jensen-Shannon divergence"),
        (similarity.linear_cka, "centred kernel alignment"),
    ):
        with pytest.raises(ValueError, match=f"^{name} needs at least 2 networks$"):
            function(one)
    outputs = np.random.default_rng(0).normal(size=(3, 4, 2))
    outputs[1] = 0.1  # whose mean is not exactly itself
    with pytest.raises(ValueError, match=r"needs outputs that differ between examples$"):
        similarity.linear_cka(outputs)
    outputs[1, 0, 0] = -np.inf
    with pytest.raises(ValueError, match=r"needs finite outputs$"):
        similarity.linear_cka(outputs)


def test_similarity_holds_no_array_of_all_pairs():
    """Of 200 networks: pairs' probabilities would be 640 MB, the networks' are 3.2 MB."""
    import tracemalloc

    rng = np.random.default_rng(0)
    log_p = scipy.special.log_softmax(rng.normal(size=(200, 200, 10)), -1)
    tracemalloc.start()
    similarity.pairwise_kl_divergence(log_p)
    similarity.pairwise_js_divergence(log_p)
    similarity.linear_cka(log_p)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * log_p.nbytes
