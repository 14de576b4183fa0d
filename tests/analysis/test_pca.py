"""Principal components of known distributions, and the parts of the weights."""

import numpy as np
import pytest
from random_networks import random_networks

from hypernet_tf.analysis import principal_components, spanned_coordinates, weight_views


def test_components_of_a_known_distribution():
    rng = np.random.default_rng(0)
    axes, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    scale = np.array([5.0, 3.0, 1.0] + [0.1] * 37)
    vectors = (rng.normal(size=(2000, 40)) * scale) @ axes
    components = principal_components(vectors)
    expected = scale**2 / (scale**2).sum()
    np.testing.assert_allclose(components.explained[:3], expected[:3], atol=0.02)
    assert components.coordinates.shape == (2000, 6)
    np.testing.assert_allclose(components.coordinates[:, :3].std(0), scale[:3], rtol=0.06)
    # Shuffled, the same weights have no common direction.
    assert components.explained_if_independent.sum() < 0.5 < components.explained.sum()


def test_independent_weights_explain_no_more_than_shuffled_ones():
    components = principal_components(np.random.default_rng(0).normal(size=(500, 30)))
    np.testing.assert_allclose(
        components.explained.sum(), components.explained_if_independent.sum(), atol=0.02
    )


def test_fewer_weights_than_components():
    assert principal_components(np.random.default_rng(0).normal(size=(9, 2)))[1].shape == (2,)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_equal_networks_have_no_variance_to_explain(value):
    """In single precision the squares of equal weights do not cancel."""
    components = principal_components(np.full((3_000, 25), value, np.float32))
    assert np.isnan(components.explained).all()
    assert not components.coordinates.any()


def test_too_few_networks_raise():
    with pytest.raises(ValueError, match="at least 7 networks, not 6"):
        principal_components(np.zeros((6, 10)))


def test_views_of_the_layers_are_all_weights():
    ensemble = random_networks(5)
    views = weight_views(ensemble)
    sizes = {name: view.shape[1] for name, view in views.items()}
    parts = [size for name, size in sizes.items() if name.startswith("layer") and "," not in name]
    assert sum(parts) == sizes["all weights"] == ensemble.target.weight_count
    first = next(view for name, view in views.items() if "," in name)
    kernel, bias = ensemble.weights.trainable[:2]
    np.testing.assert_array_equal(first[:, :9], kernel[..., 0].numpy().reshape(5, 9))
    np.testing.assert_array_equal(first[:, 9], bias[:, 0])


def test_spanned_coordinates_keep_all_distances():
    vectors = 7 + np.random.default_rng(0).normal(size=(5, 400)).astype("float32")
    coordinates = spanned_coordinates(vectors)
    assert coordinates.shape == (5, 4)
    distances = np.linalg.norm(coordinates[:, None] - coordinates[None], axis=-1)
    exact = np.linalg.norm(vectors[:, None].astype(float) - vectors[None], axis=-1)
    np.testing.assert_allclose(distances, exact, rtol=1e-5)
    assert (np.diff(coordinates.var(0)) <= 0).all()
    assert spanned_coordinates(vectors[:, :2]).shape == (5, 2)


def test_networks_without_numbers_are_counted():
    vectors = np.zeros([9, 4])
    vectors[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"^1 of 9 networks have .* the first of them number 3: "):
        principal_components(vectors, 2)
