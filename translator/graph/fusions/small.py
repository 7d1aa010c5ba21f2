"""Small patterns.

Mul(x, Sigmoid(x))                                                → translator::Silu(x)
Reshape(N, g, c, …) → Transpose(0, 2, 1, …) → Reshape(N, g·c, …)  → translator::ChannelShuffle(x, groups=g)
Slice(Slice(x)) on different axes                                 → Slice(x)
GatherND(table, constant indices into its first axis)             → Gather(table, indices)
Gather(x, [i]) or Slice(x, i, i + 1) → Squeeze of that axis       → Gather(x, i)
Expand(x) that only broadcasting ops read                         → x
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from translator.graph.edit import Edit
from translator.graph.evaluate import integers
from translator.graph.shapes import broadcast
from translator.graph.view import Graph, NodeView

_BROADCASTING = frozenset({
    "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Where", "Equal", "Less", "LessOrEqual", "Greater",
    "GreaterOrEqual", "And", "Or", "Xor", "Mod",
})  # fmt: skip


def fuse_silu(graph: Graph) -> Graph:
    """x·sigmoid(x) in one module call is a SiLU."""
    edit = Edit(graph)
    for node in graph.nodes:
        if node.key != "Sigmoid" or not edit.private(node.outputs[0]):
            continue
        (mul,) = edit.readers(node.outputs[0])
        if mul.key == "Mul" and set(mul.inputs) == {node.inputs[0], node.outputs[0]}:
            silu = replace(mul, op="Silu", domain="translator", inputs=node.inputs, attributes={})
            edit.put([node, mul], [silu])
    return edit.done


def fuse_channel_shuffle(graph: Graph) -> Graph:
    """Channels seen as (g, c) and read as (c, g)."""
    edit = Edit(graph)
    for first in graph.nodes:
        shape = graph.shapes.get(first.outputs[0], ())
        if first.key != "Reshape" or len(shape) < 4 or not edit.private(first.outputs[0]):
            continue
        (second,) = edit.readers(first.outputs[0])
        swapped = (0, 2, 1, *range(3, len(shape)))
        if second.key != "Transpose" or second.attr("perm") != swapped or not edit.private(second.outputs[0]):
            continue
        (third,) = edit.readers(second.outputs[0])
        before, after = graph.shapes[first.inputs[0]], graph.shapes[third.outputs[0]]
        if third.key != "Reshape" or before != after or before != (shape[0], shape[1] * shape[2], *shape[3:]):
            continue
        fused = replace(
            third, op="ChannelShuffle", domain="translator", inputs=(first.inputs[0],), attributes={"groups": shape[1]}
        )
        edit.put([first, second, third], [fused])
    return edit.done


def fuse_slices(graph: Graph) -> Graph:
    """Slices of a slice that nobody else reads, on other axes, are one slice."""
    while True:
        edit = Edit(graph)
        touched: set[int] = set()
        for node in graph.nodes:
            if node.key != "Slice" or not edit.private(node.outputs[0]) or id(node) in touched:
                continue
            (other,) = edit.readers(node.outputs[0])
            merged = _merged(node, other, edit) if other.key == "Slice" and id(other) not in touched else None
            if merged is not None:
                touched.update((id(node), id(other)))
                edit.put([node, other], [merged])
        if not touched:
            return graph
        graph = edit.done


def _merged(a: NodeView, b: NodeView, edit: Edit) -> NodeView | None:
    rows: list[list[int]] = [[], [], [], []]
    rank = edit.graph.rank(a.inputs[0])
    for node in (a, b):
        operands = [edit.graph.constants.get(v) for v in node.inputs[1:]]
        if any(o is None or o.dtype == object for o in operands):
            return None
        given = [integers(o) for o in operands if o is not None]
        axes = [x % rank for x in (given[2] if len(given) > 2 else range(len(given[0])))]
        steps = given[3] if len(given) > 3 else [1] * len(axes)
        for row, part in zip(rows, (given[0], given[1], axes, steps), strict=True):
            row += part
    if len(set(rows[2])) != len(rows[2]):
        return None
    names = [
        edit.constant(f"{b.outputs[0]}:{n}", r) for n, r in zip(("starts", "ends", "axes", "steps"), rows, strict=True)
    ]
    return replace(b, inputs=(a.inputs[0], *names))


def fuse_table_lookup(graph: Graph) -> Graph:
    """Rows of a table picked by constant index tuples of one element."""
    edit = Edit(graph)
    for node in graph.nodes:
        index = graph.constants.get(node.inputs[1]) if node.key == "GatherND" else None
        if index is None or index.shape[-1] != 1 or node.attr("batch_dims", 0):
            continue
        name = f"{node.outputs[0]}:rows"
        edit.constants[name] = index[..., 0]
        edit.shapes[name] = index.shape[:-1]
        edit.dtypes[name] = "int64"
        edit.put([node], [replace(node, op="Gather", inputs=(node.inputs[0], name), attributes={"axis": 0})])
    return edit.done


def fuse_selects(graph: Graph) -> Graph:
    """One element picked as a list or a slice of one, its axis then dropped."""
    edit = Edit(graph)
    for node in graph.nodes:
        picked = _picked(node, graph)
        if picked is None or not edit.private(node.outputs[0]):
            continue
        (squeeze,) = edit.readers(node.outputs[0])
        (place, axis), rank = picked, graph.rank(node.outputs[0])
        gone = graph.constants.get(squeeze.inputs[1]) if squeeze.key == "Squeeze" and squeeze.has(1) else None
        if gone is None or [int(a) % rank for a in integers(gone)] != [axis % rank]:
            continue
        name = f"{squeeze.outputs[0]}:place"
        edit.constants[name] = np.array(place, dtype=np.int64)
        edit.shapes[name], edit.dtypes[name] = (), "int64"
        inputs, attributes = (node.inputs[0], name), {"axis": axis}
        edit.put([node, squeeze], [replace(squeeze, op="Gather", inputs=inputs, attributes=attributes)])
    return edit.done


def _picked(node: NodeView, graph: Graph) -> tuple[int, int] | None:
    """The place and axis where a node picks exactly one element, as a list or a slice."""
    operands = [graph.constants.get(v) for v in node.inputs[1:]]
    if node.key == "Gather" and operands[0] is not None and operands[0].shape == (1,):
        return int(operands[0][0]), node.attr("axis", 0)
    if node.key != "Slice" or len(operands) < 3 or any(o is None or o.size != 1 or o.dtype == object for o in operands):
        return None
    start, stop, axis = (int(o.reshape(())) for o in operands[:3] if o is not None)
    return (start, axis) if stop == start + 1 and start >= 0 else None


def drop_expands(graph: Graph) -> Graph:
    """An expansion whose readers broadcast anyway, to the same shape, isn't needed."""
    edit = Edit(graph)
    dropped: dict[str, str] = {}
    for node in graph.nodes:
        value = node.outputs[0]
        if node.key != "Expand" or value in graph.outputs or node.inputs[0] in dropped:
            continue
        if all(_same_without(reader, value, node.inputs[0], graph) for reader in edit.readers(value)):
            dropped[value] = node.inputs[0]
    if not dropped:
        return graph
    nodes = [n for n in graph.nodes if n.outputs[0] not in dropped]
    renamed = [replace(n, inputs=tuple(dropped.get(v, v) for v in n.inputs)) for n in nodes]
    return replace(graph, nodes=tuple(renamed))


def _same_without(reader: NodeView, value: str, source: str, graph: Graph) -> bool:
    if reader.key in ("RMSNormalization", "LayerNormalization") and value not in reader.inputs[:1]:
        return True
    if reader.key not in _BROADCASTING or reader.inputs.count(value) != 1:
        return False
    shapes = [graph.shapes[source if v == value else v] for v in reader.inputs]
    return broadcast(*shapes) == graph.shapes[reader.outputs[0]]
