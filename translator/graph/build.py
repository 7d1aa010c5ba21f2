"""onnx_ir model → `Graph`: constants resolved, derived parameters tied to their names, dead nodes gone.

Given:   Conv(x, weight, Expand(CastLike(0., x), Shape(weight)))   Reshape(y, Concat(Shape(y)[0], [64]))
Result:  Conv(x, weight, zeros)                                    Reshape(y, [s77, 64])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from translator.errors import UnsupportedError
from translator.graph import derive
from translator.graph.derive import Derived
from translator.graph.dims import SymShape, parse, symbolic_shape
from translator.graph.evaluate import NotConstant, integers, run
from translator.graph.view import Graph, NodeView
from translator.types import Origin

DeriveRule = Callable[[NodeView, "Builder"], Derived | None]


def build_graph(model: ir.Model, tensors: Mapping[str, tuple[tuple[int, ...], bool]]) -> Graph:
    """The graph of a traced model. tensors: shape and trainability of every PyTorch tensor, by name.

    Requires: every initializer of a PyTorch tensor bears its state-dict name. Ensures: every node left reads at
    least one value that depends on an input, and each value read has a shape.
    Raises: UnsupportedError (control-flow) for If, Loop and Scan; (op) for a graph of functions.
    """
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    builder = Builder(tensors)
    for value in model.graph.inputs:
        builder.declare(value)
    for name, initializer in model.graph.initializers.items():
        builder.initializer(name, initializer)
    for index, node in enumerate(model.graph):
        builder.node(node, index)
    outputs = tuple(v.name or "" for v in model.graph.outputs)
    return Graph(
        nodes=_live(builder.nodes, outputs),
        inputs=tuple(v.name or "" for v in model.graph.inputs),
        outputs=outputs,
        shapes=builder.shapes,
        dtypes=builder.dtypes,
        constants=builder.constants,
        derived=builder.derived,
        baked=builder.baked,
    )


def _live(nodes: list[NodeView], outputs: tuple[str, ...]) -> tuple[NodeView, ...]:
    needed = set(outputs)
    kept: list[NodeView] = []
    for node in reversed(nodes):
        if any(o in needed for o in node.outputs):
            kept.append(node)
            needed.update(i for i in node.inputs if i)
    return tuple(reversed(kept))


class Builder:
    """Walks the nodes once and sorts every value into constant, derived or computed at run time."""

    def __init__(self, tensors: Mapping[str, tuple[tuple[int, ...], bool]]) -> None:
        self.tensors = tensors
        self.nodes: list[NodeView] = []
        self.shapes: dict[str, SymShape] = {}
        self.dtypes: dict[str, str] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.derived: dict[str, Derived] = {}
        self.baked: dict[str, str] = {}

    def declare(self, value: ir.Value) -> None:
        name = value.name or ""
        if value.shape is not None:
            self.shapes[name] = symbolic_shape(value.shape)
        if value.dtype is not None:
            self.dtypes[name] = _dtype_name(value.dtype)

    def initializer(self, name: str, value: ir.Value) -> None:
        self.declare(value)
        tensor = value.const_value
        if tensor is None:
            raise UnsupportedError(f"initializer {name} has no data", reason="export")
        dtype = _dtype_name(tensor.dtype)
        self.dtypes[name] = dtype
        shape = tuple(int(d) for d in tensor.shape)
        self.shapes[name] = shape
        if name in self.tensors and dtype.startswith(("float", "bfloat")):
            self.derived[name] = derive.parameter(name, shape, trainable=self.tensors[name][1], dtype=dtype)
            return
        array = tensor.numpy()
        self.constants[name] = array.astype(np.float64) if dtype.startswith(("float", "bfloat")) else array
        if name in self.tensors:
            self.baked[name] = name

    def node(self, node: ir.Node, index: int) -> None:
        if node.op_type in ("If", "Loop", "Scan"):
            raise _view(node, index).unsupported("control flow in the graph", reason="control-flow")
        for out in node.outputs:
            self.declare(out)
        if node.op_type == "Constant":
            name = node.outputs[0].name or ""
            self.constants[name] = _constant(node)
            self.shapes.setdefault(name, self.constants[name].shape)
            return
        view = _view(node, index)
        if not (self._shape_of(view) or self._constant(view) or self._derived(view)):
            self._complete(view)
            self.nodes.append(view)

    def _shape_of(self, view: NodeView) -> bool:
        if view.op not in ("Shape", "Size") or view.domain or view.inputs[0] not in self.shapes:
            return False
        dims = list(self.shapes[view.inputs[0]])
        dims = dims[view.attr("start", 0) : view.attr("end", len(dims))]
        if view.op == "Size":
            product: Any = 1
            for dim in dims:
                product = product * dim
            dims = [product]
        array = np.empty(len(dims), dtype=object)
        array[:] = dims
        if view.op == "Size":
            array = array.reshape(())
        self._set(view, (array if any(not isinstance(d, int) for d in dims) else array.astype(np.int64),))
        return True

    def _constant(self, view: NodeView) -> bool:
        if view.domain or not all(i == "" or i in self.constants for i in view.inputs):
            if not (view.op == "CastLike" and view.inputs[0] in self.constants):
                return False
        inputs = [self.constants[i] if i in self.constants else None for i in view.inputs]
        if view.op == "CastLike":
            like = self.dtypes.get(view.inputs[1], "float32")
            view_attrs: dict[str, Any] = {"to": like}
            outputs = run("Cast", inputs[:1], view_attrs)
            self._set(view, outputs)
            return True
        try:
            self._set(view, run(view.op, inputs, view.attributes))
        except NotConstant:
            return False
        return True

    def _set(self, view: NodeView, arrays: tuple[np.ndarray, ...]) -> None:
        for name, array in zip(view.outputs, arrays, strict=False):
            if not name:
                continue
            self.constants[name] = array
            self.shapes[name] = tuple(array.shape)
            self.dtypes.setdefault(name, "int64" if array.dtype == object else _numpy_name(array))

    def _derived(self, view: NodeView) -> bool:
        rule = DERIVATIONS.get(view.op) if not view.domain else None
        sources = [i for i in view.inputs if i]
        if rule is None or not any(i in self.derived for i in sources):
            return False
        if not all(i in self.derived or i in self.constants for i in sources):
            return False
        result = rule(view, self)
        if result is None:
            return False
        self.derived[view.outputs[0]] = result
        self.shapes[view.outputs[0]] = result.shape
        self.dtypes.setdefault(view.outputs[0], result.dtype)
        return True

    def _complete(self, view: NodeView) -> None:
        """Give a shape to an output that inference left open, from the constants that this walk has resolved."""
        name = view.outputs[0]
        if view.op == "Reshape" and view.inputs[1] in self.constants:
            dims = integers(self.constants[view.inputs[1]])
            if name not in self.shapes or _vague(self.shapes[name]):
                self.shapes[name] = _resolve(dims, self.shapes[view.inputs[0]])
        elif (
            view.op == "Expand"
            and view.inputs[1] in self.constants
            and (name not in self.shapes or _vague(self.shapes[name]))
        ):
            self.shapes[name] = _broadcast(self.shapes[view.inputs[0]], tuple(integers(self.constants[view.inputs[1]])))


def _vague(shape: SymShape) -> bool:
    return any(not isinstance(d, int) and "unk" in str(d) for d in shape)


def _resolve(dims: list[Any], source: SymShape) -> SymShape:
    total: Any = 1
    for dim in source:
        total = total * dim
    out = [source[i] if d == 0 else d for i, d in enumerate(dims)]
    if -1 in out:
        rest: Any = 1
        for dim in out:
            rest = rest * dim if not (isinstance(dim, int) and dim == -1) else rest
        import sympy

        missing = sympy.cancel(sympy.sympify(total) / sympy.sympify(rest))
        out[out.index(-1)] = int(missing) if missing.is_Integer else missing
    return tuple(out)


def _broadcast(a: SymShape, b: SymShape) -> SymShape:
    rank = max(len(a), len(b))
    left, right = (1,) * (rank - len(a)) + a, (1,) * (rank - len(b)) + b
    return tuple(y if x == 1 else x for x, y in zip(left, right, strict=True))


def _view(node: ir.Node, index: int) -> NodeView:
    return NodeView(
        op=node.op_type,
        domain=node.domain,
        inputs=tuple((v.name or "") if v is not None else "" for v in node.inputs),
        outputs=tuple(v.name or "" for v in node.outputs),
        attributes={a.name: _attribute(a) for a in node.attributes.values() if isinstance(a, ir.Attr)},
        origin=node.meta.get("origin") or Origin(node=node.name or str(index)),
        name=node.name or f"n{index}",
    )


def _attribute(attribute: ir.Attr) -> Any:
    """A plain value; floats are the shortest decimal that rounds to the stored float32, as the user wrote them."""
    match attribute.type:
        case ir.AttributeType.FLOAT:
            return float(str(np.float32(attribute.as_float())))
        case ir.AttributeType.FLOATS:
            return tuple(float(str(np.float32(v))) for v in attribute.as_floats())
        case ir.AttributeType.INTS:
            return tuple(attribute.as_ints())
        case ir.AttributeType.STRINGS:
            return tuple(attribute.as_strings())
        case ir.AttributeType.TENSOR:
            return attribute.as_tensor().numpy()
        case ir.AttributeType.INT if attribute.name == "to":
            return _dtype_name(ir.DataType(attribute.as_int()))
        case _:
            return attribute.value


def _constant(node: ir.Node) -> np.ndarray:
    if "exact" in node.meta:
        return np.array(node.meta["exact"], dtype=np.float64)
    attribute = next(iter(node.attributes.values()))
    value = _attribute(attribute)
    array = np.asarray(value)
    return array.astype(np.float64) if array.dtype.kind == "f" or array.dtype.name == "bfloat16" else array


def _dtype_name(dtype: ir.DataType) -> str:
    return {"FLOAT": "float32", "DOUBLE": "float64"}.get(dtype.name, dtype.name.lower())


def _numpy_name(array: np.ndarray) -> str:
    return "float32" if array.dtype.kind == "f" else array.dtype.name


def _known(builder: Builder, value: str) -> list[int] | None:
    if value not in builder.constants:
        return None
    values = integers(builder.constants[value])
    return values if all(isinstance(v, int) for v in values) else None


def _d_same(view: NodeView, b: Builder) -> Derived | None:
    target = view.attr("to", "float32") if view.op == "Cast" else "float32"
    return b.derived.get(view.inputs[0]) if target.startswith("float") else None


def _d_transpose(view: NodeView, b: Builder) -> Derived | None:
    source = b.derived[view.inputs[0]]
    return source.permute(view.attr("perm") or tuple(reversed(range(len(source.shape)))))


def _d_reshape(view: NodeView, b: Builder) -> Derived | None:
    source = b.derived.get(view.inputs[0])
    dims = _known(b, view.inputs[1])
    if source is None or dims is None:
        return None
    shape = _resolve(list(dims), source.shape)
    return source.reshape(shape)


def _d_unsqueeze(view: NodeView, b: Builder) -> Derived | None:
    source, axes = b.derived.get(view.inputs[0]), _known(b, view.inputs[1])
    if source is None or axes is None:
        return None
    return source.reshape(np.expand_dims(np.empty(source.shape, dtype=bool), tuple(axes)).shape)


def _d_squeeze(view: NodeView, b: Builder) -> Derived | None:
    source = b.derived[view.inputs[0]]
    axes = _known(b, view.inputs[1]) if len(view.inputs) > 1 else [i for i, d in enumerate(source.shape) if d == 1]
    if axes is None:
        return None
    drop = {a % len(source.shape) for a in axes}
    return source.reshape([d for i, d in enumerate(source.shape) if i not in drop])


def _d_slice(view: NodeView, b: Builder) -> Derived | None:
    source = b.derived.get(view.inputs[0])
    operands = [_known(b, i) for i in view.inputs[1:]]
    if source is None or any(o is None for o in operands):
        return None
    starts, ends = operands[0] or [], operands[1] or []
    axes = operands[2] if len(operands) > 2 else list(range(len(starts)))
    if len(operands) > 3 and any(s != 1 for s in operands[3] or []):
        return None
    first, last = [0] * len(source.shape), list(source.shape)
    for axis, start, end in zip(axes or [], starts, ends, strict=True):
        first[axis], last[axis], _ = slice(start, end).indices(source.shape[axis])
    return source.slice(first, last)


def _d_concat(view: NodeView, b: Builder) -> Derived | None:
    if not all(i in b.derived for i in view.inputs):
        return None
    return derive.concat([b.derived[i] for i in view.inputs], view.attr("axis", 0))


DERIVATIONS: dict[str, DeriveRule] = {
    "Identity": _d_same,
    "Cast": _d_same,
    "CastLike": _d_same,
    "Transpose": _d_transpose,
    "Reshape": _d_reshape,
    "Unsqueeze": _d_unsqueeze,
    "Squeeze": _d_squeeze,
    "Slice": _d_slice,
    "Concat": _d_concat,
}

__all__ = ["Builder", "build_graph", "parse"]
