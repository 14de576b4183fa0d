"""The cubic regression problem."""

import numpy as np
import pytest

from hypernet_tf import data


def test_its_points_are_the_published_ones():
    x, y = data.cubic(seed=0)
    assert x.shape == y.shape == (20, 1) and x.dtype == y.dtype == np.float32
    assert (x[0], x[-1]) == (-4, 4)
    assert (np.diff(x[:, 0]) > 0).all()


def test_inputs_are_uniform_and_the_noise_has_its_deviation():
    x, y = data.cubic(20_002, noise_std=3.0, seed=1)
    inner = x[1:-1, 0]
    counts = np.histogram(inner, 10, (-4, 4))[0]  # 2,000 ± 42 in each bin
    assert counts.sum() == 20_000 and np.abs(counts - 2_000).max() < 5 * 42
    noise = (y - x**3)[:, 0]
    assert abs(noise.mean()) < 5 * 3 / np.sqrt(20_000)
    assert noise.std() == pytest.approx(3, abs=5 * 3 / np.sqrt(40_000))


def test_it_is_seeded():
    draws = [data.cubic(seed=seed) for seed in (3, 3, 4)]
    for one, same, other in zip(*draws, strict=True):
        np.testing.assert_array_equal(one, same)
        assert not np.array_equal(one, other)


def test_one_point_is_an_error():
    with pytest.raises(ValueError, match=r"^Cannot draw 1 points: give a count of at least 2\.$"):
        data.cubic(1)
