"""The symmetries of a target, and how they are fixed."""

from hypernet_tf.gauge.gauge import Gauge

__all__ = ["Gauge"]
