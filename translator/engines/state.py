"""A PyTorch module's tensors as numpy arrays by state-dict name."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def state_of(module: nn.Module) -> dict[str, np.ndarray]:
    """Every parameter and buffer, non-persistent ones included, by its first name. float16 and bfloat16 are upcast."""
    state: dict[str, np.ndarray] = {}
    seen: set[int] = set()
    for table in (module.named_parameters(), module.named_buffers()):
        for name, tensor in table:
            if id(tensor) not in seen:
                seen.add(id(tensor))
                state[name] = as_numpy(tensor)
    return state


def as_numpy(tensor: torch.Tensor) -> np.ndarray:
    """The numbers of a tensor, without a copy where the memory can be shared."""
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.bfloat16, torch.float16):
        tensor = tensor.float()
    return tensor.numpy()
