"""An ONNX model that computes in float32 throughout: half precision is widened, float64 inside is narrowed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import onnx
from onnx import TensorProto

_OTHERS: Mapping[int, str] = {
    TensorProto.FLOAT16: "float16",
    TensorProto.BFLOAT16: "bfloat16",
    TensorProto.DOUBLE: "float64",
}


def in_float32(proto: onnx.ModelProto) -> list[str]:
    """Make every float of another width float32, in place; what was found, by name. Half precision stays exact."""
    found: set[int] = set()
    for graph in _graphs(proto.graph):
        tensors = [*graph.initializer, *(t for node in graph.node for t in _tensors(node))]
        for tensor in tensors:
            if tensor.data_type in _OTHERS:
                found.add(tensor.data_type)
                array = np.asarray(onnx.numpy_helper.to_array(tensor)).astype(np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
        for value in (*graph.input, *graph.output, *graph.value_info):
            kind = value.type.tensor_type
            if value.type.HasField("tensor_type") and kind.elem_type in _OTHERS:
                found.add(kind.elem_type)
                kind.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.name in ("to", "dtype", "stash_type") and attribute.i in _OTHERS:
                    found.add(attribute.i)
                    attribute.i = TensorProto.FLOAT
    return [_OTHERS[kind] for kind in sorted(found)]


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
