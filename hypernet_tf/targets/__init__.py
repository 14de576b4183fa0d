"""The networks whose weights are generated."""

from hypernet_tf.targets import zoo
from hypernet_tf.targets.layers import KernelAxes, register_layer
from hypernet_tf.targets.rules import Value, per_network
from hypernet_tf.targets.target import Target, TargetLayer
from hypernet_tf.targets.weights import WeightSet

__all__ = [
    "KernelAxes",
    "Target",
    "TargetLayer",
    "Value",
    "WeightSet",
    "per_network",
    "register_layer",
    "zoo",
]
