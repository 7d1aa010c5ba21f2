"""Ops that replace elements: scatters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.materialise import counted
from translator.plan.registry import rule
from translator.plan.rules.pick import own
from translator.types import Layout

_FEW = 32
"""More indices than this for one row aren't written out one by one."""

_REDUCTIONS = {"add": "add", "mul": "multiply", "max": "maximum", "min": "minimum"}


@rule("ScatterElements", since=11, keras="keras.ops.scatter_update")
def scatter_elements(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the replacement of one element for each index along an axis. Source: ONNX ScatterElements-18."""
    shape, size = ctx.shape(node.inputs[1]), ctx.shape(node.inputs[0])
    rank = len(shape)
    axis = node.attr("axis", 0) % rank
    reduction = {"none": None, "add": "add", "mul": "mul", "max": "max", "min": "min"}[node.attr("reduction", "none")]
    if None in shape and (size[axis] is None or not _alike(node, ctx, axis)):
        raise node.unsupported("a scatter along a dynamic size", reason="data-dependent-shape")
    if None in shape:
        return _one_by_one(node, ctx, axis)
    count = int(np.prod([int(d or 0) for d in shape]))
    places = [p.reshape(-1, 1).astype(np.int32) for p in np.indices([int(d or 0) for d in shape])]
    index = _wrapped(node, ctx, axis)
    if isinstance(index, np.ndarray):
        places[axis] = index.reshape(-1, 1)
        rows: Arg = np.concatenate(places, axis=1)
    else:
        column: Arg = ctx.op(node, "reshape", index, (count, 1), role="column")
        rows = ctx.op(node, "concatenate", [column if a == axis else places[a] for a in range(rank)], axis=1)
    updates = own(node, ctx, 2)
    flat = ctx.op(node, "reshape", updates, (count,), role="flat") if isinstance(updates, Ref) else updates.reshape(-1)
    options: dict[str, Any] = {"reduction": reduction} if reduction else {}
    return ctx.op(node, "scatter_update", own(node, ctx, 0), rows, flat, **options)


def _wrapped(node: NodeView, ctx: PlanContext, axis: int) -> Arg:
    """The indices along the axis, those from the end counted from the start."""
    index = ctx.const(node, 1)
    if index is not None:
        return _from_the_start(node, ctx, index.astype(np.int32), [axis])
    given = ctx.op(node, "cast", ctx.arg(node, 1, like=1), "int32", role="index")
    return _from_the_start(node, ctx, given, [axis])


def _alike(node: NodeView, ctx: PlanContext, axis: int) -> bool:
    """Whether the indices are few along the axis, and as many as the elements along every other."""
    index, data = ctx.graph.shapes[node.inputs[1]], ctx.graph.shapes[node.inputs[0]]
    others = all(a == b for n, (a, b) in enumerate(zip(index, data, strict=True)) if n != axis)
    return others and isinstance(index[axis], int) and index[axis] <= _FEW


def _one_by_one(node: NodeView, ctx: PlanContext, axis: int) -> Ref:
    """A scatter for any batch: each index along the axis in turn is compared with every place there."""
    size, count = int(ctx.shape(node.inputs[0])[axis] or 0), ctx.shape(node.inputs[1])[axis]
    rank = ctx.rank(node.inputs[0])
    line = np.arange(size, dtype=np.int32).reshape([size if a == axis else 1 for a in range(rank)])
    index, updates = _wrapped(node, ctx, axis), own(node, ctx, 2)
    result: Any = own(node, ctx, 0)
    reduction = node.attr("reduction", "none")
    for number in range(int(count or 0)):
        key = tuple(slice(number, number + 1) if a == axis else slice(None) for a in range(rank))
        place, new = index, updates
        if count != 1:
            place = ctx.op(node, "get_item", index, key, role="place")
            new = ctx.op(node, "get_item", updates, key, role="update") if isinstance(updates, Ref) else updates[key]
        hit = ctx.op(node, "equal", place, line, role="hit")
        if reduction != "none":
            new = ctx.op(node, _REDUCTIONS[reduction], result, new, role="reduced")
        result = ctx.op(node, "where", hit, new, result, role="scattered")
    return result  # type: ignore[no-any-return]


@rule("ScatterND", since=11, keras="keras.ops.concatenate for rows in a row, keras.ops.scatter_update")
def scatter_nd(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the replacement of elements at places given as index tuples. Source: ONNX ScatterND-16."""
    reduction = node.attr("reduction", "none")
    places = _from_the_start(node, ctx, own(node, ctx, 1), range(int(ctx.shape(node.inputs[1])[-1] or 0)))
    options: dict[str, Any] = {} if reduction == "none" else {"reduction": reduction}
    return ctx.op(node, "scatter_update", own(node, ctx, 0), places, own(node, ctx, 2), **options)


def _from_the_start(node: NodeView, ctx: PlanContext, places: Arg, axes: Sequence[int]) -> Arg:
    """Places along these axes of input 0, of which those from the end are counted from the start.

    places: indices of the one axis, or tuples of one for each axis. A dynamic size is counted where it is needed.
    """
    below: Any = places < 0 if isinstance(places, np.ndarray) else ctx.op(node, "less", places, 0, role="below")
    if isinstance(below, np.ndarray) and not below.any():
        return places
    dims = [ctx.graph.shapes[node.inputs[0]][axis] for axis in axes]
    sizes: Any = np.array([d if isinstance(d, int) else 0 for d in dims], dtype=np.int32)
    for column, dim in zip(np.eye(len(dims), dtype=np.int32), dims, strict=True):
        if not isinstance(dim, int):
            along = ctx.op(node, "multiply", counted(ctx, node, dim), column, role="column")
            sizes = ctx.op(node, "add", along, sizes, role="sizes")
    if isinstance(places, np.ndarray) and isinstance(sizes, np.ndarray):
        return np.where(below, places + sizes, places)
    return ctx.op(node, "where", below, ctx.op(node, "add", places, sizes, role="from_end"), places, role="wrapped")


@rule("translator::Replace", keras="keras.ops.concatenate")
def replaced(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a part along an axis written over: what is before, the new, what is after.

    Shapes: data and updates differ along the axis only. Source: torch.slice_scatter; ONNX ScatterND-16 of such places.
    """
    layout, axis = ctx.out_layout(node), node.attr("axis")
    place, size = layout.axis(axis), ctx.shape(node.inputs[0])[axis]
    start, stop = node.attr("start"), node.attr("stop")
    data, updates = (_whole(node, ctx, i, layout) for i in (0, 1))
    parts: list[Arg] = [updates]
    if start:
        parts.insert(0, _part(node, ctx, data, (*[slice(None)] * place, slice(None, start)), "before"))
    if size is None or stop < size:
        parts.append(_part(node, ctx, data, (*[slice(None)] * place, slice(stop, None)), "after"))
    if len(parts) == 1:
        return updates  # type: ignore[no-any-return]
    return ctx.op(node, "concatenate", parts, axis=place, role="replaced")


def _whole(node: NodeView, ctx: PlanContext, index: int, layout: Layout) -> Arg:
    """An input in that layout, never trimmed for broadcasting."""
    array = own(node, ctx, index) if ctx.const(node, index) is not None else None
    return ctx.arg(node, index) if array is None else np.transpose(array, layout.axes)


def _part(node: NodeView, ctx: PlanContext, data: Arg, key: tuple[slice, ...], role: str) -> Arg:
    return ctx.op(node, "get_item", data, key, role=role) if isinstance(data, Ref) else data[key]
