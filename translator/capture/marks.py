"""Keep what the exporter would lose: operations marked while PyTorch runs, as nodes of the domain "translator".

Dropout vanishes from an eval-mode export; attention is broken up with constants rounded to float32. A
`TorchFunctionMode` replaces such calls by symbolic ONNX nodes whose attributes are text, so every number stays exact.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.onnx import ops as onnx_ops
from torch.overrides import TorchFunctionMode

from translator.capture.aliases import Aliases, aliases_kept, one_tensor
from translator.capture.complex_views import COMPLEX, scaled
from translator.capture.exactly import exactly
from translator.capture.missing import MISSING
from translator.capture.nodes import DOMAIN, Attributes

_DATA, _SET_DATA = Tensor.data.__get__, Tensor.data.__set__  # type: ignore[attr-defined]
"""`weight.data *= mask`, as masked convolutions write it: a trace sees the change only through `detach`."""

_DROPOUTS: dict[Callable[..., Any], str] = {
    functional.dropout: "element",
    functional.dropout1d: "channel",
    functional.dropout2d: "channel",
    functional.dropout3d: "channel",
    functional.alpha_dropout: "alpha",
    functional.feature_alpha_dropout: "feature_alpha",
}

_ADAPTIVE_POOLS: dict[Callable[..., Any], tuple[str, int]] = {
    functional.adaptive_avg_pool1d: ("AdaptiveAveragePool", 1),
    functional.adaptive_avg_pool2d: ("AdaptiveAveragePool", 2),
    functional.adaptive_avg_pool3d: ("AdaptiveAveragePool", 3),
    functional.adaptive_max_pool1d: ("AdaptiveMaxPool", 1),
    functional.adaptive_max_pool2d: ("AdaptiveMaxPool", 2),
    functional.adaptive_max_pool3d: ("AdaptiveMaxPool", 3),
}
"""The exporter writes them as strided views and gathers. With indices they stay as they are."""

_ATTENTION = functional.scaled_dot_product_attention
"""Also under a name that the user's code imported."""

_ROLLS = frozenset({torch.roll, Tensor.roll})


_CLAMPS = frozenset({
    torch.clamp, torch.clip, torch.clamp_, Tensor.clamp, Tensor.clip, Tensor.clamp_, Tensor.clip_, functional.hardtanh,
})  # fmt: skip


class MarkMode(TorchFunctionMode):
    """While active, the functions it knows become nodes of the domain "translator" in a `torch.export` trace."""

    def __init__(self, aliases: Aliases) -> None:
        super().__init__()
        self.aliases = aliases

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = self._run(func, args, kwargs or {})
        self.aliases.settle()
        return result

    def _run(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in COMPLEX and args and isinstance(args[0], Tensor) and args[0].is_complex():
            return COMPLEX[func](*args, **kwargs)
        if func == _DATA:
            return args[0].detach()
        if func == _SET_DATA and args[0].shape == args[1].shape:
            return args[0].detach().copy_(args[1])
        if func is _ATTENTION:
            return mark_attention(*args, **kwargs)
        if func in _DROPOUTS:
            return _dropout(_DROPOUTS[func], *args, **kwargs)
        if func in _ADAPTIVE_POOLS:
            return _adaptive_pool(*_ADAPTIVE_POOLS[func], *args, **kwargs)
        if func in _ROLLS:
            return _roll(*args, **kwargs)
        if func is functional.interpolate:
            return _interpolate(*args, **kwargs)
        if func is functional.instance_norm:
            return _instance_norm(*args, **kwargs)
        if func is functional.rrelu:
            return _rrelu(*args, **kwargs)
        if func in MISSING:
            return MISSING[func](*args, **kwargs)
        found = exactly(func, args, kwargs)
        if found is None:
            found = scaled(func, args)
        if found is not None:
            return found
        if func in _CLAMPS:
            args, kwargs = _bounds_alike(args, kwargs)
        return func(*args, **kwargs)


@contextlib.contextmanager
def functions_marked() -> Iterator[None]:
    """While active, PyTorch's functions go through a `MarkMode`."""
    with aliases_kept() as aliases, MarkMode(aliases):
        yield


@contextlib.contextmanager
def attention_marked() -> Iterator[None]:
    """While active, `F.scaled_dot_product_attention` marks itself, also where torch's own Python functions call it.

    `F.multi_head_attention_forward` runs with the `MarkMode` off (PyTorch pops a mode while it handles a function).
    """
    original = functional.scaled_dot_product_attention
    functional.scaled_dot_product_attention = mark_attention
    try:
        yield
    finally:
        functional.scaled_dot_product_attention = original


def _bounds_alike(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Bounds of a clamp as floats if one of them is one: the exporter knows no clamp from -1 to 0.5."""
    if not any(isinstance(v, float) for v in (*args, *kwargs.values())):
        return args, kwargs
    return tuple(map(_as_float, args)), {name: _as_float(v) for name, v in kwargs.items()}


def _as_float(value: Any) -> Any:
    return float(value) if type(value) is int else value


def _dropout(kind: str, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:  # noqa: A002
    return mark_dropout(kind, input, p) if p > 0 else input


def mark_dropout(kind: str, x: Tensor, rate: float) -> Tensor:
    """A dropout of some kind (element, channel, path, batch …) as one node; x itself in evaluation."""
    attributes: Attributes = {"rate": repr(float(rate)), "kind": kind}
    y = onnx_ops.symbolic(f"{DOMAIN}::Dropout", [x], attributes, dtype=x.dtype, shape=x.shape, version=1)
    return one_tensor(x, y)


def mark_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`F.scaled_dot_product_attention` as one node; grouped heads are repeated before."""
    if enable_gqa and key.shape[-3] != query.shape[-3]:
        groups = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    inputs = [query, key, value] + ([attn_mask] if attn_mask is not None else [])
    exact = float(scale) if scale is not None else float(query.shape[-1]) ** -0.5
    attributes: Attributes = {"causal": int(is_causal), "scale": repr(exact), "rate": repr(float(dropout_p))}
    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])  # type: ignore[no-untyped-call]
    shape = (*batch, query.shape[-2], value.shape[-1])
    return onnx_ops.symbolic(f"{DOMAIN}::Attention", inputs, attributes, dtype=query.dtype, shape=shape, version=1)


def _adaptive_pool(
    op: str,
    axes: int,
    input: Tensor,  # noqa: A002
    output_size: Any,
    return_indices: bool = False,
) -> Any:
    if return_indices:
        function = next(f for f, mark in _ADAPTIVE_POOLS.items() if mark == (op, axes))
        return function(input, output_size, return_indices=True)
    if input.ndim == axes + 1:  # without a batch: each channel by itself, as one of its own
        return _adaptive_pool(op, axes, input.unsqueeze(1), output_size).squeeze(1)
    given = [output_size] * axes if isinstance(output_size, int) else list(output_size)
    sizes = [input.shape[i - axes] if size is None else size for i, size in enumerate(given)]
    if not all(isinstance(size, int) for size in sizes) or input.ndim != axes + 2:
        function = next(f for f, mark in _ADAPTIVE_POOLS.items() if mark == (op, axes))
        return function(input, output_size)
    attributes: Attributes = {"output_size": sizes}
    shape = (*input.shape[:-axes], *sizes)
    return onnx_ops.symbolic(f"{DOMAIN}::{op}", [input], attributes, dtype=input.dtype, shape=shape, version=1)


def _roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:  # noqa: A002
    moved = [shifts] if isinstance(shifts, int) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims or ())
    if not axes or not all(isinstance(s, int) for s in moved):
        return torch.roll(input, shifts, dims)
    attributes: Attributes = {"shifts": moved, "axes": [a % input.ndim for a in axes]}
    return onnx_ops.symbolic(f"{DOMAIN}::Roll", [input], attributes, dtype=input.dtype, shape=input.shape, version=1)


def _interpolate(
    input: Tensor,  # noqa: A002
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Linear interpolation of a sequence as that of an image of height 1: the exporter would round its weights."""
    if mode != "linear" or input.ndim != 3:
        return functional.interpolate(input, size, scale_factor, mode, *args, **kwargs)
    wide = [None if v is None else (1, v[0] if isinstance(v, tuple | list) else v) for v in (size, scale_factor)]
    return functional.interpolate(input.unsqueeze(2), wide[0], wide[1], "bilinear", *args, **kwargs).squeeze(2)


def _instance_norm(
    input: Tensor,  # noqa: A002
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """With running statistics it is a BatchNorm, which the exporter writes as repetitions for each example."""
    if use_input_stats or running_mean is None or running_var is None:
        return functional.instance_norm(
            input, running_mean, running_var, weight, bias, use_input_stats, *args, **kwargs
        )
    eps = kwargs.get("eps", args[1] if len(args) > 1 else 1e-5)
    return functional.batch_norm(input, running_mean, running_var, weight, bias, eps=eps)


def _rrelu(
    input: Tensor,  # noqa: A002
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """In evaluation its slope is the middle one; the exporter knows no RReLU."""
    return functional.leaky_relu(input, (lower + upper) / 2)
