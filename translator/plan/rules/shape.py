"""Ops that give a tensor another shape and keep its numbers."""

from __future__ import annotations

import numpy as np

from translator.graph.derive import Derived
from translator.graph.dims import SymDim
from translator.graph.view import NodeView
from translator.layout.kinds import new_axes, removed_axes
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.materialise import free_weight, held_exactly, repeated_weight, zeros
from translator.plan.registry import rule
from translator.types import Layout, Shape


@rule("Reshape", "Flatten", since=5, keras="Flatten, Reshape, keras.ops.reshape")
def reshape(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a reshape to the size the graph knows; at most one dimension is dynamic.

    Shapes: as ONNX computes them, in the Keras order. Raises: UnsupportedError (data-dependent-shape).
    Source: ONNX Reshape-14; Keras 3 Flatten, Reshape.
    """
    source, target = (_symbolic(node, ctx, out=out) for out in (False, True))
    x: Arg = ctx.arg(node)
    if source == target:
        return x  # type: ignore[no-any-return]
    batch_kept = isinstance(x, Ref) and source[:1] == target[:1] and not all(isinstance(d, int) for d in source[:1])
    dynamic = sum(not isinstance(d, int) for d in target)
    public = _public(target)
    if dynamic - batch_kept > 1:
        raise node.unsupported(f"a reshape to {public} with several dynamic sizes", reason="data-dependent-shape")
    if batch_kept and len(target) == 2:
        return ctx.layer(node, "Flatten", args=(x,))
    if batch_kept:
        inner = tuple(-1 if d is None else d for d in public[1:])
        return ctx.layer(node, "Reshape", {"target_shape": inner}, args=(x,))
    return ctx.op(node, "reshape", x, tuple(-1 if d is None else d for d in public))


def _symbolic(node: NodeView, ctx: PlanContext, *, out: bool) -> tuple[SymDim, ...]:
    """The symbolic Keras shape of the node's first input, or of its output."""
    name, layout = (node.outputs[0], ctx.out_layout(node)) if out else (node.inputs[0], ctx.layout(node))
    shape = ctx.graph.shapes[name]
    if layout.view is None:
        return tuple(shape[a] for a in layout.axes)
    return tuple(shape)


def _public(shape: tuple[SymDim, ...]) -> Shape:
    return tuple(d if isinstance(d, int) else None for d in shape)


@rule("Transpose", since=1, keras="nothing: the layout is renamed")
def transpose(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan nothing: a transpose renames axes, and what must move is moved where it is read."""
    x = ctx.arg(node)
    if ctx.is_runtime(node, 0):
        return x  # type: ignore[no-any-return]
    return ctx.op(node, "transpose", x, node.attr("perm"))


@rule("Squeeze", "Unsqueeze", since=1, keras="keras.ops.squeeze, keras.ops.expand_dims")
def squeeze(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the removal or insertion of axes of size 1. Source: ONNX Squeeze-13, Unsqueeze-13."""
    if node.op == "Unsqueeze":
        axes = tuple(sorted(ctx.out_layout(node).axis(a) for a in new_axes(node, ctx.graph)))
        return ctx.op(node, "expand_dims", ctx.arg(node), axes[0] if len(axes) == 1 else axes)
    gone = tuple(sorted(ctx.layout(node).axis(a) for a in removed_axes(node, ctx.graph)))
    if not gone:
        return ctx.arg(node)  # type: ignore[no-any-return]
    return ctx.op(node, "squeeze", ctx.arg(node), gone[0] if len(gone) == 1 else gone)


@rule("Expand", since=8, keras="keras.ops.tile; Embedding for a parameter repeated for each sample")
def expand(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a repetition along axes of size 1; a dynamic size comes from a value that has it.

    Shapes: x broadcast against the target, in PyTorch's order. Raises: UnsupportedError (data-dependent-shape) where
    no value has the size. Source: ONNX Expand-13.
    """
    value, out = node.inputs[0], node.outputs[0]
    target = ctx.graph.shapes[out]
    source = (1,) * (len(target) - ctx.rank(value)) + tuple(ctx.graph.shapes[value])
    layout = ctx.out_layout(node)
    grown = [i for i, (a, b) in enumerate(zip(source, target, strict=True)) if a != b]
    dynamic = [i for i in grown if not isinstance(target[i], int)]
    if dynamic == grown == [0] and layout.is_identity and not ctx.graph.is_runtime(value):
        return repeated_weight(ctx, node, value, _own(node, ctx, source), target[0])
    x = _of_rank(node, ctx, layout)
    if len(grown) > len(dynamic):
        repeats = [target[i] if i in grown and i not in dynamic else 1 for i in layout.axes]
        x = ctx.op(node, "tile", x, repeats, main=not dynamic)
    for axis in dynamic:
        x = _stretched(node, ctx, x, layout.axis(axis), len(target), target[axis])
    return x  # type: ignore[no-any-return]


def _own(node: NodeView, ctx: PlanContext, shape: tuple[SymDim, ...]) -> Derived | np.ndarray:
    """The parameter or constant at input 0, of full rank."""
    value = node.inputs[0]
    found = ctx.graph.derived.get(value)
    if found is not None:
        return found.reshape(shape)
    return held_exactly(ctx.graph.constants[value].reshape(shape), ctx.dtype(value))


def _of_rank(node: NodeView, ctx: PlanContext, layout: Layout) -> Arg:
    """Input 0 as a value of the graph, with leading axes of size 1 to the output's rank."""
    value, rank = node.inputs[0], len(layout.axes)
    if not ctx.graph.is_runtime(value):
        shape = (1,) * (rank - ctx.rank(value)) + tuple(ctx.graph.shapes[value])
        return free_weight(ctx, node, value, _own(node, ctx, shape))
    x = ctx.arg(node)
    missing = rank - ctx.rank(value)
    return ctx.op(node, "expand_dims", x, tuple(range(missing)), role="rank") if missing else x


def _stretched(node: NodeView, ctx: PlanContext, x: Arg, axis: int, rank: int, dim: SymDim) -> Ref:
    """x minus zeros of shape (…, dim, …): the portable way to repeat along an axis of unknown size."""
    dtype = ctx.dtype(node.outputs[0])
    line = zeros(ctx, node, dim)
    shape = tuple(-1 if i == axis else 1 for i in range(rank))
    line = ctx.op(node, "reshape", line, shape, role="line") if rank > 1 else line
    if dtype == "bool":
        line = ctx.op(node, "cast", line, "bool", role="line")
        return ctx.op(node, "logical_or", x, line)
    if not dtype.startswith(("float", "bfloat")):
        line = ctx.op(node, "cast", line, dtype, role="line")
    return ctx.op(node, "subtract", x, line)  # TensorFlow's add may take the line for a bias


@rule("Tile", since=6, keras="keras.ops.tile")
def tile(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a repetition of the whole tensor along each axis. Source: ONNX Tile-13."""
    repeats = ctx.ints(node, 1) or []
    return ctx.op(node, "tile", ctx.arg(node), [repeats[a] for a in ctx.out_layout(node).axes])


@rule("Concat", since=4, keras="Concatenate")
def concat(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a Concatenate along the axis where the layout put it.

    Source: ONNX Concat-13; Keras 3 Concatenate.
    """
    layout = ctx.out_layout(node)
    axis = layout.axis(node.attr("axis"))
    args = [ctx.arg(node, i) if ctx.is_runtime(node, i) else _joined(node, ctx, i) for i in range(len(node.inputs))]
    last = axis == ctx.rank(node.outputs[0]) - 1
    if ctx.dtype(node.outputs[0]).startswith(("float", "bfloat")):
        return ctx.layer(node, "Concatenate", {"axis": -1 if last else axis}, args=(args,), main=False)
    return ctx.op(node, "concatenate", args, axis=axis, main=False)


def _joined(node: NodeView, ctx: PlanContext, index: int) -> Ref:
    """A parameter or constant among the parts, repeated along dynamic axes that the whole has."""
    value, layout = node.inputs[index], ctx.out_layout(node)
    derived = ctx.graph.derived.get(value)
    source = derived if derived is not None else held_exactly(ctx.graph.constants[value], ctx.dtype(value))
    if derived is not None:
        return free_weight(ctx, node, value, derived.permute(layout.axes))
    return free_weight(ctx, node, value, np.transpose(source, layout.axes))  # type: ignore[arg-type]


@rule("DepthToSpace", "SpaceToDepth", since=1, keras="keras.ops.reshape, keras.ops.transpose")
def depth_to_space(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a pixel shuffle or unshuffle, channels last.

    Shapes: (N, H, W, C·r·r) ↔ (N, H·r, W·r, C); mode CRD orders channels as (C, r, r), DCR as (r, r, C).
    Source: ONNX DepthToSpace-13; torch.nn.PixelShuffle.
    """
    r = node.attr("blocksize")
    _, c, h, w = ctx.shape(node.inputs[0])
    if h is None or w is None or c is None:
        raise node.unsupported("a pixel shuffle of dynamic size", reason="data-dependent-shape")
    x = ctx.arg(node)
    if node.op == "DepthToSpace":
        crd = node.attr("mode", "DCR") == "CRD"
        split = (-1, h, w, c // (r * r), r, r) if crd else (-1, h, w, r, r, c // (r * r))
        order = (0, 1, 4, 2, 5, 3) if crd else (0, 1, 3, 2, 4, 5)
        merged = (-1, h * r, w * r, c // (r * r))
    else:
        order = (0, 1, 3, 5, 2, 4) if node.attr("mode", "DCR") == "CRD" else (0, 1, 3, 2, 4, 5)
        split, merged = (-1, h // r, r, w // r, r, c), (-1, h // r, w // r, c * r * r)
    x = ctx.op(node, "reshape", x, split, role="blocks")
    x = ctx.op(node, "transpose", x, order, role="shuffle")
    return ctx.op(node, "reshape", x, merged)


@rule("translator::ChannelShuffle", keras="keras.ops.split, keras.ops.stack, keras.ops.reshape")
def channel_shuffle(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan channels (g, c) read as (c, g): split into g parts, stacked, flattened. Nothing is transposed."""
    layout = ctx.layout(node)
    axis, groups = layout.axis(1), node.attr("groups")
    parts = ctx.op_several(node, "split", ctx.arg(node), groups, axis=axis, outputs=groups, role="groups")
    mixed = ctx.op(node, "stack", list(parts), axis=axis + 1, role="mixed")
    shape = layout.keras_shape(ctx.shape(node.outputs[0]))
    if shape[0] is None:
        return ctx.layer(
            node,
            "Reshape",
            {"target_shape": [-1 if d is None else d for d in shape[1:]]},
            args=(mixed,),
            role="shuffle",
        )
    return ctx.op(node, "reshape", mixed, tuple(-1 if d is None else d for d in shape), role="shuffle")


@rule("Trilu", since=14, keras="keras.ops.tril, keras.ops.triu")
def trilu(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the lower or upper triangle of the last two axes. Source: ONNX Trilu-14."""
    (offset,) = ctx.ints(node, 1) or [0]
    rows, columns = ctx.shape(node.inputs[0])[-2:]
    if rows is not None and columns is not None:  # backends refuse a diagonal that lies outside
        offset = max(-rows, min(columns, offset))
    return ctx.op(node, "triu" if node.attr("upper", 1) else "tril", ctx.arg(node), offset)
