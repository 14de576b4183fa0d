"""The model's graph, recorded once: which layer or operation is called on what, in order.

Running N weight sets and finding symmetries both need to know how the layers of a model are
connected. `record` walks an ordinary Keras model (Sequential, Functional, nested) with Keras's
public `clone_model(..., call_function=...)`, which visits layers and operations in order, and
writes down each call. Nothing else in the package looks inside a Keras model's graph.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import keras


@dataclasses.dataclass(frozen=True)
class Ref:
    """A place in the plan where a tensor stands; `index` counts tensors in order of creation."""

    index: int


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer or operation.

    Attributes:
        operation: the Keras layer, or the `keras.Operation` of a `keras.ops` call.
        args: positional arguments, with a `Ref` wherever a tensor goes.
        kwargs: keyword arguments, likewise.
        outputs: what the call returns, with a `Ref` for each tensor.
    """

    operation: Any
    args: tuple
    kwargs: dict
    outputs: Any

    @property
    def inputs(self) -> list[Ref]:
        """The tensors that the call reads, in order."""
        return [leaf for leaf in keras.tree.flatten((self.args, self.kwargs)) if is_ref(leaf)]

    @property
    def reads_constants(self) -> bool:
        """Whether it also reads tensors or arrays that are not computed by the model."""
        leaves = keras.tree.flatten((self.args, self.kwargs))
        return any(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The calls of a model in the order in which they run.

    Attributes:
        calls: every call, nested models entered.
        inputs: structure of `Ref`, as the model takes its inputs.
        outputs: structure of `Ref`, as the model returns its outputs.
        shapes: for each tensor its shape without the batch axis; None where it is not fixed.
    """

    calls: tuple[Call, ...]
    inputs: Any
    outputs: Any
    shapes: dict[Ref, tuple[int | None, ...]]

    @property
    def operations(self) -> list[Any]:
        """Each layer and operation once, in the order of first calls."""
        return list(dict.fromkeys(call.operation for call in self.calls))

    def maker(self, ref: Ref) -> Call | None:
        """The call that returns a tensor; None for an input of the model."""
        for call in self.calls:
            if ref in keras.tree.flatten(call.outputs):
                return call
        return None

    def count(self, operation: Any) -> int:
        """How often a layer is called; more than once means that its weights are shared."""
        return sum(call.operation is operation for call in self.calls)


def is_ref(leaf: Any) -> bool:
    """Whether a leaf of an argument structure stands for a tensor."""
    return isinstance(leaf, Ref)


def functional(model: keras.Model) -> keras.Model:
    """The model as a Functional one, which is what can be walked.

    Raises:
        ValueError: the model has no graph: it is subclassed, or has no declared input.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"a target is a Keras model, not {type(model).__name__}")
    try:
        if isinstance(model, keras.Sequential):
            graph = keras.Model(model.inputs[0], model.outputs[0])
        else:
            graph = keras.Model(model.input, model.output)
        if runs_its_graph(model, type(graph)):
            return graph
    except (AttributeError, TypeError, ValueError):
        pass
    raise ValueError(
        f"the model '{model.name}' has no graph to read: a target is a Sequential model that "
        "starts with keras.Input, or a Functional one (keras.Model(inputs, outputs))"
    )


def runs_its_graph(model: Any, functional_type: Any) -> bool:
    """Whether calling a model runs its graph, rather than a `call` of the model's own."""
    return isinstance(model, keras.Model) and type(model).call in (
        keras.Sequential.call,
        functional_type.call,
    )


def copied(model: keras.Model) -> keras.Model:
    """A copy of a model, not compiled, with layers and weights of its own.

    Values are copied too, and an adapted `Normalization` becomes one with the same
    constants: Keras computes with constants there, not with the variables.

    Raises:
        ValueError: the model has no graph, or its layers do not say in `get_config` what they are.
    """
    functional_type = type(functional(model))  # raises its one clear error first
    adapted: set[int] = set()

    def copy_of(layer: Any) -> Any:
        if runs_its_graph(layer, functional_type):
            if not isinstance(layer, keras.Sequential):
                graph = keras.Model(layer.input, layer.output, name=layer.name)
                return keras.models.clone_model(graph, clone_function=copy_of)
            (like,) = layer.inputs
            first = keras.Input(batch_shape=like.shape, dtype=like.dtype, name=like.name)
            return keras.Sequential([first, *map(copy_of, layer.layers)], name=layer.name)
        config = layer.get_config()
        if type(layer) is keras.layers.Normalization and layer.input_mean is None:
            adapted.update(id(v) for v in layer.variables)
            config["mean"] = layer.adapt_mean.numpy().tolist()
            config["variance"] = layer.adapt_variance.numpy().tolist()
        return type(layer).from_config(config)

    try:
        copy = copy_of(model)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ValueError(
            f"the model '{model.name}' cannot be copied: give each custom layer a get_config(), "
            "and make a layer of each Lambda"
        ) from error
    given = [v for v in model.variables if id(v) not in adapted]
    shapes = [
        [(v.name, tuple(v.shape), v.trainable) for v in some] for some in (given, copy.variables)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"a copy of the model '{model.name}' has other weights: freeze whole layers rather "
            "than single weights, and share weights by calling one layer twice in one model"
        )
    for own, value in zip(copy.variables, given, strict=True):
        own.assign(value)
    return copy


def in_order(tensors: Any, expected: Any, names: list[str]) -> list[Any]:
    """The tensors given to a model, in the order of its inputs.

    Args:
        tensors: structured as the model's inputs, or a dict by the names of the inputs.
        expected: the structure of the model's inputs.
        names: the name of each input.

    Raises:
        ValueError: an input is missing.
    """
    if isinstance(tensors, dict):
        keys = list(expected) if isinstance(expected, dict) else names
        if missing := [key for key in keys if key not in tensors]:
            raise ValueError(f"the target also takes the inputs {', '.join(missing)}")
        chosen = {key: tensors[key] for key in keys}
        tensors = chosen if isinstance(expected, dict) else list(chosen.values())
    flat = keras.tree.flatten(tensors)
    if len(flat) != len(names):
        raise ValueError(f"the target takes {len(names)} inputs, {len(flat)} were given")
    return flat


def record(model: keras.Model) -> Plan:
    """Write down the calls of a model.

    The walk calls the layers on symbolic tensors, so give it a model of your own (`Target` makes a
    copy): a user's layers would otherwise gain connections that the user never made.

    Args:
        model: a Sequential or Functional model.

    Returns:
        The plan.

    Raises:
        ValueError: the model has no graph, or a nested model is given another type than it takes.
    """
    calls: list[Call] = []
    shapes: dict[Ref, tuple[int | None, ...]] = {}

    def new_ref(tensor: Any) -> Ref:
        ref = Ref(len(shapes))
        shapes[ref] = tuple(tensor.shape[1:])
        return ref

    def walk(graph: keras.Model, inputs: list[Ref]) -> Any:
        """Record `graph` fed with a Ref for each input; returns its outputs as Refs."""
        symbolic = keras.tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name), graph.input
        )
        # Symbolic tensors are told apart by identity, so `alive` keeps every one of them: an id
        # must not be used again while we walk.
        alive: list[Any] = keras.tree.flatten(symbolic)
        refs = {id(tensor): ref for tensor, ref in zip(alive, inputs, strict=True)}

        def call(operation, *args, **kwargs):
            def place(leaf):
                return refs.get(id(leaf), leaf)

            outputs = operation(*args, **kwargs)
            arguments = keras.tree.map_structure(place, args)
            # As in Keras, the mode in which the whole model is called overrides what a layer was
            # given when the graph was made.
            keywords = {
                name: keras.tree.map_structure(place, value)
                for name, value in kwargs.items()
                if name != "training"
            }
            if runs_its_graph(operation, type(graph)):
                given = arguments[0] if arguments else keywords["inputs"]
                nested = functional(operation)
                names = [tensor.name for tensor in nested.inputs]
                real = args[0] if args else kwargs["inputs"]
                for own, like in zip(
                    in_order(real, nested.input, names), nested.inputs, strict=True
                ):
                    floating = keras.backend.is_float_dtype
                    if floating(like.dtype) and not floating(own.dtype):
                        raise ValueError(
                            f"the nested model '{operation.name}' takes {like.dtype} and is given "
                            f"{own.dtype}: put a layer before it that casts, such as Rescaling(1.0)"
                        )
                placed = walk(nested, in_order(given, nested.input, names))
            else:
                placed = keras.tree.map_structure(new_ref, outputs)
                calls.append(Call(operation, arguments, keywords, placed))
            flat = keras.tree.flatten(outputs)
            alive.extend(flat)
            refs.update(
                {id(t): ref for t, ref in zip(flat, keras.tree.flatten(placed), strict=True)}
            )
            return outputs

        twin = keras.models.clone_model(
            graph, input_tensors=symbolic, clone_function=lambda layer: layer, call_function=call
        )
        return keras.tree.map_structure(lambda t: refs[id(t)], twin.output)

    graph = functional(model)
    inputs = keras.tree.map_structure(new_ref, graph.input)
    outputs = walk(graph, keras.tree.flatten(inputs))
    return Plan(tuple(calls), inputs, outputs, shapes)
