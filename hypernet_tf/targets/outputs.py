"""What the outputs of a model mean, as far as its last layers say."""

from __future__ import annotations

from typing import Any, Literal, get_args

import keras

from hypernet_tf.targets.graph import Plan, Ref

# Unnormalised log-probabilities of the classes, their probabilities, or numbers (regression).
Outputs = Literal["logits", "probabilities", "values"]


def infer_outputs(plan: Plan) -> Outputs:
    """What the outputs are: "probabilities" where each ends in a softmax or in one sigmoid."""
    refs = keras.tree.flatten(plan.outputs)
    return "probabilities" if all(_is_probability(plan, ref) for ref in refs) else "values"


def check_outputs(plan: Plan, outputs: Any, model_name: str) -> None:
    """Check that the outputs of a model may be what the user says.

    Args:
        plan: The model's calls.
        outputs: What the user says.
        model_name: The name of the model, for errors.

    Raises:
        ValueError: `outputs` is no `Outputs`; or the outputs have no axis of classes, or are
            probabilities and called logits.
    """
    if outputs not in get_args(Outputs):
        known = ", ".join(map(repr, get_args(Outputs)))
        raise ValueError(f"Unknown outputs={outputs!r}: choose one of {known}.")
    refs = keras.tree.flatten(plan.outputs)
    if outputs != "values" and any(not plan.shapes[ref] for ref in refs):
        raise ValueError(
            f"outputs={outputs!r} needs an axis of classes, the last one of [B, ..., C], but the "
            f"model '{model_name}' returns one number for each example: use outputs='values'."
        )
    if outputs == "logits" and any(_is_probability(plan, ref) for ref in refs):
        raise ValueError(
            f"The model '{model_name}' ends in a softmax or sigmoid: its outputs are "
            "'probabilities', not 'logits'."
        )


def is_softmax(operation: Any) -> bool:
    """Whether a layer ends in a softmax over the last axis."""
    if type(operation) is keras.layers.Softmax:
        return operation.axis == -1
    return getattr(operation, "activation", None) is keras.activations.softmax


def _is_probability(plan: Plan, ref: Ref) -> bool:
    maker = plan.maker(ref)
    operation = maker and maker.operation
    # A sigmoid over several columns gives several answers, not one choice among classes.
    return is_softmax(operation) or (
        getattr(operation, "activation", None) is keras.activations.sigmoid
        and plan.shapes[ref][-1:] == (1,)
    )
