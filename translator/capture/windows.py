"""Windows of a spectrum by their formulas: the exporter rounds those that it has, and lacks the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def _angles(length: int, periodic: bool, dtype: torch.dtype | None) -> Tensor:
    """2π·n/N for each place n of the window; N is one less where it isn't periodic."""
    count = length if periodic else length - 1
    return torch.arange(length, dtype=dtype or torch.get_default_dtype()) * (2 * math.pi / max(count, 1))


def _cosines(*weights: float) -> Callable[..., Tensor]:
    """The window of these weights: w₀ − w₁·cos(a) + w₂·cos(2a)."""

    def window(window_length: int, periodic: bool = True, *, dtype: Any = None, **_: Any) -> Tensor:
        if window_length == 1:
            return torch.ones(1, dtype=dtype)
        angles = _angles(window_length, periodic, dtype)
        found = weights[0] - weights[1] * torch.cos(angles)
        return found if len(weights) == 2 else found + weights[2] * torch.cos(2 * angles)

    return window


def _hamming(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *, dtype: Any = None, **_: Any
) -> Tensor:
    return _cosines(alpha, beta)(window_length, periodic, dtype=dtype)


def _bartlett(window_length: int, periodic: bool = True, *, dtype: Any = None, **_: Any) -> Tensor:
    if window_length == 1:
        return torch.ones(1, dtype=dtype)
    return 1 - (_angles(window_length, periodic, dtype) / math.pi - 1).abs()


WINDOWS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.hann_window: _cosines(0.5, 0.5), torch.hamming_window: _hamming, torch.bartlett_window: _bartlett,
    torch.blackman_window: _cosines(0.42, 0.5, 0.08),
}  # fmt: skip
"""What stands for each window while PyTorch traces."""
