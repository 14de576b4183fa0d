"""The networks whose weights are generated."""

from hypernet_tf.targets import zoo
from hypernet_tf.targets.gauge import Gauge
from hypernet_tf.targets.layer import TargetLayer
from hypernet_tf.targets.networks import Value, WeightSet
from hypernet_tf.targets.rules import per_network, register_rule
from hypernet_tf.targets.target import Target

__all__ = [
    "Gauge",
    "Target",
    "TargetLayer",
    "Value",
    "WeightSet",
    "per_network",
    "register_rule",
    "zoo",
]
