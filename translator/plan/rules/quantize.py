"""Quantisation: the arithmetic of whole numbers with a scale, written out in floats."""

from __future__ import annotations

from typing import Any

import numpy as np

from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule

_LIMITS = {"uint8": (0, 255), "int8": (-128, 127), "uint16": (0, 65_535), "int16": (-32_768, 32_767)}


@rule("QuantizeLinear", since=10, keras="keras.ops.divide, round, clip, cast")
def quantize(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan saturate(round(x / scale) + zero point), halves to even.

    Shapes: scale of size 1, (S,) along `axis`, or one number for each block. Raises: UnsupportedError (dtype) for
    numbers that Keras doesn't have. Source: ONNX QuantizeLinear-21.
    """
    scaled = ctx.op(node, "divide", _float(node, ctx, 0), _along(node, ctx, 1), role="scaled")
    return _saturated(node, ctx, ctx.op(node, "round", scaled, role="rounded"), 2)


@rule("DequantizeLinear", since=10, keras="keras.ops.subtract, multiply")
def dequantize(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan (x − zero point) · scale. Shapes: as for QuantizeLinear. Source: ONNX DequantizeLinear-21."""
    x = _centred(node, ctx, 0, 2)
    return ctx.op(node, "multiply", x, _along(node, ctx, 1))


@rule("QLinearMatMul", since=10, keras="keras.ops.matmul, round, clip, cast")
def quantized_matmul(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a product of quantised matrices: exact in float32 up to 2²⁴. Source: ONNX QLinearMatMul-21."""
    product = ctx.op(node, "matmul", _centred(node, ctx, 0, 2), _centred(node, ctx, 3, 5), role="product")
    for index, op in ((1, "multiply"), (4, "multiply"), (6, "divide")):
        product = ctx.op(node, op, product, _plain(node, ctx, index), role="scaled")
    return _saturated(node, ctx, ctx.op(node, "round", product, role="rounded"), 7)


@rule("MatMulInteger", since=10, keras="keras.ops.matmul")
def integer_matmul(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a product of whole numbers, each minus its zero point. Source: ONNX MatMulInteger-10."""
    sides = []
    for index, zero in ((0, 2), (1, 3)):
        x = ctx.op(node, "cast", ctx.arg(node, index, like=index), "int32", role="int")
        if node.has(zero):
            point = _whole(node, ctx, zero)
            x = ctx.op(node, "subtract", x, point, role="centred")
        sides.append(x)
    return ctx.op(node, "matmul", *sides)


def _whole(node: NodeView, ctx: PlanContext, index: int) -> Arg:
    """A zero point as int32; one for each row stands in a column."""
    value = ctx.arg(node, index, like=index)
    rows = index == 2 and ctx.rank(node.inputs[index]) == 1 and ctx.shape(node.inputs[index]) != (1,)
    if isinstance(value, Ref):
        value = ctx.op(node, "cast", value, "int32", role="zero_point")
        return ctx.op(node, "expand_dims", value, -1, role="column") if rows else value
    array = np.asarray(value, dtype=np.int32)
    return array[:, None] if rows else array


def _saturated(node: NodeView, ctx: PlanContext, x: Arg, zero: int) -> Ref:
    dtype = ctx.dtype(node.outputs[0])
    if dtype not in _LIMITS:
        raise node.unsupported(f"numbers of type {dtype}", reason="dtype")
    if node.has(zero):
        point = _along(node, ctx, zero)
        minus = ctx.op(node, "negative", point, role="minus") if isinstance(point, Ref) else -point
        x = ctx.op(node, "subtract", x, minus, role="shifted")  # TensorFlow's add may take the point for a bias
    return ctx.op(node, "cast", ctx.op(node, "clip", x, *map(float, _LIMITS[dtype]), role="limited"), dtype)


def _centred(node: NodeView, ctx: PlanContext, index: int, zero: int) -> Arg:
    x = _float(node, ctx, index)
    if not node.has(zero):
        return x
    point = _along(node, ctx, zero)
    if not isinstance(x, Ref) and not isinstance(point, Ref):
        return np.subtract(x, point)
    return ctx.op(node, "subtract", x, point, role="centred")


def _float(node: NodeView, ctx: PlanContext, index: int) -> Arg:
    dtype = ctx.dtype(node.inputs[index])
    if dtype.startswith("float"):
        return ctx.arg(node, index, like=index)
    if dtype not in (*_LIMITS, "int32"):
        raise node.unsupported(f"numbers of type {dtype}", reason="dtype")
    return _as_float(node, ctx, ctx.arg(node, index, like=index))


def _as_float(node: NodeView, ctx: PlanContext, value: Arg) -> Arg:
    if isinstance(value, Ref):
        return ctx.op(node, "cast", value, "float32", role="float")
    return np.asarray(value, dtype=np.float32)


def _plain(node: NodeView, ctx: PlanContext, index: int) -> Arg:
    return _as_float(node, ctx, ctx.arg(node, index, like=index))


def _along(node: NodeView, ctx: PlanContext, index: int) -> Arg:
    """A scale or zero point as floats that broadcast against input 0: one number, one per place, one per block."""
    value, shape, data = _plain(node, ctx, index), ctx.shape(node.inputs[index]), ctx.shape(node.inputs[0])
    count, block = int(np.prod([d or 0 for d in shape])), node.attr("block_size", 0)
    axis = node.attr("axis", 1) % max(len(data), 1)
    if node.op == "QLinearMatMul" and len(shape) == len(data):
        return value
    if count == 1:
        return _shaped(node, ctx, value, ())
    if block and len(shape) == len(data):
        if isinstance(value, Ref):
            value = ctx.op(node, "repeat", value, block, axis=axis, role="blocks")
            key = tuple(slice(None, data[a]) if a == axis else slice(None) for a in range(len(data)))
            return ctx.op(node, "get_item", value, key, role="blocks")
        return np.repeat(value, block, axis=axis)[tuple(slice(None, d) for d in data)]
    return _shaped(node, ctx, value, tuple(count if a == axis else 1 for a in range(len(data))))


def _shaped(node: NodeView, ctx: PlanContext, value: Any, shape: tuple[int, ...]) -> Arg:
    return ctx.op(node, "reshape", value, shape, role="along") if isinstance(value, Ref) else value.reshape(shape)
