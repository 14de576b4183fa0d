"""Images of uniform noise."""

import numpy as np
import pytest

from hypernet_tf import data


def test_noise_is_uniform_and_seeded():
    images = data.uniform_noise(200, (8, 9, 3), seed=1)
    assert images.summary() == {
        "name": "noise",
        "source": "independent uniform pixels, seed 1",
        "train": 0,
        "validation": 0,
        "test": 200,
    }
    assert images.classes == () and images.test.labels.dtype == np.int64
    assert set(images.test.y.tolist()) == {-1}
    pixels = images.test.images
    assert pixels.shape == (200, 8, 9, 3) and pixels.dtype == np.uint8
    counts = np.bincount(pixels.ravel(), minlength=256)
    expected = pixels.size / 256  # 169
    assert ((counts - expected) ** 2 / expected).sum() < 340  # chi-squared: 255 ± 23
    np.testing.assert_array_equal(pixels, data.uniform_noise(200, (8, 9, 3), 1).test.images)
    assert not np.array_equal(pixels, data.uniform_noise(200, (8, 9, 3), 2).test.images)
    with pytest.raises(ValueError, match=r"^Cannot draw 0 images: give a count of at least 1\.$"):
        data.uniform_noise(0, (2, 2, 1))
