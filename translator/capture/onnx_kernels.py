"""One ONNX node computed on arrays: by ONNX Runtime, the truth about ONNX files, in the precision that is asked for.

Where ONNX Runtime has no kernel for float64, PyTorch or ONNX' own reference computes in its place; the first such
result of each node is held against ONNX Runtime's in float32.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import onnx

from translator.capture.onnx_double import BY_TORCH, Value
from translator.errors import InternalError, UnsupportedError, Where, first_line

_AGREES = 1e-4
"""The distance, relative to the largest number, that float32 may be from float64."""


_TYPES = frozenset({"to", "dtype", "stash_type"})
"""Attributes that say a type."""

_STASHING = frozenset({"GroupNormalization", "RMSNormalization"})
"""Ops that compute in float32 unless they are told otherwise."""


class Kernels:
    """Computes nodes of one model, and keeps what it has compiled. A copy begins with nothing."""

    def __init__(self, opsets: Sequence[onnx.OperatorSetIdProto], ir_version: int) -> None:
        self._opsets, self._ir_version = tuple(opsets), ir_version
        self._sessions: dict[tuple[Any, ...], Callable[[list[Value]], list[Value]] | None] = {}
        self._held: set[tuple[Any, ...]] = set()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return type(self)(self._opsets, self._ir_version)

    def run(self, node: onnx.NodeProto, names: Sequence[str], values: Sequence[Value], *, double: bool) -> list[Value]:
        """The node's outputs. names: of the values that it reads. double: what is float32 in the node is float64.

        Raises UnsupportedError where ONNX Runtime has no such op, RuntimeError where the values don't suit it.
        """
        if not double:
            return self._by_runtime(node, names, values)
        node = _doubled(node)
        values = [_cast(v, np.float32, np.float64) for v in values]
        try:
            found = self._by_runtime(node, names, values)
        except (UnsupportedError, RuntimeError):  # some kernels say only when they run that they have no float64
            found = self._by_others(node, names, values)
        return [_cast(v, np.float32, np.float64) for v in found]

    def _by_runtime(self, node: onnx.NodeProto, names: Sequence[str], values: Sequence[Value]) -> list[Value]:
        key = (node.SerializeToString(), *map(_kind, values))
        if key not in self._sessions:
            self._sessions[key] = self._compiled(node, names, values)
        session = self._sessions[key]
        if session is None:
            raise UnsupportedError(
                f"{node.op_type}: ONNX Runtime has no kernel for {', '.join(map(_text, values))}",
                reason="op",
                where=Where(module=node.name, node=node.op_type),
            )
        return session(list(values))

    def _compiled(
        self, node: onnx.NodeProto, names: Sequence[str], values: Sequence[Value]
    ) -> Callable[[list[Value]], list[Value]] | None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level, options.intra_op_num_threads = 4, 1
        model = self._model(node, names, values)
        try:
            session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except onnxruntime_errors():
            return None

        def run(given: list[Value]) -> list[Value]:
            fed = {n: _contiguous(v) for n, v in zip(names, given, strict=True) if v is not None}
            try:
                return list(session.run(None, fed))
            except onnxruntime_errors() as error:
                raise RuntimeError(f"{node.op_type} ({node.name}): {first_line(error)}") from error

        return run

    def _model(self, node: onnx.NodeProto, names: Sequence[str], values: Sequence[Value]) -> bytes:
        """A model of this node alone; whatever it reads is an input."""
        inputs = [onnx.ValueInfoProto(name=n, type=_type(v)) for n, v in zip(names, values, strict=True)]
        outputs = [onnx.ValueInfoProto(name=o) for o in node.output if o]
        graph = onnx.helper.make_graph([node], "node", inputs, outputs)
        model = onnx.helper.make_model(graph, opset_imports=self._opsets, ir_version=self._ir_version)
        text: bytes = model.SerializeToString()
        return text

    def _by_others(self, node: onnx.NodeProto, names: Sequence[str], values: Sequence[Value]) -> list[Value]:
        given = dict(zip(names, values, strict=True))
        exact = BY_TORCH.get(node.op_type) if not node.domain else None
        found = exact(node, [given.get(n) for n in node.input]) if exact else None
        if found is None:
            found = self._by_reference(node, names, values)
        key = (node.SerializeToString(), "held")
        if key not in self._held:
            self._held.add(key)
            narrow = [_cast(v, np.float64, np.float32) for v in values]
            _hold(node, found, self._by_runtime(_singled(node), names, narrow))
        return found

    def _by_reference(self, node: onnx.NodeProto, names: Sequence[str], values: Sequence[Value]) -> list[Value]:
        from onnx.reference import ReferenceEvaluator

        evaluator = ReferenceEvaluator(onnx.ModelProto.FromString(self._model(node, names, values)))
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                return list(evaluator.run(None, dict(zip(names, values, strict=True))))
            except (TypeError, IndexError, ValueError, NotImplementedError) as error:
                raise RuntimeError(f"{node.op_type} ({node.name}): {first_line(error)}") from error


def onnxruntime_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises, kinds of its own that share no base but Exception; and what ONNX' reference does."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [getattr(state, n) for n in dir(state)]
    kinds = [k for k in own if isinstance(k, type) and issubclass(k, Exception)]
    return (*kinds, RuntimeError, ValueError, TypeError, IndexError)


def _hold(node: onnx.NodeProto, found: Sequence[Value], narrow: Sequence[Value]) -> None:
    for wide, single in zip(found, narrow, strict=True):
        if wide.shape != single.shape:
            raise InternalError(
                f"{node.op_type} ({node.name}): {wide.shape} in float64, {single.shape} in ONNX Runtime"
            )
        if wide.dtype.kind != "f":
            continue  # what is decided near a tie may fall either way
        finite = np.isfinite(wide) & np.isfinite(single)
        scale = float(np.abs(wide[finite]).max(initial=0.0))
        worst = float(np.abs(wide[finite] - single[finite]).max(initial=0.0))
        if worst > _AGREES * max(scale, float(np.finfo(np.float32).tiny)):
            raise InternalError(
                f"{node.op_type} ({node.name}): float64 is {worst:.1e} from ONNX Runtime's float32, of {scale:.1e}"
            )


def _kind(value: Value) -> Any:
    if isinstance(value, list):
        return ("sequence", value[0].dtype.name if value else "float32")
    return None if value is None else (value.dtype.name, value.ndim)


def _text(value: Value) -> str:
    if value is None:
        return "nothing"
    return "a sequence" if isinstance(value, list) else f"{value.dtype.name} of rank {value.ndim}"


def _type(value: Value) -> onnx.TypeProto:
    if isinstance(value, list):
        element = onnx.helper.np_dtype_to_tensor_dtype(value[0].dtype if value else np.dtype("float32"))
        return onnx.helper.make_sequence_type_proto(onnx.helper.make_tensor_type_proto(element, None))
    element = onnx.helper.np_dtype_to_tensor_dtype(value.dtype)
    return onnx.helper.make_tensor_type_proto(element, [None] * value.ndim)


def _contiguous(value: Value) -> Value:
    return value if isinstance(value, list) else np.ascontiguousarray(value).reshape(value.shape)


def _cast(value: Value, old: Any, new: Any) -> Value:
    if isinstance(value, list):
        return [_cast(v, old, new) for v in value]
    return value.astype(new) if isinstance(value, np.ndarray) and value.dtype == old else value


def _doubled(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node where what asks for float32 by name, or by not saying anything, asks for float64."""
    node = _asking(node, onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    if node.op_type in _STASHING and not any(a.name == "stash_type" for a in node.attribute):
        changed = onnx.NodeProto()
        changed.CopyFrom(node)
        changed.attribute.append(onnx.helper.make_attribute("stash_type", onnx.TensorProto.DOUBLE))
        return changed
    return node


def _singled(node: onnx.NodeProto) -> onnx.NodeProto:
    return _asking(node, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT)


def _asking(node: onnx.NodeProto, old: int, new: int) -> onnx.NodeProto:
    if not any(a.name in _TYPES and a.i == old for a in node.attribute):
        return node
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    for attribute in changed.attribute:
        if attribute.name in _TYPES and attribute.i == old:
            attribute.i = new
    return changed
