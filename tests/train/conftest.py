"""What the training tests share: Keras in float64, given back afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np
import pytest
import torch


@pytest.fixture
def float64() -> Iterator[None]:
    """Keras' default dtype is float64 inside the test."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


@pytest.fixture
def example(rng: np.random.Generator) -> torch.Tensor:
    """Two images of 6 x 6."""
    return torch.tensor(rng.normal(size=(2, 3, 6, 6)), dtype=torch.float32)
