"""Resizing an axis whose size is known only when the model runs: the matrix of weights is computed there."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from translator.graph.dims import SymDim, ratio
from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.materialise import zeros

_CENTRES = ("half_pixel", "align_corners")


def stretchable(node: NodeView) -> bool:
    """Whether the settings are those of a linear resize as PyTorch's interpolate does it."""
    plain = not node.attr("antialias", 0) and not node.attr("exclude_outside", 0)
    centres = node.attr("coordinate_transformation_mode", "half_pixel")
    return node.attr("mode", "nearest") == "linear" and plain and centres in _CENTRES


def stretched(node: NodeView, ctx: PlanContext, x: Arg, axis: int, scale: Fraction | None) -> Ref:
    """One axis resized linearly: output place i takes from input place j the weight max(0, 1 - |centre(i) - j|).

    scale: the factor asked for, None where the sizes give it. Source: torch.nn.functional.interpolate, whose centre is
    (i + 1/2) · size/out - 1/2, or i · (size - 1)/(out - 1) with the corners aligned, kept inside the input.
    """
    role, rank = f"axis{axis}", ctx.rank(node.inputs[0])
    size, out = (ctx.graph.shapes[v][axis] for v in (node.inputs[0], node.outputs[0]))
    old, sizes = _places(node, ctx, size, size, f"{role}_old")
    new, outs = _places(node, ctx, out, size, f"{role}_new")
    last = _less_one(node, ctx, sizes, f"{role}_last")
    if node.attr("coordinate_transformation_mode", "half_pixel") == "align_corners":
        spaces = _less_one(node, ctx, outs, f"{role}_spaces")
        spaces = ctx.op(node, "maximum", spaces, 1.0) if isinstance(spaces, Ref) else max(spaces, 1.0)
        step: Ref | float = ctx.op(node, "divide", last, spaces, role=f"{role}_step")
        centres = ctx.op(node, "multiply", new, step, role=f"{role}_centres")
    else:
        step = float(1 / scale) if scale is not None else ctx.op(node, "divide", sizes, outs, role=f"{role}_step")
        middles = ctx.op(node, "add", new, 0.5, role=f"{role}_middles")
        centres = ctx.op(node, "multiply", middles, step, role=f"{role}_scaled")
        centres = ctx.op(node, "subtract", centres, 0.5, role=f"{role}_centres")
    inside = ctx.op(node, "minimum", ctx.op(node, "maximum", centres, 0.0, role=f"{role}_above"), last)
    column = ctx.op(node, "expand_dims", inside, -1, role=f"{role}_column")
    distance = ctx.op(node, "absolute", ctx.op(node, "subtract", column, old, role=f"{role}_apart"))
    weights = ctx.op(node, "maximum", ctx.op(node, "subtract", 1.0, distance, role=f"{role}_near"), 0.0)
    letters, place = "abcdefg"[:rank], ctx.layout(node).axis(axis)
    equation = f"{letters},z{letters[place]}->{letters.replace(letters[place], 'z')}"
    return ctx.op(node, "einsum", equation, x, weights, role=role)


def _less_one(node: NodeView, ctx: PlanContext, size: Ref | float, role: str) -> Ref | float:
    return ctx.op(node, "subtract", size, 1.0, role=role) if isinstance(size, Ref) else size - 1


def _places(node: NodeView, ctx: PlanContext, dim: SymDim, size: SymDim, role: str) -> tuple[Arg, Ref | float]:
    """0, 1, 2 … below a size, as floats, and the size itself; a whole multiple of the input's comes from that."""
    if isinstance(dim, int):
        return np.arange(dim, dtype=np.float32), float(dim)
    factor = ratio(dim, size)
    line = zeros(ctx, node, size if isinstance(factor, int) else dim)
    if isinstance(factor, int) and factor > 1:
        line = ctx.op(node, "tile", line, factor, role=f"{role}_line")
    ones = ctx.op(node, "add", line, 1.0, role=f"{role}_ones")
    counted = ctx.op(node, "cumsum", ones, role=f"{role}_count")
    total = ctx.op(node, "sum", ones, axis=0, keepdims=True, role=f"{role}_size")
    return ctx.op(node, "subtract", counted, 1.0, role=f"{role}_places"), total
