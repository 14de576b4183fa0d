"""What a Keras loss says about the outputs of a target."""

from __future__ import annotations

from typing import Any

import keras

from hypernet_tf.targets import Target


def check_loss(loss: Any, target: Target) -> str | None:
    """Hold a loss against what a target returns.

    Args:
        loss: what `compile` was given: a Keras loss, its name, or a function.
        target: the target.

    Returns:
        "logits" or "probabilities", whichever a classification loss takes; None for any other loss.

    Raises:
        ValueError: a loss of logits on outputs that are probabilities, or the reverse.
    """
    losses = keras.losses
    loss = losses.get(loss) if isinstance(loss, str) else loss
    classes: tuple = (losses.SparseCategoricalCrossentropy, losses.CategoricalCrossentropy)
    functions = [losses.sparse_categorical_crossentropy, losses.categorical_crossentropy]
    if target.single_column:
        classes += (losses.BinaryCrossentropy,)
        functions.append(losses.binary_crossentropy)
    if not (isinstance(loss, classes) or loss in functions):
        return None
    if getattr(loss, "from_logits", False):
        if target.outputs == "probabilities":
            raise ValueError(
                "the loss takes logits (from_logits=True), but the target ends in probabilities: "
                "drop the target's softmax or from_logits"
            )
        return "logits"
    if target.outputs != "probabilities":
        raise ValueError(
            "the loss takes probabilities, but the target does not end in a softmax: "
            "give the loss from_logits=True"
        )
    return "probabilities"
