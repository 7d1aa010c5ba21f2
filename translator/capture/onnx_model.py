"""An ONNX model in memory as a traced one: opset raised, functions inlined, weights by name."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import inliner, version_converter
from onnx_ir.passes.common import ShapeInferencePass

from translator.capture.nodes import DOMAIN
from translator.capture.onnx_layers import OnnxLayer, layers_of
from translator.capture.retrace import OPSET
from translator.capture.trace import Captured
from translator.errors import UnsupportedError, first_line
from translator.types import Origin

_DEFINED = "translator.defined"
"""Domain of functions that stand for an op while it is written out."""

_BROADCASTING = 7
"""The opset from which on ops broadcast as numpy does."""

_OLDEST = 13
"""From this opset on, rules read a model that ONNX' own converter can't raise."""

_SETTINGS: Mapping[str, frozenset[int]] = {
    "Clip": frozenset({1, 2}), "Resize": frozenset({1, 2, 3}), "Pad": frozenset({2}), "Dropout": frozenset({1, 2}),
    "Range": frozenset({0, 1, 2}), "OneHot": frozenset({2}), "Upsample": frozenset({1}),
}  # fmt: skip
"""Inputs that are settings of an op, not weights, though they are floats."""

_ONLY_TRAINING = frozenset({"momentum"})
"""Floats that inference doesn't read: they stay as they are written."""

_STATISTICS: Mapping[str, frozenset[int]] = {"BatchNormalization": frozenset({3, 4})}
"""Inputs that are counted as buffers, as PyTorch counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnnxModel:
    """An ONNX model ready to be translated. proto: at our opset. weights: float initializers that are parameters or
    statistics, by name; buffers: the names of the statistics among them."""

    proto: onnx.ModelProto
    weights: Mapping[str, np.ndarray]
    buffers: frozenset[str] = field(default_factory=frozenset)
    name: str = ""

    def captured(self, name: str = "") -> Captured:
        """What the stages after the capture take."""
        layers = layers_of(self.proto.graph, self.weights)
        model = ir.from_proto(self.proto)
        inputs = [v for v in model.graph.inputs if v.name not in model.graph.initializers]
        for value in [v for v in model.graph.inputs if v.name in model.graph.initializers]:
            model.graph.inputs.remove(value)
        ShapeInferencePass(check_type=False, strict_mode=False)(model)
        model.opset_imports[DOMAIN] = 1
        outputs = tuple(v.name or "" for v in model.graph.outputs)
        nodes = list(model.graph)
        for node in nodes:
            node.meta["origin"] = Origin(node=node.name or "", scopes=(("", 0, ""),))
            _keep_exact(node, model.opset_imports.get(node.domain, OPSET))
        for layer in layers:
            _mark(model, layer, [nodes[i] for i in layer.nodes])
        return Captured(
            model=model,
            name=name or self.name or "model",
            tensors={n: (tuple(a.shape), n not in self.buffers) for n, a in self.weights.items()},
            inputs=tuple(v.name or "" for v in inputs),
            outputs=outputs,
        )


def _keep_exact(node: ir.Node, version: int) -> None:
    """Let floats be the float32 numbers that they are: float64 kernels take these, not the decimals they came from."""
    exact: dict[str, Any] = {}
    if not node.domain and onnx.defs.has(node.op_type, version):
        for name, attribute in onnx.defs.get_schema(node.op_type, version).attributes.items():
            if attribute.default_value.type == onnx.AttributeProto.FLOAT:
                exact[name] = attribute.default_value.f
    for given in node.attributes.values():
        if given.type == ir.AttributeType.FLOAT:
            exact[given.name] = given.as_float()
        elif given.type == ir.AttributeType.FLOATS:
            exact[given.name] = tuple(given.as_floats())
    if node.op_type == "Constant" and exact:
        node.meta["exact"] = next(iter(exact.values()))
    else:
        node.meta["exact_attributes"] = {n: v for n, v in exact.items() if n not in _ONLY_TRAINING}


def _mark(model: ir.Model, layer: OnnxLayer, nodes: Sequence[ir.Node]) -> None:
    """Write down which layer the nodes are, and where several tensors go in or come out, which is which."""
    for node in nodes:
        scopes = (("", 0, ""), (layer.path, 0, layer.cls))
        node.meta["origin"] = Origin(module=layer.path, cls=layer.cls, node=node.name or "", scopes=scopes)
    own, made = set(nodes), {v.name: v for n in nodes for v in n.outputs}
    read = {v.name: v for n in nodes for v in n.inputs if v is not None and v.name not in made}
    variable = [v for v in read if v not in model.graph.initializers]
    sides = (
        ("in", layer.inputs if len(variable) > 1 else ()),
        ("out", layer.outputs if len(layer.outputs) > 1 else ()),
    )
    for side, names in sides:
        for place, name in enumerate(names):
            found = made.get(name) or read.get(name)
            if found is None or found.shape is None or found.dtype is None:
                continue
            port = _port(layer.path, side, place, found)
            for user, index in [(u.node, u.idx) for u in found.uses() if u.node is not port]:
                if (user in own) == (side == "in"):
                    user.replace_input_with(index, port.outputs[0])
            if side == "in":
                model.graph.insert_before(nodes[0], port)
            else:
                model.graph.insert_after(nodes[-1], port)


def _port(path: str, side: str, place: int, value: ir.Value) -> ir.Node:
    attributes = [
        ir.AttrString("path", path), ir.AttrInt64("call", 0), ir.AttrString("side", side),
        ir.AttrInt64s("places", [place]), ir.AttrStrings("names", [str(place)]), ir.AttrInt64s("values", [0]),
    ]  # fmt: skip
    node = ir.Node(DOMAIN, "Port", [value], attributes, name=f"{path}:{side}{place}")
    node.outputs[0].name = f"{value.name}:{path}:{side}"
    node.outputs[0].shape, node.outputs[0].type = value.shape, value.type
    return node


def onnx_model(proto: onnx.ModelProto, *, known: Collection[str] = (), name: str = "") -> OnnxModel:
    """A model made ready. known: ops that stay as they are, of those that ONNX defines by others (all: ()).

    Raises UnsupportedError (reason "export") for an opset that can't be raised to ours.
    """
    proto = _expanded(inliner.inline_local_functions(_raised(proto)), known)
    _mark_resizes(proto)
    weights, buffers = _weights(proto.graph)
    return OnnxModel(proto=proto, weights=weights, buffers=frozenset(buffers), name=name)


def _raised(proto: onnx.ModelProto) -> onnx.ModelProto:
    have = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), OPSET)
    if have >= OPSET:
        return proto
    if have < _BROADCASTING:
        proto = _slopes_by_channel(proto)
    try:
        return version_converter.convert_version(proto, OPSET)
    except (RuntimeError, version_converter.ConvertError) as error:
        if have >= _OLDEST:
            return proto
        raise UnsupportedError(
            f"opset {have} can't be raised to {OPSET}: {first_line(error)}",
            reason="export",
            fix=f"export the model again with opset {OPSET}",
        ) from error


def _slopes_by_channel(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Slopes of a PRelu as newer opsets broadcast them: (C,) → (C, 1, …). ONNX' own converter leaves them."""
    given, proto = proto, onnx.ModelProto()
    proto.CopyFrom(given)
    types, tensors = _types(given), {t.name: t for t in proto.graph.initializer}
    for node in proto.graph.node:
        slope = tensors.get(node.input[1]) if node.op_type == "PRelu" else None
        if slope is None or len(slope.dims) != 1 or slope.dims[0] == 1:
            continue
        kind = types.get(node.input[0])
        if kind is None or not kind.tensor_type.HasField("shape"):
            raise UnsupportedError(f"PRelu: the rank of {node.input[0]} isn't known", reason="rank")
        slope.dims.extend([1] * (len(kind.tensor_type.shape.dim) - 2))
    for value in proto.graph.input:
        if value.name in tensors and any(n.op_type == "PRelu" and n.input[1] == value.name for n in proto.graph.node):
            shape = list(tensors[value.name].dims)
            value.type.CopyFrom(onnx.helper.make_tensor_type_proto(tensors[value.name].data_type, shape))
    return proto


def _expanded(proto: onnx.ModelProto, known: Collection[str]) -> onnx.ModelProto:
    """Ops that nobody knows, and that ONNX itself writes as a graph of simpler ones, as that graph."""
    versions = {o.domain: o.version for o in proto.opset_import}
    given, proto = proto, onnx.ModelProto()
    proto.CopyFrom(given)
    declared = {v.name for v in proto.graph.input}
    for tensor in proto.graph.initializer:  # the inliner wants to know their types
        if tensor.name not in declared:
            kind = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            proto.graph.input.append(onnx.helper.make_value_info(tensor.name, kind))
    while known:
        types = _types(proto)
        functions = []
        for number, node in enumerate(proto.graph.node):
            if node.op_type in known:
                continue
            body = _body(node, versions.get(node.domain, OPSET), types)
            if body is not None:
                body.domain, body.name = _DEFINED, f"{node.op_type}_{number}"
                node.domain, node.op_type = _DEFINED, body.name
                functions.append(body)
        if not functions:
            break
        proto.functions.extend(functions)
        proto.opset_import.append(onnx.helper.make_opsetid(_DEFINED, 1))
        proto = inliner.inline_local_functions(proto, convert_version=True)
        kept = [o for o in proto.opset_import if o.domain != _DEFINED]
        del proto.opset_import[:]
        proto.opset_import.extend(kept)
    return proto


def _mark_resizes(proto: onnx.ModelProto) -> None:
    """Where ONNX means something else than PyTorch, whose exporter writes the same: the mode gets a name of its own."""
    for node in proto.graph.node:
        for attribute in node.attribute if node.op_type == "Resize" else ():
            if attribute.s in (b"pytorch_half_pixel", b"align_corners"):
                attribute.s = b"onnx_" + attribute.s


def _types(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto]:
    """The type of every value that ONNX can infer."""
    graph = onnx.shape_inference.infer_shapes(proto).graph
    types = {v.name: v.type for v in (*graph.value_info, *graph.input, *graph.output)}
    for tensor in graph.initializer:
        types[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
    return types


def _body(node: onnx.NodeProto, version: int, types: Mapping[str, onnx.TypeProto]) -> onnx.FunctionProto | None:
    """How ONNX writes an op as simpler ones, for inputs of these types; None where it doesn't."""
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return None
    if schema.has_function:
        body: onnx.FunctionProto = onnx.FunctionProto.FromString(schema.function_body.SerializeToString())
        return body
    if not schema.has_context_dependent_function or any(i and i not in types for i in node.input):
        return None
    given = [types[i].SerializeToString() if i else b"" for i in node.input]
    found = schema.get_context_dependent_function(node.SerializeToString(), given)
    return onnx.FunctionProto.FromString(found) if found else None


def _elements(tensor: onnx.TensorProto) -> int:
    return math.prod(tensor.dims)


def _weights(graph: onnx.GraphProto) -> tuple[dict[str, np.ndarray], set[str]]:
    """Float initializers of rank 1 and more that ops take as data; statistics among them.

    One element without a module's path before it is a number of the graph, which an exporter wrote as a tensor.
    """
    uses: dict[str, list[tuple[str, int]]] = {}
    for node in graph.node:
        for index, value in enumerate(node.input):
            uses.setdefault(value, []).append((node.op_type, index))
    weights: dict[str, np.ndarray] = {}
    buffers: set[str] = set()
    for tensor in graph.initializer:
        used = uses.get(tensor.name, [])
        if _elements(tensor) == 1 and "." not in tensor.name:
            continue
        kinds = onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16
        if tensor.data_type not in kinds or not tensor.dims or not used:
            continue
        if any(index in _SETTINGS.get(op, ()) for op, index in used):
            continue
        weights[tensor.name] = np.asarray(onnx.numpy_helper.to_array(tensor)).astype(
            np.float64 if tensor.data_type == onnx.TensorProto.DOUBLE else np.float32
        )
        if all(index in _STATISTICS.get(op, ()) for op, index in used):
            buffers.add(tensor.name)
    return weights, buffers
