"""Values that are a parameter after invertible steps: they keep their tie to the PyTorch tensor's name.

The exporter writes weights through small subgraphs (`Transpose(weight)`, slices of packed LSTM gates). Folding them
would lose the name; a `Derived` carries the pieces and the steps instead, and becomes a weight binding in the plan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from translator.bindings import Flip, Permute, Piece, Reshape, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A tensor made of pieces of parameters, concatenated along `axis`, then `steps`. shape: of the result."""

    pieces: tuple[Piece, ...]
    shape: tuple[int, ...]
    axis: int = 0
    steps: tuple[Step, ...] = ()
    trainable: bool = True
    dtype: str = "float32"

    @property
    def tensor(self) -> str:
        """Name of the first tensor: whose module the value belongs to."""
        return self.pieces[0].tensor

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
            return None
        piece = self.pieces[0]
        offset = [a for a, _ in piece.region] if piece.region else [0] * len(self.shape)
        region = tuple((o + a, o + b) for o, (a, b) in zip(offset, bounds, strict=True))
        shape = tuple(b - a for a, b in bounds)
        return replace(self, pieces=(Piece(tensor=piece.tensor, region=region),), shape=shape)

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
    """The concatenation along `axis`, or None where a part was already changed."""
    axis %= len(parts[0].shape)
    if any(p.steps for p in parts) or any(len(p.pieces) > 1 and p.axis != axis for p in parts):
        return None
    shape = list(parts[0].shape)
    shape[axis] = sum(p.shape[axis] for p in parts)
    pieces = tuple(piece for p in parts for piece in p.pieces)
    return replace(parts[0], pieces=pieces, axis=axis, shape=tuple(shape), trainable=any(p.trainable for p in parts))


def value(derived: Derived, state: dict[str, np.ndarray]) -> np.ndarray:
    """The numbers, from a state of PyTorch tensors by name."""
    from translator.bindings import WeightBinding, to_keras

    binding = WeightBinding(
        variable="", shape=derived.shape, pieces=derived.pieces, axis=derived.axis, steps=derived.steps
    )
    return to_keras(binding, state)
