"""The networks whose weights are generated."""

from hypernet_tf.targets import zoo
from hypernet_tf.targets.execution import Value, per_network, register_rule
from hypernet_tf.targets.target import Target, TargetLayer
from hypernet_tf.targets.weights import WeightSet

__all__ = [
    "Target",
    "TargetLayer",
    "Value",
    "WeightSet",
    "per_network",
    "register_rule",
    "zoo",
]
