"""Reductions, and searches along an axis."""

from __future__ import annotations

from typing import Any

from translator.graph.view import NodeView
from translator.layout.kinds import removed_axes
from translator.plan.calls import Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule

_REDUCE = {
    "ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod",
    "ReduceLogSumExp": "logsumexp",
}  # fmt: skip
_PREPARED = {"ReduceL1": "absolute", "ReduceL2": "square", "ReduceSumSquare": "square"}
_FINISHED = {"ReduceL2": "sqrt", "ReduceLogSum": "log"}


@rule(*_REDUCE, since=1, keras="GlobalAveragePooling1D/2D/3D, keras.ops.mean …")
def reduce(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a reduction; the mean over all spatial axes of an image is a GlobalAveragePooling.

    Shapes: the reduced axes are dropped or kept as 1. Source: ONNX ReduceMean-18 …; keras.ops.
    """
    places, keep = _places(node, ctx)
    if not places:
        return ctx.arg(node)  # type: ignore[no-any-return]
    if 0 in ctx.shape(node.inputs[0]):
        raise node.unsupported("a tensor without elements", reason="attribute")
    rank, layout = ctx.rank(node.inputs[0]), ctx.layout(node)
    spatial = places == tuple(range(1, rank - 1)) and rank in (3, 4, 5) and layout == type(layout).channels_last(rank)
    if node.op in ("ReduceMean", "ReduceMax") and spatial and ctx.is_runtime(node, 0):
        cls = "GlobalAveragePooling" if node.op == "ReduceMean" else "GlobalMaxPooling"
        return ctx.layer(node, f"{cls}{rank - 2}D", {"keepdims": True} if keep else {})
    return _reduced(node, ctx, _REDUCE[node.op], ctx.arg(node))


@rule("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", since=1, keras="keras.ops.sum, square, sqrt …")
def norm_reduction(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a sum of changed numbers. Source: ONNX ReduceL2-18 …; torch.linalg.vector_norm."""
    x = ctx.arg(node)
    if node.op in _PREPARED:
        x = ctx.op(node, _PREPARED[node.op], x, role=_PREPARED[node.op])
    if _places(node, ctx)[0]:
        x = _reduced(node, ctx, "sum", x, role="sum")
    return ctx.op(node, _FINISHED[node.op], x, role=_FINISHED[node.op]) if node.op in _FINISHED else x


def _places(node: NodeView, ctx: PlanContext) -> tuple[tuple[int, ...], bool]:
    """The Keras axes to reduce, and whether they stay as 1."""
    layout = ctx.layout(node)
    places = tuple(sorted(layout.axis(a) for a in removed_axes(node, ctx.graph)))
    return places, bool(node.attr("keepdims", 1))


def _reduced(node: NodeView, ctx: PlanContext, op: str, x: Any, role: str = "") -> Ref:
    places, keep = _places(node, ctx)
    axis = places[0] if len(places) == 1 else places
    return ctx.op(node, op, x, axis=axis, keepdims=keep, role=role)


@rule("ArgMax", "ArgMin", since=13, keras="keras.ops.argmax, keras.ops.argmin")
def arg_extreme(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the place of the first extreme along one axis. Raises: UnsupportedError for the last of equals."""
    axis, keep = ctx.layout(node).axis(node.attr("axis", 0)), bool(node.attr("keepdims", 1))
    op, x = node.op.lower(), ctx.arg(node)
    if not node.attr("select_last_index", 0):
        return ctx.op(node, op, x, axis=axis, keepdims=keep)
    size = ctx.layout(node).keras_shape(ctx.shape(node.inputs[0]))[axis]
    if size is None:
        raise node.unsupported("the last of equals along a dynamic axis", reason="data-dependent-shape")
    found = ctx.op(node, op, ctx.op(node, "flip", x, axis=axis, role="flip"), axis=axis, keepdims=keep, role=op)
    return ctx.op(node, "subtract", size - 1, found, role="from_the_end")


@rule("TopK", since=11, keras="keras.ops.top_k")
def top_k(node: NodeView, ctx: PlanContext) -> tuple[Ref, ...]:
    """Plan the k largest (or smallest) along an axis, sorted. Source: ONNX TopK-11."""
    (count,) = ctx.ints(node, 1) or [1]
    rank = ctx.rank(node.inputs[0])
    axis, largest = node.attr("axis", -1) % rank, node.attr("largest", 1)
    order = [a for a in range(rank) if a != axis] + [axis]
    x = ctx.arg(node)
    if axis != rank - 1:
        x = ctx.op(node, "transpose", x, order, role="to_last")
    if not largest:
        x = ctx.op(node, "negative", x, role="negated")
    values, indices = ctx.op_several(node, "top_k", x, count, sorted=True, outputs=2)
    if not largest:
        values = ctx.op(node, "negative", values, role="values")
    if axis != rank - 1:
        back = [order.index(a) for a in range(rank)]
        values = ctx.op(node, "transpose", values, back, role="values")
        indices = ctx.op(node, "transpose", indices, back, role="indices")
    return values, indices


@rule("CumSum", since=11, keras="keras.ops.cumsum")
def cumsum(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a running sum along one axis. Source: ONNX CumSum-14."""
    (axis,) = ctx.ints(node, 1) or [0]
    place = ctx.layout(node).axis(axis)
    x = ctx.arg(node)
    if node.attr("reverse", 0):
        x = ctx.op(node, "flip", x, axis=place, role="flip")
    total = ctx.op(node, "cumsum", x, axis=place)
    if node.attr("exclusive", 0):
        total = ctx.op(node, "subtract", total, x, role="exclusive")
    return ctx.op(node, "flip", total, axis=place, role="flip_back") if node.attr("reverse", 0) else total


@rule("CumProd", since=26, keras="keras.ops.cumprod")
def cumprod(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a running product along one axis. Source: ONNX CumProd-26."""
    (axis,) = ctx.ints(node, 1) or [0]
    place, rank = ctx.layout(node).axis(axis), ctx.rank(node.inputs[0])
    x = ctx.arg(node)
    if node.attr("reverse", 0):
        x = ctx.op(node, "flip", x, axis=place, role="flip")
    if node.attr("exclusive", 0):
        key = tuple(slice(None, -1) if a == place else slice(None) for a in range(rank))
        width = tuple((1, 0) if a == place else (0, 0) for a in range(rank))
        x = ctx.op(node, "get_item", x, key, role="before")
        one = 1.0 if ctx.dtype(node.inputs[0]).startswith("float") else 1
        x = ctx.op(node, "pad", x, width, mode="constant", constant_values=one, role="one_first")
    total = ctx.op(node, "cumprod", x, axis=place)
    return ctx.op(node, "flip", total, axis=place, role="flip_back") if node.attr("reverse", 0) else total


@rule("Hardmax", since=13, keras="keras.ops.argmax, keras.ops.one_hot")
def hardmax(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan 1 at the first largest along an axis, else 0. Source: ONNX Hardmax-13."""
    axis = ctx.layout(node).axis(node.attr("axis", -1))
    size = ctx.layout(node).keras_shape(ctx.shape(node.inputs[0]))[axis]
    place = ctx.op(node, "argmax", ctx.arg(node), axis=axis, role="argmax")
    last = axis == ctx.rank(node.inputs[0]) - 1
    return ctx.op(node, "one_hot", place, size, axis=-1 if last else axis)
