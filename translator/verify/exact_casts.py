"""Python numbers that Keras' own code casts to a float, such as MultiHeadAttention's 1/sqrt(key_dim), kept exact.

TensorFlow makes a float32 of a number before it casts it, even to float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import keras


def exact_casts() -> AbstractContextManager[None]:
    """While active, a number cast to float64 is a tensor of that number."""
    return _numbers_cast(lambda x, dtype: keras.ops.convert_to_tensor(x, dtype) if dtype == "float64" else None)


def exact_numbers() -> AbstractContextManager[None]:
    """While active, a number cast to any float stays the number: a call is followed, and nothing is computed yet."""
    return _numbers_cast(lambda x, dtype: x if "float" in dtype else None)


@contextmanager
def _numbers_cast(instead: Callable[[float, str], Any]) -> Iterator[None]:
    """Let Keras' backend cast a number by `instead`, and by itself where that gives None."""
    from keras.src.backend import core

    original = core.cast

    def cast(x: Any, dtype: Any) -> Any:
        found = instead(x, keras.backend.standardize_dtype(dtype)) if isinstance(x, float) else None
        return original(x, dtype) if found is None else found

    with patch.object(core, "cast", cast):
        yield
