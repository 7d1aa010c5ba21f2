"""Symbolic shapes of the ops whose shape ONNX' own inference leaves open, from the constants that are already known.

A function per kind of op: (node, shapes of the inputs, constants of the inputs) → shapes of the outputs, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import sympy

from translator.graph.dims import SymDim, SymShape, ratio
from translator.graph.evaluate import integers
from translator.graph.view import NodeView

Constants = Sequence["np.ndarray | None"]
Shapes = Sequence["SymShape | None"]
Inference = Callable[[NodeView, Shapes, Constants], "Sequence[SymShape] | None"]
INFERENCES: dict[str, Inference] = {}


def infers(*ops: str) -> Callable[[Inference], Inference]:
    """Register the shape function of ops."""

    def register(function: Inference) -> Inference:
        for op in ops:
            INFERENCES[op] = function
        return function

    return register


def infer(node: NodeView, shapes: Shapes, constants: Constants) -> Sequence[SymShape] | None:
    """The shapes of the node's outputs, or None where they don't follow from what is known."""
    function = INFERENCES.get(node.key)
    if function is None or not shapes or shapes[0] is None:
        return None
    try:
        return function(node, shapes, constants)
    except (_Open, IndexError, ValueError, TypeError):
        return None


def vague(shape: SymShape) -> bool:
    """Whether a dimension is one that ONNX' inference had to make up a name for."""
    return any(not isinstance(d, int) and "unk" in str(d) for d in shape)


def resolved(dims: Sequence[SymDim], source: SymShape) -> SymShape:
    """A Reshape's target with its 0 and -1 resolved against the source's shape."""
    out = [source[i] if isinstance(d, int) and d == 0 else d for i, d in enumerate(dims)]
    missing = [i for i, d in enumerate(out) if isinstance(d, int) and d == -1]
    if missing:
        rest = product([d for i, d in enumerate(out) if i not in missing])
        quotient = ratio(product(source), rest)
        total = sympy.sympify(product(source))
        out[missing[0]] = quotient if quotient is not None else sympy.cancel(total / sympy.sympify(rest))
    return tuple(out)


def product(dims: Sequence[SymDim]) -> SymDim:
    """The product of dimensions, 1 for none."""
    total: SymDim = 1
    for dim in dims:
        total = total * dim
    return total


def broadcast(*shapes: SymShape) -> SymShape:
    """The shape of numpy's broadcasting; of two unequal dimensions the one that isn't 1."""
    rank = max(len(s) for s in shapes)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    return tuple(next((d for d in dims if d != 1), 1) for dims in zip(*padded, strict=True))


class _Open(Exception):  # noqa: N818 - not an error: the shape stays as ONNX inferred it
    """The shape depends on a number that isn't known."""


def _ints(constants: Constants, index: int) -> list[Any]:
    array = constants[index] if index < len(constants) else None
    if array is None:
        raise _Open
    return integers(array)


def _known(shapes: Shapes, *indices: int) -> list[SymShape]:
    found = [shapes[i] for i in indices if i < len(shapes)]
    if any(s is None for s in found):
        raise _Open
    return [s for s in found if s is not None]


@infers(
    "Relu", "LeakyRelu", "Elu", "Selu", "Celu", "Sigmoid", "Tanh", "Softplus", "Softsign", "Gelu", "HardSigmoid",
    "HardSwish", "Mish", "Erf", "Exp", "Log", "Sqrt", "Abs", "Neg", "Reciprocal", "Floor", "Ceil", "Round", "Sign",
    "Sin", "Cos", "Tan", "Not", "Cast", "CastLike", "Identity", "Dropout", "translator::Dropout", "Clip", "Softmax",
    "LogSoftmax", "CumSum", "Trilu", "LayerNormalization", "GroupNormalization", "InstanceNormalization",
    "RMSNormalization", "BatchNormalization", "LpNormalization", "Swish", "IsNaN", "IsInf", "ScatterND",
    "ScatterElements",
)  # fmt: skip
def _same(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    return _known(shapes, 0)


@infers(
    "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "Where", "Equal", "Less", "LessOrEqual", "Greater",
    "GreaterOrEqual", "And", "Or", "Xor", "Mod", "PRelu",
)  # fmt: skip
def _together(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    return [broadcast(*_known(shapes, *range(len(shapes))))]


@infers("Reshape")
def _reshape(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    dims = _ints(constants, 1)
    if node.attr("allowzero", 0) and 0 in dims:
        raise _Open
    return [resolved(dims, _known(shapes, 0)[0])]


@infers("Flatten")
def _flatten(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    (shape,) = _known(shapes, 0)
    axis = node.attr("axis", 1)
    axis = axis + len(shape) if axis < 0 else axis
    return [(product(shape[:axis]), product(shape[axis:]))]


@infers("Expand")
def _expand(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    return [broadcast(_known(shapes, 0)[0], tuple(_ints(constants, 1)))]


@infers("Tile")
def _tile(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    return [tuple(d * r for d, r in zip(_known(shapes, 0)[0], _ints(constants, 1), strict=True))]


@infers("Transpose")
def _transpose(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    (shape,) = _known(shapes, 0)
    perm = node.attr("perm") or tuple(reversed(range(len(shape))))
    return [tuple(shape[a] for a in perm)]


@infers("Squeeze")
def _squeeze(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    (shape,) = _known(shapes, 0)
    axes = _ints(constants, 1) if node.has(1) else node.attr("axes")
    gone = {a % len(shape) for a in axes} if axes is not None else {i for i, d in enumerate(shape) if d == 1}
    return [tuple(d for i, d in enumerate(shape) if i not in gone)]


@infers("Unsqueeze")
def _unsqueeze(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    (shape,) = _known(shapes, 0)
    axes = _ints(constants, 1) if node.has(1) else list(node.attr("axes") or ())
    rank = len(shape) + len(axes)
    new, old = {a % rank for a in axes}, iter(shape)
    return [tuple(1 if i in new else next(old) for i in range(rank))]


@infers("Concat")
def _concat(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    parts = _known(shapes, *range(len(shapes)))
    axis = node.attr("axis") % len(parts[0])
    total = sum((p[axis] for p in parts[1:]), start=parts[0][axis])
    return [tuple(total if i == axis else d for i, d in enumerate(parts[0]))]


@infers("Slice")
def _slice(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    (shape,) = _known(shapes, 0)
    starts, ends = _ints(constants, 1), _ints(constants, 2)
    axes = _ints(constants, 3) if node.has(3) else list(range(len(starts)))
    steps = _ints(constants, 4) if node.has(4) else [1] * len(starts)
    out = list(shape)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        out[axis % len(shape)] = sliced(shape[axis % len(shape)], start, end, step)
    return [tuple(out)]


def sliced(size: SymDim, start: SymDim, end: SymDim, step: int) -> SymDim:
    """The length of `range(size)[start:end:step]`; `_Open` where it can't be told."""
    if all(isinstance(v, int) for v in (size, start, end)):
        return len(range(size)[slice(start, end if abs(end) < 1 << 31 else None, step)])
    far = isinstance(end, int) and end >= (1 << 31) - 1
    if start == 0 and step == 1 and (far or end == size):
        return size
    if step == 1 and isinstance(start, int) and start > 0 and (far or end == size):
        return size - start
    if step == 1 and start == 0 and isinstance(end, int) and end < 0:
        return size + end
    raise _Open


@infers("Split")
def _split(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    (shape,) = _known(shapes, 0)
    axis = node.attr("axis", 0) % len(shape)
    if node.has(1):
        sizes = _ints(constants, 1)
    else:
        count, size = len(node.outputs), shape[axis]
        if not isinstance(size, int):
            raise _Open
        each = -(-size // count)
        sizes = [min(each, size - i * each) for i in range(count)]
    return [tuple(s if i == axis else d for i, d in enumerate(shape)) for s in sizes]


@infers("Gather")
def _gather(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    data, indices = _known(shapes, 0, 1)
    axis = node.attr("axis", 0) % len(data)
    return [(*data[:axis], *indices, *data[axis + 1 :])]


@infers("GatherND")
def _gather_nd(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    data, indices = _known(shapes, 0, 1)
    last = indices[-1]
    if not isinstance(last, int):
        raise _Open
    return [(*indices[:-1], *data[node.attr("batch_dims", 0) + last :])]


@infers("GatherElements")
def _gather_elements(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    return _known(shapes, 1)


@infers("MatMul")
def _matmul(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    a, b = _known(shapes, 0, 1)
    if len(a) < 2 or len(b) < 2:
        raise _Open
    return [(*broadcast(a[:-2], b[:-2]), a[-2], b[-1])]


@infers("Pad")
def _pad(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    (shape,) = _known(shapes, 0)
    pads = _ints(constants, 1)
    axes = [a % len(shape) for a in _ints(constants, 3)] if node.has(3) else list(range(len(shape)))
    out = list(shape)
    for i, axis in enumerate(axes):
        out[axis] = out[axis] + pads[i] + pads[i + len(axes)]
    return [tuple(out)]


@infers(
    "ReduceMean",
    "ReduceSum",
    "ReduceMax",
    "ReduceMin",
    "ReduceProd",
    "ReduceL1",
    "ReduceL2",
    "ReduceLogSumExp",
    "ReduceSumSquare",
    "ReduceLogSum",
)
def _reduce(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    (shape,) = _known(shapes, 0)
    axes = _ints(constants, 1) if node.has(1) else node.attr("axes")
    if not axes:
        if node.attr("noop_with_empty_axes", 0):
            return [shape]
        axes = range(len(shape))
    gone = {a % len(shape) for a in axes}
    if node.attr("keepdims", 1):
        return [tuple(1 if i in gone else d for i, d in enumerate(shape))]
    return [tuple(d for i, d in enumerate(shape) if i not in gone)]


@infers("ConstantOfShape")
def _constant_of_shape(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    return [tuple(_ints(constants, 0))]


@infers("DFT")
def _dft(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    (shape,) = _known(shapes, 0)
    given = _ints(constants, 2) if node.has(2) else [node.attr("axis", 1)]
    axis = given[0] % len(shape)
    to_real = bool(node.attr("inverse", 0) and node.attr("onesided", 0))
    length = _ints(constants, 1)[0] if node.has(1) else 2 * (shape[axis] - 1) if to_real else shape[axis]
    bins = length // 2 + 1 if node.attr("onesided", 0) and not to_real else length
    return [(*shape[:axis], bins, *shape[axis + 1 : -1], 1 if to_real else 2)]


@infers("STFT")
def _stft(node: NodeView, shapes: Shapes, constants: Constants) -> list[SymShape]:
    (shape,) = _known(shapes, 0)
    (step,) = _ints(constants, 1)
    length = _ints(constants, 3)[0] if node.has(3) else _known(shapes, 2)[0][0]
    bins = length // 2 + 1 if node.attr("onesided", 1) else length
    return [(shape[0], (shape[1] - length) // step + 1, bins, 2)]
