"""What the outputs of a model mean, as far as its last layers tell."""

from __future__ import annotations

from typing import Any

import keras

from hypernet_tf.targets.graph import Plan, Ref

OUTPUTS = ("logits", "probabilities", "values")


def read(plan: Plan) -> str:
    """What the outputs are: "probabilities" where each ends in a softmax or in one sigmoid."""
    refs = keras.tree.flatten(plan.outputs)
    return "probabilities" if all(_is_probability(plan, ref) for ref in refs) else "values"


def check(plan: Plan, outputs: str, name: str) -> None:
    """Refuse a meaning that the outputs cannot have.

    Args:
        plan: the model's.
        outputs: one of `OUTPUTS`.
        name: the model's.

    Raises:
        ValueError: the outputs have no axis of classes, or are probabilities and called logits.
    """
    refs = keras.tree.flatten(plan.outputs)
    if outputs != "values" and any(not plan.shapes[ref] for ref in refs):
        raise ValueError(
            f"outputs='{outputs}' needs an axis of classes, the last one of [B, ..., C]; the model "
            f"'{name}' returns one number for each example"
        )
    if outputs == "logits" and any(_is_probability(plan, ref) for ref in refs):
        raise ValueError(
            f"the model '{name}' ends in a softmax or sigmoid: its outputs are 'probabilities', "
            "not 'logits'"
        )


def is_softmax(operation: Any) -> bool:
    """Whether a layer ends in a softmax over the last axis."""
    if type(operation) is keras.layers.Softmax:
        return operation.axis == -1
    return getattr(operation, "activation", None) is keras.activations.softmax


def _is_probability(plan: Plan, ref: Ref) -> bool:
    maker = plan.maker(ref)
    operation = maker and maker.operation
    # A sigmoid over several columns is several answers, not one choice among classes.
    return is_softmax(operation) or (
        getattr(operation, "activation", None) is keras.activations.sigmoid
        and plan.shapes[ref][-1:] == (1,)
    )
