"""Maximum poolings that say where the maxima stood, and what puts numbers back there (`MaxUnpool`, as in SegNet).

Keras' poolings give no places: they are found beside the pooling, which stays what it is.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def _each(value: Any, axes: int) -> list[int]:
    given = list(value) if isinstance(value, tuple | list) else [value]
    return given * axes if len(given) == 1 else given


def _pooled(axes: int, original: Callable[..., Any], pool: Callable[..., Tensor]) -> Callable[..., Any]:
    def pooled(
        input: Tensor,  # noqa: A002
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Any:
        sizes = input.shape[2:]
        whole = set(_each(dilation, axes)) != {1} or ceil_mode or input.ndim != axes + 2
        if whole or not all(isinstance(size, int) for size in sizes):
            return original(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
        kernel, pads = _each(kernel_size, axes), _each(padding, axes)
        strides = _each(stride, axes) if stride not in (None, []) else kernel
        values = pool(input, kernel_size, stride, padding, dilation, ceil_mode)
        return values, _places(input, values, kernel, strides, pads)

    return pooled


def _places(x: Tensor, values: Tensor, kernel: list[int], strides: list[int], pads: list[int]) -> Tensor:
    """Where in (*S), counted through, the first maximum of each window stands: (N, C, *S) → (N, C, *out).

    Every offset within the windows is asked by itself, the first one last, whether the maximum stands there.
    """
    sizes, counts, axes = x.shape[2:], values.shape[2:], len(kernel)
    widths = [p for pad in reversed(pads) for p in (pad, pad)]
    x = functional.pad(x, widths, value=float("-inf")) if any(pads) else x
    inside = torch.zeros_like(values, dtype=torch.int64)
    steps = [math.prod(sizes[axis + 1 :]) for axis in range(axes)]
    for offsets in reversed(list(itertools.product(*map(range, kernel)))):
        part = x
        for axis, (offset, step, count) in enumerate(zip(offsets, strides, counts, strict=True), start=2):
            part = part[(slice(None),) * axis + (slice(offset, offset + (count - 1) * step + 1, step),)]
        inside = torch.where(part == values, sum(map(operator.mul, offsets, steps)), inside)
    first: Tensor | int = 0
    for axis, (count, step, pad) in enumerate(zip(counts, strides, pads, strict=True)):
        own = (torch.arange(count) * step - pad) * steps[axis]
        first = first + own.reshape(count, *[1] * (axes - axis - 1))
    return inside + first


def _unpooled(axes: int) -> Callable[..., Tensor]:
    def unpooled(
        input: Tensor,  # noqa: A002
        indices: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        output_size: Any = None,
    ) -> Tensor:
        kernel, pads = _each(kernel_size, axes), _each(padding, axes)
        strides = _each(stride, axes) if stride not in (None, []) else kernel
        along = zip(input.shape[-axes:], strides, pads, kernel, strict=True)
        sizes = [(size - 1) * step - 2 * pad + extent for size, step, pad, extent in along]
        sizes = list(output_size)[-axes:] if output_size is not None else sizes
        if kernel != strides or not all(isinstance(size, int) for size in sizes):
            lead = input.shape[:-axes]
            empty = input.new_zeros(*lead, math.prod(sizes))
            return empty.scatter(-1, indices.flatten(-axes), input.flatten(-axes)).reshape(*lead, *sizes)
        own = torch.arange(math.prod(sizes)).reshape(sizes)
        here = _spread(indices, kernel, pads, sizes, -1) == own
        return torch.where(here, _spread(input, kernel, pads, sizes, 0), 0.0)

    return unpooled


def _spread(x: Tensor, kernel: list[int], pads: list[int], sizes: list[int], fill: int) -> Tensor:
    """Each number at every place of its window: windows lie side by side, what is in none gets `fill`."""
    axes = len(kernel)
    widths: list[int] = []
    for axis, (extent, pad, size) in enumerate(zip(kernel, pads, sizes, strict=True)):
        x = x.repeat_interleave(extent, axis - axes) if extent > 1 else x
        widths = [-pad, size + pad - x.shape[axis - axes], *widths]
    return functional.pad(x, widths, value=fill) if any(widths) else x


POOL_PLACES: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.max_pool1d_with_indices: _pooled(1, functional.max_pool1d_with_indices, functional.max_pool1d),
    functional.max_pool2d_with_indices: _pooled(2, functional.max_pool2d_with_indices, functional.max_pool2d),
    functional.max_pool3d_with_indices: _pooled(3, functional.max_pool3d_with_indices, functional.max_pool3d),
    functional.max_unpool1d: _unpooled(1), functional.max_unpool2d: _unpooled(2), functional.max_unpool3d: _unpooled(3),
}  # fmt: skip
"""What stands for each function while PyTorch traces; where it doesn't know the arguments, the function itself."""
