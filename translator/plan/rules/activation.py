"""Activations and dropout."""

from __future__ import annotations

from typing import Any

import numpy as np

from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule
from translator.plan.rules.elementwise import aligned

_LAYERS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Mish": "mish",
    "Selu": "selu",
    "LogSigmoid": "log_sigmoid",
}


@rule("Sigmoid", "Tanh", "Softplus", "Softsign", "Mish", "translator::LogSigmoid", since=1, keras="Activation")
def named_activation(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan an Activation layer by its name. Shapes: any. Source: ONNX; keras.activations."""
    return ctx.layer(node, "Activation", {"activation": _LAYERS[node.op]})


@rule("Relu", since=1, keras="ReLU")
def relu(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a ReLU layer. Shapes: any. Source: ONNX Relu-14."""
    return ctx.layer(node, "ReLU")


@rule("LeakyRelu", since=1, keras="LeakyReLU")
def leaky_relu(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a LeakyReLU with its slope, which is 0.01 in PyTorch and 0.3 in Keras by default."""
    return ctx.layer(node, "LeakyReLU", {"negative_slope": node.attr("alpha", 0.01)})


@rule("Clip", since=11, keras="ReLU(max_value=…), keras.ops.clip, maximum, minimum")
def clip(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a clip; from 0 to a constant it is a ReLU with a maximum.

    Shapes: any; bounds are scalars, computed ones as well. Source: ONNX Clip-13; Keras 3 ReLU.
    """
    low, high = (_bound(node, ctx, i) for i in (1, 2))
    x = ctx.arg(node)
    floating = ctx.dtype(node.inputs[0]).startswith("float")
    if low == 0 and floating and not isinstance(high, Ref) and ctx.is_runtime(node, 0):
        return ctx.layer(node, "ReLU", {} if high is None else {"max_value": float(high)}, args=(x,))
    if low is not None and high is not None and not isinstance(low, Ref) and not isinstance(high, Ref) and low <= high:
        return ctx.op(node, "clip", x, low, high)
    if low is not None:
        x = ctx.op(node, "maximum", x, low)
    return ctx.op(node, "minimum", x, high) if high is not None else x


def _bound(node: NodeView, ctx: PlanContext, index: int) -> Any:
    if not node.has(index):
        return None
    array = ctx.const(node, index)
    return ctx.arg(node, index, like=index) if array is None else array.reshape(()).item()


@rule("Elu", "Celu", since=6, keras="ELU, keras.ops.celu")
def elu(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan an ELU: alpha·(exp(x) − 1) below 0; Celu divides x by alpha first. Source: ONNX Elu-6, Celu-12."""
    alpha = node.attr("alpha", 1.0)
    if node.op == "Celu":
        return ctx.op(node, "celu", ctx.arg(node), alpha)
    return ctx.layer(node, "ELU", {"alpha": alpha})


@rule("Selu", since=6, keras="Activation")
def selu(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a SELU; ONNX' own constants are Keras' rounded to float32. Source: ONNX Selu-6."""
    own = (1.6732632423543772, 1.0507009873554805)
    given = (node.attr("alpha", own[0]), node.attr("gamma", own[1]))
    alpha, gamma = (exact if _is(number, exact) else number for number, exact in zip(given, own, strict=True))
    if (alpha, gamma) == own:
        return ctx.layer(node, "Activation", {"activation": "selu"})
    x = ctx.arg(node)
    grown = ctx.op(
        node,
        "multiply",
        ctx.op(node, "expm1", ctx.op(node, "minimum", x, 0.0, role="negative"), role="expm1"),
        alpha,
        role="scaled",
    )
    total = ctx.op(node, "add", ctx.op(node, "maximum", x, 0.0, role="positive"), grown, role="joined")
    return ctx.op(node, "multiply", total, gamma)


def _is(setting: float, exact: float) -> bool:
    """Whether a setting, stored as float32, is that number."""
    return bool(np.float32(setting) == np.float32(exact))


@rule("PRelu", since=7, keras="PReLU")
def prelu(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a PReLU whose slopes are shared along every axis but those the parameter has.

    Shapes: x (N, C, *S); slope (C, 1…) or (1,). Source: ONNX PRelu-16; Keras 3 PReLU.
    """
    slope, layout, rank = ctx.param(node, 1), ctx.out_layout(node), ctx.rank(node.inputs[0])
    each = slope is not None and len(slope.shape) == rank and slope.shape[0] != 1
    if slope is None or each or rank < 2 or layout.axes[0] != 0 or layout.view is not None or len(slope.shape) > rank:
        positive = ctx.op(node, "maximum", ctx.arg(node), 0.0, role="positive")
        negative = ctx.op(node, "minimum", ctx.arg(node), 0.0, role="negative")
        scaled = ctx.op(node, "multiply", negative, aligned(node, ctx, 1), role="slope")
        return ctx.op(node, "add", positive, scaled)
    laid = slope.reshape((1,) * (rank - len(slope.shape)) + slope.shape).permute(layout.axes)
    if laid.shape != (1,) * rank:
        ctx.channels(node)
    shape = laid.shape[1:]
    shared = [i + 1 for i, d in enumerate(shape) if d == 1]
    return ctx.layer(node, "PReLU", {"shared_axes": shared}, {"alpha": laid.reshape(shape)})


@rule("ThresholdedRelu", since=10, keras="keras.ops.threshold")
def thresholded_relu(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan x where x > alpha, else 0. Source: ONNX ThresholdedRelu-10."""
    return ctx.op(node, "threshold", ctx.arg(node), node.attr("alpha", 1.0), 0.0)


@rule("Shrink", since=9, keras="keras.ops.where")
def shrink(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan x + bias below −lambd, x − bias above lambd, else 0. Source: ONNX Shrink-9."""
    bias, limit, x = node.attr("bias", 0.0), node.attr("lambd", 0.5), ctx.arg(node)
    above = ctx.op(
        node,
        "where",
        ctx.op(node, "greater", x, limit, role="above"),
        ctx.op(node, "subtract", x, bias, role="less_bias"),
        0.0,
        role="upper",
    )
    below = ctx.op(node, "less", x, -limit, role="below")
    return ctx.op(node, "where", below, ctx.op(node, "add", x, bias, role="more_bias"), above)


@rule("Swish", "translator::Silu", since=24, keras="Activation")
def swish(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan x·sigmoid(alpha·x), alpha 1 as the silu activation. Source: ONNX Swish-24; torch SiLU."""
    alpha = node.attr("alpha", 1.0)
    if alpha == 1.0:
        return ctx.layer(node, "Activation", {"activation": "silu"})
    x = ctx.arg(node)
    gate = ctx.op(node, "sigmoid", ctx.op(node, "multiply", x, alpha, role="alpha"), role="gate")
    return ctx.op(node, "multiply", x, gate)


@rule("Gelu", since=20, keras="keras.ops.gelu")
def gelu(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a GELU; `approximate` is always given: Keras' function defaults to tanh, its activation to exact."""
    approximate = node.attr("approximate", "none")
    return ctx.op(node, "gelu", ctx.arg(node), approximate=approximate in ("tanh", b"tanh"))


@rule("HardSwish", since=14, keras="Activation")
def hard_swish(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a hard swish: x · relu6(x + 3) / 6. Source: ONNX HardSwish-14."""
    return ctx.layer(node, "Activation", {"activation": "hard_silu"})


@rule("HardSigmoid", since=6, keras="Activation")
def hard_sigmoid(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a hard sigmoid: relu6(x + 3) / 6 as a layer, other slopes as clip(αx + β, 0, 1)."""
    alpha, beta = node.attr("alpha", 0.2), node.attr("beta", 0.5)
    if _is(alpha, 1 / 6) and beta == 0.5:
        return ctx.layer(node, "Activation", {"activation": "hard_sigmoid"})
    scaled = ctx.op(node, "add", ctx.op(node, "multiply", ctx.arg(node), alpha, role="scale"), beta, role="shift")
    return ctx.op(node, "clip", scaled, 0.0, 1.0)


@rule("Softmax", since=13, keras="Softmax, keras.ops.log_softmax and exp of more than five axes")
def softmax(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a Softmax over one axis. Source: ONNX Softmax-13."""
    axis, rank = ctx.layout(node).axis(node.attr("axis", -1)), ctx.rank(node.inputs[0])
    if rank > _SOFTMAX_AXES:
        return softmax_of(node, ctx, ctx.arg(node), axis=axis, rank=rank)
    return ctx.layer(node, "Softmax", {"axis": -1 if axis == rank - 1 else axis})


_SOFTMAX_AXES = 5
"""As many as TensorFlow's softmax takes in float32 (oneDNN's)."""


def softmax_of(node: NodeView, ctx: PlanContext, x: Arg, *, axis: int, rank: int, role: str = "") -> Ref:
    """keras.ops.softmax; of more axes than TensorFlow takes, by its logarithm. rank: of x."""
    if rank <= _SOFTMAX_AXES:
        return ctx.op(node, "softmax", x, axis=axis, role=role)
    return ctx.op(node, "exp", ctx.op(node, "log_softmax", x, axis=axis, role="logarithm"), role=role)


@rule("LogSoftmax", since=13, keras="keras.ops.log_softmax")
def log_softmax(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the logarithm of a softmax over one axis. Source: ONNX LogSoftmax-13."""
    return ctx.op(node, "log_softmax", ctx.arg(node), axis=ctx.layout(node).axis(node.attr("axis", -1)))


@rule("translator::Dropout", keras="Dropout, SpatialDropout1D/2D/3D")
def dropout(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a dropout layer, inactive in inference.

    kind: element → Dropout; channel → SpatialDropout; path (whole samples) → Dropout with noise_shape; batch → the same
    over everything. Others are lost for training, and said. Source: torch.nn.functional.dropout.
    """
    rate, kind, rank = float(node.attr("rate")), node.attr("kind", "element"), ctx.rank(node.inputs[0])
    config: dict[str, Any] = {"rate": rate}
    if kind == "channel" and rank in (3, 4, 5) and ctx.layout(node).axis(1) == rank - 1:
        return ctx.layer(node, f"SpatialDropout{rank - 2}D", config)
    if kind == "channel":
        noise: list[int | None] = [1] * rank
        noise[ctx.layout(node).axis(0)], noise[ctx.layout(node).axis(1)] = None, None
        return ctx.layer(node, "Dropout", config | {"noise_shape": noise})
    if kind == "path" and ctx.layout(node).view is None:
        noise = [None if a == 0 else 1 for a in ctx.layout(node).axes]
        return ctx.layer(node, "Dropout", config | {"noise_shape": noise})
    if kind == "batch":
        return ctx.layer(node, "Dropout", config | {"noise_shape": [1] * rank})
    if kind != "element":
        ctx.lost.append(f"{node.origin.module}: {kind} dropout of rate {rate} has no Keras layer")
        return ctx.arg(node)  # type: ignore[no-any-return]
    return ctx.layer(node, "Dropout", config)
