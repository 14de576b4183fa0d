"""Multiplicative normalizing flows, a variational posterior of weights."""

from hypernet_tf.samplers.mnf.mnf import MNF

__all__ = ["MNF"]
