"""Reshape, transpose, reduce, slice: ops that move or pick numbers."""

from __future__ import annotations

from translator.graph.view import NodeView
from translator.layout.kinds import removed_axes
from translator.plan.calls import Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule

_REDUCE = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod"}


@rule("Reshape", "Flatten", since=5, keras="Flatten, Reshape, keras.ops.reshape")
def reshape(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a reshape to the size the graph knows; at most one dimension is dynamic.

    Shapes: as ONNX computes them, in the Keras order. Raises: UnsupportedError (data-dependent-shape).
    Source: ONNX Reshape-14; Keras 3 Flatten, Reshape.
    """
    layout = ctx.out_layout(node)
    target = layout.keras_shape(ctx.shape(node.outputs[0]))
    source = ctx.layout(node).keras_shape(ctx.shape(node.inputs[0]))
    x = ctx.arg(node)
    if (
        source == target
        and sum(d is None for d in target) <= 1
        and ctx.graph.shapes[node.inputs[0]] == ctx.graph.shapes[node.outputs[0]]
    ):
        return x  # type: ignore[no-any-return]
    if sum(d is None for d in target) > 1:
        raise node.unsupported(f"a reshape to {target} with several dynamic sizes", reason="data-dependent-shape")
    batch_kept = (
        source[0] is None
        and target[0] is None
        and ctx.graph.shapes[node.inputs[0]][0] == ctx.graph.shapes[node.outputs[0]][0]
    )
    if batch_kept and len(target) == 2:
        return ctx.layer(node, "Flatten", args=(x,))
    if batch_kept:
        return ctx.layer(node, "Reshape", {"target_shape": target[1:]}, args=(x,))
    return ctx.op(node, "reshape", x, tuple(-1 if d is None else d for d in target))  # type: ignore[no-any-return]


@rule("Transpose", since=1, keras="nothing: the layout is renamed")
def transpose(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan nothing: a transpose renames axes, and what must move is moved where it is read."""
    return ctx.arg(node)  # type: ignore[no-any-return]


@rule("Squeeze", "Unsqueeze", since=1, keras="keras.ops.squeeze, keras.ops.expand_dims")
def squeeze(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the removal or insertion of axes of size 1. Source: ONNX Squeeze-13, Unsqueeze-13."""
    layout = ctx.out_layout(node)
    rank = ctx.rank(node.outputs[0])
    if node.op == "Unsqueeze":
        axes = tuple(sorted(layout.axis(a) for a in ctx.ints(node, 1) or []))
        return ctx.op(node, "expand_dims", ctx.arg(node), axes[0] if len(axes) == 1 else axes)  # type: ignore[no-any-return]
    gone = tuple(sorted(ctx.layout(node).axis(a) for a in removed_axes(node, ctx.graph)))
    if not gone:
        return ctx.arg(node)  # type: ignore[no-any-return]
    del rank
    return ctx.op(node, "squeeze", ctx.arg(node), gone[0] if len(gone) == 1 else gone)  # type: ignore[no-any-return]


@rule(*_REDUCE, since=1, keras="GlobalAveragePooling1D/2D/3D, keras.ops.mean …")
def reduce(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a reduction; the mean over all spatial axes of an image is a GlobalAveragePooling.

    Shapes: the reduced axes are dropped or kept as 1. Source: ONNX ReduceMean-18 …; keras.ops.
    """
    value = node.inputs[0]
    rank, layout = ctx.rank(value), ctx.layout(node)
    gone = removed_axes(node, ctx.graph)
    keep = bool(node.attr("keepdims", 1))
    if not gone:
        return ctx.arg(node)  # type: ignore[no-any-return]
    places = tuple(sorted(layout.axis(a) for a in gone))
    spatial = places == tuple(range(1, rank - 1)) and rank in (3, 4, 5) and layout.axis(0) == 0
    if node.op in ("ReduceMean", "ReduceMax") and spatial:
        cls = "GlobalAveragePooling" if node.op == "ReduceMean" else "GlobalMaxPooling"
        return ctx.layer(node, f"{cls}{rank - 2}D", {"keepdims": True} if keep else {})
    return ctx.op(node, _REDUCE[node.op], ctx.arg(node), axis=places[0] if len(places) == 1 else places, keepdims=keep)  # type: ignore[no-any-return]
