"""Images without content, to test what a network says where there is nothing to see."""

from __future__ import annotations

import numpy as np

from hypernet_tf.data.splits import Dataset, Split


def uniform_noise(count: int, shape: tuple[int, int, int], seed: int = 0) -> Dataset:
    """Images whose pixels are independent and uniform on 0, ..., 255.

    Args:
        count: how many, at least 1; all are test images.
        shape: (height, width, channels) of each.
        seed: the same seed gives the same images.

    Returns:
        A data set named "noise" without classes: its labels are -1.

    Raises:
        ValueError: no image is asked for.

    Example:
        >>> noise = uniform_noise(3, (28, 28, 1), seed=0)
        >>> noise.test.images.shape, noise.test.y.tolist(), len(noise.train)
        ((3, 28, 28, 1), [-1, -1, -1], 0)
    """
    if count < 1:
        raise ValueError(f"{count} images of noise: at least 1 is needed")
    images = np.random.default_rng(seed).integers(0, 256, (count, *shape), np.uint8)
    source = f"independent uniform pixels, seed {seed}"
    return Dataset.to_test("noise", source, (), Split(images, np.full(count, -1)))
