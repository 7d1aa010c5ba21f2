"""Linear algebra over the last two axes: what keras.ops has."""

from __future__ import annotations

from translator.graph.view import NodeView
from translator.plan.calls import Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule


@rule("Det", since=11, keras="keras.ops.det")
def determinant(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the determinant of the last two axes. Source: ONNX Det-22; torch.linalg.det."""
    return ctx.op(node, "det", ctx.arg(node))


@rule("translator::Inverse", keras="keras.ops.inv")
def inverse(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the inverse. Shapes: x (…, N, N). Source: torch.linalg.inv; keras.ops.inv."""
    return ctx.op(node, "inv", ctx.arg(node))


@rule("translator::Cholesky", keras="keras.ops.cholesky")
def cholesky(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the lower Cholesky factor. Shapes: x (…, N, N). Source: torch.linalg.cholesky; keras.ops.cholesky."""
    return ctx.op(node, "cholesky", ctx.arg(node))


@rule("translator::Solve", keras="keras.ops.solve")
def solve(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan X of A · X = B. Shapes: A (…, N, N); B (…, N, K). Source: torch.linalg.solve; keras.ops.solve."""
    return ctx.op(node, "solve", ctx.arg(node, 0), ctx.arg(node, 1))
