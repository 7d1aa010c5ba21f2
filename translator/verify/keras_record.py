"""The graph of any Keras model, a subclassed one too: its `call` runs once on symbolic tensors; every step is noted.

Layers that a user's class put together are entered, so what is inside them can be judged. A class whose `call` does
what only the backend can (`tf.…` in place of `keras.ops.…`) stays one step. The model is afterwards what it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
from keras.src.ops.node import Node
from keras.src.ops.operation import Operation

from translator.claims import KerasValue
from translator.errors import UnsupportedError
from translator.types import Shape
from translator.verify.exact_casts import exact_numbers
from translator.verify.facts_keras import keras_facts
from translator.verify.keras_graph import INPUT, KerasGraph, expand, functional, graph_of
from translator.verify.keras_replay import backend_errors

_LAMBDA = "keras.src.layers.core.lambda_layer"
_CALL_ERRORS = (TypeError, ValueError, AttributeError, LookupError, RuntimeError)


def graph_of_any(model: keras.Model, input_shapes: Sequence[Shape] = ()) -> KerasGraph:
    """The graph of a model of any style. input_shapes: of an example, for a model that does not know its own, or whose
    layers compute with the size of the batch.

    Raises UnsupportedError for a model whose `call` can't be followed.
    """
    if functional(model) is not None and not any(map(is_composite, _inner(model))):
        return graph_of(model)
    graph, missed = record(model, _input_specs(model, input_shapes, _as_it_is))
    # A call that asks for the batch needs a number, one that makes a mask for so many words needs all of them.
    for known in (_batch_known, _all_known) if input_shapes and input_shapes[0] else ():
        if not missed:
            break
        with suppress(UnsupportedError):
            fixed, still = record(model, _input_specs(model, input_shapes, partial(known, input_shapes)))
            graph, missed = (fixed, still) if still < missed else (graph, missed)
    return graph


def is_composite(layer: keras.layers.Layer) -> bool:
    """Whether a layer computes by code of the user's (or of a library's) own, which is to be followed.

    A class that derives from a layer that can be described (a Conv2D that standardises its kernel) is taken whole.
    """
    home = type(layer).call.__module__
    if functional(layer) is not None or (home.startswith("keras.") and home != _LAMBDA):
        return False
    if layer._layers:
        return True
    return not _asks_for_sizes(layer) and (home == _LAMBDA or keras_facts(layer) is None)


_NOT_CALLED = ("__init__", "build", "get_config", "from_config")


def _asks_for_sizes(layer: keras.layers.Layer) -> bool:
    """Whether the layer's code looks at shapes: followed with an open size, it would write down a None.

    Layers of layers are followed nevertheless, since they have to be, and again with a number where it fails.
    """
    own = [cls for cls in type(layer).__mro__ if not cls.__module__.startswith("keras.")]
    functions = [f for cls in own for name, f in vars(cls).items() if name not in _NOT_CALLED and "compute" not in name]
    functions.append(getattr(layer, "function", None))
    codes = [f.__code__ for f in functions if inspect.isfunction(f)]
    return any("shape" in code.co_names for code in codes)


def _inner(model: keras.Model) -> Iterator[keras.layers.Layer]:
    yield from model._flatten_layers(include_self=True, recursive=True)


_Sizes = Callable[[Sequence[int | None]], Sequence[int | None]]
"""What is known of the sizes of an input, from what the model says of them."""


def _as_it_is(shape: Sequence[int | None]) -> Sequence[int | None]:
    return shape


def _batch_known(examples: Sequence[Shape], shape: Sequence[int | None]) -> Sequence[int | None]:
    return (shape[0] or examples[0][0], *shape[1:])


def _all_known(examples: Sequence[Shape], shape: Sequence[int | None]) -> Sequence[int | None]:
    alike = (e for e in examples if len(e) == len(shape) and all(d in (None, n) for d, n in zip(shape, e, strict=True)))
    return next(alike, None) or _batch_known(examples, shape)


def _input_specs(model: keras.Model, shapes: Sequence[Shape], sizes: _Sizes) -> Any:
    """Symbolic inputs in the structure that the model's `call` takes."""
    if functional(model) is not None:
        return {"args": (keras.tree.map_structure(partial(_like, sizes=sizes), model._inputs_struct),), "kwargs": {}}
    known: Mapping[str, Any] = getattr(model, "_build_shapes_dict", None) or {}
    dtypes = str(model.input_dtype) if not shapes else "float32"
    if len(known) == 1:
        (shape,) = known.values()
        return {"args": (_tensors(shape, dtypes, sizes),), "kwargs": {}}
    if known:
        named = {name.removesuffix("_shape"): _tensors(s, dtypes, sizes) for name, s in known.items()}
        return {"args": (), "kwargs": named}
    if shapes:
        return {"args": tuple(_tensors(shape, dtypes, sizes) for shape in shapes), "kwargs": {}}
    raise UnsupportedError(f"{type(model).__name__}: its input shape isn't known", reason="export", fix="call it once")


def _like(tensor: Any, sizes: _Sizes) -> Any:
    shape = tuple(sizes(tensor.shape))
    return keras.Input(batch_shape=shape, dtype=tensor.dtype, name=tensor._keras_history.operation.name)


def _tensors(shape: Any, dtype: str, sizes: _Sizes) -> Any:
    if isinstance(shape, dict):
        return {key: _tensors(value, dtype, sizes) for key, value in shape.items()}
    if isinstance(shape, tuple | list) and shape and isinstance(shape[0], tuple | list):
        return [_tensors(value, dtype, sizes) for value in shape]
    return keras.Input(batch_shape=tuple(sizes((None, *tuple(shape)[1:]))), dtype=dtype)


class ReadVariable(Operation):  # type: ignore[misc]
    """A variable that a user's layer computes with, as a step of the graph: its value changes when the weight does."""

    def __init__(self, variable: Any) -> None:
        super().__init__(name=variable.name)
        self.weights = [variable]

    def call(self) -> Any:
        """The variable's value."""
        return keras.ops.convert_to_tensor(self.weights[0])

    def compute_output_spec(self) -> Any:
        """What the value looks like."""
        return keras.KerasTensor(self.weights[0].shape, dtype=self.weights[0].dtype)


@contextmanager
def _variables_symbolic(layer: keras.layers.Layer, note: Callable[[Any], Any]) -> Iterator[None]:
    """Let the layer find symbolic tensors where its own variables are, so that what it does with them is seen."""
    own = {id(v): v for v in (*layer._trainable_variables, *layer._non_trainable_variables)}
    names = {name: v for name, v in vars(layer).items() if id(v) in own}
    read: dict[int, Any] = {}
    for name, variable in names.items():
        if id(variable) not in read:
            read[id(variable)] = note(ReadVariable(variable).symbolic_call())
        vars(layer)[name] = read[id(variable)]
    try:
        yield
    finally:
        vars(layer).update(names)


@dataclass(slots=True)
class _Notes:
    """Where recording stands: the path inside which calls happen, and the prefix of each node (by id)."""

    layer_call: Callable[..., Any]
    symbolic_call: Callable[..., Any]
    prefix: str = ""
    inside: dict[int, str] = field(default_factory=dict)
    entered: dict[str, keras.Operation] = field(default_factory=dict)
    results: list[tuple[str, Any]] = field(default_factory=list)
    inside_step: int = 0
    missed: int = 0

    def note(self, outputs: Any) -> Any:
        """Remember where the node that made these symbolic tensors stands."""
        for tensor in keras.tree.flatten(outputs):
            history = getattr(tensor, "_keras_history", None)
            if isinstance(tensor, keras.KerasTensor) and history is not None and history.operation is not None:
                self.inside[id(history.operation._inbound_nodes[history.node_index])] = self.prefix
        return outputs

    def enter(self, layer: keras.layers.Layer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the layer's own `call` on symbolic tensors."""
        outer, self.prefix = self.prefix, f"{self.prefix}{layer.name}/"
        known = inspect.signature(layer.call).parameters
        if "training" in known:
            kwargs = {**kwargs, "training": False}
        elif not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values()):
            kwargs = {name: value for name, value in kwargs.items() if name in known}
        try:
            with _variables_symbolic(layer, self.note):
                outputs = layer.call(*args, **kwargs)
        finally:
            path, self.prefix = self.prefix[:-1], outer
        self.entered[path] = layer
        self.results.append((path, outputs))
        return outputs


def record(model: keras.Model, specs: Mapping[str, Any]) -> tuple[KerasGraph, int]:
    """Follow the model's `call` on these symbolic inputs: the graph, and how much of it is no use as it was followed:
    composite layers that stayed one step, steps that wrote down a size that wasn't known.

    Raises UnsupportedError where that can't be done.
    """
    with _untouched(model), _watching() as notes:
        inputs = keras.tree.flatten((specs["args"], specs["kwargs"]))
        outputs = _top(model, specs)
        graph = KerasGraph(entered=dict(notes.entered))
        bound: dict[int, int] = {}
        for tensor in inputs:
            number = graph.new_value(tensor, INPUT)
            bound[id(tensor)] = number
            graph.inputs.append(number)
            graph.names[KerasValue(operation=tensor._keras_history.operation.name)] = number
        flat = keras.tree.flatten(outputs)
        if not flat or not all(isinstance(t, keras.KerasTensor) for t in flat):
            raise _not_followed(model, "it returns something that is no tensor")
        graph.outputs = expand(graph, flat, bound, inside=notes.inside)
        _name_results(graph, notes, bound)
    return graph, notes.missed + sum(map(_lacks_a_size, graph.operations))


def _lacks_a_size(operation: keras.Operation) -> bool:
    """Whether an operation was told a shape with a None in it, such as reshape(x, (batch, 4, 4)): it can't be run."""
    if not type(operation).__module__.startswith("keras.src.ops."):
        return False
    shapes = [v for v in vars(operation).values() if isinstance(v, tuple | list)]
    return any(None in shape and any(isinstance(n, int) for n in shape) for shape in shapes)


def _top(model: keras.Model, specs: Mapping[str, Any]) -> Any:
    kwargs = dict(specs["kwargs"])
    if "training" in inspect.signature(model.call).parameters:
        kwargs["training"] = False
    try:
        return model.call(*specs["args"], **kwargs)
    except _CALL_ERRORS as error:
        raise _not_followed(model, str(error).strip().splitlines()[0] if str(error).strip() else "") from error


def _not_followed(model: keras.Model, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"{type(model).__name__}: its call can't be followed: {why}"[:400],
        reason="control-flow",
        fix="use keras.ops in place of functions of the backend, and no Python decisions on values",
    )


def _name_results(graph: KerasGraph, notes: _Notes, bound: Mapping[int, int]) -> None:
    """A layer that was entered has the results of what is inside it."""
    calls: dict[str, int] = {}
    for path, outputs in notes.results:
        call = calls.get(path, 0)
        calls[path] = call + 1
        for place, tensor in enumerate(keras.tree.flatten(outputs)):
            if id(tensor) in bound:
                graph.names.setdefault(KerasValue(operation=path, call=call, tensor=place), bound[id(tensor)])


def _constant_call(layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A call on constants (a table looked up at 0, 1, 2 …) as a step: its result changes when the weights do."""
    outputs = layer.compute_output_spec(*args, **kwargs)
    Node(operation=layer, call_args=args, call_kwargs=kwargs, outputs=outputs)
    return outputs


def reads_only_sizes(layer: keras.layers.Layer, node: Any, shapes: Mapping[int, Shape]) -> bool:
    """Whether a layer's result, in this call, depends on its weights and the sizes of what it is given, not on the
    numbers: a table of positions. It is asked twice, with weights of the moment. shapes: concrete ones, by id."""
    own = [(w, np.array(keras.ops.convert_to_numpy(w))) for w in layer.weights]
    dtypes = {id(t): t.dtype for t in node.input_tensors}
    results = []
    try:
        for weight, value in own:
            weight.assign(np.linspace(0.5, 1.5, value.size).reshape(value.shape).astype(value.dtype))
        for number in (0, 1):
            given = {key: keras.ops.full(shape, number, dtype=dtypes[key]) for key, shape in shapes.items()}
            args, kwargs = node.arguments.fill_in(given)
            flat = keras.tree.flatten(layer.call(*args, **{k: v for k, v in kwargs.items() if k != "training"}))
            results.append([np.asarray(keras.ops.convert_to_numpy(t)) for t in flat])
    except backend_errors():
        return False
    finally:
        for weight, value in own:
            weight.assign(value)
    return all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


@contextmanager
def _watching() -> Iterator[_Notes]:
    """Note every symbolic call, and enter composite layers, while the block runs."""
    layer_class: Any = keras.layers.Layer
    operation_class: Any = Operation
    notes = _Notes(layer_class.__call__, operation_class.symbolic_call)

    def layer_call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        symbolic = any(isinstance(t, keras.KerasTensor) for t in keras.tree.flatten((args, kwargs)))
        enters = symbolic and layer.built and (is_composite(layer) or functional(layer) is not None)
        if enters:
            try:
                return notes.enter(layer, args, dict(kwargs))
            except _CALL_ERRORS:
                notes.missed += 1  # it does what only the backend can: one step
        if not symbolic and notes.prefix and not notes.inside_step and layer.built and layer.weights:
            return notes.note(_constant_call(layer, args, kwargs))
        notes.inside_step += 1
        try:
            outputs = notes.layer_call(layer, *args, **kwargs)
        finally:
            notes.inside_step -= 1
        return notes.note(outputs) if symbolic else outputs

    def symbolic_call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        return notes.note(notes.symbolic_call(operation, *args, **kwargs))

    layer_class.__call__, operation_class.symbolic_call = layer_call, symbolic_call
    try:
        with exact_numbers():
            yield notes
    finally:
        layer_class.__call__, operation_class.symbolic_call = notes.layer_call, notes.symbolic_call


@contextmanager
def _untouched(model: keras.Model) -> Iterator[None]:
    """Take the nodes that the block adds to the model's layers away again."""
    before = [(layer, len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in _inner(model)]
    try:
        yield
    finally:
        for layer, inbound, outbound in before:
            del layer._inbound_nodes[inbound:]
            del layer._outbound_nodes[outbound:]
