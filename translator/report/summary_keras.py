"""The layer table of a Keras model: Functional, Sequential or subclassed; nested models are opened."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from translator import runtime
from translator.report.summary import SummaryRow, SummaryTable, counted_once
from translator.types import Shape

runtime.prepare()

import keras  # noqa: E402

Shapes = Mapping[int, tuple[Shape, ...]]
"""Output shapes by the identity of a layer: of a subclassed model, as it was traced."""


def keras_summary(model: keras.Model) -> SummaryTable:
    """List the layers as Keras orders them; the layers of a nested model before the row of that model.

    The weights of a nested model, or of a custom layer that is made of layers, count for the layers that hold them.
    """
    seen: set[int] = set()
    rows = list(_rows(model, "", seen, _traced(model)))
    own = _own_row(model, "", seen, {}, inner=_parts(model))
    if own.params or own.buffers:
        rows.append(own)
    weights = {id(w): w for w in model.weights}.values()
    total = sum(_elements(w) for w in weights)
    trainable = sum(_elements(w) for w in {id(w): w for w in model.trainable_weights}.values())
    return SummaryTable(
        framework="Keras",
        name=model.name,
        rows=tuple(rows),
        total=total,
        trainable=trainable,
        buffers=total - trainable,
    )


def _rows(model: Any, prefix: str, seen: set[int], traced: Shapes) -> Iterator[SummaryRow]:
    nodes = _nodes(model)
    for part in _parts(model):
        inner = _parts(part)
        if inner:
            yield from _rows(part, f"{prefix}{part.name}/", seen, traced)
        yield _own_row(part, prefix, seen, traced, inner=inner, nodes=nodes)


def _own_row(
    part: Any, prefix: str, seen: set[int], traced: Shapes, *, inner: list[Any], nodes: frozenset[int] = frozenset()
) -> SummaryRow:
    below = {id(weight) for one in inner for weight in getattr(one, "weights", ())}
    weights = [w for w in getattr(part, "weights", ()) if id(w) not in below]
    not_trained = [(id(w), _elements(w)) for w in weights if not w.trainable]
    state, _ = counted_once(not_trained, set(seen))
    params, shared = counted_once([(id(w), _elements(w)) for w in weights], seen)
    calls = [node for node in getattr(part, "_inbound_nodes", ()) if not nodes or id(node) in nodes]
    shapes = traced.get(id(part)) or _shapes(part, calls)
    return SummaryRow(
        name=f"{prefix}{part.name}",
        type=type(part).__name__,
        shapes=shapes,
        params=params,
        shared=shared,
        buffers=state,
        inputs=tuple(_source(tensor) for node in calls for tensor in node.input_tensors),
    )


def _parts(part: Any) -> list[Any]:
    """What a model, or a user's layer that is made of layers, consists of; nothing for a layer of Keras' own."""
    if isinstance(part, keras.Model):
        operations = getattr(part, "operations", None) if _nodes(part) else None
        return list(operations if operations is not None else part.layers)
    if not isinstance(part, keras.layers.Layer) or type(part).__module__.split(".")[0] in ("keras", "keras_hub"):
        return []
    return list(part._flatten_layers(include_self=False, recursive=False))


def _nodes(model: Any) -> frozenset[int]:
    """The identities of the calls that belong to a Functional model: its layers may have been called elsewhere, too."""
    return frozenset(id(node) for depth in getattr(model, "_nodes_by_depth", {}).values() for node in depth)


def _shapes(part: Any, calls: list[Any]) -> tuple[Shape, ...]:
    """Output shapes of all different calls; else what the layer says of the shapes that it was built for."""
    if calls:
        return tuple(dict.fromkeys(tuple(t.shape) for node in calls for t in node.output_tensors))
    built = getattr(part, "_build_shapes_dict", None)
    if not built:
        return ()
    try:
        shape = part.compute_output_shape(**built)
    except (NotImplementedError, TypeError, ValueError):
        return ()
    return tuple(map(_any_batch, _flat(shape)))


def _any_batch(shape: Shape) -> Shape:
    """The shape with a dynamic batch: a subclassed model was built on an example."""
    return (None, *shape[1:]) if shape else shape


def _flat(shape: Any) -> tuple[Shape, ...]:
    if isinstance(shape, (tuple, list)) and all(d is None or isinstance(d, int) for d in shape):
        return (tuple(shape),)
    items = shape.values() if isinstance(shape, Mapping) else shape
    return tuple(one for item in items for one in _flat(item))


def _source(tensor: Any) -> str:
    made = tensor._keras_history
    return f"{made.operation.name}[{made.node_index}][{made.tensor_index}]"


def _elements(weight: Any) -> int:
    count = 1
    for size in weight.shape:
        count *= size
    return count


def _traced(model: keras.Model) -> Shapes:
    """Output shapes inside a subclassed model, from one symbolic call; nothing where that is not possible."""
    built = getattr(model, "_build_shapes_dict", None)
    if _nodes(model) or isinstance(model, keras.Sequential) or not built:
        return {}
    shapes = [_any_batch(shape) for value in built.values() for shape in _flat(value)]
    given = [keras.KerasTensor(shape, dtype=model.input_dtype) for shape in shapes]
    with _recording() as found:
        try:
            model.compute_output_spec(*given)
        except (RuntimeError, TypeError, ValueError):
            return {}  # the table then shows what the layers know of themselves
    return found


@contextmanager
def _recording() -> Iterator[dict[int, tuple[Shape, ...]]]:
    """Note the output shapes of every layer that is called inside the block."""
    found: dict[int, tuple[Shape, ...]] = {}
    layer_class: Any = keras.layers.Layer
    original = layer_class.__call__

    def recorded(self: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = original(self, *args, **kwargs)
        shapes = tuple(tuple(tensor.shape) for tensor in keras.tree.flatten(outputs))
        found[id(self)] = tuple(dict.fromkeys((*found.get(id(self), ()), *shapes)))
        return outputs

    layer_class.__call__ = recorded
    try:
        yield found
    finally:
        layer_class.__call__ = original
