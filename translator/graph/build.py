"""onnx_ir model → `Graph`: constants resolved, derived parameters tied to their names, dead nodes gone.

Given:   Conv(x, weight, Expand(CastLike(0., x), Shape(weight)))   Reshape(y, Concat(Shape(y)[0], [64]))
Result:  Conv(x, weight, zeros)                                    Reshape(y, [s77, 64])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from translator.errors import UnsupportedError, Where
from translator.graph import derive
from translator.graph.derivations import DERIVATIONS
from translator.graph.derive import Derived
from translator.graph.dims import SymDim, SymShape, ratio, symbolic_shape
from translator.graph.evaluate import NotConstant, integers, run
from translator.graph.onnx_data import constant_of, dtype_name, numpy_name, plain_attribute
from translator.graph.parts import kept_whole
from translator.graph.shapes import infer, product, vague
from translator.graph.tidy import changes_nothing
from translator.graph.view import Graph, NodeView, Ports, live
from translator.types import Origin

RESOLVED = frozenset({
    "Constant", "ConstantOfShape", "EyeLike", "Shape", "Size", "If", "SplitToSequence", "SequenceConstruct",
    "SequenceAt", "ConcatFromSequence",
})  # fmt: skip
"""Ops that are resolved while the graph is built: no rule ever sees them, or none has to."""


def build_graph(model: ir.Model, tensors: Mapping[str, tuple[tuple[int, ...], bool]]) -> Graph:
    """The graph of a traced model. tensors: shape and trainability of every PyTorch tensor, by name.

    Requires: every initializer of a PyTorch tensor bears its state-dict name. Ensures: every node left reads at
    least one value that depends on an input or is computed from a parameter, changes something, and each value read
    has a shape.
    Raises: UnsupportedError (control-flow) for If, Loop and Scan; (sequence-type) for sequences that aren't splits.
    """
    ShapeInferencePass(check_type=False, strict_mode=False)(model)
    graph = _built(model, tensors, whole=frozenset())
    whole = kept_whole(graph, {name: shape for name, (shape, _) in tensors.items()})
    return _built(model, tensors, whole=whole) if whole else graph


def _built(model: ir.Model, tensors: Mapping[str, tuple[tuple[int, ...], bool]], *, whole: frozenset[str]) -> Graph:
    """One walk over the nodes. whole: tensors that are not to be cut or joined before the model runs."""
    builder = Builder(tensors, whole)
    for value in model.graph.inputs:
        builder.declare(value)
    for name, initializer in model.graph.initializers.items():
        builder.initializer(name, initializer)
    for index, node in enumerate(model.graph):
        builder.node(node, index)
    outputs = tuple(builder.resolve(v.name or "") for v in model.graph.outputs)
    nodes = live(builder.nodes, outputs)
    _refuse_unshaped(nodes, outputs, builder.shapes)
    return Graph(
        nodes=nodes,
        inputs=tuple(v.name or "" for v in model.graph.inputs),
        outputs=outputs,
        shapes=builder.shapes,
        dtypes=builder.dtypes,
        constants=builder.constants,
        derived=builder.derived,
        baked=builder.baked,
        ports=builder.ports(),
    )


def _refuse_unshaped(nodes: Sequence[NodeView], outputs: Sequence[str], shapes: Mapping[str, SymShape]) -> None:
    """Refuse what has a number of axes that only the input's numbers tell."""
    read = {value for node in nodes for value in node.inputs} | set(outputs)
    for node in nodes:
        if any(o in read and o not in shapes for o in node.outputs):
            raise node.unsupported("the shape is computed at run time", reason="data-dependent-shape")


class Builder:
    """Walks the nodes once and sorts every value into constant, derived, another's alias, or computed at run time."""

    def __init__(self, tensors: Mapping[str, tuple[tuple[int, ...], bool]], whole: frozenset[str]) -> None:
        self.tensors, self.whole = tensors, whole
        self.nodes: list[NodeView] = []
        self.shapes: dict[str, SymShape] = {}
        self.dtypes: dict[str, str] = {}
        self.constants: dict[str, np.ndarray] = {}
        self.derived: dict[str, Derived] = {}
        self.baked: dict[str, str] = {}
        self.sequences: dict[str, tuple[str, ...]] = {}
        self._alias: dict[str, str] = {}
        self._counting: dict[str, Any] = {}
        self._borders: dict[tuple[str, int, str], dict[int, tuple[str, str]]] = {}

    def resolve(self, name: str) -> str:
        """The value that `name` stands for."""
        return self._alias.get(name, name)

    def ports(self) -> dict[tuple[str, int], Ports]:
        """The marked borders of module calls."""
        found: dict[tuple[str, int], Ports] = {}
        for (path, call, side), values in self._borders.items():
            rows = [values.get(i, ("", "")) for i in range(max(values) + 1)]
            row, names = tuple(value for value, _ in rows), tuple(name for _, name in rows)
            field = {"inputs": row, "arguments": names} if side == "in" else {"outputs": row}
            found[path, call] = replace(found.get((path, call), Ports()), **field)
        return found

    def declare(self, value: ir.Value) -> None:
        """Note the shape and dtype that inference gave a value."""
        name = value.name or ""
        if value.shape is not None:
            self.shapes[name] = symbolic_shape(value.shape)
        if value.dtype is not None:
            self.dtypes[name] = dtype_name(value.dtype)

    def initializer(self, name: str, value: ir.Value) -> None:
        """A parameter or float buffer of the module, or a constant: of complex numbers, which come as pairs, too."""
        self.declare(value)
        tensor = value.const_value
        if tensor is None:
            raise UnsupportedError(f"initializer {name} has no data", reason="export")
        dtype = dtype_name(tensor.dtype)
        self.dtypes[name] = dtype
        shape = tuple(int(d) for d in tensor.shape.numpy())
        self.shapes[name] = shape
        paired = name in self.tensors and shape != self.tensors[name][0]
        if paired and self.tensors[name][1]:
            raise UnsupportedError(
                f"the parameter {name} is complex", reason="dtype",
                where=Where(module=name.rpartition(".")[0] or "(root)"),
                fix="keep it as pairs of real numbers, and see it as complex in the forward (torch.view_as_complex)",
            )  # fmt: skip
        if name in self.tensors and not paired and dtype.startswith(("float", "bfloat")):
            self.derived[name] = derive.parameter(name, shape, trainable=self.tensors[name][1], dtype=dtype)
            return
        array = tensor.numpy()
        self.constants[name] = array.astype(np.float64) if dtype.startswith(("float", "bfloat")) else array
        if name in self.tensors:
            self.baked[name] = name

    def node(self, node: ir.Node, index: int) -> None:
        """Sort one node's outputs."""
        if node.op_type == "If" and self._branch(node):
            return
        if node.op_type in ("If", "Loop", "Scan"):
            raise _view(node, index).unsupported("control flow in the graph", reason="control-flow")
        for out in node.outputs:
            self.declare(out)
        if node.op_type == "Constant":
            name = node.outputs[0].name or ""
            self.constants[name] = constant_of(node)
            self.shapes[name] = self.constants[name].shape
            return
        view = _view(node, index)
        view = replace(view, inputs=tuple(self.resolve(i) for i in view.inputs))
        if view.key == "translator::Port":
            self._alias.update(zip(view.outputs, view.inputs, strict=True))
            if view.attr("gives", 0):
                self._borders.setdefault((view.attr("path"), view.attr("call"), "out"), {0: ("", "")})
            border = self._borders.setdefault((view.attr("path"), view.attr("call"), view.attr("side")), {})
            for place, name, value in zip(view.attr("places"), view.attr("names"), view.attr("values"), strict=True):
                border[place] = (view.inputs[value], name)
            return
        made = self._sequence(view)
        if made is not None:
            self.add(made)

    def _branch(self, node: ir.Node) -> bool:
        """An If whose condition is known is the branch that it takes."""
        condition = self.constants.get(self.resolve(node.inputs[0].name or "")) if node.inputs[0] else None
        if condition is None or condition.dtype == object:
            return False
        branch = node.attributes["then_branch" if condition.reshape(()).item() else "else_branch"].as_graph()
        for index, inner in enumerate(branch):
            inner.meta.setdefault("origin", node.meta.get("origin"))
            self.node(inner, index)
        for outer, inner_value in zip(node.outputs, branch.outputs, strict=True):
            self._same(outer.name or "", self.resolve(inner_value.name or ""))
        return True

    def _same(self, name: str, value: str) -> None:
        """Let `name` stand for a value, whatever kind of value that is."""
        self._alias[name] = value
        if value in self.constants:
            self.constants[name] = self.constants[value]
        if value in self.derived:
            self.derived[name] = self.derived[value]
        for table in (self.shapes, self.dtypes):
            if value in table:
                table[name] = table[value]  # type: ignore[assignment]

    def add(self, view: NodeView) -> None:
        """Resolve a node, or list it."""
        view = self._without_empty(view)
        if self._shape_of(view) or self._constant(view) or self._derived(view):
            return
        view = self._filled(view)
        self._complete(view)
        self._counted(view)
        if view.op == "ScatterND" and self._replaces_all(view):
            self._alias[view.outputs[0]] = view.inputs[2]
        elif changes_nothing(view, self.shapes, self.dtypes, self.constants):
            self._alias[view.outputs[0]] = view.inputs[0]
        else:
            self.nodes.append(view)

    def _without_empty(self, view: NodeView) -> NodeView:
        """A Concat reads only those of its parts that have elements, so that what makes the others isn't needed."""
        if view.op != "Concat" or not all(i in self.shapes for i in view.inputs):
            return view
        full = tuple(i for i in view.inputs if self.shapes[i][view.attr("axis")] != 0)
        return replace(view, inputs=full or view.inputs[:1])

    def _counted(self, view: NodeView) -> None:
        """Note which values are 0, 1, 2 … up to a size, as a vector or a column."""
        if view.op == "Range" and all(i in self.constants for i in view.inputs):
            start, limit, step = (integers(self.constants[i])[0] for i in view.inputs)
            if start == 0 and step == 1:
                self._counting[view.outputs[0]] = limit
                self.shapes[view.outputs[0]] = (limit,)
        elif view.op in ("Unsqueeze", "Reshape") and view.inputs[0] in self._counting:
            self._counting[view.outputs[0]] = self._counting[view.inputs[0]]

    def _replaces_all(self, view: NodeView) -> bool:
        """Whether a ScatterND writes every row of its data: `x[:] = y`."""
        data, indices, updates = view.inputs
        shape = self.shapes.get(data)
        whole = shape is not None and self._counting.get(indices) == shape[0] and self.shapes.get(updates) == shape
        return whole and view.attr("reduction", "none") == "none" and len(self.shapes[indices]) == 2

    def _filled(self, view: NodeView) -> NodeView:
        """A fill of a dynamic shape is one number, expanded; so are repetitions along axes of size 1."""
        if view.op == "Tile" and view.inputs[1] in self.constants and view.inputs[0] in self.shapes:
            repeats, shape = integers(self.constants[view.inputs[1]]), self.shapes[view.inputs[0]]
            if all(r == 1 or d == 1 for r, d in zip(repeats, shape, strict=True)):
                target = f"{view.outputs[0]}:target"
                dims = [d * r for d, r in zip(shape, repeats, strict=True)]
                self.constants[target] = np.array(
                    dims, dtype=object if any(not isinstance(d, int) for d in dims) else np.int64
                )
                return replace(view, op="Expand", inputs=(view.inputs[0], target))
        if view.op != "ConstantOfShape" or view.inputs[0] not in self.constants:
            return view
        value = np.asarray(view.attr("value", np.zeros(1, dtype=np.float32)))
        name, rank = f"{view.outputs[0]}:fill", self.constants[view.inputs[0]].size
        self.constants[name] = value.reshape((1,) * rank).astype(np.float64 if value.dtype.kind == "f" else value.dtype)
        self.shapes[name] = (1,) * rank
        self.dtypes[name] = numpy_name(self.constants[name])
        return replace(view, op="Expand", inputs=(name, view.inputs[0]), attributes={})

    def _sequence(self, view: NodeView) -> NodeView | None:
        """Sequences that only carry the parts of a split: a Split node, and the parts' own names."""
        if view.op == "SplitToSequence":
            return self._split_to_sequence(view)
        if view.op == "SequenceConstruct":
            self.sequences[view.outputs[0]] = view.inputs
            return None
        if "Sequence" not in view.op or view.op == "ReverseSequence":
            return view
        parts = self.sequences.get(view.inputs[0]) if view.inputs else None
        if parts is None:
            raise view.unsupported("a sequence made at run time", reason="sequence-type")
        if view.op == "SequenceAt" and view.inputs[1] in self.constants:
            self._alias[view.outputs[0]] = parts[int(self.constants[view.inputs[1]])]
            return None
        if view.op == "ConcatFromSequence" and not view.attr("new_axis", 0):
            return replace(view, op="Concat", inputs=parts, attributes={"axis": view.attr("axis")})
        raise view.unsupported("this use of a sequence", reason="sequence-type")

    def _split_to_sequence(self, view: NodeView) -> NodeView:
        shape = self.shapes.get(view.inputs[0])
        axis = view.attr("axis", 0)
        size = shape[axis] if shape is not None else None
        split = self.constants.get(view.inputs[1]) if view.has(1) else np.array(1)
        sizes = _sizes(size, split)
        if not sizes or (not view.has(1) and not view.attr("keepdims", 1)):
            raise view.unsupported("a split into parts of unknown number", reason="data-dependent-shape")
        name = f"{view.outputs[0]}:sizes"
        known = all(isinstance(s, int) for s in sizes)
        self.constants[name] = np.array(sizes, dtype=np.int64 if known else object)
        parts = tuple(f"{view.outputs[0]}:part{i}" for i in range(len(sizes)))
        self.sequences[view.outputs[0]] = parts
        self.dtypes.update(dict.fromkeys(parts, self.dtypes.get(view.inputs[0], "float32")))
        return replace(view, op="Split", inputs=(view.inputs[0], name), outputs=parts, attributes={"axis": axis})

    def _shape_of(self, view: NodeView) -> bool:
        if view.op == "EyeLike":
            return self._eye(view)
        if view.op not in ("Shape", "Size") or view.domain or view.inputs[0] not in self.shapes:
            return False
        dims = list(self.shapes[view.inputs[0]])
        dims = dims[view.attr("start", 0) : view.attr("end", len(dims))]
        found = np.empty(len(dims), dtype=object)
        found[:] = dims
        if view.op == "Size":
            found = np.array(product(dims), dtype=object)
        known = all(isinstance(d, int) for d in found.reshape(-1))
        self._set(view, (found.astype(np.int64) if known else found,))
        return True

    def _eye(self, view: NodeView) -> bool:
        """A matrix with ones on a diagonal depends on the input's shape alone."""
        rows, columns = self.shapes.get(view.inputs[0], (None, None))
        if not isinstance(rows, int) or not isinstance(columns, int):
            raise view.unsupported("a matrix of dynamic size", reason="data-dependent-shape")
        dtype = view.attr("dtype")
        name = dtype_name(ir.DataType(dtype)) if dtype is not None else self.dtypes.get(view.inputs[0], "float32")
        self.dtypes[view.outputs[0]] = name
        self._set(view, (np.eye(rows, columns, view.attr("k", 0)).astype(name),))
        return True

    def _constant(self, view: NodeView) -> bool:
        like = view.op == "CastLike" and view.inputs[0] in self.constants
        if view.domain or not (like or all(i == "" or i in self.constants for i in view.inputs)):
            return False
        inputs = [self.constants.get(i) for i in view.inputs]
        op, attributes = view.op, view.attributes
        if op == "CastLike":
            op, attributes, inputs = "Cast", {"to": self.dtypes.get(view.inputs[1], "float32")}, inputs[:1]
        elif op == "Split":
            attributes = {"num_outputs": len(view.outputs), **attributes}
        try:
            self._set(view, run(op, inputs, attributes))
        except NotConstant:
            return False
        return True

    def _set(self, view: NodeView, arrays: tuple[np.ndarray, ...]) -> None:
        for name, array in zip(view.outputs, arrays, strict=False):
            if not name:
                continue
            self.constants[name] = array
            self.shapes[name] = tuple(array.shape)
            self.dtypes.setdefault(name, "int64" if array.dtype == object else numpy_name(array))

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
        parts = result if isinstance(result, tuple) else (result,)
        if any(p.tensor in self.whole and (p.region or len(part.pieces) > 1) for part in parts for p in part.pieces):
            return False
        for name, part in zip(view.outputs, parts, strict=True):
            self.derived[name] = part
            self.shapes[name] = part.shape
            self.dtypes.setdefault(name, part.dtype)
        return True

    def _complete(self, view: NodeView) -> None:
        """Give shapes to outputs that ONNX' inference left open, from the constants that this walk has resolved."""
        if all(o in self.shapes and not vague(self.shapes[o]) for o in view.outputs if o):
            return
        shapes = [self.shapes.get(i) for i in view.inputs]
        found = infer(view, shapes, [self.constants.get(i) for i in view.inputs])
        for name, shape in zip(view.outputs, found or (), strict=False):
            self.shapes[name] = tuple(int(d) if getattr(d, "is_Integer", False) else d for d in shape)


def _sizes(size: SymDim | None, split: np.ndarray | None) -> list[SymDim]:
    """The sizes of the parts of a dimension, from their list or from what each has; none where they aren't known."""
    if split is None or size is None:
        return []
    each = integers(split)
    if split.ndim:
        return each
    if isinstance(size, int) and isinstance(each[0], int):
        return [min(each[0], size - i) for i in range(0, size, each[0])]
    count = ratio(size, each[0])
    return each * count if isinstance(count, int) else []


def _view(node: ir.Node, index: int) -> NodeView:
    """The node as plain data. A first output that nobody wants has a name all the same: layouts are kept by it."""
    settings = {a.name: plain_attribute(a) for a in node.attributes.values()}
    return NodeView(
        op=node.op_type,
        domain=node.domain,
        inputs=tuple((v.name or "") if v is not None else "" for v in node.inputs),
        outputs=tuple(v.name or ("" if i else f"n{index}:unread") for i, v in enumerate(node.outputs)),
        attributes=settings | node.meta.get("exact_attributes", {}),
        origin=node.meta.get("origin") or Origin(node=node.name or str(index)),
        name=node.name or f"n{index}",
    )
