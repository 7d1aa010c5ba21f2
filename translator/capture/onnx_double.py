"""ONNX ops in float64 that ONNX Runtime has in float32 alone, and ONNX' own reference slowly, or otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

Value = Any
"""A numpy array, None for an input that isn't given, or a list of arrays where ONNX has a sequence."""

Kernel = Callable[[onnx.NodeProto, Sequence[Value]], list[Value] | None]
"""The outputs of a node; None for settings that aren't known here."""


def _settings(node: onnx.NodeProto) -> dict[str, Any]:
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _conv(node: onnx.NodeProto, values: Sequence[Value]) -> list[Value] | None:
    """A convolution of 1 to 3 dimensions, its padding applied before."""
    settings = _settings(node)
    data, kernel = _tensor(values[0]), _tensor(values[1])
    bias = _tensor(values[2]) if len(values) > 2 and values[2] is not None else None
    rank = data.ndim - 2
    strides, dilations = (tuple(settings.get(k, [1] * rank)) for k in ("strides", "dilations"))
    pads = _pads(settings, tuple(data.shape[2:]), tuple(kernel.shape[2:]), strides, dilations)
    if pads is None or rank not in _CONV or data.ndim != kernel.ndim:
        return None
    groups = settings.get("group", 1)
    found = _CONV[rank](_padded(data, pads), kernel, bias, stride=strides, dilation=dilations, groups=groups)
    return [found.numpy()]


def _conv_transpose(node: onnx.NodeProto, values: Sequence[Value]) -> list[Value] | None:
    """A transposed convolution, its padding cut off afterwards."""
    settings = _settings(node)
    data, kernel = _tensor(values[0]), _tensor(values[1])
    bias = _tensor(values[2]) if len(values) > 2 and values[2] is not None else None
    rank = data.ndim - 2
    if rank not in _CONV or "output_shape" in settings or settings.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    strides, dilations = (tuple(settings.get(k, [1] * rank)) for k in ("strides", "dilations"))
    pads, extra = settings.get("pads", [0] * 2 * rank), settings.get("output_padding", [0] * rank)
    groups = settings.get("group", 1)
    found = _TRANSPOSED[rank](data, kernel, None, stride=strides, dilation=dilations, groups=groups)
    found = functional.pad(found, [n for e in reversed(extra) for n in (0, e)])
    cut = tuple(slice(pads[i], found.shape[i + 2] - pads[i + rank]) for i in range(rank))
    found = found[(slice(None), slice(None), *cut)]
    return [(found if bias is None else found + bias.reshape(-1, *[1] * rank)).numpy()]


def _average_pool(node: onnx.NodeProto, values: Sequence[Value]) -> list[Value] | None:
    """The sum of each window over how many of its elements count."""
    settings, data = _settings(node), _tensor(values[0])
    rank = data.ndim - 2
    kernel = tuple(settings["kernel_shape"])
    strides, dilations = (tuple(settings.get(k, [1] * rank)) for k in ("strides", "dilations"))
    pads = _pads(settings, tuple(data.shape[2:]), kernel, strides, dilations)
    if pads is None or rank not in _CONV or settings.get("ceil_mode", 0):
        return None
    ones = torch.ones(1, 1, *kernel, dtype=data.dtype)
    sizes = tuple(data.shape[2:])
    one_by_one = _padded(data.reshape(-1, 1, *sizes), pads)
    counted = torch.ones(1, 1, *sizes, dtype=data.dtype)
    counted = torch.ones_like(one_by_one[:1]) if settings.get("count_include_pad", 0) else _padded(counted, pads)
    total, count = (_CONV[rank](t, ones, stride=strides, dilation=dilations) for t in (one_by_one, counted))
    found = total / count
    return [found.reshape(*data.shape[:2], *found.shape[2:]).numpy()]


def _padded(data: Tensor, pads: Sequence[tuple[int, int]]) -> Tensor:
    return functional.pad(data, [n for pair in reversed(pads) for n in pair])


def _tensor(value: Value) -> Tensor:
    return torch.from_numpy(np.array(value, order="C"))


def _pads(
    settings: Mapping[str, Any], sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int],
    dilations: Sequence[int],
) -> list[tuple[int, int]] | None:  # fmt: skip
    """What is added before and after along each axis; None for a kind of padding that isn't known."""
    rank, auto = len(sizes), settings.get("auto_pad", b"NOTSET").decode()
    if auto == "VALID":
        return [(0, 0)] * rank
    if auto == "NOTSET":
        pads = settings.get("pads", [0] * 2 * rank)
        return [(pads[i], pads[i + rank]) for i in range(rank)]
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        return None
    found = []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        less, more = total // 2, total - total // 2
        found.append((less, more) if auto == "SAME_UPPER" else (more, less))
    return found


def _erf(node: onnx.NodeProto, values: Sequence[Value]) -> list[Value] | None:
    return [torch.special.erf(_tensor(values[0])).numpy()]


def _gelu(node: onnx.NodeProto, values: Sequence[Value]) -> list[Value] | None:
    approximate = _settings(node).get("approximate", b"none").decode()
    return [functional.gelu(_tensor(values[0]), approximate=approximate).numpy()]


def _hard_sigmoid(node: onnx.NodeProto, values: Sequence[Value]) -> list[Value] | None:
    """clip(αx + β, 0, 1)."""
    settings = _settings(node)
    alpha = _meant(settings.get("alpha", float(np.float32(0.2))), 1 / 6)
    return [np.clip(values[0] * alpha + settings.get("beta", 0.5), 0.0, 1.0)]


def _selu(node: onnx.NodeProto, values: Sequence[Value]) -> list[Value] | None:
    """γ·x above zero, γα·(exp(x) − 1) below."""
    settings, x = _settings(node), values[0]
    alpha, gamma = _SELU
    alpha = _meant(settings.get("alpha", float(np.float32(alpha))), alpha)
    gamma = _meant(settings.get("gamma", float(np.float32(gamma))), gamma)
    return [gamma * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))]


def _meant(number: float, exact: float) -> float:
    """`exact` where the number is the float32 next to it: what the op's definition means by it, and Keras computes."""
    return exact if number == float(np.float32(exact)) else number


def _hard_swish(node: onnx.NodeProto, values: Sequence[Value]) -> list[Value] | None:
    return [values[0] * np.clip(values[0] / 6 + 0.5, 0.0, 1.0)]


def _local_response(node: onnx.NodeProto, values: Sequence[Value]) -> list[Value] | None:
    """x / (bias + alpha / size · Σ x²) ** beta, the sum over the channels beside."""
    defaults = {"alpha": float(np.float32(1e-4)), "beta": 0.75, "bias": 1.0}
    settings, data = {**defaults, **_settings(node)}, values[0]
    size, count = settings["size"], data.shape[1]
    total = np.zeros_like(data)
    for channel in range(count):
        window = slice(max(channel - (size - 1) // 2, 0), min(channel + size // 2 + 1, count))
        total[:, channel] = (data[:, window] ** 2).sum(axis=1)
    return [data / (settings["bias"] + settings["alpha"] / size * total) ** settings["beta"]]


_SELU = (1.67326324235437728481704, 1.05070098735548049341933)
"""α and γ of the self-normalising networks that the op is for."""

_CONV: Mapping[int, Callable[..., Tensor]] = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED: Mapping[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d,
}  # fmt: skip

BY_TORCH: Mapping[str, Kernel] = {
    "Conv": _conv, "ConvTranspose": _conv_transpose, "AveragePool": _average_pool, "Erf": _erf, "Gelu": _gelu,
    "Selu": _selu, "HardSigmoid": _hard_sigmoid, "HardSwish": _hard_swish, "LRN": _local_response,
}  # fmt: skip
