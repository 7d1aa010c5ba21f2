"""Attention."""

from __future__ import annotations

import numpy as np

from translator.graph.view import NodeView
from translator.layout.kinds import as_keras_has_it
from translator.plan.adding import add
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule
from translator.plan.rules.activation import softmax_of
from translator.types import Layout


@rule("translator::Attention", keras="keras.ops.dot_product_attention")
def attention(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one dot_product_attention; a scale that float32 can't hold exactly is multiplied into the query before.

    Shapes: query (B, H, T, D), key and value (B, H, S, D) → (B, T, H, D) in Keras; mask broadcasts to (B, H, T, S).
    Other ranks, and values of another width, are written out. Source: torch.nn.functional.scaled_dot_product_attention.
    """
    if float(node.attr("rate", "0")) > 0:
        ctx.lost.append(f"{node.origin.module}: the dropout of attention weights (rate {node.attr('rate')})")
    if not as_keras_has_it(node, ctx.graph):
        return _explicit(node, ctx)
    query, key, value = (ctx.arg(node, i, like=Layout(axes=(0, 2, 1, 3))) for i in range(3))
    scale = float(node.attr("scale"))
    if float(np.float32(scale)) != scale:
        query, scale = ctx.op(node, "multiply", query, scale, role="scaled_query"), 1.0
    options: dict[str, Arg] = {"scale": scale}
    if int(node.attr("causal", 0)):
        options["is_causal"] = True
    if node.has(3):
        options["mask" if ctx.dtype(node.inputs[3]) == "bool" else "bias"] = _mask(node, ctx)
    return ctx.op(node, "dot_product_attention", query, key, value, role="attention", **options)


def _mask(node: NodeView, ctx: PlanContext) -> Arg:
    """The mask or bias with four axes, in PyTorch's order (B, H, T, S)."""
    value = node.inputs[3]
    missing = 4 - ctx.rank(value)
    x = ctx.arg(node, 3, like=3)
    if not isinstance(x, Ref):
        array = np.asarray(ctx.graph.constants[value])
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        return array.reshape((1,) * missing + array.shape)
    return ctx.op(node, "expand_dims", x, tuple(range(missing)), role="mask") if missing > 0 else x


def _explicit(node: NodeView, ctx: PlanContext) -> Ref:
    """softmax(q·kᵀ·scale + bias)·v over any leading axes."""
    query, key, value = (ctx.arg(node, i, like=i) for i in range(3))
    rank = ctx.rank(node.inputs[1])
    turned = ctx.op(node, "transpose", key, (*range(rank - 2), rank - 1, rank - 2), role="key")
    query = ctx.op(node, "multiply", query, float(node.attr("scale")), role="scaled_query")
    scores = ctx.op(node, "matmul", query, turned, role="scores")
    if node.has(3) and ctx.dtype(node.inputs[3]) == "bool":
        scores = ctx.op(node, "where", ctx.arg(node, 3, like=3), scores, float("-inf"), role="masked")
    elif node.has(3):
        bias = ctx.arg(node, 3, like=3)
        shape = (*ctx.shape(node.inputs[0])[:-1], ctx.shape(node.inputs[1])[-2])
        scores = add(node, ctx, (scores, shape), (bias, ctx.shape(node.inputs[3])), role="biased")
    if int(node.attr("causal", 0)):
        size = ctx.shape(node.inputs[0])[-2], ctx.shape(node.inputs[1])[-2]
        if size[0] is None or size[1] is None:
            raise node.unsupported("causal attention over a dynamic length", reason="data-dependent-shape")
        allowed = np.tril(np.ones((size[0], size[1]), dtype=bool))
        scores = ctx.op(node, "where", allowed, scores, float("-inf"), role="causal")
    weights = softmax_of(node, ctx, scores, axis=-1, rank=ctx.rank(node.outputs[0]), role="weights")
    return ctx.op(node, "matmul", weights, value, role="attention")
