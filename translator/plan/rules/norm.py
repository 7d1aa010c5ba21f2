"""Normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from translator.graph.derive import Derived
from translator.graph.view import NodeView
from translator.plan.calls import Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule


@rule("BatchNormalization", since=15, keras="BatchNormalization")
def batch_normalization(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one BatchNormalization layer with its four statistics.

    Shapes: x, y (N, C, *S) in ONNX; C goes to the axis the layout gives it. scale, bias, mean, var (C,).
    Units: momentum is the share of the OLD statistic kept, in ONNX and Keras alike; PyTorch's is one minus this.
    Raises: UnsupportedError where training_mode is 1 or a statistic is computed in the graph.
    Source: ONNX BatchNormalization-15; Keras 3 BatchNormalization.
    """
    if node.attr("training_mode", 0):
        raise node.unsupported("training_mode=1 in the graph", fix="call model.eval() before converting")
    mean, variance = ctx.param(node, 3), ctx.param(node, 4)
    if mean is None or variance is None:
        raise node.unsupported("a running statistic isn't a buffer of the module")
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
            raise node.unsupported(f"{variable} is neither a parameter nor {neutral}")
    weights |= {"moving_mean": mean, "moving_variance": variance}
    return ctx.layer(node, "BatchNormalization", config, weights)


@rule("LayerNormalization", since=17, keras="LayerNormalization")
def layer_normalization(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one LayerNormalization over the last axes of PyTorch's order.

    Shapes: x (…, *normalized); scale, bias normalized. Raises: UnsupportedError where scale is computed.
    Source: ONNX LayerNormalization-17; Keras 3 LayerNormalization.
    """
    rank = ctx.rank(node.inputs[0])
    layout = ctx.layout(node)
    axes = sorted(layout.axis(a) for a in range(node.attr("axis", -1) % rank, rank))
    order = [layout.axes[a] - (rank - len(axes)) for a in axes]
    config: dict[str, Any] = {"axis": axes if len(axes) > 1 else axes[0], "epsilon": node.attr("epsilon", 1e-5)}
    weights: dict[str, Derived] = {}
    for index, variable, setting, neutral in ((1, "gamma", "scale", 1.0), (2, "beta", "center", 0.0)):
        parameter, constant = ctx.param(node, index), ctx.const(node, index)
        if parameter is not None:
            weights[variable] = parameter.permute(order)
        elif not node.has(index) or (constant is not None and np.all(constant == neutral)):
            config[setting] = False
        else:
            raise node.unsupported(f"{variable} is neither a parameter nor {neutral}")
    return ctx.layer(node, "LayerNormalization", config, weights)
