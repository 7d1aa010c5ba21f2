"""The layer table of a PyTorch model, from forward hooks alone: any model that runs has one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from translator import runtime
from translator.report.summary import SummaryRow, SummaryTable, counted_once
from translator.types import Shape

runtime.prepare()

import torch  # noqa: E402
from torch import nn  # noqa: E402

_LISTS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
"""Containers that compute nothing of their own; torchsummary leaves them out, too."""
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a module that ended, or a module that holds tensors and was never called."""

    path: str
    module: nn.Module
    call: int
    shapes: tuple[Shape, ...]
    note: str = ""


def torch_summary(
    module: nn.Module, example_inputs: Any, example_kwargs: Mapping[str, Any] | None = None
) -> SummaryTable:
    """Run the module once in eval mode and list its modules in the order in which their calls end.

    Containers that only hold others are left out; a module whose parameters are used without calling it (the output
    projection of an attention layer) stands before the module around it, marked "not called". The module's state, its
    training flags and the global random generator are as before.
    """
    inputs = tuple(example_inputs) if isinstance(example_inputs, (tuple, list)) else (example_inputs,)
    calls = _with_uncalled(module, _record(module, inputs, example_kwargs or {}))
    parameters: set[int] = set()
    buffers: set[int] = set()
    rows = [_row(call, parameters, buffers) for call in calls]
    own = dict(module.named_buffers())
    return SummaryTable(
        framework="PyTorch",
        name=type(module).__name__,
        rows=tuple(rows),
        total=sum(p.numel() for p in module.parameters()),
        trainable=sum(p.numel() for p in module.parameters() if p.requires_grad),
        buffers=sum(b.numel() for b in own.values()),
        statistics=sum(b.numel() for name, b in own.items() if name.rpartition(".")[2] in _STATISTICS),
    )


def _row(call: _Call, parameters: set[int], buffers: set[int]) -> SummaryRow:
    held = [(id(p), p.numel()) for p in call.module.parameters(recurse=False)]
    params, shared = counted_once(held, parameters)
    state, _ = counted_once([(id(b), b.numel()) for b in call.module.buffers(recurse=False)], buffers)
    return SummaryRow(
        name=call.path or type(call.module).__name__,
        type=type(call.module).__name__,
        shapes=call.shapes,
        params=params,
        shared=shared,
        buffers=state,
        call=call.call,
        note=call.note,
    )


def _record(module: nn.Module, inputs: Sequence[Any], kwargs: Mapping[str, Any]) -> list[_Call]:
    batch = next((t.shape[0] for t in _tensors([*inputs, *kwargs.values()]) if t.ndim), None)
    found: list[_Call] = []
    counts: dict[str, int] = {}
    handles = []
    for path, part in module.named_modules():
        if not _is_listed(part, path):
            continue

        def ended(part: nn.Module, _: Any, output: Any, path: str = path) -> None:
            shapes = tuple(_shape(tensor, batch) for tensor in _tensors(output))
            found.append(_Call(path, part, counts.get(path, 0), shapes))
            counts[path] = counts.get(path, 0) + 1

        handles.append(part.register_forward_hook(ended))
    try:
        with _as_it_was(module), torch.no_grad():
            module.eval()(*inputs, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _is_listed(module: nn.Module, path: str) -> bool:
    """The root and mere containers are listed only where they hold tensors of their own."""
    if path and not isinstance(module, _LISTS):
        return True
    return _holds(module)


def _holds(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False)) or any(True for _ in module.buffers(recurse=False))


def _with_uncalled(module: nn.Module, calls: Sequence[_Call]) -> list[_Call]:
    """The calls, and before the first one of each module the modules inside it that hold tensors but weren't called."""
    called = {call.path for call in calls}
    before: dict[str, list[_Call]] = {}
    for path, part in module.named_modules():
        if path not in called and _holds(part):
            around = path
            while around and around not in called:
                around = around.rpartition(".")[0]
            before.setdefault(around, []).append(_Call(path, part, 0, (), "not called"))
    found: list[_Call] = []
    for call in calls:
        found += [*before.pop(call.path, []), call]
    return [*found, *(call for left in before.values() for call in left)]


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    """Every tensor in a value, in order."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _shape(tensor: torch.Tensor, batch: int | None) -> Shape:
    """The shape with None for the batch: the first dimension, where it has the batch's size."""
    dims = tuple(int(size) for size in tensor.shape)
    return (None, *dims[1:]) if dims and dims[0] == batch else dims


@contextmanager
def _as_it_was(module: nn.Module) -> Iterator[None]:
    """Give back the training flag of every part, and the state of the random generator."""
    flags = [(part, part.training) for part in module.modules()]
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            for part, training in flags:
                part.training = training
