"""Random changes to images that are trained on: a function of a seed, so that runs resume."""

from __future__ import annotations

import tensorflow as tf


def flip_and_crop(
    images: tf.Tensor,
    seed: tf.Tensor,
    *,
    first: int | tf.Tensor = 0,
    of: int | None = None,
    margin: int = 4,
    flip: bool = True,
) -> tf.Tensor:
    """Each image shifted, black coming in, and mirrored or not: its own choice at random.

    The image gets `margin` black pixels on each side; of that, a window of the image's size is
    taken at one of the (2 margin + 1)² places, all equally likely, and every other one is
    mirrored left to right. Every image of a batch has random numbers by its place in the whole
    batch, so that parts of a batch get what the whole one gets.

    Args:
        images: [B, H, W, C] of any type: a batch, or a part of one.
        seed: [2] integers: the whole batch's.
        first: the place of the first image in the whole batch.
        of: how many images the whole batch has; None if these are all.
        margin: how far an image may move, pixels.
        flip: whether to mirror. Digits and letters are other ones in a mirror, or none.

    Returns:
        [B, H, W, C] of the same type.

    Example:
        >>> images = tf.random.uniform([6, 32, 32, 3])
        >>> whole = flip_and_crop(images, [0, 7])
        >>> part = flip_and_crop(images[4:], [0, 7], first=4, of=6)
        >>> whole.shape, bool(tf.reduce_all(part == whole[4:]))
        (TensorShape([6, 32, 32, 3]), True)

    Reference:
        He, Zhang, Ren, Sun (2016), Deep residual learning for image recognition, section 4.2.
    """
    images = tf.convert_to_tensor(images)
    count, height, width, _ = images.shape
    places = 2 * margin + 1
    drawn = tf.random.stateless_uniform([of or count], seed, 0, 2 * places**2, tf.int32)
    variant = tf.slice(drawn, [first], [count])[:, None]  # one of all that an image can become
    down, right, mirrored = variant // (2 * places), variant // 2 % places, variant % 2
    rows, columns = tf.range(height), tf.range(width)
    if flip:
        columns = tf.where(mirrored == 1, columns[::-1], columns)
    moved = tf.gather(_framed(images, 1, margin), down + rows, batch_dims=1)
    return tf.gather(_framed(moved, 2, margin), right + columns, axis=2, batch_dims=1)


def _framed(images: tf.Tensor, axis: int, margin: int) -> tf.Tensor:
    """The images with `margin` black rows or columns on both sides."""
    shape = images.shape.as_list()
    shape[axis] = margin
    black = tf.zeros(shape, images.dtype)
    return tf.concat([black, images, black], axis)  # half the time of tf.pad on bytes
