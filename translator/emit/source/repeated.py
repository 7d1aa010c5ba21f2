"""Sequentials that are alike, though no class says so: `conv_bn(3, 32)`, `conv_bn(32, 64)` … of a PyTorch function."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from translator.emit.source.items import relative
from translator.emit.source.tree import Node, is_container
from translator.plan.calls import LayerCall, Plan

LEAST = 4
"""Layers that it takes to be worth a function."""


def mark_repeated(root: Node, plan: Plan) -> None:
    """Set `alike` of containers of plain layers that stand in one module and differ only in settings and padding."""
    classes = {spec.name: spec.cls for spec in plan.layers}
    for owner in (root, *(n for n in root.nodes() if not is_container(n.cls))):
        found: dict[str, list[Node]] = {}
        for node in _plain_containers(owner):
            found.setdefault(_signature(node, classes), []).append(node)
        for signature, nodes in found.items():
            if len(nodes) > 1 and signature.count(";") >= LEAST:
                for node in nodes:
                    node.alike = signature


def _plain_containers(owner: Node) -> Iterator[Node]:
    """The innermost containers of a module, which hold nothing but PyTorch's own modules."""
    for item in owner.items:
        if not isinstance(item, Node) or not is_container(item.cls) or item.nested:
            continue
        inner = list(item.nodes())
        if any(is_container(n.cls) for n in inner):
            yield from _plain_containers(item)
        elif all(n.cls.startswith("torch.nn.") for n in inner):
            yield item


def _signature(node: Node, classes: Mapping[str, str]) -> str:
    parts = []
    for call in node.calls():
        name, kind = (call.layer, classes[call.layer]) if isinstance(call, LayerCall) else (call.name, call.op)
        if not kind.startswith("ZeroPadding"):
            parts.append(f"{relative(name, node.prefix)} {kind};")
    return "".join(parts)
