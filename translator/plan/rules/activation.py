"""Activations and dropout."""

from __future__ import annotations

from typing import Any

from translator.graph.view import NodeView
from translator.plan.calls import Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule

_LAYERS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Mish": "mish",
    "Selu": "selu",
}


@rule("Sigmoid", "Tanh", "Softplus", "Softsign", "Mish", since=1, keras="Activation")
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


@rule("Clip", since=11, keras="ReLU(max_value=…), keras.ops.clip")
def clip(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a clip to constant bounds; from 0 it is a ReLU with a maximum.

    Shapes: any. Raises: UnsupportedError where a bound is computed. Source: ONNX Clip-13; Keras 3 ReLU.
    """
    bounds: list[float | None] = []
    for index in (1, 2):
        array = ctx.const(node, index)
        if node.has(index) and array is None:
            raise node.unsupported("a bound is computed at run time")
        bounds.append(None if array is None else array.reshape(()).item())
    low, high = bounds
    if low == 0 and ctx.dtype(node.inputs[0]).startswith("float"):
        return ctx.layer(node, "ReLU", {} if high is None else {"max_value": float(high)})
    x = ctx.arg(node)
    if low is not None and high is not None:
        return ctx.op(node, "clip", x, low, high)  # type: ignore[no-any-return]
    if low is not None:
        return ctx.op(node, "maximum", x, low)  # type: ignore[no-any-return]
    return ctx.op(node, "minimum", x, high) if high is not None else x  # type: ignore[no-any-return]


@rule("Gelu", since=20, keras="keras.ops.gelu")
def gelu(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a GELU; `approximate` is always given: Keras' function defaults to tanh, its activation to exact."""
    approximate = node.attr("approximate", "none")
    return ctx.op(node, "gelu", ctx.arg(node), approximate=approximate in ("tanh", b"tanh"))  # type: ignore[no-any-return]


@rule("HardSwish", since=14, keras="Activation")
def hard_swish(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a hard swish: x · relu6(x + 3) / 6. Source: ONNX HardSwish-14."""
    return ctx.layer(node, "Activation", {"activation": "hard_silu"})


@rule("HardSigmoid", since=6, keras="Activation")
def hard_sigmoid(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a hard sigmoid: relu6(x + 3) / 6 as a layer, other slopes as clip(αx + β, 0, 1)."""
    alpha, beta = node.attr("alpha", 0.2), node.attr("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return ctx.layer(node, "Activation", {"activation": "hard_sigmoid"})
    scaled = ctx.op(node, "add", ctx.op(node, "multiply", ctx.arg(node), alpha, role="scale"), beta, role="shift")
    return ctx.op(node, "clip", scaled, 0.0, 1.0)  # type: ignore[no-any-return]


@rule("Softmax", since=13, keras="Softmax")
def softmax(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a Softmax over one axis. Source: ONNX Softmax-13."""
    axis = ctx.layout(node).axis(node.attr("axis", -1))
    last = axis == ctx.rank(node.inputs[0]) - 1
    return ctx.layer(node, "Softmax", {"axis": -1 if last else axis})


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
