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

    def count(self, operation) -> int:
        """How often a layer is called; more than once means that its weights are shared."""
        return sum(call.operation is operation for call in self.calls)


def is_ref(leaf) -> bool:
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
            return keras.Model(model.inputs[0], model.outputs[0])
        return keras.Model(model.input, model.output)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"the model '{model.name}' has no graph to read: a target is a Sequential model that "
            "starts with keras.Input, or a Functional one (keras.Model(inputs, outputs))"
        ) from error


def record(model: keras.Model) -> Plan:
    """Write down the calls of a model.

    The walk calls the layers on symbolic tensors, so give it a model of your own (`Target` makes a
    copy): a user's layers would otherwise gain connections that the user never made.

    Args:
        model: a Sequential or Functional model.

    Returns:
        The plan.

    Raises:
        ValueError: the model has no graph.
    """
    calls: list[Call] = []
    shapes: dict[Ref, tuple[int | None, ...]] = {}

    def new_ref(tensor) -> Ref:
        ref = Ref(len(shapes))
        shapes[ref] = tuple(tensor.shape[1:])
        return ref

    def walk(graph: keras.Model, inputs: Any) -> Any:
        """Record `graph` fed with `inputs` (structure of Ref); returns its outputs as Refs."""
        symbolic = keras.tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype), graph.input
        )
        # Symbolic tensors are told apart by identity, so `alive` keeps every one of them: an id
        # must not be used again while we walk.
        alive: list[Any] = keras.tree.flatten(symbolic)
        refs = {
            id(tensor): ref for tensor, ref in zip(alive, keras.tree.flatten(inputs), strict=True)
        }

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
                if name != "training" and value is not None
            }
            if type(operation) in (keras.Sequential, type(graph)):
                placed = walk(functional(operation), arguments[0])
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
    outputs = walk(graph, inputs)
    return Plan(tuple(calls), inputs, outputs, shapes)
