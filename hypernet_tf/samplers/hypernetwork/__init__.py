"""The hypernetwork: z -> codes of filters -> weights."""

from hypernet_tf.samplers.hypernetwork.hypernetwork import Hypernetwork

__all__ = ["Hypernetwork"]
