"""Element-wise arithmetic, comparison and selection."""

from __future__ import annotations

from typing import Any

import numpy as np

from translator.graph.derive import Derived
from translator.graph.shapes import broadcast
from translator.graph.view import NodeView
from translator.layout.permutation import in_place
from translator.plan.adding import add, misread
from translator.plan.calls import Arg, Ref
from translator.plan.context import PlanContext
from translator.plan.registry import rule
from translator.types import Shape

_MERGE = {"Add": "Add", "Mul": "Multiply", "Sub": "Subtract", "Max": "Maximum", "Min": "Minimum"}
_BINARY = {
    "Add": "add", "Mul": "multiply", "Sub": "subtract", "Div": "divide", "Pow": "power", "Max": "maximum",
    "Min": "minimum", "Equal": "equal", "Less": "less", "LessOrEqual": "less_equal", "Greater": "greater",
    "GreaterOrEqual": "greater_equal", "And": "logical_and", "Or": "logical_or", "Xor": "logical_xor",
    "BitwiseAnd": "bitwise_and", "BitwiseOr": "bitwise_or", "BitwiseXor": "bitwise_xor",
    "translator::Atan2": "arctan2",
}  # fmt: skip
_UNARY = {
    "Exp": "exp", "Log": "log", "Sqrt": "sqrt", "Abs": "absolute", "Neg": "negative", "Floor": "floor", "Ceil": "ceil",
    "Sign": "sign", "Sin": "sin", "Cos": "cos", "Tan": "tan", "Erf": "erf", "Not": "logical_not",
    "Reciprocal": "reciprocal", "translator::Log1p": "log1p", "translator::Expm1": "expm1",
    "translator::ErfInv": "erfinv",
    "Asin": "arcsin", "Acos": "arccos", "Atan": "arctan", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "arcsinh",
    "Acosh": "arccosh", "Atanh": "arctanh", "Round": "round", "IsNaN": "isnan", "BitwiseNot": "bitwise_not",
}  # fmt: skip
_FLOAT = ("float", "bfloat")
_MIDDLE = "efdhw"


@rule(
    *_BINARY, since=7, keras="Add, Multiply, Subtract, Maximum, Minimum; EinsumDense for a scale per channel; keras.ops"
)
def binary(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan element-wise arithmetic: a merging layer for two float tensors of one rank, else a keras.ops function.

    Shapes: broadcast as in numpy, in PyTorch's order. Source: ONNX Add-14 …; keras.ops.
    """
    if len(node.inputs) == 1:
        return ctx.arg(node)  # type: ignore[no-any-return]
    scaled = channel_scale(node, ctx) if node.op == "Mul" else None
    if scaled is not None:
        return scaled
    floating = ctx.dtype(node.outputs[0]).startswith(_FLOAT)
    runtime = all(ctx.is_runtime(node, i) for i in range(len(node.inputs)))
    first = ctx.out_layout(node).axes[0] if ctx.rank(node.outputs[0]) else 0
    one_batch = len({(ctx.rank(v), *ctx.graph.shapes[v][first : first + 1]) for v in node.inputs}) == 1
    args = [aligned(node, ctx, i) for i in range(len(node.inputs))]
    shapes = [aligned_shape(node, ctx, i, arg) for i, arg in enumerate(args)]
    plain = ctx.rank(node.outputs[0]) > 0 and not (node.op == "Add" and misread(shapes[1], shapes[0]))
    if runtime and one_batch and plain and node.op in _MERGE and floating and len(set(node.inputs)) == len(node.inputs):
        return ctx.layer(node, _MERGE[node.op], args=(args,), main=False)
    if node.op == "Div" and not floating:
        return truncated(node, ctx, *args)
    if node.op == "Pow":
        return _power(node, ctx, *args)
    if node.op == "Add":
        return add(node, ctx, (args[0], shapes[0]), (args[1], shapes[1]))
    total = args[0]
    for other in args[1:]:
        total = ctx.op(node, _BINARY[node.key], total, other, main=False)
    return total  # type: ignore[no-any-return]


def _power(node: NodeView, ctx: PlanContext, base: Arg, exponent: Arg) -> Ref:
    """A power is of the base's kind of number, whatever the exponent is."""
    if not isinstance(exponent, Ref | np.ndarray) and exponent in (2, 0.5) and ctx.is_runtime(node, 0):
        return ctx.op(node, "square" if exponent == 2 else "sqrt", base, main=False)
    y = ctx.op(node, "power", base, exponent, main=False)
    own, other = ctx.dtype(node.outputs[0]), ctx.dtype(node.inputs[1])
    return y if own.startswith(_FLOAT) or not other.startswith(_FLOAT) else ctx.op(node, "cast", y, own, role="whole")


def channel_scale(node: NodeView, ctx: PlanContext) -> Ref | None:
    """A product of a batch with a parameter that has one number for each channel, the last axis: EinsumDense.

    None where it isn't one everywhere that the parameter is read: one layer holds it.
    """
    index = _parameter_of(node, ctx)
    scale = ctx.param(node, index) if index is not None else None
    if index is None or scale is None or ctx.sharing.how(scale) != "layer":
        return None
    readers, kernel = ctx.sharing.readers(scale), _per_channel(node, ctx)
    if kernel is None or any(_per_channel(n, ctx) is None for n in readers):
        return None
    config = _scale_config({ctx.out_layout(n).keras_shape(ctx.shape(n.outputs[0])) for n in readers})
    if config is None:
        return None
    if not scale.trainable:
        config["trainable"] = False
    return ctx.weight_layer(node, scale.tensor, "EinsumDense", config, {"kernel": kernel}, (ctx.arg(node, 1 - index),))


def _parameter_of(node: NodeView, ctx: PlanContext) -> int | None:
    """Which of two factors is a parameter, beside one that isn't."""
    return next((i for i in (0, 1) if ctx.param(node, i) is not None and ctx.is_runtime(node, 1 - i)), None)


def _per_channel(node: NodeView, ctx: PlanContext) -> Derived | None:
    """The parameter as a vector along the last axis of Keras' layout; None where it isn't one."""
    index, layout = _parameter_of(node, ctx), ctx.out_layout(node)
    scale = ctx.param(node, index) if index is not None else None
    if index is None or scale is None or layout.view is not None or layout.axes[:1] != (0,):
        return None
    rank, value = len(layout.axes), node.inputs[1 - index]
    if rank < 2 or ctx.rank(value) != rank or len(scale.shape) > rank:
        return None
    width = ctx.shape(value)[layout.axes[-1]]
    laid = scale.reshape((1,) * (rank - len(scale.shape)) + scale.shape).permute(layout.axes)
    if width is None or width == 1 or laid.shape != (*(1,) * (rank - 1), width):
        return None
    return laid.reshape((width,))


def _scale_config(shapes: set[Shape]) -> dict[str, object] | None:
    """Settings of an EinsumDense that scales the last axis of tensors of these shapes; None where no one fits all.

    An ellipsis would do for every rank, but Keras 3.15 turns the axes round that one of two or more stands for:
    (N, 9, 10, 6) comes out as (N, 10, 9, 6) in its `compute_output_shape`.
    """
    ranks = {len(shape) for shape in shapes}
    if max(ranks) <= 3:
        return {"equation": "...c,c->...c", "output_shape": [next(iter(shapes))[-1]]}
    middle = max(ranks) - 2
    if len(ranks) > 1 or middle > len(_MIDDLE):
        return None
    letters = f"b{_MIDDLE[-middle:]}c"
    sizes = [own.pop() if len(own := set(along)) == 1 else None for along in zip(*shapes, strict=True)]
    return {"equation": f"{letters},c->{letters}", "output_shape": sizes[1:]}


def truncated(node: NodeView, ctx: PlanContext, a: Arg, b: Arg) -> Ref:
    """Division of whole numbers, rounded towards zero as in C: ONNX says so, numpy rounds down."""
    if ctx.dtype(node.outputs[0]).startswith("uint"):
        return ctx.op(node, "floor_divide", a, b, role="divide")
    signs = ctx.op(
        node,
        "multiply",
        *(ctx.op(node, "sign", v, role="sign") if isinstance(v, Ref) else np.sign(v) for v in (a, b)),
        role="signs",
    )
    sizes = [ctx.op(node, "absolute", v, role="size") if isinstance(v, Ref) else abs(v) for v in (a, b)]
    whole = ctx.op(node, "floor_divide", *sizes, role="divide")
    return ctx.op(node, "multiply", whole, signs, role="truncated")


def aligned(node: NodeView, ctx: PlanContext, index: int) -> Arg:
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
    if not in_place(range(own), order, ctx.shape(value)):
        x = ctx.op(node, "transpose", x, tuple(order), role="transpose")
        ctx.transposes += 1
    if sum(d is None for d in moved) > 1:
        raise node.unsupported("a tensor of lower rank with several dynamic sizes", reason="data-dependent-shape")
    return ctx.op(node, "reshape", x, tuple(-1 if d is None else d for d in moved), role="align")


def aligned_shape(node: NodeView, ctx: PlanContext, index: int, arg: Arg) -> Shape:
    """The Keras shape of what `aligned` gave for input `index`."""
    if not isinstance(arg, Ref):
        return np.shape(arg)
    value, target = node.inputs[index], ctx.out_layout(node)
    shape, rank = ctx.shape(value), len(target.axes)
    runtime = ctx.graph.is_runtime(value)
    if runtime and len(shape) == rank:
        return ctx.layout(node, index).keras_shape(shape)
    if target.view is not None or len(shape) > rank or (runtime and target.is_identity):
        return shape
    return target.keras_shape((1,) * (rank - len(shape)) + shape)


@rule("Sum", "Mean", since=8, keras="Add, Average")
def total(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the sum or mean of several tensors. Source: ONNX Sum-13, Mean-13."""
    args = [aligned(node, ctx, i) for i in range(len(node.inputs))]
    if len(args) == 1:
        return args[0]  # type: ignore[no-any-return]
    result, shape = args[0], aligned_shape(node, ctx, 0, args[0])
    for index, other in enumerate(args[1:], 1):
        own = aligned_shape(node, ctx, index, other)
        result = add(node, ctx, (result, shape), (other, own))
        shape = tuple(broadcast(shape, own))
    if node.op == "Mean":
        result = ctx.op(node, "divide", result, float(len(args)), main=False)
    return result  # type: ignore[no-any-return]


@rule("Mod", since=10, keras="keras.ops.mod")
def mod(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a remainder: the divisor's sign, or with fmod=1 the dividend's. Source: ONNX Mod-13."""
    a, b = aligned(node, ctx, 0), aligned(node, ctx, 1)
    if not node.attr("fmod", 0):
        return ctx.op(node, "mod", a, b)
    sizes = [ctx.op(node, "absolute", v, role="size") if isinstance(v, Ref) else np.abs(v) for v in (a, b)]
    rest = ctx.op(node, "mod", *sizes, role="rest")
    sign = ctx.op(node, "sign", a, role="sign") if isinstance(a, Ref) else np.sign(a)
    return ctx.op(node, "multiply", rest, sign, role="signed")


@rule("BitShift", since=11, keras="keras.ops.left_shift, keras.ops.right_shift")
def bit_shift(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a shift of bits. Source: ONNX BitShift-11."""
    if not ctx.dtype(node.inputs[0]).startswith("uint"):
        raise node.unsupported("a shift of signed numbers", reason="dtype")
    op = "left_shift" if node.attr("direction") == "LEFT" else "right_shift"
    return ctx.op(node, op, aligned(node, ctx, 0), aligned(node, ctx, 1))


@rule("Where", since=9, keras="keras.ops.where")
def where(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a choice between two tensors. Source: ONNX Where-16."""
    return ctx.op(node, "where", *(aligned(node, ctx, i) for i in range(3)))


@rule(*_UNARY, since=1, keras="keras.ops")
def unary(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan an element-wise function of keras.ops. Shapes: any. Source: ONNX; keras.ops."""
    return ctx.op(node, _UNARY[node.key], ctx.arg(node))


@rule("BitCast", since=26, keras="keras.ops.view")
def bit_cast(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the same bits read as numbers of another kind of the same width. Source: ONNX BitCast-26."""
    op = "cast" if ctx.dtype(node.inputs[0]) == "bool" else "view"
    return ctx.op(node, op, ctx.arg(node), node.attr("to"))


@rule("translator::NanToNum", keras="keras.ops.nan_to_num")
def nan_to_num(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan numbers in place of NaN and infinities, of infinities the dtype's largest. Source: torch.nan_to_num."""
    given = {name: node.attr(name) for name in ("nan", "posinf", "neginf")}
    numbers: dict[str, Any] = {name: float(text) for name, text in given.items() if text is not None}
    return ctx.op(node, "nan_to_num", ctx.arg(node), **numbers)


@rule("IsInf", since=10, keras="keras.ops.isinf, isposinf, isneginf")
def is_infinite(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan the test for infinities of either sign, or of one. Source: ONNX IsInf-20."""
    positive, negative = node.attr("detect_positive", 1), node.attr("detect_negative", 1)
    if not positive and not negative:
        raise node.unsupported("a test for neither infinity")
    op = "isinf" if positive and negative else "isposinf" if positive else "isneginf"
    return ctx.op(node, op, ctx.arg(node))


@rule("Identity", "Dropout", since=1, keras="nothing")
def identity(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan nothing: the value goes on as it is."""
    return ctx.arg(node)  # type: ignore[no-any-return]


@rule("Cast", "CastLike", since=6, keras="keras.ops.cast")
def cast(node: NodeView, ctx: PlanContext) -> Ref:
    """Plan a cast between kinds of numbers; one between float widths is dropped, since the model has one float type."""
    target = ctx.dtype(node.outputs[0]) if node.op == "CastLike" else node.attr("to", "float32")
    if target.startswith(_FLOAT) and ctx.dtype(node.inputs[0]).startswith(_FLOAT):
        return ctx.arg(node)  # type: ignore[no-any-return]
    return ctx.op(node, "cast", ctx.arg(node), "float32" if target.startswith(_FLOAT) else target)
