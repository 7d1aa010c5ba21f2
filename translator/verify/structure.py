"""Is everything there? What must have a twin is read off the nn.Module; a claim that is missing is a finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from translator.verdict import Check
from translator.verify.claim_index import ROOT, ClaimIndex
from translator.verify.findings import Book
from translator.verify.torch_record import Key, ModuleEvent, evaluating, map_tensors, outputs_of, run, tensors_in
from translator.verify.weights import named_tensors

_TRIES = 20
"""So many calls without a twin are asked whether the result needs them; with more, the claims are simply missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncovered:
    """A layer (PyTorch's path, or a Keras name) that lacks its twin, and why that matters."""

    layer: str
    why: str


def find_uncovered(
    index: ClaimIndex,
    book: Book,
    partly: Mapping[Key, str],
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    outputs: int,
) -> list[Uncovered]:
    """Everything that should have a twin and has none. outputs: how many tensors the model puts out."""
    found = [Uncovered(layer=p.layer, why=p.why) for p in index.problems]
    for key, kind in {**book.uncovered, **partly}.items():
        what = "its first output has" if key in partly else "it has"
        asked = len(book.uncovered) + len(partly) <= _TRIES
        if asked and is_unused(module, args, kwargs, key, first_only=key in partly):
            book.notes.append(f"{key[0]} ({kind}) has no twin: the result does not depend on it")
        else:
            found.append(Uncovered(layer=key[0] or "(model)", why=f"{kind}: {what} no twin in Keras"))
    for key, twin in index.twins.items():
        entry = book.entries.get(key)
        if entry is None or entry.depth < 0:
            why = f"call {key[1]} is claimed at {twin.keras}, and PyTorch never makes it"
            found.append(Uncovered(layer=key[0] or "(model)", why=why))
    known = index.twins[ROOT].outputs
    for number in range(max(outputs, 1)):
        if number >= len(known) or known[number] is None:
            found.append(Uncovered(layer="(model)", why=f"output {number} of the model has no twin in Keras"))
    return found


def structure_check(index: ClaimIndex, book: Book, uncovered: Sequence[Uncovered]) -> Check:
    """Every leaf call and every output of the model, as one check."""
    words = [f"{u.layer}: {u.why}" for u in uncovered]
    detail = "; ".join(words[:3]) + (f"; and {len(words) - 3} more" if len(words) > 3 else "")
    return Check(
        name="structure", ok=not uncovered, subjects=book.leaves + len(index.twins[ROOT].outputs), detail=detail
    )


def is_unused(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], key: Key, *, first_only: bool = False
) -> bool:
    """Whether the model's outputs stay the same, bit for bit, when this call puts out other numbers."""
    plain = run(module, args, kwargs, _Other(key=None))
    other = run(module, args, kwargs, _Other(key=key, first_only=first_only))
    return _identical(plain, other)


def unused_parameters(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], names: Sequence[str]
) -> list[str]:
    """Those of the named parameters and buffers that the outputs in evaluation mode don't depend on (auxiliary heads).

    No gradient reaches a parameter, and other numbers in the place of all of them change no bit of the outputs, also
    where no factor is zero.
    """
    if not names:
        return []
    tensors = {name: named_tensors(module)[name] for name in names}
    parameters = {name: t for name, t in tensors.items() if isinstance(t, nn.Parameter)}
    calls = _Calls()
    run(module, args, kwargs, calls)
    buffers = [n for n in tensors if n not in parameters and tensors[n].is_floating_point()]
    idle = [n for n in buffers if n.rpartition(".")[0] not in calls.paths]
    without_gradient = _unreached(module, args, kwargs, parameters) if parameters else []
    for names_tried in dict.fromkeys(((*without_gradient, *buffers), (*without_gradient, *idle))):
        unreached = [n for n in names_tried if tensors[n].is_floating_point()]
        if unreached and _same_without(module, args, kwargs, {n: tensors[n] for n in unreached}):
            return unreached
    return []


def _same_without(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> bool:
    """Whether the outputs stay the same, bit for bit, with other numbers in these tensors."""
    zeros: list[torch.Tensor] = [p for p in module.parameters() if p.is_floating_point() and bool((p == 0).any())]
    own = [(tensor, tensor.detach().clone()) for tensor in (*tensors.values(), *zeros)]
    rng = np.random.default_rng(0)
    with evaluating(module):
        try:
            for tensor in zeros:  # a scale of zero would hide what stands before it
                tensor.data.masked_fill_(tensor == 0, 0.5)
            before = outputs_of(module, args, kwargs)
            for tensor in tensors.values():
                numbers = torch.from_numpy(rng.standard_normal(tuple(tensor.shape), dtype=np.float32))
                tensor.data.copy_(numbers)
            after = outputs_of(module, args, kwargs)
        finally:
            for tensor, value in reversed(own):
                tensor.data.copy_(value)
    return _identical(before, after)


def _unreached(
    module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> list[str]:
    """Names that no gradient reaches, or without elements. Only what hangs on the named parameters is recorded."""
    flags = [(p, p.requires_grad) for p in module.parameters()]
    wanted = {id(t) for t in tensors.values()}
    try:
        for parameter, _ in flags:
            parameter.requires_grad_(id(parameter) in wanted)
        with evaluating(module), torch.enable_grad():
            args, kwargs = map_tensors(torch.clone, (args, dict(kwargs)))
            outputs = [t for t in tensors_in(module(*args, **kwargs)) if t.requires_grad]
            if not outputs:
                return list(tensors)
            total = torch.stack([t.sum() for t in outputs]).sum()
            wanted_tensors = list(tensors.values())
            gradients: Sequence[torch.Tensor | None] = torch.autograd.grad(total, wanted_tensors, allow_unused=True)
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
    return [n for n, gradient in zip(tensors, gradients, strict=True) if gradient is None or not gradient.numel()]


@dataclass(slots=True)
class _Calls:
    """A listener that only remembers which modules were called."""

    paths: set[str] = field(default_factory=set)

    def enter(self, event: ModuleEvent) -> bool:
        """Nothing is needed of the arguments."""
        self.paths.add(event.path)
        return False

    def leave(self, event: ModuleEvent, outputs: list[torch.Tensor]) -> dict[int, torch.Tensor]:
        """Nothing is put in place of the outputs."""
        return {}


@dataclass(frozen=True, slots=True)
class _Other:
    """A listener that puts other numbers in place of one call's outputs."""

    key: Key | None
    first_only: bool = False

    def enter(self, event: ModuleEvent) -> bool:
        """Nothing is needed of the arguments."""
        return False

    def leave(self, event: ModuleEvent, outputs: list[torch.Tensor]) -> dict[int, torch.Tensor]:
        """Other numbers, if this is the call."""
        if event.key != self.key:
            return {}
        chosen = outputs[:1] if self.first_only else outputs
        return {n: ~t if t.dtype == torch.bool else t + 1 for n, t in enumerate(chosen)}


def _identical(a: Sequence[torch.Tensor], b: Sequence[torch.Tensor]) -> bool:
    same = [x.shape == y.shape and bool(((x == y) | ((x != x) & (y != y))).all()) for x, y in zip(a, b, strict=False)]
    return len(a) == len(b) and all(same)
