"""`Target`: an ordinary Keras model, run with N weight sets at once."""

from __future__ import annotations

import copy
import functools
import math
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hypernet_tf.targets import execution
from hypernet_tf.targets import outputs as meaning
from hypernet_tf.targets.execution import Networks, input_value, is_seed
from hypernet_tf.targets.filters import channel_units, describe_layers
from hypernet_tf.targets.graph import copied, in_order, record
from hypernet_tf.targets.weights import WeightSet

_LEAST_PROBABILITY = float(np.finfo(np.float32).tiny)


@keras.saving.register_keras_serializable(package="hypernet_tf")
class Target:
    """The network whose weights are generated: a template that runs with any N weight sets.

    Args:
        model: a built Sequential or Functional Keras model. It is copied and never changed. Its
            trainable weights are not used; its non-trainable ones (frozen layers, batch norm's
            statistics) are, as every network's state at the start.
        outputs: what the model returns: "logits" (unnormalised log-probabilities of the classes),
            "probabilities", or "values" (regression). None reads it off the last layer (of each
            output): probabilities where it ends in a softmax or in one sigmoid, otherwise values,
            until a sampler is compiled with a classification loss that has `from_logits=True`.
        convolutions: "unrolled" over networks, "grouped" into one, or "auto": grouped where
            TensorFlow sees a GPU.

    Attributes:
        layers: the layers whose weights are generated (`WeightedLayer`), in the order of their
            first call.
        units: the same layers, each together with the batch normalisation that directly follows.
        weight_count: D, the number of weights of one network.
        plan: the model's calls (`Plan`).

    Raises:
        ValueError: the model has no graph, cannot be copied, has no trainable weights, or has
            regularisers (which would act on trained weights; generated ones are regularised by a
            sampler's `prior`), constraints, or batch normalisation inside another layer; or its
            outputs are not what `outputs` says.

    Example:
        >>> target = Target(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        >>> target.weight_count
        10
        >>> weights = target.unflatten(tf.ones([3, 10]))          # 3 networks
        >>> target(weights, tf.ones([5, 4])).shape                # on the same 5 inputs
        TensorShape([3, 5, 2])
    """

    def __init__(
        self, model: keras.Model, *, outputs: str | None = None, convolutions: str = "auto"
    ):
        if outputs not in (*meaning.OUTPUTS, None):
            known = ", ".join(meaning.OUTPUTS)
            raise ValueError(f"outputs is one of {known}, or None; not {outputs!r}")
        if convolutions not in ("auto", "unrolled", "grouped"):
            raise ValueError(f"convolutions is auto, unrolled or grouped, not {convolutions!r}")
        self._template = template = copied(model)
        self.plan = record(template)
        self._convolutions = convolutions
        self._trainable = template.trainable_variables
        self._state = template.non_trainable_variables
        self.name = model.name
        if not self._trainable:
            raise ValueError(f"the model '{self.name}' has no trainable weights to generate")
        self._weighted = describe_layers(self.plan.operations, self._trainable)
        self.layers = tuple(self._weighted.values())
        self.units = channel_units(self.plan, self._weighted)
        self.weight_count = sum(math.prod(v.shape) for v in self._trainable)
        self.outputs = outputs or meaning.read(self.plan)
        meaning.check(self.plan, self.outputs, self.name)

    def with_outputs(self, outputs: str) -> Target:
        """The same target, its outputs read in another way.

        Args:
            outputs: "logits", "probabilities" or "values".

        Raises:
            ValueError: The model's outputs cannot be read in this way.
        """
        meaning.check(self.plan, outputs, self.name)
        target = copy.copy(self)
        target.__dict__.pop("compiled", None)  # which holds on to the old one
        target.outputs = outputs
        return target

    def with_batch_norm(self, *, synchronized: bool) -> Target:
        """A target whose batch normalisations are, or are not, synchronized between replicas.

        Args:
            synchronized: Whether a batch normalisation computes its statistics over the batches of
                all replicas.

        Returns:
            This target if nothing has to change, otherwise one of a copied model.
        """

        def norms(plan: Any) -> list:
            kind = keras.layers.BatchNormalization
            return [layer for layer in plan.operations if isinstance(layer, kind)]

        if all(norm.synchronized == synchronized for norm in norms(self.plan)):
            return self
        model = copied(self._template)
        for norm in norms(record(model)):
            norm.synchronized = synchronized
        return Target(model, outputs=self.outputs, convolutions=self._convolutions)

    # ---- reading the template -------------------------------------------------------------

    def weighted(self, operation: Any) -> Any:
        """The generated weights of a layer of the plan; None where it owns none of them."""
        return self._weighted.get(id(operation))

    def state_place(self, variable: Any) -> int:
        """The place in the state of a variable of the plan's layers that is not trained."""
        return next(place for place, v in enumerate(self._state) if v is variable)

    @property
    def classes(self) -> int | None:
        """How many classes the outputs tell apart; None for values and for several outputs."""
        refs = keras.tree.flatten(self.plan.outputs)
        if self.outputs == "values" or len(refs) != 1:
            return None
        size = self.plan.shapes[refs[0]][-1]
        return 2 if size == 1 else size

    @property
    def single_column(self) -> bool:
        """Whether the model has one output of one column."""
        refs = keras.tree.flatten(self.plan.outputs)
        return len(refs) == 1 and self.plan.shapes[refs[0]] == (1,)

    @property
    def frozen(self) -> list:
        """The template's variables that every network starts with: all state but seeds."""
        return [v for v in self._state if not is_seed(v)]

    @property
    def statistics(self) -> list[tuple[int, float]]:
        """The moving statistics of batch norm: their place in the state, and their momentum.

        The momentum is the part of the old statistics that one run of the model leaves, which calls
        a layer perhaps more than once.
        """
        return [
            (self.state_place(v), norm.momentum ** self.plan.count(norm))
            for norm in self.plan.operations
            if isinstance(norm, keras.layers.BatchNormalization) and norm.trainable
            for v in norm.non_trainable_variables
        ]

    def activate(self, outputs: tf.Tensor) -> tf.Tensor:
        """Outputs as what may be averaged over networks: logits as probabilities."""
        probabilities = tf.sigmoid if outputs.shape[-1] == 1 else tf.nn.softmax
        return probabilities(outputs) if self.outputs == "logits" else outputs

    def centred(self, outputs: tf.Tensor) -> tf.Tensor:
        """Outputs in their gauge: logits of several classes less their mean, which says nothing."""
        free = self.outputs == "logits" and outputs.shape[-1] > 1
        return outputs - tf.reduce_mean(outputs, -1, keepdims=True) if free else outputs

    def log_probabilities(self, outputs: tf.Tensor) -> tf.Tensor:
        """The logarithm of each class's probability, [..., C], in nats.

        Args:
            outputs: Outputs of a target of classes: [..., C], or [..., 1] where one column tells
                two classes apart. A probability of 0 counts as 1.2e-38, the least of float32.
        """
        if outputs.dtype.size < 4:
            outputs = tf.cast(outputs, tf.float32)
        one_column = outputs.shape[-1] == 1  # the probability or logit of the second of two classes
        if self.outputs == "logits":
            if one_column:
                return tf.math.log_sigmoid(tf.concat([-outputs, outputs], -1))
            return tf.nn.log_softmax(outputs)
        if one_column:
            outputs = tf.concat([1.0 - outputs, outputs], -1)
        return tf.math.log(tf.maximum(outputs, _LEAST_PROBABILITY))

    def require_classes(self, what: str) -> int:
        """C, the number of classes among which each example has one.

        Args:
            what: What needs them, for the error.

        Raises:
            ValueError: The target returns values, or a class for each pixel.
        """
        if self.classes is None:
            raise ValueError(
                f"{what} needs classes, but the target returns values: use predict(), or say "
                "Target(model, outputs='logits')"
            )
        if len(self.plan.shapes[keras.tree.flatten(self.plan.outputs)[0]]) != 1:
            raise ValueError(f"{what} needs one choice of class per example: use predict()")
        return self.classes

    @property
    def activations_per_example(self) -> int:
        """How many numbers one network computes for one example, all layers together."""
        return sum(math.prod(d or 1 for d in shape) for shape in self.plan.shapes.values())

    @property
    def input_shape(self) -> Any:
        """The shape of one input, without the batch; structured as the model's inputs."""
        return keras.tree.map_structure(lambda ref: self.plan.shapes[ref], self.plan.inputs)

    # ---- weight sets ----------------------------------------------------------------------

    def assemble(self, rows: list[tf.Tensor]) -> list[tf.Tensor]:
        """Generator rows, one tensor [N, F, row_size] or [N, 1, size] per layer, as weights.

        Returns:
            One tensor [N, ...] for each trainable variable of the model, in its order.
        """
        weights: list[Any] = [None] * len(self._trainable)
        for layer, layer_rows in zip(self.layers, rows, strict=True):
            for slot, tensor in zip(layer.slots, layer.assemble(layer_rows), strict=True):
                weights[slot.index] = tensor
        return weights

    def rows(self, trainable: list[tf.Tensor]) -> list[tf.Tensor]:
        """Weights as rows, one tensor [N, F, row_size] per layer: the inverse of `assemble`."""
        return [layer.rows([trainable[s.index] for s in layer.slots]) for layer in self.layers]

    def flatten(self, weights: WeightSet) -> tf.Tensor:
        """The weights as theta [N, D]: the trainable weights of each network as one vector."""
        return tf.concat(
            [tf.reshape(w, [tf.shape(w)[0], math.prod(w.shape[1:])]) for w in weights.trainable], 1
        )

    def unflatten(self, theta: tf.Tensor) -> WeightSet:
        """A weight set from theta [N, D], with the state of the start."""
        shapes = [tuple(v.shape) for v in self._trainable]
        parts = tf.split(theta, [math.prod(shape) for shape in shapes], axis=1)
        trainable = [
            tf.reshape(part, [-1, *shape]) for part, shape in zip(parts, shapes, strict=True)
        ]
        return WeightSet(trainable, self.initial_state(theta.shape[0]))

    def initial_state(self, count: int, seed: Any = (0, 0)) -> list[tf.Tensor]:
        """The state of N networks at the start: the template's; seeds differ between networks.

        Args:
            count: N.
            seed: two integers; the seeds of dropout and noise layers derive from it, so that a
                step's randomness is a function of (seed, step, network).
        """
        state = []
        for place, variable in enumerate(self._state):
            shape = [count, *variable.shape]
            if is_seed(variable):
                own = tf.random.experimental.stateless_fold_in(tf.cast(seed, tf.int32), place)
                bits = tf.random.stateless_uniform(
                    shape, own, minval=None, maxval=None, dtype=tf.uint32
                )
                state.append(tf.cast(bits, variable.dtype))
            else:
                state.append(tf.broadcast_to(variable.value[None], shape))
        return state

    # ---- running --------------------------------------------------------------------------

    def __call__(self, weights: WeightSet, inputs: Any, *, training: bool = False) -> Any:
        """Outputs [N, B, ...] of N networks; see `run`."""
        return self.run(weights, inputs, training=training)[0]

    @functools.cached_property
    def compiled(self) -> Any:
        """`run` as one tf.function, so that the same shapes in one mode are traced once."""
        return tf.function(self.run, autograph=False)

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
            weights: the weight set of N networks.
            inputs: [N, B, ...], different inputs for each network, or [B, ...], the same for all;
                structured as the model's inputs.
            training: whether layers run in training mode.
            batch_statistics: whether batch norm uses the statistics of the batch outside training
                too: for networks whose moving statistics nobody has computed.

        Returns:
            The outputs, each [N, B, ...], structured as the model's, and the new state.

        Raises:
            ValueError: the inputs do not fit the model.
        """
        count = weights.trainable[0].shape[0]
        grouped = self._convolutions == "grouped" or (
            self._convolutions == "auto" and bool(tf.config.list_logical_devices("GPU"))
        )
        variables = {id(v): w for v, w in zip(self._trainable, weights.trainable, strict=True)}
        variables |= {id(v): w for v, w in zip(self._state, weights.state, strict=True)}
        mode = {"training": training, "batch_statistics": batch_statistics, "grouped": grouped}
        networks = Networks(variables, count, **mode)
        own = self._template.inputs
        tensors = in_order(inputs, self.plan.inputs, [tensor.name for tensor in own])
        values = {
            ref: input_value(tf.cast(tensor, like.dtype), like.shape[1:], count)
            for ref, tensor, like in zip(
                keras.tree.flatten(self.plan.inputs), tensors, own, strict=True
            )
        }
        outputs = execution.run_plan(self.plan, networks, values)
        state = [networks.new_state.get(id(v), variables[id(v)]) for v in self._state]
        return keras.tree.map_structure(lambda value: value.stacked, outputs), state

    def to_keras(self, weights: WeightSet) -> keras.Model:
        """One network as an ordinary Keras model, independent of this target.

        Args:
            weights: a weight set of one network (N = 1).

        Raises:
            ValueError: the weight set is that of several networks.
        """
        if weights.trainable[0].shape[0] != 1:
            raise ValueError(f"one network, not the {weights.trainable[0].shape[0]} given")
        network = copied(self._template)
        for variables, tensors in (
            (network.trainable_variables, weights.trainable),
            (network.non_trainable_variables, weights.state),
        ):
            for variable, tensor in zip(variables, tensors, strict=True):
                variable.assign(tensor[0])
        return network

    # ---- serialisation --------------------------------------------------------------------

    def get_config(self) -> dict:
        """The template's architecture, not its weights."""
        return {
            "model": keras.saving.serialize_keras_object(self._template),
            "outputs": self.outputs,
            "convolutions": self._convolutions,
        }

    @classmethod
    def from_config(cls, config: dict) -> Target:
        """A target from `get_config`."""
        model = copy.deepcopy(config["model"])  # which Keras uses up
        return cls(**config | {"model": keras.saving.deserialize_keras_object(model)})


@keras.saving.register_keras_serializable(package="hypernet_tf")
class TargetLayer(keras.layers.Layer):
    """The Keras layer face of a `Target`: weights and inputs in, outputs [N, B, ...] out.

    It has no variables; its call takes `(trainable, inputs)`, where `trainable` are the generated
    weights in the order of the model's trainable variables and the state is that of the start: the
    values of frozen layers, which are saved with the layer, and the same dropout in each call.

    Example:
        >>> layer = TargetLayer(target)
        >>> layer((target.unflatten(theta).trainable, images)).shape
        TensorShape([3, 5, 2])
    """

    def __init__(self, target: Target, **kwargs: Any):
        super().__init__(**kwargs)
        self.target = target

    def call(self, inputs, training=False):
        """Run the networks; see `Target.run`."""
        trainable, images = inputs
        state = self.target.initial_state(trainable[0].shape[0])
        return self.target(WeightSet(list(trainable), state), images, training=bool(training))

    def get_config(self) -> dict:
        """The layer's configuration with its target."""
        return super().get_config() | {"target": keras.saving.serialize_keras_object(self.target)}

    @classmethod
    def from_config(cls, config: dict) -> TargetLayer:
        """A layer from `get_config`."""
        return cls(**config | {"target": keras.saving.deserialize_keras_object(config["target"])})

    def save_own_variables(self, store):
        """The values of the target's frozen layers, which the configuration does not hold."""
        for index, variable in enumerate(self.target.frozen):
            store[str(index)] = variable.numpy()

    def load_own_variables(self, store):
        """The reverse of `save_own_variables`."""
        for index, variable in enumerate(self.target.frozen):
            variable.assign(store[str(index)])
