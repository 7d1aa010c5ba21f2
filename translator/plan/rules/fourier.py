"""Fourier transforms. ONNX has complex numbers as a last axis of two, keras.ops as a pair of tensors."""

from __future__ import annotations

from typing import Any

from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule
from translator.types import Layout


@rule("DFT", since=17, keras="keras.ops.fft, rfft, irfft")
def dft(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a transform along one axis, forwards or back, of real or complex numbers.

    Shapes: x (…, n, …, 1 or 2) → (…, N or N/2 + 1, …, 2), back to real numbers (…, N, …, 1).
    Raises: UnsupportedError for a length that is known only when the model runs. Source: ONNX DFT-20; keras.ops.fft.
    """
    shape = ctx.shape(node.inputs[0])
    rank, inverse, half = len(shape), node.attr("inverse", 0), node.attr("onesided", 0)
    axis = (ctx.ints(node, 2) or [node.attr("axis", 1)])[0] % rank
    size, length = shape[axis], next(iter(ctx.ints(node, 1) or ()), None)
    if size is None:
        raise node.unsupported("a transform along a dynamic size", reason="data-dependent-shape")
    to_real = bool(inverse and half)
    length = length or (2 * (size - 1) if to_real else size)
    parts = [_last(node, ctx, part, axis, rank) for part in _parts(node, ctx, ctx.arg(node), shape)]
    bins = length // 2 + 1
    parts = [_fitted(node, ctx, part, size, bins if to_real else length, rank - 1) for part in parts]
    if to_real:
        real = ctx.op(node, "irfft", _pair(node, ctx, parts), fft_length=length)
        return ctx.op(node, "expand_dims", _back(node, ctx, real, axis, rank), -1, role="real")
    if half and len(parts) == 1 and not inverse:
        result = ctx.op_several(node, "rfft", parts[0], outputs=2)
    else:
        result = _whole(node, ctx, _pair(node, ctx, parts), length if inverse else 0)
        result = tuple(_fitted(node, ctx, part, length, bins if half else length, rank - 1) for part in result)
    return _stacked(node, ctx, [_back(node, ctx, part, axis, rank) for part in result])


@rule("STFT", since=17, keras="keras.ops.extract_sequences, keras.ops.rfft")
def stft(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the transform of overlapping frames of a real signal.

    Shapes: x (N, L) or (N, L, 1); window (length,) → (N, frames, length or length/2 + 1, 2).
    Raises: UnsupportedError for a complex signal. Source: ONNX STFT-17; keras.ops.extract_sequences.
    """
    shape = ctx.shape(node.inputs[0])
    if len(shape) == 3 and shape[-1] != 1:
        raise node.unsupported("a complex signal", reason="dtype")
    x = ctx.arg(node)
    x = ctx.op(node, "squeeze", x, -1, role="signal") if len(shape) == 3 else x
    (step,) = ctx.ints(node, 1) or [1]
    given = ctx.ints(node, 3)
    length = given[0] if given else ctx.shape(node.inputs[2])[0]
    frames = ctx.op(node, "extract_sequences", x, length, step, role="frames")
    if node.has(2):
        frames = ctx.op(node, "multiply", frames, ctx.arg(node, 2, like=Layout.identity(1)), role="windowed")
    if node.attr("onesided", 1):
        return _stacked(node, ctx, ctx.op_several(node, "rfft", frames, outputs=2))
    return _stacked(node, ctx, _whole(node, ctx, _pair(node, ctx, [frames]), 0))


def _parts(node: NodeView, ctx: PlanContext, x: Arg, shape: tuple[int | None, ...]) -> list[Arg]:
    """The real part, and the imaginary one where there is one."""
    lead = (slice(None),) * (len(shape) - 1)
    names = ("real", "imaginary")[: shape[-1]]
    return [ctx.op(node, "get_item", x, (*lead, place), role=name) for place, name in enumerate(names)]


def _pair(node: NodeView, ctx: PlanContext, parts: list[Arg]) -> tuple[Arg, Arg]:
    if len(parts) == 2:
        return parts[0], parts[1]
    return parts[0], ctx.op(node, "zeros_like", parts[0], role="zeros")


def _whole(node: NodeView, ctx: PlanContext, pair: tuple[Arg, Arg], back: int) -> tuple[Ref, ...]:
    """The transform along the last axis; back: by as many numbers, as the conjugate of the conjugate's, else 0."""
    if not back:
        return ctx.op_several(node, "fft", pair, outputs=2)
    turned = (pair[0], ctx.op(node, "negative", pair[1], role="conjugate"))
    real, imaginary = ctx.op_several(node, "fft", turned, outputs=2)
    parts = ((real, back, "real_part"), (imaginary, -back, "imaginary_part"))
    return tuple(ctx.op(node, "divide", part, by, role=role) for part, by, role in parts)


def _fitted(node: NodeView, ctx: PlanContext, x: Any, have: int, want: int, rank: int) -> Any:
    """The last axis cut, or filled up with zeros."""
    if want < have:
        return ctx.op(node, "get_item", x, (*(slice(None),) * (rank - 1), slice(None, want)), role="cut")
    return ctx.op(node, "pad", x, ((0, 0),) * (rank - 1) + ((0, want - have),), role="filled") if want > have else x


def _last(node: NodeView, ctx: PlanContext, x: Arg, axis: int, rank: int) -> Arg:
    return x if axis == rank - 2 else ctx.op(node, "moveaxis", x, axis, -1, role="axis_last")


def _back(node: NodeView, ctx: PlanContext, x: Ref, axis: int, rank: int) -> Ref:
    return x if axis == rank - 2 else ctx.op(node, "moveaxis", x, -1, axis, role="axis_back")


def _stacked(node: NodeView, ctx: PlanContext, parts: Any) -> Ref:
    return ctx.op(node, "stack", list(parts), axis=-1, role="complex")
