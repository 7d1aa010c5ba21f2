"""An ONNX model in half precision as the same one in float32, which holds every one of its numbers exactly."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto

_HALF: Mapping[int, str] = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16"}


def widened(proto: onnx.ModelProto) -> list[str]:
    """Make everything of half precision float32, in place; the names of what was found."""
    found: set[int] = set()
    for graph in _graphs(proto.graph):
        tensors = [*graph.initializer, *(t for node in graph.node for t in _tensors(node))]
        for tensor in tensors:
            if tensor.data_type in _HALF:
                found.add(tensor.data_type)
                array = np.asarray(onnx.numpy_helper.to_array(tensor)).astype(np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        for value in (*graph.input, *graph.output, *graph.value_info):
            kind = value.type.tensor_type
            if value.type.HasField("tensor_type") and kind.elem_type in _HALF:
                found.add(kind.elem_type)
                kind.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype", "stash_type") and attribute.i in _HALF:
                    attribute.i = TensorProto.FLOAT
    return [_HALF[kind] for kind in sorted(found)]


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)


def _tensors(node: onnx.NodeProto) -> Iterator[TensorProto]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
