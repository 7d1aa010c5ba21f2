"""Which value of PyTorch is which value of Keras, and how it lies there, read off the pairs of units."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from translator.audit.keras_network import KerasNetwork
from translator.audit.kinds import ORDERED
from translator.audit.moves import moved
from translator.audit.network import Network, Unit
from translator.audit.torch_network import TorchNetwork
from translator.types import Layout, Shape
from translator.verify.facts import Attention, Conv, Dense, Embedding, Norm, Padding, Pool, Recurrent, Resize
from translator.verify.keras_replay import backend_errors, replay, segment, to_keras, to_numpy

_MOST_TRACED = 1 << 22
_MIXING = frozenset({"linear", "transposed", "rnn", "attention", "embedding", "matmul", "attend"})
"""Kinds whose features have nothing to do with where the features of what they read lie."""


@dataclass(slots=True, kw_only=True)
class Values:
    """twins: PyTorch value → Keras value. layouts: how it lies there, None where no layout is known.

    reordered: PyTorch values that Keras flattened in another order of axes. inputs, outputs: the models' own, in
    PyTorch's order; with a layer of Keras' own in front or behind they are not what the layers behind or before read.
    """

    twins: dict[int, int] = field(default_factory=dict)
    layouts: dict[int, Layout | None] = field(default_factory=dict)
    reordered: set[int] = field(default_factory=set)
    inputs: list[tuple[int, Layout | None]] = field(default_factory=list)
    outputs: list[tuple[int, Layout | None]] = field(default_factory=list)


def match_values(
    torch_side: TorchNetwork,
    keras_side: KerasNetwork,
    left: Network,
    right: Network,
    pairs: Sequence[tuple[int, int]],
) -> Values:
    """Walk the pairs in order and note which values must be each other. left, right: the networks that were matched."""
    walk = _Walk(torch_side, keras_side, left, right, dict(pairs))
    for a, b in zip(left.inputs, right.inputs, strict=False):
        walk.inputs[a] = b
    for t, k in sorted(pairs):
        walk.unit(left.units[t], right.units[k])
    values = walk.values
    for a, b in walk.inputs.items():
        values.inputs.append((b, choose(left.shapes[a], right.shapes[b], None, values.layouts.get(a))))
    for a, b in _output_pairs(values.twins, left.outputs, right.outputs):
        if a not in values.twins and b not in values.twins.values():
            walk.note(a, b, None, walk.inherited(a))
        same = values.twins.get(a) == b
        own = values.layouts.get(a)
        values.outputs.append((b, own if same else choose(left.shapes[a], right.shapes[b], None, own)))
    return values


def _output_pairs(twins: Mapping[int, int], ours: Sequence[int], theirs: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Which output is which: those that are each other's already (a dict has an order of its own), then in order."""
    known = {a: twins[a] for a in ours if twins.get(a) in theirs}
    rest = iter([b for b in theirs if b not in known.values()])
    for a in ours:
        b = known.get(a)
        b = next(rest, None) if b is None else b
        if b is not None:
            yield a, b


class _Walk:
    def __init__(
        self,
        torch_side: TorchNetwork,
        keras_side: KerasNetwork,
        left: Network,
        right: Network,
        partner: Mapping[int, int],
    ) -> None:
        self.torch, self.keras = torch_side, keras_side
        self.left, self.right = left, right
        self.partner = partner
        self.values = Values()
        self.inputs: dict[int, int] = {}
        self.past: dict[int, int] = {}

    def unit(self, t: Unit, k: Unit) -> None:
        """The values of one pair: what it reads, then what it makes."""
        prefer = _preference(t, k)
        for a, b in self._arguments(t, k):
            self._source(a, b, prefer)
            self.note(a, b, prefer)
        inherited = next((self.values.layouts.get(a) for a in t.inputs if self.values.layouts.get(a)), None)
        if t.kind in _MIXING:
            inherited = None
        for a, b in zip(t.outputs, k.outputs, strict=False):
            self.note(a, b, prefer, inherited)

    def note(self, a: int, b: int, prefer: str | None, inherited: Layout | None = None) -> None:
        """PyTorch's value a is Keras' value b."""
        if a in self.values.twins:
            return
        self.values.twins[a] = b
        source = self._only_source(self.left, a)
        known = self.values.layouts.get(source) if source is not None and source != a else None
        found = choose(self.left.shapes[a], self.right.shapes[b], prefer, known or inherited)
        if source is not None and source != a and source in self.values.twins:
            found = self._moved(a, b, source, found)
        self.values.layouts[a] = found

    def inherited(self, value: int) -> Layout | None:
        """The layout of what the value was moved from."""
        source = self._only_source(self.left, value)
        return self.values.layouts.get(source) if source is not None else None

    def _source(self, a: int, b: int, prefer: str | None) -> None:
        """What a was moved from is what b was moved from; for an input of the model its reader says how it lies."""
        source, twin = self._only_source(self.left, a), self._only_source(self.right, b)
        new = source is not None and source not in self.values.twins
        if new and source is not None and twin is not None and self.inputs.get(source) == twin:
            self.note(source, twin, prefer)

    def _only_source(self, network: Network, value: int) -> int | None:
        sources = list(itertools.islice(network.sources(value), 2))
        return sources[0] if len(sources) == 1 else None

    def _arguments(self, t: Unit, k: Unit) -> Iterator[tuple[int, int]]:
        if len(t.inputs) == len(k.inputs) == 1 or (t.kind in ORDERED and len(t.inputs) == len(k.inputs)):
            yield from zip(t.inputs, k.inputs, strict=True)
            return
        waiting = list(k.inputs)
        for a in t.inputs:
            sources = {self.values.twins.get(s) for s in self.left.sources(a)}
            for b in waiting:
                if sources & set(self.right.sources(b)):
                    waiting.remove(b)
                    yield a, b
                    break

    def _moved(self, a: int, b: int, source: int, found: Layout | None) -> Layout | None:
        """Follow numbered elements on both sides from the source to a and to b, and take the layout that is true."""
        start = self.values.layouts.get(source)
        shape = self.left.shapes[source]
        if start is None or None in shape or math.prod(n for n in shape if n) > _MOST_TRACED:
            return found
        numbers = np.arange(math.prod(n for n in shape if n is not None), dtype=np.int32)
        want = self._torch_moved(a, source, numbers.reshape([n for n in shape if n is not None]))
        laid = _lay(numbers.reshape([n or 1 for n in shape]), start, self.right.shapes[self.values.twins[source]])
        got = self._keras_moved(b, self.values.twins[source], laid) if laid is not None else None
        if want is None:
            return found
        view = Layout(axes=start.axes, view=start.view or (None, *shape[1:]))
        plain = Layout.identity(want.ndim)
        candidates = [c for c in (plain, found, view) if c is not None]
        if got is None and want.ndim < len(view.axes):
            return view
        for layout in candidates if got is not None else ():
            if got is not None and (lay := _lay(want, layout, got.shape)) is not None and np.array_equal(lay, got):
                if layout.view is not None and not layout.is_identity and want.ndim < len(layout.axes):
                    self.values.reordered.add(a)
                return layout
        return None

    def _torch_moved(self, value: int, source: int, numbers: np.ndarray) -> np.ndarray | None:
        chain = []
        while value != source:
            step, before = self.torch.moves.get(value), self.left.past.get(value, ())
            if len(before) != 1 or (step is None and self.left.shapes[value] != self.left.shapes[before[0]]):
                return None
            if step is not None:
                chain.append(step)
            value = before[0]
        there = moved(numbers, reversed(chain))
        return _as_numbers(there, numbers.size) if there is not None else None

    def _keras_moved(self, value: int, source: int, numbers: np.ndarray) -> np.ndarray | None:
        if value == source:
            return numbers
        part = segment(self.keras.graph, [source], [value])
        if part.outside or value not in part.computed:
            return None
        try:
            moved = to_numpy(replay(self.keras.graph, part, {source: to_keras(numbers, "int32")})[value])
        except backend_errors():
            return None
        return _as_numbers(moved, numbers.size)


def _as_numbers(moved: np.ndarray, count: int) -> np.ndarray | None:
    """The numbered elements after a move, None where they are not the same elements (something computed with them)."""
    if moved.size != count or moved.dtype.kind not in "iuf":
        return None
    whole = moved.astype(np.int32)
    same = np.array_equal(whole, moved) and np.array_equal(np.sort(whole, axis=None), np.arange(count))
    return whole if same else None


def choose(before: Shape, after: Shape, prefer: str | None, inherited: Layout | None) -> Layout | None:
    """A layout that takes PyTorch's shape to Keras'. prefer: "last" (channels), "same"; else as what it comes from."""
    if len(before) == len(after):
        flat = inherited is not None and inherited.view is not None and _size(inherited.view) == _size(before)
        if flat and _size(before) == _size(after):
            return inherited
        fitting = [p for p in _permutations(len(before)) if _takes(before, p, after)]
        last, same = Layout.channels_last(len(before)).axes, tuple(range(len(before)))
        wishes = {"last": (last, same), "same": (same, last)}.get(prefer or "", ())
        if not wishes:
            own = (inherited.axes,) if inherited is not None and len(inherited.axes) == len(before) else ()
            wishes = (*own, *((last, same) if len(before) > 3 else (same, last)))
        # Where no order fits, the layers differ: the wished one lets the judge say so.
        return Layout(axes=next((w for w in wishes if w in fitting), (fitting or list(wishes))[0]))
    if _size(before) != _size(after):
        return None
    if inherited is not None and inherited.view is not None and _size(inherited.view) == _size(before):
        return inherited
    axes = Layout.channels_last(len(before)).axes if prefer != "same" else tuple(range(len(before)))
    return Layout(axes=axes, view=(None, *before[1:]))


def _permutations(rank: int) -> list[tuple[int, ...]]:
    return list(itertools.permutations(range(rank))) if rank <= 5 else [tuple(range(rank))]


def _takes(before: Shape, axes: Sequence[int], after: Shape) -> bool:
    return all(before[a] is None or n is None or before[a] == n for a, n in zip(axes, after, strict=True))


def _size(shape: Shape) -> int:
    return math.prod(1 if n is None else n for n in shape[1:])


def _lay(array: np.ndarray, layout: Layout, shape: Shape) -> np.ndarray | None:
    try:
        if layout.view is None:
            return np.transpose(array, layout.axes)
        view = array.reshape([array.shape[0] if n is None else n for n in layout.view])
        return np.transpose(view, layout.axes).reshape([array.shape[0] if n is None else n for n in shape])
    except ValueError:
        return None


def _preference(t: Unit, k: Unit) -> str | None:
    """Whether the kind of layer says where its channels are."""
    op = k.operations[-1] if k.operations else None
    facts = k.facts
    if getattr(op, "data_format", None) == "channels_first":
        return "same"
    if isinstance(facts, Norm) and facts.kind == "batch":
        return "same" if getattr(op, "axis", -1) == 1 else "last"
    if isinstance(facts, Norm) and facts.kind in ("layer", "rms"):
        return "same" if isinstance(t.facts, Norm) and t.facts.kind == facts.kind else None
    if isinstance(facts, Conv | Padding | Resize) or (isinstance(facts, Pool) and facts.windows is not None):
        return "last" if not isinstance(t.facts, Dense) else "same"
    if isinstance(facts, Norm):
        return "last"
    if isinstance(facts, Dense | Attention | Embedding | Recurrent):
        return "same" if not isinstance(t.facts, Conv) else "last"
    return None
