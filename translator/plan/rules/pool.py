"""Poolings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.materialise import held
from translator.plan.padding import Pads, spatial_pads, zero_padding
from translator.plan.registry import rule


@rule("MaxPool", since=8, keras="MaxPooling1D/2D/3D, over −inf padding where `same` isn't the same")
def max_pool(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one max pooling; padding is −inf, as in PyTorch.

    Shapes: x (N, C, *S). Raises: UnsupportedError for returned indices.
    Source: ONNX MaxPool-12; Keras 3 MaxPooling2D.
    """
    indices = node.outputs[1] if len(node.outputs) > 1 else ""
    if indices and (indices in ctx.graph.outputs or ctx.graph.consumers().get(indices)):
        raise node.unsupported("the indices are used (MaxUnpool): Keras' pooling gives none")
    if _is_halved(node, ctx):
        return _halved(node, ctx, "MaxPooling")
    kernel, strides, pads = _geometry(node, ctx)
    config: dict[str, Any] = {"pool_size": kernel, "strides": strides, "padding": "valid"}
    x, dilation = ctx.arg(node), _dilation(node, kernel)
    if max(dilation) > 1 or not ctx.dtype(node.inputs[0]).startswith("float"):
        lowest = _lowest(ctx.dtype(node.inputs[0]))
        if any(p for pair in pads for p in pair):
            width = ((0, 0), *pads, (0, 0))
            x = ctx.op(node, "pad", x, width, mode="constant", constant_values=lowest, role="pad")
        return _joined_windows(node, ctx, x, "maximum", kernel, strides, dilation)
    if _is_same(pads, kernel, strides):
        config["padding"] = "same"
    elif any(p for pair in pads for p in pair):
        width = ((0, 0), *pads, (0, 0))
        x = ctx.op(node, "pad", x, width, mode="constant", constant_values=float("-inf"), role="pad")
    return ctx.layer(node, f"MaxPooling{len(kernel)}D", config, args=(x,))


@rule("AveragePool", since=7, keras="AveragePooling1D/2D/3D, over ZeroPadding where padding counts")
def average_pool(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one average pooling; what a window holds beyond the input counts only as PyTorch counts it.

    Shapes: x (N, C, *S). Raises: UnsupportedError for uneven windows over a dynamic size.
    Source: ONNX AveragePool-19; Keras 3 AveragePooling2D.
    """
    if _is_halved(node, ctx):
        return _halved(node, ctx, "AveragePooling")
    kernel, strides, pads = _geometry(node, ctx)
    config: dict[str, Any] = {"pool_size": kernel, "strides": strides, "padding": "valid"}
    if max(_dilation(node, kernel)) > 1:
        return _dilated_average(node, ctx, kernel, strides, pads)
    cls, x = f"AveragePooling{len(kernel)}D", ctx.arg(node)
    if not any(p for pair in pads for p in pair):
        return ctx.layer(node, cls, config, args=(x,))
    counted = bool(node.attr("count_include_pad", 0))
    if not counted and _is_same(pads, kernel, strides):
        return ctx.layer(node, cls, config | {"padding": "same"}, args=(x,))
    padded = zero_padding(node, ctx, x, pads)
    declared = spatial_pads(node, ctx, kernel, strides, _dilation(node, kernel))
    if counted and all(p[1] <= d[1] for p, d in zip(pads, declared, strict=True)):
        return ctx.layer(node, cls, config, args=(padded,))
    mean = ctx.layer(node, cls, config, args=(padded,), role="window_mean")
    total = ctx.op(node, "multiply", mean, float(np.prod(kernel)), role="window_sum")
    counts = _counts(node, ctx, kernel, strides, pads, declared)
    return ctx.op(node, "divide", total, counts)


def _dilated_average(
    node: NodeView, ctx: PlanContext, kernel: tuple[int, ...], strides: tuple[int, ...], pads: Pads
) -> Ref:
    x, dilation = ctx.arg(node), _dilation(node, kernel)
    padded = zero_padding(node, ctx, x, pads) if any(p for pair in pads for p in pair) else x
    total = _joined_windows(node, ctx, padded, "add", kernel, strides, dilation)
    declared = spatial_pads(node, ctx, kernel, strides, dilation)
    return ctx.op(node, "divide", total, _counts(node, ctx, kernel, strides, pads, declared))


def _joined_windows(
    node: NodeView,
    ctx: PlanContext,
    x: Arg,
    op: str,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
) -> Ref:
    """The padded tensor's windows joined by an operation: a strided slice for each place in the window."""
    outs = ctx.shape(node.outputs[0])[2:]
    total: Arg = None
    for place in np.ndindex(*kernel):
        key: list[slice] = [slice(None)]
        for at, k, s, d, out in zip(place, kernel, strides, dilation, outs, strict=True):
            stop = None if out is None else at * d + (out - 1) * s + 1
            open_end = -(k - 1 - at) * d or None
            key.append(slice(at * d or None, open_end if stop is None else stop, s if s > 1 else None))
        part = ctx.op(node, "get_item", x, (*key, slice(None)), role="window")
        total = part if total is None else ctx.op(node, op, total, part, role="joined")
    return total  # type: ignore[no-any-return]


def _dilation(node: NodeView, kernel: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(node.attr("dilations") or (1,) * len(kernel))


def _lowest(dtype: str) -> float | int:
    return float("-inf") if dtype.startswith("float") else int(np.iinfo(dtype).min)


@rule("LpPool", since=1, keras="AveragePooling1D/2D/3D, keras.ops.power")
def lp_pool(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan (Σ |x|ᵖ) ** (1/p) over windows; what a window holds beyond the input is 0.

    Shapes: x (N, C, *S). Source: ONNX LpPool-22; torch.nn.LPPool2d, which keeps the sign of x.
    """
    kernel, strides, pads = _geometry(node, ctx)
    p = float(node.attr("p", 2))
    x = ctx.op(node, "power", ctx.op(node, "absolute", ctx.arg(node), role="size"), p, role="power")
    x = zero_padding(node, ctx, x, pads) if any(q for pair in pads for q in pair) else x
    if max(_dilation(node, kernel)) > 1:
        total = _joined_windows(node, ctx, x, "add", kernel, strides, _dilation(node, kernel))
    else:
        config = {"pool_size": kernel, "strides": strides, "padding": "valid"}
        mean = ctx.layer(node, f"AveragePooling{len(kernel)}D", config, args=(x,), role="window_mean")
        total = ctx.op(node, "multiply", mean, float(np.prod(kernel)), role="window_sum")
    return ctx.op(node, "power", total, 1 / p)


@rule("GlobalLpPool", since=1, keras="keras.ops.sum, keras.ops.power")
def global_lp_pool(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan (Σ |x|ᵖ) ** (1/p) over all spatial axes. Source: ONNX GlobalLpPool-2."""
    p = float(node.attr("p", 2))
    x = ctx.op(node, "power", ctx.op(node, "absolute", ctx.arg(node), role="size"), p, role="power")
    axes = tuple(range(1, ctx.rank(node.inputs[0]) - 1))
    return ctx.op(node, "power", ctx.op(node, "sum", x, axis=axes, keepdims=True, role="sum"), 1 / p)


@rule("GlobalAveragePool", since=1, keras="GlobalAveragePooling1D/2D/3D")
def global_average_pool(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one global average pooling. Shapes: x (N, C, *S) → (N, C, 1…). Source: ONNX GlobalAveragePool-1."""
    return _global(node, ctx, "GlobalAveragePooling")


@rule("GlobalMaxPool", since=1, keras="GlobalMaxPooling1D/2D/3D")
def global_max_pool(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one global max pooling. Shapes: x (N, C, *S) → (N, C, 1…). Source: ONNX GlobalMaxPool-1."""
    return _global(node, ctx, "GlobalMaxPooling")


@rule(
    "translator::AdaptiveAveragePool",
    "translator::AdaptiveMaxPool",
    keras="GlobalAveragePooling, AdaptiveAveragePooling1D/2D/3D …",
)
def adaptive_pool(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one adaptive pooling; to size 1 it is a global one.

    Shapes: x (N, C, *S) → (N, C, *output_size). Source: torch.nn.AdaptiveAvgPool2d; Keras 3 AdaptiveAveragePooling2D.
    """
    sizes = tuple(node.attr("output_size"))
    kind = "Average" if node.op == "AdaptiveAveragePool" else "Max"
    if all(s == 1 for s in sizes):
        return _global(node, ctx, f"Global{kind}Pooling")
    inputs = ctx.shape(node.inputs[0])[2:]
    if inputs == sizes:
        return ctx.arg(node)  # type: ignore[no-any-return]
    cls = f"Adaptive{kind}Pooling{len(sizes)}D"
    if all(n is not None and n % s == 0 for n, s in zip(inputs, sizes, strict=True)):
        window = tuple(int(n or 0) // s for n, s in zip(inputs, sizes, strict=True))
        return ctx.layer(
            node, f"{kind}Pooling{len(sizes)}D", {"pool_size": window, "strides": window, "padding": "valid"}
        )
    if (kind == "Max" and 1 in (inputs[-1], sizes[-1])) or any(map(_misread, inputs, sizes)):
        return _by_axis(node, ctx, inputs, sizes, "max" if kind == "Max" else "mean")
    return ctx.layer(node, cls, {"output_size": sizes if len(sizes) > 1 else sizes[0]})


def _misread(length: int | None, size: int) -> bool:
    """Whether Keras' layer takes other windows on JAX, and gives NaN: it rounds their ends in float32, as here."""
    if length is None:
        return False
    share = np.float32(1) / np.float32(size)
    products = [np.float32(i * length) * share for i in range(size + 1)]
    return any(
        math.floor(p) != i * length // size or math.ceil(p) != -(-i * length // size) for i, p in enumerate(products)
    )


def _by_axis(node: NodeView, ctx: PlanContext, inputs: Sequence[int | None], sizes: Sequence[int], op: str) -> Ref:
    """Maxima or means of pieces, one axis after the other.

    TensorFlow's own kernel of maxima ends the process at a width of 1, JAX misreads some sizes.
    """
    x = ctx.arg(node)
    for axis, (length, size) in enumerate(zip(inputs, sizes, strict=True), start=1):
        if length is None:
            raise node.unsupported("an adaptive pooling of a dynamic size", reason="data-dependent-shape")
        role = f"axis_{axis}" if axis < len(sizes) else ""
        if size == 1:
            x = ctx.op(node, op, x, axis=axis, keepdims=True, role=role)
            continue
        if length == 1:
            x = ctx.op(node, "repeat", x, size, axis=axis, role=role)
            continue
        ends = [(i * length // size, -(-(i + 1) * length // size)) for i in range(size)]
        pieces = [ctx.op(node, "get_item", x, (*[slice(None)] * axis, slice(*end)), role="piece") for end in ends]
        found = [ctx.op(node, op, piece, axis=axis, keepdims=True, role="of_piece") for piece in pieces]
        x = ctx.op(node, "concatenate", found, axis=axis, role=role)
    return x  # type: ignore[no-any-return]


def _global(node: NodeView, ctx: PlanContext, cls: str) -> Ref:
    spatial = ctx.rank(node.inputs[0]) - 2
    if spatial not in (1, 2, 3):
        raise node.unsupported(f"pooling over {spatial} axes", reason="rank")
    return ctx.layer(node, f"{cls}{spatial}D", {"keepdims": True})


def _geometry(node: NodeView, ctx: PlanContext) -> tuple[tuple[int, ...], tuple[int, ...], Pads]:
    """Kernel, strides, and the padding that gives exactly PyTorch's output size (its ceil_mode rule included)."""
    kernel = tuple(node.attr("kernel_shape"))
    if len(kernel) not in (1, 2, 3):
        raise node.unsupported(f"pooling over {len(kernel)} axes", reason="rank")
    strides = tuple(node.attr("strides") or (1,) * len(kernel))
    dilation = _dilation(node, kernel)
    pads = spatial_pads(node, ctx, kernel, strides, dilation)
    if not node.attr("ceil_mode", 0):
        return kernel, strides, pads
    sizes, outs = ctx.shape(node.inputs[0])[2:], ctx.shape(node.outputs[0])[2:]
    if None in sizes or None in outs:
        raise node.unsupported("ceil_mode with a dynamic size", reason="data-dependent-shape")
    fitted: Pads = []
    for size, out, k, s, d, (before, after) in zip(sizes, outs, kernel, strides, dilation, pads, strict=True):
        needed = (int(out or 0) - 1) * s + (k - 1) * d + 1 - int(size or 0) - before
        fitted.append((before, max(needed, 0) if needed > after else after))
    return kernel, strides, fitted


def _is_halved(node: NodeView, ctx: PlanContext) -> bool:
    """Windows of two (or one) side by side, the last one over the border of an odd size, or of a size that isn't known.

    Keras' `same` is then the same at every size: it adds to the end alone, -inf or what no average counts.
    """
    kernel, strides = tuple(node.attr("kernel_shape")), tuple(node.attr("strides") or ())
    plain = not any(node.attr("pads") or ()) and max(_dilation(node, kernel)) == 1
    if not node.attr("ceil_mode", 0) or not plain or kernel != strides or max(kernel) > 2 or len(kernel) > 3:
        return False
    if not ctx.dtype(node.inputs[0]).startswith("float") or node.attr("auto_pad", "NOTSET") not in ("NOTSET", ""):
        return False
    return any(size is None or size % k for size, k in zip(ctx.shape(node.inputs[0])[2:], kernel, strict=True))


def _halved(node: NodeView, ctx: PlanContext, cls: str) -> Ref:
    kernel = tuple(node.attr("kernel_shape"))
    return ctx.layer(node, f"{cls}{len(kernel)}D", {"pool_size": kernel, "strides": kernel, "padding": "same"})


def _is_same(pads: Pads, kernel: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    return (
        max(strides) == 1
        and all(p == ((k - 1) // 2, k // 2) for p, k in zip(pads, kernel, strict=True))
        and max(kernel) > 1
    )


def _counts(
    node: NodeView, ctx: PlanContext, kernel: tuple[int, ...], strides: tuple[int, ...], pads: Pads, declared: Pads
) -> Arg:
    """How many elements of each window PyTorch counts, shape (1, *out, 1): whole numbers, so float32 is exact."""
    sizes = ctx.shape(node.inputs[0])[2:]
    if None in sizes:
        raise node.unsupported("uneven pooling windows over a dynamic size", reason="data-dependent-shape")
    counted = bool(node.attr("count_include_pad", 0))
    table = np.ones((1,) * (len(kernel) + 2))
    for axis, (size, k, s, d, (before, after), (_, own)) in enumerate(
        zip(sizes, kernel, strides, _dilation(node, kernel), pads, declared, strict=True)
    ):
        weights = np.zeros(before + int(size or 0) + after)
        weights[before : before + int(size or 0)] = 1
        if counted:
            weights[:before], weights[before + int(size or 0) :][:own] = 1, 1
        reach = (k - 1) * d + 1
        counts = np.array([weights[i : i + reach : d].sum() for i in range(0, len(weights) - reach + 1, s)])
        shape = [1] * (len(kernel) + 2)
        shape[axis + 1] = len(counts)
        table = table * counts.reshape(shape)
    return held(ctx, node, "window_counts", table.astype("float32"))
