"""Repetitions by a number that the batch says.

Tile(x, [b, 1, 1])   → Unsqueeze(x, 0) → Expand([b, h, t, d]) → Reshape([b·h, t, d])
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from translator.graph.dims import SymDim, SymShape
from translator.graph.edit import Edit
from translator.graph.evaluate import integers
from translator.graph.view import Graph, NodeView


def expand_dynamic_tiles(graph: Graph) -> Graph:
    """Along one axis, a repetition by a dynamic size is an axis of that size before it, merged with it."""
    edit = Edit(graph)
    for node in graph.nodes:
        times = graph.constants.get(node.inputs[1]) if node.key == "Tile" else None
        if times is None or times.dtype != object:
            continue
        repeats = integers(times)
        dynamic = [axis for axis, r in enumerate(repeats) if not isinstance(r, int)]
        if len(dynamic) == 1 and all(r == 1 for r in repeats if isinstance(r, int)):
            edit.put([node], _expanded(node, dynamic[0], repeats[dynamic[0]], edit))
    return edit.done


def _expanded(node: NodeView, axis: int, times: SymDim, edit: Edit) -> list[NodeView]:
    value, (out,) = node.inputs[0], node.outputs
    shape = edit.graph.shapes[value]
    apart, spread = (*shape[:axis], 1, *shape[axis:]), (*shape[:axis], times, *shape[axis:])
    first = edit.seen_as(value, apart)
    named = first or edit.value(f"{out}:apart", apart, value)
    second = edit.value(f"{out}:spread", spread, value)
    steps = (
        ("Unsqueeze", value, edit.constant(f"{named}_axes", [axis]), named),
        ("Expand", named, _sizes(f"{second}_sizes", spread, edit), second),
        ("Reshape", second, _sizes(f"{out}_sizes", edit.graph.shapes[out], edit), out),
    )
    nodes = [replace(node, op=op, inputs=(x, setting), outputs=(y,), attributes={}) for op, x, setting, y in steps]
    return nodes if first is None else nodes[1:]


def _sizes(name: str, sizes: SymShape, edit: Edit) -> str:
    edit.constant(name, [0] * len(sizes))
    edit.constants[name] = np.array([*sizes, None], dtype=object)[:-1]
    return name
