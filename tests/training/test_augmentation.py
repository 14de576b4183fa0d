"""Images changed at random: the possible results, their probability, and the same in each run."""

import doctest
import shutil

import numpy as np
import pytest
import small_training_runs as training
import tensorflow as tf

from hypernet_tf.data import Split
from hypernet_tf.training import augmentation
from hypernet_tf.training.augmentation import flip_and_crop
from hypernet_tf.training.stream import batches

SEED = tf.constant([3, 8], tf.int64)


def photographs(count):
    rng = np.random.default_rng(0)
    return Split(rng.integers(1, 256, (count, 12, 10, 3), np.uint8), np.arange(count))


def variants(image, margin=4):
    """All possible results of an image: its bytes -> (down, right, mirrored)."""
    height, width, _ = image.shape
    padded = np.pad(image, [(margin, margin), (margin, margin), (0, 0)])
    results = {}
    for down in range(2 * margin + 1):
        for right in range(2 * margin + 1):
            window = padded[down : down + height, right : right + width]
            results[window.tobytes()] = (down, right, 0)
            results[window[:, ::-1].tobytes()] = (down, right, 1)
    assert len(results) == 2 * (2 * margin + 1) ** 2
    return results


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_each_image_becomes_one_of_its_own_variants(dtype):
    images = photographs(40).images.astype(dtype)
    changed = flip_and_crop(images, SEED)
    assert changed.dtype == dtype and changed.shape == images.shape
    places = [
        variants(image)[one.tobytes()] for image, one in zip(images, changed.numpy(), strict=True)
    ]
    assert len(set(places)) > 25  # each image its own: 35 of 162 expected


def test_all_variants_are_equally_likely():
    image = photographs(1).images
    many = flip_and_crop(np.repeat(image, 8_100, axis=0), SEED).numpy()
    known = variants(image[0])
    order = {place: number for number, place in enumerate(known.values())}
    counts = np.bincount([order[known[one.tobytes()]] for one in many], minlength=162)
    assert ((counts - 50) ** 2 / 50).sum() < 220  # chi-squared: 161 ± 18


def test_margin_and_mirror_may_be_chosen():
    images = photographs(60).images
    changed = flip_and_crop(images, SEED, margin=2, flip=False).numpy()
    places = [variants(a, 2)[b.tobytes()] for a, b in zip(images, changed, strict=True)]
    assert {place[2] for place in places} == {0}
    assert {place[0] for place in places} == {place[1] for place in places} == set(range(5))


def test_it_is_a_function_of_seed_and_position():
    images = photographs(12).images
    whole = flip_and_crop(images, SEED).numpy()
    np.testing.assert_array_equal(tf.function(flip_and_crop)(images, SEED), whole)
    parts = [flip_and_crop(images[k : k + 4], SEED, first=k, of=12) for k in (0, 4, 8)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    for other in ([3, 9], [4, 8]):
        assert not np.array_equal(flip_and_crop(images, other), whole)


def stream(split, count, **order):
    return [x.numpy() for x, _ in batches(split, batch_size=12, seed=5, **order).take(count)]


class TestStream:
    def test_without_it_the_images_are_as_they_were(self):
        split = photographs(30)
        for x, y in batches(split, batch_size=12, seed=5).take(4):
            np.testing.assert_array_equal(x, split.x[y.numpy()])  # a label is its image's place

    def test_images_keep_their_labels_and_their_order(self):
        split = photographs(30)
        plain = batches(split, batch_size=12, seed=5).take(4)
        changed = batches(split, batch_size=12, seed=5, augment=flip_and_crop).take(4)
        places = []
        for (x, y), (x_changed, y_changed) in zip(plain, changed, strict=True):
            np.testing.assert_array_equal(y, y_changed)
            assert x_changed.dtype == tf.float32 and x_changed.shape == x.shape
            for image, one in zip(split.images[y], x_changed.numpy(), strict=True):
                places.append(variants(image)[np.rint(one * 255).astype("uint8").tobytes()])
        assert len(set(places[:12])) > 8 and places[:12] != places[12:24]

    def test_a_later_start_continues(self):
        split = photographs(30)
        whole = stream(split, 6, augment=flip_and_crop)
        rest = stream(split, 3, first_step=3, augment=flip_and_crop)
        np.testing.assert_array_equal(whole[3:], rest)

    @pytest.mark.parametrize("owners", [[range(3)], [range(2), range(2, 3)]])
    def test_parts_are_what_one_device_sees(self, owners):
        split = photographs(30)
        whole = stream(split, 2, augment=flip_and_crop)
        for numbers in owners:
            parts = stream(split, 2 * len(numbers), parts=3, given=numbers, augment=flip_and_crop)
            for step in range(2):
                together = np.concatenate(parts[step * len(numbers) : (step + 1) * len(numbers)])
                np.testing.assert_array_equal(
                    together, whole[step][4 * numbers.start : 4 * numbers.stop]
                )


@pytest.mark.slow
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path):
    changed = []

    def augment(images, seed, **position):
        changed.append(images.dtype)
        return flip_and_crop(images, seed, **position)

    whole, _ = training.run(tmp_path, 3, augment=augment)
    (newest,) = tmp_path.glob("checkpoints/step-00000003")
    shutil.rmtree(newest)  # killed before it was written
    resumed, _ = training.run(tmp_path, 3, augment=augment)
    training.same_state(whole, resumed)
    assert set(changed) == {tf.uint8} and len(changed) >= 2


def test_example_of_the_docstring():
    assert tuple(doctest.testmod(augmentation)) == (0, 4)  # failed, attempted


def test_a_batch_of_unknown_size_is_changed_as_any_other():
    images = photographs(5).images
    spec = tf.TensorSpec([None, 12, 10, 3], tf.uint8)
    changed = tf.function(lambda x: flip_and_crop(x, SEED), input_signature=[spec])
    np.testing.assert_array_equal(changed(images), flip_and_crop(images, SEED))
