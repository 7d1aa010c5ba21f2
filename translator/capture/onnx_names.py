"""Weights whose names don't say where they belong get the path of the layer that alone reads them in front.

Given:   /layer1/layer1.0/conv1/Conv reads onnx::Conv_196, onnx::Conv_197      node "head" reads W
Result:  layer1.0.conv1.weight, layer1.0.conv1.bias                            head.W
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from translator.capture.onnx_layers import layers_of, read_by
from translator.capture.onnx_model import OnnxModel

_NUMBERED = "onnx::"
"""How PyTorch's older exporter begins names that it makes up."""

_ROLES: Mapping[str, tuple[str, ...]] = {
    "Conv": ("", "weight", "bias"),
    "ConvTranspose": ("", "weight", "bias"),
    "Gemm": ("", "weight", "bias"),
    "MatMul": ("", "weight"),
}


def with_layer_names(model: OnnxModel) -> tuple[OnnxModel, Mapping[str, str]]:
    """The model, changed in place, and the new name of each weight that has one."""
    new = _new_names(model)
    graph = model.proto.graph
    for tensor in graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    for value in graph.input:
        value.name = new.get(value.name, value.name)
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name in new:
                node.input[place] = new[name]
    weights = {new.get(name, name): array for name, array in model.weights.items()}
    return replace(model, weights=weights, buffers=frozenset(new.get(n, n) for n in model.buffers)), new


def _new_names(model: OnnxModel) -> dict[str, str]:
    graph = model.proto.graph
    readers: dict[str, list[int]] = {}
    inside: set[str] = set()
    for index, node in enumerate(graph.node):
        for value in read_by(node):
            readers.setdefault(value, []).append(index)
        inside.update(set(read_by(node)) - set(node.input))
    taken = {t.name for t in graph.initializer} | {v for n in graph.node for v in n.output}
    found: dict[str, str] = {}
    for layer in layers_of(graph, model.weights):
        own = [v for i in layer.nodes for v in read_by(graph.node[i]) if v in model.weights]
        if any("." in name and name.rpartition(".")[0] != layer.path for name in own):
            continue
        for name in own:
            if "." in name or name in inside or len(readers[name]) > 1:
                continue
            node = graph.node[readers[name][0]]
            roles, place = _ROLES.get(node.op_type, ()), list(node.input).index(name)
            role = roles[place] if name.startswith(_NUMBERED) and place < len(roles) else name
            wanted = f"{layer.path}.{role}"
            if wanted not in taken:
                taken.add(wanted)
                found[name] = wanted
    return found
