"""Parts of a tensor that are written over.

Transpose → ScatterND of rows in a row → Transpose back   → translator::Replace(data, updates) along one axis
Replace(data, Slice(data)), the same part of itself       → data            what `x[:, 1:] += y` writes a second time
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from translator.graph.edit import Edit
from translator.graph.evaluate import integers
from translator.graph.view import Graph, NodeView

_Part = tuple[int, int, int]
"""An axis, and where the part along it begins and ends."""


def fuse_replacements(graph: Graph) -> Graph:
    """A scatter to places one after the other, along axis 0 or along the axis that is brought there and back."""
    edit = Edit(graph)
    for node in graph.nodes:
        rows = _rows(node, graph) if node.key == "ScatterND" else None
        if rows is None:
            continue
        back = edit.readers(node.outputs[0])[0] if edit.private(node.outputs[0]) else None
        perm = tuple(back.attr("perm") or ()) if back is not None and back.key == "Transpose" else ()
        inputs = [_before(node.inputs[i], perm, edit) if perm else None for i in (0, 2)]
        if back is not None and None not in inputs:
            edit.put([node, back], [_replacing(back, [str(v) for v in inputs], (perm.index(0), *rows))])
        else:
            edit.put([node], [_replacing(node, [node.inputs[0], node.inputs[2]], (0, *rows))])
    return edit.done


def _rows(node: NodeView, graph: Graph) -> tuple[int, int] | None:
    """The first and the last + 1 of the rows that a scatter writes, where they are known and one after the other."""
    index = graph.constants.get(node.inputs[1])
    if index is None or index.dtype == object or index.ndim != 2 or index.shape[1] != 1 or not index.size:
        return None
    first = int(index[0, 0])
    in_a_row = first >= 0 and np.array_equal(index[:, 0], np.arange(first, first + len(index)))
    return (first, first + len(index)) if in_a_row and node.attr("reduction", "none") == "none" else None


def _before(value: str, back: tuple[int, ...], edit: Edit) -> str | None:
    """What a value was before the transpose that `back` undoes."""
    made = edit.producer(value)
    if made is None or made.key != "Transpose":
        return None
    perm = made.attr("perm") or ()
    return made.inputs[0] if tuple(perm[a] for a in back) == tuple(range(len(back))) else None


def _replacing(last: NodeView, inputs: list[str], part: _Part) -> NodeView:
    axis, start, stop = part
    attributes = {"axis": axis, "start": start, "stop": stop}
    return replace(last, op="Replace", domain="translator", inputs=tuple(inputs), attributes=attributes)


def drop_idle_replacements(graph: Graph) -> Graph:
    """A part that is written over with itself."""
    edit, known = Edit(graph), _Known(graph)
    for node in graph.nodes:
        if node.key != "translator::Replace":
            continue
        data, updates = node.inputs
        part = (node.attr("axis"), node.attr("start"), node.attr("stop"))
        if known.part_of(updates) == (known.name(data), (part,)):
            known.same[node.outputs[0]] = data
            edit.put([node], [replace(node, op="Identity", domain="", inputs=(data,), attributes={})])
    return edit.done


@dataclass(slots=True)
class _Known:
    """Values by what they are: parts of others, and what is the same under two names."""

    graph: Graph
    same: dict[str, str] = field(default_factory=dict)
    _made: dict[str, NodeView] = field(default_factory=dict)
    _names: dict[tuple[object, ...], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._made = dict(self.graph.producers())

    def name(self, value: str) -> str:
        """One name for all values that are the same part of the same value."""
        value = self._root(value)
        part = self.part_of(value)
        return value if part is None else self._names.setdefault(part, value)

    def part_of(self, value: str) -> tuple[str, tuple[_Part, ...]] | None:
        """The value of which this is a part, and which."""
        made = self._made.get(self._root(value))
        parts = _parts(made, self.graph) if made is not None and made.key == "Slice" else None
        return None if made is None or parts is None else (self.name(made.inputs[0]), parts)

    def _root(self, value: str) -> str:
        while value in self.same:
            value = self.same[value]
        return value


def _parts(node: NodeView, graph: Graph) -> tuple[_Part, ...] | None:
    """The parts that a Slice takes along axes of known size, every place of them."""
    shape, rank = graph.shapes[node.inputs[0]], graph.rank(node.inputs[0])
    operands = [graph.constants.get(v) for v in node.inputs[1:]]
    if any(o is None or o.dtype == object for o in operands):
        return None
    starts, stops, *rest = ([int(n) for n in integers(o)] for o in operands if o is not None)
    axes = [a % rank for a in (rest[0] if rest else range(len(starts)))]
    if any(step != 1 for step in (rest[1] if len(rest) > 1 else ())) or not all(
        isinstance(shape[a], int) for a in axes
    ):
        return None
    bounds = [slice(a, b).indices(int(shape[axis])) for a, b, axis in zip(starts, stops, axes, strict=True)]
    parts = ((axis, start, stop) for axis, (start, stop, _) in zip(axes, bounds, strict=True))
    return tuple(sorted(part for part in parts if part[1:] != (0, shape[part[0]])))
