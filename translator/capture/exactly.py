"""Functions that the exporter writes so that digits are lost, said as it writes them well, or marked.

log1p(x) as log(1 + x) is 0 for every small x, logaddexp(a, b) as log(exp(a) + exp(b)) is infinite from 710 on,
logsigmoid(x) as log(sigmoid(x)) from -745 down, and the constants of deg2rad and sinc are rounded to float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from translator.capture.nodes import one_node

_MARKED: dict[Callable[..., Any], str] = {
    torch.log1p: "Log1p", Tensor.log1p: "Log1p", torch.special.log1p: "Log1p",
    torch.expm1: "Expm1", Tensor.expm1: "Expm1", torch.special.expm1: "Expm1",
    functional.logsigmoid: "LogSigmoid",
}  # fmt: skip


def _distance(a: Tensor, b: Tensor) -> Tensor:
    """|a - b|, 0 also between equal infinities."""
    return torch.where(a == b, 0.0, (a - b).abs())


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(a, b) + one_node("Log1p", torch.exp(-_distance(a, b)))


def _logaddexp2(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(a, b) + one_node("Log1p", torch.exp2(-_distance(a, b))) * (1 / math.log(2))


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    """By the ratio of the smaller to the larger, whose square can't overflow."""
    larger, smaller = torch.maximum(a.abs(), b.abs()), torch.minimum(a.abs(), b.abs())
    ratio = smaller / larger
    return torch.where((larger == 0) | larger.isinf(), larger, larger * torch.sqrt(1 + ratio * ratio))


def _sinc(x: Tensor) -> Tensor:
    angle = x * math.pi
    return torch.where(x == 0, 1.0, torch.sin(angle) / angle)


_OTHERWISE: dict[Callable[..., Any], Callable[..., Tensor]] = {
    torch.logaddexp: _logaddexp, Tensor.logaddexp: _logaddexp,
    torch.logaddexp2: _logaddexp2, Tensor.logaddexp2: _logaddexp2,
    torch.hypot: _hypot, Tensor.hypot: _hypot,
    torch.deg2rad: lambda x: x * (math.pi / 180), Tensor.deg2rad: lambda x: x * (math.pi / 180),
    torch.rad2deg: lambda x: x * (180 / math.pi), Tensor.rad2deg: lambda x: x * (180 / math.pi),
    torch.sinc: _sinc, Tensor.sinc: _sinc, torch.special.sinc: _sinc,
}  # fmt: skip


def exactly(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The result of a function of floats by exact means; None for a function or arguments that it doesn't know."""
    if kwargs or not all(isinstance(a, Tensor) and a.is_floating_point() for a in args):
        return None
    if function in _MARKED and len(args) == 1:
        return one_node(_MARKED[function], args[0])
    return _OTHERWISE[function](*args) if function in _OTHERWISE else None
