"""The record of a step that diversity terms read, of the networks of all replicas."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.diversity import Batch
from hypernet_tf.samplers.dealing import widened
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.samplers.replicas import Share
from hypernet_tf.targets import Target, WeightSet


def step_record(
    target: Target,
    weights: WeightSet,
    drawn: Draw,
    dealt: Any,
    y: Any,
    share: Share,
    *,
    training: bool,
    outputs: bool,
) -> Batch:
    """One step, as diversity terms see it.

    Args:
        target: the target.
        weights: of this replica's networks, as the target runs on them.
        drawn: what they were made of.
        dealt: this replica's inputs, each [N / R, B, ...].
        y: their labels, [N / R · B, ...].
        share: which networks these are.
        training: the mode in which the target runs.
        outputs: whether terms want the outputs of all networks on the same images: the first
            network's are shown to all of them. Logits come without their mean over classes, which
            the softmax does not see: networks could be told apart by it for nothing.

    Returns:
        The record of all N networks, the same on each replica.
    """

    def gathered(parts: Any) -> Any:
        return keras.tree.map_structure(share.gather, parts)

    theta = share.gather(target.flatten(weights))
    record = Batch(theta, share.gather(drawn.z), gathered(drawn.codes))
    if not outputs:
        return record
    count = tf.shape(keras.tree.flatten(dealt)[0])[1]
    first = keras.tree.map_structure(lambda tensor: share.first(tensor[0]), dealt)
    answers, _ = target.run(weights, first, training=training, batch_statistics=True)
    labels = keras.tree.map_structure(lambda tensor: share.first(tensor[:count]), y)
    answers = keras.tree.map_structure(lambda own: target.centred(widened(own)), answers)
    return record._replace(outputs=gathered(answers), y=labels)
