"""One run of both models, PyTorch driving: each module call is compared the moment it ends, and its values are freed.

Two Keras replays follow PyTorch. The *chain* computes on its own from the model's inputs to its outputs. The *synced*
one has each claimed value replaced by PyTorch's as soon as it was compared, so that every layer, and every piece of
functional code between layers, is computed from PyTorch's own numbers: that is each layer alone, in one run.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from translator.errors import InternalError
from translator.verify.claim_index import ROOT, ClaimIndex, Target, Twin
from translator.verify.compare import Outcome, compare, failure, lay_out
from translator.verify.findings import Book, Entry
from translator.verify.keras_replay import Replay, backend_errors, to_keras, to_numpy
from translator.verify.torch_record import Key, ModuleEvent

LeafHook = Callable[["Watch", ModuleEvent, Twin | None, list[torch.Tensor]], None]
"""Called at the end of each leaf's call, while its inputs are still there."""


@dataclass(slots=True, kw_only=True)
class Watch:
    """Listens to one run. dtype: what both sides compute in. slot: the name under which its findings are noted.

    chain: None where there is nothing to compare along the chain (values are made up as we go). made_up: numbers
    that take the place of every leaf's outputs on both sides, so that everything after it meets a wide range.
    at_leaf: probes and questions of coverage. label: what is special about this run, for the findings.
    """

    index: ClaimIndex
    book: Book
    dtype: str
    slot: str
    synced: Replay
    chain: Replay | None = None
    made_up: np.random.Generator | None = None
    at_leaf: LeafHook | None = None
    label: str = ""
    on_call: Callable[[], None] | None = None
    _seen: dict[int, tuple[Any, float, Target, Outcome | None]] = field(default_factory=dict)
    _broken: bool = False

    def enter(self, event: ModuleEvent) -> bool:
        """Compare the call's inputs with what the Keras side has there; from now on it has PyTorch's."""
        twins = self.index.begins.get(event.key, [])
        if event.key != ROOT:
            for twin in twins:
                self._start(twin, event)
                self._visit(twin, event.inputs, twin.given(event.arguments), "its input")
        asked = self.at_leaf is not None or self.made_up is not None
        return asked and next(event.module.children(), None) is None

    def leave(self, event: ModuleEvent, outputs: list[torch.Tensor]) -> Mapping[int, torch.Tensor]:
        """Compare the call's outputs."""
        twin = self.index.twins.get(event.key)
        if twin is not None:
            entry = self._start(twin, event)
            self._finish(entry, event, outputs)
            for extra in twin.outputs[len(outputs) :]:
                if extra is not None:
                    entry.problems.append(f"{len(twin.outputs)} outputs are claimed, the module has {len(outputs)}")
            self._visit(twin, outputs, twin.outputs, "its output")
        if event.leaf and self.at_leaf is not None:
            self.at_leaf(self, event, twin, outputs)
        if self.on_call is not None:
            self.on_call()
        if event.leaf and twin is not None and self.made_up is not None and event.key != ROOT:
            return self._make_up(twin, event, outputs)
        return {}

    def _start(self, twin: Twin, event: ModuleEvent) -> Entry:
        entry = self.book.entries.get(twin.key)
        if entry is None:
            kind = type(event.module).__name__
            entry = Entry(key=twin.key, type=kind, depth=-1, shape=(), leaf=True, keras=twin.keras)
            self.book.entries[twin.key] = entry
        return entry

    def _finish(self, entry: Entry, event: ModuleEvent, outputs: list[torch.Tensor]) -> None:
        if entry.depth < 0:
            entry.depth = self.book.next_depth()
            entry.type, entry.leaf = type(event.module).__name__, event.leaf
            entry.shape = tuple(outputs[0].shape) if outputs else ()
            entry.input_shape = event.shapes[0] if event.shapes else None
            floats = any(t.is_floating_point() for t in outputs)
            entry.varies = floats and (event.floats or _has_state(event))

    def _visit(self, twin: Twin, tensors: list[torch.Tensor], targets: tuple[Target | None, ...], what: str) -> None:
        for number, (tensor, target) in enumerate(zip(tensors, targets, strict=False)):
            if target is None:
                continue
            name = what if len(tensors) == 1 else f"{what} {number}"
            seen = self._seen.get(target.value)
            if seen is not None and seen[0]() is tensor and seen[1:3] == (_writes(tensor), target):
                self._skip(twin.key, target, name, seen[3])
            else:
                self._check(twin.key, tensor, target, name)

    def _skip(self, key: Key, target: Target, name: str, outcome: Outcome | None) -> None:
        """The very tensor that was compared at this Keras value a moment ago, by the call that made it."""
        self.synced.skip(target.value)
        self.book.entries[key].informative |= name.startswith("its output")  # the maker's to show
        if self.chain is not None and not self._broken:
            self.chain.skip(target.value)
            if outcome is not None and name.startswith("its output"):
                self.book.chain(key, self.slot, name, outcome)

    def _check(self, key: Key, tensor: torch.Tensor, target: Target, name: str) -> None:
        graph = self.index.graph
        name = f"{name}, {self.label}" if self.label else name
        try:
            want = lay_out(tensor, target.layout, graph.shapes[target.value])
        except ValueError as error:
            self.book.alone(key, self.slot, name, failure(f"claimed layout does not fit: {error}"))
            return
        along = self._along(key, target, name, want)
        try:
            outcome = compare(to_numpy(self.synced.take(target.value)), want, scale=1.0)
        except backend_errors() as error:
            outcome = failure(f"Keras raised {_short(error)}")
        self.book.alone(key, self.slot, name, outcome)
        self.sync(target, tensor, want, along)

    def _along(self, key: Key, target: Target, name: str, want: np.ndarray) -> Outcome | None:
        if self.chain is None or self._broken:
            return None
        try:
            outcome = compare(to_numpy(self.chain.take(target.value)), want, scale=1.0)
        except _replay_errors() as error:
            self._broken = True  # the replay stopped in the middle: nothing behind it can be computed
            outcome = failure(f"Keras raised {_short(error)}")
        if self.dtype == "float32" and want.dtype.kind in "iub" and outcome.problem:
            return None  # rounding decides ties
        self.book.chain(key, self.slot, name, outcome)
        return outcome

    def sync(self, target: Target, tensor: torch.Tensor, want: np.ndarray, along: Outcome | None = None) -> None:
        """Let the synced replay go on with PyTorch's `tensor`, which lies there as `want`."""
        self.synced.replace(target.value, to_keras(want, self.dtype_of(target.value)))
        self._seen[target.value] = (weakref.ref(tensor), _writes(tensor), target, along)

    def dtype_of(self, value: int) -> str:
        """What a value of the graph is in this run: the run's dtype where it is a float."""
        declared = self.index.graph.dtypes[value]
        return self.dtype if "float" in declared else declared

    def _make_up(self, twin: Twin, event: ModuleEvent, outputs: list[torch.Tensor]) -> Mapping[int, torch.Tensor]:
        """New numbers in place of the outputs, where both sides surely go on with them: all claimed, none shared.

        Not where an output is an input once more (a pooling to the size it has): Keras may read one value as both.
        """
        targets = twin.outputs[: len(outputs)]
        storages = [t.untyped_storage().data_ptr() for t in outputs]
        distinct = len(set(storages)) == len(storages) and event.storages.isdisjoint(storages)
        values = [t.value for t in targets if t is not None]
        distinct &= not any(t is not None and t.value in values for t in twin.inputs)
        distinct &= not any(_equal(given, made) for given in event.inputs for made in outputs)
        if not distinct or len(values) != len(outputs) or len(set(values)) != len(values) or self.made_up is None:
            return {}
        found: dict[int, torch.Tensor] = {}
        for number, (tensor, target) in enumerate(zip(outputs, targets, strict=True)):
            if tensor.is_floating_point() and target is not None:
                fresh = torch.from_numpy(wide(self.made_up, tuple(tensor.shape))).to(tensor.dtype)
                found[number] = fresh
                try:
                    self.sync(target, fresh, lay_out(fresh, target.layout, self.index.graph.shapes[target.value]))
                except ValueError:  # said already, when the true output was compared
                    return {}
        return found


def wide(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in a wide range of both signs, with some exact zeros, all of them float32 numbers."""
    numbers = np.asarray(rng.standard_normal(shape, dtype=np.float32) * np.float32(10))
    if numbers.size > 19:
        numbers.reshape(-1)[::19] = 0
    return numbers


def _equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def _replay_errors() -> tuple[type[Exception], ...]:
    return (*backend_errors(), InternalError)


def _has_state(event: ModuleEvent) -> bool:
    return any(True for _ in event.module.parameters())


def _short(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    text = next((line.strip() for line in lines if line.strip()), "")
    return f"{type(error).__name__}: {text[:160]}"


def _writes(tensor: torch.Tensor) -> float:
    """How often the tensor was written to, by PyTorch's count; NaN, equal to nothing, in inference mode: no count."""
    return math.nan if tensor.is_inference() else tensor._version
