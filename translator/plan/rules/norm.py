"""Normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from translator.graph.derive import Derived
from translator.graph.view import NodeView
from translator.layout.permutation import inner
from translator.plan.adding import add
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.materialise import in_graph
from translator.plan.registry import rule
from translator.plan.rules.elementwise import aligned, aligned_shape
from translator.plan.rules.recurrent import read
from translator.types import Layout


@rule("BatchNormalization", since=15, keras="BatchNormalization")
def batch_normalization(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one BatchNormalization layer with its four statistics.

    Shapes: x, y (N, C, *S) in ONNX; C goes to the axis the layout gives it. scale, bias, mean, var (C,).
    Units: momentum is the share of the OLD statistic kept, in ONNX and Keras alike; PyTorch's is one minus this.
    Where the statistics are the batch's own (track_running_stats=False) or computed, the formula is written out.
    Source: ONNX BatchNormalization-15; Keras 3 BatchNormalization.
    """
    mean, variance = ctx.param(node, 3), ctx.param(node, 4)
    if node.attr("training_mode", 0) or mean is None or variance is None or not ctx.is_runtime(node, 0):
        return _explicit_batch_norm(node, ctx)
    ctx.channels(node)
    config: dict[str, Any] = {
        "axis": ctx.layout(node).axis(1),
        "momentum": node.attr("momentum", 0.9),
        "epsilon": node.attr("epsilon", 1e-5),
    }
    weights: dict[str, Derived] = {}
    for index, variable, setting, neutral in ((1, "gamma", "scale", 1.0), (2, "beta", "center", 0.0)):
        parameter, constant = ctx.param(node, index), ctx.const(node, index)
        if parameter is not None:
            weights[variable] = parameter
        elif constant is not None and np.all(constant == neutral):
            config[setting] = False
        else:
            return _explicit_batch_norm(node, ctx)
    weights |= {"moving_mean": mean, "moving_variance": variance}
    return ctx.layer(node, "BatchNormalization", config, weights)


def _explicit_batch_norm(node: NodeView, ctx: PlanContext) -> Ref:
    """(x − mean) / sqrt(variance + epsilon) · scale + bias, over all axes but the channels'."""
    layout, rank = ctx.layout(node), ctx.rank(node.inputs[0])
    channel = layout.axis(1)
    others = tuple(i for i in range(rank) if i != channel)
    x = ctx.arg(node)
    if node.attr("training_mode", 0):
        mean = ctx.op(node, "mean", x, axis=others, keepdims=True, role="mean")
        variance = ctx.op(node, "var", x, axis=others, keepdims=True, role="variance")
    else:
        mean, variance = (_per_channel(node, ctx, i, channel, rank) for i in (3, 4))
    centred = ctx.op(node, "subtract", x, mean, role="centred")
    spread = _spread(node, ctx, variance, node.attr("epsilon", 1e-5))
    y = ctx.op(node, "divide", centred, spread, role="normalised")
    y = ctx.op(node, "multiply", y, _per_channel(node, ctx, 1, channel, rank), role="scaled")
    shift, shape = _per_channel(node, ctx, 2, channel, rank), layout.keras_shape(ctx.shape(node.inputs[0]))
    vector = () if isinstance(shift, float) else tuple(d if i == channel else 1 for i, d in enumerate(shape))
    return add(node, ctx, (y, shape), (shift, vector), role="shifted")


def _spread(node: NodeView, ctx: PlanContext, variance: Arg, epsilon: float) -> Arg:
    if not isinstance(variance, Ref):
        return float(np.sqrt(variance + epsilon))
    return ctx.op(node, "sqrt", ctx.op(node, "add", variance, epsilon, role="safe"), role="spread")


def _per_channel(node: NodeView, ctx: PlanContext, index: int, channel: int, rank: int) -> Arg:
    """The vector at input `index`, broadcasting along the channel axis; a number where all of it is one number."""
    array = ctx.const(node, index)
    if array is not None and np.all(array == array.reshape(-1)[0]):
        return float(array.reshape(-1)[0])
    x = in_graph(ctx, node, ctx.arg(node, index, like=Layout.identity(1)))
    if channel == rank - 1:
        return x
    return ctx.op(node, "reshape", x, tuple(-1 if i == channel else 1 for i in range(rank)), role="per_channel")


@rule("LayerNormalization", since=17, keras="LayerNormalization")
def layer_normalization(node: NodeView, ctx: PlanContext) -> Ref | tuple[Ref, ...]:
    """Plan one LayerNormalization over the last axes of PyTorch's order; with its statistics where they are read.

    Shapes: x (…, *normalized); scale, bias normalized. Raises: UnsupportedError where scale is computed.
    Source: ONNX LayerNormalization-17; Keras 3 LayerNormalization.
    """
    if not ctx.is_runtime(node, 0) or any(read(ctx, name) for name in node.outputs[1:]):
        return _explicit_layer_norm(node, ctx)
    rank = ctx.rank(node.inputs[0])
    layout = ctx.layout(node)
    axes = sorted(layout.axis(a) for a in range(node.attr("axis", -1) % rank, rank))
    if inner(axes, rank):
        return _explicit_layer_norm(node, ctx)
    order = [layout.axes[a] - (rank - len(axes)) for a in axes]
    config: dict[str, Any] = {"axis": axes if len(axes) > 1 else -1, "epsilon": node.attr("epsilon", 1e-5)}
    weights: dict[str, Derived] = {}
    for index, variable, setting, neutral in ((1, "gamma", "scale", 1.0), (2, "beta", "center", 0.0)):
        parameter, constant = ctx.param(node, index), ctx.const(node, index)
        if parameter is not None and parameter.shape == tuple(ctx.shape(node.inputs[0])[rank - len(axes) :]):
            weights[variable] = parameter.permute(order)
        elif not node.has(index) or (constant is not None and np.all(constant == neutral)):
            config[setting] = False
        else:
            return _explicit_layer_norm(node, ctx)
    return ctx.layer(node, "LayerNormalization", config, weights)


def _explicit_layer_norm(node: NodeView, ctx: PlanContext) -> tuple[Ref, ...]:
    layout, rank = ctx.out_layout(node), ctx.rank(node.inputs[0])
    axes = tuple(sorted(layout.axis(a) for a in range(node.attr("axis", -1) % rank, rank)))
    x = ctx.arg(node)
    mean = ctx.op(node, "mean", x, axis=axes, keepdims=True, role="mean")
    variance = ctx.op(node, "var", x, axis=axes, keepdims=True, role="variance")
    spread = _spread(node, ctx, variance, node.attr("epsilon", 1e-5))
    y = ctx.op(node, "divide", ctx.op(node, "subtract", x, mean, role="centred"), spread, role="normalised")
    inverse = ctx.op(node, "reciprocal", spread, role="inverse") if read(ctx, (*node.outputs, "", "")[2]) else spread
    constant = ctx.const(node, 1)
    if constant is None or np.any(constant != 1):
        y = ctx.op(node, "multiply", y, aligned(node, ctx, 1), role="scaled")
    if not node.has(2):
        return y, mean, inverse
    shift, shape = aligned(node, ctx, 2), ctx.out_layout(node).keras_shape(ctx.shape(node.outputs[0]))
    y = add(node, ctx, (y, shape), (shift, aligned_shape(node, ctx, 2, shift)), role="shifted")
    return y, mean, inverse


@rule("RMSNormalization", since=23, keras="RMSNormalization")
def rms_normalization(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan x / sqrt(mean(x²) + epsilon) · scale over the last axes.

    Shapes: x (…, *normalized); scale normalized. Source: ONNX RMSNormalization-23; torch.nn.RMSNorm.
    """
    rank, layout = ctx.rank(node.inputs[0]), ctx.layout(node)
    axes = tuple(sorted(layout.axis(a) for a in range(node.attr("axis", -1) % rank, rank)))
    scale, epsilon = ctx.param(node, 1), node.attr("epsilon", 1e-5)
    if axes == (rank - 1,) and scale is not None and len(scale.shape) == 1 and ctx.is_runtime(node, 0):
        return ctx.layer(node, "RMSNormalization", {"axis": -1, "epsilon": epsilon}, {"scale": scale})
    x = ctx.arg(node)
    power = ctx.op(node, "mean", ctx.op(node, "square", x, role="square"), axis=axes, keepdims=True, role="power")
    spread = ctx.op(node, "sqrt", ctx.op(node, "add", power, epsilon, role="safe"), role="spread")
    y = ctx.op(node, "divide", x, spread, role="normalised")
    constant = ctx.const(node, 1)
    if constant is not None and np.all(constant == 1):
        return y
    return ctx.op(node, "multiply", y, aligned(node, ctx, 1), role="scaled")


@rule("GroupNormalization", "InstanceNormalization", since=6, keras="GroupNormalization")
def group_normalization(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one GroupNormalization, channels last; an InstanceNormalization has a group for each channel.

    Shapes: x (N, C, *S); scale, bias (C,). Raises: UnsupportedError where scale or bias is computed per group.
    Source: ONNX GroupNormalization-21, InstanceNormalization-22; Keras 3 GroupNormalization.
    """
    channels = ctx.channels(node)
    groups = channels if node.op == "InstanceNormalization" else node.attr("num_groups")
    config: dict[str, Any] = {"groups": groups, "axis": -1, "epsilon": node.attr("epsilon", 1e-5)}
    weights: dict[str, Derived] = {}
    for index, variable, setting, neutral in ((1, "gamma", "scale", 1.0), (2, "beta", "center", 0.0)):
        parameter, constant = ctx.param(node, index), ctx.const(node, index)
        if parameter is not None and parameter.shape == (channels,):
            weights[variable] = parameter
        elif constant is not None and np.all(constant == neutral):
            config[setting] = False
        else:
            return _explicit_group_norm(node, ctx, config)
    return ctx.layer(node, "GroupNormalization", config, weights)


def _explicit_group_norm(node: NodeView, ctx: PlanContext, config: dict[str, Any]) -> Ref:
    y = ctx.layer(node, "GroupNormalization", config | {"scale": False, "center": False}, role="normalised")
    rank = ctx.rank(node.inputs[0])
    y = ctx.op(node, "multiply", y, _per_channel(node, ctx, 1, rank - 1, rank), role="scaled")
    return ctx.op(node, "add", y, _per_channel(node, ctx, 2, rank - 1, rank), role="shifted")


@rule("LpNormalization", since=1, keras="keras.ops.divide, keras.ops.sum …")
def lp_normalization(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan x / ‖x‖ along one axis, for the norms 1 and 2; 0 where the norm is 0. Source: ONNX LpNormalization-22."""
    axis, order = ctx.layout(node).axis(node.attr("axis", -1)), node.attr("p", 2)
    x = ctx.arg(node)
    size = ctx.op(node, "absolute" if order == 1 else "square", x, role="size")
    norm = ctx.op(node, "sum", size, axis=axis, keepdims=True, role="norm")
    norm = norm if order == 1 else ctx.op(node, "sqrt", norm, role="norm")
    return ctx.op(node, "divide_no_nan", x, norm)


@rule("MeanVarianceNormalization", since=9, keras="keras.ops.mean, keras.ops.var …")
def mean_variance_normalization(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan (x − mean) / standard deviation over some axes. Source: ONNX MeanVarianceNormalization-13."""
    axes = tuple(sorted(ctx.layout(node).axis(a) for a in node.attr("axes") or (0, 2, 3)))
    x = ctx.arg(node)
    mean = ctx.op(node, "mean", x, axis=axes, keepdims=True, role="mean")
    spread = ctx.op(node, "std", x, axis=axes, keepdims=True, role="spread")
    spread = ctx.op(node, "add", spread, 1e-9, role="safe")
    return ctx.op(node, "divide", ctx.op(node, "subtract", x, mean, role="centred"), spread)


@rule("LRN", since=1, keras="AveragePooling over channels, keras.ops")
def local_response_normalization(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan x / (bias + alpha / size · Σ x² over `size` neighbouring channels) ** beta.

    Shapes: x (N, C, *S), channels last in Keras. Source: ONNX LRN-13; torch.nn.LocalResponseNorm.
    """
    size, rank = node.attr("size"), ctx.rank(node.inputs[0])
    channels = ctx.shape(node.inputs[0])[1]
    x = ctx.arg(node)
    width = [(0, 0)] * (rank - 1) + [((size - 1) // 2, size - 1 - (size - 1) // 2)]
    square = ctx.op(node, "pad", ctx.op(node, "square", x, role="square"), tuple(width), role="border")
    total = None
    for start in range(size):
        key = (*[slice(None)] * (rank - 1), slice(start, start + int(channels or 0)))
        part = ctx.op(node, "get_item", square, key, role="neighbour")
        total = part if total is None else ctx.op(node, "add", total, part, role="sum")
    scaled = ctx.op(
        node,
        "divide",
        ctx.op(node, "multiply", total, node.attr("alpha", 1e-4), role="alpha"),
        float(size),
        role="mean",
    )
    base = ctx.op(node, "add", scaled, node.attr("bias", 1.0), role="bias")
    return ctx.op(node, "divide", x, ctx.op(node, "power", base, node.attr("beta", 0.75), role="beta"))
