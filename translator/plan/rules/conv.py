"""Convolutions."""

from __future__ import annotations

from typing import Any

from translator.graph.derive import Derived
from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.padding import spatial_pads, zero_padding
from translator.plan.registry import rule


@rule("Conv", since=1, keras="Conv1D/2D/3D, DepthwiseConv1D/2D, with ZeroPadding where `same` isn't the same")
def conv(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one convolution of rank 1 to 3.

    Shapes: x (N, C, *S); weight (O, C/groups, *k) → kernel (*k, C/groups, O), depthwise (*k, C, O/C); bias (O,).
    Raises: UnsupportedError for more than three spatial axes, or stride and dilation together.
    Source: ONNX Conv-11; Keras 3 Conv2D, DepthwiseConv2D.
    """
    weight = ctx.param(node, 1)
    if weight is None:
        raise node.unsupported("the kernel is computed at run time", fix="use a plain parameter as the kernel")
    spatial = len(weight.shape) - 2
    if spatial not in (1, 2, 3):
        raise node.unsupported(f"a convolution over {spatial} axes", reason="rank")
    strides = tuple(node.attr("strides") or (1,) * spatial)
    dilation = tuple(node.attr("dilations") or (1,) * spatial)
    groups = node.attr("group", 1)
    if max(strides) > 1 and max(dilation) > 1:
        raise node.unsupported("stride and dilation both above 1: Keras has no such convolution")
    padding, x = _pad(node, ctx, weight.shape[2:], strides, dilation)
    config: dict[str, Any] = {"kernel_size": weight.shape[2:], "strides": strides, "padding": padding}
    if max(dilation) > 1:
        config["dilation_rate"] = dilation
    return _layer(node, ctx, weight, groups, config, x)


def _layer(node: NodeView, ctx: PlanContext, weight: Derived, groups: int, config: dict[str, Any], x: Arg) -> Ref:
    out, per_group, *kernel = weight.shape
    spatial = len(kernel)
    bias = ctx.param(node, 2)
    weights: dict[str, Derived] = {}
    square = len(set(config["strides"])) == 1
    if groups > 1 and per_group == 1 and spatial < 3 and square:
        config |= {"depth_multiplier": out // groups}
        shaped = weight.reshape((groups, out // groups, *kernel))
        weights["kernel"] = shaped.permute((*range(2, 2 + spatial), 0, 1))
        cls = f"DepthwiseConv{spatial}D"
    else:
        config |= {"filters": out} | ({"groups": groups} if groups > 1 else {})
        weights["kernel"] = weight.permute((*range(2, 2 + spatial), 1, 0))
        cls = f"Conv{spatial}D"
    config["use_bias"] = bias is not None
    if bias is not None:
        weights["bias"] = bias
    return ctx.layer(node, cls, config, weights, (x,))


def _pad(
    node: NodeView, ctx: PlanContext, kernel: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[str, Arg]:
    """`same` where it gives the same numbers at every size (stride 1), else a ZeroPadding layer and `valid`."""
    pads = spatial_pads(node, ctx, kernel, strides, dilation)
    if all(p == (0, 0) for p in pads):
        return "valid", ctx.arg(node)
    extents = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if max(strides) == 1 and all(p == (e // 2, e - e // 2) for p, e in zip(pads, extents, strict=True)):
        return "same", ctx.arg(node)
    return "valid", zero_padding(node, ctx, ctx.arg(node), pads)
