"""How a value of PyTorch's was made of one other by functions without weights, to be done again with other numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from translator.verify.torch_record import tensors_in

Move = Callable[[torch.Tensor], torch.Tensor]


def moved_again(call: Callable[[torch.Tensor], Any], place: int, tensor: torch.Tensor) -> torch.Tensor:
    """The tensor at `place` of what the call gives."""
    return tensors_in(call(tensor))[place]


def moved(numbers: np.ndarray, steps: Iterable[Move]) -> np.ndarray | None:
    """Numbers moved as a value was; None where a step can't take them."""
    tensor = torch.from_numpy(numbers)
    try:
        for step in steps:
            tensor = step(tensor)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return None
    return np.asarray(tensor.numpy())
