"""A PyTorch model cut off where a Keras model ends: a backbone without its head is judged against the features."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from translator.audit.align import Alignment
from translator.audit.moves import Move
from translator.verify.torch_record import Key, map_tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where to cut: the result of a module call, and the functions that follow it in the forward."""

    key: Key
    then: tuple[Move, ...] = ()


def features_end(alignment: Alignment) -> End | None:
    """Where PyTorch has what Keras puts out; None where that is PyTorch's own result, or nowhere."""
    if len(alignment.right.outputs) != 1:
        return None
    wanted = alignment.right.outputs[0]
    if any(alignment.values.twins.get(v) == wanted for v in alignment.left.outputs):
        return None
    twins = [v for v, twin in alignment.values.twins.items() if twin == wanted]
    return next((end for value in twins if (end := _end_at(alignment, value)) is not None), None)


def _end_at(alignment: Alignment, value: int) -> End | None:
    """The outermost module call that gives the value, or what it is made of by functions of one tensor."""
    made = {v: u for u in alignment.torch.network.units for v in u.outputs}
    then: list[Move] = []
    while True:
        calls = [c for c in alignment.torch.calls if c.path and c.outputs == (value,)]
        if calls:
            best = min(calls, key=lambda c: (c.path.count("."), len(c.path)))
            return End(key=(best.path, best.call), then=tuple(reversed(then)))
        before = made[value].inputs if value in made else alignment.torch.network.past.get(value, ())
        if value not in alignment.torch.moves or len(before) != 1:
            return None
        then.append(alignment.torch.moves[value])
        value = before[0]


def truncated(module: nn.Module, end: End) -> nn.Module:
    """The same module (the same children, the same tensors), whose result is that of a place inside it."""
    path, call = end.key
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
        result = seen[call]
        for step in end.then:
            result = step(result)
        return result

    short.forward = run
    return short
