"""Multiplicative normalizing flows, a variational posterior of weights."""
