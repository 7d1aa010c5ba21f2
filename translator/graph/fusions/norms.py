"""Normalisations that the exporter wrote out, and normalised weights.

Reduce(x) without its axes → Reshape that puts them back      → Reduce(x) that keeps them
BatchNormalization(x, …, the mean and variance of x)          → BatchNormalization(x, …) by the batch's own statistics
Reshape(w, (1, O, ·)) → BatchNormalization → Reshape(w's own) → LayerNormalization(w, axis 1) · scale + bias
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from translator.graph.edit import Edit
from translator.graph.evaluate import integers
from translator.graph.view import Graph, NodeView

_REDUCING = frozenset(
    f"Reduce{kind}" for kind in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "LogSumExp", "SumSquare", "LogSum")
)


def keep_reduced_axes(graph: Graph) -> Graph:
    """Axes that are dropped and at once put back as 1 are kept."""
    edit = Edit(graph)
    for node in graph.nodes:
        if node.key not in _REDUCING or node.attr("keepdims", 1) or not edit.private(node.outputs[0]):
            continue
        (reader,) = edit.readers(node.outputs[0])
        axes = _axes(node, graph)
        kept = tuple(1 if i in axes else d for i, d in enumerate(graph.shapes[node.inputs[0]]))
        if axes and reader.key in ("Reshape", "Unsqueeze") and graph.shapes[reader.outputs[0]] == kept:
            attributes = {**node.attributes, "keepdims": 1}
            edit.put([node, reader], [replace(node, outputs=reader.outputs, attributes=attributes)])
    return edit.done


def fuse_batch_statistics(graph: Graph) -> Graph:
    """A BatchNormalization that is given the statistics of what it normalises takes the batch's."""
    edit = Edit(graph)
    for node in graph.nodes:
        if node.key != "BatchNormalization" or node.attr("training_mode", 0) or len(node.inputs) < 5:
            continue
        x, (mean, variance) = node.inputs[0], node.inputs[3:5]
        others = {axis for axis in range(graph.rank(x)) if axis != 1}
        if _is_mean(mean, x, others, edit) and _is_variance(variance, x, others, edit):
            attributes = {**node.attributes, "training_mode": 1}
            edit.put([node], [replace(node, inputs=node.inputs[:3], attributes=attributes)])
    return edit.done


def _is_mean(value: str, x: str, axes: set[int], edit: Edit) -> bool:
    node = edit.producer(value)
    if node is None or node.key != "ReduceMean":
        return False
    return _same(node.inputs[0], x, edit.graph) and _axes(node, edit.graph) == axes


def _is_variance(value: str, x: str, axes: set[int], edit: Edit) -> bool:
    """Whether it is mean((x − mean(x))²), not that of a sample."""
    mean = edit.producer(value)
    square = edit.producer(mean.inputs[0]) if mean is not None else None
    if square is None or square.key != "Mul" or square.inputs[0] != square.inputs[1]:
        return False
    centred = edit.producer(square.inputs[0])
    if centred is None or centred.key != "Sub" or not _same(centred.inputs[0], x, edit.graph):
        return False
    return _is_mean(value, square.outputs[0], axes, edit) and _is_mean(centred.inputs[1], x, axes, edit)


def _same(a: str, b: str, graph: Graph) -> bool:
    """Whether two names are of one value: a parameter has a name for each time that it is reshaped."""
    return a == b or (a in graph.derived and graph.derived[a] == graph.derived.get(b))


def _axes(node: NodeView, graph: Graph) -> set[int]:
    """The axes that a reduction names, none where it doesn't say them as constants."""
    given = graph.constants.get(node.inputs[1]) if node.has(1) else node.attr("axes")
    if given is None:
        return set()
    return {int(a) % graph.rank(node.inputs[0]) for a in integers(np.asarray(given))}


def fuse_normalised_weights(graph: Graph) -> Graph:
    """A weight whose rows are seen as the channels of one sample, to be normalised by BatchNorm's function."""
    edit = Edit(graph)
    for node in graph.nodes:
        own_statistics = node.key == "BatchNormalization" and node.attr("training_mode", 0) and len(node.outputs) == 1
        if not own_statistics or not edit.private(node.outputs[0]):
            continue
        (reader,) = edit.readers(node.outputs[0])
        shape, seen = graph.shapes[reader.outputs[0]], graph.shapes[node.inputs[0]]
        if reader.key != "Reshape" or len(shape) < 2 or seen[:2] != (1, shape[0]) or len(seen) != 3:
            continue
        weight = edit.seen_as(node.inputs[0], shape)
        if weight is not None:
            edit.put([node, reader], _by_rows(node, reader, weight, edit))
    return edit.done


def _by_rows(norm: NodeView, last: NodeView, weight: str, edit: Edit) -> list[NodeView]:
    """LayerNormalization over all axes but the first, then scale and bias where there are any."""
    shape = edit.graph.shapes[last.outputs[0]]
    column = (shape[0], *(1 for _ in shape[1:]))
    one = edit.value(f"{last.outputs[0]}:one", (), norm.inputs[0])
    edit.constants[one] = np.array(1.0)
    value = edit.value(f"{last.outputs[0]}:normalised", shape, norm.inputs[0])
    attributes = {"axis": 1, "epsilon": norm.attr("epsilon", 1e-5)}
    rows = replace(norm, op="LayerNormalization", inputs=(weight, one), outputs=(value,), attributes=attributes)
    nodes = [rows]
    for op, vector, neutral in (("Mul", norm.inputs[1], 1.0), ("Add", norm.inputs[2], 0.0)):
        if _is_all(vector, neutral, edit.graph):
            continue
        aligned = edit.seen_as(vector, column)
        if aligned is None:
            aligned = edit.value(f"{value}:{op}", column, vector)
            target = edit.constant(f"{aligned}_shape", [int(str(d)) for d in column])
            nodes.append(replace(last, inputs=(vector, target), outputs=(aligned,)))
        following = edit.value(f"{value}:{op}ed", shape, norm.inputs[0])
        nodes.append(replace(norm, op=op, inputs=(value, aligned), outputs=(following,), attributes={}))
        value = following
    return [*nodes[:-1], replace(nodes[-1], outputs=last.outputs, origin=last.origin)]


def _is_all(value: str, number: float, graph: Graph) -> bool:
    array = graph.constants.get(value)
    return array is not None and array.dtype != object and bool(np.all(array == number))
