"""Views that PyTorch makes anew where they are first read.

A chunk outside is traced as a slice inside the first module that reads it:

Given:   stages.0.blocks.0.conv1: Slice(x) → Conv      stages.0: Concat(Slice(x), …)      one and the same Slice
Result:  stages.0: Slice(x), Concat                    stages.0.blocks.0.conv1: Conv
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from translator.graph.view import Graph, NodeView, Ports

_VIEWS = frozenset({
    "Slice", "Split", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Gather", "Identity",
})  # fmt: skip


def lift_shared_views(graph: Graph) -> Graph:
    """A view of what comes from outside a module call, read inside it and outside, belongs outside.

    A call that gives several tensors may well give such a view: its borders are known, and it keeps what it has.
    """
    producers, readers = graph.producers(), graph.consumers()
    nodes = {id(node): node for node in graph.nodes}
    moved = False
    for node in graph.nodes:
        lifted = node
        while node.op in _VIEWS and _shared(lifted, graph, producers, readers):
            scopes = lifted.origin.scopes[:-1]
            path, call, cls = scopes[-1] if scopes else ("", 0, "")
            lifted = replace(lifted, origin=replace(lifted.origin, scopes=scopes, module=path, call=call, cls=cls))
        moved |= lifted is not node
        nodes[id(node)] = lifted
    return replace(graph, nodes=tuple(nodes[id(node)] for node in graph.nodes)) if moved else graph


def _shared(
    node: NodeView, graph: Graph, producers: Mapping[str, NodeView], readers: Mapping[str, tuple[NodeView, ...]]
) -> bool:
    if not node.origin.scopes:
        return False
    scope = node.origin.scopes[-1]
    if graph.ports.get(scope[:2], Ports()).outputs:
        return False
    made = [producers[v] for v in graph.runtime_inputs(node) if v in producers]
    if any(scope in n.origin.scopes for n in made):
        return False
    users = [n for value in node.outputs for n in readers.get(value, ())]
    inside = [scope in n.origin.scopes for n in users]
    return any(inside) and not all(inside)
