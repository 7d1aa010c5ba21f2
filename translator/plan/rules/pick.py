"""Ops that pick, move or replace elements: slices, splits, gathers, padding."""

from __future__ import annotations

from typing import Any

import numpy as np

from translator.graph.dims import ratio
from translator.graph.evaluate import integers
from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.materialise import LARGE, constant_index, plain, table, zeros
from translator.plan.registry import rule
from translator.plan.rules.linear import reversible

_FAR = 1 << 31


@rule("Slice", since=10, keras="keras.ops slicing, keras.ops.flip")
def slice_(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan `x[start:stop:step]` on each axis; a negative step flips first, since not every backend has it.

    Raises: UnsupportedError where a bound is computed at run time. Source: ONNX Slice-13.
    """
    layout, shape = ctx.layout(node), ctx.graph.shapes[node.inputs[0]]
    starts, stops, axes, steps = bounds(node, ctx)
    key: list[Any] = [slice(None)] * len(shape)
    x: Arg = ctx.arg(node)
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        size, place = shape[axis], layout.axis(axis)
        if step < 0:
            if not isinstance(size, int):
                raise node.unsupported("a reversed slice of a dynamic axis", reason="data-dependent-shape")
            picked = range(size)[slice(start, stop if stop >= -size else None, step)]
            start, stop, step = size - 1 - picked.start, size - 1 - picked.stop, -step
            x = ctx.op(node, "flip", x, axis=place, role="flip")
        part = _equal_part(start, stop, step, size)
        if part is None:
            key[place] = _slice(node, start, stop, step, size)
        else:
            x = ctx.op_several(node, "split", x, part[1], axis=place, outputs=part[1], role="parts")[part[0]]
    if all(k == slice(None) for k in key):
        return x  # type: ignore[no-any-return]
    return ctx.op(node, "get_item", x, tuple(key), role="slice")


def bounds(node: NodeView, ctx: PlanContext) -> tuple[list[Any], list[Any], list[int], list[int]]:
    """Starts, stops (may be symbolic), axes and steps of a Slice."""
    rank = ctx.rank(node.inputs[0])
    operands: list[list[Any]] = []
    for index in (1, 2):
        array = ctx.const(node, index)
        if array is None:
            raise node.unsupported("a bound is computed at run time", reason="data-dependent-shape")
        operands.append(integers(array))
    axes = [a % rank for a in ctx.ints(node, 3) or range(len(operands[0]))]
    return operands[0], operands[1], axes, ctx.ints(node, 4) or [1] * len(axes)


def _equal_part(start: Any, stop: Any, step: int, size: Any) -> tuple[int, int] | None:
    """Which of how many equal parts of a dynamic dimension a slice takes: both halves of two batches in one."""
    if step != 1 or isinstance(size, int) or all(isinstance(v, int) for v in (start, stop)):
        return None
    stop = size if isinstance(stop, int) and stop >= _FAR else stop
    if start == 0 and stop == size:
        return None
    count, number = ratio(size, stop - start), ratio(start, stop - start)
    return (number, count) if isinstance(count, int) and isinstance(number, int) else None


def _slice(node: NodeView, start: Any, stop: Any, step: int, size: Any) -> slice:
    """A slice in its plainest form; bounds that are the (symbolic) size itself are left open."""
    first = None if isinstance(start, int) and start == 0 else start
    last = (
        None
        if stop == size or (isinstance(stop, int) and stop >= min(_FAR, size if isinstance(size, int) else _FAR))
        else stop
    )
    if not all(v is None or isinstance(v, int) for v in (first, last)):
        difference = stop - size
        last = int(difference) if getattr(difference, "is_Integer", False) else last
    if not all(v is None or isinstance(v, int) for v in (first, last)):
        raise node.unsupported(f"the slice from {start} to {stop} of {size}", reason="data-dependent-shape")
    return slice(first, last, None if step == 1 else step)


@rule("Split", since=13, keras="keras.ops.split")
def split(node: NodeView, ctx: PlanContext) -> tuple[Ref, ...]:
    """Plan a cut into parts along one axis; a dynamic one into equal parts. Source: ONNX Split-18."""
    rank = ctx.rank(node.inputs[0])
    axis = node.attr("axis", 0) % rank
    sizes = [ctx.graph.shapes[o][axis] for o in node.outputs]
    equal = len(set(sizes)) == 1
    if not equal and not all(isinstance(s, int) for s in sizes):
        raise node.unsupported("a split of a dynamic axis into unequal parts", reason="data-dependent-shape")
    place = ctx.layout(node).axis(axis)
    if len(sizes) == 1:
        return (ctx.arg(node),)
    many = len(sizes) if equal else [int(c) for c in np.cumsum(sizes)[:-1]]
    return ctx.op_several(node, "split", ctx.arg(node), many, axis=place, outputs=len(sizes))


@rule("Gather", since=1, keras="Embedding for a table of parameters, keras.ops slicing, keras.ops.take")
def gather(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a selection along one axis.

    A table of parameters looked up at computed indices is an Embedding; a constant index is a slice; else `take`.
    Shapes: data (A…, S, B…), indices I → (A…, I…, B…). Source: ONNX Gather-13; Keras 3 Embedding.
    """
    rank = ctx.rank(node.inputs[0])
    axis = node.attr("axis", 0) % rank
    index = ctx.const(node, 1)
    if not ctx.is_runtime(node, 0) and rank == 2 and axis == 0 and (index is None or index.ndim):
        return _embedding(node, ctx, index)
    place = ctx.layout(node).axis(axis)
    x: Arg = ctx.arg(node, 0, like=0)
    if index is None:
        return ctx.op(node, "take", x, _wrapped(node, ctx), axis=place)
    size = ctx.shape(node.inputs[0])[axis]
    index = np.where(index < 0, index + (size or 0), index) if size is not None else index
    key = as_slice(index)
    if key is not None:
        keys: list[Any] = [slice(None)] * rank
        keys[place] = key
        return ctx.op(node, "get_item", x, tuple(keys), role="select")
    taken: Arg = index.astype(np.int32) if index.size <= LARGE else constant_index(ctx, node, index)
    return ctx.op(node, "take", x, taken, axis=place)


def _embedding(node: NodeView, ctx: PlanContext, index: np.ndarray | None) -> Ref:
    source = ctx.param(node, 0)
    if source is None and index is None and node.inputs[0] in ctx.graph.derived:
        shared = ctx.graph.derived[node.inputs[0]]
        source = shared if ctx.sharing.looked_up(shared) and not shared.steps else None
    if source is None and ctx.const(node, 0) is None:
        index = None if index is None else index.astype(np.int32)
        return ctx.op(node, "take", ctx.arg(node, 0, like=0), _wrapped(node, ctx) if index is None else index, axis=0)
    if source is None:
        array = ctx.const(node, 0)
        if array is None or array.dtype.kind != "f":
            return ctx.op(node, "take", ctx.arg(node, 0), ctx.arg(node, 1), axis=0)
        return table(
            ctx, node, node.inputs[0], array.astype(np.float32), _wrapped(node, ctx) if index is None else index
        )
    if index is not None:
        return table(ctx, node, source.tensor, source, np.where(index < 0, index + source.shape[0], index))
    if ctx.sharing.how(source) == "reversible":
        return ctx.layer(
            node, "ReversibleEmbedding", reversible(source), {"embeddings": source}, (_wrapped(node, ctx),)
        )
    own = source.tensor.rpartition(".")[0] == node.origin.module
    if own:
        config = {"input_dim": source.shape[0], "output_dim": source.shape[1]}
        config |= {} if source.trainable else {"trainable": False}
        return ctx.layer(node, "Embedding", config, {"embeddings": source}, (_wrapped(node, ctx),))
    return table(ctx, node, source.tensor, source, _wrapped(node, ctx))


def _wrapped(node: NodeView, ctx: PlanContext) -> Arg:
    """The computed indices. PyTorch's embeddings refuse negative ones; other gathers count them from the end."""
    return ctx.arg(node, 1, like=1)


def as_slice(index: np.ndarray) -> int | slice | None:
    """A scalar, or a slice where the indices are evenly spaced and ascending."""
    if index.ndim == 0:
        return int(index)
    if index.ndim != 1 or not index.size:
        return None
    first, step = int(index[0]), int(index[1] - index[0]) if index.size > 1 else 1
    if step < 1 or first < 0 or np.any(np.diff(index) != step):
        return None
    return slice(first, int(index[-1]) + 1, None if step == 1 else step)


@rule("GatherElements", since=11, keras="keras.ops.take_along_axis")
def gather_elements(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a selection of one element for each index. Source: ONNX GatherElements-13."""
    return ctx.op(node, "take_along_axis", own(node, ctx, 0), own(node, ctx, 1), axis=node.attr("axis", 0))


def own(node: NodeView, ctx: PlanContext, index: int) -> Arg:
    """Input `index` in PyTorch's own order and shape, never trimmed for broadcasting."""
    array = ctx.const(node, index)
    if array is None:
        return ctx.arg(node, index, like=index)
    return array.astype(np.float32) if array.dtype.kind == "f" else array


@rule("GatherND", since=11, keras="keras.ops.reshape, keras.ops.take")
def gather_nd(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a selection by index tuples as a `take` on the flattened leading axes. Source: ONNX GatherND-13."""
    data, last = ctx.shape(node.inputs[0]), ctx.shape(node.inputs[1])[-1]
    open_ended = last is None or None in data[1:last] or (data[0] is None and None in data[last:])
    if node.attr("batch_dims", 0) or last is None or open_ended:
        raise node.unsupported("batch_dims, or a dynamic axis that is indexed", reason="data-dependent-shape")
    sizes = [int(d or 0) for d in data[:last]]
    strides = np.array([int(np.prod(sizes[i + 1 :])) for i in range(last)])
    x = ctx.arg(node, 0, like=0)
    if last > 1:
        rows = -1 if data[0] is None else int(np.prod(sizes))
        x = ctx.op(node, "reshape", x, (rows, *(-1 if d is None else d for d in data[last:])), role="rows")
    index = ctx.const(node, 1)
    if index is not None:
        if data[0] is None and np.any(index[..., 0] < 0):
            raise node.unsupported("places from the end of a dynamic axis", reason="data-dependent-shape")
        flat = (np.where(index < 0, index + np.array(sizes), index) * strides).sum(axis=-1)
        return ctx.op(node, "take", x, flat.astype(np.int32), axis=0)
    places = ctx.arg(node, 1, like=1)
    ends: Arg = np.array(sizes, dtype=np.int32)
    if data[0] is None:
        line = ctx.op(node, "cast", zeros(ctx, node, ctx.graph.shapes[node.inputs[0]][0]), "int32", role="line")
        size = ctx.op(node, "sum", ctx.op(node, "add", line, 1, role="ones"), axis=0, keepdims=True, role="size")
        ends = ctx.op(node, "concatenate", [size, ends[1:]], axis=0, role="sizes") if last > 1 else size
        places = ctx.op(node, "cast", places, "int32", role="places")
    below = ctx.op(node, "less", places, 0, role="negative")
    wrapped = ctx.op(node, "where", below, ctx.op(node, "add", places, ends, role="from_end"), places, role="wrapped")
    scaled = ctx.op(node, "multiply", wrapped, strides.astype(np.int32), role="scaled")
    return ctx.op(node, "take", x, ctx.op(node, "sum", scaled, axis=-1, role="row"), axis=0)


@rule("OneHot", since=11, keras="keras.ops.equal, keras.ops.where")
def one_hot(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan `on` at each index along a new axis, `off` elsewhere; negative indices count from the end.

    Raises: UnsupportedError where the depth is computed. Source: ONNX OneHot-11.
    """
    given = ctx.const(node, 1)
    if given is None or given.dtype == object:
        raise node.unsupported("the depth is computed at run time", reason="data-dependent-shape")
    depth, rank = int(given.reshape(())), ctx.rank(node.outputs[0])
    axis = node.attr("axis", -1) % rank
    index = ctx.op(node, "expand_dims", ctx.arg(node, 0, like=0), axis, role="index")
    if ctx.dtype(node.inputs[0]) != "int32":
        index = ctx.op(node, "cast", index, "int32", role="index")
    below = ctx.op(node, "less", index, 0, role="below")
    index = ctx.op(node, "where", below, ctx.op(node, "add", index, depth, role="from_end"), index, role="wrapped")
    line = np.arange(depth, dtype=np.int32).reshape([depth if a == axis else 1 for a in range(rank)])
    hit = ctx.op(node, "equal", index, line, role="hit")
    values = ctx.const(node, 2)
    if values is not None:
        off, on = plain(values, ctx.dtype(node.inputs[2]))
    else:
        pair = ctx.arg(node, 2, like=2)
        off, on = (ctx.op(node, "get_item", pair, i, role=name) for i, name in ((0, "off"), (1, "on")))
    return ctx.op(node, "where", hit, on, off)


@rule("Range", since=11, keras="keras.ops.cumsum")
def range_(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan start, start + step … up to a dynamic size of an input. Raises: UnsupportedError for any other limit."""
    start, limit, step = (ctx.const(node, i) for i in range(3))
    if start is None or limit is None or step is None or start.item() != 0 or step.item() != 1:
        raise node.unsupported("bounds that are computed at run time", reason="data-dependent-shape")
    ones = ctx.op(
        node, "add", ctx.op(node, "cast", zeros(ctx, node, limit.item()), "int32", role="int"), 1, role="ones"
    )
    return ctx.op(node, "subtract", ctx.op(node, "cumsum", ones, axis=0, role="count"), 1, role="range")


_Widths = list[tuple[int, int]]


@rule("Pad", since=11, keras="ZeroPadding1D/2D/3D, keras.ops.pad, keras.ops.take where that can't")
def pad(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan padding in PyTorch's mode on each axis; negative padding crops.

    Raises: UnsupportedError for a fill that is computed, or edge and wrap on a dynamic axis. Source: ONNX Pad-21.
    """
    rank, layout = ctx.rank(node.inputs[0]), ctx.layout(node)
    flat = ctx.ints(node, 1) or list(node.attr("pads") or ())
    axes = [a % rank for a in ctx.ints(node, 3) or range(len(flat) // 2)]
    width = [(0, 0)] * rank
    for i, axis in enumerate(axes):
        width[layout.axis(axis)] = (flat[i], flat[i + len(axes)])
    given = list(width)
    x: Arg = ctx.arg(node)
    mode = node.attr("mode", "constant")
    if mode != "edge" and any(p < 0 for pair in width for p in pair):
        key = tuple(slice(max(-a, 0) or None, min(b, 0) or None) for a, b in width)
        x = ctx.op(node, "get_item", x, key, role="crop")
        width = [(max(a, 0), max(b, 0)) for a, b in width]
    if not any(p for pair in width for p in pair):
        return x  # type: ignore[no-any-return]
    if mode in ("edge", "wrap") or (mode == "reflect" and not _keras_reflects(node, ctx, width)):
        return _by_index(node, ctx, x, width, given, mode)
    if mode == "reflect":
        return ctx.op(node, "pad", x, tuple(width), mode="reflect")
    return _constant_pad(node, ctx, x, width)


def _keras_reflects(node: NodeView, ctx: PlanContext, width: _Widths) -> bool:
    """Whether keras.ops.pad reflects these on every backend: PyTorch, behind Keras' own, pads only so many last axes.

    True where an axis is dynamic, too: no other way takes that, and TensorFlow and JAX do.
    """
    rank, padded = len(width), [axis for axis, pair in enumerate(width) if any(pair)]
    shape = ctx.layout(node).keras_shape(ctx.shape(node.inputs[0]))
    counts = {4: (2, 3), 5: (3,)}.get(rank, (1, 2) if rank < 4 else ())
    return rank - padded[0] in counts or any(shape[axis] is None for axis in padded)


def _constant_pad(node: NodeView, ctx: PlanContext, x: Arg, width: list[tuple[int, int]]) -> Ref:
    fill = ctx.const(node, 2)
    if node.has(2) and fill is None:
        raise node.unsupported("the fill is computed at run time")
    number = 0.0 if fill is None else fill.reshape(()).item()
    inner, rank = width[1:-1], len(width)
    floating = ctx.dtype(node.outputs[0]).startswith(("float", "bfloat"))
    if number == 0 and rank in (3, 4, 5) and width[0] == width[-1] == (0, 0) and floating:
        setting = inner[0] if rank == 3 else tuple(inner)
        return ctx.layer(node, f"ZeroPadding{rank - 2}D", {"padding": setting}, args=(x,))
    return ctx.op(node, "pad", x, tuple(width), mode="constant", constant_values=number)


def _by_index(node: NodeView, ctx: PlanContext, x: Arg, width: _Widths, given: _Widths, mode: str) -> Ref:
    shape = ctx.layout(node).keras_shape(ctx.shape(node.inputs[0]))
    for axis, (before, after) in enumerate(width):
        if not before and not after:
            continue
        size = shape[axis]
        if size is None:
            raise node.unsupported(f"mode={mode} on a dynamic axis", reason="data-dependent-shape")
        if mode == "wrap":
            size += sum(min(p, 0) for p in given[axis])  # cropped before
        places = np.arange(-before, size + after)
        index = {
            "edge": np.clip(places, 0, size - 1),
            "wrap": np.mod(places, size),
            "reflect": size - 1 - np.abs(size - 1 - np.abs(places)),  # by less than size
        }[mode]
        x = ctx.op(node, "take", x, index.astype(np.int32), axis=axis, role=mode)
    return x  # type: ignore[no-any-return]


@rule("translator::Roll", keras="keras.ops.roll")
def roll(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a cyclic shift along some axes. Source: torch.roll."""
    axes = [ctx.layout(node).axis(a) for a in node.attr("axes")]
    shifts = list(node.attr("shifts"))
    if len(axes) == 1:
        return ctx.op(node, "roll", ctx.arg(node), shifts[0], axis=axes[0])
    return ctx.op(node, "roll", ctx.arg(node), tuple(shifts), axis=tuple(axes))
