"""What a compiled loss says of a target's outputs and of labels, and whether they fit together."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.targets import Target
from hypernet_tf.targets.outputs import (
    Outputs,
    ends_in_probabilities,
    ends_linear,
    infer_outputs,
    num_columns,
)


class _Losses(NamedTuple):
    """Keras losses of one kind.

    Attributes:
        classes: Their classes.
        functions: Their functions.
    """

    classes: tuple[type, ...]
    functions: tuple[Any, ...]

    def __contains__(self, loss: object) -> bool:
        return isinstance(loss, self.classes) or any(loss is one for one in self.functions)


_OVERLAPS = _Losses(
    (keras.losses.Dice, keras.losses.Tversky), (keras.losses.dice, keras.losses.tversky)
)
_OF_PAIRS = _Losses((keras.losses.Circle,), (keras.losses.circle,))
_BINARY = _Losses(
    (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy),
    (keras.losses.binary_crossentropy, keras.losses.binary_focal_crossentropy),
)
_SPARSE = _Losses(
    (keras.losses.SparseCategoricalCrossentropy,),
    (keras.losses.sparse_categorical_crossentropy,),
)
_ONE_HOT = _Losses(
    (keras.losses.CategoricalCrossentropy, keras.losses.CategoricalFocalCrossentropy),
    (keras.losses.categorical_crossentropy, keras.losses.categorical_focal_crossentropy),
)


# Names of which Keras makes a loss of probabilities that fits the labels.
_OF_LABELS = ("crossentropy", "ce")


def _known(loss: Any) -> Any:
    """The loss that a name or a class means, where Keras does not need the labels to tell."""
    is_name = isinstance(loss, str) and loss not in _OF_LABELS
    return keras.losses.get(loss) if is_name or inspect.isclass(loss) else loss


def sees_mean_of_logits(loss: Any, target: Target) -> bool:
    """Whether a loss changes with a number that is added to all logits of an example.

    Of the outputs of a softmax only Keras's binary losses do: they go back to its logits.

    Args:
        loss: Loss, or losses of several outputs, that `compile` was given, not all of a softmax.
        target: The target.
    """
    if target.outputs == "logits":
        return True
    shapes = [target.plan.shapes[ref] for ref in keras.tree.flatten(target.plan.outputs)]
    if target.outputs != "probabilities" and len(shapes) == 1:
        return False  # values, whose mean counts
    losses = _by_output(loss, target) if len(shapes) > 1 else keras.tree.flatten(loss)
    return any(
        shape[-1:] != (1,) and _known(one) in _BINARY
        for one, shape in zip(losses, shapes, strict=True)
    )


def check_loss(loss: Any, target: Target) -> Outputs | None:
    """Compare a loss with what a target returns.

    Args:
        loss: Loss that `compile` was given: a Keras loss, its name, or a function.
        target: The target.

    Returns:
        What a classification loss takes, "logits" or "probabilities", or "label_logits" or
        "label_probabilities" for a binary loss of several columns; None for any other loss.

    Raises:
        ValueError: A loss of logits on outputs that are probabilities, or the reverse.
    """
    if isinstance(loss, dict) and loss.keys() <= {*output_names(target)}:
        return _check_losses(_by_output(loss, target), target)
    if isinstance(loss, (list, tuple, dict)):
        return _check_losses(keras.tree.flatten(loss), target)
    loss = _known(loss)
    several = len(keras.tree.flatten(target.plan.outputs))
    if loss in _BINARY and several > 1:
        return _check_losses([loss] * several, target)
    if loss in _BINARY:
        if num_columns(target.plan) != 1:
            return _labels_of(loss, target)
        numbers = target.outputs == "values" and infer_outputs(target.plan) == "probabilities"
        if numbers and not getattr(loss, "from_logits", False):
            return None  # from 0 to 1, and no classes, such as pixels: the user said so
    elif not (loss in _SPARSE or loss in _ONE_HOT or loss in _OF_LABELS):
        return None
    if getattr(loss, "from_logits", False):
        if target.outputs == "probabilities":
            raise ValueError(
                "The loss takes logits (from_logits=True), but the target ends in probabilities: "
                "drop the target's softmax or from_logits."
            )
        return "logits"
    if target.outputs != "probabilities":
        raise ValueError(
            "The loss takes probabilities, but the target does not end in a softmax: give the loss "
            "from_logits=True, or say Target(model, outputs='probabilities') if they are some."
        )
    return "probabilities"


def _check_losses(losses: list, target: Target) -> Outputs | None:
    """`check_loss` for a loss of each output; those of several outputs mean one thing or nothing.

    Args:
        losses: Losses, or None, of the outputs in order.
        target: The target.

    Raises:
        ValueError: A loss of logits on an output that is probabilities, or the reverse.
    """
    refs = keras.tree.flatten(target.plan.outputs)
    if len(refs) == 1:
        return check_loss(losses[0], target) if len(losses) == 1 else None
    if len(losses) != len(refs):
        return None  # Keras says so
    losses = [_known(loss) for loss in losses]
    single = all(target.plan.shapes[ref][-1:] == (1,) for ref in refs)
    of_logits = []
    for loss, ref, name in zip(losses, refs, output_names(target), strict=True):
        binary = loss in _BINARY
        is_classes = loss in _SPARSE or loss in _ONE_HOT or binary
        takes_logits = bool(getattr(loss, "from_logits", False))
        of_logits.append(is_classes and takes_logits and (single or not binary))
        ends = ends_in_probabilities(target.plan, ref)
        if is_classes and takes_logits and ends:
            raise ValueError(
                f"The loss of the output '{name}' takes logits (from_logits=True), but the target "
                "ends in probabilities there: drop the softmax or sigmoid, or from_logits."
            )
        may_be_numbers = binary and target.plan.shapes[ref][-1:] != (1,)
        unlike = ends_linear(target.plan, ref) and target.outputs != "probabilities"
        if is_classes and not takes_logits and unlike and not may_be_numbers:
            raise ValueError(
                f"The loss of the output '{name}' takes probabilities, but the target does not end "
                "in a softmax or sigmoid there: give the loss from_logits=True, or say "
                "Target(model, outputs='probabilities') if they are some."
            )
    return "logits" if all(of_logits) else None


def check_reduction(loss: Any) -> None:
    """Check that losses are means over examples: networks and replicas average theirs.

    Args:
        loss: Loss, or losses of several outputs, that `compile` was given.

    Raises:
        ValueError: A loss is a sum, or is not reduced.
    """
    for one in keras.tree.flatten(loss):
        reduction = getattr(one, "reduction", "sum_over_batch_size")
        if reduction not in ("sum_over_batch_size", "mean", "mean_with_sample_weight"):
            raise ValueError(
                f"The loss has reduction={reduction!r}, but networks average theirs: use "
                "'sum_over_batch_size', and lam as a factor."
            )


def check_per_example(loss: Any) -> None:
    """Check that a loss has a value for each example: a batch holds those of all networks.

    Args:
        loss: Loss, or losses of several outputs, that `compile` was given.

    Raises:
        ValueError: A loss sums over the examples of a batch, or compares them.
    """
    for one in map(_known, keras.tree.flatten(loss)):
        axis = getattr(one, "axis", None)
        axes = [axis] if isinstance(axis, int) else axis
        if one in _OVERLAPS and (axes is None or 0 in axes):
            raise ValueError(
                "The loss is one number for a batch, which holds the examples of all networks: "
                "give it the axes of an example, such as keras.losses.Dice(axis=(1, 2, 3))."
            )
        if one in _OF_PAIRS:
            raise ValueError(
                "The loss compares the examples of a batch, which are those of several networks: "
                "use a loss of single examples."
            )


def check_values(loss: Any, y: Any, y_pred: Any) -> None:
    """Check that functions which stand for a loss return a number for each example.

    Keras takes a single number for a mean over the whole batch, also where a device has a part.

    Args:
        loss: Loss of the one output, or a structure of losses as the outputs are.
        y: Labels of a few examples; None for an output without labels.
        y_pred: Outputs.

    Raises:
        ValueError: A function returns one number.
    """
    parts = [keras.tree.flatten(one) for one in (loss, y, y_pred)]
    if len({len(part) for part in parts}) > 1:
        return
    for one, label, output in zip(*parts, strict=True):
        is_own = inspect.isfunction(one) and not one.__module__.startswith("keras.")
        if label is None or not is_own:
            continue
        if output.shape[-1:] == (1,) and label.shape.rank == output.shape.rank - 1:
            label = label[..., None]
        if not _LossOfFunction(one)(label, output).shape.rank:
            raise ValueError(
                f"The loss '{one.__name__}' returns one number for a batch, which devices that "
                "share the batch would add up: return one for each example."
            )


class _LossOfFunction(keras.losses.Loss):
    """What a function returns of labels and outputs that are cast as Keras casts them."""

    def __init__(self, function: Any):
        super().__init__(reduction=None)
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)


def check_class_axis(loss: Any, target: Target) -> None:
    """Check that classes are along the last axis, as in all that is computed of predictions.

    Args:
        loss: Loss, or losses of several outputs, that `compile` was given.
        target: The target.

    Raises:
        ValueError: A classification loss has another axis.
    """
    ranks = {1 + len(target.plan.shapes[ref]) for ref in keras.tree.flatten(target.plan.outputs)}
    for one in keras.tree.flatten(loss):
        axis = getattr(one, "_fn_kwargs", {}).get("axis", -1)
        if (one in _SPARSE or one in _ONE_HOT) and axis != -1 and ranks != {axis + 1}:
            raise ValueError(
                f"The loss has axis={axis}, but classes are along the last axis here: end the "
                "model in a Permute layer, and use axis=-1."
            )


def check_labels(loss: Any, y: Any, target: Target) -> None:
    """Compare the labels of examples with what a loss of classes takes.

    Args:
        loss: Loss that `compile` was given.
        y: Labels; an array is searched for numbers that are not classes.
        target: The target, of whose last axis the loss takes a class.

    Raises:
        ValueError: One-hot labels for a loss that takes numbers of classes, or the reverse; or
            numbers of classes that the target does not have.
    """
    refs = keras.tree.flatten(target.plan.outputs)
    if len(refs) > 1:
        pairs = zip(_by_output(loss, target), _by_output(y, target), refs, strict=True)
        for one, labels, ref in pairs:
            if labels is not None:
                _check_labels_of(one, labels, target.plan.shapes[ref])
        return
    parts = keras.tree.flatten(loss)
    _check_labels_of(parts[0] if len(parts) == 1 else loss, y, target.plan.shapes[refs[0]])


def output_names(target: Target) -> list[str]:
    """The names by which a dict of losses or labels goes, in the order of the outputs."""
    outputs = target.plan.outputs
    is_flat = isinstance(outputs, dict) and not any(map(keras.tree.is_nested, outputs.values()))
    return sorted(outputs) if is_flat else target.output_names


def _by_output(values: Any, target: Target) -> list:
    """Losses or labels of each output; those that are not given, or not one for each, are None."""
    names = output_names(target)
    if isinstance(values, dict):
        return [values.get(name) for name in names]
    if isinstance(values, list | tuple):
        return list(values) if len(values) == len(names) else [None] * len(names)
    is_loss = isinstance(values, str) or callable(values)
    return [values if is_loss else None] * len(names)


def _check_labels_of(loss: Any, y: Any, shape: tuple) -> None:
    """`check_labels` of one output of some shape."""
    loss = _known(loss)
    sparse, one_hot = loss in _SPARSE, loss in _ONE_HOT
    if not (sparse or one_hot) or not hasattr(y, "shape"):
        return
    given, wanted = tuple(y.shape[1:]), tuple(shape)
    shown = f"[examples, {', '.join(map(str, given))}]" if given else "[examples]"
    if sparse and given == wanted and wanted[-1:] not in ((), (1,)):
        raise ValueError(
            f"The loss takes numbers of classes, but the labels {shown} are one-hot: use "
            "keras.losses.CategoricalCrossentropy, or y.argmax(-1)."
        )
    is_numbers = sparse and given in (wanted[:-1], (*wanted[:-1], 1))
    # A loss may leave out examples of a class that is none, such as -1.
    leaves_out = getattr(loss, "ignore_class", None) is not None
    if is_numbers and not isinstance(y, tf.TensorSpec) and not leaves_out:
        y = np.asarray(y)
        if y.dtype.kind not in "iubf":
            raise ValueError("Labels are not numbers: number the classes from 0.")
        if y.dtype.kind == "f" and (y != np.floor(y)).any():
            raise ValueError(
                "Labels are numbers of classes, and some are NaN or not whole: remove or round "
                "them."
            )
        low, high, classes = y.min(initial=0), y.max(initial=0), int(wanted[-1] or 0)
        if low < 0 or high >= classes:
            low = y.min()
            raise ValueError(
                f"Labels run from {low} to {high}, but the target has {classes} classes: number "
                f"them from 0 to {classes - 1}."
            )
    if one_hot and given in (wanted[:-1], (*wanted[:-1], 1)) and wanted[-1:] not in ((), (1,)):
        raise ValueError(
            f"The loss takes one-hot labels, but the labels {shown} are numbers of classes: use "
            "keras.losses.SparseCategoricalCrossentropy."
        )


def some_labels(x: Any, y: Any) -> Any:
    """Labels of two examples as `fit` takes them; None where it would have to read some."""
    if isinstance(x, tf.data.Dataset):
        y = keras.utils.unpack_x_y_sample_weight(x.element_spec)[1]
    parts = [] if y is None else keras.tree.flatten(y)
    known = all(isinstance(part, (np.ndarray, tf.Tensor, tf.TensorSpec)) for part in parts)
    if not parts or not known:
        return None
    if not all(tf.TensorShape(part.shape)[1:].is_fully_defined() for part in parts):
        return None
    return keras.tree.map_structure(lambda t: tf.zeros([2, *t.shape[1:]], tf.as_dtype(t.dtype)), y)


def _labels_of(loss: Any, target: Target) -> Outputs | None:
    """What a binary loss takes of several columns; None where they are not labels."""
    if getattr(loss, "from_logits", False):
        if target.outputs in ("probabilities", "label_probabilities"):
            raise ValueError(
                "The loss takes logits (from_logits=True), but the target ends in probabilities: "
                "drop the target's softmax or sigmoid, or from_logits."
            )
        # One-versus-rest losses of classes are those of a target that the user calls "logits".
        return (
            None if target.outputs == "logits" or not num_columns(target.plan) else "label_logits"
        )
    return target.outputs if target.has_labels else None


def with_accuracy(metrics: Any, target: Target) -> Any:
    """Metrics of which "accuracy" is that of the target's outputs.

    Where one column or several labels tell two classes apart, Keras takes a probability of one half
    as the limit for logits too, and compares the highest of several labels.

    Args:
        metrics: Metrics as `compile` takes them.
        target: Target whose outputs the loss has told.
    """
    shapes = [target.plan.shapes[ref] for ref in keras.tree.flatten(target.plan.outputs)]
    one_column = target.outputs in ("logits", "probabilities") and all(
        shape and shape[-1] == 1 for shape in shapes
    )
    if not (one_column or target.has_labels):
        return metrics
    limit = 0.0 if "logits" in target.outputs else 0.5

    def replaced(one: Any) -> Any:
        is_accuracy = isinstance(one, str) and one.lower() in ("accuracy", "acc")
        return keras.metrics.BinaryAccuracy(one, threshold=limit) if is_accuracy else one

    return keras.tree.map_structure(replaced, metrics)
