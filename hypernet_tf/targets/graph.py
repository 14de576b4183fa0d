"""The model's graph, recorded once: which layer or operation is called on what, in order.

Running N weight sets and finding symmetries both need to know how the layers of a model are
connected. `record` walks an ordinary Keras model (Sequential, Functional, nested) with Keras's
public `clone_model(..., call_function=...)`, which visits layers and operations in order, and
writes down each call. Nothing else in the package looks inside a Keras model's graph.
"""

from __future__ import annotations

import dataclasses
import re
import types
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

_LOOKUPS = (
    keras.layers.IntegerLookup,
    keras.layers.StringLookup,
    keras.layers.TextVectorization,
)


@dataclasses.dataclass(frozen=True)
class Ref:
    """A tensor of the plan; `index` counts tensors in order of creation."""

    index: int


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of a layer or operation.

    Attributes:
        operation: The Keras layer, or the `keras.Operation` of a `keras.ops` call.
        args: Positional arguments, with a `Ref` in place of each tensor.
        kwargs: Keyword arguments, likewise.
        outputs: What the call returns, with a `Ref` in place of each tensor.
    """

    operation: Any
    args: tuple
    kwargs: dict
    outputs: Any

    @property
    def inputs(self) -> list[Ref]:
        """The tensors that the call reads, in order."""
        return [
            leaf for leaf in keras.tree.flatten((self.args, self.kwargs)) if isinstance(leaf, Ref)
        ]

    @property
    def reads_constants(self) -> bool:
        """Whether it also reads tensors or arrays that are not computed by the model."""
        leaves = keras.tree.flatten((self.args, self.kwargs))
        return any(hasattr(leaf, "shape") and hasattr(leaf, "dtype") for leaf in leaves)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The calls of a model in the order in which they run.

    Attributes:
        calls: All calls, including those inside nested models.
        inputs: A `Ref` for each input, structured as the model takes them.
        outputs: A `Ref` for each output, structured as the model returns them.
        shapes: The shape of each tensor without the batch axis; None for sizes that are not fixed.
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

    def num_calls(self, operation: Any) -> int:
        """The number of calls of a layer; with more than one, the calls share its weights."""
        return sum(call.operation is operation for call in self.calls)


# ---- models that can be read ----------------------------------------------------------------


def functional(model: keras.Model) -> keras.Model:
    """The model as a Functional one, whose graph can be walked.

    Raises:
        ValueError: The model has no graph: it is subclassed, or has no declared input.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"A target is a Keras model, not {type(model).__name__}: wrap the layers in a "
            "keras.Sequential that starts with keras.Input."
        )
    try:
        if isinstance(model, keras.Sequential):
            graph = keras.Model(model.inputs[0], model.outputs[0])
        else:
            graph = keras.Model(model.input, model.output)
    except (AttributeError, TypeError, ValueError) as error:
        raise _no_graph(model) from error
    if not runs_its_graph(model, type(graph)):
        raise _no_graph(model)
    return graph


def _no_graph(model: keras.Model) -> ValueError:
    return ValueError(
        f"The model '{model.name}' has no graph to read: use a Sequential model that starts with "
        "keras.Input, or a Functional one (keras.Model(inputs, outputs))."
    )


def runs_its_graph(model: Any, functional_type: Any) -> bool:
    """Whether calling a model runs its graph, rather than a `call` of the model's own."""
    return isinstance(model, keras.Model) and type(model).call in (
        keras.Sequential.call,
        functional_type.call,
    )


def copied(
    model: keras.Model,
    *,
    synchronized: bool | None = None,
    replacements: Sequence[tuple[keras.Layer, keras.Layer]] = (),
) -> keras.Model:
    """A copy of a model, not compiled, with layers and weights of its own.

    Values are copied too, and an adapted `Normalization` becomes one with the same constants:
    Keras computes with constants there, not with the variables. A lookup that `adapt` has given its
    vocabulary keeps it.

    Args:
        model: The model.
        synchronized: Whether the copy's batch normalisations are synchronized between replicas;
            None keeps them as they are.
        replacements: Pairs of a layer and the layer that the copy has in its place, whose weights
            are its own.

    Raises:
        ValueError: The model has no graph, or its layers do not say in `get_config` what they are.
    """
    functional_type = type(functional(model))  # raises its own error first
    new_layers = {id(old): new for old, new in replacements}
    adapted: set[int] = set()
    pairs: list[tuple[Any, Any]] = []  # each layer that has been copied, and its copy

    def copy_of(layer: Any) -> Any:
        if id(layer) in new_layers:
            return new_layers[id(layer)]
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
        if type(layer) in _LOOKUPS:
            # What `adapt` found, or `set_vocabulary` set, is neither a variable nor in the
            # configuration.
            vocabulary = layer.get_vocabulary(include_special_tokens=False)
            config["vocabulary"] = list(vocabulary) or None
            weights = getattr(getattr(layer, "_lookup_layer", layer), "idf_weights_const", None)
            if config["vocabulary"] and weights is not None:
                num_special = len(weights) - len(vocabulary)
                config["idf_weights"] = np.asarray(weights)[num_special:].tolist()
        if isinstance(layer, keras.layers.BatchNormalization) and synchronized is not None:
            config["synchronized"] = synchronized
        new = type(layer).from_config(config)
        pairs.append((layer, new))
        return new

    try:
        copy = copy_of(model)
    except (TypeError, ValueError, NotImplementedError) as error:
        unknown = re.search(r"Could not locate (?:class|function) '(.+?)'", str(error))
        if unknown is not None:
            raise ValueError(
                f"The model '{model.name}' cannot be copied: Keras does not know '{unknown[1]}'. "
                "Decorate it with @keras.saving.register_keras_serializable()."
            ) from error
        if "regularizer identifier" in str(error):
            raise ValueError(
                f"The model '{model.name}' cannot be copied: Keras does not know one of its "
                "regularizers. Decorate its class with @keras.saving.register_keras_serializable()."
            ) from error
        raise ValueError(
            f"The model '{model.name}' cannot be copied: write a layer of your own instead of each "
            "Lambda, and give each layer of your own a get_config()."
        ) from error
    for layer, new in pairs:  # both are built now
        _check_namesakes(layer, new)
        if isinstance(layer, keras.Layer) and not layer.trainable:
            # The configuration does not freeze the layers inside it, and TensorFlow drops an
            # assignment of the value that is there.
            new.trainable = True
            new.trainable = False
    replaced = adapted | {id(v) for pair in replacements for layer in pair for v in layer.variables}

    def variables_of(side: int) -> tuple[list[Any], list[tuple]]:
        layers = [pair[side] for pair in pairs if isinstance(pair[side], keras.Layer)]
        every = {id(v): v for layer in layers for v in layer.variables if id(v) not in replaced}
        trainable = {id(v) for layer in layers for v in layer.trainable_variables}
        variables = list(every.values())
        return variables, [(v.name, tuple(v.shape), id(v) in trainable) for v in variables]

    # Layer by layer: a model may have its layers in another order than its copy.
    (variables, signatures), (copies, of_copies) = variables_of(0), variables_of(1)
    total = {id(v) for v in model.variables} - replaced
    if len(variables) != len(total) or signatures != of_copies:
        raise ValueError(
            f"A copy of the model '{model.name}' has other weights: freeze whole layers rather "
            "than single weights, and share weights by calling one layer twice in one model."
        )
    for variable, value in zip(copies, variables, strict=True):
        if value.trainable and value.regularizer and not variable.regularizer:
            raise ValueError(
                f"The layer of '{value.path}' does not state its regularizer, which a copy loses: "
                "set kernel_regularizer=..., and return it from get_config. To remove it, set "
                "variable.regularizer = None."
            )
        variable.assign(value)
    for layer in copy._flatten_layers():
        if isinstance(layer, keras.layers.Normalization) and layer.input_mean is None:
            layer.finalize_state()  # its call reads constants, not the variables
    return copy


def _check_namesakes(layer: Any, copy: Any) -> None:
    """Check that a copy has the functions of a layer, and not others that have their names.

    Keras saves any function by its name, and finds one of its own that has this name.
    """
    if not isinstance(layer, keras.Layer):
        return
    for one, other in zip(layer._flatten_layers(), copy._flatten_layers(), strict=False):
        for name in ("activation", "recurrent_activation", "function"):  # a Lambda has a function
            function, of_copy = getattr(one, name, None), getattr(other, name, None)
            if isinstance(function, types.FunctionType) and _is_another(of_copy, function):
                raise ValueError(
                    f"The {name} '{function.__name__}' of layer '{one.name}' has the name of one "
                    "of Keras's, which a copy would have: write it as a layer, or register it."
                )


def _is_another(of_copy: Any, function: Any) -> bool:
    """Whether a copy has an activation of Keras's that computes something else than the function.

    Both are compared on numbers of an array with several axes.
    """
    if of_copy is function or not getattr(of_copy, "__module__", "").startswith("keras."):
        return False
    x = np.random.default_rng(0).uniform(-20, 20, (2, 3, 5, 7)).astype(np.float32)
    try:
        return not np.allclose(function(x), of_copy(x), atol=1e-6)
    except Exception:  # the function takes something else
        return True


def _check_reads_no_variable(operation: Any, arguments: Any) -> None:
    """Check that no trainable variable of the user's model stands in the place of a tensor."""
    for leaf in keras.tree.flatten(arguments):
        if isinstance(leaf, keras.Variable) and leaf.trainable:
            raise ValueError(
                f"'{operation.name}' reads the variable '{leaf.path}' itself, which generated "
                "weights cannot replace: let the layer that has it compute this, as "
                "keras.layers.ReversibleEmbedding does."
            )


def in_order(tensors: Any, expected: Any, names: list[str]) -> list[Any]:
    """The tensors given to a model, in the order of its inputs.

    Args:
        tensors: Tensors structured as the model's inputs, or a dict by the names of the inputs.
        expected: The structure of the model's inputs.
        names: The name of each input.

    Raises:
        ValueError: An input is missing, or there are too many.
    """
    if isinstance(tensors, dict):
        keys = list(expected) if isinstance(expected, dict) else names
        if missing := [key for key in keys if key not in tensors]:
            raise ValueError(
                f"Inputs are missing: also give the target {', '.join(missing)}. Given are "
                f"{', '.join(map(str, tensors))}; a data set of dictionaries with labels becomes "
                "one of (x, y) by data_set.map(lambda d: (d['image'], d['label']))."
            )
        chosen = {key: tensors[key] for key in keys}
        tensors = chosen if isinstance(expected, dict) else list(chosen.values())
    elif isinstance(expected, dict) and list(expected) != sorted(expected):
        raise ValueError(
            "The model names its inputs, and a list of them has no order: give a dict of "
            f"{', '.join(expected)}."
        )
    flat = keras.tree.flatten(tensors)
    if len(flat) != len(names):
        raise ValueError(
            f"The target takes {len(names)} inputs, but {len(flat)} were given: structure them as "
            "the model's inputs."
        )
    return flat


# ---- recording ------------------------------------------------------------------------------


def record(model: keras.Model) -> Plan:
    """Write down the calls of a model.

    The walk calls the layers on symbolic tensors. Record a copy of a user's model, as `Target`
    does: the user's layers would otherwise gain connections that the user never made.

    Args:
        model: A Sequential or Functional model.

    Returns:
        The plan.

    Raises:
        ValueError: The model has no graph, or a nested model that takes integers is given floats.
    """
    calls: list[Call] = []
    shapes: dict[Ref, tuple[int | None, ...]] = {}

    def new_ref(tensor: Any) -> Ref:
        ref = Ref(len(shapes))
        shapes[ref] = tuple(tensor.shape[1:])
        return ref

    def walk(graph: keras.Model, inputs: list[Ref]) -> Any:
        """Record the calls of a graph; returns a `Ref` for each of its outputs."""
        symbolic = keras.tree.map_structure(
            lambda t: keras.Input(batch_shape=t.shape, dtype=t.dtype, name=t.name), graph.input
        )
        # Symbolic tensors are told apart by identity, so `alive` keeps every one of them: an id
        # must not be used again while we walk.
        alive: list[Any] = keras.tree.flatten(symbolic)
        refs = {id(tensor): ref for tensor, ref in zip(alive, inputs, strict=True)}

        def ref_of(leaf: Any) -> Any:
            return refs.get(id(leaf), leaf)

        def call(operation, *args, **kwargs):
            _check_reads_no_variable(operation, (args, kwargs))
            outputs = operation(*args, **kwargs)
            ref_args = keras.tree.map_structure(ref_of, args)
            # As in Keras, the mode in which the whole model is called overrides what a layer was
            # given when the graph was made.
            ref_kwargs = {
                name: keras.tree.map_structure(ref_of, value)
                for name, value in kwargs.items()
                if name != "training"
            }
            if runs_its_graph(operation, type(graph)):
                nested = functional(operation)
                names = [tensor.name for tensor in nested.inputs]
                tensors = in_order(_first_argument(args, kwargs), nested.input, names)
                _check_types(operation, tensors, nested.inputs)
                _check_mask(operation, tensors, kwargs.get("mask"))
                nested_refs = in_order(_first_argument(ref_args, ref_kwargs), nested.input, names)
                for index, (tensor, like) in enumerate(zip(tensors, nested.inputs, strict=True)):
                    if tensor.dtype != like.dtype:  # Keras casts what a model is given
                        made = new_ref(tensor)
                        is_float = keras.backend.is_float_dtype
                        if is_float(like.dtype) and is_float(tensor.dtype):
                            cast = keras.layers.Identity(dtype=like.dtype)
                        else:
                            cast = keras.ops.cast(tensor, like.dtype)._keras_history.operation
                        calls.append(Call(cast, (nested_refs[index],), {}, made))
                        nested_refs[index] = made
                output_refs = walk(nested, nested_refs)
            else:
                output_refs = keras.tree.map_structure(new_ref, outputs)
                calls.append(Call(operation, ref_args, ref_kwargs, output_refs))
            tensors = keras.tree.flatten(outputs)
            alive.extend(tensors)
            refs.update(
                {id(t): r for t, r in zip(tensors, keras.tree.flatten(output_refs), strict=True)}
            )
            return outputs

        clone = keras.models.clone_model(
            graph, input_tensors=symbolic, clone_function=lambda layer: layer, call_function=call
        )
        return keras.tree.map_structure(lambda t: refs[id(t)], clone.output)

    graph = functional(model)
    inputs = keras.tree.map_structure(new_ref, graph.input)
    outputs = walk(graph, keras.tree.flatten(inputs))
    inputs, outputs = map(_unpacked, (inputs, outputs))
    return Plan(tuple(calls), inputs, outputs, shapes)


def _unpacked(refs: Any) -> Any:
    """The one input or output of `keras.Model([x], [y])` itself, as Keras passes it to a loss."""
    return refs[0] if isinstance(refs, (list, tuple)) and len(refs) == 1 else refs


def replay(
    plan: Plan, inputs: Sequence[Any], run: Callable[[Call, tuple, dict], Any] | None = None
) -> Any:
    """Run every call of a plan, in order.

    Args:
        plan: The plan.
        inputs: Tensors or other values, in the order of the model's inputs.
        run: Function (call, positional arguments, keyword arguments) -> what the call returns;
            None calls the layer itself, to which symbolic tensors bring the masks that they carry.

    Returns:
        Values, structured as the model's outputs.
    """
    values = dict(zip(keras.tree.flatten(plan.inputs), inputs, strict=True))

    def with_values(arguments: Any) -> Any:
        return keras.tree.map_structure(
            lambda leaf: values[leaf] if isinstance(leaf, Ref) else leaf, arguments
        )

    for call in plan.calls:
        args, kwargs = with_values(call.args), with_values(call.kwargs)
        result = run(call, args, kwargs) if run else call.operation(*args, **kwargs)
        # A layer's symbolic and real outputs may be containers of different types.
        outputs = keras.tree.flatten(result)
        values.update(zip(keras.tree.flatten(call.outputs), outputs, strict=True))
    return with_values(plan.outputs)


def _first_argument(args: tuple, kwargs: dict) -> Any:
    return args[0] if args else kwargs["inputs"]


def _check_mask(model: keras.Model, tensors: list, mask: Any) -> None:
    """Check that the mask of a nested model is that of its inputs, with which it travels."""
    is_given = any(one is not None for one in keras.tree.flatten(mask))
    if is_given and all(getattr(one, "_keras_mask", None) is None for one in tensors):
        raise ValueError(
            f"The nested model '{model.name}' is given a mask that its inputs do not have: make it "
            "with Masking or Embedding(mask_zero=True), whose masks go along with the inputs."
        )


def _check_types(model: keras.Model, tensors: list, inputs: list) -> None:
    """Check that a nested model which takes whole numbers is given no others."""
    for tensor, like in zip(tensors, inputs, strict=True):
        is_float = keras.backend.is_float_dtype
        if is_float(tensor.dtype) and not is_float(like.dtype):
            raise ValueError(
                f"The nested model '{model.name}' takes {like.dtype} and is given {tensor.dtype}: "
                "cast its inputs with keras.ops.cast."
            )
