"""What the outputs of a model mean, as far as its last layers say."""

from __future__ import annotations

from typing import Any, Literal

import keras

from hypernet_tf.checks import check_choice
from hypernet_tf.targets.graph import Call, Plan, Ref

# Unnormalised log-probabilities of the classes, or their probabilities; the logit or probability of
# each of several labels; or numbers (regression).
Outputs = Literal["logits", "probabilities", "label_logits", "label_probabilities", "values"]


def infer_outputs(plan: Plan) -> Outputs:
    """What the outputs are.

    "probabilities" where each ends in a softmax or in one sigmoid, "label_probabilities" where the
    only one ends in several sigmoids, of an example or of each pixel; otherwise "values".
    """
    refs = keras.tree.flatten(plan.outputs)
    if all(_is_probability(plan, ref) for ref in refs):
        return "probabilities"
    if _may_be_labels(plan) and _is_sigmoid(plan, refs[0]):
        return "label_probabilities"
    return "values"


def ends_in_probabilities(plan: Plan, ref: Ref) -> bool:
    """Whether an output ends in a softmax, or in a sigmoid for each of its columns."""
    return is_softmax(_operation(plan, ref)) or _is_sigmoid(plan, ref)


def ends_linear(plan: Plan, ref: Ref) -> bool:
    """Whether an output ends in a layer of Keras's without a function, not in probabilities."""
    return last_activation(_operation(plan, ref)) is keras.activations.linear


def check_outputs(plan: Plan, outputs: Any, model_name: str) -> None:
    """Check that the outputs of a model may be what the user says.

    Args:
        plan: The model's calls.
        outputs: What the user says.
        model_name: The name of the model, for errors.

    Raises:
        ValueError: `outputs` is no `Outputs`; or the outputs have no axis of classes or of labels,
            are a softmax over one column, or are probabilities and called logits.
    """
    check_choice("outputs", outputs, Outputs)
    refs = keras.tree.flatten(plan.outputs)
    if outputs != "values" and any(not plan.shapes[ref] for ref in refs):
        raise ValueError(
            f"outputs={outputs!r} needs an axis of classes, the last one of [B, ..., C], but the "
            f"model '{model_name}' returns one number for each example: use outputs='values'."
        )
    softmaxes = [ref for ref in refs if is_softmax(_operation(plan, ref))]
    if outputs == "probabilities" and any(plan.shapes[ref][-1:] == (1,) for ref in softmaxes):
        raise ValueError(
            f"The model '{model_name}' ends in a softmax over one column, which is always 1: use a "
            "sigmoid."
        )
    if outputs == "logits" and any(_is_probability(plan, ref) for ref in refs):
        raise ValueError(
            f"The model '{model_name}' ends in a softmax or sigmoid: its outputs are "
            "'probabilities', not 'logits'."
        )
    if outputs.startswith("label") and not _may_be_labels(plan):
        raise ValueError(
            f"outputs={outputs!r} needs one output [B, ..., L] of at least 2 labels, which the "
            f"model '{model_name}' does not have: use outputs='logits' for one choice of class."
        )
    if outputs == "label_logits" and _is_sigmoid(plan, refs[0]):
        raise ValueError(
            f"The model '{model_name}' ends in a sigmoid: its outputs are 'label_probabilities', "
            "not 'label_logits'."
        )


def num_columns(plan: Plan) -> int | None:
    """Number of columns of the one output [B, ..., columns]; None for any other outputs."""
    shapes = [plan.shapes[ref] for ref in keras.tree.flatten(plan.outputs)]
    return shapes[0][-1] if len(shapes) == 1 and shapes[0] else None


def last_layer(plan: Plan, ref: Ref) -> Any:
    """The layer of Keras's whose softmax or sigmoid makes an output, before layers that return it.

    Args:
        plan: The model's calls.
        ref: An output.

    Returns:
        The layer; None if there is none, it is called more than once, has frozen variables or a
        mask, or the model also reads what it makes.
    """
    calls: list[Call] = []
    maker = plan.maker(ref)
    while maker and _returns_its_input(maker.operation):
        calls.append(maker)
        ref = maker.inputs[0]
        maker = plan.maker(ref)
    layer = maker and maker.operation
    made = {ref, *(out for call in calls for out in keras.tree.flatten(call.outputs))}
    if (
        maker is None
        or not isinstance(layer, keras.Layer)
        or not type(layer).__module__.startswith("keras.")
        or not (is_softmax(layer) or last_activation(layer) is keras.activations.sigmoid)
        or layer.non_trainable_variables
        or plan.num_calls(layer) > 1
        or len(maker.inputs) > 1
        or any(call not in calls and made & {*call.inputs} for call in plan.calls)
    ):
        return None
    return layer


def linear(layer: Any) -> keras.Layer:
    """A layer like one of `last_layer`, without its softmax or sigmoid."""
    if type(layer) is keras.layers.Softmax:
        config = layer.get_config()
        return keras.layers.Identity.from_config({key: config[key] for key in ("name", "dtype")})
    return type(layer).from_config(layer.get_config() | {"activation": "linear"})


def is_softmax(operation: Any) -> bool:
    """Whether a layer, or an operation of `keras.ops`, ends in a softmax over the last axis."""
    kind = type(operation)
    if kind.__name__ == "Softmax" and kind.__module__.startswith("keras."):
        return operation.axis == -1
    return last_activation(operation) is keras.activations.softmax


def last_activation(operation: Any) -> Any:
    """The activation at the end of a layer, or None: a recurrent layer has one inside its steps."""
    of_keras = (kind for kind in type(operation).__mro__ if kind.__module__.startswith("keras."))
    # What a user's layer that is none of Keras's kinds does with the attribute is not known.
    is_known = next(of_keras, keras.Layer) is not keras.Layer
    if isinstance(operation, keras.layers.RNN) or not is_known:
        return None
    return getattr(operation, "activation", None)


def _operation(plan: Plan, ref: Ref) -> Any:
    """What makes a tensor, before layers that return their input, as a last one in float32 does."""
    maker = plan.maker(ref)
    while maker and _returns_its_input(maker.operation):
        maker = plan.maker(maker.inputs[0])
    return maker and maker.operation


def _returns_its_input(operation: Any) -> bool:
    if type(operation) is keras.layers.Activation:
        return operation.activation is keras.activations.linear
    return type(operation) is keras.layers.Identity


def _is_sigmoid(plan: Plan, ref: Ref) -> bool:
    operation = _operation(plan, ref)
    kind = type(operation)
    if kind.__name__ == "Sigmoid" and kind.__module__.startswith("keras."):
        return True
    return last_activation(operation) is keras.activations.sigmoid


def _is_probability(plan: Plan, ref: Ref) -> bool:
    # A sigmoid over several columns gives several answers, not one choice among classes.
    one_sigmoid = _is_sigmoid(plan, ref) and plan.shapes[ref][-1:] == (1,)
    return is_softmax(_operation(plan, ref)) or one_sigmoid


def _may_be_labels(plan: Plan) -> bool:
    return (num_columns(plan) or 0) > 1
