"""Attacks against gradients of ordinary Keras models, network by network, image by image."""

import numpy as np
import pytest
import tensorflow as tf
from random_networks import random_images, random_networks, small_target

import hypernet_tf as hn
from hypernet_tf.analysis import NothingToAttackError, adversarial_success, fast_gradient_method
from hypernet_tf.analysis.attacks import EPSILONS


@pytest.mark.parametrize("outputs", ["logits", "probabilities"])
def test_images_move_by_the_sign_of_the_gradient_of_the_class_probability(outputs):
    target = small_target(outputs)
    ensemble, (x, _) = random_networks(3, 4, target), random_images(3)
    classes, sizes = np.array([0, 2, 1]), np.array([0.0, 0.02, 0.1], "float32")
    moved = fast_gradient_method(target, ensemble.weights, tf.constant(x), classes, sizes)
    for index, (image, chosen) in enumerate(zip(x, classes, strict=True)):
        model = ensemble[index].to_keras()
        point = tf.constant(image[None])
        with tf.GradientTape() as tape:
            tape.watch(point)
            answer = model(point)
            p = tf.nn.softmax(answer) if outputs == "logits" else answer
            likely = p[0, chosen]
        sign = np.sign(tape.gradient(likely, point)[0])
        for size, result in zip(sizes, moved[index], strict=True):
            np.testing.assert_allclose(result, image + size * sign, atol=1e-6)


def test_the_chosen_class_becomes_more_probable():
    target = small_target()
    ensemble, (x, _) = random_networks(8, 4, target), random_images(8)
    classes = np.arange(8) % 3
    sizes = np.array([0.0, 0.005], "float32")
    moved = fast_gradient_method(target, ensemble.weights, tf.constant(x), classes, sizes)
    p = tf.nn.softmax(target(ensemble.weights, moved)).numpy()  # [N, E, C]
    chosen = np.take_along_axis(p, classes[:, None, None], -1)[..., 0]
    assert (chosen[:, 1] >= chosen[:, 0] - 1e-6).all()
    assert (chosen[:, 1] > chosen[:, 0]).mean() > 0.5


def test_success_equals_a_loop_over_ordinary_keras_models():
    target, (x, y) = small_target(), random_images(24)
    drawn = {}

    def sample(count, seed):
        drawn.setdefault(seed, (count, random_networks(count, seed, target)))
        assert drawn[seed][0] == count
        return drawn[seed][1]

    sizes = np.array([0, 10, 60])
    success = adversarial_success(
        sample, x, y, num_networks=7, epsilons=sizes, batch_size=10, seed=50, clip=(0.0, 1.0)
    )
    # The same draws, network by network, image by image.
    wrong = (y + np.random.default_rng(50).integers(1, 3, 24)) % 3
    assert (wrong != y).all()
    rows, seed = [], 51
    for begin in range(0, 24, 10):
        attackers = drawn[seed][1]
        seed += 1
        for network, index in enumerate(range(begin, min(begin + 10, 24))):
            model, image = attackers[network].to_keras(), tf.constant(x[index : index + 1])
            if model(image).numpy().argmax() != y[index]:
                continue
            with tf.GradientTape() as tape:
                tape.watch(image)
                likely = tf.nn.softmax(model(image))[0, wrong[index]]
            sign = np.sign(tape.gradient(likely, image))
            voters = [member.to_keras() for member in drawn[seed][1]]
            seed += 1
            for size in sizes:
                shown = np.clip(x[index] + size / 255 * sign, 0, 1).astype("float32")
                prediction = model(shown).numpy().argmax()
                votes = np.bincount([v(shown).numpy().argmax() for v in voters], minlength=3)
                answers = prediction, votes.argmax()
                rows.append([a != y[index] for a in answers] + [a == wrong[index] for a in answers])
    rows = np.array(rows).reshape(-1, 3, 4)
    assert success.images == 24
    assert success.attacked == len(rows) > 3
    np.testing.assert_allclose(success.network, rows[..., 0].mean(0))
    np.testing.assert_allclose(success.ensemble, rows[..., 1].mean(0))
    np.testing.assert_allclose(success.network_reached, rows[..., 2].mean(0))
    np.testing.assert_allclose(success.ensemble_reached, rows[..., 3].mean(0))
    assert success.network[0] == 0
    assert success.network[-1] > 0.2
    assert success.ensemble[0] > 0  # other networks may be wrong without an attack


def test_one_network_without_an_ensemble():
    target, (x, y) = small_target(), random_images(12)
    success = adversarial_success(
        lambda count, seed: random_networks(count, 3, target), x, y, num_networks=0, batch_size=1
    )
    assert success.ensemble is None
    assert success.network.shape == EPSILONS.shape == (30,)
    assert EPSILONS[-1] == 58


def test_mistakes_raise():
    x, y = random_images(4)
    with pytest.raises(ValueError, match=r"^an attack needs classes"):
        adversarial_success(
            lambda count, seed: random_networks(count, seed, small_target("values")), x, y
        )
    constant = small_target()
    zeros = constant.unflatten(tf.zeros([1, constant.weight_count]))
    with pytest.raises(
        NothingToAttackError, match=r"^None of the 4 images is classified correctly: train"
    ):
        adversarial_success(lambda *_: hn.Ensemble(constant, zeros), x, np.full(4, 2), batch_size=1)
