"""Adversarial images for sampled networks: the fast gradient method on many networks at once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tqdm import tqdm

from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.metrics import accuracy as metrics
from hypernet_tf.targets import Target, WeightSet

# Units of a pixel's 1/255: 0, 2, ..., 58.
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
    """Images changed so that a class becomes more likely: x + eps · sign(d p(class) / d x).

    Args:
        target: a target of classes.
        weights: of N networks.
        x: [N, ...], one image for each network.
        classes: [N], the class that each attack makes more likely.
        epsilons: [E], in the units of x.
        clip: lowest and highest pixel, to which the images are clipped; None leaves them.

    Returns:
        [N, E, ...].

    Reference: "Explaining and Harnessing Adversarial Examples", arXiv 1412.6572; towards a chosen
    class as in "Adversarial Examples in the Physical World", arXiv 1607.02533.
    """
    with tf.GradientTape() as tape:
        tape.watch(x)
        log_p = target.log_probabilities(target(weights, x[:, None]))[:, 0]  # [N, C]
        # The gradients of p and log p have the same sign, and that of log p does not underflow.
        chosen = tf.reduce_sum(tf.gather(log_p, classes, batch_dims=1))
    direction = tf.sign(tape.gradient(chosen, x))
    steps = tf.reshape(tf.cast(epsilons, x.dtype), [-1, *[1] * (len(x.shape) - 1)])
    changed = x[:, None] + steps * direction[:, None]
    return changed if clip is None else tf.clip_by_value(changed, *clip)


class NothingToAttackError(ValueError):
    """No image is classified rightly by the network that it meets."""


class AdversarialSuccess(NamedTuple):
    """Success of attacks against their size; fractions of the attacked images.

    Attributes:
        epsilons: [E], in units of 1/255.
        images: how many images were looked at.
        attacked: how many of them the network classified rightly: the denominator.
        network: [E] the attacked network's prediction is not the true label.
        ensemble: [E] nor is that of an ensemble of fresh networks; None without one.
        network_reached: [E] the attacked network's prediction is the class aimed at.
        ensemble_reached: [E] that of the ensemble is; None without one.
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
    at_once: int = 32,
    seed: int = 0,
    verbose: int = 0,
) -> AdversarialSuccess:
    """How often an attack on one network misleads it, and a fresh ensemble (Deutsch et al. 2019).

    Each image meets a fresh network; if this classifies it rightly, the image is moved by
    eps/255 · sign of the gradient of the probability of a random wrong class. The same moved images
    are shown to an ensemble of fresh networks, new for each image, which votes.

    Args:
        sample: (count, seed) -> ensemble of `count` networks.
        x: images [M, ...], pixels in [0, 1].
        y: labels [M], integers.
        num_networks: size of the ensembles; 0 for none.
        epsilons: [E], sizes of the attack in units of 1/255.
        clip: lowest and highest pixel, to which moved images are clipped; None, as published, does
            not clip.
        at_once: how many images are attacked at once, each by a network of its own.
        seed: of the wrong classes; networks are sampled with seeds from this number on.
        verbose: 1 shows a progress bar.

    Raises:
        NothingToAttackError: no image is classified rightly.
        ValueError: the target returns values, not classes.
    """
    rng, seeds = np.random.default_rng(seed), itertools.count(seed)
    first = sample(1, next(seeds))
    target, classes = first.target, first.target.classes
    if classes is None:
        raise ValueError("attacks need a target of classes")
    wrong = (y + rng.integers(1, classes, len(y))) % classes
    sizes = np.asarray(epsilons, np.float32) / 255

    @tf.function
    def attack(weights: WeightSet, images: tf.Tensor, chosen: tf.Tensor) -> tuple:
        moved = fast_gradient_method(target, weights, images, chosen, sizes, clip=clip)
        shown = tf.concat([images[:, None], moved], 1)
        answers = target.log_probabilities(target(weights, shown))
        return moved, tf.argmax(answers, -1)  # [N, 1 + E], the first unchanged

    rows = []
    with tqdm(total=len(x), disable=not verbose, desc="attacked images", leave=False) as bar:
        for begin in range(0, len(x), at_once):
            part = slice(begin, begin + at_once)
            labels, aims = y[part], wrong[part]
            attackers = sample(len(labels), next(seeds))
            moved, own = attack(attackers.weights, tf.constant(x[part]), tf.constant(aims))
            for images, answers, label, aim in zip(moved, own.numpy(), labels, aims, strict=True):
                bar.update()
                unchanged, answers = answers[0], answers[1:]
                if unchanged != label:
                    continue
                votes = answers
                if num_networks:
                    members = sample(num_networks, next(seeds))
                    choices = members.log_probabilities(images).argmax(-1)  # [N, E]
                    votes = metrics.majority_vote(choices, classes)
                rows.append((answers != label, votes != label, answers == aim, votes == aim))
    if not rows:
        raise NothingToAttackError(f"none of the {len(x)} images is classified rightly")
    network, ensemble, reached, ensemble_reached = np.mean(rows, axis=0)
    return AdversarialSuccess(
        np.asarray(epsilons),
        len(x),
        len(rows),
        network,
        ensemble if num_networks else None,
        reached,
        ensemble_reached if num_networks else None,
    )
