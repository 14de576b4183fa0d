"""Images of one data set in the shape that networks for another one take."""

from __future__ import annotations

import dataclasses

import numpy as np

from hypernet_tf.data.errors import DataError
from hypernet_tf.data.splits import Dataset, Split


def pad_to(dataset: Dataset, shape: tuple[int, int, int]) -> Dataset:
    """A data set whose images have a larger shape: black around them, grey ones in each channel.

    Zeros are shared out to both sides, the odd one below and to the right. MNIST's 28 x 28 x 1
    become 32 x 32 x 3 with 2 black pixels on each side and three equal channels.

    Args:
        dataset: images [M, h, w, c].
        shape: (H, W, C) that they shall have, H ≥ h, W ≥ w, and C = c unless c is 1.

    Returns:
        The data set with images [M, H, W, C], uint8, its `source` telling what was done; the same
        object if they have that shape already.

    Raises:
        DataError: they do not fit into the shape.

    Example:
        >>> from hypernet_tf.data import uniform_noise
        >>> colour = pad_to(uniform_noise(5, (28, 28, 1)), (32, 32, 3))
        >>> colour.test.images.shape, colour.source
        ((5, 32, 32, 3), 'independent uniform pixels, seed 0, padded to 32 x 32 x 3')
    """
    own = dataset.test.images.shape[1:]
    if own == tuple(shape):
        return dataset
    said = " x ".join(map(str, shape))
    missing = [wanted - there for wanted, there in zip(shape, own, strict=True)]
    if min(missing[:2]) < 0 or own[2] not in (1, shape[2]):
        raise DataError(
            f"images of {dataset.name} are {' x '.join(map(str, own))}, which does not fit into "
            f"{said}: use another data set or a network for such images"
        )
    around = [(0, 0), *((m // 2, m - m // 2) for m in missing[:2]), (0, 0)]

    def padded(split: Split) -> Split:
        images = np.pad(split.images, around)
        return Split(np.repeat(images, shape[2] // own[2], axis=3), split.labels)

    return dataclasses.replace(
        dataset,
        source=f"{dataset.source}, padded to {said}",
        train=padded(dataset.train),
        validation=padded(dataset.validation),
        test=padded(dataset.test),
    )
