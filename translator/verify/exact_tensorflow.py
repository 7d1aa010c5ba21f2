"""Functions whose constants TensorFlow rounds to float32 even where it computes in float64, with the constants exact.

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
