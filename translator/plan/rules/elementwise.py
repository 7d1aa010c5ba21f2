"""Element-wise arithmetic, comparison and joining."""

from __future__ import annotations

from translator.graph.view import NodeView
from translator.plan.calls import Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule

_MERGE = {"Add": "Add", "Mul": "Multiply", "Sub": "Subtract", "Max": "Maximum", "Min": "Minimum"}
_BINARY = {
    "Add": "add", "Mul": "multiply", "Sub": "subtract", "Div": "divide", "Pow": "power", "Max": "maximum",
    "Min": "minimum", "Equal": "equal", "Less": "less", "LessOrEqual": "less_equal", "Greater": "greater",
    "GreaterOrEqual": "greater_equal", "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor",
}  # fmt: skip
_UNARY = {
    "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Abs": "absolute", "Neg": "negative", "Floor": "floor", "Ceil": "ceil",
    "Sign": "sign", "Sin": "sin", "Cos": "cos", "Tan": "tan", "Erf": "erf", "Not": "logical_not", "Reciprocal": "reciprocal",
    "Asin": "arcsin", "Acos": "arccos", "Atan": "arctan", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "arcsinh",
    "Acosh": "arccosh", "Atanh": "arctanh", "Round": "round", "IsNaN": "isnan", "IsInf": "isinf",
}  # fmt: skip


@rule(*_BINARY, since=7, keras="Add, Multiply, Subtract, Maximum, Minimum; keras.ops")
def binary(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan element-wise arithmetic: a merging layer for two float tensors of one rank, else a keras.ops function.

    Shapes: broadcast as in numpy, in PyTorch's order. Source: ONNX Add-14 …; keras.ops.
    """
    if len(node.inputs) > 2:
        raise node.unsupported(f"{len(node.inputs)} operands")
    runtime = [ctx.is_runtime(node, i) for i in (0, 1)]
    same_rank = ctx.rank(node.inputs[0]) == ctx.rank(node.inputs[1])
    args = [aligned(node, ctx, i) for i in (0, 1)]
    if all(runtime) and same_rank and node.op in _MERGE and ctx.dtype(node.outputs[0]).startswith("float"):
        return ctx.layer(node, _MERGE[node.op], args=(args,), main=False)
    if node.op == "Div" and not ctx.dtype(node.outputs[0]).startswith(("float", "bfloat")):
        raise node.unsupported("integer division", reason="dtype")
    return ctx.op(node, _BINARY[node.op], *args, main=False)  # type: ignore[no-any-return]


def aligned(node: NodeView, ctx: PlanContext, index: int) -> object:
    """Input `index`, given the output's rank and layout where it has fewer axes and the layouts aren't trivial."""
    value, rank = node.inputs[index], ctx.rank(node.outputs[0])
    x = ctx.arg(node, index)
    own = ctx.rank(value)
    target = ctx.out_layout(node)
    if not ctx.graph.is_runtime(value) or own in (0, rank) or target.is_identity:
        return x
    shape = (1,) * (rank - own) + ctx.shape(value)
    moved = tuple(shape[a] for a in target.axes)
    order = [a - (rank - own) for a in target.axes if a >= rank - own]
    if order != sorted(order):
        x = ctx.op(node, "transpose", x, tuple(order), role="transpose")
        ctx.transposes += 1
    if sum(d is None for d in moved) > 1:
        raise node.unsupported("a tensor of lower rank with several dynamic sizes", reason="data-dependent-shape")
    return ctx.op(node, "reshape", x, tuple(-1 if d is None else d for d in moved), role="align")


@rule(*_UNARY, since=1, keras="keras.ops")
def unary(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan an element-wise function of keras.ops. Shapes: any. Source: ONNX; keras.ops."""
    return ctx.op(node, _UNARY[node.op], ctx.arg(node))  # type: ignore[no-any-return]


@rule("Identity", "Dropout", since=1, keras="nothing")
def identity(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan nothing: the value goes on as it is."""
    return ctx.arg(node)  # type: ignore[no-any-return]


@rule("Cast", since=6, keras="keras.ops.cast")
def cast(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a cast between kinds of numbers; one between float widths is dropped, since the model has one float type."""
    target = node.attr("to", "float32")
    if target.startswith(("float", "bfloat")) and ctx.dtype(node.inputs[0]).startswith(("float", "bfloat")):
        return ctx.arg(node)  # type: ignore[no-any-return]
    return ctx.op(node, "cast", ctx.arg(node), "float32" if target.startswith("float") else target)  # type: ignore[no-any-return]


@rule("Concat", since=4, keras="Concatenate")
def concat(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a Concatenate along the axis where the layout put it. Source: ONNX Concat-13; Keras 3 Concatenate."""
    axis = ctx.out_layout(node).axis(node.attr("axis"))
    args = [ctx.arg(node, i) for i in range(len(node.inputs))]
    if len(args) == 1:
        return args[0]
    last = axis == ctx.rank(node.outputs[0]) - 1
    if all(ctx.is_runtime(node, i) for i in range(len(args))):
        return ctx.layer(node, "Concatenate", {"axis": -1 if last else axis}, args=(args,), main=False)
    return ctx.op(node, "concatenate", args, axis=axis, main=False)  # type: ignore[no-any-return]
