"""Linear maps.

Given:   MatMul(x, Transpose(weight)) → Add(·, bias)   in one module call
Result:  translator::Linear(x, weight, bias)           weight as (out, in)
"""

from __future__ import annotations

from dataclasses import replace

from translator.graph.edit import Edit
from translator.graph.view import Graph, NodeView


def fuse_linear(graph: Graph) -> Graph:
    """MatMul by a parameter of rank 2, with the Add of a 1-D bias that alone reads it, becomes one Linear."""
    edit = Edit(graph)
    for node in graph.nodes:
        if not _is_matmul_by_parameter(node, graph):
            continue
        weight = f"{node.inputs[1]}:linear"
        edit.derived[weight] = graph.derived[node.inputs[1]].permute((1, 0))
        add = _bias_add(node, edit)
        last = add or node
        inputs = (node.inputs[0], weight) + ((_bias(add, node),) if add else ())
        fused = replace(node, op="Linear", domain="translator", inputs=inputs, outputs=last.outputs, attributes={})
        edit.put([node, add] if add else [node], [fused])
    return edit.done


def _is_matmul_by_parameter(node: NodeView, graph: Graph) -> bool:
    if node.key != "MatMul" or node.inputs[1] not in graph.derived or node.inputs[0] in graph.constants:
        return False
    return len(graph.derived[node.inputs[1]].shape) == 2 and graph.rank(node.inputs[0]) >= 2


def _bias_add(node: NodeView, edit: Edit) -> NodeView | None:
    if not edit.private(node.outputs[0]) or edit.readers(node.outputs[0])[0].key != "Add":
        return None
    add = edit.readers(node.outputs[0])[0]
    bias = edit.graph.derived.get(_bias(add, node))
    width = edit.graph.derived[node.inputs[1]].shape[1]
    return add if bias is not None and bias.shape == (width,) else None


def _bias(add: NodeView, matmul: NodeView) -> str:
    return add.inputs[1] if add.inputs[0] == matmul.outputs[0] else add.inputs[0]
