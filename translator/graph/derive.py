"""Values that are a parameter after invertible steps: they keep their tie to the PyTorch tensor's name.

The exporter writes weights through small subgraphs (`Transpose(weight)`, slices of packed LSTM gates). Folding them
would lose the name; a `Derived` carries the pieces and the steps instead, and becomes a weight binding in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from translator.bindings import Permute, Piece, Reshape, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A tensor made of pieces of parameters: joined by concatenation along `axis`, then `steps`. shape: the result's."""

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
        axes = tuple(int(a) for a in axes)
        if axes == tuple(range(len(axes))):
            return self
        return replace(self, steps=(*self.steps, Permute(axes=axes)), shape=tuple(self.shape[a] for a in axes))

    def reshape(self, shape: Sequence[int]) -> Derived:
        after = tuple(int(d) for d in shape)
        if after == self.shape:
            return self
        return replace(self, steps=(*self.steps, Reshape(before=self.shape, after=after)), shape=after)

    def slice(self, starts: Sequence[int], stops: Sequence[int]) -> Derived | None:
        """The region [start, stop) per axis, or None where the pieces were already joined or changed."""
        bounds = tuple((int(a), int(b)) for a, b in zip(starts, stops, strict=True))
        if all(a == 0 and b == d for (a, b), d in zip(bounds, self.shape, strict=True)):
            return self
        if self.steps or len(self.pieces) != 1:
            return None
        piece = self.pieces[0]
        offset = [a for a, _ in piece.region] if piece.region else [0] * len(self.shape)
        region = tuple((o + a, o + b) for o, (a, b) in zip(offset, bounds, strict=True))
        shape = tuple(b - a for a, b in bounds)
        return replace(self, pieces=(Piece(tensor=piece.tensor, region=region),), shape=shape)


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
