"""Adversarial attacks on sampled networks: the fast gradient method on many networks at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.metrics.accuracy import majority_vote
from hypernet_tf.targets import Target, WeightSet

# Sizes of attacks in units of 1/255: 0, 2, ..., 58.
EPSILONS = np.arange(0, 60, 2)


def fast_gradient_method(
    target: Target,
    weights: WeightSet,
    x: tf.Tensor,
    classes: tf.Tensor,
    epsilons: Any,
    *,
    clip: tuple[float, float] | None = None,
) -> tf.Tensor:
    """Images for which a chosen class is more probable: x + eps · sign(d p(class) / d x).

    Args:
        target: Target with classes.
        weights: Weight set of N networks.
        x: Images [N, ...], one for each network.
        classes: Classes [N] that the attacks make more probable.
        epsilons: Sizes [E] of the attack, in the units of x.
        clip: Lowest and highest pixel, to which the images are clipped; None does not clip.

    Returns:
        Images [N, E, ...].

    Reference: "Explaining and Harnessing Adversarial Examples", arXiv 1412.6572; towards a chosen
    class as in "Adversarial Examples in the Physical World", arXiv 1607.02533.
    """
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_p = target.log_probabilities(target(weights, x[:, None]))[:, 0]  # [N, C]
        # The gradients of p and log p have the same sign, and that of log p does not underflow.
        chosen = tf.reduce_sum(tf.gather(log_p, classes, batch_dims=1))
    direction = tf.sign(tape.gradient(chosen, x))
    sizes = tf.reshape(tf.cast(epsilons, x.dtype), [-1, *[1] * (len(x.shape) - 1)])
    moved = x[:, None] + sizes * direction[:, None]
    return moved if clip is None else tf.clip_by_value(moved, *clip)


class NothingToAttackError(ValueError):
    """No image is classified correctly by its network."""


class AdversarialSuccess(NamedTuple):
    """Success of attacks as a function of their size; fractions of the attacked images.

    Attributes:
        epsilons: Sizes [E] of the attack, in units of 1/255.
        images: Number of images.
        attacked: Number of images that their network classifies correctly, which are attacked.
        network: Fraction [E] for which the attacked network's prediction is not the label.
        ensemble: Fraction [E] for which the vote of fresh networks is not the label; None without
            an ensemble.
        network_reached: Fraction [E] for which the attacked network predicts the chosen class.
        ensemble_reached: Fraction [E] for which the vote is the chosen class; None without an
            ensemble.
    """

    epsilons: np.ndarray
    images: int
    attacked: int
    network: np.ndarray
    ensemble: np.ndarray | None
    network_reached: np.ndarray
    ensemble_reached: np.ndarray | None


def adversarial_success(
    sample: Callable[[int, int], Ensemble],
    x: np.ndarray,
    y: np.ndarray,
    *,
    num_networks: int = 100,
    epsilons: np.ndarray = EPSILONS,
    clip: tuple[float, float] | None = None,
    batch_size: int = 32,
    seed: int = 0,
    verbose: int = 0,
) -> AdversarialSuccess:
    """How often an attack on one network misleads it, and an ensemble of fresh networks.

    Each image has a fresh network. If this network classifies the image correctly, the image is
    moved by eps/255 · sign of the gradient of the probability of a random wrong class. An ensemble
    of other fresh networks, sampled for each image, votes on the moved images (Deutsch et al.
    2019).

    Args:
        sample: Function (num_networks, seed) -> ensemble of so many networks.
        x: Images [M, ...], pixels in [0, 1].
        y: Labels [M], integers.
        num_networks: Number of networks in the ensembles that vote; 0 for no ensembles.
        epsilons: Sizes [E] of the attack, in units of 1/255.
        clip: Lowest and highest pixel, to which moved images are clipped; None, as published, does
            not clip.
        batch_size: Number of images that are attacked at once, each on a network of its own.
        seed: Seed of the wrong classes. Networks are sampled with this seed and the ones after it.
        verbose: 1 shows a progress bar.

    Raises:
        NothingToAttackError: No image is classified correctly.
        ValueError: The target returns values, not classes.

    Example:
        >>> sample = lambda num_networks, seed: hyper.sample(num_networks, seed=seed)
        >>> success = adversarial_success(sample, x_test[:100], y_test[:100])
        >>> success.network, success.ensemble
    """
    rng, seeds = np.random.default_rng(seed), itertools.count(seed)
    target = sample(1, next(seeds)).target
    num_classes = target.require_classes("an attack")
    wrong_classes = (y + rng.integers(1, num_classes, len(y))) % num_classes
    sizes = np.asarray(epsilons, np.float32) / 255

    @tf.function
    def attack(weights: WeightSet, images: tf.Tensor, classes: tf.Tensor) -> tuple:
        moved = fast_gradient_method(target, weights, images, classes, sizes, clip=clip)
        shown = tf.concat([images[:, None], moved], 1)  # [N, 1 + E, ...], the first one unchanged
        return moved, tf.argmax(target.log_probabilities(target(weights, shown)), -1)

    rows = []
    with tqdm(total=len(x), disable=not verbose, desc="attacked images", leave=False) as bar:
        for begin in range(0, len(x), batch_size):
            batch = slice(begin, begin + batch_size)
            labels, chosen = y[batch], wrong_classes[batch]
            attacked = sample(len(labels), next(seeds))
            moved, predictions = attack(
                attacked.weights, tf.constant(x[batch]), tf.constant(chosen)
            )
            for images, (unchanged, *others), label, aim in zip(
                moved, predictions.numpy(), labels, chosen, strict=True
            ):
                bar.update()
                if unchanged != label:
                    continue
                network = vote = np.array(others)  # [E]
                if num_networks:
                    log_p = sample(num_networks, next(seeds)).log_probabilities(images)
                    vote = majority_vote(log_p.argmax(-1), num_classes)
                rows.append((network != label, vote != label, network == aim, vote == aim))
    if not rows:
        raise NothingToAttackError(
            f"None of the {len(x)} images is classified correctly: train the networks further."
        )
    misled, ensemble_misled, reached, ensemble_reached = np.mean(rows, axis=0)
    return AdversarialSuccess(
        np.asarray(epsilons),
        len(x),
        len(rows),
        misled,
        ensemble_misled if num_networks else None,
        reached,
        ensemble_reached if num_networks else None,
    )
