"""Whether a batch of one keeps its axis in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from translator.verdict import Difference, Effect
from translator.verify.torch_record import evaluating, outputs_of, tensors_in

Shapes = list[tuple[str, list[tuple[int, ...]]]]


def first_squeezed(
    module: nn.Module,
    several: tuple[tuple[Any, ...], Mapping[str, Any]],
    one: tuple[tuple[Any, ...], Mapping[str, Any]],
) -> Difference | None:
    """The first module whose result has fewer axes for one row than for several, as a difference, if there is one.

    several, one: positional arguments and keywords. Raises what PyTorch raises where it doesn't take them.
    """
    for (path, many), (_, alone) in zip(_shapes(module, several), _shapes(module, one), strict=False):
        for before, after in zip(many, alone, strict=False):
            if len(after) < len(before):
                return Difference(
                    kind="squeezed-batch",
                    layers=(path or "(model)",),
                    torch=f"{after} for a batch of one",
                    keras="the axis of the batch stays",
                    effect=Effect.NOTHING,
                    fix="x.squeeze(1) in place of x.squeeze() gives PyTorch the same shape for every batch",
                    detail="the numbers are the same; proven at other batches",
                )
    return None


def _shapes(module: nn.Module, inputs: tuple[tuple[Any, ...], Mapping[str, Any]]) -> Shapes:
    """The shapes that each module call puts out, in order."""
    found: Shapes = []

    def note(path: str, _: nn.Module, args: Any, output: Any) -> None:
        found.append((path, [tuple(t.shape) for t in tensors_in(output)]))

    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(evaluating(module))
        for path, part in module.named_modules():
            if not isinstance(part, torch.jit.ScriptModule):
                stack.callback(part.register_forward_hook(partial(note, path)).remove)
        outputs_of(module, inputs[0], inputs[1])
    return found
