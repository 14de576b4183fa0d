"""Distillation: one network that is trained to predict as an ensemble does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.checks import check_count, check_number
from hypernet_tf.ensembles.ensemble import Ensemble, require_ensemble, require_weights_only
from hypernet_tf.ensembles.examples import Examples
from hypernet_tf.targets import Target, WeightSet
from hypernet_tf.targets.filters import seeded
from hypernet_tf.targets.graph import functional
from hypernet_tf.targets.outputs import Outputs


def distill(
    ensemble: Ensemble,
    x: Any,
    *,
    sample_weight: Any = None,
    soft_targets: bool = True,
    student: Target | keras.Model | Ensemble | None = None,
    temperature: float = 1.0,
    epochs: int = 10,
    batch_size: int = 128,
    optimizer: Any = "adam",
    augment: Callable[[Any, tf.Tensor], Any] | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    seed: int = 0,
    verbose: int = 0,
) -> keras.Model:
    """Train one network to predict as the ensemble does.

    For classes the loss is the mean over examples of T² times the cross-entropy

        -sum_c q_c log s_c,   q = softmax(log p / T),   s = softmax(log p_student / T),

    where p is the ensemble's mean probability and T the temperature. It equals T² times the
    Kullback-Leibler divergence of s from q plus a constant, the entropy of q. Without soft targets,
    q is 1 for the class of the majority vote. For values the loss is the mean squared error to the
    mean of the ensemble.

    Keras's `fit` trains the student, so batch norm and dropout work as in any Keras model. Only a
    Keras model or a `Target` as the student adds the penalties of its regularizers. The result is a
    function of the arguments; callbacks get the model that is trained.

    Args:
        ensemble: Ensemble that teaches.
        x: Inputs [M, ...]; or a `tf.data.Dataset` or a `keras.utils.PyDataset`, see `Ensemble`,
            which is read once into memory. No labels are needed, so these may be more than the
            training images; labels of a data set are not used.
        sample_weight: Sample weights [M], at least 0, of the losses; None for equal weights or a
            data set, whose batches may hold them.
        soft_targets: Whether the student learns the mean probabilities (the mean values, for
            regression); False for the majority votes.
        student: Network that is trained. None is a network of the ensemble's target with new
            weights; a `Target` or a Keras model, which is copied, is a network of that architecture
            with new weights. For classes, a model without a softmax at its end returns logits. For
            an ensemble of one, such as `ensemble.polyak_average(x)`, training starts from its
            weights and state.
        temperature: T > 0; a higher one gives more weight to the probabilities of unlikely classes.
        epochs: Number of epochs.
        batch_size: Number of examples in a step.
        optimizer: Keras optimizer, which is copied, or its name.
        augment: Function (inputs [B, ...], seed [2]) -> inputs that changes the examples of each
            step at random, as `hypernet_tf.training.augmentation.flip_and_crop` does with images;
            the ensemble answers for what the student sees. None leaves examples as they are, and
            the ensemble answers once.
        callbacks: Keras callbacks for `fit`; `keras.callbacks.History()` keeps the losses. Files of
            `ModelCheckpoint` are loaded with `compile=False`, since the loss has no name.
        seed: Seed of initial weights, dropout, the order of examples and what `augment` draws; not
            negative.
        verbose: 1 shows progress.

    Returns:
        An ordinary Keras model, not compiled.

    Raises:
        ValueError: Votes are asked of a target of values; a temperature is given for values or
            votes; the target has several outputs; the student's outputs are of another kind; an
            argument is out of range; or there are no examples.

    Example:
        >>> student = distill(ensemble, x_train, epochs=20)
        >>> Ensemble.from_keras(ensemble.target, student).evaluate(x_test, y_test).member_accuracy

    Reference: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network",
    arXiv 1503.02531.
    """
    settings = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    require_ensemble(ensemble, "Distillation")
    _check(ensemble.target, soft_targets, temperature, **settings)
    target, network = _student(student, ensemble, seed)
    if student is None or isinstance(student, Ensemble):
        for variable in network.trainable_variables:
            variable.regularizer = None  # it learns predictions alone
    given = Examples(x, sample_weight=sample_weight, weighted=True).in_memory()

    def answers(inputs: Any, verbose: int = 0) -> np.ndarray:
        if not soft_targets:
            votes = ensemble.majority_vote(inputs, verbose=verbose)
            return tf.one_hot(votes, ensemble.target.classes).numpy()
        if target.classes is None:
            (predicted,) = keras.tree.flatten(ensemble.predict(inputs, verbose=verbose))
            return predicted
        log_p = ensemble.mean_log_probabilities(inputs, verbose=verbose)
        return tf.nn.softmax(log_p / temperature).numpy().astype(np.float32)

    inputs = tuple(given.x) if isinstance(given.x, list) else given.x  # tf.data stacks a list
    weights = () if given.sample_weight is None else (_of_losses(given.sample_weight, target),)
    q = () if augment else (answers(given.x, verbose),)
    # For `augment` batches of one shape, of which some hold examples of two epochs.
    equal = augment is not None
    examples = _batches((inputs, *q, *weights), given.size, batch_size, seed, equal=equal)
    if augment:
        examples = _augmented(examples, answers, augment, seed)
    optimizer = keras.optimizers.get(optimizer)
    # A second model of the same layers is compiled: the student itself stays uncompiled.
    trained = functional(network)
    trained.compile(
        optimizer=type(optimizer).from_config(optimizer.get_config()),
        loss=_squared_error if target.classes is None else soft_cross_entropy(target, temperature),
    )
    trained.fit(
        examples.prefetch(1),
        epochs=epochs,
        steps_per_epoch=-(-given.size // batch_size),
        shuffle=False,  # the data set shuffles, with the seed
        callbacks=list(callbacks),
        verbose=verbose,
    )
    return network


def _batches(
    examples: Any, size: int, batch_size: int, seed: int, *, equal: bool
) -> tf.data.Dataset:
    """Batches of examples without end, in an order of its own for each epoch.

    It depends on the seed alone: a shuffled `tf.data.Dataset` depends on TensorFlow's global seed.

    Args:
        examples: Arrays [M, ...], in any structure that tf.data knows.
        size: M.
        batch_size: B.
        seed: Seed of the order.
        equal: Whether all batches have B examples; otherwise the last one of an epoch is short.
    """
    tensors = tf.nest.map_structure(tf.constant, examples)

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        words = tf.stack([tf.constant(seed, tf.int64), epoch])
        shuffled = tf.random.experimental.stateless_shuffle(tf.range(size), words)
        indices = tf.data.Dataset.from_tensor_slices(shuffled)
        return indices if equal else indices.batch(batch_size)

    def chosen(index: tf.Tensor) -> Any:
        return tf.nest.map_structure(lambda tensor: tf.gather(tensor, index), tensors)

    indices = tf.data.Dataset.counter(dtype=tf.int64).flat_map(order)
    if equal:
        indices = indices.batch(batch_size, drop_remainder=True)
    return indices.map(chosen)


def _augmented(
    batches: tf.data.Dataset,
    answers: Callable[[Any], np.ndarray],
    augment: Callable[[Any, tf.Tensor], Any],
    seed: int,
) -> tf.data.Dataset:
    """Batches (x, answers to x, ...) of batches (x, ...), whose x change at random.

    Args:
        batches: The batches.
        answers: Function inputs [B, ...] -> what the student learns, [B, ...].
        augment: Function (inputs, seed [2]) -> inputs.
        seed: Seed of all changes; those of a batch depend on its number, too.
    """

    def change(number: tf.Tensor, x: Any) -> Any:
        return augment(x, tf.stack([tf.constant(seed, tf.int64), number]))

    # Outside of the pipeline first, where an error keeps its own message.
    x = change(tf.constant(0, tf.int64), next(iter(batches))[0])
    x = keras.tree.map_structure(lambda t: t.numpy(), x)
    shape = answers(x).shape

    def changed(number: tf.Tensor, batch: tuple) -> tuple:
        inputs = change(number, batch[0])
        q = tf.numpy_function(
            lambda *flat: answers(keras.tree.pack_sequence_as(x, flat)).astype(np.float32),
            keras.tree.flatten(inputs),
            tf.float32,
        )
        return inputs, tf.ensure_shape(q, shape), *batch[1:]

    return batches.enumerate().map(changed)


def soft_cross_entropy(target: Target, temperature: float) -> Callable[[Any, Any], tf.Tensor]:
    """A Keras loss (q, outputs) -> [...]: T² times the cross-entropy of q and a network's outputs.

    The gradient of a cross-entropy at temperature T decreases as 1/T², so T² keeps its size.

    Args:
        target: Target of the network, which says what its outputs [..., C] are.
        temperature: T, the temperature of q [..., C].
    """
    of_logits = target.with_logits

    def loss(q: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        # What Keras's softmax or sigmoid was given: of probabilities that have rounded to 0 or 1
        # the loss has no gradient.
        logits = None if of_logits is target else getattr(outputs, "_keras_logits", None)
        if logits is None:
            log_p = target.log_probabilities(outputs)
        else:
            log_p = of_logits.log_probabilities(logits)
        log_s = tf.nn.log_softmax(log_p / temperature)
        return -(temperature**2) * tf.reduce_sum(q * log_s, -1)

    return loss


def _squared_error(q: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """The mean squared error of each example, or of each step, as Keras's; [...]."""
    return tf.square(outputs - q) if q.shape.rank == 1 else tf.reduce_mean((outputs - q) ** 2, -1)


def _of_losses(sample_weight: np.ndarray, target: Target) -> np.ndarray:
    """Weights of examples with as many axes as their losses: Keras would align the last axes."""
    (shape,) = [target.plan.shapes[ref] for ref in keras.tree.flatten(target.plan.outputs)]
    rank = 1 + (max(len(shape) - 1, 0) if target.classes is None else len(target.choices_shape))
    return sample_weight.reshape(*sample_weight.shape, *[1] * (rank - sample_weight.ndim))


def _check(target: Target, soft_targets: bool, temperature: float, **settings: int) -> None:
    for name, value in settings.items():
        check_count(name, value, 0 if name == "seed" else 1)
    check_number("temperature", temperature)
    if len(keras.tree.flatten(target.plan.outputs)) != 1:
        raise ValueError("Distillation needs a target with one output.")
    if target.classes is None and not soft_targets:
        raise ValueError("The target returns values, which have no votes: use soft_targets=True.")
    if temperature != 1 and (target.classes is None or not soft_targets):
        raise ValueError(
            "Values and votes have no temperature: use temperature=1, or soft targets of classes."
        )


def _student(student: Any, ensemble: Ensemble, seed: int) -> tuple[Target, keras.Model]:
    """The student before training, and its target."""
    if isinstance(student, Ensemble):
        if len(student) != 1:
            raise ValueError(f"A student is 1 network, not {len(student)}: use student[0].")
        target, weights = student.target, student.weights
    else:
        if student is None:
            require_weights_only(ensemble, "make a student like")
        target = ensemble.target if student is None else student
        if not isinstance(target, Target):
            target = Target(target)
            if ensemble.target.classes is not None and target.outputs == "values":
                logits: Outputs = "label_logits" if ensemble.target.has_labels else "logits"
                target = Target(student, outputs=logits)
        weights = _new_weights(target, seed)
    outputs, expected = _outputs(target), _outputs(ensemble.target)
    if outputs != expected:
        raise ValueError(f"The student returns {outputs}, the ensemble {expected}.")
    return target, target.to_keras(weights)


def _outputs(target: Target) -> str:
    """What a target returns, and its shape."""
    shapes = [target.plan.shapes[ref] for ref in keras.tree.flatten(target.plan.outputs)]
    if len(shapes) != 1 or target.classes is None:
        return f"values {', '.join(str(list(shape)) for shape in shapes)}"
    kind = "label probabilities" if target.has_labels else "probabilities"
    return f"{kind} {[*target.choices_shape, target.classes]}"


def _new_weights(target: Target, seed: int) -> WeightSet:
    """New weights of one network, from the initializers of the layers."""
    # A word that no sampler takes, so that a student does not begin where a teacher began.
    tensors = [
        seeded(slot.initializer, seed, 2**20, slot.index)(slot.shape) for slot in target.slots
    ]
    return WeightSet(
        [tf.convert_to_tensor(t)[None] for t in tensors], target.initial_state(1, (seed, 0))
    )
