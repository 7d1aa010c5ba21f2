"""Linear maps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from translator.graph.derive import Derived
from translator.graph.view import NodeView
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule
from translator.types import Layout


@rule("Gemm", since=7, keras="Dense")
def gemm(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one Dense layer; a flattened channels-last input is absorbed in the order of the kernel's rows.

    Shapes: x (N, in); weight (out, in) with transB=1, else (in, out); bias (out,).
    Raises: UnsupportedError where alpha or beta isn't 1, or transA is set, or the weight is computed.
    Source: ONNX Gemm-13; Keras 3 Dense.
    """
    weight = ctx.param(node, 1)
    if weight is None or node.attr("transA", 0) or node.attr("alpha", 1.0) != 1.0 or node.attr("beta", 1.0) != 1.0:
        return _general_gemm(node, ctx)
    return dense(node, ctx, weight if node.attr("transB", 0) else weight.permute((1, 0)))


@rule("translator::Linear", keras="Dense")
def linear(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan one Dense layer on the last axis. Shapes: x (…, in); weight (out, in); bias (out,). Source: torch Linear."""
    weight = ctx.param(node, 1)
    return computed(node, ctx) if weight is None else dense(node, ctx, weight)


def computed(node: NodeView, ctx: PlanContext) -> Ref:
    """x · weightᵀ + bias with a weight that is computed, or that other layers read as well."""
    y = ctx.op(node, "matmul", _in_order(node, ctx), _matrix(node, ctx, 1, turned=True, role="kernel"), role="matmul")
    return ctx.op(node, "add", y, ctx.arg(node, 2, like=Layout.identity(1)), role="biased") if node.has(2) else y


def _matrix(node: NodeView, ctx: PlanContext, index: int, *, turned: bool, role: str) -> Arg:
    """The matrix at input `index`, or with its axes exchanged: of a constant that is a constant."""
    if ctx.const(node, index) is not None:
        return ctx.operand(node, index, Layout(axes=(1, 0) if turned else (0, 1)))
    x = _in_order(node, ctx) if index == 0 else ctx.arg(node, index, like=Layout.identity(2))
    return ctx.op(node, "transpose", x, (1, 0), role=role) if turned else x


def _in_order(node: NodeView, ctx: PlanContext) -> Arg:
    """Input 0 with its features in PyTorch's order, where the kernel's rows can't take another."""
    x, layout = ctx.arg(node, 0, like=0), ctx.layout(node)
    if layout.view is None or not isinstance(x, Ref):
        return x
    shape = ctx.shape(node.inputs[0])
    return ctx.move(x, layout, Layout.identity(len(shape)), shape, node)


def dense(node: NodeView, ctx: PlanContext, weight: Derived) -> Ref:
    """Dense with `weight` (out, in), and the bias at input 2 where it is a parameter."""
    bias = ctx.param(node, 2)
    if ctx.sharing.how(weight) == "reversible":
        return _head(node, ctx, weight)
    if node.has(2) and (bias is None or bias.shape not in ((weight.shape[0],), (1, weight.shape[0]))):
        y = dense(replace(node, inputs=node.inputs[:2]), ctx, weight)
        return ctx.op(node, "add", y, ctx.arg(node, 2), role="biased")
    view = ctx.layout(node).view
    if view is not None and None in view[1:]:
        raise node.unsupported(
            "a linear map behind a flattened image of any size", reason="data-dependent-shape",
            fix="leave dynamic sizes out: the linear map takes one size only",
        )  # fmt: skip
    weights = {"kernel": _rows(weight, ctx.layout(node))}
    if bias is not None:
        weights["bias"] = bias.reshape((weight.shape[0],))
    config: dict[str, Any] = {"units": weight.shape[0], "use_bias": bias is not None}
    return ctx.layer(node, "Dense", config, weights, role=node.attr("role", ""))


def _head(node: NodeView, ctx: PlanContext, weight: Derived) -> Ref:
    """A linear map by an embedding's own table: the same layer, asked the other way round."""
    table = replace(weight, steps=())
    config = reversible(table)
    args = (_in_order(node, ctx),)
    (y,) = ctx.layer_several(node, "ReversibleEmbedding", config, {"embeddings": table}, args, kwargs={"reverse": True})
    return ctx.op(node, "add", y, ctx.arg(node, 2), role="biased") if node.has(2) else y


def reversible(table: Derived) -> dict[str, Any]:
    """The configuration of an embedding (rows, width) whose table is a head as well."""
    config: dict[str, Any] = {"input_dim": table.shape[0], "output_dim": table.shape[1], "tie_weights": True}
    return config if table.trainable else config | {"trainable": False}


def _rows(weight: Derived, layout: Layout) -> Derived:
    """(out, in) → (in, out), the rows in the order in which `layout` flattens the features."""
    if layout.view is None:
        return weight.permute((1, 0))
    features = [int(d or 0) for d in layout.view[1:]]
    order = [a for a in layout.axes if a != 0]
    return weight.reshape((weight.shape[0], *features)).permute((*order, 0)).reshape((weight.shape[1], weight.shape[0]))


def _general_gemm(node: NodeView, ctx: PlanContext) -> Ref:
    a = _matrix(node, ctx, 0, turned=bool(node.attr("transA", 0)), role="transpose_a")
    b = _matrix(node, ctx, 1, turned=bool(node.attr("transB", 0)), role="transpose_b")
    y = ctx.op(node, "matmul", a, b, role="matmul")
    if node.attr("alpha", 1.0) != 1.0:
        y = ctx.op(node, "multiply", y, node.attr("alpha"), role="alpha")
    if not node.has(2):
        return y
    c = ctx.arg(node, 2)
    if node.attr("beta", 1.0) != 1.0:
        scaled = isinstance(c, Ref)
        c = ctx.op(node, "multiply", c, node.attr("beta"), role="beta") if scaled else c * node.attr("beta")
    return ctx.op(node, "add", y, c)


@rule("MatMul", since=1, keras="keras.ops.matmul, keras.ops.einsum")
def matmul(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a matrix product: matmul where both operands lie in PyTorch's order, else einsum over their own layouts.

    Shapes: (…, M, K) and (…, K, N), leading axes broadcast. Source: ONNX MatMul-13.
    """
    ranks = [ctx.rank(v) for v in node.inputs]
    a, b = (ctx.operand(node, i, Layout.identity(ranks[i])) for i in (0, 1))
    layouts = [ctx.layout(node, i) if ctx.is_runtime(node, i) else Layout.identity(ranks[i]) for i in (0, 1)]
    out = ctx.out_layout(node)
    if all(layout.is_identity for layout in (*layouts, out)):
        return ctx.op(node, "matmul", a, b)
    if ranks[0] != ranks[1] or ctx.shape(node.inputs[0])[:-2] != ctx.shape(node.inputs[1])[:-2]:
        raise node.unsupported("operands of different rank in different layouts", reason="layout")
    lead = "abcdefgh"[: ranks[0] - 2]
    left, right, result = f"{lead}mk", f"{lead}kn", f"{lead}mn"
    spelled = [
        ("".join(s[i] for i in layout.axes)) for s, layout in zip((left, right, result), (*layouts, out), strict=True)
    ]
    return ctx.op(node, "einsum", f"{spelled[0]},{spelled[1]}->{spelled[2]}", a, b)


@rule("Einsum", since=12, keras="keras.ops.einsum")
def einsum(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan an einsum with its letters in the order in which each operand lies. Source: ONNX Einsum-12; torch.einsum."""
    equation = _in_small_letters(str(node.attr("equation")).replace(" ", ""))
    left, _, result = equation.partition("->")
    operands = left.split(",")
    if "->" not in equation:
        letters = [c for c in left if c.isalpha()]
        result = "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
        result = "..." + result if "..." in left else result
    layouts = [ctx.layout(node, i) for i in range(len(operands))]
    if "..." not in equation:
        operands = ["".join(term[a] for a in at.axes) for term, at in zip(operands, layouts, strict=True)]
        result = "".join(result[a] for a in ctx.out_layout(node).axes)
    args = [ctx.operand(node, i, layouts[i]) for i in range(len(operands))]
    return ctx.op(node, "einsum", f"{','.join(operands)}->{result}", *args)


def _in_small_letters(equation: str) -> str:
    """The same equation with letters that Keras can follow symbolically: capitals it takes for sizes."""
    letters = dict.fromkeys(c for c in equation if c.isalpha())
    if all(c.islower() for c in letters):
        return equation
    small = dict(zip(letters, "abcdefghijklmnopqrstuvwxyz", strict=False))
    return "".join(small.get(c, c) for c in equation)
