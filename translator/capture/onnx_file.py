"""SOURCE `model.onnx`: the file read and made an nn.Module, with example inputs that it was run on.

ONNX Runtime is the truth: before anything is translated it runs the file as it is, and the module must say the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from translator.capture.examples import Examples, random_inputs
from translator.capture.onnx_floats import in_float32
from translator.capture.onnx_kernels import onnxruntime_errors
from translator.capture.onnx_model import onnx_model
from translator.capture.onnx_names import with_layer_names
from translator.capture.onnx_network import OnnxNetwork, sizes_of
from translator.errors import InputError, UnsupportedError, first_line
from translator.graph.build import RESOLVED
from translator.plan.registry import load_rules

_DTYPES: Mapping[int, str] = {
    TensorProto.FLOAT: "float32", TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16",
    TensorProto.INT64: "int64", TensorProto.INT32: "int32", TensorProto.INT16: "int16", TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8", TensorProto.BOOL: "bool",
}  # fmt: skip

_OLDEST = 7
"""The first opset that ONNX Runtime takes."""

_BATCH = 2
_FEW = (10, 2)
_LARGEST = 2**31 - 1
_CLOSE = 1e-4
"""How far ONNX Runtime on the whole file may be from its nodes one by one: float32, summed in another order."""

_CLOSE_HALF = 5e-2
"""The same where the file computes in half precision, and its nodes in float32."""


class OnnxFile:
    """An ONNX file that was read.

    network: its module. renamed: initializers that have another name there, with that. notes: for the report.
    Raises InputError where it isn't a whole ONNX model, UnsupportedError where it is of a kind that isn't supported.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        proto = _read(path)
        given = {t.name for t in proto.graph.initializer}
        self._inputs = {v.name: _dtype(v, path) for v in proto.graph.input if v.name not in given}
        self._sizes = {v.name: sizes_of(v) for v in proto.graph.input if v.name not in given}
        found = in_float32(proto)
        half = [name for name in found if name != "float64"]
        self._limit = _CLOSE_HALF if half else _CLOSE
        self.notes = [f"the model's {', '.join(half)} values were widened to float32, exactly"] if half else []
        if "float64" in found:
            self.notes.append("what the model computes in float64 is computed in float32")
        self._opset = next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), _OLDEST)
        runtime = self._opset >= _OLDEST
        truth = _version() if runtime else f"ONNX' own reference, since ONNX Runtime doesn't take opset {self._opset}"
        self.notes.append(f"the file's own result is that of {truth}")
        model = onnx_model(proto, known=frozenset(load_rules()) | RESOLVED, name=path.stem)
        model, self.renamed = with_layer_names(model)
        if self.renamed:
            old, new = next(iter(self.renamed.items()))
            self.notes.append(f"{len(self.renamed)} weights bear the path of their layer, such as {new} for {old}")
        self._tables = sorted(set(_tables(model.proto.graph, model.weights)), reverse=True)
        self.network = OnnxNetwork(model)

    def examples(self, shapes: Sequence[Sequence[int]], dtypes: Sequence[str] = (), *, seed: int = 0) -> Examples:
        """Random inputs of these sizes, else of the declared ones, on which ONNX Runtime and the module agree.

        Integers are drawn below the size of the largest table that lets the file run. Raises InputError for an open
        size that nobody gave, and for inputs that the file doesn't take.
        """
        kinds = list(self._inputs.values())
        if dtypes and any(d not in kinds for d in dtypes):
            raise InputError(f"--input-dtype {', '.join(dtypes)}: the inputs of {self.path} are {', '.join(kinds)}")
        given = [tuple(s) for s in shapes] or [self._size(n) for n in self._inputs]
        if len(given) != len(kinds):
            what = f"{len(given)} times --input-shape for {len(kinds)} inputs"
            raise InputError(what, fix=f"one for each of {', '.join(self._inputs)}")
        session = _session(self.path) if self._opset >= _OLDEST else _reference(self.path)
        limits = [*self._tables, *_FEW] if any("int" in k for k in kinds) else _FEW[:1]
        declared = self._sizes.values()
        wide = [(_BATCH, *s[1:]) if s[:1] == (1,) and _open(d) else s for s, d in zip(given, declared, strict=True)]
        attempts = [(sizes, limit) for sizes in ([wide, given] if wide != given else [given]) for limit in limits]
        failed: Exception | None = None
        for sizes, limit in attempts:
            args = random_inputs(sizes, kinds, seed=seed, below=limit)
            try:
                want = session.run(None, {n: _array(t) for n, t in zip(self._inputs, args, strict=True)})
            except onnxruntime_errors() as error:
                failed = error
                continue
            args = tuple(t.float() if t.dtype in (torch.float16, torch.bfloat16) else t for t in args)
            self._hold(args, want)
            widened_to = "the batch of the example is 2, not 1: a size of 1 says nothing about the batch"
            return Examples(args=args, notes=(widened_to,) if sizes != given else ())
        raise InputError(
            f"{self.path}: ONNX Runtime can't run it on {_text(self._inputs, given)}: {first_line(failed or '')}",
            fix="give the sizes that it takes, with the batch, as --input-shape 2,3,32,32 (once for each input)",
        ) from failed

    def _size(self, name: str) -> tuple[int, ...]:
        declared = self._sizes[name]
        if declared is None:
            raise InputError(f"{self.path}: the rank of input {name} isn't declared", fix=_FIX_SHAPE)
        first = next((s[0] for s in self._sizes.values() if s and isinstance(s[0], str)), "")
        found = []
        for axis, size in enumerate(declared):
            if isinstance(size, str) and axis and not (size == first != "?"):
                raise InputError(
                    f"{self.path}: axis {axis} of input {name} has the open size {size} in ({_sizes(declared)})",
                    fix=_FIX_SHAPE,
                )
            found.append(_BATCH if isinstance(size, str) else size)
        return tuple(found)

    def _hold(self, args: Sequence[torch.Tensor], want: Sequence[np.ndarray]) -> None:
        """Hold the module's outputs against the file's own."""
        try:
            with torch.no_grad():
                outputs = self.network(*args)
        except (RuntimeError, TypeError, ValueError) as error:
            raise UnsupportedError(
                f"{self.path}: ONNX Runtime runs the file, but not its nodes one by one: {first_line(error)}",
                reason="export",
            ) from error
        got = [t.numpy() for t in (outputs if isinstance(outputs, tuple) else (outputs,))]
        for name, have, truth in zip(self.network.output_names, got, want, strict=True):
            wrong = _difference(have, np.asarray(truth), self._limit)
            if wrong:
                raise UnsupportedError(
                    f"{self.path}: output {name} of its nodes, run one by one, isn't the file's own: {wrong}",
                    reason="export",
                    fix=_FIX_EXPORT,
                )


_FIX_EXPORT = "export the model again with a newer opset"
_FIX_SHAPE = "give every input's sizes, with the batch, as --input-shape 2,3,32,32 (once for each input)"


def _read(path: Path) -> onnx.ModelProto:
    fix = "check that it is an ONNX model, and all of it: python -m onnx.checker, or export it again"
    try:
        proto = onnx.load(path)
    except DecodeError as error:
        raise InputError(f"{path}: not an ONNX file, or a damaged one: {first_line(error)}", fix=fix) from error
    except (onnx.checker.ValidationError, ValueError) as error:
        what = f"{path}: its external data can't be read: {first_line(error)}"
        raise InputError(what, fix="keep the data files beside the .onnx file, under their own names") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    if not proto.graph.node or not proto.opset_import:
        raise InputError(f"{path}: not an ONNX model: it has no nodes", fix=fix)
    if proto.ByteSize() > _LARGEST:
        raise UnsupportedError(
            f"{path}: {proto.ByteSize() / 2**30:.1f} GB, more than ONNX' own tools handle in one piece",
            reason="export",
            fix="convert the PyTorch model itself",
        )
    return proto


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except onnxruntime_errors() as error:
        raise InputError(
            f"{path}: ONNX Runtime can't load it: {first_line(error)}",
            fix="the truth about an ONNX file is what ONNX Runtime computes: make it load there",
        ) from error


def _reference(path: Path) -> Any:
    """What runs a file that is older than ONNX Runtime takes."""
    from onnx.reference import ReferenceEvaluator

    try:
        return ReferenceEvaluator(str(path))
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: ONNX' reference can't load it: {first_line(error)}", fix=_FIX_EXPORT) from error


def _version() -> str:
    import onnxruntime

    return f"ONNX Runtime {onnxruntime.__version__}"


def _dtype(value: onnx.ValueInfoProto, path: Path) -> str:
    kind = value.type.WhichOneof("value")
    element = value.type.tensor_type.elem_type
    if kind != "tensor_type" or element not in _DTYPES:
        word = TensorProto.DataType.Name(element) if kind == "tensor_type" else str(kind).replace("_", " ")
        raise UnsupportedError(
            f"{path}: input {value.name} is of the type {word}",
            reason="dtype",
            fix=f"inputs may be {', '.join(_DTYPES.values())}",
        )
    return _DTYPES[element]


def _tables(graph: onnx.GraphProto, weights: Mapping[str, np.ndarray]) -> Iterator[int]:
    """How many rows each table has that indices are looked up in."""
    for node in graph.node:
        if node.op_type == "Gather" and node.input[0] in weights:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
            yield weights[node.input[0]].shape[axis]


def _array(tensor: torch.Tensor) -> Any:
    if tensor.dtype is not torch.bfloat16:
        return tensor.numpy()
    import ml_dtypes

    return tensor.float().numpy().astype(ml_dtypes.bfloat16)


def _difference(have: np.ndarray, want: np.ndarray, limit: float) -> str:
    """What differs between the module's output and the file's; "" for nothing."""
    if have.shape != want.shape:
        return f"shape {have.shape}, not {want.shape}"
    if have.dtype.kind != "f":
        return "" if np.array_equal(have, want) else f"{int((have != want).sum())} of {have.size} differ"
    want = want.astype(np.float64)
    finite = np.isfinite(want) & np.isfinite(have)
    if not np.array_equal(np.isfinite(want), np.isfinite(have)):
        return "other numbers are infinite"
    scale = float(np.abs(want[finite]).max(initial=0.0))
    worst = float(np.abs(want[finite] - have[finite]).max(initial=0.0))
    return "" if worst <= limit * scale else f"off by {worst:.1e} where the largest number is {scale:.1e}"


def _open(declared: tuple[int | str, ...] | None) -> bool:
    """Whether the file leaves the first axis open."""
    return declared is None or isinstance(declared[0], str)


def _sizes(sizes: Sequence[int | str]) -> str:
    return ", ".join(map(str, sizes))


def _text(inputs: Mapping[str, str], sizes: Sequence[Sequence[int]]) -> str:
    rows = zip(inputs.items(), sizes, strict=True)
    return ", ".join(f"{name}: {kind} ({_sizes(size)})" for (name, kind), size in rows)
