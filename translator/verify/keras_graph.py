"""A Keras model as one flat list of steps: nested models entered, every value numbered, every call named.

Reading only: nothing is computed here. `keras_replay` computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from translator.claims import KerasValue
from translator.errors import UnsupportedError
from translator.types import Shape

INPUT = -1
"""The producer of a value that is an input of the model."""

_FUNCTIONAL = ("keras.src.models.functional", "keras.src.ops.function")


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One call of one operation that is not entered.

    path: operation names from the outside in, joined by "/". node: Keras' record of the call. bound: for each symbolic
    tensor among the arguments (by id) the number of its value. inputs, outputs: numbers of values, in Keras' order.
    """

    path: str
    call: int
    operation: keras.Operation
    node: Any
    bound: Mapping[int, int]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def run(self, values: Mapping[int, Any]) -> list[Any]:
        """Compute the step in inference mode on `values`, by number; its outputs, flattened."""
        args, kwargs = self.node.arguments.fill_in({tensor: values[number] for tensor, number in self.bound.items()})
        if "training" in getattr(self.operation, "_call_context_args", ()):
            kwargs = {**kwargs, "training": False}
        flat: list[Any] = keras.tree.flatten(self.operation(*args, **kwargs))
        return flat


@dataclass(slots=True, kw_only=True)
class KerasGraph:
    """The whole model. Steps stand in an order in which they can run.

    shapes, dtypes: of every value, as Keras inferred them. producer: of every value, the index of its step, or INPUT.
    names: every `KerasValue` there is, with its number; several names may share one (a nested model's output is
    the output of a layer inside it). entered: nested models by path.
    """

    steps: list[Step] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    producer: list[int] = field(default_factory=list)
    names: dict[KerasValue, int] = field(default_factory=dict)
    entered: dict[str, keras.Operation] = field(default_factory=dict)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def new_value(self, tensor: Any, producer: int) -> int:
        """Number one more value, with the shape and dtype of the symbolic `tensor`."""
        self.shapes.append(tuple(tensor.shape))
        self.dtypes.append(keras.backend.standardize_dtype(tensor.dtype))
        self.producer.append(producer)
        return len(self.producer) - 1

    def needed(self, values: Iterable[int]) -> list[int]:
        """Indices of all steps that `values` depend on, ascending."""
        seen: set[int] = set()
        stack = [self.producer[v] for v in values]
        while stack:
            step = stack.pop()
            if step == INPUT or step in seen:
                continue
            seen.add(step)
            stack.extend(self.producer[v] for v in self.steps[step].inputs)
        return sorted(seen)

    @property
    def operations(self) -> list[keras.Operation]:
        """Every operation that computes, once, in order of its first call."""
        return list({id(s.operation): s.operation for s in self.steps}.values())


def graph_of(model: keras.Model) -> KerasGraph:
    """The graph of a Functional or Sequential model, nested ones included.

    Raises UnsupportedError for a subclassed model; `keras_record` can record those.
    """
    function = functional(model)
    if function is None:
        raise UnsupportedError(f"{type(model).__name__} is not a Functional or Sequential model", reason="control-flow")
    graph = KerasGraph()
    bound: dict[int, int] = {}
    for tensor in function.inputs:
        number = graph.new_value(tensor, INPUT)
        bound[id(tensor)] = number
        graph.inputs.append(number)
        graph.names[KerasValue(operation=tensor._keras_history.operation.name)] = number
    graph.outputs = expand(graph, function.outputs, bound)
    return graph


def functional(operation: keras.Operation) -> Any | None:
    """What to enter in place of `operation`: a Functional model as it is, a Sequential's own; None for all others."""
    home = type(operation).call.__module__
    if home == "keras.src.models.sequential":
        return getattr(operation, "_functional", None)
    return operation if home in _FUNCTIONAL else None


def expand(
    graph: KerasGraph,
    outputs: Sequence[Any],
    bound: dict[int, int],
    *,
    prefix: str = "",
    outer: int = 0,
    inside: Mapping[int, str] | None = None,
) -> list[int]:
    """Add everything between the symbolic tensors in `bound` (id → number) and `outputs`; the outputs' numbers.

    prefix: path of the model that is entered, with a "/" behind. outer: the number of its call. inside: prefixes of
    single nodes (by id), where they were recorded below a subclassed model.
    """
    nodes = _ordered(outputs, bound)
    ranks, totals = _ranks(nodes, prefix, inside or {})
    for node in nodes:
        path = (inside or {}).get(id(node), prefix) + node.operation.name
        call = outer * totals[path] + ranks[id(node)]
        if not _enter(graph, node, path, call, bound):
            _add_step(graph, node, path, call, bound)
    return [bound[id(t)] for t in outputs]


def _enter(graph: KerasGraph, node: Any, path: str, call: int, bound: dict[int, int]) -> bool:
    """Expand the nested model that `node` calls; False where it is no such thing or is called in an unusual way."""
    function = functional(node.operation)
    given = _nested_inputs(node, function) if function is not None else None
    if function is None or given is None or not all(_alike(g, i) for g, i in zip(given, function.inputs, strict=True)):
        return False
    scope = {}
    for tensor, inner in zip(given, function.inputs, strict=True):
        scope[id(inner)] = bound[id(tensor)]
        graph.names[KerasValue(operation=f"{path}/{inner._keras_history.operation.name}", call=call)] = bound[
            id(tensor)
        ]
    graph.entered[path] = node.operation
    results = expand(graph, function.outputs, scope, prefix=f"{path}/", outer=call)
    for i, (tensor, number) in enumerate(zip(node.outputs, results, strict=True)):
        bound[id(tensor)] = number
        graph.names[KerasValue(operation=path, call=call, tensor=i)] = number
    return True


def _add_step(graph: KerasGraph, node: Any, path: str, call: int, bound: dict[int, int]) -> None:
    used = {id(t): bound[id(t)] for t in node.input_tensors}
    index = len(graph.steps)
    numbers = []
    for i, tensor in enumerate(node.outputs):
        bound[id(tensor)] = graph.new_value(tensor, index)
        numbers.append(bound[id(tensor)])
        graph.names[KerasValue(operation=path, call=call, tensor=i)] = numbers[-1]
    step = Step(
        path=path,
        call=call,
        operation=node.operation,
        node=node,
        bound=used,
        inputs=tuple(dict.fromkeys(used.values())),
        outputs=tuple(numbers),
    )
    graph.steps.append(step)


def _nested_inputs(node: Any, function: Any) -> list[Any] | None:
    """The symbolic tensors for `function.inputs`, in their order; None where the call has any other form."""
    args, kwargs = node.arguments.args, node.arguments.kwargs
    others = keras.tree.flatten([value for key, value in kwargs.items() if key != "training"])  # a None for each mask
    if len(args) != 1 or any(value is not None for value in others):
        return None
    given = args[0]
    if isinstance(given, dict) and not isinstance(function._inputs_struct, dict):
        if any(t.name not in given for t in function.inputs):
            return None
        given = [given[t.name] for t in function.inputs]
    flat = keras.tree.flatten(given)
    fits = len(flat) == len(function.inputs) and all(isinstance(t, keras.KerasTensor) for t in flat)
    return flat if fits else None


def _alike(tensor: Any, inner: Any) -> bool:
    """Whether entering a nested model changes nothing: the same rank, and both float or one dtype."""
    if len(tensor.shape) != len(inner.shape):
        return False
    kinds = [keras.backend.standardize_dtype(t.dtype) for t in (tensor, inner)]
    return kinds[0] == kinds[1] or all(keras.backend.is_float_dtype(k) for k in kinds)


def _ordered(outputs: Sequence[Any], bound: Mapping[int, int]) -> list[Any]:
    """All nodes between, each after those it needs; no recursion, for models thousands of layers deep."""
    order: list[Any] = []
    state: dict[int, bool] = {}
    stack = [n for t in reversed(outputs) if (n := _node(t, bound)) is not None]
    while stack:
        node = stack[-1]
        if state.get(id(node)):
            stack.pop()
            continue
        waiting = [n for t in node.input_tensors if (n := _node(t, bound)) is not None and not state.get(id(n))]
        if waiting:
            stack.extend(reversed(waiting))
            continue
        state[id(node)] = True
        order.append(stack.pop())
    return order


def _node(tensor: Any, bound: Mapping[int, int]) -> Any | None:
    if id(tensor) in bound:
        return None
    operation, index, _ = tensor._keras_history
    return None if operation is None else operation._inbound_nodes[index]


def _ranks(nodes: Sequence[Any], prefix: str, inside: Mapping[int, str]) -> tuple[dict[int, int], Counter[str]]:
    """For each node (by id) the number of its call among all calls of its operation, and how many each path has."""
    by_path: dict[str, list[Any]] = {}
    for node in nodes:
        by_path.setdefault(inside.get(id(node), prefix) + node.operation.name, []).append(node)
    ranks = {id(n): rank for group in by_path.values() for rank, n in enumerate(_in_call_order(group))}
    return ranks, Counter({path: len(group) for path, group in by_path.items()})


def _in_call_order(group: Sequence[Any]) -> Iterator[Any]:
    if len(group) == 1:
        yield group[0]
        return
    place = {id(n): i for i, n in enumerate(group[0].operation._inbound_nodes)}
    yield from sorted(group, key=lambda n: place.get(id(n), len(place)))
