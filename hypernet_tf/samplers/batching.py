"""Dealing a batch of examples out to N networks, and the networks of a step to R replicas.

R replicas compute what one device computes on the whole batch. Every replica knows which networks
are its own, so a batch that is split in order, as Keras splits it, deals the same images to the
same networks as on one device:

* N divides by R: each replica runs N / R networks, the first one the first of them, and so on.
* R divides by N: each network runs on R / N replicas, which share its images.

What compares networks sees all of them, gathered (`Share.gather`).
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


def deal(x: Any, count: int) -> Any:
    """Deal a batch out to N networks.

    Args:
        x: a structure of tensors [M, ...].
        count: N.

    Returns:
        The same as [N, B, ...] with B = ceil(M / N): the first B examples for the first network,
        and so on. Where M does not divide by N, the places left over at the end repeat the first
        examples.
    """
    size = keras.tree.flatten(x)[0].shape[0]

    def share(tensor: Any) -> tf.Tensor:
        tensor = tf.convert_to_tensor(tensor)
        if size is not None and size % count == 0:
            return tf.reshape(tensor, [count, size // count, *tensor.shape[1:]])
        total = tf.shape(tensor)[0]
        each = (total + count - 1) // count
        filled = tf.gather(tensor, tf.range(count * each) % total)
        return _reshape(filled, [count, each], tensor.shape[1:])

    return keras.tree.map_structure(share, x)


def collect(outputs: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """The reverse for outputs: each example's answer once.

    Args:
        outputs: [N, B, ...].
        size: M; the N·B - M places that were filled up are dropped.

    Returns:
        [M, ...], in float32 where they were in half of it.
    """
    whole = tf.shape(outputs)[0] * tf.shape(outputs)[1]
    return widened(_reshape(outputs, [whole], outputs.shape[2:])[:size])


def widened(outputs: tf.Tensor) -> tf.Tensor:
    """Outputs of mixed precision as float32, which losses and diversity terms need."""
    half = outputs.dtype in (tf.float16, tf.bfloat16)
    return tf.cast(outputs, tf.float32) if half else outputs


def _reshape(tensor: tf.Tensor, front: list, rest: tf.TensorShape) -> tf.Tensor:
    """Reshape to [*front, *rest]; of `rest` one axis may be open."""
    return tf.reshape(tensor, [*front, *(-1 if axis is None else axis for axis in rest)])


class Share:
    """Which of N networks this replica runs; all of them outside a strategy's replicas.

    Args:
        num_networks: N.
        replicas: R; None asks the strategy in whose replica this is called.

    Attributes:
        replicas: R.
        num_networks: how many networks this replica runs.
        per_network: how many replicas run the same network: 1, or R / N.

    Raises:
        ValueError: neither of N and R divides by the other.
    """

    def __init__(self, networks: int, replicas: int | None = None):
        context = tf.distribute.get_replica_context()  # None across replicas
        self._context = context if replicas is None else None
        if replicas is None:
            replicas = context.num_replicas_in_sync if context else 1
        self.replicas = replicas
        self.total = networks
        if networks % replicas and replicas % networks:
            raise ValueError(
                f"{networks} networks cannot be shared out to {replicas} devices: take a number of "
                "networks that divides by that of devices, or the reverse"
            )
        self.num_networks = max(1, networks // replicas)
        self.per_network = max(1, replicas // networks)

    def take(self, tensor: Any) -> Any:
        """This replica's part [N / R, ...] of a tensor [N, ...]; None stays None."""
        if self.replicas == 1 or tensor is None:
            return tensor
        number = self._context.replica_id_in_sync_group  # type: ignore[union-attr]
        start = number * self.total // self.replicas
        part = tensor[start : start + self.num_networks]
        return tf.ensure_shape(part, [self.num_networks, *tensor.shape[1:]])

    def gather(self, tensor: Any) -> Any:
        """The whole [N, ...] of parts [N / R, ...], each network once; None stays None.

        Its gradient sums over replicas: a scalar of the whole that each replica computes has to be
        divided by R before.
        """
        if self.replicas == 1 or tensor is None:
            return tensor
        whole = self._context.all_gather(tensor, axis=0)  # type: ignore[union-attr]
        return tf.ensure_shape(whole[:: self.per_network], [self.total, *tensor.shape[1:]])

    def first(self, tensor: tf.Tensor) -> tf.Tensor:
        """What the first network has [B, ...], of what each replica's first one has."""
        if self.replicas == 1:
            return tensor
        whole = self._context.all_gather(tensor, axis=0)  # type: ignore[union-attr]
        return whole[: self.per_network * tf.shape(tensor)[0]]

    def check(self, optimizer: keras.optimizers.Optimizer, target: Any) -> None:
        """Hold what would differ from one device against the number of replicas.

        Raises:
            ValueError: the optimizer clips gradients, which Keras does before they are summed; or
                batch normalisation in a network of several replicas, but not of all.
        """
        if self.replicas == 1:
            return
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        for name in ("clipnorm", "global_clipnorm", "clipvalue"):
            if getattr(inner, name, None):
                raise ValueError(
                    f"{name} clips each device's part of the gradient, not the whole: compile "
                    "without it, or train on one device"
                )
        norms = [
            layer
            for layer in target.plan.operations
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        for norm in norms:
            # A network that has a replica to itself has all its images there.
            norm.synchronized = self.per_network == self.replicas
        if norms and 1 < self.per_network < self.replicas:
            raise ValueError(
                f"batch normalisation in {self.total} networks on {self.replicas} devices: take "
                f"{self.replicas} networks, or 1"
            )
