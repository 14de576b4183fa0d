"""Padding, so that networks for one data set can run on the images of another."""

from __future__ import annotations

import dataclasses

import numpy as np

from hypernet_tf.data.errors import DataError
from hypernet_tf.data.registry import fits
from hypernet_tf.data.splits import Dataset, Split


def pad_to(dataset: Dataset, shape: tuple[int, int, int]) -> Dataset:
    """Pad the images of a data set with black, and repeat grey images in each channel.

    Both sides get equally many zeros; an odd one is added below and on the right. MNIST's
    28 x 28 x 1 become 32 x 32 x 3 with 2 black pixels on each side and three equal channels.

    Args:
        dataset: Data set of images [M, h, w, c].
        shape: New shape (H, W, C), with H ≥ h, W ≥ w, and C = c unless c is 1.

    Returns:
        The data set with images [M, H, W, C], uint8, whose `source` mentions the padding; the same
        object if the images have this shape already.

    Raises:
        DataError: The images do not fit into the shape.

    Example:
        >>> from hypernet_tf.data import uniform_noise
        >>> colour = pad_to(uniform_noise(5, (28, 28, 1)), (32, 32, 3))
        >>> colour.test.images.shape, colour.source
        ((5, 32, 32, 3), 'independent uniform pixels, seed 0, padded to 32 x 32 x 3')
    """
    old_shape = dataset.test.images.shape[1:]
    if old_shape == tuple(shape):
        return dataset
    old_text, new_text = (" x ".join(map(str, sizes)) for sizes in (old_shape, shape))
    missing = [new - old for new, old in zip(shape, old_shape, strict=True)]
    if not fits(old_shape, shape):
        raise DataError(
            f"Images of {dataset.name} are {old_text}, which does not fit into {new_text}: use "
            "another data set, or a network for such images."
        )
    around = [(0, 0), *((m // 2, m - m // 2) for m in missing[:2]), (0, 0)]

    def padded(split: Split) -> Split:
        images = np.pad(split.images, around)
        return Split(np.repeat(images, shape[2] // old_shape[2], axis=3), split.labels)

    return dataclasses.replace(
        dataset,
        source=f"{dataset.source}, padded to {new_text}",
        train=padded(dataset.train),
        validation=padded(dataset.validation),
        test=padded(dataset.test),
    )
