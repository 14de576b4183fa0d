"""Similarity against closed forms, loops over pairs, SciPy and Keras."""

import inspect
import itertools
import math
import sys

import keras
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from predictions import ensemble_predictions, functions_of

from hypernet_tf.metrics import similarity, uncertainty

moderately = settings(deadline=None, derandomize=True, max_examples=50)
PER_EXAMPLE = (
    similarity.pairwise_disagreement,
    similarity.pairwise_kl_divergence,
    similarity.pairwise_js_divergence,
)


def over_pairs(log_p, function):
    """Mean over ordered pairs of networks of a function of two predictions [M, C]."""
    p = np.exp(log_p.astype(np.float64))
    return np.mean([function(a, b) for a, b in itertools.permutations(p, 2)], 0)


def test_every_function_is_tested():
    names = functions_of(similarity)
    source = inspect.getsource(sys.modules[__name__])
    assert len(names) == 4
    assert [name for name in names if f"similarity.{name}(" not in source] == []


@moderately
@given(ensemble_predictions(min_networks=2))
def test_disagreement_equals_the_loop_over_pairs(drawn):
    log_p, _ = drawn
    exact = over_pairs(log_p, lambda a, b: a.argmax(-1) != b.argmax(-1))
    np.testing.assert_allclose(similarity.pairwise_disagreement(log_p), exact, atol=1e-12)


def test_disagreement_by_hand():
    """Four examples: all alike, two of three alike, all different, a tie within networks."""
    log_p = np.log(np.full([3, 4, 3], 0.2))
    for network, classes in enumerate([[0, 0, 0], [0, 0, 1], [0, 1, 2]]):
        log_p[network, range(3), classes] = math.log(0.6)
    log_p[:, 3] = math.log(1 / 3)
    np.testing.assert_allclose(similarity.pairwise_disagreement(log_p), [0, 2 / 3, 1, 0])


@moderately
@given(ensemble_predictions(min_networks=2))
def test_pairwise_divergences_equal_loops_over_pairs(drawn):
    log_p, _ = drawn
    kl = over_pairs(log_p, lambda a, b: scipy.special.rel_entr(a, b).sum(-1))
    result = similarity.pairwise_kl_divergence(log_p)
    np.testing.assert_allclose(result, kl, rtol=1e-5, atol=1e-6)
    js = over_pairs(log_p, lambda a, b: scipy.spatial.distance.jensenshannon(a, b, axis=-1) ** 2)
    result = similarity.pairwise_js_divergence(log_p)
    # SciPy divides by the sums, which differ from 1 by float32's rounding.
    np.testing.assert_allclose(result, js, rtol=1e-5, atol=1e-6)
    assert (result >= 0).all() and (result <= math.log(2) + 1e-6).all()


@pytest.mark.parametrize("name", ["disagreement", "kl_divergence", "js_divergence"])
def test_several_choices_of_an_example_are_compared_one_by_one(name):
    measure = getattr(similarity, f"pairwise_{name}")
    log_p = scipy.special.log_softmax(np.random.default_rng(1).normal(size=(4, 3, 2, 5)), -1)
    exact = [measure(log_p[:, :, choice]) for choice in range(2)]
    np.testing.assert_allclose(measure(log_p), np.stack(exact, -1))


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


def test_pairwise_kl_divergence_of_a_class_of_probability_zero():
    """Zero if all networks agree on it, infinite if not; log-probabilities of -1000 are exact."""
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
    """CKA of two outputs [M, F] by its definition, with Gram matrices [M, M] and their HSIC."""
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
    result = similarity.linear_cka(outputs)
    assert result == pytest.approx(exact, abs=1e-9)
    assert -1e-9 < result < 1 + 1e-9
    assert similarity.linear_cka(outputs.astype(np.float32)) == pytest.approx(exact, abs=1e-4)


def test_rotation_scale_and_shift_have_no_effect_on_cka():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 3))
    rotation = scipy.stats.ortho_group.rvs(3, random_state=0)
    assert similarity.linear_cka(np.stack([x, 7 * x @ rotation + 5])) == pytest.approx(1.0)
    assert similarity.linear_cka(np.stack([x, x * [100, 1, 1]])) < 0.9
    assert similarity.linear_cka(1e200 * np.stack([x, x])) == pytest.approx(1.0)
    unrelated = np.array([[[1.0], [-1.0], [1.0], [-1.0]], [[1.0], [1.0], [-1.0], [-1.0]]])
    assert similarity.linear_cka(unrelated) == pytest.approx(0.0)


def test_probabilities_are_refused():
    p = np.full([2, 3, 4], 0.25)
    for measure in (
        similarity.pairwise_disagreement,
        similarity.pairwise_kl_divergence,
        similarity.pairwise_js_divergence,
    ):
        with pytest.raises(ValueError, match="not log-probabilities"):
            measure(p)


def test_outputs_without_a_similarity_raise():
    one = np.log(np.full([1, 3, 2], 0.5))
    for function, name in (
        (similarity.pairwise_disagreement, "Pairwise disagreement"),
        (similarity.pairwise_kl_divergence, "Pairwise KL divergence"),
        (similarity.pairwise_js_divergence, "Pairwise Jensen-Shannon divergence"),
        (similarity.linear_cka, "Centred kernel alignment"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} needs at least 2 networks\.$"):
            function(one)
    outputs = np.random.default_rng(0).normal(size=(3, 4, 2))
    with pytest.raises(ValueError, match=r"have the shape \[3, 4, 1, 2\]: give \[networks, exa"):
        similarity.linear_cka(outputs[:, :, None])
    outputs[1] = 0.1  # whose mean is not exactly itself
    with pytest.raises(ValueError, match=r"needs outputs that differ between examples\.$"):
        similarity.linear_cka(outputs)
    outputs[1, 0, 0] = -np.inf
    with pytest.raises(ValueError, match=r"needs finite outputs\.$"):
        similarity.linear_cka(outputs)


@moderately
@given(ensemble_predictions(min_networks=2, least_examples=2), st.randoms(use_true_random=False))
def test_the_order_of_networks_and_classes_has_no_effect(drawn, random):
    log_p, _ = drawn
    networks = random.sample(range(len(log_p)), len(log_p))
    classes = random.sample(range(log_p.shape[-1]), log_p.shape[-1])
    shuffled = log_p[networks][..., classes]
    for function in PER_EXAMPLE:
        values = function(log_p)
        assert values.shape == (log_p.shape[1],) and values.dtype == np.float64
        np.testing.assert_allclose(function(shuffled), values, rtol=1e-9, atol=1e-12)
    expected = pytest.approx(similarity.linear_cka(log_p), abs=1e-9)
    assert similarity.linear_cka(shuffled) == expected


def test_similarity_holds_no_array_of_all_pairs():
    """The probabilities of all pairs of 200 networks would be 640 MB, those of one each 3 MB."""
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
