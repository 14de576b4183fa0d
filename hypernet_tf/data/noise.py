"""Images without content, to test the uncertainty of networks."""

from __future__ import annotations

import numpy as np

from hypernet_tf.data.splits import Dataset, Split


def uniform_noise(count: int, shape: tuple[int, int, int], seed: int = 0) -> Dataset:
    """Images whose pixels are independent and uniform on 0, ..., 255.

    Args:
        count: Number of images, at least 1; all are test images.
        shape: Shape of an image, (height, width, channels).
        seed: Seed of the pixels.

    Returns:
        A data set named "noise" without classes: its labels are -1.

    Raises:
        ValueError: count is below 1.

    Example:
        >>> noise = uniform_noise(3, (28, 28, 1), seed=0)
        >>> noise.test.images.shape, noise.test.y.tolist(), len(noise.train)
        ((3, 28, 28, 1), [-1, -1, -1], 0)
    """
    if count < 1:
        raise ValueError(f"Cannot draw {count} images: give a count of at least 1.")
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
    source = f"independent uniform pixels, seed {seed}"
    return Dataset.to_test("noise", source, (), Split(images, np.full(count, -1)))
