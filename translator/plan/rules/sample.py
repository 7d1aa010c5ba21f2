"""Images read at computed places: grid_sample."""

from __future__ import annotations

import itertools
import math

from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule
from translator.types import Layout

Tap = tuple[Arg, Arg]
"""One of the positions read along an axis: its index as int32, and its weight. Shapes: (N, places)."""


@rule("GridSample", since=16, keras="keras.ops.take_along_axis")
def grid_sample(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan an image read at the places of a grid, linear between neighbours or the nearest alone.

    Shapes: x (N, C, *S), grid (N, *T, rank) in [-1, 1] with the last axis of x first → (N, C, *T), channels last here.
    Raises: UnsupportedError for cubic, and for sizes that only a run knows.
    Source: ONNX GridSample-22; torch.nn.functional.grid_sample.
    """
    mode = node.attr("mode", "linear")
    if mode.endswith("cubic"):
        raise node.unsupported(f"mode={mode}")
    channels, *sizes = ctx.shape(node.inputs[0])[1:]
    places = ctx.shape(node.outputs[0])[2:]
    known = [size for size in sizes if size is not None]
    if channels is None or len(known) != len(sizes) or None in places:
        raise node.unsupported("an image or a grid of dynamic size", reason="data-dependent-shape")
    count = math.prod(place for place in places if place is not None)
    image = ctx.op(node, "reshape", ctx.arg(node), (-1, math.prod(known), channels), role="image")
    grid = ctx.arg(node, 1, like=Layout.identity(ctx.rank(node.inputs[1])))
    grid = ctx.op(node, "reshape", grid, (-1, count, len(known)), role="grid")
    axes = [_taps(node, ctx, grid, axis, size) for axis, size in enumerate(known)]
    parts = [_part(node, ctx, image, corner, known) for corner in itertools.product(*axes)]
    total = parts[0]
    for part in parts[1:]:
        total = ctx.op(node, "add", total, part, role="sum")
    return ctx.op(node, "reshape", total, (-1, *places, channels))


def _part(node: NodeView, ctx: PlanContext, image: Arg, corner: tuple[Tap, ...], sizes: list[int]) -> Ref:
    """What one corner adds: the image there, times the product of the axes' weights. Shapes: (N, places, C)."""
    index, weight = corner[0]
    for size, (other, factor) in zip(sizes[1:], corner[1:], strict=True):
        index = ctx.op(node, "add", ctx.op(node, "multiply", index, size, role="row"), other, role="index")
        weight = ctx.op(node, "multiply", weight, factor, role="weight")
    there = ctx.op(node, "take_along_axis", image, ctx.op(node, "expand_dims", index, -1, role="index"), axis=1)
    return ctx.op(node, "multiply", there, ctx.op(node, "expand_dims", weight, -1, role="weight"), role="part")


def _taps(node: NodeView, ctx: PlanContext, grid: Arg, axis: int, size: int) -> list[Tap]:
    """The positions along one axis of the image: two neighbours, or the nearest."""
    place = _place(node, ctx, grid, axis, size)
    if node.attr("mode", "linear") == "nearest":
        return [_tap(node, ctx, ctx.op(node, "round", place, role="nearest"), None, size)]
    low = ctx.op(node, "floor", place, role="floor")
    rest = ctx.op(node, "subtract", place, low, role="rest")
    high = ctx.op(node, "add", low, 1.0, role="next")
    return [
        _tap(node, ctx, low, ctx.op(node, "subtract", 1.0, rest, role="weight"), size),
        _tap(node, ctx, high, rest, size),
    ]


def _tap(node: NodeView, ctx: PlanContext, position: Ref, weight: Arg | None, size: int) -> Tap:
    """The position as an index that exists; where zeros lie around the image, its weight is 0 outside."""
    index = ctx.op(node, "cast", ctx.op(node, "clip", position, 0.0, float(size - 1), role="inside"), "int32")
    if node.attr("padding_mode", "zeros") != "zeros":
        return index, ctx.op(node, "ones_like", position, role="weight") if weight is None else weight
    distance = ctx.op(node, "absolute", ctx.op(node, "subtract", position, (size - 1) / 2, role="centred"), role="far")
    inside = ctx.op(node, "less_equal", distance, (size - 1) / 2, role="inside")
    number = ctx.op(node, "cast", inside, "float32", role="inside")
    return index, number if weight is None else ctx.op(node, "multiply", weight, number, role="weight")


def _place(node: NodeView, ctx: PlanContext, grid: Arg, axis: int, size: int) -> Ref:
    """Where the grid points to along an axis, in pixels: from -1 and 1 at the outer centres, or at the outer edges."""
    rank = ctx.rank(node.inputs[0]) - 2
    corners = bool(node.attr("align_corners", 0))
    given = ctx.op(node, "get_item", grid, (slice(None), slice(None), rank - 1 - axis), role="coordinate")
    scale = (size - 1) / 2 if corners else size / 2
    place = ctx.op(node, "add", ctx.op(node, "multiply", given, scale, role="scaled"), (size - 1) / 2, role="place")
    mode = node.attr("padding_mode", "zeros")
    if mode == "reflection":
        place = _reflected(node, ctx, place, 0.0 if corners else -0.5, float(size - 1) if corners else float(size))
    if mode in ("reflection", "border"):
        place = ctx.op(node, "clip", place, 0.0, float(size - 1), role="place")
    return place


def _reflected(node: NodeView, ctx: PlanContext, place: Ref, low: float, span: float) -> Ref:
    """Places outside [low, low + span] thrown back, as often as it takes."""
    if not span:
        return ctx.op(node, "zeros_like", place, role="place")
    moved = ctx.op(node, "mod", ctx.op(node, "subtract", place, low, role="moved"), 2 * span, role="moved")
    back = ctx.op(node, "absolute", ctx.op(node, "subtract", moved, span, role="moved"), role="back")
    return ctx.op(node, "subtract", low + span, back, role="reflected")
