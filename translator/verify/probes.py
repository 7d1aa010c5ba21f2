"""Questions that one random input does not answer, put to each leaf module alone.

Equal on one input is not the same function: zero padding passes for minus infinity where everything is positive, and
"same" for (1, 1) at an odd size. And a leaf that has no twin must be one that does nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from translator.verify.claim_index import ROOT, Target, Twin
from translator.verify.compare import Outcome, compare, failure, lay_out
from translator.verify.findings import Book
from translator.verify.keras_replay import Segment, backend_errors, replay, to_keras, to_numpy
from translator.verify.torch_record import Key, ModuleEvent, map_tensors, outputs_of
from translator.verify.watch import Watch, wide

_LINEAR = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear)
_SIZE_FREE = ("conv", "pooling", "batchnorm", "instancenorm", "activation", "padding")
TORCH_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, AssertionError, NotImplementedError)
"""What a module may raise on an input it wasn't made for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """Other arguments for one leaf. strict: disagreement is an error; else the Keras side has fixed sizes, a note."""

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    strict: bool = True


@dataclass(slots=True, kw_only=True)
class LeafProbes:
    """Asks every leaf at the end of its call. parts: the Keras steps of each twin that can be asked alone."""

    parts: Mapping[Key, Segment]
    rng: np.random.Generator
    enabled: bool = True
    partly: dict[Key, str] = field(default_factory=dict)

    def __call__(self, watch: Watch, event: ModuleEvent, twin: Twin | None, outputs: list[torch.Tensor]) -> None:
        """Coverage first, then the probes."""
        book = watch.book
        book.leaves += 1
        if twin is None or all(t is None for t in twin.outputs):
            self._without_twin(book, event, outputs, watch)
            return
        if twin.outputs[0] is None and outputs:
            self.partly[event.key] = type(event.module).__name__
        unclaimed = [n for n in range(1, len(outputs)) if n >= len(twin.outputs) or twin.outputs[n] is None]
        if unclaimed:
            book.entries[event.key].notes.append(f"outputs {unclaimed} have no twin")
        part = self.parts.get(event.key)
        if part is None:
            return
        outside = {v: watch.synced.take(v) for v in part.outside}
        if not part.steps and only_trains(event):
            book.lost[event.key] = repr(event.module)
        if self.enabled and part.computed and event.key != ROOT and twin.first == event.key:
            self._ask(watch, event, twin, part, outside, outputs)

    def _without_twin(self, book: Book, event: ModuleEvent, outputs: list[torch.Tensor], watch: Watch) -> None:
        if event.key in watch.index.covered or not outputs:
            return
        if passes_through(event, outputs, self.rng):
            if only_trains(event):
                book.lost[event.key] = repr(event.module)
        else:
            book.uncovered[event.key] = type(event.module).__name__

    def _ask(
        self,
        watch: Watch,
        event: ModuleEvent,
        twin: Twin,
        part: Segment,
        outside: Mapping[int, Any],
        outputs: list[torch.Tensor],
    ) -> None:
        if not type(event.module).forward.__module__.startswith("torch."):
            own = _try(event.module, event.args, event.kwargs)
            if own is None or len(own) != len(outputs) or not all(map(_same, own, outputs)):
                watch.book.entries[event.key].notes.append("not probed: the module does not repeat itself")
                return
        for probe in probes(event, twin, watch, self.rng):
            answers = _try(event.module, probe.args, probe.kwargs)
            if answers is not None:
                self._judge(watch, event, twin, part, outside, probe, answers)

    def _judge(
        self,
        watch: Watch,
        event: ModuleEvent,
        twin: Twin,
        part: Segment,
        outside: Mapping[int, Any],
        probe: Probe,
        answers: list[torch.Tensor],
    ) -> None:
        shapes = watch.index.graph.shapes
        given = ModuleEvent(
            path="", call=0, module=event.module, parents=(), args=probe.args, kwargs=dict(probe.kwargs)
        ).inputs
        try:
            fed = {
                t.value: to_keras(lay_out(x, t.layout, shapes[t.value]), watch.dtype_of(t.value))
                for x, t in zip(given, twin.inputs, strict=True)
                if t is not None
            }
            results = replay(watch.index.graph, part, {**outside, **fed})
            found = [
                (n, compare(to_numpy(results[t.value]), lay_out(want, t.layout, shapes[t.value]), scale=1.0))
                for n, (want, t) in enumerate(zip(answers, twin.outputs, strict=False))
                if t is not None and t.value in part.computed
            ]
        except backend_errors() as error:
            if part.outside and probe.strict:
                return  # what it reads from elsewhere belongs to the run's own input
            found = [(0, failure(f"Keras raised {type(error).__name__}"))]
        for _, outcome in found:
            self._note(watch, event.key, probe, outcome)

    def _note(self, watch: Watch, key: Key, probe: Probe, outcome: Outcome) -> None:
        if probe.strict:
            watch.book.alone(key, watch.slot, f"its output, {probe.name}", outcome)
        elif not outcome.within(1e-9):
            watch.book.entries[key].notes.append(f"right for this input size only ({probe.name})")


def probes(event: ModuleEvent, twin: Twin, watch: Watch, rng: np.random.Generator) -> Iterator[Probe]:
    """The probes that suit this leaf."""
    floats = [t for t in event.inputs if t.is_floating_point()]
    if isinstance(event.module, nn.Embedding) and not floats:
        rows = event.module.num_embeddings
        change = lambda t: torch.from_numpy(rng.integers(0, rows, tuple(t.shape))).to(t.dtype)
        yield _probe("other indices", event, change)
        return
    if floats and not isinstance(event.module, _LINEAR):
        yield _probe("all negative", event, lambda t: _like(t, -np.abs(wide(rng, tuple(t.shape)))))
        yield _probe("all zero", event, lambda t: torch.zeros_like(t) if t.is_floating_point() else t)
    yield from _other_sizes(event, twin, watch, rng)


def passes_through(event: ModuleEvent, outputs: list[torch.Tensor], rng: np.random.Generator) -> bool:
    """Whether the module gives its first tensor on as it is (seen in any shape), whatever it gets."""
    if not event.inputs or len(outputs) != 1 or not _same_numbers(event.inputs[0], outputs[0]):
        return False
    for change in (lambda t: wide(rng, tuple(t.shape)), lambda t: -np.abs(wide(rng, tuple(t.shape)))):
        probe = _probe("", event, lambda t, change=change: _like(t, change(t)))
        answers = _try(event.module, probe.args, probe.kwargs)
        given = ModuleEvent(
            path="", call=0, module=event.module, parents=(), args=probe.args, kwargs=dict(probe.kwargs)
        )
        if answers is None or len(answers) != 1 or not _same_numbers(given.inputs[0], answers[0]):
            return False
    return True


def only_trains(event: ModuleEvent) -> bool:
    """Whether a module that does nothing in evaluation does something in training (dropout, stochastic depth)."""
    ones = _probe("", event, lambda t: torch.ones_like(t) if t.is_floating_point() else t)
    event.module.train()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            tries = [_try(event.module, ones.args, ones.kwargs) for _ in range(8)]
    finally:
        event.module.eval()
    return any(t and not bool((t[0] == 1).all()) for t in tries)


def _other_sizes(event: ModuleEvent, twin: Twin, watch: Watch, rng: np.random.Generator) -> Iterator[Probe]:
    """One smaller input of the other parity along each spatial axis."""
    inputs, target = event.inputs, next(iter(twin.inputs), None)
    if len(inputs) != 1 or inputs[0].ndim < 3 or not inputs[0].is_floating_point() or target is None:
        return
    free = any(type(event.module).forward.__module__ == f"torch.nn.modules.{name}" for name in _SIZE_FREE)
    dynamic = _dynamic(target, watch)
    if not free or target.layout.view is not None or ("Adaptive" in type(event.module).__name__ and not dynamic):
        return
    sizes = [min(s, 12) + (min(s, 12) % 2 == s % 2) for s in inputs[0].shape[2:]]
    shape = (*inputs[0].shape[:2], *sizes)
    name = f"at size {'x'.join(map(str, sizes))}"
    yield _probe(name, event, lambda t: _like(t, wide(rng, shape)), strict=dynamic)


def _dynamic(target: Target, watch: Watch) -> bool:
    """Whether the Keras model itself leaves all spatial axes open."""
    shape = watch.index.graph.shapes[target.value]
    axes = [target.layout.axis(a) for a in range(2, len(target.layout.axes))]
    return all(a < len(shape) and shape[a] is None for a in axes)


def _probe(name: str, event: ModuleEvent, change: Any, *, strict: bool = True) -> Probe:
    args, kwargs = map_tensors(change, (event.args, event.kwargs))
    return Probe(name=name, args=args, kwargs=kwargs, strict=strict)


def _like(tensor: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(numbers).to(tensor.dtype) if tensor.is_floating_point() else tensor


def _try(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor] | None:
    try:
        return outputs_of(module, args, kwargs)
    except TORCH_ERRORS:
        return None


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())


def _same_numbers(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.numel() == b.numel() and _same(a.reshape(-1), b.reshape(-1))
