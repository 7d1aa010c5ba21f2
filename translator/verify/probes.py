"""Questions that one random input does not answer, put to each leaf module alone.

Equal on one input is not the same function: zero padding passes for minus infinity where everything is positive, and
"same" for (1, 1) at an odd size. And a leaf that has no twin must be one that does nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from translator.verify.claim_index import ROOT, Twin
from translator.verify.compare import Outcome, compare, failure, lay_out
from translator.verify.findings import Book, Entry, Worst
from translator.verify.forward import forward_called
from translator.verify.keras_replay import Segment, backend_errors, replay, to_keras, to_numpy
from translator.verify.precision import tensors_of
from translator.verify.torch_record import Key, ModuleEvent, evaluating, map_tensors, outputs_of, tensors_in
from translator.verify.watch import Watch, wide

_LINEAR = (nn.modules.conv._ConvNd, nn.Linear, nn.Bilinear)
_SAME = 1e-9
_SIZE_FREE = ("conv", "pooling", "batchnorm", "instancenorm", "activation", "padding")
TORCH_ERRORS = (RuntimeError, ValueError, TypeError, LookupError, AssertionError, ArithmeticError)
"""What a module may raise on an input it wasn't made for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One leaf's call with its Keras steps. outside: the values that those steps read from elsewhere."""

    watch: Watch
    event: ModuleEvent
    twin: Twin
    part: Segment
    outside: Mapping[int, Any]

    def ask(self, name: str, change: Callable[[torch.Tensor], torch.Tensor]) -> Outcome | None:
        """Give both sides the same other tensors; the worst outcome, None where PyTorch does not take them.

        None, too, where one Keras value stands for several tensors (both states of an LSTM are the same zeros there).
        """
        graph = self.watch.index.graph
        args, kwargs = map_tensors(_each_once(change), (self.event.args, self.event.kwargs))
        tensors, given = tensors_in((args, kwargs)), self.twin.given(self.event.arguments)
        targets = [t for t in given if t is not None]
        if not len(tensors) == len(targets) == sum(t is not None for t in self.twin.inputs):
            return None
        if len({(id(x), t.value) for x, t in zip(tensors, targets, strict=True)}) > len({t.value for t in targets}):
            return None
        try:
            fed = {
                t.value: to_keras(lay_out(x, t.layout, graph.shapes[t.value]), self.watch.dtype_of(t.value))
                for x, t in zip(tensors, targets, strict=True)
            }
        except ValueError as error:
            return failure(f"claimed layout does not fit {name}: {error}")
        answers = _try(self.event.module, args, kwargs)
        if answers is None:
            return None
        try:
            return self._compared(replay(graph, self.part, {**self.outside, **fed}), answers)
        except backend_errors() as error:
            # What a step reads from elsewhere belongs to the run's own input: another one need not fit it.
            return None if self.outside else failure(f"Keras raised {type(error).__name__}")

    def _compared(self, results: Mapping[int, Any], answers: list[torch.Tensor]) -> Outcome:
        found, informative = Worst(), False
        for want, target in zip(answers, self.twin.outputs, strict=False):
            if target is not None and target.value in self.part.computed:
                laid_out = lay_out(want, target.layout, self.watch.index.graph.shapes[target.value])
                outcome = compare(to_numpy(results[target.value]), laid_out, scale=1.0)
                found.add("", outcome)
                informative |= outcome.informative
        return Outcome(error=found.error, max_abs=found.max_abs, problem=found.problem, informative=informative)

    @property
    def entry(self) -> Entry:
        """What was found about the call so far."""
        return self.watch.book.entries[self.event.key]

    @property
    def error_here(self) -> float:
        """How far the layer is off at its own size: what is no further off at another isn't right here only."""
        worst = self.entry.alone.get(self.watch.slot)
        return worst.error if worst is not None else 0.0

    def note(self, name: str, outcome: Outcome | None) -> None:
        """Write an outcome down as one of the layer alone."""
        if outcome is not None:
            self.watch.book.alone(self.event.key, self.watch.slot, f"its output, {name}", outcome)


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
            leaf = Leaf(watch=watch, event=event, twin=twin, part=part, outside=outside)
            if _repeats_itself(event, outputs):
                self._ask(leaf)
            else:
                leaf.entry.notes.append("not probed: the module does not repeat itself")

    def _without_twin(self, book: Book, event: ModuleEvent, outputs: list[torch.Tensor], watch: Watch) -> None:
        constant = not event.shapes and not tensors_of(event.module)  # what reads it is proven, and its numbers with it
        if event.key in watch.index.covered or not outputs or constant:
            return
        if passes_through(event, outputs, self.rng):
            if only_trains(event):
                book.lost[event.key] = repr(event.module)
        else:
            book.uncovered[event.key] = type(event.module).__name__

    def _ask(self, leaf: Leaf) -> None:
        """The probes that suit this leaf; at a small size of the other parity where sizes don't matter to PyTorch."""
        module, inputs = leaf.event.module, leaf.event.inputs
        floats = any(t.is_floating_point() for t in inputs)
        if isinstance(module, nn.Embedding) and not floats:
            leaf.note("other indices", leaf.ask("other indices", lambda t: self._indices(t, module.num_embeddings)))
            return
        small = self._ask_small(leaf)
        if floats and not small and not isinstance(module, _LINEAR):
            for name, change in self._corners(None).items():
                leaf.note(name, leaf.ask(name, change))
        if floats and not leaf.entry.informative:
            self._ask_anew(leaf)

    def _ask_anew(self, leaf: Leaf) -> None:
        """Other numbers, where all references were constant; what holds no tensors to mistake shows itself by them.

        So does PyTorch's normalisation of one number: it is its bias whatever comes in, and its scale has no effect.
        """
        outcome = leaf.ask("other numbers", lambda t: _like(t, wide(self.rng, tuple(t.shape))))
        leaf.note("other numbers", outcome)
        known = not tensors_of(leaf.event.module) or _of_one_number(leaf.event.module)
        if outcome is not None and not outcome.problem and known:
            leaf.entry.informative = True

    def _ask_small(self, leaf: Leaf) -> bool:
        """Whether the corners were asked at another size, and hold there."""
        shape = _other_shape(leaf)
        if shape is None:
            return False
        name = f"at size {'x'.join(map(str, shape[2:]))}"
        linear = isinstance(leaf.event.module, _LINEAR)
        changes = {"": lambda t: _like(t, wide(self.rng, shape))} if linear else self._corners(shape)
        for corner, change in changes.items():
            outcome = leaf.ask(name, change)
            if outcome is None:
                return False
            if _dynamic(leaf) or outcome.within(max(_SAME, 100 * leaf.error_here)):
                leaf.note(f"{corner} {name}".strip(), outcome)
            else:
                leaf.entry.notes.append(f"right for this input size only, not {name}")
                return False
        return True

    def _corners(self, shape: tuple[int, ...] | None) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
        def negative(tensor: torch.Tensor) -> torch.Tensor:
            return _like(tensor, -np.abs(wide(self.rng, shape or tuple(tensor.shape))))

        def zero(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.new_zeros(shape or tuple(tensor.shape)) if tensor.is_floating_point() else tensor

        return {"all negative": negative, "all zero": zero}

    def _indices(self, tensor: torch.Tensor, rows: int) -> torch.Tensor:
        return torch.from_numpy(self.rng.integers(0, rows, tuple(tensor.shape))).to(tensor.dtype)


def _of_one_number(module: nn.Module) -> bool:
    """Whether a module is PyTorch's LayerNorm over a single number, which is always its own mean."""
    return type(module) is nn.LayerNorm and math.prod(module.normalized_shape) == 1


def _repeats_itself(event: ModuleEvent, outputs: list[torch.Tensor]) -> bool:
    """Whether the module gives the same again for the same; PyTorch's own do."""
    if type(event.module).forward.__module__.startswith("torch."):
        return True
    args, kwargs = map_tensors(torch.clone, (event.args, event.kwargs))
    own = _try(event.module, args, kwargs)
    return own is not None and len(own) == len(outputs) and all(map(_same, own, outputs))


def passes_through(event: ModuleEvent, outputs: list[torch.Tensor], rng: np.random.Generator) -> bool:
    """Whether the module gives its first tensor on as it is (seen in any shape), whatever it gets."""
    if not event.inputs or len(outputs) != 1 or not _same_numbers(event.inputs[0], outputs[0]):
        return False
    for sign in (1, -1):
        change = lambda t, sign=sign: _like(t, sign * np.abs(wide(rng, tuple(t.shape))))
        args, kwargs = map_tensors(change, (event.args, event.kwargs))
        given = tensors_in((args, kwargs))[0].clone()
        answers = _try(event.module, args, kwargs)
        if answers is None or len(answers) != 1 or not _same_numbers(given, answers[0]):
            return False
    return True


def only_trains(event: ModuleEvent) -> bool:
    """Whether a module that does nothing in evaluation does something in training (dropout, stochastic depth)."""
    event.module.train()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return any(_changes_ones(event) for _ in range(8))
    finally:
        event.module.eval()


def _changes_ones(event: ModuleEvent) -> bool:
    ones = lambda t: torch.ones_like(t) if t.is_floating_point() else t.clone()
    args, kwargs = map_tensors(ones, (event.args, event.kwargs))
    answers = _try(event.module, args, kwargs)
    return answers is not None and len(answers) > 0 and not bool((answers[0] == 1).all())


def _other_shape(leaf: Leaf) -> tuple[int, ...] | None:
    """A smaller input of the other parity along each spatial axis; None where the leaf is not one for any size."""
    inputs, target, module = leaf.event.inputs, leaf.twin.inputs[0], leaf.event.module
    if len(inputs) != 1 or inputs[0].ndim < 3 or not inputs[0].is_floating_point() or target is None:
        return None
    free = any(type(module).forward.__module__ == f"torch.nn.modules.{name}" for name in _SIZE_FREE)
    adaptive = "Adaptive" in type(module).__name__ and not _dynamic(leaf)
    if not free or adaptive or target.layout.view is not None:
        return None
    sizes = [min(s, 12) + (min(s, 12) % 2 == s % 2) for s in inputs[0].shape[2:]]
    return (*inputs[0].shape[:2], *sizes)


def _dynamic(leaf: Leaf) -> bool:
    """Whether the Keras model itself leaves all spatial axes open."""
    target = leaf.twin.inputs[0]
    if target is None:
        return False
    shape = leaf.watch.index.graph.shapes[target.value]
    axes = [target.layout.axis(a) for a in range(2, len(target.layout.axes))]
    return all(a < len(shape) and shape[a] is None for a in axes)


def _each_once(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The change, which gives one tensor for one tensor, however often that is among the arguments."""
    made: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def once(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            made[id(tensor)] = tensor, change(tensor)
        return made[id(tensor)][1]

    return once


def _like(tensor: torch.Tensor, numbers: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(numbers)).to(tensor.dtype) if tensor.is_floating_point() else tensor.clone()


def outputs_if_taken(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor] | None:
    """What a whole model puts out for inputs that nobody said it takes; None where it raises."""
    try:
        with evaluating(module):
            return outputs_of(module, args, kwargs)
    except TORCH_ERRORS:
        return None


def _try(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor] | None:
    """What the module makes of arguments that it may overwrite; None where it raises.

    Its hooks are not run: another's, such as one that collects hidden states, would take this for the model's own call.
    """
    try:
        with torch.no_grad(), forward_called(), _left_as_it_was(module):
            return tensors_in(module.forward(*args, **kwargs))
    except TORCH_ERRORS:
        return None


@contextmanager
def _left_as_it_was(module: nn.Module) -> Iterator[None]:
    """What a forward leaves in attributes (`self.weights = w`) others read: that of the model's own call stays."""
    attributes = dict(vars(module))
    lists = [(value, list(value)) for value in attributes.values() if type(value) is list]
    tables = [(value, dict(value)) for value in (vars(module), *attributes.values()) if type(value) is dict]
    try:
        yield
    finally:
        for value, items in lists:
            value[:] = items
        for table, entries in tables:
            table.clear()
            table.update(entries)


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and a.dtype == b.dtype and bool(((a == b) | ((a != a) & (b != b))).all())


def _same_numbers(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.numel() == b.numel() and _same(a.reshape(-1), b.reshape(-1))
