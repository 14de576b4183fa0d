"""Distillation: one network that stands for an ensemble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.ensembles.examples import arrays
from hypernet_tf.ensembles.ensemble import Ensemble
from hypernet_tf.targets import Target, WeightSet
from hypernet_tf.targets.filters import seeded
from hypernet_tf.targets.graph import functional

TEACHERS = ("mean", "votes")
_LEAST_PROBABILITY = np.finfo(np.float32).tiny


def distill(
    ensemble: Ensemble,
    x: Any,
    *,
    teacher: str = "mean",
    student: Target | keras.Model | Ensemble | None = None,
    temperature: float = 1.0,
    epochs: int = 10,
    batch_size: int = 128,
    optimizer: Any = "adam",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    seed: int = 0,
    verbose: int = 0,
) -> keras.Model:
    """Train one network to answer as the ensemble does.

    Of classes it minimises, averaged over examples, T² times the cross-entropy

        -sum_c q_c log s_c,   q = softmax(log p / T),   s = softmax(log p_student / T),

    where p is the ensemble's mean probability and T the temperature: T² times the Kullback-Leibler
    divergence of s from q, and a constant, the entropy of q. By votes, q is one for the class with
    most votes. Of values it minimises the mean squared error to the ensemble's mean.

    Keras's own `fit` trains it, so batch norm and dropout act as in any Keras model. The result is
    a function of the arguments; callbacks see the model that is trained.

    Args:
        ensemble: the teacher.
        x: inputs [M, ...]. No labels are needed: they may be more than the training images.
        teacher: "mean", the mean probabilities (the mean values, for regression), or "votes".
        student: what is trained. None is a network of the ensemble's target, with new weights; a
            `Target` or a Keras model, which is copied, one of that architecture, with new weights.
            Of classes, a model without softmax at its end returns logits. An ensemble of one, such
            as `ensemble.polyak_average(x)`, starts from its weights and state.
        temperature: T > 0; higher ones show more of how the unlikely classes compare.
        epochs: how often each example is seen.
        batch_size: examples per step.
        optimizer: a Keras optimizer, which is copied, or its name.
        callbacks: of Keras, for `fit`: `keras.callbacks.History()` keeps the losses.
        seed: of initial weights, dropout and the order of examples; not negative.
        verbose: 1 shows progress.

    Returns:
        An ordinary Keras model, not compiled.

    Raises:
        ValueError: votes, or a temperature, where there are no probabilities; a student whose
            answers are of another kind; a setting out of range; no examples.

    Example:
        >>> student = distill(ensemble, x_train, epochs=20)
        >>> Ensemble.from_keras(ensemble.target, student).evaluate(x_test, y_test).member_accuracy

    Reference: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network",
    arXiv 1503.02531.
    """
    _check(ensemble.target, teacher, temperature, epochs=epochs, batch_size=batch_size, seed=seed)
    target, network = _student(student, ensemble, seed)
    inputs, size = arrays(x)
    if teacher == "votes":
        votes = ensemble.majority_vote(inputs, verbose=verbose)
        answers = tf.one_hot(votes, ensemble.target.classes)
    else:
        (answers,) = keras.tree.flatten(ensemble.predict(inputs, verbose=verbose))
        if target.classes is not None:
            answers = soft_targets(answers, temperature)
    inputs = tuple(inputs) if isinstance(inputs, list) else inputs  # tf.data stacks a list
    examples = tf.data.Dataset.from_tensor_slices((inputs, answers))
    optimizer = keras.optimizers.get(optimizer)
    trained = functional(network)  # the same layers: the network itself stays as it is, uncompiled
    trained.compile(
        optimizer=type(optimizer).from_config(optimizer.get_config()),
        loss="mse" if target.classes is None else soft_cross_entropy(target, temperature),
    )
    trained.fit(
        examples.shuffle(size, seed=seed).batch(batch_size).prefetch(1),
        epochs=epochs,
        shuffle=False,  # the data set does it, by the seed
        callbacks=list(callbacks),
        verbose=verbose,
    )
    return network


def soft_targets(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Probabilities at a temperature, q_c = p_c^(1/T) / sum_k p_k^(1/T), [..., C].

    Args:
        probabilities: [..., C], or [..., 1] of the second of two classes.
        temperature: T.
    """
    p = np.asarray(probabilities, np.float32)
    if p.shape[-1] == 1:
        p = np.concatenate([1 - p, p], -1)
    return tf.nn.softmax(np.log(np.maximum(p, _LEAST_PROBABILITY)) / temperature).numpy()


def soft_cross_entropy(target: Target, temperature: float) -> Callable[[Any, Any], tf.Tensor]:
    """A Keras loss (q, outputs) -> [...]: T² times the cross-entropy of q and a network's answers.

    The gradient of a cross-entropy at temperature T falls as 1/T², so T² keeps its size.

    Args:
        target: what the network's outputs [..., C] mean.
        temperature: T, at which q [..., C] is.
    """

    def loss(q: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        log_s = tf.nn.log_softmax(target.log_probabilities(outputs) / temperature)
        return -(temperature**2) * tf.reduce_sum(q * log_s, -1)

    return loss


def _check(target: Target, teacher: str, temperature: float, **settings: int) -> None:
    if teacher not in TEACHERS:
        raise ValueError(f"teacher is one of {', '.join(TEACHERS)}; not {teacher!r}")
    for name, value in settings.items():
        least = 0 if name == "seed" else 1
        if value < least:
            raise ValueError(f"{name} is at least {least}, not {value}")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"a temperature is a finite number above 0, not {temperature}")
    if len(keras.tree.flatten(target.plan.outputs)) != 1:
        raise ValueError("distillation needs a target with one output")
    if target.classes is None and teacher == "votes":
        raise ValueError("votes need classes, but the target returns values: teacher='mean'")
    if temperature != 1 and (target.classes is None or teacher == "votes"):
        raise ValueError("a temperature softens probabilities; votes and values have none")


def _student(student: Any, ensemble: Ensemble, seed: int) -> tuple[Target, keras.Model]:
    """What the student's outputs mean, and the student before training."""
    if isinstance(student, Ensemble):
        if len(student) != 1:
            raise ValueError(f"a student is one network, not the {len(student)} given: student[0]")
        target, weights = student.target, student.weights
    else:
        target = ensemble.target if student is None else student
        if not isinstance(target, Target):
            target = Target(target)
            if ensemble.target.classes is not None and target.outputs == "values":
                target = Target(student, outputs="logits")
        weights = _new_weights(target, seed)
    answers, expected = _answers(target), _answers(ensemble.target)
    if answers != expected:
        raise ValueError(f"the student returns {answers}, the ensemble {expected}")
    return target, target.to_keras(weights)


def _answers(target: Target) -> str:
    shapes = [target.plan.shapes[ref] for ref in keras.tree.flatten(target.plan.outputs)]
    if len(shapes) != 1 or target.classes is None:
        return f"values {', '.join(str(list(shape)) for shape in shapes)}"
    return f"probabilities {[*shapes[0][:-1], target.classes]}"


def _new_weights(target: Target, seed: int) -> WeightSet:
    """One network's weights, as the layers' initializers make them."""
    slots = sorted((s for layer in target.layers for s in layer.slots), key=lambda s: s.index)
    tensors = [seeded(slot.initializer, seed, 0, slot.index)(slot.shape) for slot in slots]
    return WeightSet(
        [tf.convert_to_tensor(t)[None] for t in tensors], target.initial_state(1, (seed, 0))
    )
