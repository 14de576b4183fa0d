"""What is known about each kind of layer: one table of traits, and how users add to it.

Every Keras layer is supported without an entry here: it runs network by network, all its weights
are one filter, and the gauge leaves the channels that it reads and makes alone. A row of `TRAITS`
says what may be done better for layers of exactly that type. A subclass inherits no traits, because
its call may differ. Adding a kind of layer is one row; `register_layer` adds a row for a layer of
the user's own.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from hypernet_tf.targets import rules
from hypernet_tf.targets.activations import activation_traits
from hypernet_tf.targets.graph import Call

ZERO = -1  # the channel id of zeros, see `ChannelMap`

# How a layer that only moves numbers moves channels: called as `channels(call, ids, shapes)`, with
# one array of channel ids [C] and one shape (without the batch) for each input, it returns the ids
# on the last axis of the output, `ZERO` for channels of zeros; or None where that cannot be said.
ChannelMap = Callable[[Call, list[np.ndarray], list[tuple]], np.ndarray | None]

# True, False, or a function of the layer, for what depends on how a layer is configured.
Trait = bool | Callable[[Any], bool]


@dataclasses.dataclass(frozen=True)
class KernelAxes:
    """What the axes of a kernel count.

    Attributes:
        filters: The axis that counts filters.
        inputs: The axis that counts the channels on the last axis of the layer's input; None where
            no axis does (grouped convolutions, channels first).
        depthwise: Whether each filter reads one channel only. Filters are then counted by the axis
            `inputs` and, right after it, the axis `filters`.
        name: The name of the variable. All other variables of the layer, such as a bias, have one
            entry per filter.
    """

    filters: int = -1
    inputs: int | None = -2
    depthwise: bool = False
    name: str = "kernel"

    def __post_init__(self):
        if self.filters == self.inputs:
            raise ValueError(
                f"Contradictory kernel axes: axis {self.filters} cannot count both filters and "
                "inputs. Name two different axes."
            )
        if self.depthwise and self.inputs is not None and self.filters != self.inputs + 1:
            raise ValueError(
                f"Contradictory kernel axes: the filters of a depthwise kernel are on axis "
                f"{self.inputs + 1}, right after its inputs, not on axis {self.filters}."
            )


@dataclasses.dataclass(frozen=True)
class LayerTraits:
    """What is known about a kind of layer.

    Attributes:
        rule: How the layer runs with N weight sets at once (`hypernet_tf.targets.rules`).
        per_example: Whether the layer treats each example of a batch by itself: all networks'
            examples then run as one batch. None: where it is elementwise.
        homogeneous: Whether f(s·x) = s·f(x) for all s > 0, channel by channel and alike for all
            channels. With a kernel: whether the output's channel is multiplied by s where its
            filter, bias included, is.
        elementwise: Whether the layer treats each number by itself, alike for all numbers. With a
            kernel: whether that holds for what follows the product with the kernel.
        merges: Whether several inputs of the same rank and width become one, position by position.
        channels: For a layer that only moves numbers, where its inputs' channels go.
        kernel: The axes of the layer's kernel.
        vectors: Whether all variables of one axis have one entry per channel.
    """

    rule: rules.Rule | None = None
    per_example: Trait | None = None
    homogeneous: Trait = False
    elementwise: Trait = False
    merges: bool = False
    channels: ChannelMap | None = None
    kernel: KernelAxes | Callable[[Any], KernelAxes] | None = None
    vectors: bool = False

    @property
    def is_permutable(self) -> bool:
        """Whether channels may change places through the layer."""
        return bool(self.homogeneous or self.elementwise)

    def of(self, layer: Any) -> LayerTraits:
        """The traits of one layer: each function of the layer replaced by its value."""

        def value(trait: Any) -> Any:
            return trait(layer) if callable(trait) else trait

        elementwise = value(self.elementwise)
        return dataclasses.replace(
            self,
            per_example=elementwise if self.per_example is None else value(self.per_example),
            homogeneous=value(self.homogeneous),
            elementwise=elementwise,
            kernel=value(self.kernel),
        )

    def check(self) -> None:
        """Check that the traits agree with each other.

        Raises:
            ValueError: They do not.
        """
        contradictions = [
            (
                self.kernel is not None and (self.vectors or self.merges or self.channels),
                "a layer with a kernel makes new channels: drop `kernel`, or `vectors`, `merges` "
                "and `channels`",
            ),
            (
                self.elementwise is True and self.per_example is False,
                "an elementwise layer treats each example by itself: drop `per_example=False` or "
                "`elementwise`",
            ),
            (
                self.elementwise is True and self.channels is not None,
                "an elementwise layer leaves channels where they are: drop `channels` or "
                "`elementwise`",
            ),
            (
                self.rule is not None and self.per_example is True,
                "`rule` and `per_example=True` both say how the layer runs: drop one of them",
            ),
            (
                self.merges and self.homogeneous is False and self.elementwise is False,
                "a layer that merges its inputs position by position is homogeneous or "
                "elementwise: say which, or drop `merges`",
            ),
        ]
        for is_contradictory, explanation in contradictions:
            if is_contradictory:
                raise ValueError(f"Contradictory traits: {explanation}.")


# ---- what depends on a layer's configuration ------------------------------------------------


def channels_last(layer: Any) -> bool:
    """Whether the channels of a layer's pictures are the last axis.

    Args:
        layer: Keras layer.
    """
    return getattr(layer, "data_format", None) != "channels_first"  # some layers have none


def _has_homogeneous_activation(layer: Any) -> bool:
    return activation_traits(layer.activation).homogeneous


def _has_elementwise_activation(layer: Any) -> bool:
    return activation_traits(layer.activation).elementwise


def _has_per_example_activation(layer: Any) -> bool:
    return activation_traits(layer.activation).per_example


def _is_plain_relu(layer: Any) -> bool:
    return layer.max_value is None and not layer.threshold


def _softmax_within_examples(layer: Any) -> bool:
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    return all(axis == -1 or axis > 0 for axis in axes)


def _convolution_kernel(layer: Any) -> KernelAxes:
    follows_channels = channels_last(layer) and layer.groups == 1
    return KernelAxes(filters=-1, inputs=-2 if follows_channels else None)


def _transposed_kernel(layer: Any) -> KernelAxes:
    return KernelAxes(filters=-2, inputs=-1 if channels_last(layer) else None)


def _depthwise_kernel(layer: Any) -> KernelAxes:
    return KernelAxes(filters=-1, inputs=-2 if channels_last(layer) else None, depthwise=True)


def _pads_within_examples(operation: Any) -> bool:
    return len(operation.pad_width) > 1 and not any(operation.pad_width[0])


def _flattened(call: Call, ids: list[np.ndarray], shapes: list[tuple]) -> np.ndarray | None:
    """`Flatten`: the channels once for each pixel."""
    if not channels_last(call.operation) or None in shapes[0]:
        return None
    return np.tile(ids[0], math.prod(shapes[0][:-1]))


def _reshaped(call: Call, ids: list[np.ndarray], shapes: list[tuple]) -> np.ndarray | None:
    """`Reshape`, known where it puts all numbers of an example in one row."""
    if len(call.operation.target_shape) != 1 or None in shapes[0]:
        return None
    return np.tile(ids[0], math.prod(shapes[0][:-1]))


def _concatenated(call: Call, ids: list[np.ndarray], shapes: list[tuple]) -> np.ndarray | None:
    """`Concatenate`, on the axis of channels."""
    if call.operation.axis not in (-1, len(shapes[0])):
        return None
    return np.concatenate(ids)


def _padded(call: Call, ids: list[np.ndarray], shapes: list[tuple]) -> np.ndarray | None:
    """`keras.ops.pad`, with zeros."""
    operation = call.operation
    with_zeros = operation.mode == "constant" and not call.kwargs.get("constant_values")
    if not with_zeros or not _pads_within_examples(operation):
        return None
    return np.pad(ids[0], tuple(operation.pad_width[-1]), constant_values=ZERO)


def _operation_type(function: Callable, name: str) -> type:
    """The type of the `keras.Operation` behind a function of tensors, by its name beside it.

    To make one would use up a name: the user's first `keras.layers.Add()` would be "add_1".
    """
    return getattr(inspect.getmodule(function), name)


# ---- the table ------------------------------------------------------------------------------

_WITH_ACTIVATION: dict[str, Any] = {
    "homogeneous": _has_homogeneous_activation,
    "elementwise": _has_elementwise_activation,
}
_DENSE = LayerTraits(kernel=KernelAxes(), rule=rules.dense, **_WITH_ACTIVATION)
_CONVOLUTION = LayerTraits(kernel=_convolution_kernel, rule=rules.convolution, **_WITH_ACTIVATION)
_TRANSPOSED = LayerTraits(kernel=_transposed_kernel, **_WITH_ACTIVATION)
_DEPTHWISE = LayerTraits(kernel=_depthwise_kernel, **_WITH_ACTIVATION)
_NORMALISATION = LayerTraits(vectors=True)
# Pooling, padding, cropping, resizing: each channel by itself, all alike.
_SPATIAL = LayerTraits(homogeneous=channels_last, per_example=True)
_DROPOUT = LayerTraits(homogeneous=True)
_SPATIAL_DROPOUT = LayerTraits(homogeneous=channels_last)
_HOMOGENEOUS = LayerTraits(homogeneous=True, elementwise=True)
_ELEMENTWISE = LayerTraits(elementwise=True)
_PER_EXAMPLE = LayerTraits(per_example=True)
_RELU = LayerTraits(homogeneous=_is_plain_relu, elementwise=True)
_HOMOGENEOUS_MERGE = LayerTraits(homogeneous=True, merges=True)
_ELEMENTWISE_MERGE = LayerTraits(elementwise=True, merges=True)
_CONCATENATE = LayerTraits(homogeneous=True, merges=True, channels=_concatenated)

TRAITS: dict[type, LayerTraits] = {
    # Layers with a kernel
    keras.layers.Dense: _DENSE,
    keras.layers.Conv1D: _CONVOLUTION,
    keras.layers.Conv2D: _CONVOLUTION,
    keras.layers.Conv3D: _CONVOLUTION,
    keras.layers.Conv1DTranspose: _TRANSPOSED,
    keras.layers.Conv2DTranspose: _TRANSPOSED,
    keras.layers.Conv3DTranspose: _TRANSPOSED,
    keras.layers.DepthwiseConv1D: _DEPTHWISE,
    keras.layers.DepthwiseConv2D: _DEPTHWISE,
    keras.layers.Embedding: LayerTraits(
        kernel=KernelAxes(filters=0, inputs=None, name="embeddings")
    ),
    # Layers with vectors
    keras.layers.BatchNormalization: LayerTraits(vectors=True, rule=rules.batch_normalization),
    keras.layers.LayerNormalization: _NORMALISATION,
    keras.layers.GroupNormalization: _NORMALISATION,
    keras.layers.RMSNormalization: _NORMALISATION,
    # Activations
    keras.layers.Activation: LayerTraits(
        per_example=_has_per_example_activation, **_WITH_ACTIVATION
    ),
    keras.layers.ReLU: _RELU,
    keras.layers.LeakyReLU: _HOMOGENEOUS,
    keras.layers.ELU: _ELEMENTWISE,
    keras.layers.Softmax: LayerTraits(per_example=_softmax_within_examples),
    keras.layers.Identity: _HOMOGENEOUS,
    # Randomness
    keras.layers.Dropout: _DROPOUT,
    keras.layers.SpatialDropout1D: _SPATIAL_DROPOUT,
    keras.layers.SpatialDropout2D: _SPATIAL_DROPOUT,
    keras.layers.SpatialDropout3D: _SPATIAL_DROPOUT,
    # Pooling
    keras.layers.MaxPooling1D: _SPATIAL,
    keras.layers.MaxPooling2D: _SPATIAL,
    keras.layers.MaxPooling3D: _SPATIAL,
    keras.layers.AveragePooling1D: _SPATIAL,
    keras.layers.AveragePooling2D: _SPATIAL,
    keras.layers.AveragePooling3D: _SPATIAL,
    keras.layers.GlobalMaxPooling1D: _SPATIAL,
    keras.layers.GlobalMaxPooling2D: _SPATIAL,
    keras.layers.GlobalMaxPooling3D: _SPATIAL,
    keras.layers.GlobalAveragePooling1D: _SPATIAL,
    keras.layers.GlobalAveragePooling2D: _SPATIAL,
    keras.layers.GlobalAveragePooling3D: _SPATIAL,
    # Other spatial layers
    keras.layers.ZeroPadding1D: _SPATIAL,
    keras.layers.ZeroPadding2D: _SPATIAL,
    keras.layers.ZeroPadding3D: _SPATIAL,
    keras.layers.Cropping1D: _SPATIAL,
    keras.layers.Cropping2D: _SPATIAL,
    keras.layers.Cropping3D: _SPATIAL,
    keras.layers.UpSampling1D: _SPATIAL,
    keras.layers.UpSampling2D: _SPATIAL,
    keras.layers.UpSampling3D: _SPATIAL,
    # Layers that move or rescale numbers
    keras.layers.Flatten: LayerTraits(per_example=True, channels=_flattened),
    keras.layers.Reshape: LayerTraits(per_example=True, channels=_reshaped),
    keras.layers.Permute: _PER_EXAMPLE,
    keras.layers.Rescaling: _PER_EXAMPLE,
    # Layers of several inputs
    keras.layers.Add: _HOMOGENEOUS_MERGE,
    keras.layers.Subtract: _HOMOGENEOUS_MERGE,
    keras.layers.Average: _HOMOGENEOUS_MERGE,
    keras.layers.Maximum: _HOMOGENEOUS_MERGE,
    keras.layers.Minimum: _HOMOGENEOUS_MERGE,
    keras.layers.Multiply: _ELEMENTWISE_MERGE,
    keras.layers.Concatenate: _CONCATENATE,
    # Operations; Keras exports only the functions
    _operation_type(keras.ops.relu, "Relu"): _HOMOGENEOUS,
    _operation_type(keras.ops.leaky_relu, "LeakyRelu"): _HOMOGENEOUS,
    _operation_type(keras.activations.relu, "ReLU"): _RELU,
    _operation_type(keras.ops.elu, "Elu"): _ELEMENTWISE,
    _operation_type(keras.ops.gelu, "Gelu"): _ELEMENTWISE,
    _operation_type(keras.ops.sigmoid, "Sigmoid"): _ELEMENTWISE,
    _operation_type(keras.ops.silu, "Silu"): _ELEMENTWISE,
    _operation_type(keras.ops.softplus, "Softplus"): _ELEMENTWISE,
    _operation_type(keras.ops.tanh, "Tanh"): _ELEMENTWISE,
    _operation_type(keras.ops.add, "Add"): _HOMOGENEOUS_MERGE,
    _operation_type(keras.ops.subtract, "Subtract"): _HOMOGENEOUS_MERGE,
    _operation_type(keras.ops.maximum, "Maximum"): _HOMOGENEOUS_MERGE,
    _operation_type(keras.ops.minimum, "Minimum"): _HOMOGENEOUS_MERGE,
    _operation_type(keras.ops.multiply, "Multiply"): _ELEMENTWISE_MERGE,
    _operation_type(keras.ops.concatenate, "Concatenate"): _CONCATENATE,
    _operation_type(keras.ops.pad, "Pad"): LayerTraits(
        per_example=_pads_within_examples, channels=_padded
    ),
}


def traits_of(layer: Any) -> LayerTraits:
    """What is known about a layer or operation; nothing unless its exact type has a row."""
    return TRAITS.get(type(layer), LayerTraits()).of(layer)


def kernel_axes(layer: Any) -> KernelAxes | None:
    """The axes of a layer's kernel; None where it has none that we know of."""
    kernel = traits_of(layer).kernel
    return None if callable(kernel) else kernel


def rule_for(layer: Any) -> rules.Rule:
    """How a layer or operation runs with N weight sets at once."""
    traits = traits_of(layer)
    if traits.rule is not None:
        return traits.rule
    return rules.folded if traits.per_example else rules.per_network


def register_layer(
    layer_type: type | None = None,
    *,
    rule: rules.Rule | None = None,
    per_example: Trait | None = None,
    homogeneous: Trait | None = None,
    elementwise: Trait | None = None,
    merges: bool | None = None,
    channels: ChannelMap | None = None,
    kernel: KernelAxes | Callable[[Any], KernelAxes] | None = None,
    vectors: bool | None = None,
) -> Any:
    """Declare what is known about layers of exactly this type.

    Nothing has to be declared: every layer is supported. A rule makes a layer faster; traits let
    the gauge fix scales and orders through it, and split its weights into filters. A wrong
    declaration gives wrong results, so compare a network before and after `Gauge`.

    Register a layer before making a `Target` with it. Traits that were declared before stay unless
    they are given again. A subclass inherits none.

    Args:
        layer_type: A class of layers. None makes a decorator of classes.
        rule: How the layer runs with N weight sets at once. It is called as
            `rule(run, call, args, kwargs)`: `call.operation` is the layer, `run.weights(layer)` its
            weights [N, ...], and the arguments hold a `Value` for each tensor. It returns a
            `Value`, or `per_network(run, call, args, kwargs)` for cases that it does not cover.
        per_example: Whether the layer treats each example by itself, so that all networks' examples
            may run as one batch. Elementwise layers do.
        homogeneous: Whether f(s·x) = s·f(x) for all s > 0, channel by channel and alike for all
            channels. Channels are on the last axis. With a kernel: whether the output's channel is
            multiplied by s where its filter, bias included, is.
        elementwise: Whether the layer treats each number by itself, alike for all numbers. With a
            kernel: whether that holds for what follows the product with the kernel.
        merges: Whether several inputs of the same rank and width become one, position by position.
        channels: For a layer that only moves numbers, a function `channels(call, ids, shapes)`:
            from the ids of each input's channels and its shape without the batch, the ids of the
            output's channels, or None.
        kernel: The axes of the layer's kernel. Its variable is named "kernel", and all others have
            one entry per filter.
        vectors: Whether all variables of one axis have one entry per channel.

        The traits `per_example`, `homogeneous`, `elementwise` and `kernel` may also be functions of
        the layer, where they depend on how it is configured.

    Returns:
        The class, or a decorator.

    Raises:
        TypeError: `layer_type` is not a class.
        ValueError: The traits contradict each other.

    Example:
        >>> @register_layer(homogeneous=True, elementwise=True)
        ... class ScaledReLU(keras.layers.Layer):
        ...     def call(self, x):
        ...         return 2.0 * keras.ops.relu(x)
        >>> def scale(run, call, args, kwargs):
        ...     (factor,) = run.weights(call.operation)                      # [N]
        ...     return Value(run.num_networks, stacked=args[0].stacked * factor[:, None, None])
        >>> register_layer(MyScale, rule=scale)                              # doctest: +SKIP
    """
    declared = {
        "rule": rule,
        "per_example": per_example,
        "homogeneous": homogeneous,
        "elementwise": elementwise,
        "merges": merges,
        "channels": channels,
        "kernel": kernel,
        "vectors": vectors,
    }
    given: dict[str, Any] = {name: trait for name, trait in declared.items() if trait is not None}
    if layer_type is None:
        return lambda decorated: register_layer(decorated, **given)
    if not inspect.isclass(layer_type):
        raise TypeError(
            f"register_layer takes a class of layers, not {layer_type!r}: pass the class itself, "
            "and everything else by name."
        )
    traits = dataclasses.replace(TRAITS.get(layer_type, LayerTraits()), **given)
    traits.check()
    TRAITS[layer_type] = traits
    return layer_type
