"""Attention that was written out.

Given:   MatMul(q, Transpose(k)) → Mul(scale) → Add(bias) → Softmax(-1) → MatMul(·, v)   in one module call, rank 4
Result:  translator::Attention(q, k, v, bias)
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from translator.graph.edit import Edit
from translator.graph.view import Graph, NodeView


@dataclass(slots=True)
class _Found:
    """What stands before a softmax: nodes from the last to the first, the product's operands, scale and bias."""

    nodes: list[NodeView] = field(default_factory=list)
    scale: float = 1.0
    bias: str = ""


def fuse_attention(graph: Graph) -> Graph:
    """Scaled dot-product attention over four axes becomes one node."""
    edit = Edit(graph)
    for node in graph.nodes:
        if node.key == "Softmax" and graph.rank(node.inputs[0]) == 4 and node.attr("axis", -1) in (-1, 3):
            _fuse(node, edit)
    return edit.done


def _fuse(softmax: NodeView, edit: Edit) -> None:
    if not edit.private(softmax.outputs[0]):
        return
    last = edit.readers(softmax.outputs[0])[0]
    if last.key != "MatMul" or last.inputs[0] != softmax.outputs[0]:
        return
    found = _scores(softmax, edit)
    if found is None:
        return
    product = found.nodes[-1]
    query, turned = product.inputs
    value = last.inputs[1]
    if any(not edit.graph.is_runtime(v) or edit.graph.rank(v) != 4 for v in (query, turned, value)):
        return
    query, scale, scaled = _unscaled(query, edit)
    found.nodes += scaled
    found.scale *= scale
    key, before = _key(turned, edit, product)
    inputs = (query, key, value) + ((found.bias,) if found.bias else ())
    attributes = {"scale": repr(found.scale), "causal": 0, "rate": "0.0"}
    fused = replace(last, op="Attention", domain="translator", inputs=inputs, attributes=attributes)
    edit.put([*reversed(found.nodes), softmax, last], [*before, fused])


def _scores(softmax: NodeView, edit: Edit) -> _Found | None:
    """Walk up from the softmax to the product of query and key."""
    found, value = _Found(), softmax.inputs[0]
    while True:
        node = edit.producer(value)
        if node is None or not edit.private(value):
            return None
        found.nodes.append(node)
        if node.key == "MatMul":
            return found
        side = next((i for i, v in enumerate(node.inputs[:2]) if _leads_up(v, edit)), None)
        if side is None:
            return None
        other = node.inputs[1 - side]
        if node.key == "Add" and not found.bias and found.scale == 1.0 and edit.graph.rank(other) <= 4:
            found.bias = other
        elif node.key in ("Mul", "Div") and edit.number(other) and (node.key == "Mul" or side == 0):
            number = edit.number(other) or 1.0
            found.scale *= number if node.key == "Mul" else 1.0 / number
        else:
            return None
        value = node.inputs[side]


def _leads_up(value: str, edit: Edit) -> bool:
    node = edit.producer(value)
    return node is not None and edit.private(value) and node.key in ("MatMul", "Mul", "Div", "Add")


def _unscaled(query: str, edit: Edit) -> tuple[str, float, list[NodeView]]:
    """The query before it was multiplied by a number, the number, and the node that is not needed then."""
    node = edit.producer(query)
    if node is None or node.key != "Mul" or not edit.private(query):
        return query, 1.0, []
    side = next((i for i in (0, 1) if edit.number(node.inputs[i])), None)
    if side is None or edit.graph.rank(node.inputs[1 - side]) != 4:
        return query, 1.0, []
    return node.inputs[1 - side], edit.number(node.inputs[side]) or 1.0, [node]


def _key(turned: str, edit: Edit, product: NodeView) -> tuple[str, list[NodeView]]:
    """The key as (B, H, S, D): what was transposed to make `turned`, or `turned` transposed back."""
    node = edit.producer(turned)
    if node is not None and node.key == "Transpose" and node.attr("perm") == (0, 1, 3, 2):
        return node.inputs[0], []
    shape = edit.graph.shapes[turned]
    name = edit.value(f"{turned}:key", (*shape[:2], shape[3], shape[2]), turned)
    return name, [
        replace(product, op="Transpose", inputs=(turned,), outputs=(name,), attributes={"perm": (0, 1, 3, 2)})
    ]
