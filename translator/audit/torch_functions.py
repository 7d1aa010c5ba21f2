"""Functions of PyTorch, called in a forward without a module, in the words of `facts`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from translator.audit.kinds import kind_and_signature
from translator.verify.facts import (
    Activation,
    Conv,
    Dense,
    Dropout,
    Embedding,
    Facts,
    Ints,
    Norm,
    Padding,
    Pool,
    Presence,
    Resize,
    Windows,
    clip,
)
from translator.verify.facts_torch import presence, symmetric


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCall:
    """What one function call is: a kind with its signature, its facts, and the tensors in its weight slots.

    product: a matrix product, which is a linear map only where the tensor in its slot is a weight, lying as (in, out).
    """

    kind: str
    signature: tuple[Any, ...] = ()
    facts: Facts | None = None
    slots: Mapping[str, Any] | None = None
    product: bool = False
    equation: str = ""


Bound = dict[str, Any]
Builder = Callable[[str, Bound], "Facts | None"]
_BUILDERS: dict[str, tuple[tuple[str, ...], Builder]] = {}

_JOINS = {
    "add": "add", "sub": "sub", "rsub": "sub", "subtract": "sub", "mul": "mul", "multiply": "mul", "div": "div",
    "true_divide": "div", "maximum": "max", "minimum": "min", "cat": "concat", "concat": "concat",
    "concatenate": "concat", "stack": "concat", "matmul": "matmul", "bmm": "matmul", "mm": "matmul",
    "einsum": "matmul", "baddbmm": "matmul", "scaled_dot_product_attention": "attend",
}  # fmt: skip

_WEIGHT_SLOTS = ("weight", "bias", "running_mean", "running_var")


def function_call(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> FunctionCall | None:
    """What the call is, or None where it only moves elements or computes with one tensor and constants."""
    name = _plain_name(function)
    if name in _BUILDERS:
        names, build = _BUILDERS[name]
        bound = {**dict(zip(names, args, strict=False)), **kwargs}
        facts = build(name, bound)
        known = kind_and_signature(facts) if facts is not None else None
        if facts is not None and known is not None:
            slots = {slot: bound[slot] for slot in _WEIGHT_SLOTS if bound.get(slot) is not None}
            return FunctionCall(
                kind=known[0], signature=known[1], facts=facts, slots=slots, product=name in _PRODUCTS
            )  # fmt: skip
    call = joining(function)
    if call is not None and args and isinstance(args[0], str):
        return replace(call, equation=args[0])
    return call


def joining(function: Callable[..., Any]) -> FunctionCall | None:
    """What the call is if nothing is known of its arguments: one that joins values, or nothing."""
    name = _plain_name(function)
    return FunctionCall(kind=_JOINS[name]) if name in _JOINS else None


_SCALAR_STEPS = {
    "add": "add", "radd": "add", "mul": "mul", "rmul": "mul", "multiply": "mul", "sub": "sub", "subtract": "sub",
    "rsub": "rsub", "div": "div", "true_divide": "div", "rdiv": "rdiv", "rtruediv": "rdiv", "pow": "pow",
}  # fmt: skip
_POWERS = {"square": 2.0, "sqrt": 0.5, "reciprocal": -1.0, "rsqrt": -0.5}


def scalar_step(function: Callable[..., Any], args: Sequence[Any]) -> tuple[str, float] | None:
    """The arithmetic of one tensor with one number, such as ("mul", 0.5); None for anything else."""
    name = getattr(function, "__name__", "").strip("_")
    if len(args) == 1 and name in _POWERS:
        return "pow", _POWERS[name]
    if len(args) == 1 and name in ("neg", "negative"):
        return "mul", -1.0
    step = _SCALAR_STEPS.get(name)
    if step is None or len(args) != 2:
        return None
    numbers = [a for a in args if isinstance(a, int | float) and not isinstance(a, bool)]
    return turned(step, float(numbers[0]), first=numbers[0] is args[0]) if len(numbers) == 1 else None


def turned(step: str, number: float, *, first: bool) -> tuple[str, float] | None:
    """A step with its number in second place; `first`: it stood in first place. None where there is no such step."""
    if step == "sub":
        return ("rsub", number) if first else ("add", -number)
    if step == "div" and first:
        return "rdiv", number
    return None if step == "pow" and first else (step, number)


def _plain_name(function: Callable[..., Any]) -> str:
    """`add` for add, add_ and __add__; "" for what only looks something up."""
    name = getattr(function, "__name__", "")
    return "" if name in ("__get__", "__getitem__", "__setitem__") else str(name).strip("_")


def _function(names: Sequence[str], *arguments: str) -> Callable[[Builder], Builder]:
    def register(build: Builder) -> Builder:
        _BUILDERS.update(dict.fromkeys(names, (("input", *arguments), build)))
        return build

    return register


def _each(value: Any, rank: int) -> Ints:
    if isinstance(value, tuple | list):
        return tuple(int(v) for v in value) if len(value) == rank else (int(value[0]),) * rank
    return (int(value),) * rank


def _sizes(bound: Bound) -> Ints:
    return tuple(int(n) for n in bound["input"].shape[2:])


@_function(["conv1d", "conv2d", "conv3d"], "weight", "bias", "stride", "padding", "dilation", "groups")
def _conv(_: str, b: Bound) -> Facts:
    kernel, groups = tuple(b["weight"].shape[2:]), int(b.get("groups", 1))
    rank = len(kernel)
    dilation, padding = _each(b.get("dilation", 1), rank), b.get("padding", 0)
    pads = symmetric(_each(padding if padding not in ("valid", "same") else 0, rank))
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        pads = tuple((t // 2, t - t // 2) for t in totals)
    windows = Windows(
        kernel=kernel, stride=_each(b.get("stride", 1), rank), dilation=dilation, padding=pads, sizes=_sizes(b)
    )  # fmt: skip
    filters, per_group = b["weight"].shape[:2]
    return Conv(
        transposed=False, channels=int(per_group) * groups, filters=int(filters), windows=windows, groups=groups,
        bias=presence(b.get("bias"), 0.0),
    )  # fmt: skip


@_function(
    ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d"],
    "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
)  # fmt: skip
def _conv_transpose(_: str, b: Bound) -> Facts:
    kernel, groups = tuple(b["weight"].shape[2:]), int(b.get("groups", 1))
    rank = len(kernel)
    windows = Windows(
        kernel=kernel, stride=_each(b.get("stride", 1), rank), dilation=_each(b.get("dilation", 1), rank),
        padding=symmetric(_each(b.get("padding", 0), rank)), sizes=_sizes(b),
    )  # fmt: skip
    channels, per_group = b["weight"].shape[:2]
    return Conv(
        transposed=True, channels=int(channels), filters=int(per_group) * groups, windows=windows, groups=groups,
        bias=presence(b.get("bias"), 0.0), output_padding=_each(b.get("output_padding", 0), rank),
    )  # fmt: skip


@_function(["linear"], "weight", "bias")
def _linear(_: str, b: Bound) -> Facts:
    units, channels = b["weight"].shape
    return Dense(channels=int(channels), units=int(units), bias=presence(b.get("bias"), 0.0))


_PRODUCTS = ("matmul", "mm", "addmm")


@_function(["matmul", "mm"], "weight")
def _product(_: str, b: Bound) -> Facts | None:
    weight = b.get("weight", b.get("other", b.get("mat2")))
    if weight is None or weight.ndim != 2 or b["input"].ndim < 2:
        return None
    b["weight"] = weight
    return Dense(channels=int(weight.shape[0]), units=int(weight.shape[1]), bias=Presence.NONE)


def _biased_product(_: str, b: Bound) -> Facts | None:
    bias, weight = b["bias"], b.get("weight")
    scaled = b.get("beta", 1) != 1 or b.get("alpha", 1) != 1
    if weight is None or scaled or tuple(bias.shape) != (int(weight.shape[1]),):
        return None
    return Dense(channels=int(weight.shape[0]), units=int(weight.shape[1]), bias=presence(bias, 0.0))


_BUILDERS["addmm"] = (("bias", "input", "weight"), _biased_product)


@_function(["batch_norm"], "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
def _batch_norm(_: str, b: Bound) -> Facts:
    kept = b.get("running_mean") is not None
    return Norm(
        kind="batch", epsilon=float(b.get("eps", 1e-5)), scale=presence(b.get("weight"), 1.0),
        centre=presence(b.get("bias"), 0.0), normalised=int(b["input"].shape[1]), statistics=kept,
        momentum=1.0 - float(b.get("momentum") or 0.1) if kept else None,
    )  # fmt: skip


@_function(["layer_norm", "rms_norm"], "normalized_shape", "weight", "bias", "eps")
def _layer_norm(name: str, b: Bound) -> Facts:
    kind = "layer" if name == "layer_norm" else "rms"
    return Norm(
        kind=kind, epsilon=float(b.get("eps") or 1e-5), scale=presence(b.get("weight"), 1.0),
        centre=presence(b.get("bias") if kind == "layer" else None, 0.0), normalised=math.prod(b["normalized_shape"]),
    )  # fmt: skip


@_function(["group_norm"], "num_groups", "weight", "bias", "eps")
def _group_norm(_: str, b: Bound) -> Facts:
    channels, groups = int(b["input"].shape[1]), int(b["num_groups"])
    return Norm(
        kind="instance" if groups == channels else "group", epsilon=float(b.get("eps", 1e-5)), groups=groups,
        scale=presence(b.get("weight"), 1.0), centre=presence(b.get("bias"), 0.0), normalised=channels,
    )  # fmt: skip


@_function(["instance_norm"], "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps")
def _instance_norm(_: str, b: Bound) -> Facts:
    channels = int(b["input"].shape[1])
    return Norm(
        kind="instance", epsilon=float(b.get("eps", 1e-5)), groups=channels, scale=presence(b.get("weight"), 1.0),
        centre=presence(b.get("bias"), 0.0), normalised=channels,
    )  # fmt: skip


@_function(["embedding"], "weight")
def _embedding(_: str, b: Bound) -> Facts | None:
    weight = b.get("weight")
    return Embedding(rows=int(weight.shape[0]), width=int(weight.shape[1])) if weight is not None else None


def _pool_windows(b: Bound, fill: float) -> Windows:
    sizes = _sizes(b)
    rank = len(sizes)
    kernel = _each(b["kernel_size"], rank)
    return Windows(
        kernel=kernel, stride=_each(b.get("stride") or kernel, rank), dilation=_each(b.get("dilation", 1), rank),
        padding=symmetric(_each(b.get("padding", 0), rank)), fill=fill, sizes=sizes, ceil=bool(b.get("ceil_mode")),
    )  # fmt: skip


@_function(["max_pool1d", "max_pool2d", "max_pool3d"], "kernel_size", "stride", "padding", "dilation", "ceil_mode")
def _max_pool(_: str, b: Bound) -> Facts:
    return Pool(kind="max", windows=_pool_windows(b, float("-inf")))


@_function(
    ["avg_pool1d", "avg_pool2d", "avg_pool3d"], "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"
)
def _average_pool(_: str, b: Bound) -> Facts:
    windows = _pool_windows(b, 0.0)
    padded = any(n for pair in windows.padding or () for n in pair)
    return Pool(kind="average", windows=windows, counts_padding=bool(b.get("count_include_pad", True)) and padded)


@_function([f"adaptive_{kind}_pool{rank}d" for kind in ("max", "avg") for rank in (1, 2, 3)], "output_size")
def _adaptive_pool(name: str, b: Bound) -> Facts:
    sizes = _sizes(b)
    size = b["output_size"]
    wanted = size if isinstance(size, tuple | list) else (size,) * len(sizes)
    output = tuple(n if n is not None else sizes[i] for i, n in enumerate(wanted))
    return Pool(kind="max" if "max" in name else "average", output=output)


@_function(["mean", "amax"], "dim", "keepdim")
def _reduce(name: str, b: Bound) -> Facts | None:
    axes, rank = b.get("dim", b.get("axis")), b["input"].ndim
    axes = axes if isinstance(axes, tuple | list) else (axes,)
    if None in axes or len(axes) >= rank or 0 in {a % rank for a in axes}:
        return None
    return Pool(kind="average" if name == "mean" else "max", output=(1,) * len(axes))


@_function(["dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"], "p", "training")
def _dropout(name: str, b: Bound) -> Facts:
    kind = {"dropout": "element", "alpha_dropout": "alpha"}.get(name, "channel")
    return Dropout(kind=kind, rate=float(b.get("p", 0.5)))


@_function(["pad"], "pad", "mode", "value")
def _pad(_: str, b: Bound) -> Facts | None:
    flat = [int(n) for n in b["pad"]]
    pairs = tuple(reversed([(flat[i], flat[i + 1]) for i in range(0, len(flat), 2)]))
    spatial = b["input"].ndim - 2
    if not any(flat) or len(pairs) > spatial:
        return None
    mode = str(b.get("mode", "constant"))
    fill: float | str = float(b.get("value") or 0.0) if mode == "constant" else {"replicate": "edge"}.get(mode, mode)
    return Padding(pads=((0, 0),) * (spatial - len(pairs)) + pairs, fill=fill)


@_function(["interpolate", "upsample"], "size", "scale_factor", "mode", "align_corners")
def _interpolate(_: str, b: Bound) -> Facts:
    rank = b["input"].ndim - 2
    factor, size = b.get("scale_factor"), b.get("size")
    each = tuple(factor) if isinstance(factor, tuple | list) else (factor,) * rank
    return Resize(
        mode=b.get("mode", "nearest"), factor=tuple(map(float, each)) if factor is not None else None,
        size=_each(size, rank) if size is not None else None, corners=bool(b.get("align_corners")),
    )  # fmt: skip


_PLAIN = {
    "relu": "relu", "silu": "silu", "mish": "mish", "sigmoid": "sigmoid", "tanh": "tanh", "selu": "selu",
    "softsign": "softsign", "logsigmoid": "log_sigmoid", "log_sigmoid": "log_sigmoid", "hardsigmoid": "hard_sigmoid",
    "hardswish": "hard_silu", "tanhshrink": "tanh_shrink", "softmax": "softmax", "log_softmax": "log_softmax",
    "exp": "exponential", "softmin": "softmin",
}  # fmt: skip


@_function(list(_PLAIN), "dim")
def _plain(name: str, _: Bound) -> Facts:
    return Activation(name=_PLAIN[name])


@_function(["leaky_relu"], "negative_slope")
def _leaky(_: str, b: Bound) -> Facts:
    return Activation(name="leaky_relu", settings=(("negative_slope", float(b.get("negative_slope", 0.01))),))


@_function(["elu", "celu"], "alpha")
def _elu(name: str, b: Bound) -> Facts:
    return Activation(name=name, settings=(("alpha", float(b.get("alpha", 1.0))),))


@_function(["gelu"], "approximate")
def _gelu(_: str, b: Bound) -> Facts:
    return Activation(name="gelu", settings=(("approximate", b.get("approximate", "none") == "tanh"),))


@_function(["softplus"], "beta", "threshold")
def _softplus(_: str, b: Bound) -> Facts:
    return Activation(name="softplus", settings=(("beta", float(b.get("beta", 1.0))),))


@_function(["relu6"])
def _relu6(_: str, __: Bound) -> Facts:
    return clip(0.0, 6.0)


@_function(["hardtanh"], "min_val", "max_val")
def _hardtanh(_: str, b: Bound) -> Facts:
    return clip(float(b.get("min_val", -1.0)), float(b.get("max_val", 1.0)))


@_function(["clamp", "clip"], "min", "max")
def _clamp(_: str, b: Bound) -> Facts | None:
    low, high = b.get("min"), b.get("max")
    if isinstance(low, int | float) and isinstance(high, int | float):
        return clip(float(low), float(high))
    return Activation(name="relu") if low == 0 and high is None else None


@_function(["prelu"], "weight")
def _prelu(_: str, b: Bound) -> Facts:
    return Activation(name="prelu", settings=(("slopes", int(b["weight"].numel())),))
