"""What TensorFlow can't do in float64, or does with constants rounded to float32, done exactly.

Only the float64 runs use them: they ask whether the right function was chosen with the right settings. The float32 run
judges TensorFlow's own functions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import keras


@contextmanager
def exact_activations() -> Iterator[None]:
    """While active, gelu and leaky_relu of Keras' TensorFlow backend are exact in float64, and their own below it."""
    from keras.src.backend import nn

    with ExitStack() as stack:
        for name, exact in (("gelu", _gelu), ("leaky_relu", _leaky_relu)):
            stack.enter_context(patch.object(nn, name, _in_float64(getattr(nn, name), exact)))
        yield


@contextmanager
def exact_pools() -> Iterator[None]:
    """While active, poolings over three axes exist in float64, where TensorFlow's CPU has none: one axis at a time."""
    from keras.src.backend import nn

    def pooled(original: Any, adaptive: Any) -> Any:
        def function(inputs: Any, *args: Any, **options: Any) -> Any:
            inputs = keras.ops.convert_to_tensor(inputs)
            wide = keras.backend.standardize_dtype(inputs.dtype) == "float64" and len(inputs.shape) == 5
            if not wide:
                return original(inputs, *args, **options)
            return adaptive(original, inputs, *args, **options)

        return function

    with ExitStack() as stack:
        for name, exact in (
            ("max_pool", _by_axis), ("average_pool", _by_axis),
            ("adaptive_max_pool", _adaptive_by_axis), ("adaptive_average_pool", _adaptive_by_axis),
        ):  # fmt: skip
            stack.enter_context(patch.object(nn, name, pooled(getattr(nn, name), exact)))
        yield


def _by_axis(
    original: Any, inputs: Any, pool_size: Any, strides: Any = None, padding: str = "valid", data_format: Any = None
) -> Any:
    sizes = (pool_size,) * 3 if isinstance(pool_size, int) else tuple(pool_size)
    steps = sizes if strides is None else (strides,) * 3 if isinstance(strides, int) else tuple(strides)
    for axis, (size, step) in enumerate(zip(sizes, steps, strict=True), start=1):
        inputs = _along(inputs, axis, lambda x, n=size, s=step: original(x, n, s, padding, "channels_last"))
    return inputs


def _adaptive_by_axis(original: Any, inputs: Any, output_size: Any, data_format: Any = None) -> Any:
    sizes = (output_size,) * 3 if isinstance(output_size, int) else tuple(output_size)
    for axis, size in enumerate(sizes, start=1):
        inputs = _along(inputs, axis, lambda x, n=size: original(x, n, "channels_last"))
    return inputs


def _along(inputs: Any, axis: int, function: Any) -> Any:
    """A pooling of (N, T, C), applied along one axis of (N, D, H, W, C) channels last."""
    moved = keras.ops.moveaxis(inputs, axis, 3)
    shape = keras.ops.shape(moved)
    pooled = function(keras.ops.reshape(moved, (-1, *shape[3:])))
    return keras.ops.moveaxis(keras.ops.reshape(pooled, (*shape[:3], -1, shape[4])), 3, axis)


def _in_float64(original: Any, exact: Any) -> Any:
    def function(x: Any, *args: Any, **options: Any) -> Any:
        x = keras.ops.convert_to_tensor(x)
        chosen = exact if keras.backend.standardize_dtype(x.dtype) == "float64" else original
        return chosen(x, *args, **options)

    return function


def _gelu(x: Any, approximate: bool = True) -> Any:
    if approximate:
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return 0.5 * x * (1 + keras.ops.tanh(inner))
    return 0.5 * x * (1 + keras.ops.erf(x * math.sqrt(0.5)))


def _leaky_relu(x: Any, negative_slope: float = 0.2) -> Any:
    return keras.ops.where(x >= 0, x, negative_slope * x)
