"""Monte Carlo dropout: one trained network, and a set of dropout masks for each sampled network."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from hypernet_tf.checks import check_count, check_fixed, check_number, is_number
from hypernet_tf.samplers.base import WeightSampler
from hypernet_tf.samplers.batching import Part, Share
from hypernet_tf.samplers.deep_ensemble import initializer_config, trained_weights
from hypernet_tf.samplers.draws import Draw
from hypernet_tf.targets import Target
from hypernet_tf.targets.graph import Call, Ref
from hypernet_tf.targets.layers import channels_last, kernel_axes

_DROPOUTS = (
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
_ALL_DROPOUTS = (*_DROPOUTS, keras.layers.GaussianDropout, keras.layers.AlphaDropout)


@keras.saving.register_keras_serializable(package="hypernet_tf")
class MCDropout(WeightSampler):
    """Monte Carlo dropout: networks that share weights and differ in masks (Gal and Ghahramani).

    Each network has one set of dropout masks, the same for all examples, in training and when it is
    sampled. A mask on the inputs of a layer is a mask on its kernel,

        W = diag(mask / (1 - rate)) · K,    mask_i ~ Bernoulli(1 - rate)              (eq. 3)

    and the trained weights K and biases are shared. A `Dropout` or `SpatialDropout` layer of the
    model becomes such a mask if only kernels read it, directly or flattened. Any other one becomes
    a layer (`NetworkDropout`) whose mask derives from a seed of the network, which is part of its
    state. The loss is

        lam · accuracy loss + sum over weights of p · length_scale² / (2 · precision · num_data) K²

    where p is the probability that an input is kept, and 1 for weights without a mask or behind one
    that is a layer (eq. 7, as the authors' program applies it, to K). A step masks N networks, so
    that many small networks average over many masks. Training steps run on the weights as they are;
    samples are gauge-fixed.

    Args:
        target: The `Target`, or a Keras model.
        num_data: Number of training examples.
        rates: Name of a layer with a kernel -> fraction of its inputs that are dropped; beside the
            model's own dropout layers. In a convolution, whole channels are dropped.
        length_scale: Length scale of the prior; its inverse is the standard deviation of a normal
            prior on the weights. 0 for no prior.
        precision: Precision of the observations in a regression; 1 for a classification. The
            accuracy loss is then -log p / precision: half the squared error, so give lam=0.5 with
            Keras's mean squared error.
        initializers: Initializers of the trained weights; see `DeepEnsemble`.
        **kwargs: Options of `WeightSampler`, except prior_scale and diversity: num_networks, lam,
            gauge, seed, ...

    Raises:
        ValueError: The target has no dropout and no rates are given, or an argument is out of
            range.

    Example:
        >>> model = keras.Sequential([keras.Input((784,)), Dense(800, "relu"), Dropout(0.5),
        ...                           Dense(10)])
        >>> sampler = MCDropout(model, num_data=55_000)
        >>> loss = SparseCategoricalCrossentropy(from_logits=True)
        >>> sampler.compile(optimizer="adam", loss=loss)
        >>> sampler.fit(x, y, batch_size=32 * 32, epochs=10)
        >>> sampler.sample(100).evaluate(x_test, y_test)

    Reference: "Dropout as a Bayesian Approximation: Representing Model Uncertainty in Deep
    Learning", arXiv 1506.02142.
    """

    trains_in_gauge = False

    def __init__(
        self,
        target: Target,
        *,
        num_data: int,
        rates: Mapping[str, float] | None = None,
        length_scale: float = 1.0,
        precision: float = 1.0,
        initializers: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        num_data = check_count("num_data", num_data)
        check_number("length_scale", length_scale, above_zero=False)
        check_number("precision", precision)
        if rates is not None and not isinstance(rates, Mapping):
            raise ValueError(f"rates is {rates!r}: give a dict of layers' names and their rates.")
        target = target if isinstance(target, Target) else Target(target)
        masks, layers = read_dropout(target, rates or {})
        check_fixed(self, kwargs, diversity=[], prior_scale=None)
        super().__init__(target.with_layers(layers), diversity=[], prior_scale=None, **kwargs)
        self._target_with_dropout = target
        self.num_data, self.length_scale, self.precision = num_data, length_scale, precision
        self.rates, self.initializers = dict(rates or {}), dict(initializers or {})
        self.masks = masks
        self.theta = trained_weights(self, 1, self.initializers)
        self.built = True

    def draw(self, seed: tf.Tensor, count: int, *, training: bool) -> Draw:
        """The trained weights under the masks of `count` networks."""
        return self.draw_share(seed, count, Share(count, replicas=1), training=training)

    def draw_share(
        self, seed: tf.Tensor, count: int, share: Share | Part, *, training: bool
    ) -> Draw:
        """Some of the networks: it draws all masks and multiplies the weights of its part."""
        weights = [variable.value for variable in self.theta]  # [1, ...]
        for number, mask in enumerate(self.masks):
            mask_seed = tf.random.experimental.stateless_fold_in(seed, number)
            drawn = tf.random.stateless_uniform([count, *mask.shape], mask_seed)
            kept = tf.cast(share.take(drawn) >= mask.rate, weights[0].dtype) / (1 - mask.rate)
            for kernel in mask.kernels:
                weights[kernel.index] = weights[kernel.index] * kernel.scale(kept)  # [N, ...]
        shapes = [[share.num_networks, *tensor.shape[1:]] for tensor in weights]
        return Draw([tf.broadcast_to(*pair) for pair in zip(weights, shapes, strict=True)])

    def extra_loss(self, drawn: Draw) -> tf.Tensor:
        """The negative logarithm of the prior, divided by the number of training examples."""
        kept = dict.fromkeys(range(len(self.theta)), 1.0)
        for mask in self.masks:
            for kernel in mask.kernels:
                kept[kernel.index] *= 1 - mask.rate
        squares = [
            kept[index] * tf.reduce_sum(variable.value**2)
            for index, variable in enumerate(self.theta)
        ]
        return self.length_scale**2 / (2 * self.precision * self.num_data) * tf.add_n(squares)

    def regularization(self, drawn: Draw) -> tf.Tensor:
        """The penalty of the trained weights before dropout masks, as in Keras."""
        return self.target.regularization([variable.value for variable in self.theta])

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {
            "target": keras.saving.serialize_keras_object(
                self._target_with_dropout.with_outputs(self.target.outputs)
            ),
            "num_data": self.num_data,
            "rates": self.rates,
            "length_scale": self.length_scale,
            "precision": self.precision,
            "initializers": initializer_config(self.initializers),
        }


@keras.saving.register_keras_serializable(package="hypernet_tf")
class NetworkDropout(keras.layers.Layer):
    """Dropout with one mask for all examples, in training and outside, a function of a seed.

    The seed is a weight of the layer, so that it differs between the networks of a target and is
    saved with a network. All calls of a layer have this seed: on inputs of one shape they share a
    mask.

    Args:
        rate: Fraction of the numbers that are dropped.
        noise_shape: Shape of the mask without the batch; None for a size of the input, or for all
            of them. Along an axis of size 1 all numbers share a mask.
        **kwargs: Arguments of `keras.layers.Layer`.
    """

    masks_networks = True  # see `require_weights_only`

    def __init__(self, rate: float, *, noise_shape: Sequence[int | None] | None, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate, self.noise_shape = rate, noise_shape and tuple(noise_shape)
        self.supports_masking = True
        # `Target` knows the seeds of layers by this name.
        self.mask_seed = self.add_weight(
            name="seed_generator_state",
            shape=(2,),
            dtype="uint32",
            initializer="zeros",
            trainable=False,
        )

    def call(self, inputs):
        """The inputs, masked and divided by 1 - rate."""
        shape = tf.unstack(tf.shape(inputs))[1:]
        if self.noise_shape is not None:
            sizes = zip(self.noise_shape, shape, strict=True)
            shape = [full if size is None else size for size, full in sizes]
        seed = tf.cast(self.mask_seed.value % (tf.int32.max - 1), tf.int32)  # as in Keras's Dropout
        return tf.nn.experimental.stateless_dropout(
            inputs, rate=self.rate, seed=seed, noise_shape=[1, *shape]
        )

    def compute_output_shape(self, input_shape):
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict:
        """The arguments of the constructor."""
        return super().get_config() | {"rate": self.rate, "noise_shape": self.noise_shape}


# ---- where the masks of a target act ----------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class MaskedKernel:
    """A kernel whose inputs a mask scales.

    Attributes:
        index: Index of the kernel among the target's trainable variables.
        axis: Axis of its inputs in a tensor [N, ...], counted from the end.
        rank: Number of the kernel's axes.
        shape: Shape of one example's numbers that are the inputs, before they are flattened.
    """

    index: int
    axis: int
    rank: int
    shape: tuple[int, ...]

    def scale(self, kept: tf.Tensor) -> tf.Tensor:
        """The factors [N, ...] on the kernel, of masks [N, ...]."""
        inputs = tf.broadcast_to(kept, [kept.shape[0], *self.shape])
        shape = [kept.shape[0], *[1] * self.rank]
        shape[self.axis] = math.prod(self.shape)
        return tf.reshape(inputs, shape)


@dataclasses.dataclass(frozen=True)
class Mask:
    """A dropout mask that acts on kernels.

    Attributes:
        rate: Probability that a number is dropped.
        shape: Shape of one network's mask.
        kernels: The kernels.
    """

    rate: float
    shape: tuple[int, ...]
    kernels: tuple[MaskedKernel, ...]


def read_dropout(
    target: Target, rates: Mapping[str, float]
) -> tuple[list[Mask], list[tuple[Any, Any]]]:
    """The masks of a target's networks.

    Args:
        target: The target.
        rates: Name of a layer with a kernel -> rate of a mask on its inputs.

    Returns:
        The masks that act on kernels; and pairs of a dropout layer and the layer that takes its
        place, so that no mask acts twice.

    Raises:
        ValueError: There is no dropout, or dropout of another kind; a rate is out of range; or a
            layer has no such kernel.
    """
    masks, layers = [], []
    for operation in target.plan.operations:
        if type(operation) not in _DROPOUTS:
            is_keras = type(operation).__module__.partition(".")[0] == "keras"
            is_layer = isinstance(operation, keras.layers.Layer)
            inside = operation._flatten_layers(include_self=False) if is_layer else ()
            drops = is_layer and is_keras and _drops(operation.get_config())
            drops = drops or (isinstance(operation, _ALL_DROPOUTS) and operation.rate)
            if drops or any(isinstance(one, _ALL_DROPOUTS) and one.rate for one in inside):
                raise ValueError(
                    f"The layer '{operation.name}' ({type(operation).__name__}) drops numbers in a "
                    "way that no mask of a network stands for: set its rate to 0, and add Dropout "
                    "layers or rates instead."
                )
            continue
        if not operation.rate:
            continue
        _check_rate(operation.name, operation.rate)
        calls = [call for call in target.plan.calls if call.operation is operation]
        examples = {target.plan.shapes[call.inputs[0]] for call in calls}
        shape: Any = _noise_shape(operation, examples)
        kernels = _readers(target, calls[0].outputs, shape) if len(calls) == 1 else None
        if kernels:
            masks.append(Mask(operation.rate, shape, tuple(kernels)))
            new = keras.layers.Dropout(0.0, name=operation.name, dtype=operation.dtype_policy)
        else:
            new = NetworkDropout(
                operation.rate, noise_shape=shape, name=operation.name, dtype=operation.dtype_policy
            )
        layers.append((operation, new))
    kernels_by_name: dict[str, list] = {}
    for call in target.plan.calls:
        kernel = _kernel_of(target, call)
        if kernel is not None:
            kernels_by_name.setdefault(call.operation.name, []).append(kernel)
    for name, rate in rates.items():
        _check_rate(name, rate)
        if name not in kernels_by_name:
            raise ValueError(
                f"rates has '{name}', which is not a layer with a kernel of its own: choose among "
                f"{', '.join(kernels_by_name)}."
            )
        masks += [Mask(rate, kernel.shape, (kernel,)) for kernel in kernels_by_name[name] if rate]
    if not masks and not layers:
        raise ValueError(
            "The target has no dropout: add Dropout layers to the model, or give the rates of "
            "layers, such as rates={'dense': 0.5}."
        )
    return masks, layers


def _drops(config: Any) -> bool:
    """Whether the configuration of a layer, or of a layer within it, has a rate of dropout."""
    if isinstance(config, (list, tuple)):
        return any(map(_drops, config))
    if not isinstance(config, Mapping):
        return False
    rates: list[Any] = [config.get(key) for key in ("rate", "dropout", "recurrent_dropout")]
    return any(is_number(rate) and rate > 0 for rate in rates) or _drops([*config.values()])


def _check_rate(name: str, rate: float) -> None:
    if not (is_number(rate) and 0 <= rate < 1):
        raise ValueError(
            f"The dropout rate of '{name}' is {rate!r}: give a number from 0 to below 1."
        )


def _noise_shape(layer: Any, examples: set[tuple]) -> tuple | None:
    """The shape of the mask of a dropout layer, without the batch; None for that of its input.

    Args:
        layer: The layer.
        examples: Shapes of the examples on which it is called.
    """
    given = layer.noise_shape[1:] if getattr(layer, "noise_shape", None) else None
    if len(examples) > 1 and type(layer) is keras.layers.Dropout:
        return given
    # Sizes that differ between calls are those of the input.
    example = tuple(
        sizes[0] if len(set(sizes)) == 1 else None for sizes in zip(*examples, strict=True)
    )
    if type(layer) is keras.layers.Dropout:
        given = given or [None] * len(example)
        return tuple(
            full if size is None else size for size, full in zip(given, example, strict=True)
        )
    ones = [1] * (len(example) - 1)
    return (*ones, example[-1]) if channels_last(layer) else (example[0], *ones)


def _readers(target: Target, ref: Ref, shape: tuple) -> list[MaskedKernel] | None:
    """The kernels that read a tensor and nothing else does; None if something else does.

    Args:
        target: The target.
        ref: The tensor.
        shape: Shape of the mask on it, without the batch.
    """
    if ref in keras.tree.flatten(target.plan.outputs) or None in shape:
        return None
    kernels: list[MaskedKernel] = []
    for call in target.plan.calls:
        if ref not in call.inputs:
            continue
        layer = call.operation
        is_flat = type(layer) is keras.layers.Flatten and channels_last(layer)
        if is_flat and None not in target.plan.shapes[ref]:
            full: Any = target.plan.shapes[ref]
            readers = _readers(target, call.outputs, target.plan.shapes[call.outputs])
            if readers is not None:
                readers = [dataclasses.replace(kernel, shape=full) for kernel in readers]
        else:
            kernel = _kernel_of(target, call)
            per_channel = all(size == 1 for size in shape[:-1])
            readers = [dataclasses.replace(kernel, shape=shape)] if kernel and per_channel else None
        if readers is None:
            return None
        kernels += readers
    return kernels


def _kernel_of(target: Target, call: Call) -> MaskedKernel | None:
    """The kernel that multiplies the channels of a call's input, if no other call has it."""
    weighted, axes = target.weighted(call.operation), kernel_axes(call.operation)
    if weighted is None or axes is None or axes.inputs is None:
        return None
    slot = weighted.slots[0]
    if slot.name != axes.name or target.plan.num_calls(call.operation) != 1:
        return None
    return MaskedKernel(slot.index, axes.inputs, len(slot.shape), (slot.shape[axes.inputs],))
