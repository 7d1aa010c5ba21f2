"""What the layers of an ONNX graph are: the nodes that compute on the inputs' numbers, each with a module path.

Given:   Sigmoid(x) → Mul(x, ·)     MatMul(x, weight) → Add(·, bias)     Shape(x) → Gather → Concat → Reshape(x, ·)
Result:  one layer "Mul"            one layer "MatMul"                   one layer "Reshape", which reads a size
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

_SIZES = frozenset({"Shape", "Size", "EyeLike"})
"""What they put out doesn't depend on their input's numbers."""

_PASSING = frozenset({
    "Identity", "Dropout", "Expand", "Cast", "CastLike", "SequenceAt", "SequenceConstruct", "SequenceEmpty",
    "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "SplitToSequence", "ConcatFromSequence",
})  # fmt: skip
"""What only hands on, repeats or collects numbers is no layer: it is seen in what the next layer reads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxLayer:
    """Nodes that are judged as one. path: as of a module. cls: the op. nodes: their places in the graph, in order.

    inputs: the values from outside that depend on the model's inputs, each once. outputs: those that others read.
    """

    path: str
    cls: str
    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def layers_of(graph: onnx.GraphProto, weights: Collection[str]) -> tuple[OnnxLayer, ...]:
    """The layers, in order of computation. weights: the initializers that are parameters or statistics."""
    given = {t.name for t in graph.initializer}
    needed = needed_nodes(graph)
    moving = _moving(graph, {v.name for v in graph.input} - given)
    readers, results = _readers(graph), {v.name for v in graph.output}
    found: list[OnnxLayer] = []
    for group in _groups(graph, set(weights), readers):
        nodes = [graph.node[i] for i in group]
        made = [o for n in nodes for o in n.output if o]
        if group[-1] not in needed or not moving.intersection(made) or nodes[0].op_type in _PASSING:
            continue
        found.append(
            OnnxLayer(
                path="",
                cls=nodes[-1].op_type if nodes[0].op_type != "MatMul" else "MatMul",
                nodes=group,
                inputs=tuple(dict.fromkeys(v for n in nodes for v in read_by(n) if v in moving and v not in made)),
                outputs=tuple(o for o in made if o in results or set(readers.get(o, ())) - set(group)),
            )
        )
    return tuple(_named(graph, found, set(weights)))


def needed_nodes(graph: onnx.GraphProto) -> frozenset[int]:
    """The places of the nodes that the outputs need."""
    wanted = {v.name for v in graph.output}
    needed = set()
    for index in range(len(graph.node) - 1, -1, -1):
        node = graph.node[index]
        if wanted.intersection(node.output):
            needed.add(index)
            wanted.update(read_by(node))
    return frozenset(needed)


def read_by(node: onnx.NodeProto) -> list[str]:
    """The values that a node reads, those that its branches take from around them included."""
    found = [v for v in node.input if v]
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") or attribute.graphs else ():
            inside = {v.name for v in graph.input} | {t.name for t in graph.initializer}
            inside |= {o for n in graph.node for o in n.output}
            read = [v for n in graph.node for v in read_by(n)] + [v.name for v in graph.output]
            found += [v for v in read if v not in inside]
    return list(dict.fromkeys(found))


def _moving(graph: onnx.GraphProto, inputs: set[str]) -> set[str]:
    """The values that depend on the numbers of the model's inputs, not on sizes and weights alone."""
    moving = set(inputs)
    for node in graph.node:
        read = node.input[:1] if node.op_type == "CastLike" else read_by(node)  # of the other it takes the type alone
        if node.op_type not in _SIZES and any(v in moving for v in read):
            moving.update(o for o in node.output if o)
    return moving


def _readers(graph: onnx.GraphProto) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index, node in enumerate(graph.node):
        for value in read_by(node):
            found.setdefault(value, []).append(index)
    return found


def _groups(
    graph: onnx.GraphProto, weights: set[str], readers: Mapping[str, Sequence[int]]
) -> Iterator[tuple[int, ...]]:
    """Each node alone, but for a product with its bias and x·sigmoid(x): by the place of the last."""
    outputs = {v.name for v in graph.output}
    joined: dict[int, int] = {}
    for index, node in enumerate(graph.node):
        if node.op_type not in ("MatMul", "Sigmoid") or node.output[0] in outputs:
            continue
        users = readers.get(node.output[0], [])
        after = graph.node[users[0]] if len(users) == 1 else None
        if after is None or users[0] in joined:
            continue
        other = [v for v in after.input if v != node.output[0]]
        bias = after.op_type == "Add" and node.op_type == "MatMul" and set(other) <= weights
        gate = after.op_type == "Mul" and node.op_type == "Sigmoid" and other == [node.input[0]]
        if bias or gate:
            joined[users[0]] = index
    firsts = set(joined.values())
    for index in range(len(graph.node)):
        if index not in firsts:
            yield (joined[index], index) if index in joined else (index,)


def _named(graph: onnx.GraphProto, layers: Sequence[OnnxLayer], weights: set[str]) -> Iterator[OnnxLayer]:
    """A path for each: that of its weights (`layer1.0.conv1.weight`), else where its node's name says that it stands,
    else that name, free of what a path can't hold. No two are the same, and none is a weight's name or beginning.
    """
    owners = _owners(graph, layers, weights)
    taken = {name for weight in weights for name in _beginnings(weight)} | set(owners.values())
    scopes = {layer.nodes: scope_of(graph.node[layer.nodes[-1]].name) for layer in layers}
    places = Counter(scopes.values())
    inner = {name for path in (*places, *owners.values()) for name in _beginnings(path)[:-1]}
    for layer in layers:
        node, scope = graph.node[layer.nodes[-1]], scopes[layer.nodes]
        path = owners.get(layer.nodes)
        if path is None:
            base = scope if places[scope] == 1 and scope not in inner else ""
            if not base:
                last = re.sub(r"\W+", "_", node.name.rpartition("/")[2], flags=re.ASCII).strip("_")
                base = ".".join(filter(None, (scope, last or f"{node.op_type}_{layer.nodes[-1]}")))
            path, number = base, 1
            while path in taken or path in inner:
                number += 1
                path = f"{base}_{number}"
        taken.add(path)
        yield replace(layer, path=path)


def scope_of(name: str) -> str:
    """`layer1.0.conv1` for a node that PyTorch's older exporter calls `/layer1/layer1.0/conv1/Conv`; "" for others."""
    if not re.fullmatch(r"(/[\w.]+)+", name, flags=re.ASCII):
        return ""
    parts: list[str] = []
    for part in name.split("/")[1:-1]:
        if parts and part.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(part)
    return ".".join(filter(None, ".".join(parts).split(".")))


def _owners(graph: onnx.GraphProto, layers: Sequence[OnnxLayer], weights: set[str]) -> Mapping[tuple[int, ...], str]:
    """Layers whose weights all stand under one path, where nobody else's stand."""
    sources = _sources(graph, weights)
    users: dict[str, set[tuple[int, ...]]] = {}
    beside: dict[tuple[int, ...], set[str]] = {}
    for layer in layers:
        used = {w for i in layer.nodes for v in read_by(graph.node[i]) for w in sources.get(v, ())}
        beside[layer.nodes] = {w.rpartition(".")[0] for w in used}
        for weight in used:
            for name in _beginnings(weight):
                users.setdefault(name, set()).add(layer.nodes)
    found = {}
    for nodes, prefixes in beside.items():
        prefix = next(iter(prefixes), "")
        if len(prefixes) == 1 and prefix and users[prefix] == {nodes} and prefix not in weights:
            found[nodes] = prefix
    return found


def _sources(graph: onnx.GraphProto, weights: set[str]) -> dict[str, set[str]]:
    """The weights that each value is made of, inputs aside."""
    found = {w: {w} for w in weights}
    given = weights | {t.name for t in graph.initializer}
    for node in graph.node:
        read = read_by(node)
        if node.op_type not in _SIZES and all(v in given for v in read):
            given.update(node.output)
            for value in node.output:
                found[value] = {w for v in read for w in found.get(v, ())}
    return found


def _beginnings(name: str) -> list[str]:
    """`a`, `a.b`, `a.b.c` of `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[: n + 1]) for n in range(len(parts))]
