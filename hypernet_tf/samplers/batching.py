"""Dealing a batch of examples out to N networks, and the networks of a step to R replicas.

R replicas compute what one device computes on the whole batch. Every replica knows which networks
it runs, so a batch that Keras splits in order deals the same images to the same networks as on one
device:

* N is divisible by R: each replica runs N / R networks, the first replica the first of them.
* R is divisible by N: each network runs on R / N replicas, which share its images. Dropout then has
  the same pattern in each part of them, and in this differs from one device.

Terms that compare networks see all of them, gathered (`Share.gather`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from hypernet_tf.samplers.optimizers import plain_optimizers
from hypernet_tf.targets import Target


class Dealt(NamedTuple):
    """A batch of examples, dealt out to the networks of one replica.

    Attributes:
        x: Inputs [N, B, ...], a structure of tensors; [B, ...] if all networks share them.
        y: Labels of all N·B inputs, [N·B, ...], or None.
        sample_weight: Weights of all N·B inputs, or None.
        num_answers: How many of the N·B answers count in the loss and the metrics: the first ones.
        shared: Whether all networks share the inputs.
        loss_weight: Factor on the mean loss of this replica's answers, so that all answers of all
            replicas count alike: R · its answers / all answers.
    """

    x: Any
    y: Any
    sample_weight: Any
    num_answers: Any
    loss_weight: Any = 1.0
    shared: bool = False

    def collect(self, outputs: tf.Tensor) -> tf.Tensor:
        """The answers that count.

        Args:
            outputs: Outputs [N, B, ...] of the networks on `x`.

        Returns:
            [num_answers, ...], in float32 if the outputs are in half precision.
        """
        size = tf.shape(outputs)[0] * tf.shape(outputs)[1]
        return widened(_reshape(outputs, [size], outputs.shape[2:])[: self.num_answers])

    def masks(self, target: Target, num_networks: int) -> Any:
        """Keras masks of the answers that count, [num_answers, ...]; None for outputs without one.

        Args:
            target: The target.
            num_networks: N.
        """
        if self.shared:
            return repeat_for_networks(target.output_masks(self.x), num_networks)
        return map_tensors(
            lambda t: t[: self.num_answers], target.output_masks(merge_networks(self.x))
        )

    def labels(self) -> tuple[Any, Any]:
        """Labels and sample weights of the answers that count, [num_answers, ...]."""
        return map_tensors(lambda tensor: tensor[: self.num_answers], (self.y, self.sample_weight))


def widened(outputs: tf.Tensor) -> tf.Tensor:
    """Outputs of mixed precision as float32, which losses and diversity terms need."""
    half = outputs.dtype in (tf.float16, tf.bfloat16)
    return tf.cast(outputs, tf.float32) if half else outputs


def map_tensors(function: Callable[[tf.Tensor], Any], structure: Any) -> Any:
    """Apply a function to all tensors of a structure; None stays None."""
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else function(tf.convert_to_tensor(leaf)), structure
    )


def repeat_for_networks(structure: Any, count: int) -> Any:
    """Repeat tensors [M, ...] once for each of N networks, [N · M, ...]; None stays None."""
    return map_tensors(lambda t: tf.tile(t, [count] + [1] * (t.shape.rank - 1)), structure)


def merge_networks(structure: Any) -> Any:
    """Merge the first two axes of tensors [N, M, ...], [N · M, ...]; None stays None."""
    return map_tensors(lambda t: _reshape(t, [-1], t.shape[2:]), structure)


def _reshape(tensor: tf.Tensor, front: list, rest: tf.TensorShape) -> tf.Tensor:
    """Reshape to [*front, *rest], where `rest` are the last axes of the tensor."""
    sizes = tf.shape(tensor)[tensor.shape.rank - rest.rank :]
    known = [sizes[index] if axis is None else axis for index, axis in enumerate(rest)]
    return tf.reshape(tensor, [*front, *known])


class Part(NamedTuple):
    """Some networks, one after the other, of all that are drawn.

    Attributes:
        start: Number of the first of them, a tensor.
        num_networks: How many they are.
    """

    start: tf.Tensor
    num_networks: int

    def take(self, tensor: Any) -> Any:
        """Their part [num_networks, ...] of a tensor [N, ...]; None stays None."""
        if tensor is None:
            return None
        part = tensor[self.start : self.start + self.num_networks]
        return tf.ensure_shape(part, [self.num_networks, *tensor.shape[1:]])


class Share:
    """The networks of a step that this replica runs; all of them outside of a strategy's replicas.

    Args:
        total: N, number of networks of the step.
        replicas: R, number of replicas; None asks the strategy in whose replica this is called.

    Attributes:
        num_networks: Number of networks that this replica runs.
        per_network: Number of replicas that run the same network: 1, or R / N.

    Raises:
        ValueError: Neither of N and R is divisible by the other.
    """

    def __init__(self, total: int, replicas: int | None = None):
        context = tf.distribute.get_replica_context()  # None across replicas
        self._context = context if replicas is None else None
        if replicas is None:
            replicas = context.num_replicas_in_sync if context else 1
        self.replicas = replicas
        self.total = total
        if total % replicas and replicas % total:
            raise ValueError(
                f"Cannot share {total} networks among {replicas} devices: choose a number of "
                "networks that is divisible by the number of devices, or the reverse."
            )
        self.num_networks = max(1, total // replicas)
        self.per_network = max(1, replicas // total)

    @property
    def _replica_id(self) -> Any:
        return self._context.replica_id_in_sync_group  # type: ignore[union-attr]

    def deal(
        self, x: Any, y: Any = None, sample_weight: Any = None, *, equal: bool = False
    ) -> Dealt:
        """Deal a batch of M examples out to the networks of this replica.

        The first B = ceil(M / N) examples are for the first network, and so on. If M is not
        divisible by N, the places left over at the end repeat the first examples. The repeated
        answers count only if a network would otherwise have no example, as in a batch with M < N,
        or if all networks are to count alike.

        Several replicas each hold a part of the batch. If its size is fixed and divisible by the
        number of their networks, the parts are equal, and each replica deals out its own.
        Otherwise (the last batch of an epoch) a part may be smaller, or empty: all parts are
        gathered, and each replica takes the examples of its networks.

        Args:
            x: Inputs [M, ...], a structure of tensors.
            y: Labels [M, ...], or None.
            sample_weight: Weights of the examples, or None.
            equal: Whether each network has as many answers as any other: networks that are there
                in every step would otherwise train on means of more and of fewer examples.
        """
        count, slots, first = self.num_networks, self.num_networks, 0
        size = keras.tree.flatten(x)[0].shape[0]
        if size is not None and size % count == 0:
            each = size // count
            dealt = map_tensors(lambda t: _reshape(t, [count, each], t.shape[1:]), x)
            return Dealt(dealt, y, sample_weight, size)
        if self.replicas > 1:
            x, y, sample_weight = map_tensors(self._all_examples, (x, y, sample_weight))
            slots, first = count * self.replicas, count * self._replica_id
        if size is None or self.replicas > 1:
            size = tf.shape(keras.tree.flatten(x)[0])[0]
        each = (size + slots - 1) // slots
        answers = slots * each
        if not equal:
            answers = tf.where((slots - 1) * each < size, size, answers)
        index = (first * each + tf.range(count * each)) % size
        y, sample_weight = map_tensors(lambda t: tf.gather(t, index), (y, sample_weight))
        dealt = map_tensors(lambda t: _reshape(tf.gather(t, index), [count, each], t.shape[1:]), x)
        local = tf.minimum(answers - first * each, count * each)
        weight = 1.0
        if self.replicas > 1:
            weight = self.replicas * tf.cast(local, tf.float32) / tf.cast(answers, tf.float32)
        return Dealt(dealt, y, sample_weight, local, weight)

    def hand_out(self, x: Any, y: Any = None, sample_weight: Any = None) -> Dealt:
        """Hand the whole batch of B examples to every network of this replica.

        Several replicas each hold a part of the batch, which is gathered. The arguments are those
        of `deal`.

        Raises:
            ValueError: There are more replicas than networks.
        """
        if self.per_network > 1:
            raise ValueError(
                f"Cannot share {self.total} networks with the same inputs among {self.replicas} "
                "devices: use at least as many networks as devices."
            )
        if self.replicas > 1:
            x, y, sample_weight = map_tensors(self._all_examples, (x, y, sample_weight))
        first, count = keras.tree.flatten(x)[0], self.num_networks
        size = tf.shape(first)[0] if first.shape[0] is None else first.shape[0]
        y, sample_weight = repeat_for_networks((y, sample_weight), count)
        return Dealt(map_tensors(tf.identity, x), y, sample_weight, count * size, shared=True)

    def take(self, tensor: Any) -> Any:
        """This replica's part [N / R, ...] of a tensor [N, ...]; None stays None."""
        if self.replicas == 1:
            return tensor
        start = self._replica_id * self.total // self.replicas
        return Part(start, self.num_networks).take(tensor)

    def gather(self, tensor: Any) -> Any:
        """The whole [N, ...] of parts [N / R, ...], each network once; None stays None.

        Its gradient sums over replicas: divide a scalar of the whole, which each replica computes,
        by R.
        """
        if self.replicas == 1 or tensor is None:
            return tensor
        whole = self._all_examples(tensor)
        return tf.ensure_shape(whole[:: self.per_network], [self.total, *tensor.shape[1:]])

    def first(self, tensor: tf.Tensor) -> tf.Tensor:
        """The examples [B, ...] of the first network.

        Args:
            tensor: Examples of the first network of this replica.
        """
        if self.replicas == 1:
            return tensor
        return self._all_examples(tensor)[: self.per_network * tf.shape(tensor)[0]]

    def _all_examples(self, tensor: tf.Tensor) -> tf.Tensor:
        return self._context.all_gather(tensor, axis=0)  # type: ignore[union-attr]

    def check_clipping(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Check that an optimizer clips no gradients, which Keras does before it sums them.

        Raises:
            ValueError: It does, and there are several replicas.
        """
        for name in ("clipnorm", "global_clipnorm", "clipvalue"):
            if self.replicas > 1 and any(
                getattr(one, name, None) for one in plain_optimizers(optimizer)
            ):
                raise ValueError(
                    f"{name} clips each device's part of the gradient, not the whole: compile "
                    "without it, or train on one device."
                )

    def check(
        self, optimizer: keras.optimizers.Optimizer, target: Target, loss: Any = None
    ) -> None:
        """Check that R replicas compute what one device does.

        Raises:
            ValueError: The optimizer clips gradients, which Keras does before it sums them; a loss
                divides by what counts on a device, or the outputs of the target have masks, by
                which it does; or the target has batch normalisation, and the statistics of a
                network are not those of all its images.
        """
        if self.replicas == 1:
            return
        self.check_clipping(optimizer)
        for one in keras.tree.flatten(loss):
            for name, usual in (("ignore_class", None), ("reduction", "sum_over_batch_size")):
                value = getattr(one, name, usual)
                if value not in (usual, "mean"):
                    raise ValueError(
                        f"A loss with {name}={value!r} divides by the answers that count on each "
                        "device, not on all: train on one device, or give the loss "
                        f"{name}={usual!r}."
                    )
        if target.has_masks:
            raise ValueError(
                "Keras divides a loss by the steps that a mask leaves on each device, not on all: "
                "train on one device, or without a mask and with sample weights [M, steps]."
            )
        norms = [
            layer
            for layer in target.plan.operations
            if isinstance(layer, keras.layers.BatchNormalization)
        ]
        if norms and 1 < self.per_network < self.replicas:
            raise ValueError(
                f"Cannot run batch normalisation of {self.total} networks on {self.replicas} "
                f"devices: use {self.replicas} networks, or 1."
            )
        # A network that has a replica to itself has all its images there.
        if any(norm.synchronized != (self.total == 1) for norm in norms):
            raise ValueError(
                f"Batch normalisation was built for one device, not for {self.replicas}: make the "
                "sampler inside `strategy.scope()`."
            )
