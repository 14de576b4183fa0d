"""Adversarial attacks on sampled networks, and their detection by an ensemble's uncertainty."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from hypernet_tf.checks import check_count
from hypernet_tf.ensembles.ensemble import Ensemble, require_ensemble, require_numbers
from hypernet_tf.ensembles.evaluation import integer_labels
from hypernet_tf.ensembles.examples import Examples, check_inputs
from hypernet_tf.ensembles.inference import examples_at_once
from hypernet_tf.metrics.accuracy import majority_vote, mean_log_probabilities
from hypernet_tf.metrics.ood import ood_metrics
from hypernet_tf.metrics.uncertainty import SCORES, Predictions, measure_uncertainty
from hypernet_tf.targets import Target, WeightSet

# Sizes of attacks: 0, 2, ..., 58 of 255 grey values.
EPSILONS = np.arange(0, 60, 2) / 255
# Pixels that are normalised, by mean and deviation, have no larger range.
_NORMALISED = 32.0


def fast_gradient_method(
    target: Target,
    weights: WeightSet,
    x: tf.Tensor,
    classes: tf.Tensor,
    epsilons: Any,
    *,
    clip: tuple[float, float] | None = None,
    temperature: float = 1.0,
) -> tf.Tensor:
    """Images for which a chosen class is more probable: x + eps · sign(d p(class) / d x).

    Args:
        target: Target with classes.
        weights: Weight set of N networks.
        x: Images [N, ...], one for each network.
        classes: Classes [N] that the attacks make more probable.
        epsilons: Sizes [E] of the attack, in the units of x.
        clip: Lowest and highest pixel, to which the images are clipped; None does not clip.
        temperature: That of the probabilities, see `Ensemble.calibrate`.

    Returns:
        Images [N, E, ...].

    Reference: "Explaining and Harnessing Adversarial Examples", arXiv 1412.6572; towards a chosen
    class as in "Adversarial Examples in the Physical World", arXiv 1607.02533.
    """
    target = target.with_logits
    with tf.GradientTape() as tape:
        tape.watch(x)
        (outputs,) = keras.tree.flatten(target(weights, x[:, None]))
        log_p = target.log_probabilities(outputs)[:, 0]  # [N, C]
        log_p = log_p if temperature == 1.0 else tf.nn.log_softmax(log_p / temperature)
        ascent = _with_the_gradient_of_p(log_p[None], classes)
    direction = tf.sign(tape.gradient(ascent, x))
    sizes = tf.reshape(tf.cast(epsilons, x.dtype), [-1, *[1] * (len(x.shape) - 1)])
    moved = x[:, None] + sizes * direction[:, None]
    return moved if clip is None else tf.clip_by_value(moved, *clip)


def _with_the_gradient_of_p(log_p: tf.Tensor, classes: Any) -> tf.Tensor:
    """Numbers [M] whose gradients have the signs of those of a class's mean probability.

    With the log odds o_n = log(p_n / (1 - p_n)) the gradient of the mean of p_n is the mean of
    p_n (1 - p_n) d o_n. That of o_n does not vanish in float32 where p_n rounds to 0 or 1, and the
    factors are needed only up to a common one for each example.

    Args:
        log_p: Log probabilities [N, M, C].
        classes: Classes [M].
    """
    is_chosen = tf.one_hot(classes, log_p.shape[-1], True, False, dtype=tf.bool)  # [M, C]
    lowest = tf.constant(-np.inf, log_p.dtype)
    chosen = tf.reduce_logsumexp(tf.where(is_chosen, log_p, lowest), -1)  # [N, M]
    others = tf.reduce_logsumexp(tf.where(is_chosen, lowest, log_p), -1)
    factors = tf.stop_gradient(tf.nn.softmax(chosen + others, 0))
    return tf.reduce_sum(factors * (chosen - others), 0)


def _images_and_labels(
    target: Target, x: Any, y: Any, clip: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Images as float32 [M, ...] and labels as integers [M], checked.

    Raises:
        ValueError: The target has no classes, images and labels do not fit together, or pixels are
            outside of the limits.
    """
    labels = functools.partial(integer_labels, num_classes=target.require_classes("an attack"))
    given = Examples(x, y, labels=labels).in_memory()
    if isinstance(given.x, (list, tuple, dict)):
        raise ValueError("An attack needs the images as one array [M, ...].")
    (spec,) = keras.tree.flatten(target.input_spec)
    if not spec.dtype.is_floating:
        raise ValueError(
            f"The target takes {spec.dtype.name}, which an attack cannot move by a gradient: give "
            "it a float input."
        )
    images = np.asarray(given.x, np.float32)
    check_inputs(images)
    if clip is not None:
        if not clip[0] < clip[1]:
            raise ValueError(f"clip is {clip}: give the lowest pixel, then the highest.")
        if images.min() < clip[0] or images.max() > clip[1]:
            raise ValueError(
                f"Pixels run from {images.min():g} to {images.max():g}, outside of clip={clip}: "
                "give the lowest and the highest pixel of your images, or None."
            )
    return images, given.y


class NothingToAttackError(ValueError):
    """No image is classified correctly by its network."""


class AdversarialSuccess(NamedTuple):
    """Success of attacks as a function of their size; fractions of the attacked images.

    Attributes:
        epsilons: Sizes [E] of the attack, in the units of the images.
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
    moved by eps · sign of the gradient of the probability of a random wrong class. An ensemble
    of other fresh networks, sampled for each image, votes on the moved images (Deutsch et al.
    2019).

    Args:
        sample: Function (num_networks, seed) -> ensemble of so many networks.
        x: Images [M, ...], pixels in [0, 1].
        y: Labels, integers [M] or one-hot rows.
        num_networks: Number of networks in the ensembles that vote; 0 for no ensembles.
        epsilons: Sizes [E] of the attack, in the units of x.
        clip: Lowest and highest pixel, to which moved images are clipped; None, as published, does
            not clip.
        batch_size: Number of images that are attacked at once, each on a network of its own.
        seed: Seed of the wrong classes. Networks are sampled with this seed and the ones after it.
        verbose: 1 shows a progress bar.

    Raises:
        NothingToAttackError: No image is classified correctly.
        ValueError: The target returns values, not classes; eps is negative, not finite, or more
            than the range of the pixels; images, labels and limits do not fit together; or networks
            return NaN.

    Example:
        >>> sample = lambda num_networks, seed: hyper.sample(num_networks, seed=seed)
        >>> success = adversarial_success(sample, x_test[:100], y_test[:100])
        >>> success.network, success.ensemble
    """
    if isinstance(sample, (Ensemble, keras.Model)) or not callable(sample):
        raise ValueError(
            "An attack samples networks itself: give a function, "
            "lambda count, seed: sampler.sample(count, seed=seed)."
        )
    rng, seeds = np.random.default_rng(seed), itertools.count(seed)
    target = sample(1, next(seeds)).target
    x, y = _images_and_labels(target, x, y, clip)
    if clip is None and np.ptp(x) > _NORMALISED:
        raise ValueError(
            f"Pixels are from {x.min():g} to {x.max():g}: give clip, their range, and sizes in "
            "their units; or pixels from 0 to 1."
        )
    num_classes = target.require_classes("an attack")
    wrong_classes = (y + rng.integers(1, num_classes, len(y))) % num_classes
    epsilons = _checked_sizes("epsilons", epsilons, _pixel_range(clip or (0.0, 1.0)))
    sizes = epsilons.astype(np.float32)
    check_count("batch_size", batch_size)
    check_count("num_networks", num_networks, least=0)

    @tf.function(autograph=False)
    def attack(
        weights: WeightSet, images: tf.Tensor, classes: tf.Tensor, temperature: float
    ) -> tuple:
        moved = fast_gradient_method(
            target, weights, images, classes, sizes, clip=clip, temperature=temperature
        )
        shown = tf.concat([images[:, None], moved], 1)  # [N, 1 + E, ...], the first one unchanged
        (outputs,) = keras.tree.flatten(target(weights, shown))
        return moved, target.log_probabilities(outputs)

    rows = []
    with tqdm(total=len(x), disable=not verbose, desc="attacked images", leave=False) as bar:
        for begin in range(0, len(x), batch_size):
            batch = slice(begin, begin + batch_size)
            labels, chosen = y[batch], wrong_classes[batch]
            attacked = sample(len(labels), next(seeds))
            attacked.check_batch_norm()
            images = tf.constant(x[batch])
            moved, log_p = attack(
                attacked.weights, images, tf.constant(chosen), attacked.temperature
            )
            require_numbers(log_p.numpy(), x[batch], logits="logits" in target.outputs)
            predictions = log_p.numpy().argmax(-1)
            for shown, (unchanged, *others), label, aim in zip(
                moved, predictions, labels, chosen, strict=True
            ):
                bar.update()
                if unchanged != label:
                    continue
                network = vote = np.array(others)  # [E]
                if num_networks:
                    log_p = sample(num_networks, next(seeds)).log_probabilities(shown)
                    vote = majority_vote(log_p.argmax(-1), num_classes)
                rows.append((network != label, vote != label, network == aim, vote == aim))
    if not rows:
        raise NothingToAttackError(
            f"None of the {len(x)} images is classified correctly: train the networks further."
        )
    misled, ensemble_misled, reached, ensemble_reached = np.mean(rows, axis=0)
    return AdversarialSuccess(
        epsilons,
        len(x),
        len(rows),
        misled,
        ensemble_misled if num_networks else None,
        reached,
        ensemble_reached if num_networks else None,
    )


Networks = Ensemble | Callable[[int], Ensemble]
"""The networks that are attacked: the same in each step, or a function of the step's number."""


def projected_gradient(
    networks: Networks,
    x: np.ndarray,
    classes: np.ndarray,
    epsilon: float,
    *,
    steps: int = 10,
    step_size: float | None = None,
    random_start: bool = True,
    targeted: bool = False,
    clip: tuple[float, float] | None = (0.0, 1.0),
    batch_size: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """Images at most eps away on which the mean prediction of the networks is worse.

        x <- clip(project(x + step_size · sign(d -log p(class) / d x))),  p = 1/N sum_n p_n

    The projection keeps each pixel within eps of the original. `steps=1, step_size=epsilon,
    random_start=False` is the fast gradient method. One network is an ensemble of one. HyperGAN's
    protocol is a function that samples a new network for each step.

    Args:
        networks: Ensemble, or function of the step's number (0, 1, ...) -> ensemble.
        x: Images [M, ...].
        classes: Classes [M]: the labels, which become less probable; or the classes that become
            more probable if `targeted`.
        epsilon: Size of the attack, in the units of x.
        steps: Number of steps.
        step_size: Length of a step, in the units of x; 2.5 · eps / steps by default.
        random_start: Whether the first images are drawn uniformly at most eps away.
        targeted: Whether `classes` are to be reached.
        clip: Lowest and highest pixel; None does not clip.
        batch_size: Number of images that are attacked at once; None for up to 100, so that the
            activations of all networks stay under 1 GiB.
        seed: Seed of the random start.

    Raises:
        ValueError: eps is negative, not finite, or more than the range of the pixels; another
            option is out of range; images, classes and limits do not fit together; or networks
            return NaN.

    Example:
        >>> moved = projected_gradient(hyper.sample(10), x_test, y_test, 0.1)
        >>> fresh = lambda step: hyper.sample(1, seed=step)
        >>> moved = projected_gradient(fresh, x_test, y_test, 0.1, steps=100)

    Reference: "Towards Deep Learning Models Resistant to Adversarial Attacks", arXiv 1706.06083;
    Ratzlaff and Fuxin (2019), adversarial experiments.
    """
    check_count("steps", steps)
    if batch_size is not None:
        check_count("batch_size", batch_size)
    if step_size is not None and not 0 <= step_size < float("inf"):
        raise ValueError(f"step_size is {step_size}: give a number of at least 0, or None.")
    sign = 1.0 if targeted else -1.0
    at = _networks_at(networks)
    target = at(0).target
    x, classes = _images_and_labels(target, x, classes, clip)
    epsilon = float(_checked_sizes("epsilon", epsilon, _pixel_range(clip), ndim=0)[0])
    length = 2.5 * epsilon / steps if step_size is None else step_size
    rng = np.random.default_rng(seed)
    shift = rng.uniform(-epsilon, epsilon, x.shape) if random_start else np.zeros(x.shape)
    moved = (x + shift).astype("float32")
    limits = (-np.inf, np.inf) if clip is None else clip
    moved = np.clip(moved, *limits)

    def direction(ensemble: Ensemble, images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(images)
            # The compiled target keeps its graph and its gradient for the next attack.
            (outputs,) = keras.tree.flatten(ensemble.target.compiled(ensemble.weights, images)[0])
            log_p = ensemble.log_probabilities_of(outputs)  # [N, b, C]
            ascent = _with_the_gradient_of_p(log_p, chosen)
        of_logits = "logits" in ensemble.target.outputs
        require_numbers(log_p.numpy(), images.numpy(), logits=of_logits)
        return tf.sign(tape.gradient(ascent, images))

    for step in range(steps):
        given = at(step)
        given.check_batch_norm()
        ensemble = Ensemble(
            given.target.with_logits,
            given.weights,
            batch_norm_updated=True,
            temperature=given.temperature,
        )
        activations = target.activations_per_example(x)
        size = batch_size or min(100, examples_at_once(activations, len(ensemble)))
        for begin in range(0, len(x), size):
            part = slice(begin, begin + size)
            towards = direction(ensemble, tf.constant(moved[part]), tf.constant(classes[part]))
            images = moved[part] + sign * length * towards.numpy()
            near = np.clip(images, x[part] - epsilon, x[part] + epsilon)
            moved[part] = np.clip(near, *limits)
    return moved


def _networks_at(networks: Networks) -> Callable[[int], Ensemble]:
    """The ensemble that a step attacks.

    Raises:
        ValueError: Networks are neither an ensemble nor a function, but a sampler, for example.
    """
    if isinstance(networks, Ensemble):
        return lambda step: networks
    if isinstance(networks, keras.Model) or not callable(networks):
        require_ensemble(networks, "An attack")
    return networks


def _checked_sizes(name: str, sizes: Any, most: float, ndim: int = 1) -> np.ndarray:
    """Sizes of attacks, or a single one, as an array [E].

    Raises:
        ValueError: One is not a number, is negative, or is more than the range of the pixels.
    """
    try:
        checked = np.asarray(sizes, float)
    except (TypeError, ValueError):
        checked = np.array(np.nan)
    if checked.ndim > ndim or not (np.isfinite(checked) & (checked >= 0)).all():
        raise ValueError(f"{name} is {sizes!r}: give the size of the attack, 0 or more.")
    if checked.max(initial=0.0) > most:
        raise ValueError(
            f"{name} is {sizes!r}, more than the range of the pixels, {most:g}: give sizes in "
            "their units."
        )
    return np.atleast_1d(checked)


def _pixel_range(clip: tuple[float, float] | None) -> float:
    return np.inf if clip is None else clip[1] - clip[0]


class AttackDetection(NamedTuple):
    """What attacks do, and whether the uncertainty of an ensemble gives them away.

    Attributes:
        epsilons: Sizes [E] of the attacks, in the units of x.
        images: Number of images.
        attacked: Number of images that the attacked networks classify correctly; the others are
            skipped.
        misled: Fraction [E] of the attacked images that the attacked networks then classify
            wrongly; networks that are sampled for each step are sampled anew.
        judge_misled: Fraction [E] that the judge classifies wrongly, `judge_wrong` before.
        auroc: Name of a score of `Uncertainty` -> area under ROC [E] of attacked against clean
            images by the judge's score; 0.5 is chance.
        judge_wrong: Fraction of the same images that the judge classifies wrongly before they are
            attacked: what `judge_misled` is without an effect.
    """

    epsilons: np.ndarray
    images: int
    attacked: int
    misled: np.ndarray
    judge_misled: np.ndarray
    auroc: dict[str, np.ndarray]
    judge_wrong: float


def attack_detection(
    networks: Networks,
    judge: Ensemble,
    x: np.ndarray,
    y: np.ndarray,
    epsilons: Any,
    *,
    steps: int = 10,
    seed: int = 0,
    **attack: Any,
) -> AttackDetection:
    """Attack networks, and ask an ensemble what it makes of the images.

    Args:
        networks: Networks that are attacked, see `projected_gradient`: a member of the judge, the
            judge itself, or networks sampled anew in each step.
        judge: Ensemble that classifies the images, by its mean probability, and says how sure it
            is.
        x: Images [M, ...].
        y: Labels, integers [M] or one-hot rows.
        epsilons: Sizes [E] of the attacks, in the units of x.
        steps: Number of steps of an attack.
        seed: Seed of the random starts.
        **attack: Other options of `projected_gradient`, except `targeted`: attacks lead away from
            the labels.

    Raises:
        NothingToAttackError: The networks classify no image correctly.
        ValueError: An option is out of range.

    Example:
        >>> judge = hyper.sample(100, seed=1)
        >>> result = attack_detection(judge[0], judge, x_test[:500], y_test[:500], [0.01, 0.1])
        >>> result.misled, result.auroc["entropy"]

    Reference: Ratzlaff and Fuxin (2019), adversarial experiments.
    """
    if "targeted" in attack:
        raise ValueError("Attacks lead away from the labels here: leave out targeted.")
    require_ensemble(judge, "Judging")
    at = _networks_at(networks)
    clip = attack.get("clip", (0.0, 1.0))
    x, y = _images_and_labels(judge.target, x, y, clip)
    sizes = _checked_sizes("epsilons", epsilons, _pixel_range(clip))
    correct = at(0).mean_log_probabilities(x).argmax(-1) == y
    if not correct.any():
        raise NothingToAttackError(
            f"None of the {len(x)} images is classified correctly: train the networks further."
        )
    x, y = x[correct], y[correct]
    # One network has no uncertainty by scores of disagreement.
    unmoved = judge.predictions(x)
    known = {
        name: scores
        for name, scores in measure_uncertainty([unmoved]).scores.items()
        if len(judge) >= SCORES[name].min_networks
    }

    def wrong(judged: Predictions) -> float:
        return float((mean_log_probabilities(judged.log_probabilities).argmax(-1) != y).mean())

    misled, judge_misled = [], []
    auroc: dict[str, list[float]] = {name: [] for name in known}
    for epsilon in sizes:
        moved = projected_gradient(networks, x, y, epsilon, steps=steps, seed=seed, **attack)
        misled.append((at(steps).mean_log_probabilities(moved).argmax(-1) != y).mean())
        judged = judge.predictions(moved)
        judge_misled.append(wrong(judged))
        attacked = measure_uncertainty([judged]).scores
        for name, areas in auroc.items():
            areas.append(ood_metrics(known[name], attacked[name]).auroc)
    return AttackDetection(
        sizes,
        len(correct),
        len(x),
        np.array(misled),
        np.array(judge_misled),
        {name: np.array(areas) for name, areas in auroc.items()},
        wrong(unmoved),
    )
