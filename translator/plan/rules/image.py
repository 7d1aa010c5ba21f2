"""Resizing images."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from translator.graph.dims import ratio
from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.materialise import held
from translator.plan.registry import rule
from translator.plan.resample import coordinate, nearest, weights
from translator.plan.stretch import stretchable, stretched

_EXACT = 1 << 24


@rule("Resize", since=11, keras="UpSampling1D/2D/3D, keras.ops.image.resize, keras.ops.take, keras.ops.einsum")
def resize(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a resize, each axis by what gives PyTorch's numbers exactly.

    Whole factors of nearest are an UpSampling layer; bilinear at half-pixel centres is image.resize; other nearest are
    a `take`; other linear and cubic ones a product with the matrix of weights, whose entries are whole numbers over a
    common denominator so that float32 holds them exactly; a dynamic size's is computed. Shapes: x (N, C, *S).
    Raises: UnsupportedError for a crop region, or a dynamic size neither linear nor a whole factor of nearest.
    Source: ONNX Resize-19; torch.nn.functional.interpolate.
    """
    mode, rank = node.attr("mode", "nearest"), ctx.rank(node.inputs[0])
    if node.attr("coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize":
        raise node.unsupported("coordinate_transformation_mode=tf_crop_and_resize")
    if node.attr("coordinate_transformation_mode") == "onnx_align_corners" and not _whole(node, ctx):
        raise node.unsupported("align_corners with a scale that gives no whole size: ONNX Runtime and ONNX disagree")
    if node.has(2) and ctx.const(node, 2) is None:
        raise node.unsupported("the scales are computed at run time", reason="data-dependent-shape")
    factors = _factors(node, ctx)
    simple = _simple(node)
    if simple == "nearest" and factors is not None and factors[:2] == [1, 1] and rank in (3, 4, 5):
        size = factors[2] if rank == 3 else tuple(factors[2:])
        options = {"interpolation": "nearest"} if rank == 4 else {}
        return ctx.layer(node, f"UpSampling{rank - 2}D", {"size": size, **options})
    sizes, outs = ctx.graph.shapes[node.inputs[0]], ctx.graph.shapes[node.outputs[0]]
    changed = [a for a in range(rank) if sizes[a] != outs[a] or _scale(node, ctx, a) != 1]
    dynamic = [a for a in changed if not (isinstance(sizes[a], int) and isinstance(outs[a], int))]
    if dynamic and not stretchable(node):
        raise node.unsupported(f"mode={mode} with a dynamic size", reason="data-dependent-shape")
    if (
        simple == "linear"
        and set(changed) <= {2, 3}
        and rank == 4
        and not dynamic
        and all(_scale(node, ctx, a) == Fraction(outs[a], sizes[a]) for a in changed)
    ):
        return ctx.op(
            node, "image.resize", ctx.arg(node), tuple(ctx.shape(node.outputs[0])[2:]), interpolation="bilinear"
        )
    x: Arg = ctx.arg(node)
    for axis in changed:
        if axis in dynamic:
            x = stretched(node, ctx, x, axis, _scale(node, ctx, axis) if _scaled(node, ctx) else None)
        else:
            x = _resampled(node, ctx, x, axis, sizes[axis], outs[axis])
    return x  # type: ignore[no-any-return]


def _scaled(node: NodeView, ctx: PlanContext) -> bool:
    """Whether factors are given, not sizes."""
    scales = ctx.const(node, 2)
    return scales is not None and scales.size > 0


def _whole(node: NodeView, ctx: PlanContext) -> bool:
    """Whether every axis times its scale is a whole number."""
    scales = ctx.const(node, 2)
    sizes = ctx.shape(node.inputs[0])
    if scales is None or not scales.size:
        return not (node.has(2) and scales is None)
    return all(d is not None and (d * _scale(node, ctx, a)).denominator == 1 for a, d in enumerate(sizes))


def _simple(node: NodeView) -> str:
    """What the settings mean where Keras has a function for them: nearest, linear, or nothing."""
    mode, centres = node.attr("mode", "nearest"), node.attr("coordinate_transformation_mode", "half_pixel")
    rounding = node.attr("nearest_mode", "round_prefer_floor")
    if mode == "nearest":
        known = (centres, rounding) in (
            ("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil"),
        )  # fmt: skip
        return "nearest" if known else ""
    plain = mode == "linear" and centres in ("half_pixel", "pytorch_half_pixel") and not node.attr("antialias", 0)
    return "linear" if plain and not node.attr("exclude_outside", 0) else ""


def _scale(node: NodeView, ctx: PlanContext, axis: int) -> Fraction:
    """Output over input size along an axis: the factor given, or the sizes' quotient; 0 if only a run knows it."""
    axes = list(node.attr("axes") or range(ctx.rank(node.inputs[0])))
    scales = ctx.const(node, 2)
    if scales is not None and scales.size:
        return Fraction(float(scales[axes.index(axis)])).limit_denominator(1 << 20) if axis in axes else Fraction(1)
    size, out = (ctx.graph.shapes[v][axis] for v in (node.inputs[0], node.outputs[0]))
    if isinstance(size, int) and isinstance(out, int):
        return Fraction(out, size)
    factor = ratio(out, size)
    return Fraction(factor) if isinstance(factor, int) else Fraction(0)


def _factors(node: NodeView, ctx: PlanContext) -> list[int] | None:
    """Whole factors for each axis in PyTorch's order, or None."""
    scales = [_scale(node, ctx, a) for a in range(ctx.rank(node.inputs[0]))]
    return [int(s) for s in scales] if all(s.denominator == 1 and s >= 1 for s in scales) else None


def _resampled(node: NodeView, ctx: PlanContext, x: Arg, axis: int, size: int, out: int) -> Arg:
    """One axis resized: a take for nearest, else a product with the matrix of weights."""
    place, rank = ctx.layout(node).axis(axis), ctx.rank(node.inputs[0])
    scale = _scale(node, ctx, axis)
    centres = [
        coordinate(i, scale, size, out, node.attr("coordinate_transformation_mode", "half_pixel")) for i in range(out)
    ]
    if node.attr("mode", "nearest") == "nearest":
        index = nearest(centres, size, out, node.attr("nearest_mode", "round_prefer_floor"))
        return ctx.op(node, "take", x, np.array(index, dtype=np.int32), axis=place, role=f"axis{axis}")
    rows = weights(
        centres, size, scale, cubic=node.attr("mode") == "cubic", a=Fraction(str(node.attr("cubic_coeff_a", -0.75))),
        antialias=bool(node.attr("antialias", 0)), exclude_outside=bool(node.attr("exclude_outside", 0)),
    )  # fmt: skip
    bottoms = [np.lcm.reduce([w.denominator for w in row]) for row in rows]
    tops = np.array([[int(w * b) for w in row] for row, b in zip(rows, bottoms, strict=True)])
    letters = "abcdefg"[:rank]
    equation = f"{letters},z{letters[place]}->{letters.replace(letters[place], 'z')}"
    if np.abs(tops).max() < _EXACT and max(bottoms) < _EXACT:
        y = ctx.op(
            node, "einsum", equation, x, held(ctx, node, f"resize{axis}", tops.astype(np.float32)), role=f"axis{axis}"
        )
        shape = tuple(-1 if i == place else 1 for i in range(rank))
        under = np.array(bottoms, dtype=np.float32).reshape(shape)
        return ctx.op(
            node, "divide", y, float(bottoms[0]) if len(set(bottoms)) == 1 else under, role=f"axis{axis}_divided"
        )
    matrix = np.array([[float(w) for w in row] for row in rows])
    return ctx.op(
        node, "einsum", equation, x, held(ctx, node, f"resize{axis}", matrix.astype(np.float32)), role=f"axis{axis}"
    )


@rule("Col2Im", since=18, keras="keras.ops.fold")
def col2im(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the sum of overlapping blocks back into an image (N, C, H, W). Source: ONNX Col2Im-18; torch.nn.Fold."""
    size, block = ctx.ints(node, 1) or [], ctx.ints(node, 2) or []
    pads = list(node.attr("pads") or (0,) * (2 * len(size)))
    if len(size) != 2 or pads[:2] != pads[2:]:
        raise node.unsupported("other than two axes, or uneven padding", reason="rank")
    if ctx.rank(node.inputs[0]) != 3:
        raise node.unsupported("blocks without a batch", reason="rank", fix="give them a leading axis of 1")
    return ctx.op(
        node, "fold", ctx.arg(node), tuple(size), tuple(block), dilation=tuple(node.attr("dilations") or (1, 1)),
        padding=tuple(pads[:2]), stride=tuple(node.attr("strides") or (1, 1)),
    )  # fmt: skip
