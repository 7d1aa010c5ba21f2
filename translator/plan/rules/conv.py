"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from translator.graph.derive import Derived
from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.materialise import in_graph
from translator.plan.padding import Pads, spatial_pads, zero_padding
from translator.plan.registry import rule
from translator.types import Layout


@rule("Conv", since=1, keras="Conv1D/2D/3D, DepthwiseConv1D/2D, with ZeroPadding where `same` isn't the same")
def conv(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one convolution of rank 1 to 3.

    Shapes: x (N, C, *S); weight (O, C/groups, *k) → kernel (*k, C/groups, O), depthwise (*k, C, O/C); bias (O,).
    Stride and dilation together, which Keras lacks, are a dilated convolution of which every stride-th place is kept;
    so is a stride that TensorFlow misreads.
    Raises: UnsupportedError for more than three spatial axes, or channels that are as many as the batch has rows.
    Source: ONNX Conv-11; Keras 3 Conv2D, DepthwiseConv2D.
    """
    weight = ctx.param(node, 1)
    spatial = ctx.rank(node.inputs[1]) - 2
    if spatial not in (1, 2, 3):
        raise node.unsupported(f"a convolution over {spatial} axes", reason="rank")
    ctx.channels(node)
    kernel = tuple(int(d or 0) for d in ctx.shape(node.inputs[1])[2:])
    strides = tuple(node.attr("strides") or (1,) * spatial)
    dilation = tuple(node.attr("dilations") or (1,) * spatial)
    thinned = max(strides) > 1 and (max(dilation) > 1 or _is_misread(node, ctx, strides))
    padding, x = _pad(node, ctx, kernel, strides, dilation)
    config: dict[str, Any] = {"strides": (1,) * spatial if thinned else strides, "padding": padding}
    if max(dilation) > 1:
        config["dilation_rate"] = dilation
    if weight is None:
        y = _computed_kernel(node, ctx, config, x)
    else:
        y = _layer(node, ctx, weight, node.attr("group", 1), {"kernel_size": kernel, **config}, x)
    if not thinned:
        return y
    key = (slice(None), *(slice(None, None, s) for s in strides), slice(None))
    return ctx.op(node, "get_item", y, key, role="thinned")


def _is_misread(node: NodeView, ctx: PlanContext, strides: tuple[int, ...]) -> bool:
    """Whether TensorFlow's kernel (oneDNN's, on a CPU with AVX-512) reads memory that isn't its own.

    It does in float32 for one channel, a stride along the width alone, and one place there.
    """
    one_channel = ctx.shape(node.inputs[1])[1] == 1 and node.attr("group", 1) == 1
    return len(strides) == 2 and one_channel and strides[0] == 1 and ctx.shape(node.outputs[0])[-1] == 1


def _computed_kernel(node: NodeView, ctx: PlanContext, config: dict[str, Any], x: Arg) -> Ref:
    """keras.ops.conv with a kernel that is computed from parameters (weight standardisation, weight norm)."""
    kernel = in_graph(ctx, node, ctx.operand(node, 1, Layout.kernel(ctx.rank(node.inputs[1]))))
    return _biased(node, ctx, _by_groups(node, ctx, x, kernel, -1, config))


def _by_groups(node: NodeView, ctx: PlanContext, x: Arg, kernel: Arg, axis: int, config: dict[str, Any]) -> Ref:
    """keras.ops.conv, which knows no groups, for each of them. axis: of the kernel, that which the groups divide."""
    groups = node.attr("group", 1)
    config = {"data_format": "channels_last", **config}
    if groups == 1:
        return ctx.op(node, "conv", x, kernel, **config)
    xs = ctx.op_several(node, "split", x, groups, axis=-1, outputs=groups, role="groups")
    kernels = ctx.op_several(node, "split", kernel, groups, axis=axis, outputs=groups, role="kernels")
    parts = [ctx.op(node, "conv", *pair, role="group", **config) for pair in zip(xs, kernels, strict=True)]
    return ctx.op(node, "concatenate", parts, axis=-1)


def _biased(node: NodeView, ctx: PlanContext, y: Ref) -> Ref:
    """The bias added by an operation of its own, if there is one."""
    if not _has_bias(node, ctx):
        return y
    return ctx.op(node, "add", y, ctx.arg(node, 2, like=Layout.identity(1)), role="biased")


def _has_bias(node: NodeView, ctx: PlanContext) -> bool:
    """Whether something is added; for want of one the exporter writes zeros, of shape (O, 2) for three axes."""
    constant = ctx.const(node, 2)
    return node.has(2) and (constant is None or bool(np.any(constant)))


def _layer(node: NodeView, ctx: PlanContext, weight: Derived, groups: int, config: dict[str, Any], x: Arg) -> Ref:
    out, per_group, *kernel = weight.shape
    spatial = len(kernel)
    bias = ctx.param(node, 2)
    if bias is None and _has_bias(node, ctx):
        bare = replace(node, inputs=node.inputs[:2])
        return _biased(node, ctx, _layer(bare, ctx, weight, groups, config, x))
    weights: dict[str, Derived] = {}
    square = len(set(config["strides"])) == 1
    if groups > 1 and per_group == 1 and spatial < 3 and square:
        config |= {"depth_multiplier": out // groups}
        shaped = weight.reshape((groups, out // groups, *kernel))
        weights["kernel"] = shaped.permute((*range(2, 2 + spatial), 0, 1))
        cls = f"DepthwiseConv{spatial}D"
    else:
        config |= {"filters": out} | ({"groups": groups} if groups > 1 else {})
        weights["kernel"] = weight.permute(Layout.kernel(2 + spatial).axes)
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
    stepless = max(strides) == 1 or max(dilation) > 1
    if stepless and all(p == (e // 2, e - e // 2) for p, e in zip(pads, extents, strict=True)):
        return "same", ctx.arg(node)
    return "valid", zero_padding(node, ctx, ctx.arg(node), pads)


@rule("ConvTranspose", since=1, keras="Conv1D/2D/3DTranspose with Cropping; for groups a Conv over spread-out input")
def conv_transpose(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one transposed convolution: all of it, then the padding cropped off.

    Shapes: x (N, C, *S); weight (C, O/groups, *k) → kernel (*k, O, C); bias (O,); size from the graph.
    Raises: UnsupportedError for a dynamic size with output_padding, output_shape, groups or a computed kernel.
    Source: ONNX ConvTranspose-11; torch.nn.ConvTranspose2d; Keras 3 Conv2DTranspose.
    """
    weight, bias = ctx.param(node, 1), ctx.param(node, 2)
    spatial = ctx.rank(node.inputs[0]) - 2
    if spatial not in (1, 2, 3):
        raise node.unsupported(f"a transposed convolution over {spatial} axes", reason="rank")
    ctx.channels(node)
    strides = tuple(node.attr("strides") or (1,) * spatial)
    dilation = tuple(node.attr("dilations") or (1,) * spatial)
    kernel = tuple(int(d or 0) for d in ctx.shape(node.inputs[1])[2:])
    extents = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    crops = _crops(node, ctx, strides, extents)
    if weight is None or node.attr("group", 1) > 1 or max(dilation) > 1:
        pads = [(e - a, e - b - (s - 1)) for e, s, (a, b) in zip(extents, strides, crops, strict=True)]
        x = _spread(node, ctx, strides, pads)
        config = {"padding": "valid"} | ({"dilation_rate": dilation} if max(dilation) > 1 else {})
        if weight is None:
            return _by_computed(node, ctx, x, config)
        y = _turned(node, ctx, weight, bias, x, {"kernel_size": kernel, "strides": (1,) * spatial, **config})
    else:
        y = _transposed(node, ctx, weight, bias, strides, crops)
    return y if bias is not None else _biased(node, ctx, y)


def _transposed(
    node: NodeView, ctx: PlanContext, weight: Derived, bias: Derived | None, strides: tuple[int, ...], crops: Pads
) -> Ref:
    """Keras' layer, and a Cropping behind it."""
    spatial, config = len(strides), {"strides": strides, "padding": "valid", "use_bias": bias is not None}
    config |= {"filters": weight.shape[1], "kernel_size": weight.shape[2:]}
    if max(strides) > 1:
        config["output_padding"] = tuple(max(-after, 0) for _, after in crops)
        crops = [(before, max(after, 0)) for before, after in crops]
    weights = {"kernel": weight.permute(Layout.kernel(2 + spatial).axes)} | ({"bias": bias} if bias is not None else {})
    y = ctx.layer(node, f"Conv{spatial}DTranspose", config, weights)
    return zero_padding(node, ctx, y, [(-a, -b) for a, b in crops]) if any(a or b for a, b in crops) else y


def _crops(node: NodeView, ctx: PlanContext, strides: tuple[int, ...], extents: list[int]) -> Pads:
    """What to cut off (negative: add) before and after on each axis, to get from the whole result to PyTorch's size."""
    count = len(strides)
    sizes, outs = ctx.shape(node.inputs[0])[2:], ctx.shape(node.outputs[0])[2:]
    pads = list(node.attr("pads") or (0,) * (2 * count))
    auto = node.attr("auto_pad", "NOTSET")
    extra = node.attr("output_padding") or (0,) * count
    crops: Pads = []
    for i, (size, out, s, e) in enumerate(zip(sizes, outs, strides, extents, strict=True)):
        if size is None or out is None:
            if auto not in ("NOTSET", "") or node.attr("output_shape"):
                raise node.unsupported("an output_shape over a dynamic size", reason="data-dependent-shape")
            crops.append((pads[i], pads[i + count] - extra[i]))
            continue
        total = (size - 1) * s + e + 1 - out
        before = pads[i] if not node.attr("output_shape") and auto in ("NOTSET", "") else _first(total, extra[i], auto)
        crops.append((before, total - before))
    return crops


def _first(total: int, extra: int, auto: str) -> int:
    """Share of the padding that stands before, as ONNX divides it."""
    padding = max(total + extra, 0)
    return padding // 2 if auto == "SAME_UPPER" else padding - padding // 2


def _with_zeros(node: NodeView, ctx: PlanContext, x: Arg, axis: int, stride: int, shape: Sequence[int]) -> Ref:
    """`stride` - 1 zeros behind each place of one axis: TensorFlow can't pad as many axes as three at once would take.

    shape: of the result.
    """
    between = ctx.op(node, "expand_dims", x, axis + 1, role="between")
    width = tuple((0, stride - 1 if a == axis + 1 else 0) for a in range(len(shape) + 1))
    padded = ctx.op(node, "pad", between, width, role="zeros_between")
    return ctx.op(node, "reshape", padded, tuple(shape), role="spread")


def _spread(node: NodeView, ctx: PlanContext, strides: tuple[int, ...], pads: Pads) -> Arg:
    """The input with zeros between its places and at its borders: what a plain convolution makes a transposed one of.

    Keras' transposed convolutions have no groups, and as an operation in a model none works at all (Keras 3.15 swaps
    two of its arguments).
    """
    x = ctx.arg(node)
    if max(strides) > 1:
        _, channels, *own = ctx.shape(node.inputs[0])
        sizes = [-1, *(size or 0 for size in own), channels or 0]
        if 0 in sizes:
            raise node.unsupported("groups or a computed kernel over a dynamic size", reason="data-dependent-shape")
        for axis, stride in enumerate(strides, start=1):
            sizes[axis] *= stride
            x = _with_zeros(node, ctx, x, axis, stride, sizes) if stride > 1 else x
    return zero_padding(node, ctx, x, pads) if any(p for pair in pads for p in pair) else x


def _turned(
    node: NodeView, ctx: PlanContext, weight: Derived, bias: Derived | None, x: Arg, config: dict[str, Any]
) -> Ref:
    """A convolution layer with the kernel turned round: (C, O/groups, *k) → (O, C/groups, *k)."""
    inputs, per_group, *kernel = weight.shape
    spatial, groups = len(kernel), node.attr("group", 1)
    turned = weight.reshape((groups, inputs // groups, per_group, *kernel)).flip(tuple(range(3, 3 + spatial)))
    turned = turned.permute((0, 2, 1, *range(3, 3 + spatial))).reshape((groups * per_group, inputs // groups, *kernel))
    plain = node if bias is not None else replace(node, inputs=node.inputs[:2])
    return _layer(plain, ctx, turned, groups, config, x)


def _by_computed(node: NodeView, ctx: PlanContext, x: Arg, config: dict[str, Any]) -> Ref:
    """A convolution of a spread-out input by a computed kernel (*k, C, O/groups), turned round."""
    kernel = in_graph(ctx, node, ctx.operand(node, 1, Layout.transposed_kernel(ctx.rank(node.inputs[1]))))
    turned = ctx.op(node, "flip", kernel, axis=tuple(range(ctx.rank(node.inputs[1]) - 2)), role="turned")
    return _biased(node, ctx, _by_groups(node, ctx, x, turned, -2, config))
