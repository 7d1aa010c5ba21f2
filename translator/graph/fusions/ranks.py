"""One layer called on inputs of different ranks: a Keras normalisation takes the rank that it was built for.

Given:   BatchNorm(x of (N, C))                              BatchNorm(y of (N, C, L)), the same module
Result:  Squeeze(BatchNorm(Unsqueeze(x to (N, C, 1))))       BatchNorm(y)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from translator.graph.edit import Edit
from translator.graph.view import Graph, NodeView

_PER_CHANNEL = frozenset({"BatchNormalization", "GroupNormalization", "InstanceNormalization"})


def one_rank(graph: Graph) -> Graph:
    """Calls of one normalisation all have the rank of the one that has most axes."""
    edit = Edit(graph)
    for calls in _shared(graph):
        most = max(graph.rank(node.inputs[0]) for node in calls)
        for node in calls:
            if missing := most - graph.rank(node.inputs[0]):
                _widen(edit, node, missing)
    return edit.done


def _shared(graph: Graph) -> Iterable[list[NodeView]]:
    """Calls of one layer on the same parameters, of any number; those without parameters are layers of their own."""
    groups: dict[object, list[NodeView]] = {}
    for node in graph.nodes:
        weights = tuple(graph.derived.get(value) for value in node.inputs[1:])
        several = node.key == "LayerNormalization" and _normalised(graph, node) > 1
        if (node.key in _PER_CHANNEL or several) and graph.is_runtime(node.inputs[0]) and any(weights):
            groups.setdefault((node.key, weights, node.origin.module), []).append(node)
    return groups.values()


def _normalised(graph: Graph, node: NodeView) -> int:
    rank = graph.rank(node.inputs[0])
    return rank - int(node.attr("axis", -1)) % rank


def _widen(edit: Edit, node: NodeView, missing: int) -> None:
    """Axes of length 1: behind the channels' and all others, or before those that a LayerNorm normalises."""
    x, y = node.inputs[0], node.outputs[0]
    shape = edit.graph.shapes[x]
    first = len(shape)
    attributes = dict(node.attributes)
    if node.key == "LayerNormalization":
        normalised = _normalised(edit.graph, node)
        first, attributes["axis"] = len(shape) - normalised, -normalised
    axes = edit.constant(f"{y}.axes", range(first, first + missing))
    wide = (*shape[:first], *[1] * missing, *shape[first:])
    before, after = edit.value(f"{y}.widened", wide, x), edit.value(f"{y}.wide", wide, y)
    unsqueeze = replace(node, op="Unsqueeze", inputs=(x, axes), outputs=(before,), attributes={})
    inner = replace(node, inputs=(before, *node.inputs[1:]), outputs=(after, *node.outputs[1:]), attributes=attributes)
    squeeze = replace(node, op="Squeeze", inputs=(after, axes), outputs=(y,), attributes={})
    edit.put([node], [unsqueeze, inner, squeeze])
