"""Put together again what the exporter broke up.

Given:   MatMul(x, Transpose(weight)) → Add(·, bias)   in one module call
Result:  translator::Linear(x, weight, bias)           weight as (out, in)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from translator.graph.view import Graph, NodeView

Fusion = Callable[[Graph], Graph]


def fuse(graph: Graph) -> Graph:
    """Apply every fusion in order. Each keeps the function and the names of values that others read."""
    for fusion in (fuse_linear,):
        graph = fusion(graph)
    return graph


def fuse_linear(graph: Graph) -> Graph:
    """MatMul by a parameter of rank 2, with the Add of a 1-D bias that alone reads it, becomes one Linear."""
    consumers = graph.consumers()
    derived = dict(graph.derived)
    done: set[str] = set()
    nodes: list[NodeView] = []
    for node in graph.nodes:
        if node.outputs[0] in done:
            continue
        if not _is_matmul_by_parameter(node, graph):
            nodes.append(node)
            continue
        weight = f"{node.inputs[1]}:linear"
        derived[weight] = graph.derived[node.inputs[1]].permute((1, 0))
        add = _bias_add(node, graph, consumers)
        last = add or node
        inputs = (node.inputs[0], weight) + ((_bias(add, node),) if add else ())
        nodes.append(
            replace(node, op="Linear", domain="translator", inputs=inputs, outputs=last.outputs, attributes={})
        )
        done.update(add.outputs if add else ())
    return replace(graph, nodes=tuple(nodes), derived=derived)


def _is_matmul_by_parameter(node: NodeView, graph: Graph) -> bool:
    if node.key != "MatMul" or node.inputs[1] not in graph.derived or not graph.is_runtime(node.inputs[0]):
        return False
    return len(graph.derived[node.inputs[1]].shape) == 2 and graph.rank(node.inputs[0]) >= 2


def _bias_add(node: NodeView, graph: Graph, consumers: object) -> NodeView | None:
    readers = consumers.get(node.outputs[0], ())  # type: ignore[attr-defined]
    if len(readers) != 1 or node.outputs[0] in graph.outputs or readers[0].key != "Add":
        return None
    add: NodeView = readers[0]
    bias = graph.derived.get(_bias(add, node))
    width = graph.derived[node.inputs[1]].shape[1]
    same = (add.origin.module, add.origin.call) == (node.origin.module, node.origin.call)
    return add if bias is not None and bias.shape == (width,) and same else None


def _bias(add: NodeView, matmul: NodeView) -> str:
    return add.inputs[1] if add.inputs[0] == matmul.outputs[0] else add.inputs[0]
