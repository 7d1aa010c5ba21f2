"""Spatial padding, as ONNX writes it and as Keras layers do it."""

from __future__ import annotations

from collections.abc import Sequence

from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext

Pads = list[tuple[int, int]]
"""(before, after) for each spatial axis."""


def spatial_pads(
    node: NodeView, ctx: PlanContext, kernel: Sequence[int], strides: Sequence[int], dilation: Sequence[int]
) -> Pads:
    """The padding of a convolution or pooling, `auto_pad` resolved. Raises UnsupportedError for a dynamic SAME."""
    auto = node.attr("auto_pad", "NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    if auto in ("NOTSET", ""):
        flat = list(node.attr("pads") or [0] * (2 * len(kernel)))
        half = len(flat) // 2
        return list(zip(flat[:half], flat[half:], strict=True))
    if auto == "VALID":
        return [(0, 0)] * len(kernel)
    pads: Pads = []
    for size, k, s, d in zip(ctx.shape(node.inputs[0])[2:], kernel, strides, dilation, strict=True):
        if size is None and s > 1:
            raise node.unsupported(f"auto_pad={auto} with a dynamic size", fix="export with explicit padding")
        total = max((-(-(size or 1) // s) - 1) * s + d * (k - 1) + 1 - (size or 1), 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return pads


def zero_padding(node: NodeView, ctx: PlanContext, x: Arg, pads: Pads) -> Ref:
    """A ZeroPadding layer, symmetric where it can be written so; negative padding crops."""
    rank = len(pads)
    if any(p < 0 for pair in pads for p in pair):
        crop = [(max(-a, 0), max(-b, 0)) for a, b in pads]
        x = ctx.layer(node, f"Cropping{rank}D", {"cropping": _setting(crop)}, args=(x,), role="crop")
        pads = [(max(a, 0), max(b, 0)) for a, b in pads]
        if not any(p for pair in pads for p in pair):
            return x  # type: ignore[no-any-return]
    return ctx.layer(node, f"ZeroPadding{rank}D", {"padding": _setting(pads)}, args=(x,), role="pad")


def _setting(pads: Pads) -> object:
    if len(pads) == 1:
        return pads[0]
    if all(a == b for a, b in pads):
        return pads[0][0] if len(set(pads)) == 1 else tuple(a for a, _ in pads)
    return tuple(pads)
