"""`Target`: an ordinary Keras model, run with N weight sets at once."""

from __future__ import annotations

import copy
import functools
import math
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.checks import check_choice
from hypernet_tf.targets.execution import input_value, run_plan, with_masks
from hypernet_tf.targets.filters import channel_units, describe_layers
from hypernet_tf.targets.graph import copied, in_order, record, replay
from hypernet_tf.targets.outputs import (
    Outputs,
    check_outputs,
    infer_outputs,
    is_softmax,
    last_layer,
    linear,
)
from hypernet_tf.targets.rules import NetworkRun
from hypernet_tf.targets.weights import WeightSet

# How convolutions with one kernel per network run; "auto": grouped where TensorFlow sees a GPU.
Convolutions = Literal["auto", "unrolled", "grouped"]
# What inputs [M, ...] of a `TargetLayer` are: examples of all networks, or one for each network.
ExampleSharing = Literal["shared", "one_each"]

_SUMS_OVER_WEIGHTS = (
    keras.regularizers.L1,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
)
_SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)


# What a model of Keras may take, and networks that run together do not.
_NOT_DENSE = (tf.SparseTensor, tf.SparseTensorSpec, tf.RaggedTensor, tf.RaggedTensorSpec)


@keras.saving.register_keras_serializable(package="hypernet_tf")
class Target:
    """The network whose weights are generated: a template that runs with any N weight sets.

    A target never changes after it is made.

    Args:
        model: A built Sequential or Functional Keras model. It is copied and never changed. Its
            trainable weights are not used; its non-trainable ones (frozen layers, batch
            normalisation's statistics) are, as every network's initial state.
        outputs: What the model returns: "logits" (unnormalised log-probabilities of the classes),
            "probabilities", "label_logits" or "label_probabilities" (one column for each of several
            labels, any number of which an example has), or "values" (regression). None reads it off
            the last layer of each output: probabilities where it ends in a softmax or in one
            sigmoid, label probabilities where it ends in several sigmoids, otherwise values, until
            a sampler is compiled with a classification loss that has `from_logits=True`.
        convolutions: How convolutions run: "unrolled" over networks, "grouped" into one, or "auto":
            grouped where TensorFlow sees a GPU.

    Attributes:
        layers: The layers whose weights are generated (`WeightedLayer`), in the order of their
            first call.
        units: The same layers, each together with the batch normalisation that directly follows.
        slots: The variables of a network, in the order of the model's trainable variables.
        weight_count: D, the number of weights of one network.
        outputs: What the model returns, as in the arguments, never None.
        plan: The model's calls (`Plan`).

    Raises:
        ValueError: The model has no graph, cannot be copied, has no trainable weights, or has
            constraints, regularizers of activities, or batch normalisation inside another layer; or
            its outputs are not what `outputs` says.

    Example:
        >>> target = Target(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        >>> target.weight_count
        10
        >>> weights = target.unflatten(tf.ones([3, 10]))          # 3 networks
        >>> target(weights, tf.ones([5, 4])).shape                # on the same 5 inputs
        TensorShape([3, 5, 2])
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        outputs: Outputs | None = None,
        convolutions: Convolutions = "auto",
    ):
        check_choice("convolutions", convolutions, Convolutions)
        _check_training(model)
        self._template = template = copied(model)
        self.plan = record(template)
        self._convolutions = convolutions
        self._trainable = template.trainable_variables
        self._state = template.non_trainable_variables
        # Inside of a call in mixed precision Keras's variables say that they have half of it.
        self._state_dtypes = [variable.dtype for variable in self._state]
        self.name = model.name
        if not self._trainable:
            raise ValueError(
                f"The model '{self.name}' has no trainable weights to generate: unfreeze a layer "
                "or add one."
            )
        self._weighted = describe_layers(self.plan.operations, self._trainable)
        self.layers = tuple(self._weighted.values())
        slots = (slot for layer in self.layers for slot in layer.slots)
        self.slots = sorted(slots, key=lambda slot: slot.index)
        self.units = channel_units(self.plan, self._weighted)
        self.weight_count = sum(math.prod(v.shape) for v in self._trainable)
        self._outputs: Outputs = infer_outputs(self.plan) if outputs is None else outputs
        check_outputs(self.plan, self._outputs, self.name)

    @property
    def outputs(self) -> Outputs:
        """What the model returns, one of the words of the argument `outputs`."""
        return self._outputs

    # ---- other targets from this one --------------------------------------------------------

    def with_outputs(self, outputs: Outputs) -> Target:
        """A target of the same model whose outputs mean something else.

        The two share the model, the plan and what TensorFlow has traced.

        Args:
            outputs: What the model returns.

        Raises:
            ValueError: The model's outputs cannot be that.

        Example:
            >>> Target(zoo.mnist()).with_outputs("logits").classes
            10
        """
        check_outputs(self.plan, outputs, self.name)
        target = copy.copy(self)
        target.__dict__.pop("with_logits", None)  # those of the outputs before
        target._outputs = outputs
        return target

    def with_batch_norm(self, *, synchronized: bool) -> Target:
        """A target whose batch normalisations are, or are not, synchronized between replicas.

        The result takes the same weight sets. It has a copy of the model, with the values that
        frozen layers have now, unless nothing has to change. Call it outside of a `tf.function`,
        since it makes variables.

        Args:
            synchronized: Whether a batch normalisation computes its statistics over the batches of
                all replicas.
        """
        norms = [op for op in self.plan.operations if _is_batch_norm(op)]
        if all(norm.synchronized == synchronized for norm in norms):
            return self
        model = copied(self._template, synchronized=synchronized)
        return Target(model, outputs=self.outputs, convolutions=self._convolutions)

    def with_layers(self, replacements: Sequence[tuple[Any, Any]]) -> Target:
        """A target with other layers in place of some that have no trainable weights.

        Args:
            replacements: Pairs of a layer of the plan and the Keras layer that takes its place.

        Example:
            >>> target.with_layers([(dropout, keras.layers.Identity())])
        """
        model = copied(self._template, replacements=replacements)
        return Target(model, outputs=self.outputs, convolutions=self._convolutions)

    @functools.cached_property
    def without_activations(self) -> tuple[Target, list[Callable | None]]:
        """The same networks without the softmax or sigmoid at the end of outputs, and these.

        What a softmax or sigmoid was given tells how sure a network is where probabilities round to
        0 and 1. An output keeps what something else than a layer of Keras's applies: a `keras.ops`
        call, a frozen layer, or a layer of the user's.

        Returns:
            A target whose outputs are "values", the target itself if no output ends so; and the
            function of Keras's for each output, None where there is none.
        """
        ends = [last_layer(self.plan, ref) for ref in keras.tree.flatten(self.plan.outputs)]
        if not any(ends):
            return self, [None] * len(ends)
        state = random.getstate()  # Keras draws seeds from it, on which first weights depend
        try:
            replacements = {id(layer): (layer, linear(layer)) for layer in filter(None, ends)}
            with tf.init_scope():  # an attack may run in a graph
                model = copied(self._template, replacements=[*replacements.values()])
                target = Target(model, outputs="values", convolutions=self._convolutions)
        finally:
            random.setstate(state)
        softmax, sigmoid = keras.activations.softmax, keras.activations.sigmoid
        return target, [end and (softmax if is_softmax(end) else sigmoid) for end in ends]

    @functools.cached_property
    def with_logits(self) -> Target:
        """The same networks without the softmax or sigmoid of their last layer: on equal weights.

        It is the target itself where outputs are not probabilities of classes, or something else
        than the softmax or sigmoid of a layer makes them; see `without_activations`.
        """
        kinds: dict[str, Outputs] = {
            "probabilities": "logits",
            "label_probabilities": "label_logits",
        }
        if (
            self.outputs not in kinds
            or infer_outputs(self.plan) != self.outputs  # probabilities of another kind
            or self.classes is None
        ):
            return self
        target, functions = self.without_activations
        return target.with_outputs(kinds[self.outputs]) if functions[0] else self

    # ---- reading the model ------------------------------------------------------------------

    def weighted(self, operation: Any) -> Any:
        """The generated weights of a layer of the plan; None where it owns none of them."""
        return self._weighted.get(id(operation))

    def state_index(self, variable: Any) -> int:
        """The index in the state of a non-trainable variable of the plan's layers."""
        return next(index for index, v in enumerate(self._state) if v is variable)

    @property
    def frozen(self) -> list:
        """The template's variables that every network starts with: all state except seeds."""
        return [v for v in self._state if not _is_seed(v)]

    @property
    def statistics(self) -> list[tuple[int, float]]:
        """The moving statistics of batch normalisation: their index in the state, their momentum.

        The momentum is the part of the old statistics that one run of the model keeps; a run may
        call a layer more than once.
        """
        return [
            (self.state_index(v), norm.momentum ** self.plan.num_calls(norm))
            for norm in self.plan.operations
            if _is_batch_norm(norm) and norm.trainable
            for v in norm.non_trainable_variables
        ]

    def check_state(self, before: list[tf.Tensor], after: list[tf.Tensor]) -> None:
        """Check that a training step leaves the state alone, from which each new network starts.

        The statistics of batch normalisation, which are computed for each network, and the seeds of
        dropout may change.

        Args:
            before: State that `run` was given.
            after: State that it returned.

        Raises:
            ValueError: A layer changes other state as it trains.
        """
        may_change = {index for index, _ in self.statistics}
        for index, (variable, old, new) in enumerate(zip(self._state, before, after, strict=True)):
            if new is not old and index not in may_change and not _is_seed(variable):
                raise ValueError(
                    f"The model changes its variable '{variable.path}' as it trains, but each "
                    "network that is drawn starts from the first value: make the layer compute its "
                    "outputs from inputs and weights alone."
                )

    def activations_per_example(self, x: Any = None) -> int:
        """The number of activations that one network computes for one example, in all layers.

        Args:
            x: Inputs [M, ...], structured as the model's inputs. Every axis that the model leaves
                open is taken to be as long as the longest of theirs; 1 if there are no inputs.
        """
        longest = 1 if x is None else self.longest_open_axis(x)
        return sum(math.prod(d or longest for d in shape) for shape in self.plan.shapes.values())

    def longest_open_axis(self, x: Any) -> int:
        """The longest of the axes of inputs whose size the model leaves open; 1 if there is none.

        Args:
            x: Inputs [M, ...], structured as the model's inputs.
        """
        refs = keras.tree.flatten(self.plan.inputs)
        sizes = [
            size
            for tensor, ref in zip(self.inputs_in_order(x), refs, strict=True)
            for size, given in zip(np.shape(tensor)[1:], self.plan.shapes[ref], strict=False)
            if given is None
        ]
        return max(sizes, default=1)

    @property
    def has_open_axes(self) -> bool:
        """Whether the model leaves the size of an axis of its inputs open."""
        refs = keras.tree.flatten(self.plan.inputs)
        return any(size is None for ref in refs for size in self.plan.shapes[ref])

    @property
    def input_shape(self) -> Any:
        """The shape of one input, without the batch; structured as the model's inputs."""
        return keras.tree.map_structure(lambda ref: self.plan.shapes[ref], self.plan.inputs)

    @property
    def input_spec(self) -> Any:
        """A `tf.TensorSpec` [M, ...] for each input, structured as the model's inputs.

        A single input is named "inputs"; several have the names that the model gives them.
        """
        tensors = self._template.inputs
        names = ["inputs"] if len(tensors) == 1 else [tensor.name for tensor in tensors]
        specs = [
            tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype, name)
            for tensor, name in zip(tensors, names, strict=True)
        ]
        return keras.tree.pack_sequence_as(self.plan.inputs, specs)

    # ---- what the outputs mean --------------------------------------------------------------

    @property
    def output_names(self) -> list[str]:
        """The names of the outputs, in order."""
        if isinstance(self._template, keras.Sequential):
            return [self._template.layers[-1].name]
        return list(self._template.output_names)

    @property
    def output_dtypes(self) -> dict[str, str]:
        """Name of each output of the model -> its type, such as "float32"."""
        types = [keras.backend.standardize_dtype(t.dtype) for t in self._template.outputs]
        return dict(zip(self.output_names, types, strict=True))

    @property
    def classes(self) -> int | None:
        """The number of classes; None for values and for several outputs.

        For labels it is 2: each of them is absent (class 0) or present (class 1).
        """
        refs = keras.tree.flatten(self.plan.outputs)
        if self.outputs == "values" or len(refs) != 1:
            return None
        if self.has_labels:
            return 2
        size = self.plan.shapes[refs[0]][-1]
        return 2 if size == 1 else size

    @property
    def has_labels(self) -> bool:
        """Whether each column of the output is a label that an example has or does not have."""
        return self.outputs in ("label_logits", "label_probabilities")

    @property
    def choices_shape(self) -> tuple:
        """Shape of the choices among classes for each example.

        () for one class, (L,) for L labels, (height, width) for a class map, (height, width, L) for
        L labels of each pixel; an axis is None where the model leaves its size open. Only for a
        target with classes.
        """
        (ref,) = keras.tree.flatten(self.plan.outputs)
        shape = tuple(self.plan.shapes[ref])
        return shape if self.has_labels else shape[:-1]

    def require_classes(self, what: str) -> int:
        """C, the number of classes among which each example has one.

        Args:
            what: What needs them, for the error.

        Raises:
            ValueError: The target returns values, several labels, or a class for each pixel.
        """
        num_classes = self.require_choices(what)
        if self.choices_shape:
            raise ValueError(f"{what} needs one choice of class per example: use predict()")
        return num_classes

    def require_choices(self, what: str) -> int:
        """C, the number of classes among which each example has one or more choices.

        Args:
            what: What needs them, for the error.

        Raises:
            ValueError: The target returns values.
        """
        if len(keras.tree.flatten(self.plan.outputs)) != 1:
            raise ValueError(f"{what} needs a target with one output: use predict()")
        if self.classes is None:
            raise ValueError(
                f"{what} needs classes, but the target returns values: use predict(), or "
                "outputs(), which returns those of all networks; or say "
                "Target(model, outputs='logits') if they are logits"
            )
        return self.classes

    def activate(self, outputs: tf.Tensor) -> tf.Tensor:
        """Outputs that may be averaged over networks: logits become probabilities.

        Half precision and integers become float32, in which a mean over networks neither overflows
        nor rounds.
        """
        if not outputs.dtype.is_floating or outputs.dtype in (tf.float16, tf.bfloat16):
            outputs = tf.cast(outputs, tf.float32)
        if self.outputs == "label_logits":
            return tf.sigmoid(outputs)
        probabilities = tf.sigmoid if outputs.shape[-1] == 1 else tf.nn.softmax
        return probabilities(outputs) if self.outputs == "logits" else outputs

    def centred(self, outputs: tf.Tensor) -> tf.Tensor:
        """Outputs in their gauge: logits of several classes minus their mean.

        The mean of the logits changes no probability.
        """
        has_gauge = self.outputs == "logits" and outputs.shape[-1] > 1
        return outputs - tf.reduce_mean(outputs, -1, keepdims=True) if has_gauge else outputs

    def log_probabilities(self, outputs: tf.Tensor) -> tf.Tensor:
        """The logarithm of each class's probability, [..., C], in nats.

        Args:
            outputs: Outputs of a target of classes: [..., C], or [..., 1] where one column tells
                two classes apart; or [..., L] of L labels, for which the result is [..., L, 2]. A
                probability of 0 counts as 1.2e-38, the smallest of float32.
        """
        if outputs.dtype.size < 4:
            outputs = tf.cast(outputs, tf.float32)
        if self.has_labels:
            outputs = outputs[..., None]
        one_column = outputs.shape[-1] == 1  # the probability or logit of the second of two classes
        if self.outputs in ("logits", "label_logits"):
            if one_column:
                return tf.math.log_sigmoid(tf.concat([-outputs, outputs], -1))
            return tf.nn.log_softmax(outputs)
        if one_column:
            outputs = tf.concat([1.0 - outputs, outputs], -1)
        return tf.math.log(tf.maximum(outputs, _SMALLEST_PROBABILITY))

    # ---- weight sets ------------------------------------------------------------------------

    @property
    def regularizers(self) -> list:
        """The regularizer of each trainable variable of the model, None where there is none."""
        return [variable.regularizer for variable in self._trainable]

    def regularization(self, trainable: Sequence[tf.Tensor]) -> tf.Tensor:
        """The penalty of the model's regularizers for one network, the mean over networks.

        Args:
            trainable: Weights [N, ...] for each trainable variable of the model, in its order.

        Returns:
            A scalar, 0 for a model without regularizers.

        Example:
            >>> dense = keras.layers.Dense(2, kernel_regularizer=keras.regularizers.L2(0.5))
            >>> target = Target(keras.Sequential([keras.Input((4,)), dense]))
            >>> float(target.regularization([tf.ones([3, 4, 2]), tf.ones([3, 2])]))
            4.0
        """

        def penalty(regularizer: Callable, tensor: tf.Tensor) -> tf.Tensor:
            if type(regularizer) in _SUMS_OVER_WEIGHTS:  # also over those of all networks
                total = regularizer(tensor)
                return tf.cast(total / tf.cast(tf.shape(tensor)[0], total.dtype), tf.float32)
            each = tf.vectorized_map(lambda one: tf.reduce_sum(regularizer(one)), tensor)
            return tf.cast(tf.reduce_mean(each), tf.float32)

        penalties = [
            penalty(regularizer, tensor)
            for regularizer, tensor in zip(self.regularizers, trainable, strict=True)
            if regularizer is not None
        ]
        return tf.add_n(penalties) if penalties else tf.zeros([])

    def has_weights_of(self, other: Target) -> bool:
        """Whether the networks of another target have weights of the same shapes.

        Args:
            other: The other target.
        """
        return [slot.shape for slot in self.slots] == [slot.shape for slot in other.slots]

    def assemble(self, rows: list[tf.Tensor]) -> list[tf.Tensor]:
        """Weights from generator rows.

        Args:
            rows: One tensor [N, F, row_size] or [N, 1, size] for each layer.

        Returns:
            One tensor [N, ...] for each trainable variable of the model, in its order.
        """
        weights: list[Any] = [None] * len(self._trainable)
        for layer, layer_rows in zip(self.layers, rows, strict=True):
            for slot, tensor in zip(layer.slots, layer.assemble(layer_rows), strict=True):
                weights[slot.index] = tensor
        return weights

    def assemble_units(self, rows: list[tf.Tensor]) -> list[tf.Tensor]:
        """As `assemble`, from rows [N, F, R] of each unit: those of its layers side by side.

        Args:
            rows: One tensor [N, F, R] or [N, 1, R] for each of `units`.
        """
        parts: dict[int, tf.Tensor] = {}
        for unit, of_unit in zip(self.units, rows, strict=True):
            sizes = [layer.size // of_unit.shape[1] for layer in unit]
            parts |= zip(map(id, unit), tf.split(of_unit, sizes, axis=2), strict=True)
        return self.assemble([parts[id(layer)] for layer in self.layers])

    def rows(self, trainable: list[tf.Tensor]) -> list[tf.Tensor]:
        """Weights as rows, one tensor [N, F, row_size] per layer: the inverse of `assemble`."""
        return [layer.rows([trainable[s.index] for s in layer.slots]) for layer in self.layers]

    def flatten(self, weights: WeightSet) -> tf.Tensor:
        """The weights as theta [N, D]: the trainable weights of each network as one vector."""
        return tf.concat(
            [tf.reshape(w, [_first_size(w), math.prod(w.shape[1:])]) for w in weights.trainable], 1
        )

    def unflatten(self, theta: tf.Tensor) -> WeightSet:
        """A weight set from theta [N, D], with the initial state.

        Raises:
            ValueError: theta has another number of weights.
        """
        if not tf.TensorShape(theta.shape).is_compatible_with([None, self.weight_count]):
            raise ValueError(
                f"theta has the shape {list(theta.shape)}: give [networks, {self.weight_count:,}], "
                "all weights of each network."
            )
        shapes = [tuple(v.shape) for v in self._trainable]
        parts = tf.split(theta, [math.prod(shape) for shape in shapes], axis=1)
        trainable = [
            tf.reshape(part, [-1, *shape]) for part, shape in zip(parts, shapes, strict=True)
        ]
        return WeightSet(trainable, self.initial_state(_first_size(theta)))

    def initial_state(self, num_networks: Any, seed: Any = (0, 0)) -> list[tf.Tensor]:
        """The initial state of N networks: the template's; seeds differ between networks.

        Args:
            num_networks: N, an integer or a tensor.
            seed: Two integers. The seeds of dropout and noise layers derive from them, so that a
                step's randomness is a function of (seed, step, network).
        """
        state = []
        for index, (variable, dtype) in enumerate(
            zip(self._state, self._state_dtypes, strict=True)
        ):
            shape = [num_networks, *variable.shape]
            if _is_seed(variable):
                layer_seed = tf.random.experimental.stateless_fold_in(
                    tf.cast(seed, tf.int32), index
                )
                bits = tf.random.stateless_uniform(
                    shape, layer_seed, minval=None, maxval=None, dtype=tf.uint32
                )
                state.append(tf.cast(bits, dtype))
            else:
                state.append(tf.broadcast_to(tf.cast(variable.value, dtype), shape))
        return state

    # ---- running ----------------------------------------------------------------------------

    def inputs_in_order(self, inputs: Any) -> list[Any]:
        """The inputs as a list, in the order of the model's.

        Args:
            inputs: Inputs structured as the model's, or a dict by their names.

        Raises:
            ValueError: An input is missing, or there are too many.
        """
        names = [tensor.name for tensor in self._template.inputs]
        return in_order(inputs, self.plan.inputs, names)

    def check_inputs(self, inputs: Any) -> None:
        """Check the shapes of inputs.

        Args:
            inputs: Inputs [M, ...] or their specifications, structured as the model's inputs.

        Raises:
            ValueError: An input is missing, or has another shape.
        """
        refs = keras.tree.flatten(self.plan.inputs)
        for tensor, ref in zip(self.inputs_in_order(inputs), refs, strict=True):
            if isinstance(tensor, _NOT_DENSE) or hasattr(tensor, "tocsr"):
                raise ValueError(
                    "Inputs are sparse or ragged, and networks run on dense ones: give "
                    "x.toarray(), tf.sparse.to_dense(x) or x.to_tensor()."
                )
            given, expected = tf.TensorShape(tensor.shape), self.plan.shapes[ref]
            if given.rank is None:
                raise ValueError(
                    "The data set does not know the shape of its inputs: give from_generator an "
                    "output_signature, or let a map return tf.ensure_shape(x, "
                    f"{[None, *expected]})."
                )
            if not given.is_compatible_with([None, *expected]):
                sizes = ", ".join(["M", *map(str, expected)])
                raise ValueError(
                    f"Inputs have shape {given}, but the target takes [{sizes}]: reshape them. "
                    "Batch a data set of single examples, data_set.batch(32)."
                )

    @functools.cached_property
    def _masks(self) -> tuple[keras.Model, list[bool]] | None:
        """The Keras masks of the outputs as a model of their own, and which outputs have one."""
        layers = [op for op in self.plan.operations if isinstance(op, keras.Layer)]
        if all(type(layer).compute_mask is keras.Layer.compute_mask for layer in layers):
            return None  # no layer makes a mask
        with tf.init_scope():
            # The template's own outputs lack the masks that nested models make.
            inputs = [
                keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name)
                for t in self._template.inputs
            ]
            outputs = keras.tree.flatten(replay(self.plan, inputs))
            masks = [getattr(tensor, "_keras_mask", None) for tensor in outputs]
            known = [mask for mask in masks if mask is not None]
            if not known:
                return None
            if any(map(_reads_weights, known)):
                raise ValueError(
                    f"A mask of the model '{self._template.name}' follows from weights, which "
                    "differ between networks: put the layer that makes it before all layers with "
                    "weights."
                )
            return keras.Model(inputs, known), [mask is not None for mask in masks]

    @property
    def has_masks(self) -> bool:
        """Whether Keras leaves parts of the outputs out of losses and metrics.

        An output for each step of a sequence has one after `Embedding(mask_zero=True)` or
        `Masking`.
        """
        return self._masks is not None

    def output_masks(self, inputs: Any) -> Any:
        """Keras masks of the outputs, which follow from the inputs whatever the weights are.

        Args:
            inputs: Inputs [M, ...], structured as the model's inputs.

        Returns:
            A mask [M, ...] for each output, True where it counts, or None, structured as the
            model's outputs.
        """
        refs = keras.tree.flatten(self.plan.outputs)
        if self._masks is None:
            return keras.tree.pack_sequence_as(self.plan.outputs, [None] * len(refs))
        model, has_mask = self._masks
        computed = iter(keras.tree.flatten(model(self.inputs_in_order(inputs))))
        masks = [next(computed) if has else None for has in has_mask]
        return keras.tree.pack_sequence_as(self.plan.outputs, masks)

    def __call__(self, weights: WeightSet, inputs: Any, *, training: bool = False) -> Any:
        """Outputs [N, B, ...] of N networks; see `run`."""
        return self.run(weights, inputs, training=training)[0]

    @functools.cached_property
    def compiled(self) -> Any:
        """`run` as one `tf.function`, so that the same shapes in one mode are traced once."""
        # A partial is this target's own: TensorFlow counts the traces of a method over all targets,
        # and would warn of too many after the third.
        return tf.function(functools.partial(self.run), autograph=False)

    def run(
        self,
        weights: WeightSet,
        inputs: Any,
        *,
        training: bool = False,
        batch_statistics: bool = False,
    ) -> tuple[Any, list[tf.Tensor]]:
        """Run N networks at once.

        Args:
            weights: The weight set of N networks.
            inputs: Inputs [N, B, ...], different for each network, or [B, ...], the same for all;
                structured as the model's inputs.
            training: Whether layers run in training mode.
            batch_statistics: Whether batch normalisation uses the statistics of the batch outside
                training too, for networks whose moving statistics have not been computed.

        Returns:
            The outputs, each [N, B, ...], structured as the model's, and the new state.

        Raises:
            ValueError: The inputs, or the numbers of weights and states, do not fit the model.
        """
        expected, given = (
            (len(trainable), len(state))
            for trainable, state in (
                (self._trainable, self._state),
                (weights.trainable, weights.state),
            )
        )
        if given != expected:
            raise ValueError(
                f"The weight set has {given[0]} weights and {given[1]} states, and the target "
                f"{expected[0]} and {expected[1]}: use target.unflatten(theta)."
            )
        num_networks = weights.trainable[0].shape[0]
        if num_networks is None:
            return self.run_each(
                weights, inputs, training=training, batch_statistics=batch_statistics
            )
        tensors = self.inputs_in_order(inputs)
        grouped = self._convolutions == "grouped" or (
            self._convolutions == "auto" and bool(tf.config.list_logical_devices("GPU"))
        )
        variables = {id(v): w for v, w in zip(self._trainable, weights.trainable, strict=True)}
        variables |= {id(v): w for v, w in zip(self._state, weights.state, strict=True)}
        run = NetworkRun(
            variables,
            num_networks,
            training=training,
            batch_statistics=batch_statistics,
            grouped=grouped,
        )
        values = [
            input_value(tf.cast(tensor, like.dtype), like.shape[1:], num_networks)
            for tensor, like in zip(tensors, self._template.inputs, strict=True)
        ]
        outputs = run_plan(self.plan, run, values)
        new_state = [run.value(v) for v in self._state]
        return keras.tree.map_structure(lambda value: value.stacked, outputs), new_state

    def run_each(
        self, weights: WeightSet, inputs: Any, **mode: bool
    ) -> tuple[Any, list[tf.Tensor]]:
        """`run`, one network after the other, in the memory of one network.

        In a graph the loop is one operation, whatever N is, so N may be unknown until run time.

        Args:
            weights: The weight set of N networks.
            inputs: Inputs [N, B, ...] or [B, ...]; see `run`.
            **mode: `training` and `batch_statistics`; see `run`.

        Returns:
            The outputs and the new state; see `run`.

        Raises:
            ValueError: The inputs do not fit the model.
        """
        tensors = self.inputs_in_order(inputs)
        is_per_network = [  # [N, B, ...] rather than [B, ...]
            len(tensor.shape) == len(like.shape) + 1
            for tensor, like in zip(tensors, self._template.inputs, strict=True)
        ]
        batches_of_networks = [t for t, flag in zip(tensors, is_per_network, strict=True) if flag]

        def run_one(network: tuple[list, list, list]) -> tuple[list, list]:
            trainable, state, batches = network
            values = iter(batches)
            inputs = [
                next(values) if flag else tensor
                for tensor, flag in zip(tensors, is_per_network, strict=True)
            ]
            one = WeightSet([w[None] for w in trainable], [s[None] for s in state])
            packed = keras.tree.pack_sequence_as(self.plan.inputs, inputs)
            outputs, new_state = self.run(one, packed, **mode)
            return [t[0] for t in keras.tree.flatten(outputs)], [s[0] for s in new_state]

        signature = (
            [tf.TensorSpec([None, *t.shape[1:]], t.dtype) for t in self._template.outputs],
            [
                tf.TensorSpec(v.shape, dtype)
                for v, dtype in zip(self._state, self._state_dtypes, strict=True)
            ],
        )
        # The loop takes N from the first tensor, and would ignore further batches.
        checks = [
            tf.debugging.assert_equal(
                tf.shape(tensor)[0],
                tf.shape(weights.trainable[0])[0],
                "Give one batch of inputs for each network.",
            )
            for tensor in batches_of_networks
        ]
        with tf.control_dependencies([check for check in checks if check is not None]):
            outputs, new_state = tf.map_fn(
                run_one,
                (list(weights.trainable), list(weights.state), batches_of_networks),
                fn_output_signature=signature,
                parallel_iterations=1,
            )
        return keras.tree.pack_sequence_as(self.plan.outputs, outputs), new_state

    def to_keras(self, weights: WeightSet) -> keras.Model:
        """One network as an ordinary Keras model, independent of this target.

        Args:
            weights: A weight set of one network (N = 1).

        Raises:
            ValueError: The weight set is that of several networks.
        """
        num_networks = weights.trainable[0].shape[0]
        if num_networks != 1:
            raise ValueError(
                f"Cannot make one Keras model of {num_networks} networks: choose one of them."
            )
        network = copied(self._template)
        for variables, tensors in (
            (network.trainable_variables, weights.trainable),
            (network.non_trainable_variables, weights.state),
        ):
            for variable, tensor in zip(variables, tensors, strict=True):
                variable.assign(tensor[0])
        return network

    # ---- serialisation ----------------------------------------------------------------------

    def get_config(self) -> dict:
        """The template's architecture, not its weights."""
        return {
            "model": keras.saving.serialize_keras_object(self._template),
            "outputs": self.outputs,
            "convolutions": self._convolutions,
        }

    @classmethod
    def from_config(cls, config: dict) -> Target:
        """A target from `get_config`.

        Raises:
            ValueError: A layer of the model is not registered with Keras.
        """
        config = copy.deepcopy(config)  # Keras changes the config that it reads
        try:
            model = keras.saving.deserialize_keras_object(config.pop("model"))
        except TypeError as error:
            unknown = re.search(r"Could not locate (?:class|function) '(.+?)'", str(error))
            if unknown is None:
                raise
            name = unknown[1]
            # Keras puts a TypeError into one of its own, which quotes the whole configuration.
            raise ValueError(
                f"Cannot load the target: '{name}' is not registered. Decorate it with "
                "@keras.saving.register_keras_serializable(), or load inside "
                f"keras.saving.custom_object_scope({{'{name}': {name}}})."
            ) from error
        return cls(model, **config)


def _is_batch_norm(operation: Any) -> bool:
    return isinstance(operation, keras.layers.BatchNormalization)


def _first_size(tensor: tf.Tensor) -> Any:
    """The size of the first axis: an integer, or a tensor where it is not known until run time."""
    size = tensor.shape[0]
    return tf.shape(tensor)[0] if size is None else size


def _is_seed(variable: Any) -> bool:
    """Whether a state variable is the state of a `keras.random.SeedGenerator`."""
    return variable.name == "seed_generator_state"


def _check_training(model: Any) -> None:
    """Check that a model has no training of its own, which a sampler would leave out."""
    for name in ("train_step", "compute_loss", "compute_metrics"):
        own = getattr(type(model), name, None)
        if isinstance(model, keras.Model) and own is not getattr(keras.Model, name):
            raise ValueError(
                f"The model '{model.name}' has a {name} of its own, and a sampler trains its "
                "networks: give keras.Model(model.inputs, model.outputs)."
            )


@keras.saving.register_keras_serializable(package="hypernet_tf")
class TargetLayer(keras.layers.Layer):
    """A `Target` as a Keras layer: weights and inputs in, outputs out.

    The layer has no variables; its loss is the target's `regularization`. Its call takes
    `(weights, inputs)`. The weights are theta [N, D], or a list of the generated weights in the
    order of the model's trainable variables. N may be unknown until run time, so that the weights
    may be computed from a batch of inputs: each example then has its own network.

    The state is the initial one: the values of frozen layers, which are saved with the layer, and
    the same dropout in each call. Outputs of one example for each network carry Keras's masks.

    Args:
        target: The `Target`, or a Keras model.
        examples: What inputs [M, ...] are. "shared": examples that all networks run on, for outputs
            [N, M, ...]. "one_each": one example for each network, M = N, for outputs [N, ...]. In
            both cases inputs [N, B, ...] are B examples for each network, for outputs [N, B, ...].
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: `examples` is unknown; the target has batch normalisation that is not frozen;
            in the call, theta does not have D columns, or there are not as many inputs as networks.

    Example:
        >>> target = Target(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        >>> condition, x = keras.Input((3,)), keras.Input((4,))
        >>> theta = keras.layers.Dense(target.weight_count)(condition)            # [N, D]
        >>> y = TargetLayer(target, examples="one_each")((theta, x))              # [N, 2]
        >>> model = keras.Model([condition, x], y)
        >>> TargetLayer(target)((tf.ones([3, 10]), tf.ones([5, 4]))).shape
        TensorShape([3, 5, 2])

    Reference: Ha, Dai, Le 2016, "HyperNetworks", arXiv 1609.09106.
    """

    def __init__(self, target: Target, *, examples: ExampleSharing = "shared", **kwargs: Any):
        super().__init__(**kwargs)
        check_choice("examples", examples, ExampleSharing)
        self.target = target if isinstance(target, Target) else Target(target)
        self.examples = examples
        if self.target.statistics:
            raise ValueError(
                "Batch normalisation has no statistics of networks that a layer makes: use "
                "LayerNormalization or GroupNormalization, or freeze it."
            )

    @property
    def compute_dtype(self):
        """That of variables: the layers of the networks have precisions of their own."""
        return self.variable_dtype

    def call(self, inputs, training=False):
        """Run the networks; see `Target.run`."""
        weights, given = inputs
        tensors = self.target.inputs_in_order(given)
        refs = keras.tree.flatten(self.target.plan.inputs)
        single = [
            self.examples == "one_each"
            and len(tensor.shape) == len(self.target.plan.shapes[ref]) + 1
            for tensor, ref in zip(tensors, refs, strict=True)
        ]
        tensors = [t[:, None] if one else t for t, one in zip(tensors, single, strict=True)]
        inputs = keras.tree.pack_sequence_as(self.target.plan.inputs, tensors)
        weights = self._weight_set(weights)
        if any(self.target.regularizers):
            self.add_loss(self.target.regularization(weights.trainable))
        outputs = self.target(weights, inputs, training=bool(training))
        if all(single):
            outputs = keras.tree.map_structure(lambda t: t[:, 0], outputs)
            outputs = with_masks(outputs, self.target.output_masks(given))
        return outputs

    def _weight_set(self, weights: Any) -> WeightSet:
        if isinstance(weights, list | tuple):
            state = self.target.initial_state(_first_size(weights[0]))
            return WeightSet(list(weights), state)
        shape, size = tuple(weights.shape), self.target.weight_count
        if len(shape) != 2 or shape[1] != size:
            raise ValueError(
                f"theta has shape {shape}, but a network of the target has {size} weights: give "
                f"theta [N, {size}]."
            )
        return self.target.unflatten(weights)

    def get_config(self) -> dict:
        """The layer's configuration with its target."""
        return super().get_config() | {
            "target": keras.saving.serialize_keras_object(self.target),
            "examples": self.examples,
        }

    @classmethod
    def from_config(cls, config: dict) -> TargetLayer:
        """A layer from `get_config`."""
        return cls(**config | {"target": keras.saving.deserialize_keras_object(config["target"])})

    def save_own_variables(self, store):
        """The values of the target's frozen layers, which the configuration does not hold."""
        for index, variable in enumerate(self.target.frozen):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store):
        """The inverse of `save_own_variables`."""
        for index, variable in enumerate(self.target.frozen):
            variable.assign(store[str(index)])


def _reads_weights(mask: Any) -> bool:
    """Whether a symbolic mask follows from what trained layers return, beside its shape."""
    left, seen = [mask], set()
    while left:
        history = left.pop()._keras_history
        operation = history.operation
        node = operation._inbound_nodes[history.node_index]
        if id(node) in seen or type(operation).__name__ in ("OnesLike", "ZerosLike"):
            continue
        if getattr(operation, "trainable_variables", []):
            return True
        seen.add(id(node))
        left += node.input_tensors
    return False
