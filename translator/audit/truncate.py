"""A PyTorch model cut off where a Keras model ends: a backbone without its head is judged against the features."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from translator.audit.align import Alignment
from translator.verify.torch_record import Key, map_tensors


def features_call(alignment: Alignment) -> Key | None:
    """The outermost module call whose result is what Keras puts out; None where PyTorch's own result is, or none is."""
    if len(alignment.right.outputs) != 1:
        return None
    wanted = alignment.right.outputs[0]
    if any(alignment.values.twins.get(v) == wanted for v in alignment.left.outputs):
        return None
    twins = [v for v, twin in alignment.values.twins.items() if twin == wanted]
    calls = [c for c in alignment.torch.calls if c.path and len(c.outputs) == 1 and c.outputs[0] in twins]
    if not calls:
        return None
    best = min(calls, key=lambda c: (c.path.count("."), len(c.path)))
    return best.path, best.call


def truncated(module: nn.Module, key: Key) -> nn.Module:
    """The same module (the same children, the same tensors), whose result is that of one of its inner calls."""
    path, call = key
    short = copy.copy(module)
    forward = type(module).forward

    def run(*args: Any, **kwargs: Any) -> Any:
        seen: list[Any] = []

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            seen.append(map_tensors(torch.clone, output) if len(seen) == call else None)

        handle = module.get_submodule(path).register_forward_hook(keep)
        try:
            forward(short, *args, **kwargs)
        finally:
            handle.remove()
        return seen[call]

    short.forward = run
    return short
