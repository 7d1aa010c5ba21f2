"""Values that are a parameter after invertible steps: they keep their tie to the PyTorch tensor's name.

The exporter writes weights through small subgraphs (`Transpose(weight)`, slices of packed LSTM gates). Folding them
would lose the name; a `Derived` carries the pieces and the steps instead, and becomes a weight binding in the plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Literal

import numpy as np

from translator.bindings import Flip, Permute, Piece, Reshape, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A tensor made of pieces of parameters, concatenated along `axis` (or summed), then `steps`. shape: the result's.

    sizes: of several concatenated pieces along `axis`.
    """

    pieces: tuple[Piece, ...]
    shape: tuple[int, ...]
    axis: int = 0
    join: Literal["concat", "sum"] = "concat"
    sizes: tuple[int, ...] = ()
    steps: tuple[Step, ...] = ()
    trainable: bool = True
    dtype: str = "float32"

    @property
    def tensor(self) -> str:
        """Name of the first tensor: whose module the value belongs to."""
        return self.pieces[0].tensor

    @property
    def joined_shape(self) -> tuple[int, ...]:
        """Shape of the joined pieces, before the first step."""
        source = self
        while source.steps:
            source = source._without_last_step()
        return source.shape

    def permute(self, axes: Sequence[int]) -> Derived:
        """Its axes in another order, as `np.transpose`."""
        axes = tuple(int(a) for a in axes)
        if axes == tuple(range(len(axes))):
            return self
        return replace(self, steps=(*self.steps, Permute(axes=axes)), shape=tuple(self.shape[a] for a in axes))

    def reshape(self, shape: Sequence[int]) -> Derived:
        """The same numbers in another shape."""
        after = tuple(int(d) for d in shape)
        if after == self.shape:
            return self
        last = self.steps[-1] if self.steps else None
        if isinstance(last, Reshape) and last.before == after:
            return self._without_last_step()
        return replace(self, steps=(*self.steps, Reshape(before=self.shape, after=after)), shape=after)

    def flip(self, axes: Sequence[int]) -> Derived:
        """The same numbers in reverse order along `axes`."""
        return replace(self, steps=(*self.steps, Flip(axes=tuple(int(a) for a in axes))))

    def slice(self, starts: Sequence[int], stops: Sequence[int]) -> Derived | None:
        """The region [start, stop) per axis, or None where the pieces were already joined or changed."""
        bounds = tuple((int(a), int(b)) for a, b in zip(starts, stops, strict=True))
        if all(a == 0 and b == d for (a, b), d in zip(bounds, self.shape, strict=True)):
            return self
        if self.steps:
            return self._slice_before(bounds)
        if len(self.pieces) != 1:
            return self._some_pieces(bounds)
        piece = self.pieces[0]
        offset = [a for a, _ in piece.region] if piece.region else [0] * len(self.shape)
        region = tuple((o + a, o + b) for o, (a, b) in zip(offset, bounds, strict=True))
        shape = tuple(b - a for a, b in bounds)
        return replace(self, pieces=(Piece(tensor=piece.tensor, region=region),), shape=shape)

    def _some_pieces(self, bounds: tuple[tuple[int, int], ...]) -> Derived | None:
        """The pieces from one boundary to another, or one region of one piece."""
        if self.join == "sum" or not self.sizes:
            return None
        edges = [0, *accumulate(self.sizes)]
        start, stop = bounds[self.axis]
        inside = [i for i, (a, b) in enumerate(pairwise(edges)) if a < stop and b > start]
        first, last = edges[inside[0]], edges[inside[-1] + 1]
        shape = tuple(last - first if a == self.axis else d for a, d in enumerate(self.shape))
        sizes = tuple(self.sizes[i] for i in inside)
        pieces = tuple(self.pieces[i] for i in inside)
        part = replace(self, pieces=pieces, shape=shape, sizes=sizes if len(sizes) > 1 else ())
        moved = [(a - first, b - first) if i == self.axis else (a, b) for i, (a, b) in enumerate(bounds)]
        if len(pieces) == 1:
            return part.slice([a for a, _ in moved], [b for _, b in moved])
        return part if all(m == (0, d) for m, d in zip(moved, shape, strict=True)) else None

    def _slice_before(self, bounds: tuple[tuple[int, int], ...]) -> Derived | None:
        """Cut first, then take the last step, where the cut is one region before that step, too."""
        step, inner = self.steps[-1], self._without_last_step()
        if isinstance(step, Permute):
            before = [bounds[step.axes.index(a)] for a in range(len(bounds))]
            part = inner.slice([a for a, _ in before], [b for _, b in before])
            return part.permute(step.axes) if part is not None else None
        if isinstance(step, Reshape):
            found = unreshaped(step.before, step.after, bounds)
            part = inner.slice([a for a, _ in found], [b for _, b in found]) if found is not None else None
            return part.reshape([b - a for a, b in bounds]) if part is not None else None
        return None

    def _without_last_step(self) -> Derived:
        step = self.steps[-1]
        if isinstance(step, Permute):
            shape = tuple(self.shape[step.axes.index(a)] for a in range(len(self.shape)))
        else:
            shape = step.before if isinstance(step, Reshape) else self.shape
        return replace(self, steps=self.steps[:-1], shape=shape)


def unreshaped(
    before: Sequence[int], after: Sequence[int], bounds: Sequence[tuple[int, int]]
) -> list[tuple[int, int]] | None:
    """The region of `before` that is the region `bounds` of its reshape to `after`; None where it isn't one region."""
    found: list[tuple[int, int]] = []
    place = 0
    for size in before:
        if size == 1:
            found.append((0, 1))
            continue
        inside: list[int] = []
        while math.prod(after[i] for i in inside) < size and place < len(after):
            inside.append(place)
            place += 1
        if math.prod(after[i] for i in inside) != size:
            return None
        inside = [i for i in inside if after[i] != 1]
        rest = math.prod(after[i] for i in inside[1:])
        if any(bounds[i] != (0, after[i]) for i in inside[1:]):
            return None
        start, stop = bounds[inside[0]]
        found.append((start * rest, stop * rest))
    return found


def parameter(name: str, shape: tuple[int, ...], *, trainable: bool, dtype: str) -> Derived:
    """The whole parameter `name`."""
    return Derived(pieces=(Piece(tensor=name),), shape=shape, trainable=trainable, dtype=dtype)


def concat(parts: Sequence[Derived], axis: int) -> Derived | None:
    """The concatenation along `axis`, or None where a part was already changed; neighbours of one tensor become one."""
    axis %= len(parts[0].shape)
    if any(p.steps or p.join == "sum" for p in parts) or any(len(p.pieces) > 1 and p.axis != axis for p in parts):
        return None
    shape = list(parts[0].shape)
    shape[axis] = sum(p.shape[axis] for p in parts)
    pieces: list[Piece] = []
    sizes: list[int] = []
    for part in parts:
        for piece, size in zip(part.pieces, part.sizes or (part.shape[axis],), strict=True):
            joined = _joined(pieces[-1], piece, axis) if pieces else None
            if joined is not None:
                pieces[-1], sizes[-1] = joined, sizes[-1] + size
            else:
                pieces.append(piece)
                sizes.append(size)
    return replace(
        parts[0], pieces=tuple(pieces), axis=axis, shape=tuple(shape), sizes=tuple(sizes) if len(sizes) > 1 else (),
        trainable=any(p.trainable for p in parts),
    )  # fmt: skip


def _joined(a: Piece, b: Piece, axis: int) -> Piece | None:
    """Two regions of one tensor as one, where the second goes on where the first ends."""
    if a.tensor != b.tensor or a.region is None or b.region is None:
        return None
    others = all(x == y for i, (x, y) in enumerate(zip(a.region, b.region, strict=True)) if i != axis)
    if not others or a.region[axis][1] != b.region[axis][0]:
        return None
    whole = (a.region[axis][0], b.region[axis][1])
    return Piece(tensor=a.tensor, region=tuple(whole if i == axis else r for i, r in enumerate(a.region)))


def total(a: Derived, b: Derived) -> Derived | None:
    """The element-wise sum of two parameters; None where one was already changed."""
    if a.shape != b.shape or a.steps or b.steps or len(a.pieces) != 1 or len(b.pieces) != 1:
        return None
    return replace(a, pieces=(*a.pieces, *b.pieces), join="sum", trainable=a.trainable or b.trainable)


def value(derived: Derived, state: dict[str, np.ndarray]) -> np.ndarray:
    """The numbers, from a state of PyTorch tensors by name."""
    from translator.bindings import WeightBinding, to_keras

    binding = WeightBinding(
        variable="",
        shape=derived.shape,
        pieces=derived.pieces,
        join=derived.join,
        axis=derived.axis,
        steps=derived.steps,
    )
    return to_keras(binding, state)
