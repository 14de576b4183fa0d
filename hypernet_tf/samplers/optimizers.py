"""The optimizers inside of what a sampler is compiled with."""

from __future__ import annotations

import keras


def plain_optimizers(optimizer: keras.optimizers.Optimizer) -> list[keras.optimizers.Optimizer]:
    """The optimizers that make the steps: one, or those of a `keras.optimizers.MultiOptimizer`."""
    plain = plain_optimizer(optimizer)
    return list(getattr(plain, "optimizers", [plain]))


def plain_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer that makes the steps: that inside one which scales the loss, or the same."""
    return getattr(optimizer, "inner_optimizer", optimizer)
