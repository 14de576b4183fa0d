"""Running a plan: every call in order, on the values of N networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.targets.graph import Call, Plan, replay
from hypernet_tf.targets.layers import rule_for
from hypernet_tf.targets.rules import NetworkRun, Value, per_network, values_in


def input_value(tensor: tf.Tensor, shape: tuple, num_networks: int) -> Value:
    """An input as a value: the same for all networks, or one for each.

    Args:
        tensor: The input, [B, ...] or [N, B, ...].
        shape: The shape of one example.
        num_networks: N.

    Raises:
        ValueError: The input has another shape.
    """
    given = tuple(tensor.shape)
    if len(given) == len(shape) + 1 and tensor.shape[1:].is_compatible_with(shape):
        return Value(num_networks, shared=tensor)
    if len(given) == len(shape) + 2 and tensor.shape[2:].is_compatible_with(shape):
        if given[0] not in (num_networks, None):
            raise ValueError(
                f"Cannot run {num_networks} networks on inputs for {given[0]} networks: give one "
                "batch for each network, or the same batch for all."
            )
        return Value(num_networks, stacked=tensor)
    sizes = ", ".join(["B", *map(str, shape)])
    raise ValueError(
        f"Inputs have shape {given}, but the target takes [{sizes}] or [N, {sizes}]: reshape them."
    )


def run_plan(plan: Plan, run: NetworkRun, inputs: Sequence[Value]) -> Any:
    """Run every call of a plan on the values of N networks.

    Values that carry a Keras mask (`Embedding(mask_zero=True)`, `Masking`) run network by network,
    because only a call of the layer itself passes the mask on.

    Args:
        plan: The calls of a model.
        run: The weights of the networks; it collects their new state.
        inputs: The values, in the order of the model's inputs.

    Returns:
        A `Value` for each output, structured as the model's outputs.
    """

    def run_call(call: Call, args: tuple, kwargs: dict) -> Any:
        is_masked = any(value.is_masked for value in values_in(args, kwargs))
        rule = per_network if is_masked else rule_for(call.operation)
        result = rule(run, call, args, kwargs)
        if not all(isinstance(leaf, Value) for leaf in keras.tree.flatten(result)):
            raise TypeError(
                f"The rule of {type(call.operation).__name__} must return a Value, not "
                f"{type(result).__name__}: wrap a tensor [N, B, ...] as "
                "Value(run.num_networks, stacked=tensor)."
            )
        return result

    return replay(plan, inputs, run_call)


def with_masks(outputs: Any, masks: Any) -> Any:
    """Outputs that carry masks, as Keras's losses and metrics read them.

    Args:
        outputs: Outputs [M, ...], a structure of tensors.
        masks: Masks of the same structure; None for an output without one.
    """
    for tensor, mask in zip(keras.tree.flatten(outputs), keras.tree.flatten(masks), strict=True):
        if mask is not None:
            tensor._keras_mask = mask
    return outputs
